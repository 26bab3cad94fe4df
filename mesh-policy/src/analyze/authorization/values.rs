//! Single values of a rule that never match, or match something else than they seem to.

use mesh_api::model::{Action, AuthorizationPolicy, Condition, PathNormalization};

use super::entries::negative;
use crate::analyze::catalogue::{self, Code};
use crate::analyze::cover::{self, Field, Form, operation_fields, source_fields};
use crate::analyze::finding::Finding;
use crate::analyze::survey::Survey;
use crate::authorize::template::is_template;
use crate::normalize;

/// What is wrong with a value: the code, what happens, and what to write in its place (possibly nothing).
struct Fault(&'static Code, String, String);

pub(super) fn check(survey: &Survey<'_>, policy: &AuthorizationPolicy, findings: &mut Vec<Finding>) {
    for (index, rule) in policy.rules.iter().enumerate() {
        for (position, source) in rule.from.iter().enumerate() {
            let path = format!("spec.rules[{index}].from[{position}].source");
            for field in source_fields(source) {
                check_field(survey, policy, &path, &field, findings);
            }
            families(policy, &path, &source_fields(source), findings);
        }
        for (position, operation) in rule.to.iter().enumerate() {
            let path = format!("spec.rules[{index}].to[{position}].operation");
            for field in operation_fields(operation) {
                check_field(survey, policy, &path, &field, findings);
            }
            variants(policy, &path, &operation_fields(operation), findings);
        }
        for (position, condition) in rule.when.iter().enumerate() {
            check_condition(
                survey,
                policy,
                &format!("spec.rules[{index}].when[{position}]"),
                condition,
                findings,
            );
        }
        findings.extend(opposed_conditions(policy, index, &rule.when));
    }
}

fn check_field(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    path: &str,
    (name, form, positive, negative_values): &Field<'_>,
    findings: &mut Vec<Finding>,
) {
    for (list, values) in [((*name).to_owned(), positive), (negative(name), negative_values)] {
        for (index, value) in values.iter().enumerate() {
            if let Some(Fault(code, message, fix)) = fault(survey, name, value) {
                let field = format!("{path}.{list}[{index}]");
                let finding = Finding::of(code, &policy.meta, field, message).fix(fix);
                let is_pattern = code == catalogue::LITERAL_STAR || code == catalogue::REGEX;
                findings.push(match is_pattern && *name != "paths" {
                    true => finding.hint("Use a prefix, a suffix, or list the values."),
                    false => finding,
                });
            }
        }
    }
    let is_excluded = |value: &String| negative_values.iter().any(|not| cover::value(*form, not, value));
    if !positive.is_empty() && positive.iter().all(is_excluded) {
        let message = format!("Never matches: {} excludes everything that {name} names", negative(name));
        let field = format!("{path}.{}", negative(name));
        findings.push(Finding::of(catalogue::CONTRADICTION, &policy.meta, field, message));
    }
}

/// What is wrong with one value of a field.
fn fault(survey: &Survey<'_>, name: &str, value: &str) -> Option<Fault> {
    let is_text =
        matches!(name, "principals" | "namespaces" | "hosts" | "methods" | "paths" | "trustDomains");
    if name == "principals" && value.contains("://") {
        let (_, bare) = value.split_once("://").unwrap_or(("", value));
        let message = format!("{value:?} never matches: principals are written without a scheme");
        return Some(Fault(catalogue::SCHEME_IN_PRINCIPAL, message, quoted(bare)));
    }
    if name == "requestPrincipals" {
        return request_principal(value);
    }
    // `example.*` is a prefix that ends in a dot, where dots are what names are made of.
    let is_dotted = matches!(name, "hosts" | "trustDomains") && value.ends_with(".*");
    if is_text && looks_like_regex(value) && !is_template(value) && !is_dotted {
        let message = format!(
            "{value:?} looks like a regular expression, and is compared as text: it stands for itself"
        );
        return Some(Fault(catalogue::REGEX, message, String::new()));
    }
    if matches!(name, "principals" | "hosts" | "methods" | "paths")
        && !value.contains('{')
        && has_literal_star(value)
    {
        let message = format!(
            "{value:?} has a star that is no wildcard and stands for itself, so that it hardly ever matches"
        );
        return Some(Fault(catalogue::LITERAL_STAR, message, starless(name, value)));
    }
    match name {
        "methods" => method(value),
        "paths" => path(value, survey.model.mesh.path_normalization),
        "hosts" => host(value),
        _ => None,
    }
}

fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// A star that stands for itself: in the middle, or at the end of a value that starts with one.
fn has_literal_star(value: &str) -> bool {
    let inner = match value.strip_prefix('*') {
        Some(rest) => rest,
        None => value.strip_suffix('*').unwrap_or(value),
    };
    inner.contains('*')
}

/// The template that a path with stars for segments was meant to be.
fn starless(name: &str, value: &str) -> String {
    let segments: Vec<&str> = value.split('/').collect();
    let is_segmented = segments.iter().all(|segment| !segment.contains('*') || ["*", "**"].contains(segment));
    if name != "paths" || !value.starts_with('/') || !is_segmented {
        return String::new();
    }
    let last = segments.len() - 1;
    let segments = segments.iter().enumerate().map(|(index, segment)| match *segment {
        "*" if index == last => "{**}",
        "*" => "{*}",
        "**" => "{**}",
        other => other,
    });
    quoted(&segments.collect::<Vec<_>>().join("/"))
}

/// What nobody writes in a plain value.
fn looks_like_regex(value: &str) -> bool {
    let is_class = value.find('[').is_some_and(|at| value[at..].contains(']')) && !value.starts_with('[');
    let is_group = value.find('(').is_some_and(|at| value[at..].contains('|') && value[at..].contains(')'));
    value.contains(".*")
        || value.contains(".+")
        || value.contains("\\d")
        || value.contains("\\w")
        || value.contains("\\.")
        || value.starts_with('^')
        || value.len() > 1 && value.ends_with('$')
        || is_class
        || is_group
}

fn method(value: &str) -> Option<Fault> {
    value.bytes().any(|byte| byte.is_ascii_lowercase()).then(|| {
        let message = format!(
            "{value:?} never matches: methods are compared byte for byte, and requests carry them in capitals"
        );
        Fault(catalogue::METHOD_CASE, message, quoted(&value.to_ascii_uppercase()))
    })
}

fn host(value: &str) -> Option<Fault> {
    value.contains('/').then(|| {
        let bare =
            value.split_once("://").map_or(value, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let message = format!("{value:?} never matches: the host of a request has neither scheme nor path");
        Fault(catalogue::HOST_FORM, message, quoted(bare))
    })
}

fn path(value: &str, mode: PathNormalization) -> Option<Fault> {
    if value == "*" || value.contains('{') {
        return None;
    }
    let fault = |reason: &str, fix: String| {
        Some(Fault(catalogue::PATH_FORM, format!("{value:?} never matches: {reason}"), fix))
    };
    let is_suffix = value.starts_with('*');
    if !is_suffix && !value.starts_with('/') {
        return fault("every path starts with a slash", quoted(&format!("/{value}")));
    }
    if let Some(at) = value.find(['?', '#']) {
        let bare = &value[..at];
        let fix = if is_suffix || bare.is_empty() { String::new() } else { quoted(bare) };
        return fault("the path that is judged ends before the query and the fragment", fix);
    }
    let plain = value.strip_suffix('*').unwrap_or(value);
    let is_exact = !is_suffix && plain.len() == value.len();
    if is_exact {
        let normal = normalize::path(value, mode).ok()?;
        let normal = normal.policy_path();
        return (normal != value).then(|| {
            let message = format!(
                "{value:?} never matches: requests for it are normalised to {normal:?} before they are judged"
            );
            Fault(catalogue::PATH_FORM, message, quoted(normal))
        });
    }
    let is_merged =
        matches!(mode, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    let is_gone = mode != PathNormalization::None
        && (plain.contains("/../") || plain.contains("/./") || plain.contains('\\'))
        || is_merged && plain.contains("//");
    if is_gone {
        return fault("normalisation leaves no path of this form", String::new());
    }
    None
}

fn request_principal(value: &str) -> Option<Fault> {
    let fault = |reason: &str, fix: &str| {
        let message = format!("{value:?} {reason}");
        Some(Fault(catalogue::REQUEST_PRINCIPAL, message, fix.to_owned()))
    };
    if value == "*" {
        return None;
    }
    if let Some(rest) = value.strip_prefix('*') {
        return match rest.rsplit_once('/') {
            Some((_, subject)) if subject.contains('*') => fault(
                "asks for a subject that is a star: after a leading star the subject is taken as it is",
                "\"*\"",
            ),
            _ => None,
        };
    }
    let Some(rest) = value.strip_suffix('*') else {
        return match value.contains('/') {
            true => None,
            false => {
                fault("never matches: a request principal is ISSUER/SUBJECT", &quoted(&format!("{value}/*")))
            }
        };
    };
    match rest.rsplit_once('/') {
        Some((issuer, "")) if issuer.ends_with('/') || issuer.ends_with(':') => fault(
            "never matches: it is cut at its last slash, so that the issuer would have to be the part before it",
            "\"*\"",
        ),
        _ => None,
    }
}

/// One family of addresses for "any".
fn families(policy: &AuthorizationPolicy, path: &str, fields: &[Field<'_>], findings: &mut Vec<Finding>) {
    for (name, form, positive, not) in fields {
        if *form != Form::Address {
            continue;
        }
        for (list, values) in [((*name).to_owned(), positive), (negative(name), not)] {
            let any = |text: &str| {
                let wanted = cover::block(text);
                values.iter().position(|value| cover::block(value) == wanted)
            };
            let (at, message, other) = match (any("0.0.0.0/0"), any("::/0")) {
                (Some(at), None) => (at, "0.0.0.0/0 covers no IPv6 address", "::/0"),
                (None, Some(at)) => (at, "::/0 covers no IPv4 address", "0.0.0.0/0"),
                (Some(_), Some(_)) | (None, None) => continue,
            };
            let field = format!("{path}.{list}[{at}]");
            let fix = format!("{list}: [\"0.0.0.0/0\", \"::/0\"]");
            let message = format!("{message}: callers with one are not meant by it");
            let hint = format!("Add {other} to mean every address, or leave {list} out.");
            findings
                .push(Finding::of(catalogue::IPV4_ONLY, &policy.meta, field, message).hint(hint).fix(fix));
        }
    }
}

/// What a refusal of a host or path leaves open.
fn variants(policy: &AuthorizationPolicy, path: &str, fields: &[Field<'_>], findings: &mut Vec<Finding>) {
    for (name, _, positive, not) in fields {
        let (list, values) = match policy.action {
            Action::Deny => ((*name).to_owned(), *positive),
            Action::Allow => (negative(name), *not),
            Action::Audit | Action::Custom => continue,
        };
        for (index, value) in values.iter().enumerate() {
            let gap = match *name {
                "hosts" => host_gap(value, values),
                "paths" => path_gap(value, values),
                _ => None,
            };
            if let Some((code, message, fix)) = gap {
                let field = format!("{path}.{list}[{index}]");
                let hint = match policy.action {
                    Action::Deny => {
                        "List the variants too; better, allow what is wanted in place of denying what is not:"
                    }
                    Action::Allow | Action::Audit | Action::Custom => "List the variants too:",
                };
                findings.push(
                    Finding::of(code, &policy.meta, field, message).hint(hint).fix(format!("{list}: {fix}")),
                );
            }
        }
    }
}

type Gap = (&'static Code, String, String);

fn host_gap(value: &str, values: &[String]) -> Option<Gap> {
    let with_port = format!("{value}:8080");
    let is_closed = value.ends_with('*')
        || value.contains(':')
        || value.contains('/')
        || values.iter().any(|other| cover::value(Form::Authority, other, &with_port));
    (!is_closed).then(|| {
        let message = format!("{value:?} does not cover \"{value}:PORT\", which a client may send and which reaches the same application");
        let fix = match value.starts_with('*') {
            true => format!("[{}]   # a suffix cannot cover ports: allow the hosts that are wanted instead", quoted(value)),
            false => format!("[{}, {}]", quoted(value), quoted(&format!("{value}:*"))),
        };
        (catalogue::HOST_PORT, message, fix)
    })
}

fn path_gap(value: &str, values: &[String]) -> Option<Gap> {
    if value.contains(['{', '?', '#']) || value.starts_with('*') || !value.starts_with('/') || value.len() < 2
    {
        return None;
    }
    let is_covered = |text: &str| values.iter().any(|other| cover::value(Form::Path, other, text));
    let (bare, below) = match value.strip_suffix("/*") {
        Some(bare) if !bare.is_empty() && !bare.contains('*') => (bare, format!("{bare}/x")),
        Some(_) => return None,
        None if value.contains('*') => return None,
        None => (value.trim_end_matches('/'), format!("{}/x", value.trim_end_matches('/'))),
    };
    let missing = match (is_covered(bare), is_covered(&format!("{bare}/")), is_covered(&below)) {
        (true, true, _) => return None,
        (false, ..) => format!("{bare:?} itself"),
        (true, false, true) => return None,
        (true, false, false) => format!("\"{bare}/\" and what is below it"),
    };
    let message = format!(
        "{value:?} does not cover {missing}, nor other cases of its letters; many applications serve them alike"
    );
    let fix = format!("[{}, {}]", quoted(bare), quoted(&format!("{bare}/*")));
    Some((catalogue::PATH_GAP, message, fix))
}

fn check_condition(
    survey: &Survey<'_>,
    policy: &AuthorizationPolicy,
    path: &str,
    condition: &Condition,
    findings: &mut Vec<Finding>,
) {
    let name = match condition.key.as_str() {
        "source.principal" => "principals",
        "request.auth.principal" => "requestPrincipals",
        "source.namespace" => "namespaces",
        key if key.starts_with("request.headers") => "methods",
        _ => "",
    };
    for (list, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        for (index, value) in values.iter().enumerate() {
            let found = match name {
                // Headers have the wildcards of methods, and values of any case.
                "methods" if looks_like_regex(value) => {
                    let message = format!(
                        "{value:?} looks like a regular expression, and is compared as text: it stands for itself"
                    );
                    Some(Fault(catalogue::REGEX, message, String::new()))
                }
                "methods" if has_literal_star(value) => {
                    let message = format!("{value:?} has a star that is no wildcard and stands for itself");
                    Some(Fault(catalogue::LITERAL_STAR, message, String::new()))
                }
                "methods" | "" => None,
                name => fault(survey, name, value),
            };
            if let Some(Fault(code, message, fix)) = found {
                let field = format!("{path}.{list}[{index}]");
                findings.push(Finding::of(code, &policy.meta, field, message).fix(fix));
            }
        }
    }
    if !condition.values.is_empty()
        && condition.values.iter().all(|value| condition.not_values.contains(value))
    {
        let message = "Never matches: notValues excludes everything that values names".to_owned();
        findings.push(Finding::of(
            catalogue::CONTRADICTION,
            &policy.meta,
            format!("{path}.notValues"),
            message,
        ));
    }
    let may_be_absent =
        condition.key.starts_with("request.headers") || condition.key.starts_with("request.auth.");
    if policy.action == Action::Allow && may_be_absent && condition.values.is_empty() {
        let message = format!(
            "Also holds for requests without {}: a test of what is not there is false, and its negation true",
            condition.key
        );
        let fix = format!(
            "- key: {}\n  values: [\"*\"]\n  notValues: [{}]",
            condition.key,
            condition.not_values.iter().map(|it| quoted(it)).collect::<Vec<_>>().join(", ")
        );
        findings.push(
            Finding::of(catalogue::ABSENT_HOLDS, &policy.meta, format!("{path}.notValues"), message).fix(fix),
        );
    }
}

/// Conditions are ANDed; two that ask one thing for different values exclude each other. Headers and claims
/// may have several values at once and are left out.
fn opposed_conditions(
    policy: &AuthorizationPolicy,
    rule: usize,
    conditions: &[Condition],
) -> Option<Finding> {
    let form = |key: &str| match key {
        "source.ip" | "remote.ip" | "destination.ip" => Some(Form::Address),
        "source.principal" | "connection.sni" | "source.trustDomain" => Some(Form::Text),
        "source.namespace" => Some(Form::Glob),
        "destination.port" => Some(Form::Literal),
        _ => None,
    };
    for (later, right) in conditions.iter().enumerate() {
        let Some(form) = form(&right.key) else { continue };
        for (earlier, left) in conditions[..later].iter().enumerate() {
            let excludes =
                |left: &String| right.values.iter().all(|right| cover::disjoint(form, left, right));
            let is_opposed = left.key == right.key
                && !left.values.is_empty()
                && !right.values.is_empty()
                && left.values.iter().all(excludes);
            if is_opposed {
                let path = format!("spec.rules[{rule}].when");
                let message = format!(
                    "Never matches: conditions are ANDed, and ⟨{path}[{earlier}]⟩ asks for another {}",
                    right.key
                );
                return Some(
                    Finding::of(catalogue::CONTRADICTION, &policy.meta, format!("{path}[{later}]"), message)
                        .hint("Put the values into one condition to mean any of them."),
                );
            }
        }
    }
    None
}
