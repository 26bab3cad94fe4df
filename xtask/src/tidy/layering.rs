//! Which crate may depend on which, and that each inherits the workspace's lints.

use std::fs;

use anyhow::{Context as _, Result};

use super::metadata::{self, Edges, Metadata};

/// Every crate with those of ours that it may be built with. A new edge changes this table, so that it is
/// seen in review. Policy and identity know nothing of each other; control plane and proxy meet over the
/// wire only; what examples are is clients of the mesh.
const ALLOWED: &[(&str, &[&str])] = &[
    ("mesh-api", &[]),
    ("mesh-policy", &["mesh-api"]),
    ("mesh-identity", &["mesh-api"]),
    ("mesh-daemon", &[]),
    ("mesh-kube", &["mesh-api"]),
    ("mesh-control", &["mesh-api", "mesh-policy", "mesh-identity", "mesh-daemon", "mesh-kube"]),
    ("mesh-proxy", &["mesh-api", "mesh-policy", "mesh-identity", "mesh-daemon"]),
    ("mesh-cli", &["mesh-api", "mesh-policy", "mesh-kube"]),
    ("mesh-testkit", &["mesh-api", "mesh-policy", "mesh-identity", "mesh-control", "mesh-proxy"]),
    ("mesh-scale", &["mesh-api", "mesh-identity", "mesh-kube"]),
    ("shop", &[]),
    ("mesh-fuzz", &["mesh-api", "mesh-policy", "mesh-identity", "mesh-proxy"]),
    // Knows the mesh as its users do: by kubectl, meshctl and what comes over the wire.
    ("mesh-e2e", &[]),
    ("xtask", &["mesh-api"]),
];

/// Further edges that only tests have. The proxy's discovery client is tested
/// against the real control plane, so that both ends of the wire are held to each other.
const ALLOWED_IN_TESTS: &[(&str, &str)] =
    &[("mesh-proxy", "mesh-control"), ("mesh-proxy", "mesh-testkit"), ("mesh-control", "mesh-testkit")];

/// What a crate that decides and never acts may not be built with.
const IMPURE: &[(&str, &[&str])] =
    &[("mesh-policy", &["tokio", "tonic", "hyper", "rustls", "rand", "fastrand"])];

/// Finds edges that are not allowed and crates without the lints.
///
/// # Errors
/// When a manifest cannot be read.
pub(crate) fn check(metadata: &Metadata) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    for package in metadata.members() {
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
            breaches.push(format!("{}: not in the table of layers", package.name));
            continue;
        };
        for edges in [Edges::BuiltIn, Edges::Tests] {
            for dependency in metadata.inner_dependencies(package, edges) {
                let edge = (package.name.as_str(), dependency.name.as_str());
                let is_test_edge = edges == Edges::Tests && ALLOWED_IN_TESTS.contains(&edge);
                if !is_test_edge && !allowed.contains(&dependency.name.as_str()) {
                    breaches.push(format!("{} may not depend on {}", package.name, dependency.name));
                }
            }
        }
        let manifest = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("cannot read {}", package.manifest_path.display()))?;
        if !inherits_lints(&manifest) {
            breaches.push(format!("{} does not inherit the workspace's lints", package.name));
        }
    }
    for (name, impure) in IMPURE {
        let built_in = metadata::built_in(&["--package", name])?;
        let found = built_in.iter().filter(|package| impure.contains(&package.as_str()));
        breaches.extend(found.map(|package| format!("{name} is built with {package}")));
    }
    Ok(breaches)
}

fn inherits_lints(manifest: &str) -> bool {
    let section = manifest.split("\n[lints]\n").nth(1).unwrap_or_default();
    section.lines().take_while(|line| !line.starts_with('[')).any(|line| line.trim() == "workspace = true")
}

#[cfg(test)]
mod tests {
    use super::inherits_lints;

    #[test]
    fn lints_are_inherited_in_their_own_section_only() {
        assert!(inherits_lints("[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\n\n[lints]\n\n[dependencies]\nworkspace = true\n"));
    }
}
