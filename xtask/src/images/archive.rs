//! An image and the archive that carries it.
//!
//! The archive is an OCI image layout (image-spec 1.1, image-layout.md) and has Docker's `manifest.json` over
//! the same blobs, as `docker save` writes since 25.0. The layer is not compressed: nothing that loads an
//! archive gains by it, registries are pushed to in whatever form the pusher likes, and the digest does not
//! depend on the version of a compressor.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::layer::{self, Entry};

/// What an image is.
#[derive(Debug)]
pub(crate) struct Image {
    /// Full name with its tag.
    pub(crate) reference: String,
    /// The program that a container runs.
    pub(crate) entrypoint: String,
    /// User and group of the program.
    pub(crate) user: u32,
    /// Labels of the image.
    pub(crate) labels: Vec<(&'static str, String)>,
    /// Its files.
    pub(crate) entries: Vec<Entry>,
}

/// An image as it is written to disk.
#[derive(Debug)]
pub(crate) struct Archive {
    /// The archive.
    pub(crate) bytes: Vec<u8>,
    /// Digest of the image's manifest, by which a registry and a pod name it.
    pub(crate) digest: String,
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl Archive {
    /// Packs an image.
    ///
    /// # Errors
    /// When the image's reference has no tag, or a path does not fit into a tar.
    pub(crate) fn of(image: &Image) -> Result<Self> {
        let (_, tag) = image.reference.rsplit_once(':').context("an image's reference has a tag")?;
        let labels: Value = image.labels.iter().map(|(name, value)| (*name, json!(value))).collect();
        let layer = Blob::new(LAYER, layer::tar_of(&image.entries)?);
        let config = Blob::of_json(
            CONFIG,
            &json!({
                "architecture": architecture()?,
                "os": "linux",
                "config": {
                    "User": format!("{0}:{0}", image.user),
                    "Entrypoint": [image.entrypoint],
                    "WorkingDir": "/",
                    "Labels": labels,
                },
                "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
                "history": [{ "created_by": "cargo xtask images" }],
            }),
        )?;
        let manifest = Blob::of_json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": labels,
            }),
        )?;
        let mut entry = manifest.descriptor();
        entry["platform"] = json!({ "architecture": architecture()?, "os": "linux" });
        // The first is read by containerd and kind, the second by the tools of OCI.
        entry["annotations"] = json!({
            "io.containerd.image.name": image.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [image.reference],
            "Layers": [layer.path()],
        }]);

        let mut tar = Builder::new(Vec::new());
        for folder in ["blobs/", "blobs/sha256/"] {
            layer::append(&mut tar, folder, EntryType::Directory, 0o755, &[])?;
        }
        let mut put =
            |path: &str, bytes: &[u8]| layer::append(&mut tar, path, EntryType::Regular, 0o644, bytes);
        let mut blobs = [&layer, &config, &manifest];
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        for blob in blobs {
            put(&blob.path(), &blob.bytes)?;
        }
        put("index.json", &serde_json::to_vec(&index)?)?;
        put("manifest.json", &serde_json::to_vec(&docker)?)?;
        put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { bytes: tar.into_inner().context("cannot end a tar")?, digest: manifest.digest })
    }
}

/// Something that is named by its digest.
struct Blob {
    media_type: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: digest(&bytes), bytes }
    }

    fn of_json(media_type: &'static str, value: &Value) -> Result<Self> {
        Ok(Self::new(media_type, serde_json::to_vec(value)?))
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replacen(':', "/", 1))
    }
}

/// `sha256:` and 64 digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    let digits: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// The architecture that binaries are built for, as OCI names it.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("there are no images for {other}; build on x86_64 or aarch64"),
    }
}

/// Refuses names that registries and runtimes would refuse (distribution's reference grammar).
///
/// # Errors
/// When hub or tag cannot be a part of an image's name.
pub(crate) fn check_reference(hub: &str, tag: &str) -> Result<()> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    ensure!(
        !tag.is_empty() && tag.len() <= 128 && tag.chars().all(is_word) && !tag.starts_with(['.', '-']),
        "{tag:?} is no tag: at most 128 letters, digits, '.', '_' and '-', beginning with none of the last two"
    );
    let parts: Vec<&str> = hub.split('/').collect();
    let is_part = |part: &&str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-:".contains(c))
    };
    ensure!(
        parts.iter().all(is_part) && !parts.iter().skip(1).any(|part| part.contains(':')),
        "{hub:?} is no registry and folder, such as `docker.io/mini-mesh` or `localhost:5000`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            reference: "docker.io/mini-mesh/app:1".to_owned(),
            entrypoint: "/app".to_owned(),
            user: 1337,
            labels: vec![("org.opencontainers.image.title", "app".to_owned())],
            entries: vec![Entry::program("app", b"binary".to_vec()), Entry::file("etc/passwd", "x\n")],
        }
    }

    fn files(archive: &Archive) -> BTreeMap<String, Vec<u8>> {
        let mut tar = tar::Archive::new(archive.bytes.as_slice());
        let entries = tar.entries().expect("entries").map(|entry| entry.expect("an entry"));
        let read = entries.map(|mut entry| {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("contents");
            (entry.path().expect("a path").display().to_string(), bytes)
        });
        read.collect()
    }

    #[test]
    fn one_image_has_one_digest_and_one_archive() {
        let (one, two) = (Archive::of(&image()).expect("one"), Archive::of(&image()).expect("two"));
        assert_eq!((one.digest, one.bytes), (two.digest, two.bytes));
        let mut other = image();
        other.entries[0].contents.push(0);
        assert_ne!(Archive::of(&other).expect("other").digest, Archive::of(&image()).expect("one").digest);
    }

    #[test]
    fn every_descriptor_leads_to_a_blob_of_its_digest_and_size() {
        let archive = Archive::of(&image()).expect("an archive");
        let files = files(&archive);
        let read = |path: &str| -> Value { serde_json::from_slice(&files[path]).expect("JSON") };
        let follow = |descriptor: &Value| {
            let named = descriptor["digest"].as_str().expect("a digest");
            let blob = &files[&format!("blobs/{}", named.replacen(':', "/", 1))];
            assert_eq!(digest(blob), named);
            assert_eq!(descriptor["size"], json!(blob.len()));
            blob.clone()
        };
        let entry = &read("index.json")["manifests"][0];
        assert_eq!(entry["digest"], json!(archive.digest));
        assert_eq!(entry["annotations"]["io.containerd.image.name"], json!("docker.io/mini-mesh/app:1"));
        let manifest: Value = serde_json::from_slice(&follow(entry)).expect("a manifest");
        let config: Value = serde_json::from_slice(&follow(&manifest["config"])).expect("a configuration");
        let layer = follow(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], json!(digest(&layer)));
        assert_eq!(config["config"]["User"], json!("1337:1337"));
        assert_eq!(config["config"]["Entrypoint"], json!(["/app"]));
        let docker = &read("manifest.json")[0];
        assert_eq!(docker["RepoTags"], json!(["docker.io/mini-mesh/app:1"]));
        assert_eq!(files[docker["Layers"][0].as_str().expect("a path")], layer);
        assert_eq!(read("oci-layout")["imageLayoutVersion"], json!("1.0.0"));
    }

    #[test]
    fn names_that_a_registry_would_refuse_are_refused() {
        for (hub, tag) in [("docker.io/mini-mesh", "0.1.0"), ("localhost:5000", "a_b"), ("x/y/z", "1")] {
            assert!(check_reference(hub, tag).is_ok(), "{hub} {tag}");
        }
        let bad =
            [("", "1"), ("a//b", "1"), ("A/b", "1"), ("a/b:1", "1"), ("a", ""), ("a", "-1"), ("a", "x/y")];
        for (hub, tag) in bad {
            assert!(check_reference(hub, tag).is_err(), "{hub} {tag}");
        }
    }
}
