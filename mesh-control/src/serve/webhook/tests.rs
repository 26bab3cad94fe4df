//! The webhooks as an API server meets them: over TLS, by a name of DNS, with roots and nothing else.

use super::*;
use axum::body::Body;
use axum::http::Request as HttpRequest;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::fixture::plane;

fn desk() -> Desk {
    let plane = plane();
    let client = crate::fixture::api_server::ApiServer::new().client();
    let injector = Injector::new(client, Arc::clone(&plane), "istio-system", "default");
    Desk::new(plane, injector)
}

async fn post_to(desk: &Desk, path: &str, content_type: &str, body: &str) -> (StatusCode, String) {
    let request = HttpRequest::post(path)
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, body.len())
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let response = routes(desk.clone()).oneshot(request).await.expect("answered");
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), BODY_BYTES_MAX).await.expect("a body");
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

fn review_of(spec: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u-1", "kind": {"group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy"},
            "name": "access", "namespace": "shop", "operation": "CREATE",
            "object": {
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": {"name": "access", "namespace": "shop"}, "spec": spec,
            },
        }
    })
    .to_string()
}

#[tokio::test]
async fn a_broken_policy_is_refused_and_a_good_one_admitted() {
    let desk = desk();
    for (spec, is_allowed) in [(json!({"rules": [{}]}), true), (json!({"ruels": []}), false)] {
        let (status, body) = post_to(&desk, "/validate", "application/json", &review_of(&spec)).await;
        assert_eq!(status, StatusCode::OK);
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            (&answer["response"]["uid"], &answer["response"]["allowed"]),
            (&json!("u-1"), &json!(is_allowed))
        );
    }
}

#[tokio::test]
async fn what_its_author_probably_did_not_mean_is_a_warning() {
    let spec = json!({"action": "ALLOW", "rules": [{"from": [{"source": {"namespaces": ["nowhere"]}}]}, {}]});
    let (_, body) = post_to(&desk(), "/validate", "application/json", &review_of(&spec)).await;
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["response"]["allowed"], true);
    let warnings = answer["response"]["warnings"].as_array().expect("warnings");
    assert!(warnings.iter().all(|warning| warning.as_str().expect("text").starts_with('[')), "{warnings:?}");
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_a_status_of_its_own() {
    let desk = desk();
    let code = async |content_type: &str, body: &str| post_to(&desk, "/validate", content_type, body).await.0;
    assert_eq!(code("text/plain", "{}").await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(code("application/json", "{").await, StatusCode::BAD_REQUEST);
    assert_eq!(code("application/json; charset=utf-8", "[]").await, StatusCode::BAD_REQUEST);
    assert_eq!(post_to(&desk, "/elsewhere", "application/json", "{}").await.0, StatusCode::NOT_FOUND);
    let unstated =
        HttpRequest::post("/validate").header(CONTENT_TYPE, "application/json").body(Body::from("{}"));
    let response = routes(desk.clone()).oneshot(unstated.expect("a request")).await.expect("answered");
    assert_eq!(response.status(), StatusCode::LENGTH_REQUIRED);
    let long = HttpRequest::post("/validate")
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, BODY_BYTES_MAX + 1)
        .body(Body::empty());
    let response = routes(desk.clone()).oneshot(long.expect("a request")).await.expect("answered");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

mod tls {
    use super::*;
    use crate::serve::webhook::certificate::{names, renew};
    use mesh_identity::ca::Issuer;
    use rustls::{ClientConfig, RootCertStore};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    /// A client as an API server is one: roots, and a name of DNS.
    async fn dial(
        address: std::net::SocketAddr,
        roots: &str,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.expect("PEM")).expect("a root");
        }
        let config = ClientConfig::builder_with_provider(mesh_identity::tls::provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(store)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
    }

    async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
        let request = b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.expect("written");
        let mut buffer = vec![0; 1024];
        let read = stream.read(&mut buffer).await.expect("answered");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    #[tokio::test]
    async fn the_certificate_is_good_for_the_service_and_its_renewal_ends_no_connection() {
        let plane = plane();
        let source = ServingSource::new();
        let names = names("istio-system", "default", "cluster.local").expect("valid");
        renew(plane.issue.authority(), &source, &names, SystemTime::now()).expect("made");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("known");
        let injector = desk().injector;
        let (served, table) = (Arc::clone(&source), routes(Desk::new(Arc::clone(&plane), injector)));
        let server = tokio::spawn(async move { match listen::run(listener, &served, table).await {} });
        let roots = plane.issue.authority().trust_bundle().to_pem();
        let mut first = dial(address, &roots, "mesh-control.istio-system.svc").await.expect("trusted");
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 200"));
        let wrong = dial(address, &roots, "mesh-control.elsewhere.svc").await.expect_err("another name");
        assert!(wrong.to_string().contains("not valid for name"), "{wrong}");
        let before = source.current().expect("there").issued().serial.clone();
        let later = SystemTime::now() + Duration::from_secs(13 * 3600);
        renew(plane.issue.authority(), &source, &names, later).expect("made");
        assert_ne!(source.current().expect("there").issued().serial, before);
        assert!(ask(&mut first).await.starts_with("HTTP/1.1 200"), "the open connection goes on");
        server.abort();
    }
}

mod inject {
    use super::*;
    use crate::fixture::api_server::ApiServer;

    fn review_of(object: &Value) -> String {
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-2", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
                "operation": "CREATE", "object": object,
            }
        })
        .to_string()
    }

    fn desk(labels: &Value) -> Desk {
        let server = ApiServer::new();
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
        server.put("/api/v1/namespaces/shop", namespace);
        let version = json!({
            "major": "1", "minor": "34", "gitVersion": "", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        });
        server.put("/version", version);
        let plane = plane();
        let injector = Injector::new(server.client(), Arc::clone(&plane), "istio-system", "default");
        injector.take(Some(""));
        Desk::new(plane, injector)
    }

    async fn answer(labels: Value, object: Value) -> Value {
        let (status, body) =
            post_to(&desk(&labels), "/inject", "application/json", &review_of(&object)).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_str::<Value>(&body).expect("JSON")["response"].clone()
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}})
    }

    #[tokio::test]
    async fn a_pod_of_a_namespace_that_asked_is_patched_and_the_audit_log_says_why() {
        let answer = answer(json!({"istio-injection": "enabled"}), pod()).await;
        assert_eq!((&answer["allowed"], &answer["patchType"]), (&json!(true), &json!("JSONPatch")));
        assert_eq!(answer["auditAnnotations"], json!({"decision": "inject", "reason": "Enabled"}));
    }

    #[tokio::test]
    async fn a_pod_that_nobody_asked_for_stays_as_it_is() {
        let answer = answer(json!({}), pod()).await;
        assert_eq!((&answer["allowed"], answer.get("patch")), (&json!(true), None));
        assert_eq!(answer["auditAnnotations"]["reason"], "NotAsked");
    }

    #[tokio::test]
    async fn a_pod_on_the_network_of_its_node_is_let_through_with_a_warning_and_refused_when_it_asks_itself()
    {
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = json!(true);
        let of_namespace = answer(json!({"istio-injection": "enabled"}), pod.clone()).await;
        assert_eq!(of_namespace["allowed"], true);
        assert!(of_namespace["warnings"][0].as_str().expect("a warning").contains("hostNetwork"));
        pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "true"});
        let of_itself = answer(json!({}), pod).await;
        assert_eq!((&of_itself["allowed"], &of_itself["status"]["code"]), (&json!(false), &json!(403)));
        assert!(of_itself["status"]["message"].as_str().expect("a message").contains("hostNetwork"));
    }

    #[tokio::test]
    async fn no_object_makes_injection_fail() {
        for object in [
            json!(null),
            json!([]),
            json!({"spec": 7}),
            json!({"spec": {"containers": {"a": []}}}),
            json!("x"),
        ] {
            let answer = answer(json!({"istio-injection": "enabled"}), object.clone()).await;
            assert_eq!(answer["uid"], "u-2", "{object}");
        }
    }
}
