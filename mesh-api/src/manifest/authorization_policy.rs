//! AuthorizationPolicy (SEMANTICS section 6): structure and limits.

use super::authorization_value::{self as value, ValueRule};
use super::input::Input;
use super::report::{Report, shortened};
use super::tree::{Found, Place};
use super::{authorization_condition, meta};
use crate::model::{Action, AuthorizationPolicy, Operation, Rule, Source};

const ACTIONS: [(&str, Action); 4] =
    [("ALLOW", Action::Allow), ("DENY", Action::Deny), ("AUDIT", Action::Audit), ("CUSTOM", Action::Custom)];
/// Most rules, and most sources of a rule (SEMANTICS 6.1).
const ENTRIES_MAX: usize = 512;
/// Texts that Go's ParseBool takes, which Istio reads the annotation with.
const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE: [&str; 6] = ["0", "f", "F", "FALSE", "false", "False"];

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Option<AuthorizationPolicy> {
    let known = ["selector", "targetRef", "targetRefs", "action", "provider", "rules"];
    let spec = input.spec.fields(&known, report);
    let selector = meta::selector(spec, report);
    let targets = meta::targets(spec, report);
    let action = match spec.get("action") {
        Some(place) => place.choice(&ACTIONS, report),
        None => Some(Action::Allow),
    };
    let rules: Vec<Rule> = match spec.get("rules") {
        Some(place) => {
            let entries = limited(place, ENTRIES_MAX, report);
            entries.into_iter().map(|place| rule(place, action, report)).collect()
        }
        None => Vec::new(),
    };
    let provider = spec.get("provider").and_then(|place| provider(place, report));
    let dry_run = dry_run(&input, action, report);
    let action = action?;
    let place = spec.get("action").unwrap_or(input.spec);
    match action {
        Action::Deny if spec.get("rules").is_none() || rules.is_empty() => {
            let hint = "Add rules, or rules: [{}] to deny everything.";
            report.error(place, "DENY without rules is meaningless: it denies nothing", hint);
        }
        Action::Custom if rules.is_empty() => {
            let hint = "Add rules, or rules: [{}] to ask for everything.";
            report.error(place, "CUSTOM without rules is meaningless: nobody is asked", hint);
        }
        Action::Allow | Action::Deny | Action::Audit | Action::Custom => {}
    }
    if action == Action::Custom && spec.get("provider").is_none() {
        report.missing(input.spec, "provider", "CUSTOM needs a provider.name that is not empty.");
    }
    if action != Action::Custom
        && let Some(place) = spec.get("provider")
    {
        let message = "provider is for action CUSTOM only and cannot be set with another action";
        report.error(place, message, "Remove it, or write action: CUSTOM.");
    }
    if action == Action::Deny {
        warn_of_http_only(spec.get("rules"), &rules, report);
    }
    Some(AuthorizationPolicy { meta: input.meta, selector, targets, action, provider, rules, dry_run })
}

fn provider(place: Place<'_>, report: &mut Report) -> Option<String> {
    let fields = place.fields(&["name"], report);
    let name = fields.required("name", "Name the provider.", report)?;
    name.non_empty(report).map(str::to_owned)
}

fn dry_run(input: &Input<'_, '_>, action: Option<Action>, report: &mut Report) -> bool {
    let annotations = input.root.child("metadata").and_then(|place| place.child("annotations"));
    let Some(place) = annotations.and_then(|place| place.child(meta::DRY_RUN)) else { return false };
    let Some(text) = input.meta.annotations.get(meta::DRY_RUN).map(String::as_str) else { return false };
    if !TRUE.contains(&text) && !FALSE.contains(&text) {
        let message = format!("has an invalid value {:?}: must be true or false", shortened(text));
        report.error(place, message, "Write \"true\" or \"false\".");
    }
    if matches!(action, Some(Action::Audit | Action::Custom)) {
        let message = "dry-run supports action ALLOW and DENY only";
        report.error(place, message, "Remove the annotation.");
    }
    TRUE.contains(&text)
}

/// Items of a list that has a limit.
fn limited<'t>(place: Place<'t>, max: usize, report: &mut Report) -> Vec<Place<'t>> {
    let items = place.items(report);
    if items.len() > max {
        report.error(
            place,
            format!("has {} entries, at most {max} are allowed", items.len()),
            "Split the policy.",
        );
        return Vec::new();
    }
    items
}

/// Whether a list is stated and has no entries.
fn is_empty_list(place: Place<'_>) -> bool {
    matches!(place.found(), Found::List) && place.children().len() == 0
}

/// Items of `from` or `to`, which must not be an empty list: that could mean any or none.
fn entries<'t>(name: &str, (place, max): (Place<'t>, usize), report: &mut Report) -> Vec<Place<'t>> {
    if is_empty_list(place) {
        report.error(place, format!("{name} must not be empty"), "Remove the field to match any.");
    }
    let items = limited(place, max, report);
    for item in items.iter().filter(|item| item.is_null()) {
        report.error(*item, format!("{name} must not be nil"), "Write the entry, or remove its dash.");
    }
    items.into_iter().filter(|item| !item.is_null()).collect()
}

/// Reads a rule.
pub(super) fn rule(place: Place<'_>, action: Option<Action>, report: &mut Report) -> Rule {
    if place.is_null() {
        report.error(place, "rule must not be nil", "Write {} for a rule that matches everything.");
        return Rule::default();
    }
    let fields = place.fields(&["from", "to", "when"], report);
    let read = |name: &str, max: usize, report: &mut Report| match fields.get(name) {
        Some(place) => entries(name, (place, max), report),
        None => Vec::new(),
    };
    let from =
        read("from", ENTRIES_MAX, report).into_iter().filter_map(|place| source(place, action, report));
    let from = from.collect();
    let to =
        read("to", usize::MAX, report).into_iter().filter_map(|place| operation(place, report)).collect();
    let when = match fields.get("when") {
        Some(place) if is_empty_list(place) => {
            report.warn(place, "is empty and demands nothing", "Remove it, or list the conditions.");
            Vec::new()
        }
        Some(place) => place.items(report),
        None => Vec::new(),
    };
    let when = when.into_iter();
    let when = when.filter_map(|place| authorization_condition::read(place, action, report)).collect();
    Rule { from, to, when }
}

/// The map under the only field of an entry of `from` or `to`.
fn inner<'t>(place: Place<'t>, name: &str, known: &[&str], report: &mut Report) -> Option<Place<'t>> {
    if let Found::Map = place.found()
        && place.child(name).is_none()
        && let Some(stray) = place.children().find(|child| known.contains(&child.name()))
    {
        report.error(stray, format!("must stand under {name}"), format!("Indent it below `{name}:`."));
        return None;
    }
    let fields = place.fields(&[name], report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    let list = if name == "source" { "from" } else { "to" };
    let hint = "State what is to match, or remove the entry.";
    let Some(found) = fields.get(name) else {
        report.error(place, format!("{list}.{name} must not be empty, and is missing"), hint);
        return None;
    };
    if found.is_null() {
        report.error(found, format!("{list}.{name} must not be empty, and is nil"), hint);
        return None;
    }
    // Lists without values are no better: none of them restricts anything.
    if matches!(found.found(), Found::Map) && found.children().all(is_empty_list) {
        report.error(found, format!("{list}.{name} must not be empty"), hint);
        return None;
    }
    Some(found)
}

/// Fields of a source that CUSTOM may not use: identities are checked before it (SEMANTICS 6.1).
const NOT_FOR_CUSTOM: [&str; 10] = [
    "principals",
    "notPrincipals",
    "requestPrincipals",
    "notRequestPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "trustDomains",
    "notTrustDomains",
];

fn source(place: Place<'_>, action: Option<Action>, report: &mut Report) -> Option<Source> {
    let known = [
        "principals",
        "notPrincipals",
        "requestPrincipals",
        "notRequestPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "ipBlocks",
        "notIpBlocks",
        "remoteIpBlocks",
        "notRemoteIpBlocks",
        "trustDomains",
        "notTrustDomains",
    ];
    let found = inner(place, "source", &known, report)?;
    let fields = found.fields(&known, report);
    for child in found.children().filter(|child| NOT_FOR_CUSTOM.contains(&child.name())) {
        if action == Some(Action::Custom) {
            report.error(
                child,
                "is not supported: it cannot be used with action CUSTOM",
                "Match by hosts, paths, methods or addresses.",
            );
        }
    }
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if fields.stated(&accounts) > 0 && fields.stated(&others) > 0 {
        let hint = "Use two entries of `from`, or principals alone.";
        report.error(found, "cannot set serviceAccounts with namespaces or principals", hint);
    }
    let mut read = |name: &str, rule: ValueRule| {
        fields.get(name).map(|place| value::list(place, rule, report)).unwrap_or_default()
    };
    Some(Source {
        principals: read("principals", ValueRule::Text),
        not_principals: read("notPrincipals", ValueRule::Text),
        request_principals: read("requestPrincipals", ValueRule::Text),
        not_request_principals: read("notRequestPrincipals", ValueRule::Text),
        namespaces: read("namespaces", ValueRule::Text),
        not_namespaces: read("notNamespaces", ValueRule::Text),
        service_accounts: read("serviceAccounts", ValueRule::ServiceAccount),
        not_service_accounts: read("notServiceAccounts", ValueRule::ServiceAccount),
        ip_blocks: read("ipBlocks", ValueRule::IpBlock),
        not_ip_blocks: read("notIpBlocks", ValueRule::IpBlock),
        remote_ip_blocks: read("remoteIpBlocks", ValueRule::IpBlock),
        not_remote_ip_blocks: read("notRemoteIpBlocks", ValueRule::IpBlock),
        trust_domains: read("trustDomains", ValueRule::TrustDomain),
        not_trust_domains: read("notTrustDomains", ValueRule::TrustDomain),
    })
}

fn operation(place: Place<'_>, report: &mut Report) -> Option<Operation> {
    let known = ["hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths"];
    let found = inner(place, "operation", &known, report)?;
    let fields = found.fields(&known, report);
    let mut read = |name: &str, rule: ValueRule| {
        fields.get(name).map(|place| value::list(place, rule, report)).unwrap_or_default()
    };
    Some(Operation {
        hosts: read("hosts", ValueRule::Text),
        not_hosts: read("notHosts", ValueRule::Text),
        ports: read("ports", ValueRule::Port),
        not_ports: read("notPorts", ValueRule::Port),
        methods: read("methods", ValueRule::Text),
        not_methods: read("notMethods", ValueRule::Text),
        paths: read("paths", ValueRule::Path),
        not_paths: read("notPaths", ValueRule::Path),
    })
}

/// A DENY rule loses its HTTP fields on TCP: one without ports denies every TCP connection that the rest of it
/// lets through (SEMANTICS 6.8, TRAP 28).
fn warn_of_http_only(place: Option<Place<'_>>, rules: &[Rule], report: &mut Report) {
    let Some(place) = place else { return };
    for (place, rule) in place.children().zip(rules) {
        let message = match tcp_reach(rule) {
            TcpReach::Restricted => continue,
            TcpReach::Every => {
                "tests HTTP attributes only, so it will deny all traffic to TCP ports of the workload"
            }
            TcpReach::EveryPort => {
                "names no ports, so it will deny all traffic to TCP ports that the rest of the rule matches"
            }
        };
        let hint = "Add ports to `to.operation` if other ports of the workload speak TCP.";
        report.warn(place, message, hint);
    }
}

/// What a rule is left with on TCP.
enum TcpReach {
    /// It tests HTTP attributes alone, so nothing is left of it.
    Every,
    /// Its operations test HTTP attributes alone.
    EveryPort,
    /// It is as narrow as it was, or names ports.
    Restricted,
}

fn tcp_reach(rule: &Rule) -> TcpReach {
    let is_http_source = |source: &Source| {
        let rest =
            Source { request_principals: Vec::new(), not_request_principals: Vec::new(), ..source.clone() };
        rest == Source::default()
    };
    let is_http_operation =
        |operation: &Operation| operation.ports.is_empty() && operation.not_ports.is_empty();
    let is_tested = !(rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty());
    let from_falls = rule.from.is_empty() || rule.from.iter().any(is_http_source);
    let to_falls = rule.to.is_empty() || rule.to.iter().any(is_http_operation);
    let when_falls = rule.when.iter().all(|entry| entry.key.starts_with("request."));
    if is_tested && from_falls && to_falls && when_falls {
        TcpReach::Every
    } else if !rule.to.is_empty() && to_falls {
        TcpReach::EveryPort
    } else {
        TcpReach::Restricted
    }
}
