//! A bill of materials: what is linked into an image's binary, as CycloneDX 1.6 JSON.
//!
//! From `cargo tree` for the platform of the image (the graph of `cargo metadata` holds optional
//! dependencies that no feature turns on), with licences from `cargo metadata` and checksums from
//! `Cargo.lock`. It has no time and no serial number, so that one build has one bill.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::archive::{Image, digest};
use crate::process::{capture, cargo, workspace};
use crate::tidy::metadata::{self, Metadata};

/// The bill of one image.
///
/// # Errors
/// When cargo fails, or names a package that it does not know.
pub(crate) fn of(package: &str, image: &Image, image_digest: &str) -> Result<String> {
    let metadata = metadata::read()?;
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("Cargo.lock")?;
    let checksums = checksums(&lock);
    let graph = Graph::parse(&tree(package)?)?;
    let mut components = Vec::new();
    for crate_of in graph.crates() {
        components.push(component(crate_of, &metadata, &checksums)?);
    }
    for entry in &image.entries {
        components.push(json!({
            "type": "file",
            "bom-ref": format!("file:/{}", entry.path),
            "name": format!("/{}", entry.path),
            "hashes": [{ "alg": "SHA-256", "content": hex(&digest(&entry.contents)) }],
        }));
    }
    let (name, tag) = image.reference.rsplit_once(':').context("an image's reference has a tag")?;
    let bill = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": "cargo xtask images" }] },
            "component": {
                "type": "container",
                "bom-ref": "image",
                "name": name,
                "version": tag,
                "hashes": [{ "alg": "SHA-256", "content": hex(image_digest) }],
                "licenses": [{ "expression": "Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": dependencies(&graph, image),
    });
    let mut text = serde_json::to_string_pretty(&bill)?;
    text.push('\n');
    Ok(text)
}

fn component(
    (name, version): &(String, String),
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
) -> Result<Value> {
    let known = metadata.packages.iter().find(|package| package.name == *name && package.version == *version);
    let known = known.with_context(|| format!("cargo metadata does not know {name} {version}"))?;
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(name, version),
        "name": name,
        "version": version,
        "purl": purl(name, version),
    });
    if let Some(licence) = &known.license {
        // The old way to write OR is no SPDX expression.
        component["licenses"] = json!([{ "expression": licence.replace('/', " OR ") }]);
    }
    if let Some(checksum) = checksums.get(&(name.clone(), version.clone())) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
    }
    Ok(component)
}

fn dependencies(graph: &Graph, image: &Image) -> Vec<Value> {
    let files = image.entries.iter().map(|entry| format!("file:/{}", entry.path));
    let root = graph.root.iter().map(|(name, version)| purl(name, version));
    let mut all = vec![json!({ "ref": "image", "dependsOn": root.chain(files).collect::<Vec<_>>() })];
    for (of, on) in &graph.edges {
        let on: Vec<String> = on.iter().map(|(name, version)| purl(name, version)).collect();
        all.push(json!({ "ref": purl(&of.0, &of.1), "dependsOn": on }));
    }
    all
}

fn purl(name: &str, version: &str) -> String {
    format!("pkg:cargo/{name}@{version}")
}

fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}

/// What `cargo tree` says of one package: a line per crate, each with its depth.
fn tree(package: &str) -> Result<String> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut tree = cargo(&["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "depth"]);
    tree.args(["--format", " {p}", "--package", package, "--target", &target]);
    let answer = capture(&mut tree)?;
    ensure!(answer.status.success(), "cargo tree: {}", String::from_utf8_lossy(&answer.stderr).trim());
    String::from_utf8(answer.stdout).context("cargo tree")
}

type Crate = (String, String);

/// Who is linked with whom.
#[derive(Debug, Default)]
struct Graph {
    root: Option<Crate>,
    edges: BTreeMap<Crate, BTreeSet<Crate>>,
}

impl Graph {
    /// Reads lines such as `2 tokio v1.54.1 (*)`; a crate that was shown before has its edges there.
    fn parse(text: &str) -> Result<Self> {
        let mut graph = Self::default();
        let mut above: Vec<Crate> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let depth = words.next().and_then(|word| word.parse::<usize>().ok());
            let name = words.next();
            let version = words.next().and_then(|word| word.strip_prefix('v'));
            let (Some(depth), Some(name), Some(version)) = (depth, name, version) else {
                anyhow::bail!("cargo tree says {line:?}, which is not understood");
            };
            ensure!(depth <= above.len(), "cargo tree leaves out a level at {line:?}");
            let this = (name.to_owned(), version.to_owned());
            above.truncate(depth);
            match above.last() {
                Some(parent) => {
                    graph.edges.entry(parent.clone()).or_default().insert(this.clone());
                }
                None => graph.root = Some(this.clone()),
            }
            graph.edges.entry(this.clone()).or_default();
            above.push(this);
        }
        ensure!(graph.root.is_some(), "cargo tree says nothing");
        Ok(graph)
    }

    fn crates(&self) -> impl Iterator<Item = &Crate> {
        self.edges.keys()
    }
}

/// Checksums of `Cargo.lock`, whose packages are blocks of `name`, `version`, `source`, `checksum`.
fn checksums(lock: &str) -> BTreeMap<Crate, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""))?;
        Some(line.trim_end_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks
        .filter_map(|block| {
            Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(name: &str, version: &str) -> Crate {
        (name.to_owned(), version.to_owned())
    }

    #[test]
    fn the_graph_follows_depths_and_joins_what_is_shown_again() {
        let text = "0 app v1.0.0 (/x)\n1 a v0.1.0\n2 b v2.0.0\n1 c v3.0.0\n2 a v0.1.0 (*)\n";
        let graph = Graph::parse(text).expect("a graph");
        assert_eq!(graph.root, Some(at("app", "1.0.0")));
        assert_eq!(graph.edges[&at("app", "1.0.0")], BTreeSet::from([at("a", "0.1.0"), at("c", "3.0.0")]));
        assert_eq!(graph.edges[&at("a", "0.1.0")], BTreeSet::from([at("b", "2.0.0")]));
        assert_eq!(graph.edges[&at("c", "3.0.0")], BTreeSet::from([at("a", "0.1.0")]));
        assert_eq!(graph.crates().count(), 4);
        for bad in ["", "x\n", "0 app v1\n2 b v1\n"] {
            assert!(Graph::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn checksums_belong_to_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ff\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        assert_eq!(checksums(lock), BTreeMap::from([(at("a", "1.0.0"), "ff".to_owned())]));
    }

    #[test]
    fn the_bill_of_this_workspaces_proxy_names_what_is_linked_with_its_licence() {
        let image = Image {
            reference: "docker.io/mini-mesh/mesh-proxy:1".to_owned(),
            entrypoint: "/mesh-proxy".to_owned(),
            user: 1337,
            labels: Vec::new(),
            entries: Vec::new(),
        };
        let bill = of("mesh-proxy", &image, "sha256:00").expect("a bill");
        assert_eq!(bill, of("mesh-proxy", &image, "sha256:00").expect("the bill again"));
        let bill: Value = serde_json::from_str(&bill).expect("JSON");
        let components = bill["components"].as_array().expect("components");
        let rustls = components.iter().find(|component| component["name"] == "rustls").expect("rustls");
        assert!(rustls["licenses"][0]["expression"].as_str().is_some_and(|licence| licence.contains("MIT")));
        assert_eq!(rustls["hashes"][0]["content"].as_str().map(str::len), Some(64));
        assert!(components.iter().all(|component| component["name"] != "proptest"));
    }
}
