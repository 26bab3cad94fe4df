//! The evaluator of SEMANTICS section 6, written to be read: it walks the policies as users wrote them and
//! compares strings. The index must give the same answers.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::model::{
    Action, AuthorizationPolicy, AuthorizerProtocol, Condition, MeshSettings, Operation, ProviderKind, Rule,
    Source,
};
use mesh_api::name::SpiffeId;
use serde_json::{Map, Value};

/// A request that owns its parts.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) peer: Option<SpiffeId>,
    pub(crate) source_ip: IpAddr,
    pub(crate) remote_ip: IpAddr,
    pub(crate) destination_ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) sni: Option<String>,
    pub(crate) http: Option<Http>,
}

#[derive(Debug, Clone)]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) claims: Option<Map<String, Value>>,
}

/// What the policies say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) allowed: bool,
    /// What a matching CUSTOM rule leads to.
    pub(crate) custom_leads_to: Custom,
    /// First match of each step, in order of namespace, name and rule.
    pub(crate) custom: Option<(String, usize)>,
    pub(crate) audit: Option<(String, usize)>,
    pub(crate) dry_run_deny: Option<(String, usize)>,
    pub(crate) deny: Option<(String, usize)>,
    pub(crate) dry_run_allow: Option<(String, usize)>,
    pub(crate) allow: Option<(String, usize)>,
}

/// What a matching CUSTOM rule leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Custom {
    Nothing,
    Asking,
    Refusal,
}

/// 6.3: one provider for the workload, known as an authorizer, and one that can judge what is asked.
fn custom(mesh: &MeshSettings, policies: &[&AuthorizationPolicy], request: &Request) -> Custom {
    let mut names: Vec<_> = policies
        .iter()
        .filter(|policy| policy.action == Action::Custom)
        .map(|policy| policy.provider.as_deref().unwrap_or_default())
        .collect();
    names.sort_unstable();
    names.dedup();
    let [name] = names[..] else {
        return if names.is_empty() { Custom::Nothing } else { Custom::Refusal };
    };
    let known = mesh.extension_providers.iter().find(|provider| provider.name == name);
    match known.map(|provider| &provider.kind) {
        Some(ProviderKind::Authorizer(authorizer)) => match authorizer.protocol {
            AuthorizerProtocol::Http(_) if request.http.is_none() => Custom::Nothing,
            _ => Custom::Asking,
        },
        Some(ProviderKind::Other(_)) | None => Custom::Refusal,
    }
}

pub(crate) fn judge(mesh: &MeshSettings, policies: &[AuthorizationPolicy], request: &Request) -> Verdict {
    let mut policies: Vec<_> = policies.iter().collect();
    policies.sort_by_key(|policy| {
        format!("{}]-policy[{}]", policy.meta.object.namespace, policy.meta.object.name)
    });
    let first = |action, dry_run| {
        policies.iter().filter(|policy| policy.action == action && policy.dry_run == dry_run).find_map(
            |policy| {
                let rule = policy.rules.iter().position(|rule| rule_matches(mesh, policy, rule, request))?;
                Some((policy.meta.object.to_string(), rule))
            },
        )
    };
    let (custom, audit) = (first(Action::Custom, false), first(Action::Audit, false));
    let (deny, allow) = (first(Action::Deny, false), first(Action::Allow, false));
    let has_allow = policies.iter().any(|policy| policy.action == Action::Allow && !policy.dry_run);
    Verdict {
        custom_leads_to: self::custom(mesh, &policies, request),
        allowed: deny.is_none() && (!has_allow || allow.is_some()),
        custom,
        audit,
        dry_run_deny: first(Action::Deny, true),
        deny,
        dry_run_allow: first(Action::Allow, true),
        allow,
    }
}

fn rule_matches(mesh: &MeshSettings, policy: &AuthorizationPolicy, rule: &Rule, request: &Request) -> bool {
    if request.http.is_none() && policy.action == Action::Allow && uses_http(rule) {
        return false;
    }
    (rule.from.is_empty() || rule.from.iter().any(|source| source_matches(mesh, policy, source, request)))
        && (rule.to.is_empty() || rule.to.iter().any(|operation| operation_matches(operation, request)))
        && rule.when.iter().all(|condition| condition_matches(mesh, policy, condition, request))
}

fn uses_http(rule: &Rule) -> bool {
    let source = |s: &Source| !s.request_principals.is_empty() || !s.not_request_principals.is_empty();
    let operation = |o: &Operation| {
        [&o.hosts, &o.not_hosts, &o.methods, &o.not_methods, &o.paths, &o.not_paths]
            .iter()
            .any(|l| !l.is_empty())
    };
    rule.from.iter().any(source)
        || rule.to.iter().any(operation)
        || rule.when.iter().any(|condition| condition.key.starts_with("request."))
}

/// A field and its twin: some value matches (if any is given) and no excluded one does.
fn twin(values: &[String], not_values: &[String], test: impl Fn(&str) -> bool) -> bool {
    (values.is_empty() || values.iter().any(|value| test(value)))
        && !not_values.iter().any(|value| test(value))
}

fn source_matches(
    mesh: &MeshSettings,
    policy: &AuthorizationPolicy,
    source: &Source,
    request: &Request,
) -> bool {
    twin(&source.principals, &source.not_principals, |v| is_principal(mesh, v, request))
        && twin(&source.namespaces, &source.not_namespaces, |v| is_namespace(v, request))
        && twin(&source.service_accounts, &source.not_service_accounts, |v| is_account(policy, v, request))
        && twin(&source.trust_domains, &source.not_trust_domains, |v| is_trust_domain(mesh, v, request))
        && twin(&source.ip_blocks, &source.not_ip_blocks, |v| is_within(v, request.source_ip))
        && twin(&source.remote_ip_blocks, &source.not_remote_ip_blocks, |v| is_within(v, request.remote_ip))
        && request.http.as_ref().is_none_or(|http| {
            twin(&source.request_principals, &source.not_request_principals, |v| {
                is_request_principal(v, http)
            })
        })
}

fn operation_matches(operation: &Operation, request: &Request) -> bool {
    twin(&operation.ports, &operation.not_ports, |v| v == request.port.to_string())
        && request.http.as_ref().is_none_or(|http| {
            let authority = http.authority.to_lowercase();
            twin(&operation.hosts, &operation.not_hosts, |v| header_like(&v.to_lowercase(), &authority))
                && twin(&operation.methods, &operation.not_methods, |v| header_like(v, &http.method))
                && twin(&operation.paths, &operation.not_paths, |v| is_path(v, &http.path))
        })
}

fn condition_matches(
    mesh: &MeshSettings,
    policy: &AuthorizationPolicy,
    condition: &Condition,
    request: &Request,
) -> bool {
    let both = |test: &dyn Fn(&str) -> bool| twin(&condition.values, &condition.not_values, test);
    if condition.key.starts_with("request.") && request.http.is_none() {
        // An ALLOW rule of this kind has been dropped before; the others lose the condition.
        return true;
    }
    let claim = |name: &str, v: &str| claim_values(request, name).iter().any(|value| text(v, value));
    match condition.key.as_str() {
        "source.ip" => both(&|v| is_within(v, request.source_ip)),
        "remote.ip" => both(&|v| is_within(v, request.remote_ip)),
        "destination.ip" => both(&|v| is_within(v, request.destination_ip)),
        "destination.port" => both(&|v| v == request.port.to_string()),
        "connection.sni" => both(&|v| request.sni.as_ref().is_some_and(|sni| text(v, &sni.to_lowercase()))),
        "source.principal" => both(&|v| is_principal(mesh, v, request)),
        "source.namespace" => both(&|v| is_namespace(v, request)),
        "source.serviceAccount" => both(&|v| is_account(policy, v, request)),
        "source.trustDomain" => both(&|v| is_trust_domain(mesh, v, request)),
        "request.auth.audiences" => both(&|v| claim("aud", v)),
        "request.auth.presenter" => both(&|v| claim("azp", v)),
        "request.auth.claims[groups]" => both(&|v| claim("groups", v)),
        "request.auth.claims[scope]" => both(&|v| claim("scope", v)),
        "request.auth.principal" => {
            both(&|v| request.http.as_ref().is_some_and(|http| is_request_principal(v, http)))
        }
        "request.headers[x-tenant]" => both(&|v| {
            request.http.as_ref().is_some_and(|http| {
                http.headers.iter().any(|(name, value)| name == "x-tenant" && header_like(v, value))
            })
        }),
        // `experimental.envoy.filters.*`: nothing produces such an attribute.
        _ => both(&|_| false),
    }
}

/// 6.4 for strings: `*` needs something.
fn text(pattern: &str, value: &str) -> bool {
    if pattern == "*" { !value.is_empty() } else { header_like(pattern, value) }
}

/// 6.4 for header-type fields: `*` takes the empty value.
fn header_like(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        true
    } else if let Some(end) = pattern.strip_prefix('*') {
        value.ends_with(end)
    } else if let Some(start) = pattern.strip_suffix('*') {
        value.starts_with(start)
    } else {
        pattern == value
    }
}

fn is_principal(mesh: &MeshSettings, value: &str, request: &Request) -> bool {
    let Some(peer) = &request.peer else { return false };
    let domains: Vec<&str> =
        std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).map(|d| d.as_str()).collect();
    let (domain, rest) = value.split_once('/').unwrap_or((value, ""));
    let ours =
        domain == "cluster.local" || domains.iter().any(|d| header_like(domain, d) || header_like(d, domain));
    if value.matches('/').count() == 4 && domain != "*" && ours {
        domains.iter().any(|d| text(&format!("{d}/{rest}"), peer.principal()))
    } else {
        text(value, peer.principal())
    }
}

fn is_namespace(value: &str, request: &Request) -> bool {
    let namespace = request.peer.as_ref().and_then(SpiffeId::namespace);
    let pattern = value.split('*').map(regex::escape).collect::<Vec<_>>().join(".*");
    let pattern = regex::Regex::new(&format!("^(?:{pattern})$")).expect("escaped");
    namespace.is_some_and(|namespace| pattern.is_match(namespace))
}

fn is_account(policy: &AuthorizationPolicy, value: &str, request: &Request) -> bool {
    let wanted = match value.split_once('/') {
        Some(pair) => pair,
        None => (policy.meta.object.namespace.as_str(), value),
    };
    request.peer.as_ref().and_then(SpiffeId::workload_parts) == Some(wanted)
}

fn is_trust_domain(mesh: &MeshSettings, value: &str, request: &Request) -> bool {
    let domains: Vec<&str> =
        std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).map(|d| d.as_str()).collect();
    request.peer.as_ref().is_some_and(|peer| {
        text(value, peer.trust_domain())
            || (domains.contains(&value) && domains.contains(&peer.trust_domain()))
    })
}

fn is_within(block: &str, address: IpAddr) -> bool {
    let network = block.parse::<IpNet>().or_else(|_| block.parse::<IpAddr>().map(IpNet::from));
    network.expect("a generated block").contains(&address.to_canonical())
}

fn is_path(pattern: &str, path: &str) -> bool {
    if !pattern.contains("{*}") && !pattern.contains("{**}") {
        return text(pattern, path);
    }
    let alphabet = r"[A-Za-z0-9\-._~%!$&'()+,;:@=*]";
    let pattern = regex::escape(pattern)
        .replace(r"\{\*\*\}", &format!("(?:{alphabet}|/)*"))
        .replace(r"\{\*\}", &format!("{alphabet}+"));
    regex::Regex::new(&format!("^{pattern}$")).expect("escaped").is_match(path)
}

fn is_request_principal(value: &str, http: &Http) -> bool {
    let claims = http.claims.as_ref();
    let get =
        |name: &str| claims.and_then(|claims| claims.get(name)).and_then(Value::as_str).unwrap_or_default();
    let (issuer, subject) = (get("iss"), get("sub"));
    if issuer.is_empty() || subject.is_empty() {
        return false;
    }
    match value.rsplit_once('/') {
        None if value == "*" => true,
        None if value.starts_with('*') => subject.ends_with(&value[1..]),
        None if value.ends_with('*') => issuer.starts_with(&value[..value.len() - 1]),
        None => false,
        Some((i, s)) if i.starts_with('*') => issuer.ends_with(&i[1..]) && subject == s,
        Some((i, s)) if s.ends_with('*') => issuer == i && subject.starts_with(&s[..s.len() - 1]),
        Some((i, s)) => issuer == i && subject == s,
    }
}

fn claim_values(request: &Request, name: &str) -> Vec<String> {
    let claims = request.http.as_ref().and_then(|http| http.claims.as_ref());
    match claims.and_then(|claims| claims.get(name)) {
        Some(Value::String(words)) if name == "scope" => {
            words.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Some(Value::String(value)) => vec![value.clone()],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}
