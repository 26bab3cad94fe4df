//! Removal: nothing stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_e2e::{Cluster, eventually};

/// Kinds of which an installation has objects outside of its namespace.
const KINDS: &str = "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations,customresourcedefinitions";

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn uninstall_leaves_nothing() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    cluster.meshctl(&["uninstall", "--purge", "-y"])?;
    eventually(Duration::from_secs(60), "nothing is left", || {
        let said = cluster.kubectl_says(&["get", KINDS, "-o", "name"])?;
        let ours = ["mini-mesh", "mesh-control", "istio.io"];
        let left: Vec<&str> =
            said.lines().filter(|line| ours.iter().any(|name| line.contains(name))).collect();
        ensure!(left.is_empty(), "left: {}", left.join(", "));
        let maps = cluster.kubectl(&["get", "configmaps,secrets,leases", "-A", "-o", "name"])?;
        let left: Vec<&str> =
            maps.lines().filter(|line| ours.iter().any(|name| line.contains(name))).collect();
        ensure!(left.is_empty(), "left: {}", left.join(", "));
        let namespaces = cluster.kubectl(&["get", "namespaces", "-o", "name"])?;
        ensure!(!namespaces.contains("istio-system"), "the namespace is left");
        Ok(())
    })?;
    // Pods start as in any cluster.
    let pod = "
apiVersion: v1
kind: Pod
metadata: {name: after, namespace: default, labels: {sidecar.istio.io/inject: \"true\"}}
spec:
  restartPolicy: Never
  containers:
  - name: app
    image: docker.io/mini-mesh/shop:0.1.0
    args: [\"--version\"]
";
    cluster.kubectl_with(&["apply", "-f", "-"], &cluster.manifest(pod))?;
    let wait = ["wait", "pod/after", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s"];
    cluster.kubectl(&wait)?;
    cluster.kubectl(&["delete", "pod", "after", "--now"]).map(drop)
}
