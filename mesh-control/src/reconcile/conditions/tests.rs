use super::*;
use crate::fixture::api_server::ApiServer;
use crate::fixture::{object, plane, policy, routes};
use crate::registry::{Change, Entry};
use mesh_api::model::Kind;

fn resource() -> Arc<ApiResource> {
    let kind = GroupVersionKind::gvk("security.istio.io", "v1", "AuthorizationPolicy");
    Arc::new(ApiResource::from_gvk_with_plural(&kind, "authorizationpolicies"))
}

fn istio() -> &'static Istio {
    ISTIO.iter().find(|istio| istio.kind == Kind::AuthorizationPolicy).expect("known")
}

fn written(name: &str, generation: i64, spec: &Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": "shop", "generation": generation}, "spec": spec,
    }))
    .expect("an object")
}

fn fed(plane: &Plane, object: &DynamicObject) -> Fed {
    let (name, seen) = see(istio(), &resource(), object, plane).expect("named");
    Fed::Set(name, seen)
}

/// Takes a policy in as the source would.
fn take_in(plane: &Plane, name: &str, generation: i64) {
    let policy = policy("shop", name, None);
    let object = policy.meta.object.clone();
    let entry = Entry::from(policy);
    plane.snapshot().apply(None, [Change::Set(entry.clone())]);
    plane.configuration().objects.documents.insert(
        object.clone(),
        crate::source::InForce {
            object,
            payload: Payload::Entry(entry),
            origin: mesh_api::model::Origin::default(),
            text: "".into(),
            is_held: false,
            generation,
        },
    );
}

#[tokio::test]
async fn conditions_are_written_once_and_again_when_they_differ() {
    let (server, plane) = (ApiServer::new(), plane());
    let mut writer = Writer::new(&server.client(), &plane);
    let peers = Peers::new(&plane);
    take_in(&plane, "access", 1);
    writer.take(fed(&plane, &written("access", 1, &json!({}))));
    writer.round(&peers).await;
    writer.round(&peers).await;
    let asked = server.asked(&http::Method::PATCH);
    assert_eq!(asked.len(), 1, "what stands is not written again");
    assert!(
        asked[0].path.ends_with("/namespaces/shop/authorizationpolicies/access/status"),
        "{}",
        asked[0].path
    );
    assert!(asked[0].query.contains("fieldManager=mesh-control") && asked[0].query.contains("force=true"));
    let conditions = &asked[0].body["status"]["conditions"];
    let kinds: Vec<_> = conditions.as_array().expect("a list").iter().map(|c| c["type"].clone()).collect();
    assert_eq!(kinds, ["Accepted", "Enforced", "Conflicted"].map(Value::from));
    assert_eq!(
        (&conditions[1]["status"], &conditions[1]["reason"]),
        (&json!("Unknown"), &json!("NoProxies"))
    );
    writer.take(fed(&plane, &written("access", 2, &json!({"action": "NO"}))));
    writer.round(&peers).await;
    assert_eq!(server.asked(&http::Method::PATCH).len(), 1, "the pause since the last write is kept");
    writer.objects.values_mut().for_each(|tracked| tracked.written = None);
    writer.round(&peers).await;
    let asked = server.asked(&http::Method::PATCH);
    let conditions = &asked[1].body["status"]["conditions"];
    assert_eq!(
        (&conditions[0]["status"], &conditions[0]["observedGeneration"]),
        (&json!("False"), &json!(2))
    );
    assert!(conditions[0]["message"].as_str().expect("words").starts_with("spec.action: "));
    assert!(conditions[1]["message"].as_str().expect("words").contains("generation 1"));
}

#[tokio::test]
async fn a_round_writes_a_bounded_number_of_objects_and_the_next_goes_on() {
    let (server, plane) = (ApiServer::new(), plane());
    let mut writer = Writer::new(&server.client(), &plane);
    let peers = Peers::new(&plane);
    for number in 0..WRITES_MAX + 7 {
        writer.take(fed(&plane, &written(&format!("p{number}"), 1, &json!({}))));
    }
    writer.round(&peers).await;
    assert_eq!(server.asked(&http::Method::PATCH).len(), WRITES_MAX);
    writer.round(&peers).await;
    assert_eq!(server.asked(&http::Method::PATCH).len(), WRITES_MAX + 7);
}

#[tokio::test]
async fn a_refused_write_is_not_tried_at_once_and_ends_nothing() {
    let (server, plane) = (ApiServer::new(), plane());
    let mut writer = Writer::new(&server.client(), &plane);
    let peers = Peers::new(&plane);
    server.fail("/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/a/status", 403);
    for name in ["a", "b"] {
        writer.take(fed(&plane, &written(name, 1, &json!({}))));
    }
    writer.round(&peers).await;
    writer.round(&peers).await;
    assert_eq!(server.asked(&http::Method::PATCH).len(), 2, "one for each");
}

#[tokio::test]
async fn what_is_gone_is_forgotten() {
    let plane = plane();
    let mut writer = Writer::new(&ApiServer::new().client(), &plane);
    for name in ["a", "b", "c"] {
        writer.take(fed(&plane, &written(name, 1, &json!({}))));
    }
    writer.take(Fed::Gone(object(Kind::AuthorizationPolicy, "shop", "a")));
    writer.take(Fed::All(
        Kind::AuthorizationPolicy,
        BTreeSet::from([object(Kind::AuthorizationPolicy, "shop", "c")]),
    ));
    writer.take(Fed::All(Kind::Telemetry, BTreeSet::new()));
    assert_eq!(writer.objects.keys().collect::<Vec<_>>(), [&object(Kind::AuthorizationPolicy, "shop", "c")]);
}

#[test]
fn of_two_routes_for_a_host_the_younger_is_told_who_goes_before_it() {
    let plane = plane();
    let mut older = routes("shop", "z-older", "db.shop.svc.cluster.local", "db");
    older.meta.created = 1;
    let mut younger = routes("shop", "a-younger", "db.shop.svc.cluster.local", "db");
    younger.meta.created = 2;
    plane.snapshot().apply(None, [older, younger].map(|it| Change::Set(Entry::from(it))));
    let found = outrouted(plane.snapshot().registry());
    assert_eq!(found.len(), 1);
    let message = &found[&object(Kind::VirtualService, "shop", "a-younger")];
    assert!(message.contains("VirtualService shop/z-older"), "{message}");
}
