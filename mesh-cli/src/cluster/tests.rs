//! What the client makes of an API server's answers. The server is a function from a request to an answer.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::cluster::resolve::ResolveError;

/// A cluster whose API server answers by `answer`, and the paths that it was asked for.
fn cluster(
    answer: impl Fn(&str) -> (StatusCode, Value) + Send + Sync + 'static,
) -> (Cluster, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answer = Arc::new(answer);
    let log = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        log.lock().expect("no test panics while it writes").push(path.clone());
        let (status, body) = answer(&path);
        async move {
            let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
            *answer.status_mut() = status;
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let cluster = Cluster {
        client: Client::new(service, "default"),
        server: "https://cluster.example".to_owned(),
        default_namespace: "default".to_owned(),
        system_namespace: "istio-system".to_owned(),
        revision: None,
    };
    (cluster, asked)
}

fn pod(name: &str, namespace: &str, phase: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "mesh-proxy"}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn list(items: &[Value], next: &str) -> (StatusCode, Value) {
    let metadata = json!({"continue": next, "resourceVersion": "1"});
    (StatusCode::OK, json!({"apiVersion": "v1", "kind": "PodList", "metadata": metadata, "items": items}))
}

fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
        "code": code.as_u16(),
    });
    (code, status)
}

fn absent() -> (StatusCode, Value) {
    failure(StatusCode::NOT_FOUND, "NotFound", "not found")
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let (cluster, asked) = cluster(|path| match path.contains("continue=more") {
        false => list(&[pod("a", "web", "Running", "True")], "more"),
        true => list(&[pod("b", "web", "Running", "True")], ""),
    });
    let pods = cluster.meshed_pods(None).await.expect("two pages");
    assert_eq!(pods.iter().map(PodView::id).collect::<Vec<_>>(), ["a.web", "b.web"]);
    let asked = asked.lock().expect("nobody writes any more");
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|path| path.contains("limit=500")), "{asked:?}");
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let (cluster, asked) = cluster(|_| list(&[], "more"));
    let error = cluster.meshed_pods(None).await.expect_err("it never ends");
    assert!(matches!(error, ClusterError::TooMany { .. }), "{error}");
    assert_eq!(asked.lock().expect("nobody writes any more").len(), PAGES_MAX);
}

#[tokio::test]
async fn a_missing_right_says_which() {
    let (cluster, _) = cluster(|_| {
        failure(StatusCode::FORBIDDEN, "Forbidden", "pods is forbidden: User \"a\" cannot list resource")
    });
    let error = cluster.replicas().await.expect_err("it is forbidden");
    assert_eq!(error.to_string(), "this user may not list pods in namespace istio-system");
}

#[tokio::test]
async fn replicas_that_do_not_run_are_not_asked_and_ready_ones_come_first() {
    let (cluster, _) = cluster(|_| {
        list(
            &[
                pod("c", "istio-system", "Running", "False"),
                pod("d", "istio-system", "Running", "True"),
                pod("e", "istio-system", "Pending", "False"),
            ],
            "",
        )
    });
    let replicas = cluster.replicas().await.expect("two run");
    assert_eq!(replicas.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["d", "c"]);
}

#[tokio::test]
async fn a_revision_limits_which_replicas_are_asked() {
    let (mut cluster, asked) = cluster(|_| list(&[], ""));
    cluster.revision = Some("canary".to_owned());
    let error = cluster.replicas().await.expect_err("there is none");
    assert!(error.to_string().contains("with revision canary"), "{error}");
    let asked = asked.lock().expect("nobody writes any more");
    assert!(asked[0].contains("istio.io%2Frev%3Dcanary"), "{asked:?}");
}

#[tokio::test]
async fn a_deployment_is_one_of_its_pods_and_ready_ones_are_taken_first() {
    let (cluster, asked) = cluster(|path| match path {
        "/apis/apps/v1/namespaces/shop/deployments/web" => (
            StatusCode::OK,
            json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}},
            }),
        ),
        path if path.starts_with("/api/v1/namespaces/shop/pods?") => {
            list(&[pod("web-1", "shop", "Running", "False"), pod("web-2", "shop", "Running", "True")], "")
        }
        _ => absent(),
    });
    for text in ["deploy/web.shop", "web.shop"] {
        let resolved = cluster.resolve(text, None).await.expect("it is there");
        assert_eq!(resolved.pods[0].name, "web-2", "{text}");
        assert_eq!(resolved.by.as_deref(), Some("deployment web"));
    }
    let asked = asked.lock().expect("nobody writes any more");
    assert!(asked.iter().any(|path| path.contains("labelSelector=app%3Dweb")), "{asked:?}");
}

#[tokio::test]
async fn a_service_without_a_selector_is_no_pod_of_the_namespace() {
    let (cluster, asked) = cluster(|path| match path {
        "/api/v1/namespaces/shop/services/outside" => {
            (StatusCode::OK, json!({"metadata": {"name": "outside", "namespace": "shop"}, "spec": {}}))
        }
        path if path.contains("/pods?") => list(&[pod("other", "shop", "Running", "True")], ""),
        _ => absent(),
    });
    let error = cluster.resolve("svc/outside", Some("shop")).await.expect_err("it has none");
    assert!(matches!(error, ResolveError::NoPod { .. }), "{error}");
    assert!(asked.lock().expect("nobody writes any more").iter().all(|path| !path.contains("/pods?")));
}

#[tokio::test]
async fn an_unknown_pod_brings_where_there_is_one_of_that_name() {
    let (cluster, _) = cluster(|path| match path {
        path if path.starts_with("/api/v1/pods?") && path.contains("metadata.name%3Dweb-1") => {
            list(&[pod("web-1", "shop", "Running", "True")], "")
        }
        _ => absent(),
    });
    let error = cluster.resolve("pod/web-1", None).await.expect_err("it is elsewhere");
    assert_eq!(error.to_string(), "there is no pod \"web-1\" in namespace default");
    assert_eq!(error.hint().as_deref(), Some("There is one in namespace shop: add -n shop."));
}
