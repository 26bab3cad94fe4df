//! AuthorizationPolicy (SEMANTICS section 6): structure and limits.

use super::authorization_value::{self as value, ValueRule};
use super::input::Input;
use super::report::Report;
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
            report.error(place, "DENY without rules denies nothing", hint);
        }
        Action::Custom if rules.is_empty() => {
            report.error(place, "CUSTOM without rules asks nobody", "Add rules.");
        }
        Action::Custom => {
            let effect = "no external authorizer can be asked, so every request that matches is denied";
            report.not_enforced(place, effect);
        }
        Action::Allow | Action::Deny | Action::Audit => {}
    }
    if action == Action::Custom && spec.get("provider").is_none() {
        report.missing(input.spec, "provider", "CUSTOM needs provider.name.");
    }
    if action != Action::Custom
        && let Some(place) = spec.get("provider")
    {
        report.error(place, "is for action CUSTOM only", "Remove it, or write action: CUSTOM.");
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
        report.error(place, "must be true or false", "Write \"true\" or \"false\".");
    }
    if matches!(action, Some(Action::Audit | Action::Custom)) {
        report.error(place, "is for ALLOW and DENY only", "Remove the annotation.");
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

/// Items of `from`, `to` or `when`, which must not be an empty list: that could mean any or none.
fn entries<'t>(place: Place<'t>, max: usize, report: &mut Report) -> Vec<Place<'t>> {
    let items = limited(place, max, report);
    if items.is_empty() && matches!(place.found(), Found::List) && place.children().len() == 0 {
        report.error(place, "must not be empty", "Remove the field to match any.");
    }
    items
}

fn rule(place: Place<'_>, action: Option<Action>, report: &mut Report) -> Rule {
    if place.is_null() {
        report.error(place, "a rule must not be empty", "Write {} for a rule that matches everything.");
        return Rule::default();
    }
    let fields = place.fields(&["from", "to", "when"], report);
    let read = |name: &str, max: usize, report: &mut Report| match fields.get(name) {
        Some(place) => entries(place, max, report),
        None => Vec::new(),
    };
    let from =
        read("from", ENTRIES_MAX, report).into_iter().filter_map(|place| source(place, action, report));
    let from = from.collect();
    let to =
        read("to", usize::MAX, report).into_iter().filter_map(|place| operation(place, report)).collect();
    let when = read("when", usize::MAX, report).into_iter();
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
    let found = fields.required(name, &format!("An entry without {name} says nothing."), report)?;
    let is_empty = found.is_null() || (matches!(found.found(), Found::Map) && found.children().len() == 0);
    if is_empty {
        report.error(found, "must not be empty", "State what is to match, or remove the entry.");
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
                "cannot be used with action CUSTOM",
                "Match by hosts, paths, methods or addresses.",
            );
        }
    }
    let accounts = ["serviceAccounts", "notServiceAccounts"];
    let others = ["principals", "notPrincipals", "namespaces", "notNamespaces"];
    if fields.stated(&accounts) > 0 && fields.stated(&others) > 0 {
        let hint = "Use two entries of `from`, or principals alone.";
        report.error(found, "serviceAccounts cannot stand beside principals or namespaces", hint);
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

/// A DENY rule that tests HTTP alone denies every TCP connection too (SEMANTICS 6.8, TRAP 28).
fn warn_of_http_only(place: Option<Place<'_>>, rules: &[Rule], report: &mut Report) {
    let Some(place) = place else { return };
    for (place, rule) in place.children().zip(rules) {
        if is_http_only(rule) {
            let hint = "Add ports to `to.operation` if other ports of the workload speak TCP.";
            report.warn(
                place,
                "tests HTTP attributes only, so it denies every TCP connection to the workload",
                hint,
            );
        }
    }
}

fn is_http_only(rule: &Rule) -> bool {
    let source = |source: &Source| {
        let http = !source.request_principals.is_empty() || !source.not_request_principals.is_empty();
        let bare =
            Source { request_principals: Vec::new(), not_request_principals: Vec::new(), ..source.clone() };
        (http, bare == Source::default())
    };
    let operation = |operation: &Operation| {
        let is_bare = operation.ports.is_empty() && operation.not_ports.is_empty();
        (*operation != Operation::default(), is_bare)
    };
    let condition = |key: &str| key.starts_with("request.");
    let mut parts = rule
        .from
        .iter()
        .map(source)
        .chain(rule.to.iter().map(operation))
        .chain(rule.when.iter().map(|entry| (condition(&entry.key), condition(&entry.key))))
        .peekable();
    parts.peek().is_some() && parts.all(|(has_http, is_bare)| has_http && is_bare)
}
