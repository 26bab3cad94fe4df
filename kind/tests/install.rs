//! Installation: one command, twice without effect, no more rights than needed, and what it costs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::cluster::SYSTEM;
use mesh_e2e::{Cluster, eventually, figures};

/// Runs in alphabetical order after [`a_mesh_is_installed_by_one_command_and_a_second_changes_nothing`].
#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_mesh_is_installed_by_one_command_and_a_second_changes_nothing() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    cluster.meshctl(&["check", "--pre"])?;
    let values = [format!("image.hub={}", cluster.hub), format!("image.tag={}", cluster.tag)];
    let install = ["install", "-y", "--set", &values[0], "--set", &values[1]];
    let begun = Instant::now();
    cluster.meshctl(&install)?;
    let seconds = begun.elapsed().as_secs_f64();
    figures::note(&cluster, &format!("install: {seconds:.1} s until the control plane is ready"))?;

    let versions = || -> Result<Vec<String>> {
        let all = cluster.json(&[
            "deployments,services,configmaps",
            "-n",
            SYSTEM,
            "-l",
            "app.kubernetes.io/part-of=mini-mesh",
        ])?;
        let items = all["items"].as_array().context("items")?;
        Ok(items
            .iter()
            .map(|item| item["metadata"]["generation"].to_string() + &item["metadata"]["uid"].to_string())
            .collect())
    };
    let before = versions()?;
    ensure!(!before.is_empty(), "nothing of the installation has the label part-of");
    cluster.meshctl(&install)?;
    ensure!(before == versions()?, "the second installation changed something");

    cluster.meshctl(&["verify-install"])?;
    eventually(Duration::from_secs(60), "check is well", || cluster.meshctl(&["check"]).map(drop))
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn the_control_plane_may_read_no_secrets_but_its_own() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let may = |arguments: &[&str]| -> Result<bool> {
        let mut all = vec!["auth", "can-i", "--as=system:serviceaccount:istio-system:mesh-control"];
        all.extend(arguments);
        Ok(cluster.kubectl_says(&all)?.lines().any(|line| line == "yes"))
    };
    ensure!(may(&["get", "secrets/mini-mesh-ca", "-n", SYSTEM])?, "not even its own authority");
    for refused in [
        ["list", "secrets", "-A"],
        ["get", "secrets", "-A"],
        ["watch", "secrets", "-A"],
        ["create", "pods", "-A"],
        ["create", "pods/exec", "-A"],
        ["update", "deployments.apps", "-A"],
        ["impersonate", "users", "-A"],
        ["create", "clusterrolebindings.rbac.authorization.k8s.io", "-A"],
        ["list", "configmaps", "-A"],
        ["create", "configmaps", "-A"],
        ["patch", "configmaps", "-A"],
        ["delete", "configmaps", "-A"],
        ["update", "authorizationpolicies.security.istio.io", "-A"],
    ] {
        ensure!(!may(&refused)?, "it may {}", refused.join(" "));
    }
    // Its settings are for it to read, and nobody else's lease is its.
    for refused in [
        ["update", "configmaps/mini-mesh", "-n", SYSTEM],
        ["patch", "configmaps/mini-mesh", "-n", SYSTEM],
        ["update", "leases.coordination.k8s.io/other", "-n", SYSTEM],
    ] {
        ensure!(!may(&refused)?, "it may {}", refused.join(" "));
    }
    ensure!(!may(&["get", "secrets/other", "-n", SYSTEM])?, "it may read any secret of its namespace");
    ensure!(!may(&["list", "secrets", "-n", SYSTEM])?, "it may list the secrets of its namespace");
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn the_control_plane_runs_where_pod_security_is_restricted() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let labels = "pod-security.kubernetes.io/enforce=restricted";
    // A dry run of the label lists every pod that would not be let in.
    let output =
        cluster.kubectl_says(&["label", "--dry-run=server", "--overwrite", "namespace", SYSTEM, labels])?;
    ensure!(!output.contains("violate"), "{output}");
    cluster.kubectl(&["label", "--overwrite", "namespace", SYSTEM, labels])?;
    let old = cluster.control_pods()?;
    cluster.kubectl(&["delete", "pod", "-n", SYSTEM, &old[0]])?;
    cluster.kubectl(&["rollout", "status", "deployment/mesh-control", "-n", SYSTEM, "--timeout=120s"])?;
    ensure!(!cluster.control_pods()?.contains(&old[0]), "no new pod was let in");

    let nodes = cluster.json(&["nodes"])?;
    let node = nodes["items"][0]["metadata"]["name"].as_str().context("a node")?;
    let statistics = eventually(Duration::from_secs(60), "the kubelet knows the memory", || {
        let text =
            cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/stats/summary")])?;
        let summary: serde_json::Value = serde_json::from_str(&text)?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let ours = pods
            .into_iter()
            .find(|pod| pod["podRef"]["name"].as_str().is_some_and(|name| name.starts_with("mesh-control")));
        ours.and_then(|pod| pod["memory"]["workingSetBytes"].as_u64())
            // A pod that has just begun is listed before it was looked at.
            .filter(|bytes| *bytes > 1024 * 1024)
            .context("no figure yet")
    })?;
    figures::note(&cluster, &format!("memory of the control plane: {} MiB", statistics / 1024 / 1024))
}
