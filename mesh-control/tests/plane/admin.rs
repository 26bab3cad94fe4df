//! The operator's socket and the metrics endpoint, as `meshctl` and Prometheus meet them.

use std::os::unix::fs::PermissionsExt;

use super::support::{CATALOG, FRONTEND, Mesh, Proxy, issue, policy};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_api::admin::{
    AdminError, CaStatus, ControlStatus, JoinTokenRequest, JoinTokenResponse, ObjectSummary, RegistryDump,
};
use mesh_api::problem::Problem;
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::{SELF, TypeUrl};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

async fn send<S>(stream: S, method: &str, path: &str, body: String) -> (StatusCode, Bytes)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("connects");
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "mesh-control")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("valid");
    let response = sender.send_request(request).await.expect("answers");
    let status = response.status();
    (status, response.into_body().collect().await.expect("a body").to_bytes())
}

async fn ask(mesh: &Mesh, method: &str, path: &str, body: String) -> (StatusCode, Bytes) {
    let stream = UnixStream::connect(mesh.admin_socket()).await.expect("connects");
    send(stream, method, path, body).await
}

async fn get<T: DeserializeOwned>(mesh: &Mesh, path: &str) -> T {
    let (status, body) = ask(mesh, "GET", path, String::new()).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body:?}");
    serde_json::from_slice(&body).expect("the answer has the form of mesh_api::admin")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_and_tells_what_is_in_force() {
    let mesh = Mesh::start().await;
    let mode = std::fs::metadata(mesh.admin_socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let status: ControlStatus = get(&mesh, "/status").await;
    assert_eq!((status.name.as_str(), status.trust_domain.as_str()), ("test", "cluster.local"));
    assert_eq!((status.sources[0].files, status.sources[0].objects), (1, 3));
    let objects: Vec<ObjectSummary> = get(&mesh, "/objects?kind=service&namespace=backend").await;
    assert_eq!(objects.len(), 1);
    assert!(objects[0].yaml.contains("kind: Service") && objects[0].line > 1);
    let registry: RegistryDump = get(&mesh, "/registry").await;
    assert_eq!((registry.services.len(), registry.workloads.len()), (1, 2));
    assert_eq!(registry.services[0].addresses.len(), 2);
    let ca: CaStatus = get(&mesh, "/ca").await;
    assert_eq!(ca.authorities.len(), 2);
    assert!(ca.authorities.iter().all(|authority| authority.valid && !authority.pem.contains("PRIVATE")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_the_socket_bootstraps_a_workload_and_foreign_ones_are_refused() {
    let mesh = Mesh::start().await;
    let wanted = |id: &str| {
        let request = JoinTokenRequest { spiffe_id: id.to_owned(), ttl_seconds: 30 };
        serde_json::to_string(&request).expect("encodes")
    };
    let (status, body) = ask(&mesh, "POST", "/tokens", wanted(FRONTEND)).await;
    assert_eq!(status, StatusCode::OK);
    let token: JoinTokenResponse = serde_json::from_slice(&body).expect("a token");
    let attestation = Attestation::JoinToken(token.token);
    assert!(issue(mesh.anonymous().await, mesh.root(), attestation).await.is_ok());
    for bad in ["spiffe://other/ns/web/sa/frontend", "frontend"] {
        let (status, body) = ask(&mesh, "POST", "/tokens", wanted(bad)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        let error: AdminError = serde_json::from_slice(&body).expect("an error");
        assert!(!error.error.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_name_file_line_and_field_and_mistakes_at_the_socket_are_explained() {
    let mesh = Mesh::start().await;
    mesh.write("policy.yaml", &policy("access", "GET").replace("rules:", "ruels:"));
    mesh.until("the problem", |running| !running.plane.problems().is_empty()).await;
    let problems: Vec<Problem> = get(&mesh, "/problems").await;
    assert!(problems[0].origin.file.ends_with("policy.yaml") && problems[0].origin.line > 0);
    assert!(problems[0].field.starts_with("spec"), "{}", problems[0]);
    for (method, path) in [
        ("GET", "/objects?colour=red"),
        ("POST", "/sources/confirm"),
        ("GET", "/sources/confirm"),
        ("POST", "/tokens"),
        ("GET", "/nothing"),
    ] {
        let (status, body) = ask(&mesh, method, path, String::new()).await;
        assert!(status.is_client_error(), "{path}: {status}");
        assert!(serde_json::from_slice::<AdminError>(&body).is_ok(), "{path}: {body:?}");
    }
    let unknown = ask(&mesh, "POST", "/sources/confirm?path=/nowhere", String::new()).await;
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_says_which_proxies_have_taken_a_policy() {
    let mesh = Mesh::start().await;
    let identity = mesh.bootstrap(CATALOG).await;
    let channel = mesh.authenticated(&identity).await;
    let mut proxy = Proxy::connect(channel, "catalog-0.backend").await.expect("served");
    proxy.subscribe(TypeUrl::WorkloadPolicies, &[SELF], &[]).await;
    proxy.next().await;
    mesh.write("policy.yaml", &policy("access", "GET"));
    let response = proxy.receive().await.expect("served").expect("open");
    let enforced = async || {
        let objects: Vec<ObjectSummary> = get(&mesh, "/objects?kind=AuthorizationPolicy").await;
        objects[0].enforced
    };
    assert_eq!(enforced().await, Some((0, 1)), "a policy that is on its way counts as enforced");
    let status: ControlStatus = get(&mesh, "/status").await;
    assert_eq!(status.proxies[0].types["WPDS"].state, "STALE");
    proxy.answer(&response, None).await;
    mesh.until("the acknowledgement", |running| {
        running.plane.proxies()["catalog-0.backend"].types[&TypeUrl::WorkloadPolicies]
            .0
            .is_unanswered
            .eq(&false)
    })
    .await;
    assert_eq!(enforced().await, Some((1, 1)));
    let status: ControlStatus = get(&mesh, "/status").await;
    assert_eq!(status.proxies[0].types["WPDS"].state, "SYNCED");
    assert!(status.proxies[0].connected);
    drop(proxy);
    mesh.until("the departure", |running| !running.plane.proxies()["catalog-0.backend"].is_connected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_served_the_same_on_loopback_as_at_the_socket() {
    let mesh = Mesh::start().await;
    let address = mesh.running().admin_address.expect("it was asked for");
    assert!(address.ip().is_loopback());
    for path in ["/ca", "/objects", "/registry", "/live", "/ready"] {
        let stream = TcpStream::connect(address).await.expect("connects");
        let over_tcp = send(stream, "GET", path, String::new()).await;
        assert_eq!(over_tcp, ask(&mesh, "GET", path, String::new()).await, "{path}");
        assert_eq!(over_tcp.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_readiness_are_served_over_plain_http() {
    let mesh = Mesh::start().await;
    let connect = async || TcpStream::connect(mesh.running().metrics_address).await.expect("connects");
    let (status, _) = send(connect().await, "GET", "/ready", String::new()).await;
    assert_eq!(status, StatusCode::OK);
    let (_, body) = send(connect().await, "GET", "/metrics", String::new()).await;
    let text = String::from_utf8(body.to_vec()).expect("text");
    for name in [
        "mesh_control_cert_expiry_timestamp_seconds{level=\"root\"}",
        "mesh_control_objects{kind=\"Service\"}",
    ] {
        assert!(text.contains(name), "{name} is missing");
    }
    let (status, _) = send(connect().await, "POST", "/tokens", "{}".to_owned()).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "the open port serves what belongs to the socket");
}
