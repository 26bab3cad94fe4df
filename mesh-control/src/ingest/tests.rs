use super::*;
use crate::fixture::{object, policy, service};
use mesh_api::model::{Kind, Origin};

fn document(entry: impl Into<Entry>, file: &str) -> InForce {
    let entry = entry.into();
    InForce {
        object: entry.meta().object.clone(),
        payload: Payload::Entry(entry),
        origin: Origin { file: file.into(), line: 1 },
        text: "".into(),
        is_held: false,
        generation: 0,
    }
}

fn settings(name: &str, trust_domain: &str) -> InForce {
    let trust_domain = TrustDomain::parse(trust_domain).expect("valid");
    InForce {
        object: object(Kind::MeshConfig, "istio-system", name),
        payload: Payload::Settings(Arc::new(MeshSettings { trust_domain, ..MeshSettings::default() })),
        origin: Origin::default(),
        text: "".into(),
        is_held: false,
        generation: 0,
    }
}

fn codes(objects: &Objects) -> Vec<&str> {
    objects.problems.iter().map(|problem| problem.code.as_str()).collect()
}

#[test]
fn the_first_definition_of_an_object_is_in_force_and_the_second_is_reported() {
    let documents =
        [document(policy("web", "p", None), "a.yaml"), document(policy("web", "p", Some("x")), "b.yaml")];
    let objects = ingest(&documents, None);
    assert_eq!(objects.documents.values().collect::<Vec<_>>(), [&documents[0]]);
    assert_eq!(codes(&objects), ["MM0105"]);
    assert!(objects.problems[0].message.contains("a.yaml:1"), "{}", objects.problems[0].message);
}

#[test]
fn a_readable_definition_goes_before_a_held_one_without_complaint() {
    let held = InForce { is_held: true, ..document(policy("web", "p", None), "a.yaml") };
    let moved = document(policy("web", "p", Some("x")), "b.yaml");
    let objects = ingest(&[held, moved.clone()], None);
    assert_eq!(objects.documents.values().collect::<Vec<_>>(), [&moved]);
    assert_eq!(codes(&objects), Vec::<&str>::new());
}

#[test]
fn the_trust_domain_of_the_authority_stays_in_force() {
    let ours = TrustDomain::parse("cluster.local").expect("valid");
    let objects = ingest(&[settings("mesh", "other.example")], Some(&ours));
    assert_eq!(objects.settings.trust_domain, ours);
    assert_eq!(codes(&objects), ["MM0107"]);
    let objects = ingest(&[settings("mesh", "other.example")], None);
    assert_eq!(objects.settings.trust_domain.as_str(), "other.example");
}

#[test]
fn one_of_several_settings_is_in_force() {
    let objects = ingest(&[settings("b", "b.example"), settings("a", "a.example")], None);
    assert_eq!(objects.settings.trust_domain.as_str(), "a.example");
    assert_eq!(codes(&objects), ["MM0106"]);
}

#[test]
fn changes_are_what_differs_and_nothing_else() {
    let former = ingest(
        &[
            document(policy("web", "same", None), "a.yaml"),
            document(policy("web", "changed", None), "a.yaml"),
            document(service("web", "gone", "x"), "a.yaml"),
        ],
        None,
    );
    let next = ingest(
        &[
            document(policy("web", "same", None), "a.yaml"),
            document(policy("web", "changed", Some("x")), "a.yaml"),
            document(service("web", "new", "x"), "a.yaml"),
        ],
        None,
    );
    let mut told: Vec<String> = changes(&former, &next)
        .iter()
        .map(|change| match change {
            Change::Set(entry) => format!("set {}", entry.meta().object.name),
            Change::Remove(object) => format!("remove {}", object.name),
        })
        .collect();
    told.sort();
    assert_eq!(told, ["remove gone", "set changed", "set new"]);
    assert!(changes(&next, &next).is_empty());
}
