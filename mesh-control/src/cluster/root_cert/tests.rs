use super::*;
use serde_json::Value;

const ROOTS: &str = "-----BEGIN CERTIFICATE-----\n";

fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("valid")
}

fn ending(name: &str) -> PartialObjectMeta<Namespace> {
    let metadata = json!({"name": name, "deletionTimestamp": "2026-12-01T00:00:00Z"});
    serde_json::from_value(json!({"metadata": metadata})).expect("valid")
}

fn config_map(namespace: &str, data: &Value) -> ConfigMap {
    let metadata = json!({"name": "mini-mesh-ca-root-cert", "namespace": namespace});
    serde_json::from_value(json!({"metadata": metadata, "data": data})).expect("valid")
}

fn good(namespace: &str) -> ConfigMap {
    config_map(namespace, &json!({"root-cert.pem": ROOTS}))
}

fn listed(namespaces: &[&str], maps: Vec<ConfigMap>) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.take_namespace(Event::Init);
    namespaces.iter().for_each(|name| ledger.take_namespace(Event::InitApply(namespace(name))));
    ledger.take_namespace(Event::InitDone);
    ledger.take_config_map(Event::Init);
    maps.into_iter().for_each(|map| ledger.take_config_map(Event::InitApply(map)));
    ledger.take_config_map(Event::InitDone);
    ledger
}

#[test]
fn every_namespace_gets_the_roots_but_those_of_the_cluster_itself_and_those_that_end() {
    let mut ledger = listed(&["shop", "kube-system", "default"], vec![good("default")]);
    assert_eq!(ledger.wanting(ROOTS), ["shop"]);
    ledger.written("shop", ROOTS);
    assert!(ledger.wanting(ROOTS).is_empty());
    ledger.take_namespace(Event::Apply(namespace("new")));
    assert_eq!(ledger.wanting(ROOTS), ["new"]);
    ledger.take_namespace(Event::Apply(ending("new")));
    assert!(ledger.wanting(ROOTS).is_empty());
}

#[test]
fn what_is_edited_or_deleted_is_written_again_and_new_roots_are_written_everywhere() {
    let mut ledger = listed(&["a", "b"], vec![good("a"), good("b")]);
    ledger.take_config_map(Event::Apply(config_map("a", &json!({"root-cert.pem": "another"}))));
    assert_eq!(ledger.wanting(ROOTS), ["a"]);
    ledger.take_config_map(Event::Apply(config_map("a", &json!({}))));
    assert_eq!(ledger.wanting(ROOTS), ["a"]);
    ledger.take_config_map(Event::Apply(good("a")));
    ledger.take_config_map(Event::Delete(good("b")));
    assert_eq!(ledger.wanting(ROOTS), ["b"]);
    assert_eq!(ledger.wanting("other roots"), ["a", "b"]);
}

#[test]
fn nothing_is_written_before_everything_is_known_and_a_watch_that_begins_anew_forgets_nothing_meanwhile() {
    let mut ledger = Ledger::default();
    ledger.take_namespace(Event::Init);
    ledger.take_namespace(Event::InitApply(namespace("a")));
    ledger.take_namespace(Event::InitDone);
    assert!(ledger.wanting(ROOTS).is_empty(), "whether it is there is not known yet");
    let mut ledger = listed(&["a", "b"], vec![good("a")]);
    ledger.take_config_map(Event::Init);
    assert_eq!(ledger.wanting(ROOTS), ["b"]);
    ledger.take_config_map(Event::InitApply(good("b")));
    ledger.take_config_map(Event::InitDone);
    assert_eq!(ledger.wanting(ROOTS), ["a"], "it has gone while nobody watched");
}

#[test]
fn pauses_grow_to_their_bound_and_end_with_a_success() {
    let now = Instant::now();
    let mut pauses = Pauses::default();
    assert!(pauses.is_over("a", now));
    for _ in 0..20 {
        pauses.failed("a", now);
    }
    assert!(!pauses.is_over("a", now + RETRY_AFTER_MAX - Duration::from_secs(1)));
    assert!(pauses.is_over("a", now + RETRY_AFTER_MAX));
}
