use super::*;
use proptest::prelude::*;
use serde_json::json;

fn policy(spec: &Value) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {
            "name": "access", "namespace": "shop", "uid": "u", "resourceVersion": "5", "generation": 2,
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {".": {}, "k:{\"a\":1}": {}}}}],
        },
        "spec": spec,
        "status": {"conditions": [{"type": "Accepted", "status": "True"}]},
    })
}

fn request(operation: &str, object: &Value, old: &Value) -> Request {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": {"group": "security.istio.io", "version": "v1", "kind": "AuthorizationPolicy"},
            "name": "access", "namespace": "shop", "operation": operation, "object": object, "oldObject": old,
        }
    });
    Request::read(review.to_string().as_bytes()).expect("a review")
}

fn judge(object: &Value) -> (Result<Option<Object>, Vec<Problem>>, Vec<Problem>) {
    verdict(object, &LowerContext::default())
}

#[test]
fn what_the_api_server_adds_to_an_object_is_no_problem_of_its_author() {
    let (object, warnings) = judge(&policy(&json!({"action": "DENY", "rules": [{}]})));
    assert!(matches!(object, Ok(Some(Object::AuthorizationPolicy(_)))), "{object:?}");
    assert_eq!(warnings, Vec::new());
    let mut nameless = policy(&json!({}));
    nameless["metadata"]["generateName"] = json!("access-");
    assert!(judge(&nameless).0.is_ok(), "a name that was generated");
    nameless["metadata"].as_object_mut().expect("a map").remove("name");
    assert!(judge(&nameless).0.is_ok(), "a name that is yet to be generated");
}

#[test]
fn every_problem_is_listed_with_its_field_and_what_to_do() {
    let bad = policy(&json!({"action": "DENNY", "rules": [{"from": [{"source": {"principles": ["a"]}}]}]}));
    let problems = judge(&bad).0.expect_err("refused");
    let text = refusal(&problems);
    assert!(text.starts_with("2 problems:\n  - "), "{text}");
    assert!(
        text.contains("spec.action: ") && text.contains("spec.rules[0].from[0].source.principles: "),
        "{text}"
    );
    assert!(text.contains("principals"), "{text}");
}

#[test]
fn one_problem_stands_on_one_line() {
    let bad = policy(&json!({"rules": [{"from": [{"source": {"principles": ["a"]}}]}]}));
    let text = refusal(&judge(&bad).0.expect_err("refused"));
    assert!(text.starts_with("spec.rules[0]") && !text.contains('\n'), "{text}");
}

#[test]
fn annotations_that_try_an_object_are_judged() {
    let mut bad = policy(&json!({}));
    bad["metadata"]["annotations"] = json!({"mini-mesh.io/dry-run": "yes"});
    let text = refusal(&judge(&bad).0.expect_err("refused"));
    assert!(text.contains("mini-mesh.io/dry-run") && text.contains("true or delete"), "{text}");
}

#[test]
fn removal_and_bookkeeping_are_always_let_through() {
    let broken = policy(&json!({"action": "DENNY"}));
    let mut freed = broken.clone();
    freed["metadata"]["finalizers"] = json!([]);
    freed["metadata"]["resourceVersion"] = json!("6");
    freed["status"] = json!({"conditions": []});
    assert!(is_passed_over(&request("UPDATE", &freed, &broken)), "finalizers and status");
    assert!(is_passed_over(&request("DELETE", &Value::Null, &broken)));
    let mut going = policy(&json!({"action": "DENNNY"}));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-31T12:00:00Z");
    assert!(is_passed_over(&request("UPDATE", &going, &broken)), "an object that is being removed");
    assert!(!is_passed_over(&request("CREATE", &broken, &Value::Null)));
    assert!(!is_passed_over(&request("UPDATE", &policy(&json!({})), &broken)), "another spec");
}

#[test]
fn a_change_of_annotations_alone_is_judged() {
    let object = policy(&json!({}));
    let mut tried = object.clone();
    tried["metadata"]["annotations"] = json!({"mini-mesh.io/dry-run": "yes"});
    assert!(!is_passed_over(&request("UPDATE", &tried, &object)));
    let mut empty = object.clone();
    empty["metadata"]["annotations"] = json!({});
    assert!(
        is_passed_over(&request("UPDATE", &empty, &object)),
        "no annotations and an empty map are the same"
    );
}

#[test]
fn subresources_and_foreign_kinds_are_passed_over() {
    let object = policy(&json!({"action": "DENNY"}));
    let mut status = request("UPDATE", &object, &policy(&json!({})));
    status.sub_resource = "status".to_owned();
    assert!(is_passed_over(&status));
    let mut foreign = request("CREATE", &object, &Value::Null);
    foreign.kind.group = "apps".to_owned();
    assert!(is_passed_over(&foreign));
    foreign.kind.group = "networking.istio.io".to_owned();
    foreign.kind.kind = "Gateway".to_owned();
    assert!(is_passed_over(&foreign));
}

fn settings(key: &str, text: &str) -> Answer {
    let mut request = request("UPDATE", &json!({"data": {key: text}}), &json!({"data": {}}));
    (request.kind.group, request.kind.kind) = (String::new(), "ConfigMap".to_owned());
    request.name = "mini-mesh-canary".to_owned();
    config_map(&request)
}

#[test]
fn settings_of_the_mesh_must_be_one_readable_document() {
    let good = "apiVersion: mini-mesh.io/v1alpha1\nkind: MeshConfig\nmetadata:\n  name: mesh\nspec: {}\n";
    assert_eq!(settings("mesh.yaml", good).refusal, None);
    let refused = |text: &str| settings("mesh.yaml", text).refusal.expect("refused").message;
    let message = refused(&good.replace("spec: {}", "spec:\n  trustDomian: x"));
    assert!(message.starts_with("data[mesh.yaml] line 6, spec.trustDomian: "), "{message}");
    assert!(refused("").contains("one document of kind MeshConfig"));
    assert!(refused(&format!("{good}---\n{good}")).contains("one document of kind MeshConfig"));
    let service = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n";
    assert!(refused(service).contains("one document of kind MeshConfig"));
}

#[test]
fn other_config_maps_are_none_of_the_mesh() {
    let mut request = request("CREATE", &json!({"data": {"mesh.yaml": ":"}}), &Value::Null);
    (request.kind.group, request.kind.kind) = (String::new(), "ConfigMap".to_owned());
    for (name, is_judged) in
        [("mini-mesh", true), ("mini-mesh-canary", true), ("mini-meshes", false), ("x", false)]
    {
        request.name = name.to_owned();
        assert_eq!(config_map(&request).refusal.is_some(), is_judged, "{name}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let keys = prop_oneof![
        Just("spec".to_owned()),
        Just("metadata".to_owned()),
        Just("rules".to_owned()),
        Just("name".to_owned()),
        Just("annotations".to_owned()),
        "\\PC{0,6}",
    ];
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((keys.clone(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_object_makes_the_verdict_panic(object in any_json(), spec in any_json(), metadata in any_json()) {
        drop(judge(&object));
        drop(judge(&policy(&spec)));
        let mut odd = policy(&spec);
        odd["metadata"] = metadata;
        drop(judge(&odd));
        let _is_any = is_passed_over(&request("UPDATE", &odd, &object));
    }
}
