//! The control plane as its proxies meet it: over TLS on loopback, from folders on disk.

use std::time::{Duration, Instant};

use super::support::{CATALOG, FRONTEND, Mesh, Proxy, WORKLOADS, issue, policy};
use mesh_api::model::{Destination, PeerTls, ProxyConfig, TrustBundleSet, WorkloadPolicies};
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::{SELF, TypeUrl, decode};
use tonic::Code;

const CATALOG_HOST: &str = "host/catalog.backend.svc.cluster.local";

async fn catalog(mesh: &Mesh) -> Proxy {
    let identity = mesh.bootstrap(CATALOG).await;
    let channel = mesh.authenticated(&identity).await;
    Proxy::connect(channel, "catalog-0.backend").await.expect("served")
}

async fn policies(proxy: &mut Proxy) -> WorkloadPolicies {
    let response = proxy.next().await;
    decode(TypeUrl::WorkloadPolicies, &response.resources[0]).expect("policies")
}

fn methods(policies: &WorkloadPolicies) -> Vec<String> {
    let rules = policies.authorization.iter().flat_map(|policy| &policy.rules);
    rules.flat_map(|rule| &rule.to).flat_map(|to| to.methods.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_bootstraps_and_is_sent_its_own_configuration_and_what_it_asks_for() {
    let mesh = Mesh::start().await;
    let identity = mesh.bootstrap(FRONTEND).await;
    let channel = mesh.authenticated(&identity).await;
    let mut proxy = Proxy::connect(channel, "frontend-0.web").await.expect("served");
    proxy.subscribe(TypeUrl::TrustBundle, &[SELF], &[]).await;
    let bundle: TrustBundleSet =
        decode(TypeUrl::TrustBundle, &proxy.next().await.resources[0]).expect("a bundle");
    assert_eq!(bundle, mesh.root().to_model());
    proxy.subscribe(TypeUrl::ProxyConfig, &[SELF], &[]).await;
    let config: ProxyConfig =
        decode(TypeUrl::ProxyConfig, &proxy.next().await.resources[0]).expect("a configuration");
    assert_eq!((config.workload.as_str(), config.namespace.as_str()), ("frontend-0", "web"));
    proxy
        .subscribe(TypeUrl::Destination, &[CATALOG_HOST, "host/nobody.backend.svc.cluster.local"], &[])
        .await;
    let response = proxy.next().await;
    assert_eq!(response.removed_resources, ["host/nobody.backend.svc.cluster.local"]);
    let destination: Destination =
        decode(TypeUrl::Destination, &response.resources[0]).expect("a destination");
    let endpoint = &destination.endpoints[0];
    assert_eq!(
        (endpoint.address.to_string().as_str(), endpoint.target_ports.as_slice()),
        ("10.77.0.20", [8080].as_slice())
    );
    assert!(matches!(&endpoint.tls[0], PeerTls::Mutual { identity } if identity.as_str() == CATALOG));
    let virtual_address = destination.addresses.first().expect("a virtual address").to_string();
    proxy
        .subscribe(TypeUrl::Destination, &[&format!("addr/{virtual_address}"), "addr/10.77.0.20"], &[])
        .await;
    let response = proxy.next().await;
    let found: Vec<Destination> =
        response.resources.iter().map(|r| decode(TypeUrl::Destination, r).expect("valid")).collect();
    assert_eq!(found.len(), 2);
    assert!(found.iter().any(|found| found.host == destination.host && found.direct.is_none()));
    assert!(found.iter().any(|found| found.host == "10.77.0.20" && found.direct.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_edit_reaches_its_workload_within_a_second_and_nobody_else() {
    let mesh = Mesh::start().await;
    let mut served = catalog(&mesh).await;
    served.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    assert!(policies(&mut served).await.authorization.is_empty());
    let other = mesh.bootstrap(FRONTEND).await;
    let channel = mesh.authenticated(&other).await;
    let mut other = Proxy::connect(channel, "frontend-0.web").await.expect("served");
    other.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    policies(&mut other).await;
    let start = Instant::now();
    mesh.write("policy.yaml", &policy("access", "GET"));
    assert_eq!(methods(&policies(&mut served).await), ["GET"]);
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    assert!(other.is_quiet().await, "a policy of another namespace was pushed");
    mesh.remove("policy.yaml");
    assert!(policies(&mut served).await.authorization.is_empty(), "a deleted policy is in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_document_keeps_its_last_good_version_and_not_its_neighbours() {
    let mut mesh = Mesh::start().await;
    mesh.write("policy.yaml", &format!("{}---\n{}", policy("a", "GET"), policy("b", "POST")));
    mesh.until("the policies", |running| running.plane.configuration().objects.documents.len() == 5).await;
    let mut proxy = catalog(&mesh).await;
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    assert_eq!(methods(&policies(&mut proxy).await), ["GET", "POST"]);
    let broken = policy("a", "GET").replace("rules:", "ruels:");
    mesh.write("policy.yaml", &format!("{broken}---\n{}", policy("b", "PUT")));
    assert_eq!(methods(&policies(&mut proxy).await), ["GET", "PUT"]);
    let problems = mesh.running().plane.problems();
    let problem = problems.iter().find(|p| p.code == "IST0106").expect("the error is reported");
    assert!(problem.origin.file.ends_with("policy.yaml") && problem.origin.line > 0, "{problem}");
    let held = mesh.running().plane.configuration().folders[0].held.clone();
    assert_eq!(held.len(), 1);
    drop(proxy);
    mesh.restart().await;
    let mut proxy = catalog(&mesh).await;
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    assert_eq!(methods(&policies(&mut proxy).await), ["GET", "PUT"], "a restart lost the last good version");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_vanishes_is_held_until_it_is_confirmed() {
    let mesh = Mesh::start().await;
    mesh.write("policy.yaml", &policy("access", "GET"));
    mesh.until("the policy", |running| running.plane.configuration().objects.documents.len() == 4).await;
    let aside = mesh.folder.path().join("aside");
    std::fs::rename(mesh.config_dir(), &aside).expect("moved");
    mesh.until("suspension", |running| running.plane.configuration().folders[0].suspended.is_some()).await;
    assert_eq!(mesh.running().plane.configuration().objects.documents.len(), 4);
    std::fs::rename(&aside, mesh.config_dir()).expect("moved back");
    mesh.until("the return", |running| running.plane.configuration().folders[0].suspended.is_none()).await;
    mesh.remove("policy.yaml");
    mesh.remove("workloads.yaml");
    mesh.until("suspension", |running| running.plane.configuration().folders[0].suspended.is_some()).await;
    assert_eq!(mesh.running().plane.configuration().objects.documents.len(), 4);
    let plane = &mesh.running().plane;
    plane.confirmations.try_send(mesh.config_dir()).expect("room");
    plane.look_now.notify_one();
    mesh.until("removal", |running| running.plane.configuration().objects.documents.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_only_differences_are_sent_and_the_root_is_the_same() {
    let mut mesh = Mesh::start().await;
    let identity = mesh.bootstrap(CATALOG).await;
    let mut proxy =
        Proxy::connect(mesh.authenticated(&identity).await, "catalog-0.backend").await.expect("served");
    proxy.subscribe(TypeUrl::ProxyConfig, &[SELF], &[]).await;
    proxy.next().await;
    proxy.subscribe(TypeUrl::Destination, &[CATALOG_HOST], &[]).await;
    proxy.next().await;
    let version = |kind: TypeUrl, name: &str| {
        proxy.has.get(&(kind, name.to_owned())).cloned().flatten().expect("a version")
    };
    let config = version(TypeUrl::ProxyConfig, SELF);
    let destination = version(TypeUrl::Destination, CATALOG_HOST);
    let root = mesh.root();
    drop(proxy);
    mesh.halt().await;
    mesh.write("policy.yaml", &policy("access", "GET"));
    mesh.restart().await;
    assert_eq!(mesh.root(), root);
    let mut proxy =
        Proxy::connect(mesh.authenticated(&identity).await, "catalog-0.backend").await.expect("served");
    proxy.subscribe(TypeUrl::ProxyConfig, &[SELF], &[(SELF, &config)]).await;
    proxy.subscribe(TypeUrl::Destination, &[CATALOG_HOST], &[(CATALOG_HOST, &destination)]).await;
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[(SELF, "before")]).await;
    let response = proxy.next().await;
    assert_eq!(response.type_url, TypeUrl::WorkloadPolicies.as_str(), "more than the difference was sent");
    assert!(proxy.is_quiet().await, "more than the difference was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_push_is_reported_and_the_next_one_is_offered() {
    let mesh = Mesh::start().await;
    let mut proxy = catalog(&mesh).await;
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    let first = proxy.receive().await.expect("served").expect("open");
    proxy.answer(&first, Some("policy does not compile")).await;
    mesh.until("the report", |running| {
        let proxies = running.plane.proxies();
        proxies["catalog-0.backend"]
            .types
            .values()
            .any(|(state, _)| state.error.as_deref() == Some("policy does not compile"))
    })
    .await;
    assert!(proxy.is_quiet().await, "the rejected version was offered again");
    mesh.write("policy.yaml", &policy("access", "GET"));
    assert_eq!(methods(&policies(&mut proxy).await), ["GET"]);
    mesh.until("recovery", |running| {
        let proxies = running.plane.proxies();
        proxies["catalog-0.backend"].types.values().all(|(state, _)| state.error.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_identity_is_refused() {
    let mesh = Mesh::start().await;
    let identity = mesh.bootstrap(FRONTEND).await;
    for node in ["catalog-0.backend", "nobody.backend"] {
        let mut proxy = Proxy::connect(mesh.authenticated(&identity).await, node).await.expect("opened");
        proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
        assert_eq!(proxy.refusal().await, Code::PermissionDenied, "{node}");
    }
    let other_account = mesh.bootstrap("spiffe://cluster.local/ns/backend/sa/other").await;
    let channel = mesh.authenticated(&other_account).await;
    let mut proxy = Proxy::connect(channel, "catalog-0.backend").await.expect("opened");
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    assert_eq!(proxy.refusal().await, Code::PermissionDenied);
    let refused = Proxy::connect(mesh.anonymous().await, "catalog-0.backend").await.err();
    assert_eq!(refused.expect("refused").code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_that_is_not_known_yet_is_waited_for() {
    let mesh = Mesh::start().await;
    let identity = mesh.bootstrap("spiffe://cluster.local/ns/web/sa/late").await;
    let mut proxy = Proxy::connect(mesh.authenticated(&identity).await, "late-0.web").await.expect("opened");
    proxy.subscribe(TypeUrl::ProxyConfig, &[SELF], &[]).await;
    assert!(proxy.is_quiet().await, "something was sent to an unknown workload");
    assert!(mesh.running().plane.proxies()["late-0.web"].waiting.is_some());
    let entry = WORKLOADS.split("---").next().expect("a document");
    let late =
        entry.replace("frontend-0", "late-0").replace("serviceAccount: frontend", "serviceAccount: late");
    mesh.write("late.yaml", &late.replace("10.77.0.10", "10.77.0.30"));
    let config: ProxyConfig =
        decode(TypeUrl::ProxyConfig, &proxy.next().await.resources[0]).expect("a configuration");
    assert_eq!(config.workload, "late-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_token_is_good_once_even_after_a_restart() {
    let mut mesh = Mesh::start().await;
    let token = mesh.token(FRONTEND);
    let ask = async |mesh: &Mesh| {
        issue(mesh.anonymous().await, mesh.root(), Attestation::JoinToken(token.clone())).await
    };
    assert!(ask(&mesh).await.is_ok());
    assert_eq!(ask(&mesh).await.expect_err("refused").code(), Code::Unauthenticated);
    mesh.restart().await;
    assert_eq!(ask(&mesh).await.expect_err("refused").code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_itself_and_other_evidence_is_refused() {
    let mesh = Mesh::start().await;
    let identity = mesh.bootstrap(FRONTEND).await;
    let renewed = mesh.renew(&identity).await.expect("renewed");
    let id = renewed.current().svid.as_ref().map(|svid| svid.id().to_string());
    assert_eq!(id.as_deref(), Some(FRONTEND));
    let bare = Attestation::CurrentSvid(mesh_api::wire::identity::CurrentSvid {});
    let refused = issue(mesh.anonymous().await, mesh.root(), bare).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let kubernetes = Attestation::KubernetesToken("token".to_owned());
    let refused = issue(mesh.anonymous().await, mesh.root(), kubernetes).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unimplemented);
}
