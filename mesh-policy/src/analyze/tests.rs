use std::collections::BTreeMap;

use mesh_api::model::destination::{HttpMatch, HttpRoute, StringMatch, WeightedTarget};
use mesh_api::model::traffic::{ClientTlsMode, Subset, TrafficPolicy};
use mesh_api::model::{
    Action, Condition, Kind, MtlsMode, ObjectRef, Operation, Origin, Protocol, Rule, ServicePort, Source,
    TargetRef,
};
use mesh_api::name::{Host, Labels, ObjectName, ServiceAccount};

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

fn labels(app: &str) -> Labels {
    BTreeMap::from([("app".to_owned(), app.to_owned())])
}

fn selector(app: &str) -> Selector {
    Selector { match_labels: labels(app) }
}

/// A service `catalog.backend` on port 80 in front of one workload on 8080, and one more policy kind each.
#[derive(Default)]
struct Mesh {
    settings: MeshSettings,
    services: Vec<Arc<Service>>,
    workloads: Vec<Arc<Workload>>,
    authorization: Vec<Arc<AuthorizationPolicy>>,
    peer: Vec<Arc<PeerAuthentication>>,
    request: Vec<Arc<RequestAuthentication>>,
    virtual_services: Vec<Arc<VirtualService>>,
    destination_rules: Vec<Arc<DestinationRule>>,
}

impl Mesh {
    fn new(protocol: Protocol) -> Self {
        let port = ServicePort {
            name: String::new(),
            port: 80,
            target_port: 8080,
            target_port_name: None,
            protocol,
        };
        let service = Service {
            meta: meta(Kind::Service, "backend", "catalog"),
            hosts: vec![Host::parse("catalog.backend.svc.cluster.local").expect("valid")],
            addresses: Vec::new(),
            headless: false,
            ports: vec![port],
            selector: Some(selector("catalog")),
            endpoints: Vec::new(),
            resolution: mesh_api::model::service::Resolution::Static,
            external: false,
            subject_alt_names: Vec::new(),
        };
        let workload = Workload {
            meta: meta(Kind::WorkloadEntry, "backend", "catalog-1"),
            addresses: Vec::new(),
            dns_name: None,
            labels: labels("catalog"),
            service_account: ServiceAccount::parse("catalog").expect("valid"),
            ports: BTreeMap::new(),
            weight: 1,
            locality: String::new(),
            meshed: true,
        };
        Self { services: vec![Arc::new(service)], workloads: vec![Arc::new(workload)], ..Self::default() }
    }

    fn policy(mut self, namespace: &str, action: Action, rules: Vec<Rule>) -> Self {
        self.authorization.push(Arc::new(AuthorizationPolicy {
            meta: meta(Kind::AuthorizationPolicy, namespace, "policy"),
            selector: Selector::default(),
            targets: Vec::new(),
            action,
            provider: None,
            rules,
            dry_run: false,
        }));
        self
    }

    fn peer(mut self, namespace: &str, name: &str, app: Option<&str>, mode: Option<MtlsMode>) -> Self {
        self.peer.push(Arc::new(PeerAuthentication {
            meta: meta(Kind::PeerAuthentication, namespace, name),
            selector: app.map(selector).unwrap_or_default(),
            mode,
            port_level: app.map(|_| BTreeMap::from([(80, Some(MtlsMode::Disable))])).unwrap_or_default(),
        }));
        self
    }

    fn routes(mut self, namespace: &str, name: &str, http: Vec<HttpRoute>) -> Self {
        self.virtual_services.push(Arc::new(VirtualService {
            meta: meta(Kind::VirtualService, namespace, name),
            hosts: vec![Host::parse("catalog.backend.svc.cluster.local").expect("valid")],
            gateways: vec!["mesh".to_owned()],
            http,
        }));
        self
    }

    fn rule(mut self, host: &str, subset: &str, tls: Option<ClientTlsMode>) -> Self {
        let subset =
            Subset { name: subset.to_owned(), labels: labels(subset), policy: TrafficPolicy::default() };
        self.destination_rules.push(Arc::new(DestinationRule {
            meta: meta(Kind::DestinationRule, "backend", &format!("rule{}", self.destination_rules.len())),
            host: Host::parse(host).expect("valid"),
            policy: TrafficPolicy { tls, ..TrafficPolicy::default() },
            port_level: Vec::new(),
            subsets: vec![subset],
        }));
        self
    }

    fn problems(&self) -> Vec<Problem> {
        analyze(&Model {
            mesh: &self.settings,
            services: &self.services,
            workloads: &self.workloads,
            authorization: &self.authorization,
            peer: &self.peer,
            request: &self.request,
            virtual_services: &self.virtual_services,
            destination_rules: &self.destination_rules,
        })
    }

    /// Codes and fields found.
    fn found(&self) -> Vec<(String, String)> {
        self.problems().into_iter().map(|problem| (problem.code, problem.field)).collect()
    }
}

fn expect(mesh: &Mesh, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(code, field)| ((*code).to_owned(), (*field).to_owned())).collect();
    assert_eq!(mesh.found(), expected);
}

fn strings<const N: usize>(values: [&str; N]) -> Vec<String> {
    values.map(str::to_owned).to_vec()
}

fn from(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

fn to(operation: Operation) -> Rule {
    Rule { to: vec![operation], ..Rule::default() }
}

#[test]
fn a_plain_mesh_has_no_findings() {
    let rule = Rule {
        from: vec![Source { principals: strings(["cluster.local/ns/web/sa/frontend"]), ..Source::default() }],
        to: vec![Operation { ports: strings(["8080"]), methods: strings(["GET"]), ..Operation::default() }],
        when: Vec::new(),
    };
    let mesh = Mesh::new(Protocol::Http)
        .policy("backend", Action::Allow, vec![rule])
        .peer("backend", "default", None, Some(MtlsMode::Strict))
        .rule("catalog.backend.svc.cluster.local", "catalog", None);
    expect(&mesh, &[]);
}

#[test]
fn patterns_that_never_match_are_found() {
    let source = Source {
        principals: strings(["spiffe://cluster.local/ns/a/sa/b", "*frontend*"]),
        ..Source::default()
    };
    let operation = Operation { paths: strings(["/a/*/b", "/a/{*}", "/a*", "*b"]), ..Operation::default() };
    let mesh = Mesh::new(Protocol::Http).policy("backend", Action::Allow, vec![from(source), to(operation)]);
    let source = "spec.rules[0].from[0].source.principals";
    expect(
        &mesh,
        &[
            ("MM0401", source),
            ("MM0402", source),
            ("MM0405", "spec.rules[1]"),
            ("MM0402", "spec.rules[1].to[0].operation.paths"),
        ],
    );
}

#[test]
fn a_deny_of_a_host_that_a_port_gets_round_is_found() {
    let deny = |hosts| {
        Mesh::new(Protocol::Http).policy(
            "backend",
            Action::Deny,
            vec![to(Operation { hosts, ..Operation::default() })],
        )
    };
    expect(&deny(strings(["a.com"])), &[("MM0403", "spec.rules[0].to[0].operation.hosts")]);
    expect(&deny(strings(["a.com", "a.com:*"])), &[]);
    expect(&deny(strings(["a.com*"])), &[]);
}

#[test]
fn sources_that_let_in_more_than_they_seem_to_are_found() {
    let anonymous = Source { not_namespaces: strings(["web"]), ..Source::default() };
    let mesh = Mesh::new(Protocol::Http).policy("backend", Action::Allow, vec![from(anonymous)]);
    expect(&mesh, &[("MM0406", "spec.rules[0].from[0].source")]);
    let v4 = Source { ip_blocks: strings(["0.0.0.0/0"]), ..Source::default() };
    let mesh = Mesh::new(Protocol::Http).policy("backend", Action::Deny, vec![from(v4)]);
    expect(&mesh, &[("MM0408", "spec.rules[0].from[0].source.ipBlocks")]);
    let remote = Source { remote_ip_blocks: strings(["10.0.0.0/8"]), ..Source::default() };
    let mesh = Mesh::new(Protocol::Http).policy("backend", Action::Allow, vec![from(remote)]);
    expect(&mesh, &[("MM0407", "spec.rules[0].from[0].source.remoteIpBlocks")]);
    let bare = Source { service_accounts: strings(["frontend"]), ..Source::default() };
    let mesh = Mesh::new(Protocol::Http).policy("istio-system", Action::Allow, vec![from(bare)]);
    expect(&mesh, &[("MM0409", "spec.rules[0].from[0].source.serviceAccounts")]);
}

#[test]
fn ports_of_services_and_http_fields_on_streams_are_found() {
    let port = Operation { ports: strings(["80"]), ..Operation::default() };
    let mesh = Mesh::new(Protocol::Tcp).policy("backend", Action::Allow, vec![to(port)]);
    expect(&mesh, &[("MM0414", "spec.rules[0].to[0].operation.ports")]);
    let path = || Operation { paths: strings(["/x"]), ..Operation::default() };
    for action in [Action::Allow, Action::Deny] {
        let mesh = Mesh::new(Protocol::Tcp).policy("backend", action, vec![to(path())]);
        expect(&mesh, &[("MM0404", "spec.rules[0]")]);
    }
    let elsewhere = Operation { ports: strings(["9"]), ..path() };
    expect(&Mesh::new(Protocol::Tcp).policy("backend", Action::Allow, vec![to(elsewhere)]), &[]);
}

#[test]
fn tests_of_tokens_that_nobody_verifies_are_found() {
    let when = Condition {
        key: "request.auth.claims[a]".to_owned(),
        values: strings(["b"]),
        not_values: Vec::new(),
    };
    let rule = Rule { when: vec![when], ..Rule::default() };
    let mut mesh = Mesh::new(Protocol::Http).policy("backend", Action::Allow, vec![rule]);
    expect(&mesh, &[("IST0149", "spec.rules[0]")]);
    mesh.request.push(Arc::new(RequestAuthentication {
        meta: meta(Kind::RequestAuthentication, "backend", "jwt"),
        selector: Selector::default(),
        targets: Vec::new(),
        jwt_rules: Vec::new(),
    }));
    expect(&mesh, &[]);
}

#[test]
fn policies_that_concern_nobody_are_found() {
    let mut mesh = Mesh::new(Protocol::Http);
    let policy = |selector, targets| {
        Arc::new(AuthorizationPolicy {
            meta: meta(Kind::AuthorizationPolicy, "backend", "policy"),
            selector,
            targets,
            action: Action::Allow,
            provider: None,
            rules: Vec::new(),
            dry_run: false,
        })
    };
    mesh.authorization = vec![policy(selector("catalogue"), Vec::new())];
    expect(&mesh, &[("IST0127", "spec.selector")]);
    let target = TargetRef { group: String::new(), kind: "Service".to_owned(), name: "catalog".to_owned() };
    mesh.authorization = vec![policy(Selector::default(), vec![target])];
    expect(&mesh, &[("MM0410", "spec.targetRefs")]);
}

#[test]
fn peer_authentications_without_effect_are_found() {
    let mesh = Mesh::new(Protocol::Http)
        .peer("backend", "a-unset", None, None)
        .peer("backend", "b-strict", None, Some(MtlsMode::Strict))
        .peer("istio-system", "selected", Some("catalog"), Some(MtlsMode::Strict))
        .peer("backend", "ports", Some("catalog"), None)
        .peer("backend", "z-nobody", Some("nobody"), None);
    expect(
        &mesh,
        &[
            ("MM0201", ""),
            ("MM0203", "spec.portLevelMtls[80]"),
            ("IST0127", "spec.selector"),
            ("MM0202", "spec.selector"),
        ],
    );
}

#[test]
fn destination_rules_without_host_or_endpoints_are_found() {
    let mesh = Mesh::new(Protocol::Http).rule("nowhere.svc", "v1", None);
    expect(&mesh, &[("IST0174", "spec.host")]);
    let mesh = Mesh::new(Protocol::Http)
        .peer("backend", "default", None, Some(MtlsMode::Strict))
        .rule("catalog.backend.svc.cluster.local", "v9", Some(ClientTlsMode::Disable))
        .rule("catalog.backend.svc.cluster.local", "catalog", None);
    expect(
        &mesh,
        &[
            ("IST0173", "spec.subsets[0].labels"),
            ("MM0503", "spec.trafficPolicy.tls"),
            ("MM0502", "spec.host"),
        ],
    );
}

#[test]
fn routes_that_lead_nowhere_are_found() {
    let target = |host: &str, subset: Option<&str>| WeightedTarget {
        host: Host::parse(host).expect("valid"),
        port: None,
        subset: subset.map(str::to_owned),
        weight: 1,
    };
    let known = "catalog.backend.svc.cluster.local";
    let first = HttpRoute {
        matches: vec![HttpMatch { uri: Some(StringMatch::Exact("/".to_owned())), ..HttpMatch::default() }],
        targets: vec![target("nowhere.svc", None)],
        ..HttpRoute::default()
    };
    let second = HttpRoute { targets: vec![target(known, Some("v2"))], ..HttpRoute::default() };
    let third = HttpRoute { targets: vec![target(known, None)], ..HttpRoute::default() };
    let mesh = Mesh::new(Protocol::Http).routes("backend", "a", vec![first, second, third.clone()]).routes(
        "web",
        "b",
        vec![third],
    );
    expect(
        &mesh,
        &[
            ("IST0101", "spec.http[0].route[0].destination.host"),
            ("IST0101", "spec.http[1].route[0].destination.subset"),
            ("IST0130", "spec.http[2]"),
            ("IST0109", "spec.hosts"),
            ("MM0501", "spec.hosts"),
        ],
    );
}

#[test]
fn findings_name_file_and_line() {
    let mesh = Mesh::new(Protocol::Http).rule("nowhere.svc", "v1", None);
    assert_eq!(
        mesh.problems()[0].to_string(),
        "Warning [IST0174] (DestinationRule backend/rule0 mesh.yaml:7) spec.host: no Service or ServiceEntry \
         has the host \"nowhere.svc\" (A short name is one of the DestinationRule's own namespace.)"
    );
}
