//! What is refused and what is served, with real pods.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_e2e::namespace::{IN_FORCE, Injection, PAIR, STRICT};
use mesh_e2e::{Cluster, Namespace, eventually, holds_for};

const PRODUCTS: &str = "http://catalog:8080/api/products";

fn pair<'a>(cluster: &'a Cluster, name: &str) -> Result<Namespace<'a>> {
    let namespace = Namespace::new(cluster, name, Injection::Enabled)?;
    namespace.apply(PAIR)?;
    for workload in ["deployment/catalog", "deployment/client", "deployment/outsider"] {
        namespace.rolled_out(workload)?;
    }
    Ok(namespace)
}

fn answers(namespace: &Namespace<'_>, from: &str, status: &str) -> Result<()> {
    eventually(IN_FORCE, &format!("{from} gets {status}"), || {
        namespace.call(from, "GET", PRODUCTS)?.expect(status).map(drop)
    })
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn permissive_serves_plaintext_and_strict_serves_the_mesh_alone() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "strict")?;
    for pod in namespace.pods("app=catalog")? {
        ensure!(namespace.is_meshed(&pod)?, "{pod} has no proxy");
    }
    for pod in namespace.pods("app=outsider")? {
        ensure!(!namespace.is_meshed(&pod)?, "{pod} has a proxy and asked for none");
    }
    answers(&namespace, "deploy/client", "200")?;
    answers(&namespace, "deploy/outsider", "200")?;

    namespace.apply(STRICT)?;
    answers(&namespace, "deploy/outsider", "error")?;
    holds_for(Duration::from_secs(5), "the mesh is served and plaintext is not", || {
        namespace.call("deploy/client", "GET", PRODUCTS)?.expect("200")?;
        namespace.call("deploy/outsider", "GET", PRODUCTS)?.expect_none().map(drop)
    })?;

    namespace.kubectl(&["delete", "peerauthentication", "default"])?;
    answers(&namespace, "deploy/outsider", "200")?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn what_is_denied_by_default_is_served_once_it_is_allowed() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = pair(&cluster, "allow")?;
    answers(&namespace, "deploy/client", "200")?;

    namespace.apply(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all}\nspec: {}\n",
    )?;
    answers(&namespace, "deploy/client", "403")?;
    namespace
        .call_with("deploy/client", &["GRPC", "catalog:9090", "--body", "1"])?
        .expect("grpc-PermissionDenied")?;

    namespace.apply(&format!(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: catalog-access}}
spec:
  selector: {{matchLabels: {{app: catalog}}}}
  action: ALLOW
  rules:
  - from: [{{source: {{principals: [\"cluster.local/ns/{}/sa/client\"]}}}}]
    to: [{{operation: {{methods: [GET], paths: [\"/api/products*\"]}}}}]
",
        namespace.name
    ))?;
    answers(&namespace, "deploy/client", "200")?;
    namespace.call("deploy/client", "POST", PRODUCTS)?.expect("403")?;
    namespace.call("deploy/outsider", "GET", PRODUCTS)?.expect("403")?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_broken_policy_is_refused_by_kubectl_apply_with_field_and_reason() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = Namespace::new(&cluster, "broken", Injection::Absent)?;
    let said = namespace.apply_refused(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken}
spec:
  rules:
  - from: [{source: {ipBlocks: [\"10.0.0.0/33\"]}}]
",
    )?;
    ensure!(said.contains("spec.rules[0].from[0].source.ipBlocks[0]"), "the field is not named: {said}");
    let said = namespace.apply_refused(
        "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: broken}
spec: {rules: [{form: [{source: {namespaces: [a]}}]}]}
",
    )?;
    ensure!(said.contains("form"), "a mistyped field is not named: {said}");
    let kept = namespace.json(&["authorizationpolicies"])?;
    ensure!(kept["items"].as_array().is_some_and(Vec::is_empty), "something was kept: {kept}");
    namespace.apply(STRICT)?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn probes_of_every_kind_work_under_strict_and_open_nothing_else() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = Namespace::new(&cluster, "probes", Injection::Enabled)?;
    namespace.apply(STRICT)?;
    namespace.apply(PAIR)?;
    for workload in ["deployment/catalog", "deployment/client", "deployment/outsider"] {
        namespace.rolled_out(workload)?;
    }
    answers(&namespace, "deploy/client", "200")?;
    // The kubelet asks again and again; nothing may be restarted or lose its readiness.
    holds_for(Duration::from_secs(12), "ready and never restarted", || {
        let pods = namespace.json(&["pods", "-l", "app=catalog"])?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let status = &pod["status"]["containerStatuses"][0];
            ensure!(status["ready"] == true && status["restartCount"] == 0, "{status}");
        }
        Ok(())
    })?;
    // What the kubelet may ask others may ask too, and nothing beside it.
    let pods = namespace.json(&["pods", "-l", "app=catalog"])?;
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    let outsider = |target: String| namespace.call("deploy/outsider", "GET", &target);
    outsider(format!("http://{address}:15021/app-health/app/readyz"))?.expect("200")?;
    outsider(format!("http://{address}:15021/app-health/app/other"))?.expect("404")?;
    outsider(format!("http://{address}:8080/api/products"))?.expect_none()?;
    namespace.done()
}
