use super::*;
use crate::fixture::api_server::ApiServer;
use http::Method;
use serde_json::{Value, json};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

fn answer(status: &Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status})
}

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["mini-mesh-ca"],
        "user": {
            "username": "system:serviceaccount:shop:web",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["web-1"],
                "authentication.kubernetes.io/pod-uid": ["u-1"],
            },
        },
    })
}

async fn reviewed(status: Value, node: &str) -> Result<KubernetesIdentity, ReviewError> {
    let server = ApiServer::new();
    server.put(PATH, answer(&status));
    TokenReviewer::new(server.client()).attest("a-token", node).await
}

#[tokio::test]
async fn the_identity_is_that_of_the_answer_and_the_question_names_the_audience() {
    let server = ApiServer::new();
    server.put(PATH, answer(&good()));
    let identity =
        TokenReviewer::new(server.client()).attest(" a-token\n", "web-1.shop").await.expect("accepted");
    assert_eq!((identity.namespace.as_str(), identity.service_account.as_str()), ("shop", "web"));
    assert_eq!((identity.pod.as_deref(), identity.pod_uid.as_deref()), (Some("web-1"), Some("u-1")));
    let [asked] = &server.asked(&Method::POST)[..] else { panic!("one question") };
    assert_eq!(asked.body["spec"], json!({"token": "a-token", "audiences": ["mini-mesh-ca"]}));
}

#[tokio::test]
async fn a_token_of_another_pod_is_refused_and_one_that_is_bound_to_none_is_not() {
    let refused = reviewed(good(), "web-2.shop").await;
    assert!(matches!(refused, Err(ReviewError::OtherPod { .. })), "{refused:?}");
    let mut unbound = good();
    unbound["user"]["extra"] = json!({});
    assert!(reviewed(unbound, "web-2.shop").await.is_ok());
    assert!(reviewed(good(), "").await.is_ok(), "a proxy that does not say who it is");
}

#[tokio::test]
async fn what_does_not_prove_a_service_account_of_this_audience_is_refused() {
    let with = |path: &[&str], value: Value| {
        let mut status = good();
        let mut place = &mut status;
        for key in path {
            place = &mut place[*key];
        }
        *place = value;
        status
    };
    for (status, why) in [
        (with(&["authenticated"], json!(false)), "not authenticated"),
        (with(&["authenticated"], Value::Null), "nothing said"),
        (with(&["audiences"], json!(["https://kubernetes.default.svc"])), "another audience"),
        (with(&["audiences"], Value::Null), "an API server that knows of no audiences"),
        (json!({}), "empty"),
    ] {
        let refused = reviewed(status, "").await;
        assert!(matches!(refused, Err(ReviewError::Refused { .. })), "{why}: {refused:?}");
    }
    for user in ["admin", "system:serviceaccount:shop", "system:node:a", ""] {
        let refused = reviewed(with(&["user", "username"], json!(user)), "").await;
        assert!(matches!(refused, Err(ReviewError::NotServiceAccount)), "{user}: {refused:?}");
    }
    let refused = reviewed(with(&["user", "username"], json!("system:serviceaccount:shop:a:b")), "").await;
    assert!(matches!(refused, Err(ReviewError::Name(_))), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_not_asked_about_again_for_a_while_and_a_failure_is_no_refusal() {
    let server = ApiServer::new();
    server.put(PATH, answer(&json!({"authenticated": false, "error": "it has expired"})));
    let reviewer = TokenReviewer::new(server.client());
    for _ in 0..3 {
        let refused = reviewer.attest("old", "").await.expect_err("refused");
        assert_eq!(refused.to_string(), "the service-account token is refused: it has expired");
    }
    assert_eq!(server.asked(&Method::POST).len(), 1);
    tokio::time::advance(REFUSED_FOR + Duration::from_secs(1)).await;
    reviewer.attest("old", "").await.expect_err("refused");
    assert_eq!(server.asked(&Method::POST).len(), 2);
    server.fail(PATH, 500);
    for _ in 0..2 {
        assert!(matches!(reviewer.attest("new", "").await, Err(ReviewError::Api(_))));
    }
    server.fail(PATH, 0);
    server.put(PATH, answer(&good()));
    assert!(reviewer.attest("new", "").await.is_ok());
}
