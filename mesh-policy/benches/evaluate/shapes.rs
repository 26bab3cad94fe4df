//! How rules and requests are told apart: the ways in which a mesh comes to have ten thousand rules.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::model::{
    Action, AuthorizationPolicy, Condition, Kind, ObjectMeta, ObjectRef, Operation, Origin, Rule, Selector,
    Source,
};
use mesh_api::name::{Namespace, ObjectName, SpiffeId};
use mesh_policy::authorize::{Attributes, Claims, HeaderList, HttpAttributes};
use serde_json::json;

/// What tells one rule from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Every rule names another caller, and another path.
    Callers,
    /// Callers times paths: no attribute alone tells rules apart.
    CallersTimesPaths,
    /// Path prefixes.
    Prefixes,
    /// Path templates, whose variable part comes first.
    Templates,
    /// Address blocks.
    Blocks,
    /// Values of a header, which the request has many of.
    Headers,
    /// Members of a claim that is a list, as groups are.
    Claims,
    /// As `Callers`, for byte streams.
    Streams,
    /// As `Callers`, of DENY; the request meets one.
    Denies,
    /// As `Callers`; the request meets none.
    Strangers,
}

/// What rules and a request of a shape consist of.
#[derive(Debug)]
pub(crate) struct Sample {
    peer: SpiffeId,
    path: String,
    source_ip: IpAddr,
    headers: Vec<(String, String)>,
    claims: Option<Claims>,
    is_http: bool,
}

/// Values of the list attribute of one request; one of them is met.
const LIST: usize = 20;

impl Shape {
    pub(crate) const ALL: [Self; 10] = [
        Self::Callers,
        Self::CallersTimesPaths,
        Self::Prefixes,
        Self::Templates,
        Self::Blocks,
        Self::Headers,
        Self::Claims,
        Self::Streams,
        Self::Denies,
        Self::Strangers,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::CallersTimesPaths => "callers-times-paths",
            Self::Prefixes => "path-prefixes",
            Self::Templates => "path-templates",
            Self::Blocks => "address-blocks",
            Self::Headers => "headers",
            Self::Claims => "claims",
            Self::Streams => "streams",
            Self::Denies => "denies",
            Self::Strangers => "strangers",
        }
    }

    /// Whether the samples are let through.
    pub(crate) fn is_allowed(self) -> bool {
        !matches!(self, Self::Denies | Self::Strangers)
    }

    fn rule(self, number: usize, rules: usize) -> Rule {
        let side = side(rules);
        let mut when = Vec::new();
        let (source, operation) = match self {
            Self::Callers | Self::Denies | Self::Strangers => {
                (caller_source(number), get(&format!("/api/v1/items/{number}")))
            }
            Self::CallersTimesPaths => {
                (caller_source(number / side), get(&format!("/api/v1/items/{}", number % side)))
            }
            Self::Prefixes => (caller_source(0), get(&format!("/api/v1/items/{number}/*"))),
            Self::Templates => (caller_source(0), get(&format!("/tenants/{{*}}/items/{number}"))),
            Self::Blocks => {
                let block = format!("10.{}.{}.0/24", number / 256, number % 256);
                (Source { ip_blocks: vec![block], ..Source::default() }, get("/api*"))
            }
            Self::Headers => {
                when.push(condition("request.headers[x-team]", number));
                (caller_source(0), get("/api*"))
            }
            Self::Claims => {
                when.push(condition("request.auth.claims[groups]", number));
                (caller_source(0), get("/api*"))
            }
            Self::Streams => {
                let operation = Operation { ports: vec!["8080".to_owned()], ..Operation::default() };
                (caller_source(number), operation)
            }
        };
        Rule { from: vec![source], to: vec![operation], when }
    }

    /// The request that rule `number` is about.
    pub(crate) fn sample(self, number: usize, rules: usize) -> Sample {
        let side = side(rules);
        let (caller, path) = match self {
            Self::Callers | Self::Denies => (number, format!("/api/v1/items/{number}")),
            Self::Strangers => (number + rules, format!("/api/v1/items/{number}")),
            Self::CallersTimesPaths => (number / side, format!("/api/v1/items/{}", number % side)),
            Self::Prefixes => (0, format!("/api/v1/items/{number}/detail")),
            Self::Templates => (0, format!("/tenants/t{}/items/{number}", number % 7)),
            Self::Headers | Self::Claims => (0, "/api/v1/items".to_owned()),
            Self::Blocks | Self::Streams => (number, "/api/v1/items".to_owned()),
        };
        let octet = |value: usize| u8::try_from(value % 256).expect("below 256");
        // All but one are values that no rule has.
        let list = (0..LIST).map(|at| if at == LIST / 2 { value(number) } else { value(rules + at) });
        let headers = list.clone().map(|value| ("x-team".to_owned(), value)).collect();
        let groups = list.collect::<Vec<_>>();
        let claims = json!({"iss": "https://issuer.example", "sub": "somebody", "groups": groups});
        let claims = claims.as_object().cloned().map(|claims| Claims::from_verified(claims, &[]));
        Sample {
            peer: SpiffeId::parse(&format!("spiffe://{}", principal(caller))).expect("valid"),
            path,
            source_ip: IpAddr::from([10, octet(number / 256), octet(number), 7]),
            headers: if self == Self::Headers { headers } else { Vec::new() },
            claims: claims.filter(|_| self == Self::Claims),
            is_http: self != Self::Streams,
        }
    }

    /// One policy for each rule, and a DENY beside them as real meshes have.
    pub(crate) fn policies(self, rules: usize) -> Vec<Arc<AuthorizationPolicy>> {
        let no_admin = Rule {
            from: vec![Source { not_namespaces: vec!["team-0".to_owned()], ..Source::default() }],
            to: vec![Operation {
                paths: vec!["/admin*".to_owned()],
                ports: vec!["9090".to_owned()],
                ..Operation::default()
            }],
            when: Vec::new(),
        };
        let action = if self == Self::Denies { Action::Deny } else { Action::Allow };
        (0..rules - 1)
            .map(|number| policy(&format!("p{number}"), action, self.rule(number, rules)))
            .chain([policy("no-admin", Action::Deny, no_admin)])
            .collect()
    }
}

impl Sample {
    /// Lends the request to `judge` in the form that the engine takes.
    pub(crate) fn with_attributes<T>(&self, judge: impl FnOnce(&Attributes<'_>) -> T) -> T {
        let headers = HeaderList(&self.headers);
        let http = HttpAttributes {
            method: "GET",
            authority: "catalog.backend:8080",
            path: &self.path,
            headers: &headers,
            claims: self.claims.as_ref(),
        };
        judge(&Attributes {
            peer: Some(&self.peer),
            source_ip: self.source_ip,
            remote_ip: self.source_ip,
            destination_ip: IpAddr::from([10, 255, 0, 1]),
            destination_port: 8080,
            sni: None,
            http: self.is_http.then_some(http),
        })
    }
}

fn side(rules: usize) -> usize {
    if rules > 100 { rules.isqrt() } else { 3 }
}

fn value(number: usize) -> String {
    format!("team-{number}")
}

fn condition(key: &str, number: usize) -> Condition {
    Condition { key: key.to_owned(), values: vec![value(number)], not_values: Vec::new() }
}

fn principal(number: usize) -> String {
    format!("cluster.local/ns/team-{}/sa/service-{number}", number % 50)
}

fn caller_source(number: usize) -> Source {
    Source { principals: vec![principal(number)], ..Source::default() }
}

fn get(path: &str) -> Operation {
    Operation { methods: vec!["GET".to_owned()], paths: vec![path.to_owned()], ..Operation::default() }
}

fn policy(name: &str, action: Action, rule: Rule) -> Arc<AuthorizationPolicy> {
    Arc::new(AuthorizationPolicy {
        meta: ObjectMeta {
            object: ObjectRef {
                kind: Kind::AuthorizationPolicy,
                namespace: Namespace::parse("backend").expect("valid"),
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
        provider: None,
        rules: vec![rule],
        dry_run: false,
    })
}
