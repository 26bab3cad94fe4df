use mesh_api::model::{Action, Kind, ObjectMeta, ObjectRef};
use mesh_api::name::ServiceAccount;
use mesh_api::traffic_record::{HttpRequest, parse_line};

use super::*;

fn meta(kind: Kind, namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        object: ObjectRef {
            kind,
            namespace: Namespace::parse(namespace).expect("a namespace"),
            name: mesh_api::name::ObjectName::parse(name).expect("a name"),
        },
        labels: Labels::new(),
        annotations: Labels::new(),
        created: 0,
        origin: Origin::default(),
    }
}

fn workload(namespace: &str, name: &str, labels: &[(&str, &str)]) -> Arc<Workload> {
    Arc::new(Workload {
        meta: meta(Kind::WorkloadEntry, namespace, name),
        addresses: Vec::new(),
        dns_name: None,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        service_account: ServiceAccount::parse(name.trim_end_matches(char::is_numeric)).expect("a name"),
        ports: BTreeMap::new(),
        weight: 1,
        locality: String::new(),
        meshed: true,
        availability: mesh_api::model::Availability::Ready,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    })
}

/// A record of `CALLER METHOD PATH`, judged by catalog in backend; `-` for no identity or no HTTP.
fn record(text: &str) -> TrafficRecord {
    let words: Vec<&str> = text.split(' ').collect();
    let [caller, method, path] = words[..] else { panic!("{text}") };
    let principal = match caller {
        "-" => r#""connection_security_policy":"none""#.to_owned(),
        caller => format!(r#""source_principal":"spiffe://cluster.local/ns/web/sa/{caller}""#),
    };
    let http = if method == "-" {
        String::new()
    } else {
        format!(r#""method":"{method}","path":"{path}","authority":"catalog","#)
    };
    let line = format!(
        r#"{{"direction":"inbound","decision":"allow",{http}{principal},"downstream_remote_address":"10.0.0.7:4","downstream_local_address":"10.0.0.9:8080","destination_principal":"spiffe://cluster.local/ns/backend/sa/catalog","destination_workload":"catalog1"}}"#
    );
    parse_line(&line).expect("a record").expect("inbound")
}

fn allow(name: &str, rules: Vec<Rule>) -> Arc<AuthorizationPolicy> {
    Arc::new(AuthorizationPolicy {
        meta: meta(Kind::AuthorizationPolicy, "backend", name),
        selector: Selector::default(),
        targets: Vec::new(),
        action: Action::Allow,
        provider: None,
        rules,
        dry_run: false,
    })
}

fn suggestion(records: &[TrafficRecord], policies: &[Arc<AuthorizationPolicy>]) -> Suggestion {
    let workloads = [
        workload("backend", "catalog1", &[("app", "catalog"), ("version", "v1")]),
        workload("backend", "catalog2", &[("app", "catalog"), ("version", "v2")]),
        workload("backend", "stock1", &[("app", "stock")]),
    ];
    let mesh = MeshSettings::default();
    let traffic: Vec<_> = records.iter().map(|record| (record.clone(), 1)).collect();
    suggest(Today { mesh: &mesh, workloads: &workloads, policies }, &traffic, Manner::default())
}

#[test]
fn callers_that_do_the_same_share_a_rule_and_identifiers_become_templates() {
    let records =
        ["shop GET /p/1?x=2", "shop GET /p/2", "app GET /p/3", "admin DELETE /p/3", "admin GET /p/4"]
            .map(record);
    let suggestion = suggestion(&records, &[]);
    assert_eq!((suggestion.allowed, suggestion.covered, suggestion.untold), (5, 5, 0));
    let [policy] = &suggestion.policies[..] else { panic!("{suggestion:?}") };
    assert_eq!((policy.name.as_str(), policy.records), ("catalog-allow-seen", 5));
    assert_eq!(policy.selector.match_labels.get("app").map(String::as_str), Some("catalog"));
    let mut told: Vec<_> = policy
        .rules
        .iter()
        .map(|rule| {
            let [to] = &rule.to[..] else { panic!("{rule:?}") };
            (rule.from[0].principals.join(" "), to.methods.join(" "), to.paths.join(" "), to.ports.join(" "))
        })
        .collect();
    told.sort();
    let tell = |who: &str, methods: &str| {
        (who.to_owned(), methods.to_owned(), "/p/{*}".to_owned(), "8080".to_owned())
    };
    let expected = [
        tell("cluster.local/ns/web/sa/admin", "DELETE GET"),
        tell("cluster.local/ns/web/sa/app cluster.local/ns/web/sa/shop", "GET"),
    ];
    assert_eq!(told, expected);
    assert_eq!(suggestion.silent, ["stock1.backend"]);
}

#[test]
fn what_was_not_seen_is_refused() {
    let records = ["shop GET /p/1", "shop POST /orders"].map(record);
    let suggestion = suggestion(&records, &[]);
    let policy = allow("suggested", suggestion.policies[0].rules.clone());
    let authorizer = Authorizer::compile(&MeshSettings::default(), &[policy]);
    for text in
        ["shop POST /p/1", "shop GET /orders", "other GET /p/1", "- GET /p/1", "shop GET /p/1/2", "shop - -"]
    {
        assert!(!is_allowed(&authorizer, &record(text)), "{text}");
    }
    assert!(is_allowed(&authorizer, &record("shop GET /p/99")));
}

#[test]
fn a_caller_without_identity_is_allowed_by_its_address_with_a_remark() {
    let suggestion = suggestion(&[record("- GET /health"), record("shop - -")], &[]);
    let [policy] = &suggestion.policies[..] else { panic!("{suggestion:?}") };
    assert_eq!((suggestion.covered, policy.rules.len(), policy.remarks.len()), (2, 2, 1));
    let unnamed = policy.rules.iter().flat_map(|rule| &rule.from).find(|source| !source.ip_blocks.is_empty());
    assert_eq!(unnamed.map(|source| source.not_principals.as_slice()), Some(&["*".to_owned()][..]));
}

#[test]
fn demands_that_a_record_does_not_show_are_kept() {
    let demanding = Rule {
        from: vec![Source { request_principals: vec!["issuer/*".to_owned()], ..Source::default() }],
        when: vec![Condition {
            key: "request.headers[x-tenant]".to_owned(),
            values: vec!["a".to_owned()],
            not_values: Vec::new(),
        }],
        ..Rule::default()
    };
    let mut seen = record("shop GET /p/1");
    seen.policy = "ns[backend]-policy[today]-rule[0]".to_owned();
    let suggestion = suggestion(&[seen], &[allow("today", vec![demanding.clone()])]);
    let rule = &suggestion.policies[0].rules[0];
    assert_eq!(rule.from[0].request_principals, ["issuer/*"]);
    assert_eq!(rule.when, demanding.when);
    assert_eq!((suggestion.covered, suggestion.untold), (0, 1));
    assert_eq!(suggestion.unused, []);
}

#[test]
fn rules_that_nothing_makes_use_of_are_named() {
    let to = |path: &str| Rule {
        to: vec![Operation { paths: vec![path.to_owned()], ..Operation::default() }],
        ..Rule::default()
    };
    let today = allow("today", vec![to("/p/*"), to("/p/1"), to("/old")]);
    let suggestion = suggestion(&[record("shop GET /p/1")], &[Arc::clone(&today)]);
    assert_eq!(suggestion.unused, [Unused { policy: Arc::clone(&today), rule: 2 }]);
    assert_eq!(suggestion.replaced, [today]);
}

#[test]
fn refused_requests_and_unknown_workloads_are_counted_and_not_allowed() {
    let mut refused = record("shop GET /secret");
    refused.decision = Recorded::Denied;
    let mut unknown = record("shop GET /p/1");
    unknown.destination =
        mesh_api::name::SpiffeId::parse("spiffe://cluster.local/ns/gone/sa/x").expect("an id");
    let suggestion = suggestion(&[refused, unknown], &[]);
    assert_eq!((suggestion.denied, suggestion.unknown.len(), suggestion.policies.len()), (1, 1, 0));
}

#[test]
fn a_path_that_no_value_states_is_remarked() {
    let mut odd = record("shop GET /p/1");
    odd.http = odd.http.map(|http| HttpRequest { target: "/a|*".to_owned(), ..http });
    let suggestion = suggestion(&[odd], &[]);
    assert_eq!((suggestion.covered, suggestion.policies[0].rules.len()), (0, 0));
    assert!(suggestion.policies[0].remarks.iter().any(|remark| remark.contains("/a|*")));
}
