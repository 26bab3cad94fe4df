//! `policy diff --live`: what proxies counted for policies that are tried, in every form, and how it ends.

use insta::assert_snapshot;
use mesh_api::admin::{
    PolicyDifference, PolicyDifferences, TrialOutcome, TrialStage, TrialVerdict, TriedChange, TriedObject,
};
use mesh_api::model::{Kind, ObjectRef};
use mesh_api::name::{Namespace, ObjectName};

use crate::admin::{FakeMesh, fixed, json};
use crate::fixtures;

const CALLER: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const SINCE: &str = "2026-01-31T12:00:00Z";

fn tried(kind: Kind, name: &str, change: TriedChange) -> TriedObject {
    let object = ObjectRef {
        kind,
        namespace: Namespace::parse("backend").expect("valid"),
        name: ObjectName::parse(name).expect("valid"),
    };
    TriedObject { object, change }
}

fn outcome(verdict: TrialVerdict, stage: TrialStage, status: u16, by: &str) -> TrialOutcome {
    TrialOutcome { verdict, stage, status, by: by.to_owned() }
}

fn difference(caller: &str, request: (&str, &str), count: u64, then: TrialOutcome) -> PolicyDifference {
    PolicyDifference {
        caller: caller.to_owned(),
        method: request.0.to_owned(),
        path: request.1.to_owned(),
        port: 8080,
        count,
        now: outcome(TrialVerdict::Allowed, TrialStage::Policy, 0, "none"),
        then,
        first: SINCE.to_owned(),
        last: "2026-01-31T12:05:00.25Z".to_owned(),
    }
}

fn differing() -> PolicyDifferences {
    let denied =
        outcome(TrialVerdict::Refused, TrialStage::Policy, 403, "ns[backend]-policy[no-admin]-rule[0]");
    let strict = outcome(TrialVerdict::Refused, TrialStage::Mtls, 0, "PeerAuthentication backend/strict");
    PolicyDifferences {
        tried: vec![
            tried(Kind::AuthorizationPolicy, "no-admin", TriedChange::Added),
            tried(Kind::PeerAuthentication, "strict", TriedChange::Edited),
        ],
        since: SINCE.to_owned(),
        judged: 120,
        differing: 10,
        differences: vec![
            difference(CALLER, ("GET", "/admin/{*}"), 6, denied),
            difference("none", ("", ""), 3, strict),
        ],
    }
}

fn same() -> PolicyDifferences {
    let tried = vec![tried(Kind::AuthorizationPolicy, "no-admin", TriedChange::Added)];
    PolicyDifferences { tried, since: SINCE.to_owned(), judged: 1, ..PolicyDifferences::default() }
}

fn mesh(proxies: &[(&str, PolicyDifferences)]) -> FakeMesh {
    let mesh = FakeMesh::new();
    for (workload, differences) in proxies {
        mesh.proxy(workload, fixed(&[("/policy/differences", json(differences))]));
    }
    mesh.stranger("intruder.outside");
    mesh
}

#[test]
fn differences_of_all_proxies_are_told_in_every_form() {
    let mesh = mesh(&[
        ("catalog-0.backend", differing()),
        ("catalog-1.backend", same()),
        ("frontend.web", PolicyDifferences::default()),
    ]);
    assert_snapshot!("table", mesh.run(&["policy", "diff", "--live"]).all());
    let json = mesh.run(&["policy", "diff", "--live", "-o", "json"]);
    assert_eq!(json.status, 1);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON alone");
    assert_eq!(value["catalog-0.backend"]["differences"][0]["then"]["status"], 403);
    assert_eq!(value["catalog-1.backend"]["judged"], 1);
    assert!(value.get("frontend.web").is_none());
}

#[test]
fn no_difference_is_told_with_the_number_of_requests_and_nothing_tried_as_such() {
    assert_snapshot!("same", mesh(&[("catalog-0.backend", same())]).run(&["policy", "diff", "--live"]).all());
    let untried = mesh(&[("frontend.web", PolicyDifferences::default())]);
    assert_snapshot!("untried", untried.run(&["policy", "diff", "--live"]).all());
}

#[test]
fn a_proxy_that_does_not_answer_is_not_one_without_differences() {
    let mesh = mesh(&[("catalog-0.backend", same())]);
    mesh.proxy("frontend.web", fixed(&[]));
    let printed = mesh.run(&["policy", "diff", "--live"]);
    assert_eq!(printed.status, 2);
    assert!(printed.stderr.contains("did not answer: frontend.web"), "{printed:?}");
}

#[test]
fn what_is_tried_only_is_listed_as_such() {
    let mesh = mesh(&[]);
    let mut objects = fixtures::objects("");
    objects.retain(|object| object.kind == Kind::AuthorizationPolicy && !object.held);
    objects[0].tried = Some(TriedChange::Edited);
    objects[1].tried = Some(TriedChange::Deleted);
    mesh.control(fixed(&[("/objects", json(&objects))]));
    let printed = mesh.run(&["get", "authorizationpolicy", "-A"]);
    let row = |name: &str| printed.stdout.lines().find(|line| line.contains(name)).expect("a row").to_owned();
    assert!(row(&objects[0].name).contains(", tried only "), "{printed:?}");
    assert!(row(&objects[1].name).contains(", deletion tried "), "{printed:?}");
}

#[test]
fn files_and_the_live_mesh_are_not_mixed() {
    let mesh = mesh(&[]);
    assert_ne!(mesh.run(&["policy", "diff", "--live", "old", "new"]).status, 0);
    assert_ne!(mesh.run(&["policy", "diff", "old"]).status, 0);
}
