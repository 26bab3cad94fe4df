//! Kinds of workloads, as their authors write them.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_e2e::namespace::{IN_FORCE, Injection, PAIR, STRICT};
use mesh_e2e::{Cluster, Namespace, eventually};

const SHOP: &str = include_str!("../../examples/shop/kubernetes/shop.yaml");
const INTRUDER: &str = include_str!("../../examples/shop/kubernetes/intruder.yaml");
const STATEFUL: &str = include_str!("../manifests/stateful.yaml");
const LIBRARY: &str = include_str!("../manifests/library.yaml");

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn the_shop_of_plain_manifests_is_meshed_and_held_to_its_policies() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let shop = cluster.manifest(SHOP);
    let intruder = cluster.manifest(INTRUDER);
    for manifest in [&shop, &intruder] {
        cluster.kubectl_with(&["apply", "-f", "-"], manifest)?;
    }
    let at = |name: &str| Namespace { cluster: &cluster, name: name.to_owned() };
    let (web, backend, outside) = (at("web"), at("backend"), at("outside"));
    web.rolled_out("deployment/frontend")?;
    for workload in ["catalog", "orders", "payments", "store"] {
        backend.rolled_out(&format!("deployment/{workload}"))?;
    }
    outside.rolled_out("deployment/intruder")?;
    for (namespace, label) in [(&web, "app=frontend"), (&backend, "app=store"), (&backend, "app=batch")] {
        for pod in namespace.pods(label)? {
            ensure!(namespace.is_meshed(&pod)?, "{pod} has no proxy");
        }
    }
    backend.wait("condition=Complete", "job/batch")?;
    ensure!(backend.log("job/batch", "app")?.contains("4 products"), "the job has not read the catalog");

    let buy = ["POST", "http://frontend.web:8080/buy", "--body", "{\"product\": 1}"];
    eventually(IN_FORCE, "one can buy", || web.call_with("deploy/frontend", &buy)?.expect("201").map(drop))?;
    web.call("deploy/frontend", "GET", "http://localhost:8080/")?.expect("200")?;
    outside.call("deploy/intruder", "GET", "http://catalog.backend:8080/api/products")?.expect("200")?;

    // What the README does, one file after the other.
    let policies = [
        include_str!("../../examples/shop/policies/deny-all.yaml"),
        include_str!("../../examples/shop/policies/allow.yaml"),
    ];
    for policy in policies {
        cluster.kubectl_with(&["apply", "-f", "-"], policy)?;
    }
    backend.apply(STRICT)?;
    eventually(IN_FORCE, "the policies are in force", || {
        web.call("deploy/frontend", "GET", "http://payments.backend:8080/admin/ledger")?.expect("403")?;
        outside.call("deploy/intruder", "GET", "http://catalog.backend:8080/api/products")?.expect_none()?;
        web.call_with("deploy/frontend", &buy)?.expect("201").map(drop)
    })?;
    for name in ["web", "backend", "outside"] {
        at(name).done()?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_job_completes_and_an_init_container_talks_through_the_mesh() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = Namespace::new(&cluster, "job", Injection::Enabled)?;
    namespace.apply(STRICT)?;
    namespace.apply(PAIR)?;
    namespace.rolled_out("deployment/catalog")?;
    // The server takes nothing but mutual TLS, so that each of the two has used its proxy.
    namespace.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: report}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {app: report}}
    spec:
      serviceAccountName: client
      restartPolicy: Never
      initContainers:
      - name: before
        image: docker.io/mini-mesh/shop:0.1.0
        args: [call, GET, \"http://catalog:8080/api/products/1\"]
      containers:
      - name: app
        image: docker.io/mini-mesh/shop:0.1.0
        args: [batch, --catalog, \"catalog:9090\"]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: \"0 3 * * *\"
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        metadata: {labels: {app: nightly}}
        spec:
          serviceAccountName: client
          restartPolicy: Never
          containers:
          - name: app
            image: docker.io/mini-mesh/shop:0.1.0
            args: [call, GET, \"http://catalog:8080/api/products\"]
",
    )?;
    namespace.kubectl(&["create", "job", "tonight", "--from=cronjob/nightly"])?;
    namespace.wait("condition=Complete", "job/report")?;
    namespace.wait("condition=Complete", "job/tonight")?;
    ensure!(namespace.log("job/report", "before")?.starts_with("200 "), "the init container had no answer");
    ensure!(namespace.log("job/report", "app")?.contains("4 products"), "the job had no answer");
    for pod in namespace.pods("app=report")? {
        ensure!(namespace.is_meshed(&pod)?, "{pod} has no proxy");
        namespace.wait("jsonpath={.status.phase}=Succeeded", &format!("pod/{pod}"))?;
    }
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_stateful_set_is_called_by_the_names_of_its_pods() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = Namespace::new(&cluster, "ring", Injection::Enabled)?;
    namespace.apply(STRICT)?;
    namespace.apply(STATEFUL)?;
    namespace.apply(PAIR)?;
    namespace.rolled_out("statefulset/ring")?;
    for workload in ["deployment/client", "deployment/outsider"] {
        namespace.rolled_out(workload)?;
    }
    let say = |pod: &str, line: &str| {
        namespace.call_with("deploy/client", &["STORE", &format!("{pod}.ring:7000"), "--body", line])
    };
    for pod in ["ring-0", "ring-1"] {
        let answer = eventually(IN_FORCE, pod, || say(pod, &format!("PUT who {pod}"))?.expect("store"))?;
        ensure!(answer.text == "OK", "{answer:?}");
    }
    for pod in ["ring-0", "ring-1"] {
        let answer = say(pod, "GET who")?.expect("store")?;
        ensure!(answer.text == format!("VALUE {pod}"), "{pod} was asked and another answered: {answer:?}");
    }
    // A pod that is made anew has another address and the same name.
    namespace.kubectl(&["delete", "pod", "ring-1", "--wait=true"])?;
    namespace.rolled_out("statefulset/ring")?;
    eventually(Duration::from_secs(60), "ring-1 answers anew", || {
        let answer = say("ring-1", "GET who")?.expect("store")?;
        ensure!(answer.text == "NONE", "{answer:?}");
        Ok(())
    })?;
    let outside = ["STORE", "ring-0.ring:7000", "--body", "GET who"];
    namespace.call_with("deploy/outsider", &outside)?.expect_none()?;
    namespace.done()
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn a_published_sample_works_unmodified_before_and_under_strict() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let namespace = Namespace::new(&cluster, "library", Injection::Enabled)?;
    namespace.apply(LIBRARY)?;
    for workload in ["page-v1", "titles-v1", "titles-v2", "loans-v1", "till"] {
        namespace.rolled_out(&format!("deployment/{workload}"))?;
    }
    namespace.rolled_out("daemonset/shelf")?;
    let lend = ["POST", "http://page:9080/buy", "--body", "{\"title\": 1}"];
    let works = || {
        namespace.call("deploy/page-v1", "GET", "http://page:9080/")?.expect("200")?;
        namespace.call_with("deploy/till", &lend)?.expect("201").map(drop)
    };
    eventually(IN_FORCE, "the sample works", works)?;
    namespace.apply(STRICT)?;
    mesh_e2e::holds_for(Duration::from_secs(8), "the sample works under STRICT", works)?;
    namespace.done()
}
