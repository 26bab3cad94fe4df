//! Restarts, losses and upgrades: what is called meanwhile is answered, every time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::cluster::SYSTEM;
use mesh_e2e::namespace::{IN_FORCE, Injection, PAIR, STRICT};
use mesh_e2e::{Cluster, Namespace, eventually, figures, pause};

const PRODUCTS: [&str; 2] = ["GET", "http://catalog:8080/api/products"];

fn pair<'a>(cluster: &'a Cluster, name: &str) -> Result<Namespace<'a>> {
    let namespace = Namespace::new(cluster, name, Injection::Enabled)?;
    namespace.apply(STRICT)?;
    namespace.apply(PAIR)?;
    for workload in ["deployment/catalog", "deployment/client"] {
        namespace.rolled_out(workload)?;
    }
    eventually(IN_FORCE, "the pair talks", || {
        namespace.call("deploy/client", PRODUCTS[0], PRODUCTS[1])?.expect("200").map(drop)
    })?;
    Ok(namespace)
}

fn control_is_ready(cluster: &Cluster) -> Result<()> {
    let wait = ["rollout", "status", "deployment/mesh-control", "-n", SYSTEM, "--timeout=180s"];
    cluster.kubectl(&wait).map(drop)
}

fn scale_control(cluster: &Cluster, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    cluster.kubectl(&["scale", "deployment/mesh-control", "-n", SYSTEM, &replicas])?;
    control_is_ready(cluster)
}

/// Applies a policy and waits until a proxy holds to it.
fn close_product_4(namespace: &Namespace<'_>) -> Result<()> {
    eventually(Duration::from_secs(60), "a policy is taken", || {
        namespace
            .apply(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: closed}\n\
                 spec: {selector: {matchLabels: {app: catalog}}, action: DENY, \
                 rules: [{to: [{operation: {paths: [/api/products/4]}}]}]}\n",
            )
            .map(drop)
    })?;
    eventually(Duration::from_secs(60), "the policy is in force", || {
        namespace.call("deploy/client", "GET", "http://catalog:8080/api/products/4")?.expect("403").map(drop)
    })
}

fn leader(cluster: &Cluster) -> Result<String> {
    let lease = cluster.json(&["lease", "mesh-control-leader", "-n", SYSTEM])?;
    let holder = lease["spec"]["holderIdentity"].as_str().filter(|holder| !holder.is_empty());
    holder.map(str::to_owned).context("nobody leads")
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_rolling_restart_of_an_application_fails_no_request() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "rolling")?;
    let http = namespace.load("http", 45, &PRODUCTS)?;
    let grpc = namespace.load("grpc", 45, &["GRPC", "catalog:9090", "--body", "1"])?;
    for _ in 0..2 {
        namespace.kubectl(&["rollout", "restart", "deployment/catalog"])?;
        namespace.rolled_out("deployment/catalog")?;
    }
    http.totals()?.expect_none_failed(300)?;
    grpc.totals()?.expect_none_failed(300)?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_rolling_restart_of_the_control_plane_fails_no_request() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "control")?;
    let load = namespace.load("load", 30, &PRODUCTS)?;
    for _ in 0..2 {
        cluster.kubectl(&["rollout", "restart", "deployment/mesh-control", "-n", SYSTEM])?;
        control_is_ready(&cluster)?;
    }
    load.totals()?.expect_none_failed(250)?;
    // The authority is the same: a pod that starts now is understood by those that were there.
    namespace.kubectl(&["rollout", "restart", "deployment/client"])?;
    namespace.rolled_out("deployment/client")?;
    eventually(IN_FORCE, "a new pod is let in", || {
        namespace.call("deploy/client", PRODUCTS[0], PRODUCTS[1])?.expect("200").map(drop)
    })?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_killed_leader_is_followed_without_a_failed_request() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "leader")?;
    scale_control(&cluster, 2)?;
    let load = namespace.load("load", 60, &PRODUCTS)?;
    let before = eventually(Duration::from_secs(30), "somebody leads", || leader(&cluster))?;
    let pods = cluster.control_pods()?;
    let killed = pods.iter().find(|pod| before.starts_with(pod.as_str())).context("the leader is no pod")?;
    cluster.kill(SYSTEM, killed)?;
    let begun = Instant::now();
    eventually(Duration::from_secs(40), "another leads", || {
        let now = leader(&cluster)?;
        ensure!(now != before, "still {now}");
        Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    figures::note(&cluster, &format!("another leader {seconds:.1} s after the first was killed"))?;
    // The new one does what only a leader does: roots in a namespace that is new.
    let fresh = Namespace::new(&cluster, "fresh", Injection::Absent)?;
    eventually(Duration::from_secs(30), "the roots are in a new namespace", || {
        fresh.json(&["configmap", "mini-mesh-ca-root-cert"]).map(drop)
    })?;
    close_product_4(&namespace)?;
    load.totals()?.expect_none_failed(500)?;
    scale_control(&cluster, 1)?;
    fresh.done()?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn certificates_rotate_under_load_without_a_failed_request() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let set = |value: &str| {
        let value = format!("MESH_CONTROL_WORKLOAD_TTL{value}");
        cluster.kubectl(&["set", "env", "deployment/mesh-control", "-n", SYSTEM, &value])?;
        control_is_ready(&cluster)
    };
    set("=30s")?;
    let namespace = pair(&cluster, "rotation")?;
    let pod = namespace.pods("app=catalog")?.into_iter().next().context("a pod")?;
    let serials =
        || cluster.meshctl(&["proxy-config", "secret", &format!("{pod}.{}", namespace.name), "-o", "json"]);
    let before = serials()?;
    let load = namespace.load("load", 45, &PRODUCTS)?;
    load.totals()?.expect_none_failed(400)?;
    ensure!(before != serials()?, "the certificate is the same after more than its life: {before}");
    set("-")?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn while_the_api_server_is_stopped_for_a_minute_no_request_fails() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "api")?;
    let load = namespace.load("load", 90, &PRODUCTS)?;
    // The controller manager of an ordinary cluster ends when it cannot renew its own Lease, and begins anew with
    // the API server. One that went on would believe that all nodes were lost meanwhile.
    cluster.component("stop", "kube-controller-manager")?;
    cluster.component("stop", "kube-apiserver")?;
    pause(Duration::from_secs(60));
    cluster.component("start", "kube-apiserver")?;
    eventually(Duration::from_secs(60), "the API server is back", || {
        cluster.kubectl(&["get", "nodes"]).map(drop)
    })?;
    cluster.component("start", "kube-controller-manager")?;
    // What is applied now is in force soon: the watches are up again.
    close_product_4(&namespace)?;
    load.totals()?.expect_none_failed(800)?;
    let pods = cluster.json(&["pods", "-n", SYSTEM, "-l", "mini-mesh.io/component=control"])?;
    let restarts = &pods["items"][0]["status"]["containerStatuses"][0]["restartCount"];
    ensure!(*restarts == 0, "the control plane was restarted {restarts} times");
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn workloads_move_to_a_new_revision_and_back_without_a_failed_request() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "revision")?;
    let values = [format!("image.hub={}", cluster.hub), format!("image.tag={}", cluster.tag)];
    let load = namespace.load("load", 75, &PRODUCTS)?;
    cluster.meshctl(&["install", "-y", "--revision", "canary", "--set", &values[0], "--set", &values[1]])?;
    namespace.label("istio-injection-")?;
    namespace.label("istio.io/rev=canary")?;
    namespace.kubectl(&["rollout", "restart", "deployment/catalog"])?;
    namespace.rolled_out("deployment/catalog")?;
    let pods = namespace.json(&["pods", "-l", "app=catalog"])?;
    let moved = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    for pod in moved {
        ensure!(pod["metadata"]["annotations"]["istio.io/rev"] == "canary", "{}", pod["metadata"]);
    }
    namespace.label("istio.io/rev-")?;
    namespace.label("istio-injection=enabled")?;
    namespace.kubectl(&["rollout", "restart", "deployment/catalog"])?;
    namespace.rolled_out("deployment/catalog")?;
    load.totals()?.expect_none_failed(500)?;
    cluster.meshctl(&["uninstall", "--revision", "canary", "-y"])?;
    eventually(IN_FORCE, "the first revision goes on", || {
        namespace.call("deploy/client", PRODUCTS[0], PRODUCTS[1])?.expect("200").map(drop)
    })?;
    namespace.done()
}
