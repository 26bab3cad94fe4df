//! Keys of token issuers, from a provider to the proxies whose policies use them.

use std::time::{Duration, Instant};

use mesh_api::model::{KeySet, WorkloadPolicies};
use mesh_api::wire::keys::ReportUnknownKeyRequest;
use mesh_api::wire::keys::key_service_client::KeyServiceClient;
use mesh_api::wire::{SELF, TypeUrl, decode};
use mesh_control::jwks::KeySettings;
use mesh_control::jwks::schedule::Intervals;
use tonic::Code;

use super::provider::{Answer, Provider, jwks};
use super::support::{CATALOG, FRONTEND, Mesh, Proxy, SOON, policy};

const CATALOG_NODE: &str = "catalog-0.backend";

/// A control plane that trusts a provider of its own.
async fn mesh() -> (Mesh, Provider) {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("authority.pem");
    let provider = Provider::start(&authority).await;
    let intervals = Intervals { refresh: Duration::from_secs(1_200), pause: Duration::from_millis(300) };
    let keys = KeySettings { ca_certificates: Some(authority.clone()), intervals, ..KeySettings::default() };
    let mesh = Mesh::start_with(keys).await;
    // It outlives restarts of the control plane, which reads it again.
    drop(folder.keep());
    (mesh, provider)
}

/// A RequestAuthentication of the catalog with a rule for each URL.
fn request_authentication(urls: &[String]) -> String {
    let rules: String = urls
        .iter()
        .enumerate()
        .map(|(at, url)| format!("  - issuer: issuer-{at}\n    jwksUri: {url}\n    timeout: 1s\n"))
        .collect();
    format!(
        "apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: tokens
  namespace: backend
spec:
  selector:
    matchLabels:
      app: catalog
  jwtRules:
{rules}"
    )
}

async fn connect(mesh: &Mesh, id: &str, node: &str) -> Proxy {
    let identity = mesh.bootstrap(id).await;
    let mut proxy = Proxy::connect(mesh.authenticated(&identity).await, node).await.expect("served");
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    proxy
}

async fn policies(proxy: &mut Proxy) -> WorkloadPolicies {
    let response = proxy.next().await;
    decode(TypeUrl::WorkloadPolicies, &response.resources[0]).expect("policies")
}

/// The first policies in which a source is as it should be.
async fn until(
    proxy: &mut Proxy,
    url: &str,
    what: &str,
    is_expected: impl Fn(&KeySet) -> bool,
) -> WorkloadPolicies {
    let waiting = async {
        loop {
            let policies = policies(proxy).await;
            if policies.key_sets.get(url).is_some_and(&is_expected) {
                return policies;
            }
        }
    };
    tokio::time::timeout(2 * SOON, waiting).await.expect(what)
}

fn has_key(key_id: &'static str) -> impl Fn(&KeySet) -> bool {
    move |set| set.jwks.as_deref().is_some_and(|jwks| jwks.contains(&format!("\"kid\":\"{key_id}\"")))
}

fn has_problem(set: &KeySet) -> bool {
    set.jwks.is_none() && !set.problem.is_empty() && !set.problem.contains("not been fetched yet")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_the_workloads_whose_policies_use_them_and_nobody_else() {
    let (mesh, provider) = mesh().await;
    provider.answer("/keys", jwks("a"));
    let mut other = connect(&mesh, FRONTEND, "frontend-0.web").await;
    policies(&mut other).await;
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    assert!(policies(&mut catalog).await.key_sets.is_empty());
    let url = provider.url("/keys");
    mesh.write("tokens.yaml", &request_authentication(std::slice::from_ref(&url)));
    let found = until(&mut catalog, &url, "keys", has_key("a")).await;
    let set = &found.key_sets[&url];
    assert_eq!(set.problem, "");
    assert!(!set.jwks.as_ref().expect("keys").contains("secret"), "a private member was passed on: {set:?}");
    assert!(other.is_quiet().await, "a workload without the source was told");
    let status = mesh_control::status::control_status(&mesh.running().plane, Instant::now());
    assert_eq!((status.key_sources[0].url.as_str(), status.key_sources[0].keys), (url.as_str(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_found_by_discovery() {
    let (mesh, provider) = mesh().await;
    provider.answer("/realm/keys", jwks("d"));
    let configuration =
        format!(r#"{{"issuer":"{}","jwks_uri":"{}"}}"#, provider.url("/realm"), provider.url("/realm/keys"));
    provider.answer("/realm/.well-known/openid-configuration", Answer::Body(configuration));
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    policies(&mut catalog).await;
    let text = request_authentication(&[String::new()]);
    let text =
        text.replace("issuer: issuer-0\n    jwksUri: \n", &format!("issuer: {}\n", provider.url("/realm")));
    mesh.write("tokens.yaml", &text);
    let url = provider.url("/realm/.well-known/openid-configuration");
    until(&mut catalog, &url, "keys", has_key("d")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_an_unknown_authority_is_not_believed() {
    let (mut mesh, provider) = mesh().await;
    provider.answer("/keys", jwks("a"));
    mesh.keys.ca_certificates = None;
    mesh.restart().await;
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    let url = provider.url("/keys");
    mesh.write("tokens.yaml", &request_authentication(std::slice::from_ref(&url)));
    let found = until(&mut catalog, &url, "a problem", has_problem).await;
    assert!(found.key_sets[&url].problem.contains("no TLS"), "{:?}", found.key_sets);
    assert_eq!(provider.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_holds_up_nothing_and_is_asked_again() {
    let (mesh, mut provider) = mesh().await;
    provider.answer("/keys", jwks("a"));
    provider.answer("/silent", Answer::Silence);
    provider.stop().await;
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    policies(&mut catalog).await;
    let (url, silent) = (provider.url("/keys"), provider.url("/silent"));
    mesh.write("tokens.yaml", &request_authentication(&[url.clone(), silent]));
    let found = until(&mut catalog, &url, "a problem", has_problem).await;
    assert_eq!(found.request.len(), 1, "the policy waits for its keys");
    provider.resume().await;
    let start = Instant::now();
    mesh.write("policy.yaml", &policy("access", "GET"));
    let waiting = async { while policies(&mut catalog).await.authorization.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("other configuration flows");
    assert!(start.elapsed() < Duration::from_secs(1));
    until(&mut catalog, &url, "keys", has_key("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_keys_outlive_their_provider_and_a_restart() {
    let (mut mesh, mut provider) = mesh().await;
    provider.answer("/keys", jwks("a"));
    let url = provider.url("/keys");
    mesh.write("tokens.yaml", &request_authentication(std::slice::from_ref(&url)));
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    until(&mut catalog, &url, "keys", has_key("a")).await;
    // Told before stored, so the disk may be a moment behind.
    let directory = mesh.folder.path().join("state/jwks");
    mesh.until("the keys are stored", |_| std::fs::read_dir(&directory).expect("there").count() == 1).await;
    provider.stop().await;
    mesh.restart().await;
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    let first = policies(&mut catalog).await;
    assert!(has_key("a")(&first.key_sets[&url]), "{:?}", first.key_sets);
    let is_told = |running: &mesh_control::app::Running| {
        let status = running.plane.keys.status();
        status.first().is_some_and(|source| source.keys == 1 && source.problem.contains("connect"))
    };
    mesh.until("operators are told", is_told).await;
    assert!(catalog.is_quiet().await, "proxies are told of a provider that comes and goes");
    // A stored file that is damaged is no reason not to start, and no reason to trust what is in it.
    let file =
        std::fs::read_dir(&directory).expect("there").next().expect("a file").expect("an entry").path();
    std::fs::write(&file, "{\"url\":").expect("written");
    mesh.restart().await;
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    assert!(policies(&mut catalog).await.key_sets[&url].jwks.is_none());
    provider.resume().await;
    until(&mut catalog, &url, "keys", has_key("a")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_proxy_does_not_know_brings_the_next_ones() {
    let (mesh, provider) = mesh().await;
    provider.answer("/keys", jwks("a"));
    let url = provider.url("/keys");
    mesh.write("tokens.yaml", &request_authentication(std::slice::from_ref(&url)));
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    until(&mut catalog, &url, "keys", has_key("a")).await;
    provider.answer("/keys", jwks("b"));
    let report = |node: &str, source: &str, key_id: &str| ReportUnknownKeyRequest {
        node_id: node.to_owned(),
        source: source.to_owned(),
        key_id: key_id.to_owned(),
    };
    let code = |result: Result<_, tonic::Status>| {
        result.map(|_: tonic::Response<_>| ()).map_err(|status| status.code())
    };

    let mut anonymous = KeyServiceClient::new(mesh.anonymous().await);
    let refused = code(anonymous.report_unknown_key(report(CATALOG_NODE, &url, "b")).await);
    assert_eq!(refused, Err(Code::Unauthenticated));
    let frontend = mesh.bootstrap(FRONTEND).await;
    let mut frontend = KeyServiceClient::new(mesh.authenticated(&frontend).await);
    for node in [CATALOG_NODE, "frontend-0.web"] {
        let refused = code(frontend.report_unknown_key(report(node, &url, "b")).await);
        assert_eq!(refused, Err(Code::PermissionDenied), "{node}");
    }
    let own = mesh.bootstrap(CATALOG).await;
    let mut own = KeyServiceClient::new(mesh.authenticated(&own).await);
    let refused = code(own.report_unknown_key(report(CATALOG_NODE, "http://127.0.0.1:1/", "b")).await);
    assert_eq!(refused, Err(Code::PermissionDenied));
    assert_eq!(code(own.report_unknown_key(report("nonsense", &url, "b")).await), Err(Code::InvalidArgument));
    let long = "b".repeat(100_000);
    assert_eq!(code(own.report_unknown_key(report(CATALOG_NODE, &url, &long)).await), Err(Code::OutOfRange));
    assert_eq!(provider.requests(), 1, "somebody had the provider asked who may not");

    assert_eq!(code(own.report_unknown_key(report(CATALOG_NODE, &url, "b")).await), Ok(()));
    until(&mut catalog, &url, "the next keys", has_key("b")).await;
    let before = provider.requests();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(800) {
        let invented = format!("invented-{:?}", start.elapsed());
        // The queue may be full, which is an answer too.
        drop(own.report_unknown_key(report(CATALOG_NODE, &url, &invented)).await);
    }
    let asked = provider.requests() - before;
    assert!((1..=3).contains(&asked), "{asked} fetches for a storm of invented keys");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_provider_gives_no_keys_and_holds_up_nobody() {
    let (mesh, provider) = mesh().await;
    let many: Vec<String> = (0..2_000).map(|at| format!(r#"{{"kty":"oct","k":"a","kid":"{at}"}}"#)).collect();
    let hostile = [
        ("/endless", Answer::Forever(vec![b' '; 64 * 1024], Duration::ZERO), "more than"),
        ("/drip", Answer::Forever(b" ".to_vec(), Duration::from_millis(20)), "within"),
        ("/silent", Answer::Silence, "within"),
        ("/loop", Answer::Redirect("/loop".to_owned()), "redirect"),
        (
            "/metadata",
            Answer::Redirect("http://169.254.169.254/latest".to_owned()),
            "https does not lead to http",
        ),
        ("/metadata-tls", Answer::Redirect("https://169.254.169.254/latest".to_owned()), "link-local"),
        ("/html", Answer::Body("<html>surprise</html>".to_owned()), "not JSON"),
        ("/many", Answer::Body(format!(r#"{{"keys":[{}]}}"#, many.join(","))), "2000 keys"),
        ("/packed", Answer::With("content-encoding: gzip\r\n", vec![0x1f, 0x8b, 8, 0]), "content encoding"),
        ("/empty", Answer::Body(r#"{"keys":[]}"#.to_owned()), "no key"),
    ];
    provider.answer("/good", jwks("good"));
    let mut urls: Vec<String> = hostile.iter().map(|(path, ..)| provider.url(path)).collect();
    urls.push(provider.url("/good"));
    for (path, answer, _) in &hostile {
        provider.answer(path, answer.clone());
    }
    let mut catalog = connect(&mesh, CATALOG, CATALOG_NODE).await;
    policies(&mut catalog).await;
    mesh.write("tokens.yaml", &request_authentication(&urls));
    let good = provider.url("/good");
    let mut seen = until(&mut catalog, &good, "good keys among bad ones", has_key("good")).await.key_sets;
    let is_done = |sets: &mesh_api::model::KeySets| {
        hostile.iter().all(|(path, ..)| sets.get(&provider.url(path)).is_some_and(has_problem))
    };
    while !is_done(&seen) {
        seen = policies(&mut catalog).await.key_sets;
    }
    for (path, _, expected) in &hostile {
        let set = &seen[&provider.url(path)];
        assert!(set.problem.contains(expected), "{path}: {set:?}");
        assert!(!set.problem.contains("surprise"), "{path}: a body is repeated: {set:?}");
    }
    assert!(has_key("good")(&seen[&good]));
    mesh.write("policy.yaml", &policy("access", "GET"));
    let waiting = async { while policies(&mut catalog).await.authorization.is_empty() {} };
    tokio::time::timeout(SOON, waiting).await.expect("other configuration flows");
}
