//! What single case files cannot show: order, effort, and the form in which the control plane keeps findings.
//! The cases themselves are `tests/analyze_cases.rs`.

use std::collections::BTreeMap;

use mesh_api::model::{
    Action, Kind, ObjectMeta, ObjectRef, Operation, Origin, Protocol, Rule, Selector, ServicePort, Source,
};
use mesh_api::name::{Host, Labels, Namespace, ObjectName, ServiceAccount};

use super::*;

fn meta(kind: Kind, namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        object: ObjectRef {
            kind,
            namespace: Namespace::parse(namespace).expect("valid"),
            name: ObjectName::parse(name).expect("valid"),
        },
        labels: Labels::new(),
        annotations: Labels::new(),
        created: 0,
        origin: Origin { file: "mesh.yaml".into(), line: 7 },
    }
}

fn selector(app: &str) -> Selector {
    Selector { match_labels: BTreeMap::from([("app".to_owned(), app.to_owned())]) }
}

#[derive(Default)]
struct Mesh {
    settings: MeshSettings,
    services: Vec<Arc<Service>>,
    workloads: Vec<Arc<Workload>>,
    authorization: Vec<Arc<AuthorizationPolicy>>,
    peer: Vec<Arc<PeerAuthentication>>,
}

impl Mesh {
    fn findings(&self) -> Vec<Finding> {
        findings(&Model {
            mesh: &self.settings,
            services: &self.services,
            workloads: &self.workloads,
            authorization: &self.authorization,
            peer: &self.peer,
            request: &[],
            virtual_services: &[],
            destination_rules: &[],
            documents: &[],
        })
    }

    fn workload(&mut self, namespace: &str, app: &str) {
        self.services.push(Arc::new(Service {
            meta: meta(Kind::Service, namespace, app),
            hosts: vec![Host::parse(&format!("{app}.{namespace}.svc.cluster.local")).expect("valid")],
            addresses: Vec::new(),
            headless: false,
            ports: vec![ServicePort {
                name: "http".to_owned(),
                port: 80,
                target_port: 8080,
                target_port_name: None,
                protocol: Protocol::Http,
            }],
            selector: Some(selector(app)),
            endpoints: Vec::new(),
            resolution: mesh_api::model::service::Resolution::Static,
            external: false,
            subject_alt_names: Vec::new(),
            publish_not_ready: false,
            members: Default::default(),
            zone_hints: Default::default(),
        }));
        self.workloads.push(Arc::new(Workload {
            meta: meta(Kind::WorkloadEntry, namespace, app),
            addresses: Vec::new(),
            dns_name: None,
            labels: selector(app).match_labels,
            service_account: ServiceAccount::parse(app).expect("valid"),
            ports: BTreeMap::new(),
            weight: 1,
            locality: String::new(),
            meshed: true,
            availability: mesh_api::model::Availability::Ready,
            shares_addresses: false,
            hosts: Vec::new(),
            is_completed: false,
        }));
    }

    fn policy(&mut self, namespace: &str, name: &str, selector: Selector, rules: Vec<Rule>) {
        self.authorization.push(Arc::new(AuthorizationPolicy {
            meta: meta(Kind::AuthorizationPolicy, namespace, name),
            selector,
            targets: Vec::new(),
            action: Action::Allow,
            provider: None,
            rules,
            dry_run: false,
        }));
    }
}

fn rule(principal: &str, path: &str) -> Rule {
    Rule {
        from: vec![Source { principals: vec![principal.to_owned()], ..Source::default() }],
        to: vec![Operation { paths: vec![path.to_owned()], ..Operation::default() }],
        when: Vec::new(),
    }
}

/// Policies of one namespace without selector, each with a rule of its own: whatever compares each with each
/// shows here.
fn large(policies: usize) -> Mesh {
    let mut mesh = Mesh::default();
    for index in 0..200 {
        mesh.workload("shop", &format!("app-{index}"));
    }
    for index in 0..policies {
        let app = format!("app-{}", index % 200);
        let rules = vec![rule(&format!("cluster.local/ns/shop/sa/{app}"), &format!("/api/v{index}/*"))];
        let of = if index % 2 == 0 { Selector::default() } else { selector(&app) };
        mesh.policy("shop", &format!("p{index}"), of, rules);
    }
    mesh
}

#[test]
fn effort_grows_with_the_number_of_policies_and_not_with_its_square() {
    let findings = large(2_000).findings();
    // Each with each would be beyond the bound on comparisons, which is told.
    assert!(findings.iter().all(|finding| finding.code != catalogue::INCOMPLETE), "within the bound");
    assert!(findings.is_empty(), "{:?}", findings.first());
}

#[test]
fn a_covering_rule_is_found_among_many_by_what_they_share() {
    let mut mesh = large(2_000);
    for (name, path, expected) in
        [("v77", "/api/v77/x/*", 1), ("t77", "/api/v77/{*}/y", 1), ("v7", "/api/v2077/*", 0)]
    {
        let before = mesh.authorization.len();
        mesh.policy("shop", name, selector("app-77"), vec![rule("cluster.local/ns/shop/sa/app-77", path)]);
        let found = mesh.findings();
        assert_eq!(
            found.iter().filter(|it| it.code == catalogue::SHADOWED).count(),
            expected,
            "{path}: {found:?}"
        );
        mesh.authorization.truncate(before);
    }
}

#[test]
fn what_exceeds_the_bound_is_said() {
    let mut mesh = Mesh::default();
    mesh.workload("shop", "app");
    // Suffixes without callers have nothing to be found by.
    let rules = (0..2_000).map(|index| Rule {
        to: vec![Operation { paths: vec![format!("*/{index:05}")], ..Operation::default() }],
        ..Rule::default()
    });
    mesh.policy("shop", "wide", Selector::default(), rules.collect());
    let findings = mesh.findings();
    assert_eq!(findings.iter().map(|it| it.code.id).collect::<Vec<_>>(), ["MM0001"]);
}

#[test]
fn findings_do_not_depend_on_the_order_of_objects() {
    let mut mesh = large(20);
    mesh.policy("shop", "a-typo", selector("ap-1"), vec![rule("cluster.local/ns/shop/sa/ap-1", "/x")]);
    mesh.policy("shop", "b-split", Selector::default(), vec![rule("spiffe://x", "y"), Rule::default()]);
    let places = |mesh: &Mesh| -> Vec<(String, &'static str, String)> {
        mesh.findings().into_iter().map(|it| (it.subject.to_string(), it.code.id, it.field)).collect()
    };
    let before = places(&mesh);
    assert!(before.len() > 5, "{before:?}");
    mesh.authorization.reverse();
    mesh.workloads.reverse();
    mesh.services.reverse();
    assert_eq!(places(&mesh), before);
}

#[test]
fn the_control_plane_keeps_findings_with_paths_in_place_of_lines() {
    let mut mesh = Mesh::default();
    let split = vec![
        Rule { to: Vec::new(), ..rule("cluster.local/ns/shop/sa/web", "/") },
        Rule { from: Vec::new(), ..rule("", "/api") },
    ];
    mesh.policy("shop", "split", Selector::default(), split);
    let problems: Vec<_> = mesh.findings().into_iter().map(Finding::into_problem).collect();
    let text = problems[0].to_string();
    assert!(text.starts_with("Warning [MM0405] (AuthorizationPolicy shop/split mesh.yaml:7) spec.rules[1]: rules[0] has only `from`, rules[1] only `to`"), "{text}");
}

#[test]
fn lines_are_put_where_fields_are_named() {
    let mut mesh = Mesh::default();
    mesh.policy(
        "shop",
        "split",
        Selector::default(),
        vec![
            Rule { to: Vec::new(), ..rule("cluster.local/ns/shop/sa/web", "/") },
            Rule { from: Vec::new(), ..rule("", "/api") },
        ],
    );
    let mut finding = mesh.findings().remove(0);
    finding.locate(&|field| Some(if field == "spec.rules[0]" { 10 } else { 14 }));
    assert_eq!(finding.origin.line, 14);
    assert!(
        finding.message.starts_with("rules[0] (line 10) has only `from`, rules[1] (line 14) only `to`"),
        "{}",
        finding.message
    );
    assert_eq!(
        finding.fix,
        "rules:\n- from:\n  - source:\n      principals: [\"cluster.local/ns/shop/sa/web\"]\n  to:\n  - operation:\n      paths: [\"/api\"]"
    );
}

#[test]
fn a_name_is_only_like_one_that_differs_little() {
    for (written, expected) in
        [("revews", Some("reviews")), ("reveiws", Some("reviews")), ("ratings", None), ("v", None)]
    {
        assert_eq!(nearest(written, &["reviews", "details"]), expected, "{written}");
    }
}
