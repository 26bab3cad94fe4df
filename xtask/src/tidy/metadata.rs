//! What cargo says: packages, how ours depend on each other, and what is built into them on Linux.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::process::{capture, cargo};

/// The whole answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the graph.
    pub(crate) packages: Vec<Package>,
    /// Ids of our own.
    pub(crate) workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Unique.
    pub(crate) id: String,
    /// As in Cargo.toml.
    pub(crate) name: String,
    /// As in Cargo.toml.
    pub(crate) version: String,
    /// SPDX expression.
    pub(crate) license: Option<String>,
    /// Where it comes from; nothing for a folder.
    pub(crate) source: Option<String>,
    /// Its Cargo.toml.
    pub(crate) manifest_path: std::path::PathBuf,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl Dependency {
    /// Whether it is needed for more than tests.
    fn is_built_in(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
    }
}

/// Asks cargo.
///
/// # Errors
/// When cargo fails.
pub(crate) fn read() -> Result<Metadata> {
    let platform = "x86_64-unknown-linux-gnu";
    let answer = capture(&mut cargo(&[
        "metadata",
        "--format-version=1",
        "--all-features",
        "--filter-platform",
        platform,
    ]))?;
    ensure!(answer.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&answer.stderr).trim());
    serde_json::from_slice(&answer.stdout).context("cargo metadata")
}

/// Names of what is built into binaries, and build scripts, of a selection of packages. By `cargo tree`, because
/// the graph of `cargo metadata` holds optional dependencies that no feature turns on.
///
/// # Errors
/// When cargo fails.
pub(crate) fn built_in(selection: &[&str]) -> Result<BTreeSet<String>> {
    let mut tree = cargo(&["tree", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let answer = capture(tree.args(selection))?;
    ensure!(answer.status.success(), "cargo tree: {}", String::from_utf8_lossy(&answer.stderr).trim());
    let text = String::from_utf8_lossy(&answer.stdout);
    Ok(text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect())
}

impl Metadata {
    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }

    /// Our own packages that one of ours is built with, or with [`Edges::Tests`] tested with.
    pub(crate) fn inner_dependencies(&self, package: &Package, edges: Edges) -> Vec<&Package> {
        let node = self.resolve.nodes.iter().find(|node| node.id == package.id);
        let dependencies = node.into_iter().flat_map(|node| &node.deps);
        let wanted = dependencies.filter(|dependency| match edges {
            Edges::BuiltIn => dependency.is_built_in(),
            Edges::Tests => !dependency.is_built_in(),
        });
        wanted.filter_map(|dependency| self.members().find(|member| member.id == dependency.pkg)).collect()
    }
}

/// Which edges are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edges {
    /// Those that end up in binaries, and build scripts.
    BuiltIn,
    /// Those that only tests have.
    Tests,
}
