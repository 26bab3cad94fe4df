use super::*;

fn response(kind: TypeUrl, nonce: &str, set: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.as_str().to_owned(),
        nonce: nonce.to_owned(),
        resources: set
            .iter()
            .map(|(name, version)| Resource {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                resource: None,
            })
            .collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

const KIND: TypeUrl = TypeUrl::Destination;

fn drain(session: &mut Session) -> Vec<DeltaDiscoveryRequest> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn opened(names: &[&str]) -> Session {
    let mut session = Session::new();
    for name in names {
        session.subscribe(KIND, name);
    }
    session.open();
    assert_eq!(drain(&mut session).len(), 1);
    session
}

#[test]
fn an_answer_carries_the_nonce_and_only_an_accepted_one_changes_what_is_had() {
    let mut session = opened(&["a"]);
    let delivery = session.receive(response(KIND, "1", &[("a", "v1")], &[])).expect("known type");
    session.reject(&delivery, "no good");
    let [nack] = drain(&mut session).try_into().expect("one answer");
    assert_eq!(nack.response_nonce, "1");
    assert_eq!(nack.error_detail.expect("a reason").message, "no good");
    assert!(session.versions()[&KIND].is_empty());
    let delivery = session.receive(response(KIND, "2", &[("a", "v2")], &[])).expect("known type");
    session.accept(delivery);
    let [ack] = drain(&mut session).try_into().expect("one answer");
    assert_eq!((ack.response_nonce.as_str(), ack.error_detail), ("2", None));
    assert_eq!(session.versions()[&KIND]["a"], "v2");
}

#[test]
fn a_new_stream_is_told_every_name_with_its_version_and_no_answer_of_the_old_one() {
    let mut session = opened(&["a", "b", "c"]);
    let delivery = session.receive(response(KIND, "1", &[("a", "v1")], &["b"])).expect("known type");
    session.accept(delivery);
    session.unsubscribe(KIND, "c");
    session.open();
    let [request] = drain(&mut session).try_into().expect("one request");
    assert_eq!(request.resource_names_subscribe, ["a", "b"]);
    assert!(request.resource_names_unsubscribe.is_empty(), "the new stream never heard of it");
    assert_eq!(request.response_nonce, "");
    assert_eq!(
        request.initial_resource_versions.into_iter().collect::<Vec<_>>(),
        [("a".into(), "v1".into())]
    );
}

#[test]
fn later_requests_state_no_versions_and_withdraw_only_what_was_told() {
    let mut session = opened(&["a"]);
    session.subscribe(KIND, "b");
    session.subscribe(KIND, "c");
    session.unsubscribe(KIND, "c");
    session.unsubscribe(KIND, "a");
    let [request] = drain(&mut session).try_into().expect("one request");
    assert_eq!(request.resource_names_subscribe, ["b"]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    assert!(request.initial_resource_versions.is_empty());
    assert!(!session.has_due());
}

#[test]
fn what_comes_for_a_name_that_was_let_go_is_left_out_and_the_rest_taken() {
    let mut session = opened(&["a", "b"]);
    session.unsubscribe(KIND, "a");
    let delivery =
        session.receive(response(KIND, "1", &[("a", "v1"), ("b", "v1")], &[])).expect("known type");
    assert_eq!(delivery.changes.iter().map(Change::name).collect::<Vec<_>>(), ["b"]);
    session.accept(delivery);
    assert_eq!(session.versions()[&KIND].keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn a_type_that_nobody_asked_for_is_refused() {
    let session = opened(&["a"]);
    let mut strange = response(KIND, "1", &[], &[]);
    strange.type_url = "type.example/Strange".to_owned();
    assert!(session.receive(strange).is_err());
    assert!(session.receive(response(TypeUrl::ProxyConfig, "1", &[], &[])).is_err());
}

#[test]
fn a_reason_is_cut_to_what_is_sent() {
    let mut session = opened(&["a"]);
    let delivery = session.receive(response(KIND, "1", &[("a", "v1")], &[])).expect("known type");
    session.reject(&delivery, &"é".repeat(REASON_BYTES_MAX));
    let [nack] = drain(&mut session).try_into().expect("one answer");
    assert!(nack.error_detail.expect("a reason").message.len() <= REASON_BYTES_MAX);
}
