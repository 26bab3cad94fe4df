use std::collections::BTreeMap;

use mesh_api::model::destination::{HttpMatch, StringMatch};
use mesh_api::model::{Kind, ObjectRef};
use mesh_api::name::{Labels, Namespace, ObjectName, ServiceAccount};
use proptest::prelude::*;

use super::*;
use crate::authorize::HeaderList;

fn target(host: &str, weight: u32) -> WeightedTarget {
    WeightedTarget { host: Host::parse(host).expect("valid"), port: None, subset: None, weight }
}

fn route(name: &str, matches: Vec<HttpMatch>) -> HttpRoute {
    HttpRoute { name: name.to_owned(), matches, targets: vec![target(name, 1)], ..HttpRoute::default() }
}

fn table(http: Vec<HttpRoute>) -> (RouteTable, Vec<Problem>) {
    let namespace = Namespace::parse("web").expect("valid");
    let labels: Labels = BTreeMap::from([("app".to_owned(), "frontend".to_owned())]);
    let service_account = ServiceAccount::parse("frontend").expect("valid");
    let object = ObjectRef {
        kind: Kind::VirtualService,
        namespace: namespace.clone(),
        name: ObjectName::parse("routes").expect("valid"),
    };
    let caller = Subject { namespace: &namespace, labels: &labels, service_account: &service_account };
    RouteTable::compile(&RouteSet { object, http }, &caller)
}

struct Request<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
}

fn chosen(table: &RouteTable, request: &Request<'_>) -> Option<String> {
    let headers: Vec<_> = request.headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let headers = HeaderList(&headers);
    let view = RequestView {
        method: "GET",
        authority: "shop:80",
        scheme: "http",
        path: request.path,
        query: request.query,
        port: 80,
        headers: &headers,
    };
    table.select(&view, 0).map(|plan| plan.route.to_owned())
}

fn at(path: &str) -> Request<'_> {
    Request { path, query: None, headers: &[] }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

fn uri(test: StringMatch) -> HttpMatch {
    HttpMatch { uri: Some(test), ..HttpMatch::default() }
}

#[test]
fn the_first_route_that_matches_is_taken() {
    let (table, problems) = table(vec![
        route("a", vec![uri(StringMatch::Prefix("/foo".to_owned()))]),
        route("b", vec![uri(exact("/foobar"))]),
        route("c", vec![]),
        route("d", vec![uri(exact("/d"))]),
    ]);
    assert_eq!(problems, []);
    assert_eq!(chosen(&table, &at("/foobar")).as_deref(), Some("a"));
    assert_eq!(chosen(&table, &at("/d")).as_deref(), Some("c"));
}

#[test]
fn no_match_is_no_plan() {
    let (table, _) = table(vec![route("a", vec![uri(exact("/a"))])]);
    assert_eq!(chosen(&table, &at("/b")), None);
}

#[test]
fn expressions_match_the_whole_value_and_a_bad_one_never_becomes_a_catch_all() {
    let (table, problems) = table(vec![
        route("bad", vec![uri(StringMatch::Regex("a)|(.*".to_owned()))]),
        route("look", vec![uri(StringMatch::Regex("(?=x)".to_owned()))]),
        route("good", vec![uri(StringMatch::Regex("/v[0-9]+".to_owned()))]),
    ]);
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].field, "spec.http[0].match[0].uri");
    assert_eq!(chosen(&table, &at("/v12")).as_deref(), Some("good"));
    assert_eq!(chosen(&table, &at("/v12/x")), None);
}

#[test]
fn case_is_ignored_for_uri_only_when_asked() {
    let ignoring = HttpMatch { ignore_uri_case: true, ..uri(StringMatch::Prefix("/FOO".to_owned())) };
    let (table, _) = table(vec![route("x", vec![uri(exact("/Foo"))]), route("y", vec![ignoring])]);
    assert_eq!(chosen(&table, &at("/Foo")).as_deref(), Some("x"));
    assert_eq!(chosen(&table, &at("/foo/1")).as_deref(), Some("y"));
}

#[test]
fn headers_are_tested_line_by_line() {
    let with = |headers| vec![HttpMatch { headers, ..HttpMatch::default() }];
    let (table, _) = table(vec![
        route("exact", with(vec![("X-User".to_owned(), exact("b"))])),
        route("present", with(vec![("x-user".to_owned(), StringMatch::Present)])),
    ]);
    let lines = |headers| Request { path: "/", query: None, headers };
    assert_eq!(chosen(&table, &lines(&[("x-user", "a"), ("x-user", "b")])).as_deref(), Some("exact"));
    assert_eq!(chosen(&table, &lines(&[("x-user", "a,b")])).as_deref(), Some("present"));
    assert_eq!(chosen(&table, &lines(&[])), None);
}

#[test]
fn a_missing_header_satisfies_without_headers() {
    let without =
        |test| vec![HttpMatch { without_headers: vec![("x".to_owned(), test)], ..HttpMatch::default() }];
    let lines = |headers| Request { path: "/", query: None, headers };
    for (test, absent, other, same) in [
        (exact("v"), true, true, false),
        (StringMatch::Present, true, false, false),
        (StringMatch::Regex(".*".to_owned()), false, false, false),
    ] {
        let (table, _) = table(vec![route("r", without(test.clone()))]);
        assert_eq!(chosen(&table, &lines(&[])).is_some(), absent, "{test:?} without the header");
        assert_eq!(chosen(&table, &lines(&[("x", "w")])).is_some(), other, "{test:?} with another value");
        assert_eq!(
            chosen(&table, &lines(&[("x", "w"), ("x", "v")])).is_some(),
            same,
            "{test:?} with the value"
        );
    }
}

#[test]
fn the_first_value_of_a_query_parameter_counts() {
    let (table, _) = table(vec![route(
        "q",
        vec![HttpMatch { query_params: vec![("v".to_owned(), exact("2"))], ..HttpMatch::default() }],
    )]);
    let with = |query| Request { path: "/", query: Some(query), headers: &[] };
    assert!(chosen(&table, &with("a=1&v=2")).is_some());
    assert!(chosen(&table, &with("v=1&v=2")).is_none());
    assert!(chosen(&table, &with("v")).is_none());
    assert!(chosen(&table, &at("/")).is_none());
}

#[test]
fn matches_for_other_callers_are_gone_and_leave_no_catch_all() {
    let other = HttpMatch { source_namespace: Some("other".to_owned()), ..HttpMatch::default() };
    let labels = HttpMatch {
        source_labels: BTreeMap::from([("app".to_owned(), "frontend".to_owned())]),
        ..HttpMatch::default()
    };
    let (table, problems) = table(vec![route("other", vec![other]), route("mine", vec![labels])]);
    assert_eq!(problems, []);
    assert_eq!(chosen(&table, &at("/")).as_deref(), Some("mine"));
}

fn drawn(weights: &[u32], draw: u32) -> Option<String> {
    let targets = weights.iter().enumerate().map(|(n, w)| target(&format!("t{n}"), *w)).collect();
    let (table, _) = table(vec![HttpRoute { targets, ..HttpRoute::default() }]);
    let headers = HeaderList(&[]);
    let view = RequestView {
        method: "GET",
        authority: "a",
        scheme: "http",
        path: "/",
        query: None,
        port: 80,
        headers: &headers,
    };
    let plan = table.select(&view, draw).expect("a catch-all");
    plan.target.map(|target| target.host.as_str().to_owned())
}

#[test]
fn a_single_target_gets_everything_and_zero_weights_nothing() {
    assert_eq!(drawn(&[0], u32::MAX).as_deref(), Some("t0"));
    assert_eq!(drawn(&[0, 5, 0], 0).as_deref(), Some("t1"));
    assert_eq!(drawn(&[0, 5, 0], u32::MAX).as_deref(), Some("t1"));
    assert_eq!(drawn(&[0, 0], 7), None);
    assert_eq!(drawn(&[], 7), None);
}

proptest! {
    #[test]
    fn shares_follow_weights(weights in prop::collection::vec(0_u32..100, 2..5)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        // One draw in the middle of each of `total` equal parts: every target must get exactly its weight.
        let mut counts = vec![0_u32; weights.len()];
        for part in 0..total {
            let draw = ((u64::from(part) * 2 + 1) << 31) / u64::from(total);
            let name = drawn(&weights, u32::try_from(draw).expect("below 2^32")).expect("a target");
            counts[name[1..].parse::<usize>().expect("a number")] += 1;
        }
        prop_assert_eq!(counts, weights);
    }
}
