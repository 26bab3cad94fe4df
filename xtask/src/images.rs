//! `cargo xtask images`: the container images as archives, without a container engine.
//!
//! Each image is one static binary `FROM scratch` with a user of its own: no shell, no package manager,
//! nothing to update but the binary. An archive is an OCI layout and a `docker save` at once, so that kind,
//! containerd, Docker, podman and skopeo read it. What goes in depends on the sources, the compiler and the
//! bundle of public roots alone (no times, owners, orders or paths of the machine), so that two builds of one
//! commit have one digest. A CycloneDX bill of materials stands beside each archive.
//!
//! The build has a target folder of its own, because its flags differ from the ordinary build's and would
//! make each rebuild the other's crates. `meshctl` comes out beside the archives.

mod archive;
mod bill;
mod binaries;
mod layer;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::output;
use crate::process::{capture, command, target_directory, workspace};
use crate::tools;
use archive::{Archive, Image};
use layer::Entry;

/// Options.
#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// How the binaries are built: `release` for use, `dev` for tests.
    #[arg(long, value_enum, default_value_t = ImageProfile::Release)]
    profile: ImageProfile,
    /// Folder for the archives; `images` in cargo's target folder when not given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Tag of the images; the workspace's version when not given.
    #[arg(long)]
    tag: Option<String>,
    /// Registry and folder that the images' names begin with.
    #[arg(long, default_value = HUB)]
    hub: String,
}

/// How binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ImageProfile {
    /// Quick to build, without debugging information.
    Dev,
    /// Small and fast.
    Release,
}

/// Where the images live unless told otherwise; what `meshctl install` installs by default.
pub(crate) const HUB: &str = "docker.io/mini-mesh";

/// What an image is made of.
struct Recipe {
    /// Package, and last part of the image's name.
    package: &'static str,
    description: &'static str,
    /// User and group of the process, by number, so that `runAsNonRoot` can be checked.
    user: u32,
    /// Whether it calls servers whose certificates public authorities issue.
    has_public_roots: bool,
}

/// Numbers: 1337 is by whom interception tells the proxy's packets; 65532 is the customary `nonroot`.
const RECIPES: [Recipe; 3] = [
    Recipe {
        package: "mesh-proxy",
        description: "Sidecar proxy of Mini-Mesh",
        user: 1337,
        has_public_roots: false,
    },
    Recipe {
        package: "mesh-control",
        description: "Control plane of Mini-Mesh",
        user: 65532,
        has_public_roots: true,
    },
    Recipe {
        package: "shop",
        description: "Example shop of Mini-Mesh",
        user: 65532,
        has_public_roots: false,
    },
];

/// An image that was written, as `images.json` lists it.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    /// `docker.io/mini-mesh/mesh-proxy:0.1.0`.
    pub(crate) reference: String,
    /// Digest of its manifest.
    pub(crate) digest: String,
    /// Bytes of its archive.
    pub(crate) bytes: u64,
    /// The archive.
    pub(crate) archive: PathBuf,
    /// The bill of materials.
    pub(crate) bill: PathBuf,
}

/// Builds the images.
///
/// # Errors
/// When something cannot be built or written, or a binary is not what an image needs.
pub(crate) fn run(args: &ImagesArgs) -> Result<()> {
    let folder = match &args.output {
        Some(folder) => std::env::current_dir()?.join(folder),
        None => target_directory()?.join("images"),
    };
    let tag = args.tag.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    for written in write_all(args.profile, &folder, &args.hub, tag)? {
        let megabytes = written.bytes.div_ceil(1_000_000);
        output::line(&format!("{}  {}  {megabytes} MB", written.digest, written.reference));
    }
    output::note(&format!("archives and bills of materials are in {}", folder.display()));
    Ok(())
}

/// Builds every image into a folder.
///
/// # Errors
/// As for [`run`].
pub(crate) fn write_all(profile: ImageProfile, folder: &Path, hub: &str, tag: &str) -> Result<Vec<Written>> {
    archive::check_reference(hub, tag)?;
    tools::ensure(&[tools::PUBLIC_ROOTS])?;
    let mut packages = RECIPES.map(|recipe| recipe.package).to_vec();
    packages.push("mesh-cli");
    let built = binaries::build(&packages, profile)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let revision = revision();
    let mut all = Vec::new();
    for recipe in &RECIPES {
        let binary = built.join(recipe.package);
        let image = image_of(recipe, &binary, hub, tag, revision.as_deref())?;
        all.push(write(recipe, &image, folder)?);
    }
    // The command line that installs these images, static as well.
    fs::copy(built.join("meshctl"), folder.join("meshctl")).context("cannot copy meshctl")?;
    let mut list = serde_json::to_string_pretty(&all)?;
    list.push('\n');
    fs::write(folder.join("images.json"), list)?;
    Ok(all)
}

fn image_of(recipe: &Recipe, binary: &Path, hub: &str, tag: &str, revision: Option<&str>) -> Result<Image> {
    let contents = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    binaries::check(recipe.package, &contents)?;
    let user = recipe.user;
    let mut entries = vec![
        Entry::file("etc/group", format!("root:x:0:\nmini-mesh:x:{user}:\n")),
        Entry::file(
            "etc/passwd",
            format!("root:x:0:0:root:/:/none\nmini-mesh:x:{user}:{user}:mini-mesh:/:/none\n"),
        ),
        Entry::program(recipe.package, contents),
    ];
    if recipe.has_public_roots {
        let roots = fs::read(tools::PUBLIC_ROOTS_FILE).context(tools::PUBLIC_ROOTS_FILE)?;
        entries.push(Entry::file(tools::PUBLIC_ROOTS_FILE.trim_start_matches('/'), roots));
    }
    let mut labels = vec![
        ("org.opencontainers.image.title", recipe.package.to_owned()),
        ("org.opencontainers.image.description", recipe.description.to_owned()),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("org.opencontainers.image.licenses", "Apache-2.0".to_owned()),
    ];
    labels.extend(revision.map(|revision| ("org.opencontainers.image.revision", revision.to_owned())));
    Ok(Image {
        reference: format!("{hub}/{}:{tag}", recipe.package),
        entrypoint: format!("/{}", recipe.package),
        user,
        labels,
        entries,
    })
}

fn write(recipe: &Recipe, image: &Image, folder: &Path) -> Result<Written> {
    let archive = Archive::of(image)?;
    let path = folder.join(format!("{}.tar", recipe.package));
    fs::write(&path, &archive.bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let bill_path = folder.join(format!("{}.cdx.json", recipe.package));
    let bill = bill::of(recipe.package, image, &archive.digest)?;
    fs::write(&bill_path, bill).with_context(|| format!("cannot write {}", bill_path.display()))?;
    Ok(Written {
        reference: image.reference.clone(),
        digest: archive.digest,
        bytes: u64::try_from(archive.bytes.len())?,
        archive: path,
        bill: bill_path,
    })
}

/// The commit, marked when the tree differs from it; nothing outside of a clone.
fn revision() -> Option<String> {
    if !workspace().join(".git").exists() {
        return None;
    }
    let mut git = command("git", &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
    let answer = capture(&mut git).ok()?;
    let text = String::from_utf8(answer.stdout).ok()?.trim().to_owned();
    (answer.status.success() && !text.is_empty()).then_some(text)
}
