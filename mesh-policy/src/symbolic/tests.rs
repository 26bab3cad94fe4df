//! The engine against brute force: small policies and assertions, and every kind of request that their
//! alphabets tell apart.

use std::sync::Arc;

use mesh_api::model::{
    Action, AuthorizationPolicy, Condition, JwtRule, Kind, MeshSettings, MtlsMode, ObjectMeta, ObjectRef,
    Operation, Origin, PeerAuthentication, RequestAuthentication, Rule, Selector, Source,
};
use mesh_api::name::{Labels, Namespace, ObjectName, ServiceAccount, SpiffeId, TrustDomain};
use mesh_api::policy_test::{HttpRequest, Request, Traffic, Verdict};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::authorize::rule;
use crate::judge::{Judge, Policies, Stage};
use crate::select::Subject;

const PRINCIPALS: &[&str] =
    &["*", "cluster.local/ns/web/sa/a", "*/sa/a", "cluster.local/ns/web/*", "td2/ns/web/sa/b"];
const NAMESPACES: &[&str] = &["web", "w*", "shop", "*"];
const ACCOUNTS: &[&str] = &["web/a", "shop/b"];
const DOMAINS: &[&str] = &["cluster.local", "td2", "*2", "other"];
const BLOCKS: &[&str] = &["10.0.0.0/8", "10.1.0.0/16", "0.0.0.0/0", "::/0"];
const HOSTS: &[&str] = &["a.com", "*.com", "a.com:*", "A*", "*"];
const PORTS: &[&str] = &["80", "8080"];
const METHODS: &[&str] = &["GET", "POST", "P*", "*"];
const PATHS: &[&str] = &["/a", "/a*", "/a/*", "*/b", "/a/{*}/b", "/{**}", "*", "/a/b", "/"];
const PRINCIPALS_OF_TOKENS: &[&str] = &["*", "i/*", "i/s", "*/s", "j/t*"];
const VALUES: &[&str] = &["x", "x*", "*y", "*"];

fn some(values: &'static [&'static str]) -> BoxedStrategy<Vec<String>> {
    prop_oneof![
        5 => Just(Vec::new()),
        2 => prop::collection::vec(prop::sample::select(values).prop_map(str::to_owned), 1..3),
    ]
    .boxed()
}

fn source() -> impl Strategy<Value = Source> {
    let pair = |values| (some(values), some(values));
    (
        0..7_u8,
        pair(PRINCIPALS),
        pair(NAMESPACES),
        pair(ACCOUNTS),
        pair(DOMAINS),
        pair(BLOCKS),
        pair(PRINCIPALS_OF_TOKENS),
    )
        .prop_map(|(skip, principal, namespace, account, domain, block, token)| {
            let pick = |number: u8, pair: (Vec<String>, Vec<String>)| {
                if skip == number || skip == 6 { pair } else { Default::default() }
            };
            let (principals, not_principals) = pick(0, principal);
            let (namespaces, not_namespaces) = pick(1, namespace);
            let (service_accounts, not_service_accounts) = pick(2, account);
            let (trust_domains, not_trust_domains) = pick(3, domain);
            let (ip_blocks, not_ip_blocks) = pick(4, block);
            let (request_principals, not_request_principals) = pick(5, token);
            Source {
                principals,
                not_principals,
                namespaces,
                not_namespaces,
                service_accounts,
                not_service_accounts,
                trust_domains,
                not_trust_domains,
                ip_blocks,
                not_ip_blocks,
                request_principals,
                not_request_principals,
                ..Source::default()
            }
        })
}

fn operation() -> impl Strategy<Value = Operation> {
    (
        some(HOSTS),
        some(HOSTS),
        some(PORTS),
        some(PORTS),
        some(METHODS),
        some(METHODS),
        some(PATHS),
        some(PATHS),
    )
        .prop_map(|(hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths)| {
            Operation { hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths }
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    let keys = vec![
        "request.headers[x]",
        "request.headers[:path]",
        "request.headers[:scheme]",
        "request.headers[x-envoy-y]",
        "request.auth.claims[g]",
        "request.auth.claims[g][h]",
        "request.auth.claims[sub]",
        "request.auth.audiences",
        "connection.sni",
    ];
    (prop::sample::select(keys), some(VALUES), some(VALUES)).prop_map(|(key, mut values, not_values)| {
        if values.is_empty() && not_values.is_empty() {
            values.push("x".to_owned());
        }
        Condition { key: key.to_owned(), values, not_values }
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        prop::collection::vec(source(), 0..3),
        prop::collection::vec(operation(), 0..2),
        prop::collection::vec(condition(), 0..2),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

fn meta(kind: Kind, name: &str) -> ObjectMeta {
    ObjectMeta {
        object: ObjectRef {
            kind,
            namespace: Namespace::parse("backend").expect("valid"),
            name: ObjectName::parse(name).expect("valid"),
        },
        labels: Labels::new(),
        annotations: Labels::new(),
        created: 0,
        origin: Origin::default(),
    }
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: meta(Kind::AuthorizationPolicy, name),
        selector: Selector::default(),
        targets: Vec::new(),
        action,
        provider: (action == Action::Custom).then(|| "nobody".to_owned()),
        rules,
        dry_run: false,
    }
}

fn policies() -> impl Strategy<Value = Policies> {
    let action = prop_oneof![3 => Just(Action::Allow), 2 => Just(Action::Deny), 1 => Just(Action::Custom)];
    let authorization = prop::collection::vec((action, prop::collection::vec(rule(), 0..4)), 0..4);
    let mode = prop::sample::select(vec![
        None,
        None,
        Some(MtlsMode::Strict),
        Some(MtlsMode::Disable),
        Some(MtlsMode::Permissive),
    ]);
    let port_mode = prop::option::of(prop::sample::select(vec![MtlsMode::Strict, MtlsMode::Disable]));
    let issuers = prop::sample::select(vec![vec![], vec!["i"], vec!["i", "j"]]);
    let audiences = prop::sample::select(vec![vec![], vec!["x"]]);
    (authorization, mode, port_mode, issuers, audiences).prop_map(
        |(authorization, mode, port_mode, issuers, audiences)| {
            let authorization = authorization.into_iter().zip(0..);
            let rule = |issuer: &str| JwtRule {
                issuer: issuer.to_owned(),
                audiences: audiences.iter().map(|text: &&str| (*text).to_owned()).collect(),
                jwks: "{}".to_owned(),
                ..JwtRule::default()
            };
            let jwt_rules: Vec<_> = issuers.iter().map(|issuer| rule(issuer)).collect();
            let peer = mode.map(|mode| PeerAuthentication {
                meta: meta(Kind::PeerAuthentication, "mode"),
                selector: Selector { match_labels: [("app".to_owned(), "x".to_owned())].into() },
                mode: Some(mode),
                port_level: port_mode.map(|mode| (80, Some(mode))).into_iter().collect(),
            });
            Policies {
                authorization: authorization
                    .map(|((action, rules), number)| Arc::new(policy(&format!("p{number}"), action, rules)))
                    .collect(),
                peer_authentication: peer.into_iter().map(Arc::new).collect(),
                request_authentication: (!jwt_rules.is_empty())
                    .then(|| {
                        Arc::new(RequestAuthentication {
                            meta: meta(Kind::RequestAuthentication, "jwt"),
                            selector: Selector::default(),
                            targets: Vec::new(),
                            jwt_rules,
                        })
                    })
                    .into_iter()
                    .collect(),
                ..Policies::default()
            }
        },
    )
}

fn mesh() -> MeshSettings {
    MeshSettings {
        trust_domain_aliases: vec![TrustDomain::parse("td2").expect("valid")],
        ..MeshSettings::default()
    }
}

fn target() -> Workload {
    Workload {
        namespace: Namespace::parse("backend").expect("valid"),
        labels: [("app".to_owned(), "x".to_owned())].into(),
        service_account: ServiceAccount::parse("default").expect("valid"),
        only: None,
        declared: BTreeMap::new(),
        told: String::new(),
    }
}

/// A token that the policies accept, or none.
fn claims() -> impl Strategy<Value = Option<Map<String, Value>>> {
    let group = prop::sample::select(vec![
        Value::Null,
        json!("x"),
        json!(["x", "xy"]),
        json!({"h": "x"}),
        json!("zy"),
        json!("q"),
    ]);
    let token = (
        prop::sample::select(vec!["i", "j"]),
        prop::sample::select(vec![Value::Null, json!("s"), json!("t"), json!("x"), json!("zy"), json!("tx")]),
        prop::sample::select(vec![json!("x"), json!(["x", "zy"]), json!(["x", "q"])]),
        group,
    )
        .prop_map(|(iss, sub, aud, group)| {
            let claims = json!({"iss": iss, "sub": sub, "aud": aud, "g": group});
            claims.as_object().cloned().unwrap_or_default()
        });
    prop::option::of(token)
}

fn request() -> impl Strategy<Value = Request> {
    let peers = vec![
        None,
        Some("spiffe://cluster.local/ns/web/sa/a"),
        Some("spiffe://cluster.local/ns/web/sa/q"),
        Some("spiffe://td2/ns/web/sa/b"),
        Some("spiffe://td2/ns/shop/sa/a"),
        Some("spiffe://cluster.local/ns/shop/sa/b"),
        Some("spiffe://cluster.local/ns/q/sa/q"),
    ];
    let address = || prop::sample::select(vec!["10.1.0.1", "10.2.0.1", "192.168.0.1", "fd00::1"]);
    let lines = |name: &'static str| {
        prop::collection::vec(prop::sample::select(vec!["x", "xy", "zy", "q", ""]), 0..3).prop_map(
            move |values| {
                values.into_iter().map(move |value| (name.to_owned(), value.to_owned())).collect::<Vec<_>>()
            },
        )
    };
    let http = (
        prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "CONNECT"]),
        prop::sample::select(vec!["a.com", "b.com", "a.com:80", "b.com:80", "q", "aq"]),
        prop::sample::select(vec![
            "/", "/a", "/a/b", "/aq", "/a/q/b", "/q/b", "/q", "/x", "/a?y", "/q?y", "/a|b", "/a//b", "/a/",
        ]),
        lines("x"),
        lines("x-envoy-y"),
        claims(),
    );
    (
        prop::sample::select(peers),
        any::<bool>(),
        address(),
        prop::sample::select(vec![80_u16, 8080, 9]),
        prop::sample::select(vec![None, Some("x"), Some("xy"), Some("q"), Some("zy")]),
        prop::sample::select(vec![Traffic::Http, Traffic::Http, Traffic::Tcp]),
        http,
    )
        .prop_map(
            |(
                peer,
                opaque,
                source,
                port,
                sni,
                protocol,
                (method, host, path, mut lines, more, jwt_claims),
            )| {
                let source_ip = source.parse().expect("an address");
                lines.extend(more);
                let tls = peer.is_some() || (opaque && protocol == Traffic::Tcp);
                Request {
                    protocol,
                    principal: peer.map(|peer| SpiffeId::parse(peer).expect("valid")),
                    tls,
                    source_ip,
                    remote_ip: source_ip,
                    destination_ip: None,
                    sni: sni.filter(|_| tls).map(str::to_owned),
                    port,
                    http: HttpRequest {
                        method: method.to_owned(),
                        host: host.to_owned(),
                        path: path.to_owned(),
                        headers: lines,
                        jwt_claims,
                    },
                }
            },
        )
}

/// Where nobody verifies tokens, a token is a header like others; and what only proxies may write is taken
/// off when it comes from somebody else.
fn as_seen(policies: &Policies, mut request: Request) -> Request {
    if policies.request_authentication.is_empty() {
        request.http.jwt_claims = None;
    }
    if request.principal.is_none() {
        request.http.headers.retain(|(name, _)| !name.starts_with("x-envoy-"));
    }
    request
}

/// The judge's word about a request of the space; `None` for one that the space does not have.
fn fate(judge: &Judge, policies: &Policies, request: &Request) -> Option<Fate> {
    let mut request = request.clone();
    let rules: Vec<&JwtRule> =
        policies.request_authentication.iter().flat_map(|policy| &policy.jwt_rules).collect();
    if let Some(claims) = &request.http.jwt_claims {
        let accepted = rules.iter().any(|rule| claims.get("iss") == Some(&json!(rule.issuer)));
        match (rules.is_empty(), accepted) {
            (true, _) => request.http.jwt_claims = None,
            (false, false) if request.protocol == Traffic::Http => return None,
            (false, _) => {}
        }
    }
    let judgement = judge.judge(&request, 0);
    assert_ne!(judgement.stage, Stage::Codec, "{request:?}");
    Some(match judgement.decision {
        Verdict::Allow => Fate::Allowed,
        Verdict::Deny => Fate::Denied,
    })
}

fn is_meant(rules: &[Rule], request: &Request) -> bool {
    let holder = policy("assertion", Action::Allow, Vec::new());
    rules.iter().any(|rule| {
        let form = rule::compile(&holder, rule, &["cluster.local", "td2"]).http.expect("compiles");
        confirm::matches(&mesh(), &form, request)
    })
}

fn compile(policies: &Policies) -> Judge {
    let target = target();
    let subject = Subject {
        namespace: &target.namespace,
        labels: &target.labels,
        service_account: &target.service_account,
    };
    Judge::compile(&mesh(), &subject, policies)
}

/// The number of cases is proptest's own (`PROPTEST_CASES` for a soak).
fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_holds_is_broken_by_no_request(
        policies in policies(),
        requests in prop::collection::vec(rule(), 1..3),
        except in prop::collection::vec(rule(), 0..3),
        verdict in prop::sample::select(vec![Verdict::Allow, Verdict::Deny]),
        tried in prop::collection::vec(request(), 60),
    ) {
        let question = Question { verdict, protocol: None, requests: &requests, except: &except };
        let judge = compile(&policies);
        match verify(&mesh(), &policies, &target(), question) {
            Answer::Holds => {
                let expected = if verdict == Verdict::Allow { Fate::Allowed } else { Fate::Denied };
                let tried = tried.into_iter().map(|request| as_seen(&policies, request));
                for request in tried.collect::<Vec<_>>().iter().filter(|request| is_meant(&requests, request) && !is_meant(&except, request)) {
                    let is_usual = verdict == Verdict::Deny || request.http.method != "CONNECT";
                    if let Some(fate) = fate(&judge, &policies, request).filter(|_| is_usual) {
                        prop_assert_eq!(fate, expected, "{:?}", request);
                    }
                }
            }
            Answer::Broken(counter) => {
                let request = &counter.example.request;
                prop_assert!(is_meant(&requests, request) && !is_meant(&except, request));
                let wrong = if verdict == Verdict::Allow { Fate::Denied } else { Fate::Allowed };
                prop_assert_eq!(counter.settled.fate, wrong);
            }
            Answer::Undecided(why) => prop_assert!(false, "{}", why),
        }
    }

    #[test]
    fn policies_without_differences_decide_alike(
        old in policies(),
        new in policies(),
        change in 0..3_u8,
        tried in prop::collection::vec(request(), 40),
    ) {
        // Mostly something in common: one policy more, one less, or another mode.
        let new = match change {
            0 => new,
            1 => Policies { authorization: old.authorization.iter().skip(1).cloned().collect(), ..old.clone() },
            _ => Policies { peer_authentication: new.peer_authentication, ..old.clone() },
        };
        let mesh = mesh();
        let (before, after) = (compile(&old), compile(&new));
        let found = differences(Policed { mesh: &mesh, policies: &old }, Policed { mesh: &mesh, policies: &new }, &target());
        let found = found.map_err(|why| TestCaseError::fail(why.to_string()))?;
        for change in &found.changes {
            prop_assert_ne!(change.old.fate, change.new.fate);
        }
        if found.changes.is_empty() {
            for request in &tried {
                if let (Some(before), Some(after)) = (fate(&before, &old, request), fate(&after, &new, request)) {
                    prop_assert_eq!(before, after, "{:?}", request);
                }
            }
        }
    }
}

/// A rule of one caller and one path.
fn narrow(number: usize) -> Rule {
    Rule {
        from: vec![Source {
            principals: vec![format!("cluster.local/ns/ns{}/sa/a{number}", number % 40)],
            ..Source::default()
        }],
        to: vec![Operation {
            methods: vec!["GET".to_owned()],
            paths: vec![format!("/api/v{}/item{number}*", number % 7), format!("/t/{{*}}/i{number}")],
            ..Operation::default()
        }],
        ..Rule::default()
    }
}

fn sources(source: Source) -> Rule {
    Rule { from: vec![source], ..Rule::default() }
}

/// A thousand rules that allow, and a thousand that deny.
fn many() -> Policies {
    let rules = |from: usize| (from..from + 1000).map(narrow).collect::<Vec<_>>();
    let authorization = vec![
        Arc::new(policy("allow", Action::Allow, rules(0))),
        Arc::new(policy("deny", Action::Deny, rules(500))),
    ];
    Policies { authorization, ..Policies::default() }
}

#[test]
fn a_thousand_rules_are_within_the_budget() {
    let policies = many();
    let everybody = [sources(Source { not_namespaces: vec!["ns*".to_owned()], ..Source::default() })];
    let question = Question { verdict: Verdict::Deny, protocol: None, requests: &everybody, except: &[] };
    assert_eq!(verify(&mesh(), &policies, &target(), question), Answer::Holds);
    let of_some = [sources(Source { namespaces: vec!["ns7".to_owned()], ..Source::default() })];
    let question = Question { requests: &of_some, ..question };
    let Answer::Broken(counter) = verify(&mesh(), &policies, &target(), question) else {
        unreachable!("rule 7 allows something")
    };
    assert_eq!((counter.settled.fate, counter.settled.rule), (Fate::Allowed, Some(7)));
    // All that is allowed, stated once more, is all that is allowed.
    let all: Vec<Rule> = (0..500).map(narrow).collect();
    let question = Question { verdict: Verdict::Allow, requests: &all[..50], ..question };
    assert_eq!(verify(&mesh(), &policies, &target(), question), Answer::Holds);
    let question =
        Question { verdict: Verdict::Deny, requests: &[Rule::default()], except: &all, ..question };
    assert_eq!(verify(&mesh(), &policies, &target(), question), Answer::Holds);
}

#[test]
fn one_rule_less_among_a_thousand_is_one_change() {
    let old = many();
    let mut new = many();
    let mut allow = new.authorization[0].as_ref().clone();
    allow.rules.remove(3);
    new.authorization[0] = Arc::new(allow);
    let mesh = mesh();
    let found = differences(
        Policed { mesh: &mesh, policies: &old },
        Policed { mesh: &mesh, policies: &new },
        &target(),
    );
    let found = found.expect("decided");
    assert_eq!(found.changes.len(), 1);
    let change = &found.changes[0];
    assert_eq!((change.old.fate, change.old.rule, change.new.fate), (Fate::Allowed, Some(3), Fate::Denied));
}

#[test]
fn workloads_are_those_that_selectors_tell_apart() {
    let select = |name: &str, pairs: &[(&str, &str)]| {
        let labels = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let selector = Selector { match_labels: labels.collect() };
        Arc::new(AuthorizationPolicy { selector, ..policy(name, Action::Allow, Vec::new()) })
    };
    let policies = Policies {
        authorization: vec![
            select("a", &[("app", "a")]),
            select("b", &[("app", "b")]),
            select("v", &[("version", "1")]),
            select("all", &[]),
        ],
        ..Policies::default()
    };
    let mesh = mesh();
    let sets = [(&mesh, &policies)];
    let backend = Namespace::parse("backend").expect("valid");
    assert_eq!(namespaces(&sets), std::slice::from_ref(&backend));
    let told: Vec<usize> = classes(&sets, &backend, &Labels::new())
        .expect("few")
        .iter()
        .map(|class| class.labels.len())
        .collect();
    assert_eq!(told, [0, 1, 2, 1, 2, 1], "none, a, a with version, b, b with version, version");
    let of_a = [("app".to_owned(), "a".to_owned())].into();
    assert_eq!(classes(&sets, &backend, &of_a).expect("few").len(), 2);
}
