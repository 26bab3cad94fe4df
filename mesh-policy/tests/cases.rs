//! Runs every file in `tests/cases`: a small mesh, and what it must answer. Adding a file adds a test case;
//! the runner fails on a file that asks nothing and on a field that it does not know.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use mesh_api::model::{
    Action, AuthorizationPolicy, AuthorizerProtocol, ExtensionProvider, ExternalAuthorizer, Kind,
    MeshSettings, MtlsMode, ObjectMeta, ObjectRef, OnAuthorizerError, Origin, PathNormalization,
    PeerAuthentication, ProviderKind, Rule, Selector, TargetRef,
};
use mesh_api::name::{Host, Labels, Namespace, ObjectName, ServiceAccount, SpiffeId, TrustDomain};
use mesh_policy::authorize::{Attributes, Authorizer, Claims, HeaderList, HttpAttributes};
use mesh_policy::select::{self, Subject};
use mesh_policy::{normalize, peer_authentication};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    /// The rule that the file pins down.
    about: String,
    #[serde(default)]
    mesh: Mesh,
    #[serde(default)]
    workload: Workload,
    #[serde(default)]
    policies: Vec<Policy>,
    #[serde(default)]
    peer_authentications: Vec<Peer>,
    #[serde(default)]
    requests: Vec<Request>,
    /// Expected modes: `default`, and by port.
    #[serde(default)]
    modes: BTreeMap<String, MtlsMode>,
    /// Expected losers among the peer authentications, by name.
    #[serde(default)]
    conflicts: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Mesh {
    trust_domain: Option<TrustDomain>,
    trust_domain_aliases: Vec<TrustDomain>,
    root_namespace: Option<Namespace>,
    path_normalization: PathNormalization,
    /// Names of external authorizers that speak gRPC; `http:NAME` is one that speaks HTTP.
    authorizers: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Workload {
    namespace: String,
    labels: Labels,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            namespace: "backend".to_owned(),
            labels: Labels::from([("app".to_owned(), "catalog".to_owned())]),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    name: String,
    #[serde(default = "backend")]
    namespace: String,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    selector: Labels,
    #[serde(default)]
    target_refs: Vec<TargetRef>,
    #[serde(default)]
    action: Action,
    #[serde(default)]
    dry_run: bool,
    /// Provider of a CUSTOM policy; `ext` when it is left out.
    provider: Option<String>,
    /// As Istio writes them.
    #[serde(default)]
    rules: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Peer {
    name: String,
    #[serde(default = "backend")]
    namespace: String,
    #[serde(default)]
    created: i64,
    #[serde(default)]
    selector: Labels,
    mode: Option<MtlsMode>,
    #[serde(default)]
    ports: BTreeMap<u16, Option<MtlsMode>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    /// `NAMESPACE/ACCOUNT` of the mesh's trust domain, or a whole SPIFFE id.
    peer: Option<String>,
    #[serde(default = "address")]
    from: String,
    remote: Option<String>,
    #[serde(default = "port")]
    port: u16,
    sni: Option<String>,
    /// `METHOD AUTHORITY TARGET`; none is a TCP connection.
    http: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    claims: Option<Map<String, Value>>,
    expect: Expect,
    /// Policy id of the rule that decides.
    by: Option<String>,
    /// The external authorizer that is asked, which is taken to let the request pass.
    asks: Option<String>,
    audit: Option<String>,
    dry_run_deny: Option<String>,
    dry_run_allow: Option<String>,
    /// Fields that the nearest miss names.
    #[serde(default)]
    unmet: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Expect {
    Allow,
    Deny,
    /// The path is refused before any policy is asked.
    BadRequest,
}

fn backend() -> String {
    "backend".to_owned()
}

fn address() -> String {
    "10.0.0.9".to_owned()
}

fn port() -> u16 {
    8080
}

fn meta(kind: Kind, namespace: &str, name: &str, created: i64) -> ObjectMeta {
    ObjectMeta {
        object: ObjectRef {
            kind,
            namespace: Namespace::parse(namespace).expect("a namespace"),
            name: ObjectName::parse(name).expect("a name"),
        },
        labels: Labels::new(),
        annotations: Labels::new(),
        created,
        origin: Origin::default(),
    }
}

/// Istio's spelling of a rule to the model's: `notPaths` to `not_paths`, `source` and `operation` unwrapped.
fn rule(value: &Value) -> Rule {
    fn respelled(value: &Value) -> Value {
        match value {
            Value::Object(fields) => match fields.iter().collect::<Vec<_>>().as_slice() {
                [(name, inner)] if *name == "source" || *name == "operation" => respelled(inner),
                _ => Value::Object(
                    fields.iter().map(|(name, inner)| (snake(name), respelled(inner))).collect(),
                ),
            },
            Value::Array(values) => Value::Array(values.iter().map(respelled).collect()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }
    fn snake(name: &str) -> String {
        let mut out = String::new();
        for letter in name.chars() {
            if letter.is_ascii_uppercase() {
                out.push('_');
            }
            out.push(letter.to_ascii_lowercase());
        }
        out
    }
    let mut fields = respelled(value);
    for list in ["from", "to", "when"] {
        let fields = fields.as_object_mut().expect("a rule is a map");
        fields.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    }
    serde_json::from_value(fields).expect("a rule in Istio's spelling")
}

/// `NAME` of an authorizer that speaks gRPC, or `http:NAME`.
fn authorizer(text: &str) -> ExtensionProvider {
    let (name, protocol) = match text.strip_prefix("http:") {
        Some(name) => (name, AuthorizerProtocol::Http(Box::default())),
        None => (text, AuthorizerProtocol::Grpc),
    };
    ExtensionProvider {
        name: name.to_owned(),
        kind: ProviderKind::Authorizer(Box::new(ExternalAuthorizer {
            host: Host::parse("authz.example.com").expect("a host"),
            namespace: None,
            port: 9000,
            timeout_ms: 1_000,
            on_error: OnAuthorizerError::Refuse,
            status_on_error: 403,
            body: None,
            protocol,
        })),
    }
}

impl Case {
    fn settings(&self) -> MeshSettings {
        let default = MeshSettings::default();
        MeshSettings {
            trust_domain: self.mesh.trust_domain.clone().unwrap_or(default.trust_domain),
            trust_domain_aliases: self.mesh.trust_domain_aliases.clone(),
            root_namespace: self.mesh.root_namespace.clone().unwrap_or(default.root_namespace),
            path_normalization: self.mesh.path_normalization,
            extension_providers: self.mesh.authorizers.iter().map(|name| authorizer(name)).collect(),
            ..MeshSettings::default()
        }
    }

    fn authorization(&self) -> Vec<Arc<AuthorizationPolicy>> {
        let policy = |policy: &Policy| {
            Arc::new(AuthorizationPolicy {
                meta: meta(Kind::AuthorizationPolicy, &policy.namespace, &policy.name, policy.created),
                selector: Selector { match_labels: policy.selector.clone() },
                targets: policy.target_refs.clone(),
                action: policy.action,
                provider: (policy.action == Action::Custom)
                    .then(|| policy.provider.clone().unwrap_or_else(|| "ext".to_owned())),
                rules: policy.rules.iter().map(rule).collect(),
                dry_run: policy.dry_run,
            })
        };
        self.policies.iter().map(policy).collect()
    }

    fn peer(&self) -> Vec<Arc<PeerAuthentication>> {
        let policy = |policy: &Peer| {
            Arc::new(PeerAuthentication {
                meta: meta(Kind::PeerAuthentication, &policy.namespace, &policy.name, policy.created),
                selector: Selector { match_labels: policy.selector.clone() },
                mode: policy.mode,
                port_level: policy.ports.clone(),
            })
        };
        self.peer_authentications.iter().map(policy).collect()
    }

    fn run(&self, file: &str) {
        assert!(!self.requests.is_empty() || !self.modes.is_empty(), "{file} asks nothing");
        let mesh = self.settings();
        let namespace = Namespace::parse(&self.workload.namespace).expect("a namespace");
        let service_account = ServiceAccount::parse("default").expect("a constant");
        let subject = Subject {
            namespace: &namespace,
            labels: &self.workload.labels,
            service_account: &service_account,
        };
        let selected = select::authorization(&mesh, &subject, &self.authorization());
        let authorizer = Authorizer::compile(&mesh, &selected);
        for (number, request) in self.requests.iter().enumerate() {
            request.check(&mesh, &authorizer, &format!("{file}: {} (request {number})", self.about));
        }
        if !self.modes.is_empty() {
            let resolution = peer_authentication::resolve(&mesh, &subject, &self.peer());
            for (port, expected) in &self.modes {
                let found = match port.parse() {
                    Ok(port) => resolution.mode_for_port(port),
                    Err(_) => resolution.mode,
                };
                assert_eq!(found, *expected, "{file}: {} (port {port})", self.about);
            }
            let losers: Vec<_> = resolution
                .conflicts
                .iter()
                .filter_map(|problem| Some(problem.object.as_ref()?.name.to_string()))
                .collect();
            assert_eq!(losers, self.conflicts, "{file}: conflicts");
        }
    }
}

impl Request {
    fn check(&self, mesh: &MeshSettings, authorizer: &Authorizer, about: &str) {
        let peer = self.peer.as_ref().map(|peer| {
            let id = if peer.contains("://") {
                peer.clone()
            } else {
                let (namespace, account) = peer.split_once('/').expect("NAMESPACE/ACCOUNT");
                format!("spiffe://{}/ns/{namespace}/sa/{account}", mesh.trust_domain)
            };
            SpiffeId::parse(&id).expect("an id")
        });
        let line = self.http.as_ref().map(|line| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().expect("METHOD AUTHORITY TARGET");
            (word(), word(), word())
        });
        let path = match line.map(|(_, _, target)| normalize::path(target, mesh.path_normalization)) {
            Some(Err(_)) => {
                assert_eq!(self.expect, Expect::BadRequest, "{about}");
                return;
            }
            Some(Ok(path)) => Some(path),
            None => None,
        };
        let claims = self.claims.clone().map(|claims| Claims::from_verified(claims, &[]));
        let headers = HeaderList(&self.headers);
        let attributes = Attributes {
            peer: peer.as_ref(),
            source_ip: self.from.parse().expect("an address"),
            remote_ip: self.remote.as_ref().unwrap_or(&self.from).parse().expect("an address"),
            destination_ip: [10, 0, 0, 1].into(),
            destination_port: self.port,
            sni: self.sni.as_deref(),
            http: line.zip(path.as_ref()).map(|((method, authority, _), path)| HttpAttributes {
                method,
                authority,
                path: path.policy_path(),
                headers: &headers,
                claims: claims.as_ref(),
            }),
        };
        let explanation = authorizer.explain(&attributes);
        let verdict = if explanation.allowed { Expect::Allow } else { Expect::Deny };
        assert_eq!(verdict, self.expect, "{about}: {}", explanation.verdict);
        assert_eq!(explanation.decided_by, self.by, "{about}: {}", explanation.verdict);
        let asked = explanation.external.as_ref().and_then(|external| external.provider.clone());
        assert_eq!(asked, self.asks, "{about}: who is asked");
        assert_eq!(explanation.audit, self.audit, "{about}: audit");
        assert_eq!(explanation.dry_run_deny, self.dry_run_deny, "{about}: dry-run deny");
        assert_eq!(explanation.dry_run_allow, self.dry_run_allow, "{about}: dry-run allow");
        if !self.unmet.is_empty() {
            let miss = explanation.nearest_miss.expect("a nearest miss");
            let unmet: Vec<_> = miss.unmet.iter().map(|clause| clause.field.clone()).collect();
            assert_eq!(unmet, self.unmet, "{about}: nearest miss");
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the engine reads no files; this test reads its cases")]
fn every_case_file_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 15, "case files are missing");
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let text = fs::read_to_string(&file).expect("a readable file");
        let case: Case = serde_saphyr::from_str(&text).expect(&name);
        case.run(&name);
    }
}
