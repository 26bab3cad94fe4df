//! Policies and requests from small alphabets, so that they meet often.

use std::net::IpAddr;

use mesh_api::model::{
    Action, AuthorizationPolicy, AuthorizerProtocol, Condition, ExtensionProvider, ExternalAuthorizer, Kind,
    MeshSettings, ObjectMeta, ObjectRef, OnAuthorizerError, Operation, Origin, ProviderKind, Rule, Selector,
    Source,
};
use mesh_api::name::{Host, Namespace, ObjectName, SpiffeId, TrustDomain};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::naive::{Http, Request};

const PRINCIPALS: &[&str] = &[
    "*",
    "cluster.local/ns/web/sa/frontend",
    "cluster.local/ns/web/sa/batch",
    "mesh.example/ns/shop/sa/orders",
    "old.example/ns/web/sa/frontend",
    "foreign.example/ns/web/sa/frontend",
    "*.example/ns/web/sa/frontend",
    "*/sa/frontend",
    "*/ns/web/sa/frontend",
    "mesh.example/ns/*",
    "mesh.example/ns/web/sa/f*",
    "spiffe://mesh.example/ns/web/sa/frontend",
    "mesh.example/other",
];
const PEERS: &[&str] = &[
    "spiffe://mesh.example/ns/web/sa/frontend",
    "spiffe://mesh.example/ns/web/sa/batch",
    "spiffe://old.example/ns/web/sa/frontend",
    "spiffe://foreign.example/ns/web/sa/frontend",
    "spiffe://mesh.example/ns/shop/sa/orders",
    "spiffe://mesh.example/ns/istio-system/sa/frontend",
    "spiffe://mesh.example/other",
    "spiffe://mesh.example/x/ns/web/sa/frontend",
];
const NAMESPACES: &[&str] = &["web", "shop", "w*", "*", "*op", "s*p", "istio-system"];
const ACCOUNTS: &[&str] = &["web/frontend", "frontend", "shop/orders", "orders", "web/front.nd"];
const DOMAINS: &[&str] = &["mesh.example", "old.example", "foreign.example", "*.example", "mesh*", "*"];
const BLOCKS: &[&str] =
    &["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "::/0", "fd00::/8", "192.168.1.7/24"];
const ADDRESSES: &[&str] =
    &["10.1.2.3", "10.2.0.1", "192.168.1.9", "fd00::1", "::ffff:10.1.9.9", "172.16.0.1"];
const REQUEST_PRINCIPALS: &[&str] =
    &["*", "iss/alice", "iss/*", "*/alice", "*ice", "is*", "a/b/c", "a/b", "*b/c", "*/*"];
const HOSTS: &[&str] = &["shop.web", "SHOP.web", "*.web", "shop*", "*", "shop.web:80", "api.web"];
const AUTHORITIES: &[&str] = &["shop.web", "Shop.Web", "api.web:80", "", "shop.web:80"];
const PORTS: &[&str] = &["80", "8080", "443", "0"];
const METHODS: &[&str] = &["GET", "POST", "*", "P*", "*T", "get"];
const PATHS: &[&str] = &[
    "/",
    "/api",
    "/api*",
    "/api/*",
    "*/admin",
    "*.html",
    "/api/{*}",
    "/api/{*}/x",
    "/{**}",
    "/api/{**}/x",
    "/api/v1",
    "/api/v1/x*",
    "*",
    "*a*",
];
const REQUEST_PATHS: &[&str] = &[
    "/",
    "/api",
    "/api/",
    "/api/v1",
    "/api/v1/x",
    "/api//x",
    "/admin",
    "/x/admin",
    "/i.html",
    "",
    "/a*",
    "/api/v|1",
];
const TENANTS: &[&str] = &["*", "a", "b", "a*", "*b", ""];
const WORDS: &[&str] = &["*", "a", "b", "a b", "ab", "a*"];

fn some(values: &'static [&'static str]) -> BoxedStrategy<Vec<String>> {
    prop_oneof![
        4 => Just(Vec::new()),
        3 => prop::collection::vec(prop::sample::select(values).prop_map(str::to_owned), 1..3),
        1 => prop::collection::vec(prop::sample::select(values).prop_map(str::to_owned), 3..14),
    ]
    .boxed()
}

fn source() -> impl Strategy<Value = Source> {
    let pair = |values| (some(values), some(values));
    let kind = (0..7_u8, 0..7_u8);
    (
        kind,
        pair(PRINCIPALS),
        pair(REQUEST_PRINCIPALS),
        pair(NAMESPACES),
        pair(ACCOUNTS),
        pair(BLOCKS),
        pair(BLOCKS),
        pair(DOMAINS),
    )
        .prop_map(|((one, two), principal, request, namespace, account, ip, remote, domain)| {
            // Two fields at most, or hardly anything would ever match.
            let pick = |number, pair: (Vec<String>, Vec<String>)| {
                if number == one || number == two { pair } else { Default::default() }
            };
            let (principals, not_principals) = pick(0, principal);
            let (request_principals, not_request_principals) = pick(1, request);
            let (namespaces, not_namespaces) = pick(2, namespace);
            let (service_accounts, not_service_accounts) = pick(3, account);
            let (ip_blocks, not_ip_blocks) = pick(4, ip);
            let (remote_ip_blocks, not_remote_ip_blocks) = pick(5, remote);
            let (trust_domains, not_trust_domains) = pick(6, domain);
            Source {
                principals,
                not_principals,
                request_principals,
                not_request_principals,
                namespaces,
                not_namespaces,
                service_accounts,
                not_service_accounts,
                ip_blocks,
                not_ip_blocks,
                remote_ip_blocks,
                not_remote_ip_blocks,
                trust_domains,
                not_trust_domains,
            }
        })
}

fn operation() -> impl Strategy<Value = Operation> {
    let pair = |values| (some(values), some(values));
    (pair(HOSTS), pair(PORTS), pair(METHODS), pair(PATHS)).prop_map(|(hosts, ports, methods, paths)| {
        Operation {
            hosts: hosts.0,
            not_hosts: hosts.1,
            ports: ports.0,
            not_ports: ports.1,
            methods: methods.0,
            not_methods: methods.1,
            paths: paths.0,
            not_paths: paths.1,
        }
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let keys: Vec<(&'static str, &'static [&'static str])> = vec![
        ("source.ip", BLOCKS),
        ("remote.ip", BLOCKS),
        ("destination.ip", BLOCKS),
        ("destination.port", PORTS),
        ("connection.sni", HOSTS),
        ("source.principal", PRINCIPALS),
        ("source.namespace", NAMESPACES),
        ("source.serviceAccount", ACCOUNTS),
        ("source.trustDomain", DOMAINS),
        ("request.auth.audiences", WORDS),
        ("request.auth.presenter", WORDS),
        ("request.auth.claims[groups]", WORDS),
        ("request.auth.claims[scope]", WORDS),
        ("request.auth.principal", REQUEST_PRINCIPALS),
        ("request.headers[x-tenant]", TENANTS),
        ("experimental.envoy.filters.a.b[c]", WORDS),
    ];
    prop::sample::select(keys).prop_flat_map(|(key, values)| {
        let fallback = values[0];
        (some(values), some(values)).prop_map(move |(mut values, not_values)| {
            if values.is_empty() && not_values.is_empty() {
                values.push(fallback.to_owned());
            }
            Condition { key: key.to_owned(), values, not_values }
        })
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    (
        prop::collection::vec(source(), 0..3),
        prop::collection::vec(operation(), 0..3),
        prop::collection::vec(condition(), 0..2),
    )
        .prop_map(|(from, to, when)| Rule { from, to, when })
}

pub(crate) fn action() -> impl Strategy<Value = (Action, bool)> {
    prop_oneof![
        4 => Just((Action::Allow, false)),
        3 => Just((Action::Deny, false)),
        1 => Just((Action::Allow, true)),
        1 => Just((Action::Deny, true)),
        1 => Just((Action::Audit, false)),
        1 => Just((Action::Custom, false)),
    ]
}

/// Policies with different names.
pub(crate) fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let policy =
        (action(), prop::sample::select(vec!["web", "istio-system"]), prop::collection::vec(rule(), 0..4));
    // One provider for all CUSTOM policies but, sometimes, the first.
    let providers = prop::sample::select(vec![
        ("ext", "ext"),
        ("ext", "ext"),
        ("http", "http"),
        ("unknown", "unknown"),
        ("logs", "logs"),
        ("http", "ext"),
    ]);
    (prop::collection::vec(policy, 0..8), providers).prop_map(|(parts, (first, others))| {
        parts
            .into_iter()
            .enumerate()
            .map(|(number, ((action, dry_run), namespace, rules))| {
                let name = if number == 0 { first } else { others };
                let policy = policy_named(&format!("p{number}"), namespace, action, dry_run, rules);
                AuthorizationPolicy { provider: policy.provider.is_some().then(|| name.to_owned()), ..policy }
            })
            .collect()
    })
}

pub(crate) fn policy_named(
    name: &str,
    namespace: &str,
    action: Action,
    dry_run: bool,
    rules: Vec<Rule>,
) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: ObjectMeta {
            object: ObjectRef {
                kind: Kind::AuthorizationPolicy,
                namespace: Namespace::parse(namespace).expect("valid"),
                name: ObjectName::parse(name).expect("valid"),
            },
            labels: Default::default(),
            annotations: Default::default(),
            created: 0,
            origin: Origin::default(),
        },
        selector: Selector::default(),
        targets: Vec::new(),
        action,
        provider: (action == Action::Custom).then(|| "ext".to_owned()),
        rules,
        dry_run,
    }
}

/// A mesh with a trust domain of its own and an alias.
pub(crate) fn mesh() -> MeshSettings {
    let authorizer = |name: &str, protocol| ExtensionProvider {
        name: name.to_owned(),
        kind: ProviderKind::Authorizer(Box::new(ExternalAuthorizer {
            host: Host::parse("authz.example.com").expect("valid"),
            namespace: None,
            port: 9000,
            timeout_ms: 1_000,
            on_error: OnAuthorizerError::Refuse,
            status_on_error: 403,
            body: None,
            protocol,
        })),
    };
    MeshSettings {
        extension_providers: vec![
            authorizer("ext", AuthorizerProtocol::Grpc),
            authorizer("http", AuthorizerProtocol::Http(Box::default())),
            ExtensionProvider { name: "logs".to_owned(), kind: ProviderKind::Other("zipkin".to_owned()) },
        ],
        trust_domain: TrustDomain::parse("mesh.example").expect("valid"),
        trust_domain_aliases: vec![TrustDomain::parse("old.example").expect("valid")],
        ..MeshSettings::default()
    }
}

fn http() -> impl Strategy<Value = Http> {
    let claims = (
        prop::sample::select(vec!["iss", "a/b", "a", ""]),
        prop::sample::select(vec![
            json!("alice"),
            json!("c"),
            json!("b/c"),
            json!("*"),
            json!(7),
            json!(["alice"]),
        ]),
        prop::sample::select(vec![
            json!("a"),
            json!(["a", "b"]),
            json!(1),
            json!({"a": "b"}),
            json!([["a"], true]),
        ]),
        prop::sample::select(vec!["a b", "ab", "", " a"]),
    )
        .prop_map(|(iss, sub, groups, scope)| {
            let claims =
                json!({"iss": iss, "sub": sub, "groups": groups, "scope": scope, "aud": groups, "azp": "a"});
            claims.as_object().cloned().unwrap_or_else(Map::new)
        });
    (
        prop::sample::select(vec!["GET", "POST", "get", "PUT"]),
        prop::sample::select(AUTHORITIES),
        prop::sample::select(REQUEST_PATHS),
        prop::collection::vec(prop::sample::select(vec!["", "a", "b", "ab", "a,b"]), 0..6),
        prop::option::of(claims),
    )
        .prop_map(|(method, authority, path, tenants, claims)| Http {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            headers: tenants.into_iter().map(|value| ("x-tenant".to_owned(), value.to_owned())).collect(),
            claims,
        })
}

pub(crate) fn request() -> impl Strategy<Value = Request> {
    let address = || prop::sample::select(ADDRESSES).prop_map(|text| text.parse::<IpAddr>().expect("valid"));
    let peer = prop::sample::select(PEERS).prop_map(|text| SpiffeId::parse(text).expect("valid"));
    (
        prop::option::of(peer),
        address(),
        address(),
        address(),
        prop::sample::select(vec![80_u16, 8080, 443, 9]),
        prop::option::of(prop::sample::select(vec!["shop.web", "api.web", "Shop.WEB", ""])),
        prop::option::weighted(0.8, http()),
    )
        .prop_map(|(peer, source_ip, remote_ip, destination_ip, port, sni, http)| Request {
            peer,
            source_ip,
            remote_ip,
            destination_ip,
            port,
            sni: sni.map(str::to_owned),
            http,
        })
}
