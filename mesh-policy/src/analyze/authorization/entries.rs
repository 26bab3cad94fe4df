//! Entries of lists: a dash too many, exclusions that cancel each other, and rules as YAML.

use mesh_api::model::{Action, AuthorizationPolicy, Operation, Rule, Source};

use crate::analyze::catalogue;
use crate::analyze::cover::{self, Field, operation_fields, source_fields};
use crate::analyze::finding::Finding;

pub(super) fn check(policy: &AuthorizationPolicy, findings: &mut Vec<Finding>) {
    for (index, pair) in policy.rules.windows(2).enumerate() {
        let [first, second] = pair else { continue };
        findings.extend(split_rule(policy, index, first, second));
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        for (position, pair) in rule.to.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            findings.extend(split_operation(policy, &path, position, (first, second)));
        }
        for (position, pair) in rule.from.windows(2).enumerate() {
            let [first, second] = pair else { continue };
            findings.extend(split_source(policy, &path, position, (first, second)));
        }
        let operations: Vec<_> = rule.to.iter().map(|it| operation_fields(it).to_vec()).collect();
        findings.extend(complements(policy, &format!("{path}.to"), "operation", &operations));
        let sources: Vec<_> = rule.from.iter().map(|it| source_fields(it).to_vec()).collect();
        findings.extend(complements(policy, &format!("{path}.from"), "source", &sources));
    }
    findings.extend(rule_complements(policy));
}

fn asks_for_token(rule: &Rule) -> bool {
    rule.from.iter().any(|source| !source.request_principals.is_empty())
        || rule.when.iter().any(|it| it.key.starts_with("request.auth.") && !it.values.is_empty())
}

/// Paths that are excepted from a rule that asks for a token, and then allowed by none.
fn excepted(
    policy: &AuthorizationPolicy,
    index: usize,
    rule: &Rule,
    allowed: &dyn Fn(&str) -> bool,
) -> Option<Finding> {
    if policy.action != Action::Allow || !asks_for_token(rule) {
        return None;
    }
    let (position, operation) =
        rule.to.iter().enumerate().find(|(_, it)| it.paths.is_empty() && !it.not_paths.is_empty())?;
    let path = operation.not_paths.iter().find(|path| !allowed(path))?;
    let message = format!(
        "Requests to {path:?} are denied: what an ALLOW rule excludes has to be allowed by another one, and none does"
    );
    let field = format!("spec.rules[{index}].to[{position}].operation.notPaths");
    let fix = format!("- to:\n  - operation:\n      paths: {}", list(&operation.not_paths));
    Some(Finding::of(catalogue::EXCLUDED_FROM_ALLOW, &policy.meta, field, message).fix(fix))
}

/// Rules that except paths, held against every other ALLOW policy that may be for the same workloads.
pub(super) fn check_exceptions(
    policies: &[std::sync::Arc<AuthorizationPolicy>],
    root: &mesh_api::name::Namespace,
    findings: &mut Vec<Finding>,
) {
    for policy in policies {
        let own = &policy.meta.object.namespace;
        let allowed = |path: &str| {
            let reach = policies.iter().filter(|it| it.action == Action::Allow && it.is_enforced());
            let mut reach = reach.filter(|it| {
                it.meta.object.namespace == *own || it.meta.object.namespace == *root || own == root
            });
            reach.any(|it| {
                it.rules.iter().any(|rule| {
                    let takes = |operation: &Operation| {
                        operation.paths.iter().any(|value| cover::value(cover::Form::Path, value, path))
                            || operation.paths.is_empty()
                                && !operation
                                    .not_paths
                                    .iter()
                                    .any(|not| cover::value(cover::Form::Path, not, path))
                    };
                    !asks_for_token(rule) && (rule.to.is_empty() || rule.to.iter().any(takes))
                })
            })
        };
        for (index, rule) in policy.rules.iter().enumerate() {
            findings.extend(excepted(policy, index, rule, &allowed));
        }
    }
}

/// Which parts a rule has.
fn parts(rule: &Rule) -> [bool; 3] {
    [!rule.from.is_empty(), !rule.to.is_empty(), !rule.when.is_empty()]
}

fn words(parts: [bool; 3]) -> String {
    let names = ["`from`", "`to`", "`when`"].into_iter().zip(parts);
    names.filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect::<Vec<_>>().join(" and ")
}

/// Two neighbours of which one says who and the other what: the classic stray dash.
fn split_rule(policy: &AuthorizationPolicy, index: usize, first: &Rule, second: &Rule) -> Option<Finding> {
    let (a, b) = (parts(first), parts(second));
    let is_some = |parts: [bool; 3]| parts.contains(&true);
    let is_disjoint = a.iter().zip(b).all(|(a, b)| !(*a && b));
    // Two complete rules are no split; neither are two rules that only ask for conditions.
    let is_order_kept = a.iter().rposition(|it| *it) < b.iter().position(|it| *it);
    if !is_some(a) || !is_some(b) || !is_disjoint || !is_order_kept {
        return None;
    }
    let effect = match policy.action {
        Action::Allow if a[0] => {
            "whoever matches the first may do anything, and anybody may do what the second says"
        }
        Action::Allow => "either alone lets a request pass",
        Action::Deny => "either alone denies a request, so that more is denied than the two together would",
        Action::Custom => "either alone has the authorizer asked",
        Action::Audit => "either alone records a request",
    };
    let message = format!(
        "⟨spec.rules[{index}]⟩ has only {}, ⟨spec.rules[{}]⟩ only {}: as two entries of the list they are ORed, and {effect}",
        words(a),
        index + 1,
        words(b)
    );
    let joined = Rule {
        from: [first.from.clone(), second.from.clone()].concat(),
        to: [first.to.clone(), second.to.clone()].concat(),
        when: [first.when.clone(), second.when.clone()].concat(),
    };
    let hint = format!(
        "If both are to be required, remove the dash before {}, so that they are one rule:",
        words(b)
    );
    let field = format!("spec.rules[{}]", index + 1);
    Some(Finding::of(catalogue::STRAY_DASH, &policy.meta, field, message).hint(hint).fix(yaml(&joined)))
}

/// `- operation: {methods}` and `- operation: {paths}`.
fn split_operation(
    policy: &AuthorizationPolicy,
    path: &str,
    position: usize,
    (first, second): (&Operation, &Operation),
) -> Option<Finding> {
    let (a, b) = (stated(&operation_fields(first)), stated(&operation_fields(second)));
    let is_split = |one: &[&str], other: &[&str]| {
        other == ["paths"]
            && !one.is_empty()
            && one.iter().all(|field| ["methods", "ports", "hosts"].contains(field))
    };
    if !is_split(&a, &b) && !is_split(&b, &a) {
        return None;
    }
    let effect = match policy.action {
        Action::Allow => "lets",
        Action::Deny => "denies",
        Action::Audit | Action::Custom => "takes",
    };
    let message = format!(
        "⟨{path}.to[{position}]⟩ states only {}, ⟨{path}.to[{}]⟩ only {}: as two entries they are ORed, and the rule {effect} either",
        a.join(" and "),
        position + 1,
        b.join(" and ")
    );
    let joined = Operation {
        hosts: [first.hosts.clone(), second.hosts.clone()].concat(),
        ports: [first.ports.clone(), second.ports.clone()].concat(),
        methods: [first.methods.clone(), second.methods.clone()].concat(),
        paths: [first.paths.clone(), second.paths.clone()].concat(),
        ..Operation::default()
    };
    let joined = Rule { to: vec![joined], ..Rule::default() };
    let field = format!("{path}.to[{}]", position + 1);
    Some(
        Finding::of(catalogue::STRAY_DASH, &policy.meta, field, message)
            .hint("If both are to be required, write one operation:")
            .fix(yaml(&joined)),
    )
}

/// A source that names callers, and a next one that only excludes some: the second takes everybody else.
fn split_source(
    policy: &AuthorizationPolicy,
    path: &str,
    position: usize,
    (first, second): (&Source, &Source),
) -> Option<Finding> {
    let has = |fields: &[Field<'_>], positive: bool| {
        fields.iter().any(|(.., values, not)| if positive { !values.is_empty() } else { !not.is_empty() })
    };
    let (a, b) = (source_fields(first), source_fields(second));
    let names = |fields: &[Field<'_>]| has(fields, true) && !has(fields, false);
    let excludes = |fields: &[Field<'_>]| has(fields, false) && !has(fields, true);
    let (namer, excluder) = match (names(&a) && excludes(&b), excludes(&a) && names(&b)) {
        (true, _) => (position, position + 1),
        (_, true) => (position + 1, position),
        (false, false) => return None,
    };
    if policy.action != Action::Allow {
        return None;
    }
    let message = format!(
        "⟨{path}.from[{namer}]⟩ names callers, ⟨{path}.from[{excluder}]⟩ only excludes some: as two entries they are ORed, \
         and the second lets everybody else in"
    );
    let field = format!("{path}.from[{}]", position + 1);
    let hint = "To except some of those that are named, put both lists into one source.";
    Some(Finding::of(catalogue::STRAY_DASH, &policy.meta, field, message).hint(hint))
}

fn stated(fields: &[Field<'_>]) -> Vec<&'static str> {
    fields
        .iter()
        .filter(|(.., values, not)| !values.is_empty() && not.is_empty())
        .map(|(name, ..)| *name)
        .collect()
}

/// The one list of an entry, if it has nothing but one list of exclusions.
fn only_exclusion<'e, 'r>(entry: &'e [Field<'r>]) -> Option<&'e Field<'r>> {
    let mut used = entry.iter().filter(|(.., values, not)| !values.is_empty() || !not.is_empty());
    match (used.next(), used.next()) {
        (Some(field), None) if field.2.is_empty() => Some(field),
        _ => None,
    }
}

/// Whether two entries, each with nothing but exclusions of one field, hold for everything together.
fn is_everything(left: &Field<'_>, right: &Field<'_>) -> bool {
    left.0 == right.0
        && left
            .3
            .iter()
            .all(|left_value| right.3.iter().all(|right| cover::disjoint(left.1, left_value, right)))
}

fn complements(
    policy: &AuthorizationPolicy,
    path: &str,
    part: &str,
    entries: &[Vec<Field<'_>>],
) -> Option<Finding> {
    for (later, right) in entries.iter().enumerate() {
        let Some(right) = only_exclusion(right) else { continue };
        for (earlier, left) in entries[..later].iter().enumerate() {
            let Some(left) = only_exclusion(left) else { continue };
            if is_everything(left, right) {
                let field = format!("{path}[{later}].{part}.{}", negative(left.0));
                let message = format!(
                    "⟨{path}[{earlier}]⟩ and this one are ORed, and exclude different {}: together they hold for every request",
                    left.0
                );
                let both: Vec<_> = left.3.iter().chain(right.3).cloned().collect();
                let fix = format!("{}: {}", negative(left.0), list(&both));
                return Some(Finding::of(catalogue::COMPLEMENTS, &policy.meta, field, message).fix(fix));
            }
        }
    }
    None
}

/// A field, its form, and what is excluded of it.
type Exclusion = (&'static str, cover::Form, Vec<String>);

/// The same across rules that have one entry each and nothing else.
fn rule_complements(policy: &AuthorizationPolicy) -> Option<Finding> {
    let single = |rule: &Rule| match (rule.from.as_slice(), rule.to.as_slice(), rule.when.is_empty()) {
        ([source], [], true) => {
            only_exclusion(&source_fields(source)).map(|field| (field.0, field.1, field.3.to_vec()))
        }
        ([], [operation], true) => {
            only_exclusion(&operation_fields(operation)).map(|field| (field.0, field.1, field.3.to_vec()))
        }
        _ => None,
    };
    // Few rules have this form; the first of each field is enough to be held against the others.
    let mut seen: Vec<(usize, Exclusion)> = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let Some((name, form, values)) = single(rule) else { continue };
        let opposite = seen.iter().find(|(_, (other, _, excluded))| {
            is_everything(&(*other, form, &[], excluded), &(name, form, &[], &values))
        });
        if let Some((earlier, _)) = opposite {
            let message = format!(
                "⟨spec.rules[{earlier}]⟩ and this one are ORed, and exclude different {name}: together they hold for every request"
            );
            let field = format!("spec.rules[{index}]");
            return Some(Finding::of(catalogue::COMPLEMENTS, &policy.meta, field, message));
        }
        if seen.len() < 16 {
            seen.push((index, (name, form, values)));
        }
    }
    None
}

/// The name of a field's twin.
pub(super) fn negative(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    format!("not{}{rest}", first.to_ascii_uppercase())
}

fn list(values: &[String]) -> String {
    let values: Vec<String> =
        values.iter().map(|value| serde_json::Value::from(value.as_str()).to_string()).collect();
    format!("[{}]", values.join(", "))
}

/// A rule as a person would write it.
pub(super) fn yaml(rule: &Rule) -> String {
    let mut lines = vec!["rules:".to_owned()];
    let mut dash = "- ";
    let mut part = |name: &str, entries: Vec<Vec<String>>| {
        if entries.is_empty() {
            return;
        }
        lines.push(format!("{dash}{name}:"));
        dash = "  ";
        for entry in entries {
            for (index, line) in entry.iter().enumerate() {
                lines.push(format!("  {}{line}", if index == 0 { "- " } else { "  " }));
            }
        }
    };
    let fields = |kind: &str, fields: &[Field<'_>]| {
        let mut entry = vec![format!("{kind}:")];
        for (name, _, values, not) in fields {
            for (name, values) in [((*name).to_owned(), values), (negative(name), not)] {
                if !values.is_empty() {
                    entry.push(format!("  {name}: {}", list(values)));
                }
            }
        }
        entry
    };
    part("from", rule.from.iter().map(|it| fields("source", &source_fields(it))).collect());
    part("to", rule.to.iter().map(|it| fields("operation", &operation_fields(it))).collect());
    let conditions = rule.when.iter().map(|condition| {
        let mut entry = vec![format!("key: {}", condition.key)];
        for (name, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
            if !values.is_empty() {
                entry.push(format!("{name}: {}", list(values)));
            }
        }
        entry
    });
    part("when", conditions.collect());
    lines.join("\n")
}
