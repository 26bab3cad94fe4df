use super::*;
use crate::fixture::api_server::ApiServer;
use crate::fixture::plane;
use serde_json::json;

fn server(labels: &Value) -> ApiServer {
    let server = ApiServer::new();
    server.put(
        "/api/v1/namespaces/shop",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}),
    );
    server.put(
        "/version",
        json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.4", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        }),
    );
    server
}

fn injector(server: &ApiServer) -> Arc<Injector> {
    Injector::new(server.client(), plane(), "istio-system", "default")
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "web-"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

#[tokio::test]
async fn without_settings_every_pod_is_refused_with_what_is_missing() {
    let injector = injector(&server(&json!({"istio-injection": "enabled"})));
    let error = injector.admit(&pod(), "shop").await.expect_err("refused");
    assert!(error.to_string().contains("ConfigMap istio-system/mini-mesh"), "{error}");
    injector.take(Some(""));
    assert!(injector.admit(&pod(), "shop").await.expect("decided").decision.is_inject());
}

#[tokio::test]
async fn broken_settings_are_a_problem_and_change_nothing() {
    let injector = injector(&server(&json!({})));
    injector.take(Some("revision: canary"));
    injector.take(Some("revison: blue"));
    assert_eq!(injector.settings().expect("held").revision, "canary");
    let problems = injector.plane.problems();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("revison") && problems[0].message.contains("stay in force"));
    injector.take(None);
    assert!(injector.settings().is_some(), "settings that went away are held");
    injector.take(Some("revision: green"));
    assert_eq!(
        (injector.plane.problems().len(), injector.settings().expect("new").revision.as_str()),
        (0, "green")
    );
}

#[tokio::test]
async fn a_namespace_is_asked_for_with_each_pod() {
    let server = server(&json!({}));
    let injector = injector(&server);
    injector.take(Some(""));
    assert!(!injector.admit(&pod(), "shop").await.expect("decided").decision.is_inject());
    let labelled = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio-injection": "enabled"}},
    });
    server.put("/api/v1/namespaces/shop", labelled);
    assert!(injector.admit(&pod(), "shop").await.expect("decided").decision.is_inject());
}

#[tokio::test]
async fn a_namespace_that_cannot_be_read_is_a_refusal_and_not_a_pod_without_a_proxy() {
    let server = server(&json!({"istio-injection": "enabled"}));
    let injector = injector(&server);
    injector.take(Some(""));
    server.fail("/api/v1/namespaces/shop", 500);
    let error = injector.admit(&pod(), "shop").await.expect_err("refused");
    assert!(matches!(error, AdmitError::Namespace { .. }), "{error}");
}

#[tokio::test]
async fn the_version_of_the_server_is_kept_and_what_it_could_once_it_can() {
    let server = server(&json!({"istio-injection": "enabled"}));
    let injector = injector(&server);
    injector.take(Some(""));
    server.fail("/version", 503);
    assert!(matches!(injector.admit(&pod(), "shop").await, Err(AdmitError::Version(_))));
    server.fail("/version", 0);
    let injection = injector.admit(&pod(), "shop").await.expect("decided");
    let proxies = injection.pod["spec"]["initContainers"].as_array().expect("native sidecars");
    assert!(proxies.iter().any(|container| container["restartPolicy"] == "Always"), "{proxies:?}");
    server.fail("/version", 503);
    assert!(injector.admit(&pod(), "shop").await.is_ok(), "kept");
}

#[test]
fn versions_are_read_as_providers_write_them() {
    for (major, minor, expected) in [
        ("1", "29", true),
        ("1", "28", false),
        ("1", "29+", true),
        ("1", "28-gke.3", false),
        ("2", "0", true),
        ("", "", false),
    ] {
        assert_eq!(has_native_sidecars(major, minor), expected, "{major}.{minor}");
    }
}
