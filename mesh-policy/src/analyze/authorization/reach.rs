//! What rules meet at the workloads that they are for: ports, tokens, and callers that are locked out.

use std::collections::BTreeSet;

use mesh_api::model::{Action, AuthorizationPolicy, Rule, Selector};
use mesh_api::problem::Severity;

use crate::analyze::catalogue;
use crate::analyze::cover;
use crate::analyze::finding::Finding;
use crate::analyze::survey::{Scope, Survey, selects_all_of};
use crate::select::GATEWAY_NAME_LABEL;

pub(super) fn check(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    scope: &Scope,
    findings: &mut Vec<Finding>,
) {
    for (index, rule) in policy.rules.iter().enumerate() {
        service_ports(policy, scope, (index, rule), findings);
        findings.extend(streams(policy, scope, (index, rule)));
        findings.extend(unverified(survey, policy, scope, (index, rule)));
    }
    if policy.rules.is_empty() && policy.action == Action::Audit {
        let message = "Without rules it never matches, and nothing is recorded";
        findings.push(
            Finding::of(catalogue::NOTHING_ALLOWED, &policy.meta, "spec", message)
                .severity(Severity::Warning),
        );
    }
}

/// Ports as clients dial them where ports of the workload are meant.
fn service_ports(
    policy: &AuthorizationPolicy,
    scope: &Scope,
    (index, rule): (usize, &Rule),
    findings: &mut Vec<Finding>,
) {
    for (position, operation) in rule.to.iter().enumerate() {
        for (list, ports) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
            for (at, text) in ports.iter().enumerate() {
                let Ok(port) = text.parse::<u16>() else { continue };
                let Some(target) =
                    scope.by_service_port.get(&port).filter(|_| !scope.targets.contains(&port))
                else {
                    continue;
                };
                let message = format!(
                    "Port {port} is that of a Service; the workload listens on {target}, and policies test that"
                );
                let field = format!("spec.rules[{index}].to[{position}].operation.{list}[{at}]");
                findings.push(
                    Finding::of(catalogue::SERVICE_PORT, &policy.meta, field, message)
                        .fix(format!("\"{target}\"")),
                );
            }
        }
    }
}

/// HTTP fields where no HTTP is.
fn streams(policy: &AuthorizationPolicy, scope: &Scope, (index, rule): (usize, &Rule)) -> Option<Finding> {
    let fields = http_fields(rule);
    if fields.is_empty() {
        return None;
    }
    let named: BTreeSet<u16> =
        rule.to.iter().flat_map(|o| &o.ports).filter_map(|port| port.parse().ok()).collect();
    let excluded: BTreeSet<u16> =
        rule.to.iter().flat_map(|o| &o.not_ports).filter_map(|port| port.parse().ok()).collect();
    let met: Vec<String> = scope
        .streams
        .iter()
        .filter(|port| (named.is_empty() || named.contains(port)) && !excluded.contains(port))
        .map(u16::to_string)
        .collect();
    if met.is_empty() {
        return None;
    }
    let rest = is_only_http(rule);
    let (severity, effect) = match policy.action {
        Action::Allow => (Severity::Warning, "the whole rule is dropped there, and lets nothing in"),
        Action::Deny if rest => (
            Severity::Warning,
            "those fields are dropped there, nothing is left of the rule, and every connection is denied",
        ),
        Action::Deny => {
            (Severity::Warning, "those fields are dropped there, so that the rule denies more than it says")
        }
        Action::Custom => (
            Severity::Warning,
            "those fields are dropped there, so that the authorizer is asked about more than it says",
        ),
        Action::Audit => (Severity::Info, "those fields are dropped there, so that more is recorded"),
    };
    let message = format!(
        "{} {} what only HTTP has, and port {} is not HTTP: {effect}",
        fields.join(", "),
        if fields.len() == 1 { "tests" } else { "test" },
        met.join(", ")
    );
    let http: Vec<String> = scope
        .targets
        .iter()
        .filter(|port| !scope.streams.contains(port))
        .map(|port| format!("\"{port}\""))
        .collect();
    let fix = if http.is_empty() { String::new() } else { format!("ports: [{}]", http.join(", ")) };
    Some(
        Finding::of(catalogue::HTTP_ON_TCP, &policy.meta, format!("spec.rules[{index}]"), message)
            .severity(severity)
            .hint("Restrict the rule to the HTTP ports (operation.ports), and write one without HTTP fields for the others.")
            .fix(fix),
    )
}

/// The fields of a rule that only HTTP has.
fn http_fields(rule: &Rule) -> Vec<String> {
    let mut names = BTreeSet::new();
    for source in &rule.from {
        let lists = [
            ("requestPrincipals", &source.request_principals),
            ("notRequestPrincipals", &source.not_request_principals),
        ];
        names.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, _)| name.to_owned()));
    }
    for operation in &rule.to {
        let lists = [
            ("hosts", &operation.hosts),
            ("notHosts", &operation.not_hosts),
            ("methods", &operation.methods),
            ("notMethods", &operation.not_methods),
            ("paths", &operation.paths),
            ("notPaths", &operation.not_paths),
        ];
        names.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, _)| name.to_owned()));
    }
    names.extend(rule.when.iter().filter(|it| it.key.starts_with("request.")).map(|it| it.key.clone()));
    names.into_iter().collect()
}

/// Whether nothing is left of a rule without its HTTP fields.
fn is_only_http(rule: &Rule) -> bool {
    let source = |source: &mesh_api::model::Source| {
        cover::source_fields(source)
            .iter()
            .all(|(name, _, a, b)| *name == "requestPrincipals" || a.is_empty() && b.is_empty())
    };
    let operation =
        |operation: &mesh_api::model::Operation| operation.ports.is_empty() && operation.not_ports.is_empty();
    (rule.from.is_empty() || rule.from.iter().any(source))
        && (rule.to.is_empty() || rule.to.iter().any(operation))
        && rule.when.iter().all(|condition| condition.key.starts_with("request."))
}

/// Whether a rule tests a token, and whether it demands one.
fn tests_token(rule: &Rule) -> bool {
    rule.from.iter().any(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
        || rule.when.iter().any(|condition| condition.key.starts_with("request.auth."))
}

/// Whether a policy lets nothing pass without a token, for some requests at least.
pub(in crate::analyze) fn requires_token(policy: &AuthorizationPolicy) -> bool {
    policy.action == Action::Custom
        || policy.rules.iter().any(|rule| match policy.action {
            Action::Allow => {
                rule.from.iter().any(|source| !source.request_principals.is_empty())
                    || rule.when.iter().any(|it| it.key.starts_with("request.auth.") && !it.values.is_empty())
            }
            Action::Deny => {
                rule.from.iter().any(|source| !source.not_request_principals.is_empty())
                    || rule
                        .when
                        .iter()
                        .any(|it| it.key.starts_with("request.auth.") && !it.not_values.is_empty())
            }
            Action::Audit | Action::Custom => false,
        })
}

/// Tests of a token where nothing verifies tokens.
fn unverified(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    scope: &Scope,
    (index, rule): (usize, &Rule),
) -> Option<Finding> {
    if !tests_token(rule) {
        return None;
    }
    let root = &survey.model.mesh.root_namespace;
    let own = &policy.meta.object.namespace;
    // A policy without selector is for many workloads, some without tokens; one with verification is enough.
    let is_wide = policy.selector.is_empty();
    let at = if scope.members.is_empty() {
        let applies = |selector: &Selector| {
            let (theirs, own) = (&selector.match_labels, &policy.selector.match_labels);
            !policy.targets.is_empty() || selects_all_of(theirs, own) || selects_all_of(own, theirs)
        };
        let is_verified = survey.model.request.iter().any(|request| {
            let of = &request.meta.object.namespace;
            (of == root || of == own || own == root)
                && request.meta.is_in_force()
                && applies(&request.selector)
        });
        (!is_verified).then(|| "its workloads".to_owned())?
    } else {
        let verified = survey.verified();
        let mut without = scope.members.iter().filter(|position| !verified[**position]);
        let first = without.next()?;
        if is_wide && without.count() + 1 < scope.members.len() {
            return None;
        }
        survey.workloads[*first].named.to_string()
    };
    let effect = match policy.action {
        Action::Deny if rule.from.iter().any(|source| !source.not_request_principals.is_empty()) => {
            "no request has a principal, and all are denied"
        }
        Action::Allow => "the rule never matches",
        Action::Deny | Action::Audit | Action::Custom => "the test never holds, and its negation always does",
    };
    let message = format!("Asks for a token, and no RequestAuthentication verifies any for {at}: {effect}");
    let field = match rule
        .from
        .iter()
        .position(|s| !s.request_principals.is_empty() || !s.not_request_principals.is_empty())
    {
        Some(position) => format!("spec.rules[{index}].from[{position}].source"),
        None => {
            let position =
                rule.when.iter().position(|condition| condition.key.starts_with("request.auth."))?;
            format!("spec.rules[{index}].when[{position}]")
        }
    };
    let selector = match policy.selector.is_empty() {
        true => String::new(),
        false => {
            let pairs = policy.selector.match_labels.iter();
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}: {value}")).collect();
            format!("  selector: {{matchLabels: {{{}}}}}\n", pairs.join(", "))
        }
    };
    let fix = format!(
        "kind: RequestAuthentication\nmetadata: {{name: {}, namespace: {own}}}\nspec:\n{selector}  jwtRules:\n  - issuer: ISSUER\n    jwksUri: https://ISSUER/keys",
        policy.meta.object.name
    );
    Some(Finding::of(catalogue::TOKEN_NOT_VERIFIED, &policy.meta, field, message).fix(fix))
}

/// What is decided for a workload by all its policies.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::analyze) struct Flags {
    /// An enforced ALLOW policy with rules.
    allows: bool,
    /// An enforced ALLOW policy without rules, by its position.
    allows_nothing: Option<usize>,
    /// An enforced DENY policy that denies everything, by its position.
    denies_all: Option<usize>,
    /// A dry-run ALLOW policy, by its position.
    dry_allow: Option<usize>,
    /// A policy requires a token.
    pub(in crate::analyze) requires_token: bool,
}

impl Flags {
    fn of(position: usize, policy: &AuthorizationPolicy) -> Self {
        let is_allow = policy.action == Action::Allow;
        let denies = policy.action == Action::Deny && policy.rules.contains(&Rule::default());
        let enforced = policy.is_enforced();
        Self {
            allows: enforced && is_allow && !policy.rules.is_empty(),
            allows_nothing: (enforced && is_allow && policy.rules.is_empty()).then_some(position),
            denies_all: (enforced && denies).then_some(position),
            dry_allow: (policy.dry_run && is_allow).then_some(position),
            requires_token: enforced && requires_token(policy),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            allows: self.allows || other.allows,
            allows_nothing: self.allows_nothing.or(other.allows_nothing),
            denies_all: self.denies_all.or(other.denies_all),
            dry_allow: self.dry_allow.or(other.dry_allow),
            requires_token: self.requires_token || other.requires_token,
        }
    }

    /// The policy because of which nothing at all passes, if there is one.
    fn locks(self) -> Option<usize> {
        self.denies_all.or(if self.allows { None } else { self.allows_nothing })
    }
}

/// The flags of every workload. Policies of one scope are put together before they are spread.
pub(in crate::analyze) fn workload_flags(survey: &Survey<'_>) -> Vec<Flags> {
    let mut scopes = std::collections::BTreeMap::new();
    let mut flags = vec![Flags::default(); survey.workloads.len()];
    for (position, policy) in survey.model.authorization.iter().enumerate() {
        let own = Flags::of(position, policy);
        if policy.targets.is_empty() {
            let key = (&policy.meta.object.namespace, &policy.selector.match_labels);
            let known: &mut (Flags, &Selector) =
                scopes.entry(key).or_insert((Flags::default(), &policy.selector));
            known.0 = known.0.and(own);
        } else {
            let scope = survey.concerned(&policy.meta, &policy.selector, &policy.targets);
            scope.members.iter().for_each(|member| flags[*member] = flags[*member].and(own));
        }
    }
    for ((namespace, _), (own, selector)) in scopes {
        for member in &survey.scope(namespace, selector).members {
            flags[*member] = flags[*member].and(own);
        }
    }
    flags
}

/// Workloads that nobody reaches, and callers that have to reach one and do not.
pub(super) fn check_locked_out(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let flags = survey.flags();
    let mut told = BTreeSet::new();
    for (position, surveyed) in survey.workloads.iter().enumerate() {
        let flags = flags[position];
        let name = &surveyed.named;
        let own = |policy: usize| &survey.model.authorization[policy];
        if let Some(policy) = flags.locks()
            && is_gateway(surveyed.workload)
            && told.insert((catalogue::GATEWAY_LOCKED.id, policy))
        {
            let message = format!(
                "Holds for the gateway {name} too, and nothing lets a request to it pass: nobody reaches the mesh from outside"
            );
            let fix = format!(
                "kind: AuthorizationPolicy\nmetadata: {{name: ingress, namespace: {}}}\nspec:\n  selector: {{matchLabels: {{{}}}}}\n  rules:\n  - to: [{{operation: {{hosts: [HOST, \"HOST:*\"]}}}}]",
                name.namespace,
                surveyed
                    .workload
                    .labels
                    .iter()
                    .map(|(key, value)| format!("{key}: {value}"))
                    .take(1)
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            findings
                .push(Finding::of(catalogue::GATEWAY_LOCKED, &own(policy).meta, "spec", message).fix(fix));
        } else if let Some(policy) = flags.allows_nothing.filter(|_| !flags.allows)
            && !own(policy).selector.is_empty()
            && told.insert((catalogue::NOTHING_ALLOWED.id, policy))
        {
            let message = format!(
                "Allows nothing, and no other ALLOW policy is for {name}: every request to it is denied"
            );
            findings.push(Finding::of(catalogue::NOTHING_ALLOWED, &own(policy).meta, "spec", message));
        }
        if let Some(policy) = flags.locks()
            && let Some(port) = scraped(surveyed.workload)
            && told.insert((catalogue::SCRAPER_LOCKED.id, policy))
        {
            let message =
                format!("{name} asks to be scraped on port {port}, and no policy lets a request to it pass");
            findings.push(Finding::of(catalogue::SCRAPER_LOCKED, &own(policy).meta, "spec", message));
        }
        if let Some(policy) = flags.dry_allow
            && !flags.allows
            && flags.allows_nothing.is_none()
            && told.insert((catalogue::DRY_RUN_ONLY.id, policy))
        {
            let message = format!(
                "Only dry-run ALLOW policies are for {name}: it is evaluated and recorded, and nothing is denied"
            );
            findings.push(Finding::of(
                catalogue::DRY_RUN_ONLY,
                &own(policy).meta,
                "metadata.annotations[istio.io/dry-run]",
                message,
            ));
        }
    }
    ingress(survey, findings);
}

/// Whether a workload is an ingress gateway.
pub(in crate::analyze) fn is_gateway(workload: &mesh_api::model::Workload) -> bool {
    workload.labels.contains_key(GATEWAY_NAME_LABEL)
        || workload.labels.get("istio").is_some_and(|value| value.contains("ingress"))
        || workload.labels.get("app").is_some_and(|value| value.contains("ingressgateway"))
}

/// The port of its own on which a workload is scraped; the port of merged metrics is never intercepted.
fn scraped(workload: &mesh_api::model::Workload) -> Option<&str> {
    let annotations = &workload.meta.annotations;
    let is_scraped = annotations.get("prometheus.io/scrape").is_some_and(|value| value == "true");
    let port = annotations.get("prometheus.io/port")?;
    let is_merged = annotations.get("prometheus.istio.io/merge-metrics").is_none_or(|value| value != "false");
    (is_scraped && !is_merged && port != "15020" && port != "15021").then_some(port.as_str())
}

/// Workloads that a gateway routes to, and whose ALLOW rules admit callers of other namespaces only.
fn ingress(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for (host, gateways) in crate::analyze::routes::from_gateways(survey) {
        let Some(service) = survey.service(&host) else { continue };
        let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            continue;
        };
        let scope = survey.scope(&service.meta.object.namespace, selector);
        let Some(member) = scope.members.first() else { continue };
        let workload = survey.workloads[*member].workload;
        let subject = crate::analyze::survey::subject(workload);
        let applying: Vec<&AuthorizationPolicy> = survey
            .model
            .authorization
            .iter()
            .filter(|policy| policy.action == Action::Allow && policy.is_enforced())
            .filter(|policy| {
                crate::select::applies(
                    survey.model.mesh,
                    &subject,
                    &policy.meta,
                    &policy.selector,
                    &policy.targets,
                )
            })
            .map(|policy| &**policy)
            .collect();
        let with_rules: Vec<_> = applying.iter().filter(|policy| !policy.rules.is_empty()).collect();
        let Some(policy) = with_rules.first() else { continue };
        let admits = with_rules.iter().flat_map(|policy| &policy.rules).any(|rule| {
            rule.from.is_empty()
                || rule.from.iter().any(|source| gateways.iter().any(|namespace| admits(source, namespace)))
        });
        if !admits && told.insert(policy.meta.object.clone()) {
            let namespaces: Vec<&str> = gateways.iter().map(String::as_str).collect();
            let message = format!(
                "A gateway of namespace {} routes to {}, and no ALLOW rule for it admits callers of that namespace: requests from outside get 403",
                namespaces.join(" or "),
                survey.workloads[*member].named
            );
            let fix = format!(
                "- from: [{{source: {{principals: [\"{}/ns/{}/sa/GATEWAY-ACCOUNT\"]}}}}]",
                survey.model.mesh.trust_domain,
                namespaces.first().copied().unwrap_or_default()
            );
            findings
                .push(Finding::of(catalogue::INGRESS_LOCKED, &policy.meta, "spec.rules", message).fix(fix));
        }
    }
}

/// Whether a source may hold for a caller of a namespace. What is not about the peer's identity may.
fn admits(source: &mesh_api::model::Source, namespace: &str) -> bool {
    let part = format!("/ns/{namespace}/");
    let principals = source.principals.is_empty()
        || source.principals.iter().any(|principal| {
            let is_fixed = principal.contains("/ns/") && !principal.starts_with('*');
            !is_fixed
                || principal.contains(&part)
                || principal.ends_with('*')
                    && !principal.contains("/sa/")
                    && part
                        .starts_with(principal[principal.find("/ns/").unwrap_or(0)..].trim_end_matches('*'))
        });
    let namespaces =
        source.namespaces.is_empty() || source.namespaces.iter().any(|glob| cover::glob(glob, namespace));
    let accounts = source.service_accounts.is_empty()
        || source
            .service_accounts
            .iter()
            .any(|account| account.split_once('/').is_none_or(|(of, _)| of == namespace));
    principals && namespaces && accounts
}
