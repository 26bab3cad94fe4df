use super::*;
use mesh_api::model::{JwtRule, Kind, ObjectMeta, Origin, Selector};
use mesh_api::name::Labels;

fn policy(rules: &[(&str, &str, u64)]) -> Arc<RequestAuthentication> {
    let rule = |(issuer, jwks_uri, timeout_ms): &(&str, &str, u64)| JwtRule {
        issuer: (*issuer).to_owned(),
        jwks_uri: (*jwks_uri).to_owned(),
        timeout_ms: *timeout_ms,
        ..JwtRule::default()
    };
    let meta = ObjectMeta {
        object: crate::fixture::object(Kind::RequestAuthentication, "a", "p"),
        labels: Labels::new(),
        annotations: Labels::new(),
        created: 0,
        origin: Origin::default(),
    };
    let jwt_rules = rules.iter().map(rule).collect();
    Arc::new(RequestAuthentication { meta, selector: Selector::default(), targets: Vec::new(), jwt_rules })
}

fn opened(folder: &tempfile::TempDir) -> (Keys, KeyFetcher) {
    open(KeySettings::default(), &folder.path().join("jwks")).expect("opened")
}

#[tokio::test]
async fn sources_are_named_once_and_only_a_difference_wakes_the_fetcher() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, mut fetcher) = opened(&folder);
    let policies = [
        policy(&[("https://a", "", 0), ("x", "https://b/keys", 100)]),
        policy(&[("https://a/", "", 9_000), ("y", "https://b/keys", 0)]),
    ];
    keys.follow(&policies);
    assert!(fetcher.wanted.has_changed().expect("open"));
    let wanted = fetcher.wanted.borrow_and_update().clone();
    let urls: Vec<_> = wanted.keys().map(String::as_str).collect();
    assert_eq!(urls, ["https://a/.well-known/openid-configuration", "https://b/keys"]);
    let timeouts: Vec<_> = wanted.values().map(|spec| spec.timeout.as_millis()).collect();
    assert_eq!(timeouts, [9_000, 5_000]);
    keys.follow(&policies);
    assert!(!fetcher.wanted.has_changed().expect("open"));
    keys.follow(&policies[..1]);
    assert!(fetcher.wanted.has_changed().expect("open"));
}

#[tokio::test]
async fn questions_beyond_the_queue_are_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (keys, _fetcher) = opened(&folder);
    assert!((0..QUESTIONS_MAX).all(|_| keys.ask("https://a", "k")));
    assert!(!keys.ask("https://a", "k"));
}

#[tokio::test]
async fn a_fetch_that_ends_by_a_defect_is_a_failure_of_its_source() {
    let mut fetches = Fetches::default();
    fetches.start("https://a".to_owned(), std::future::pending());
    fetches.start("https://b".to_owned(), async { std::panic::resume_unwind(Box::new("a defect")) });
    let (url, result) = fetches.next().await;
    assert_eq!((url.as_str(), result.expect_err("failed").label), ("https://b", "unfinished"));
    assert_eq!(fetches.room(), FETCHES_MAX - 1);
}
