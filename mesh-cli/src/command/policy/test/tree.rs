//! The account of a judgement as a tree of policies, rules and clauses, in lines.

use mesh_policy::authorize::{
    ClauseExplanation, EntryExplanation, Explanation, PolicyExplanation, RuleExplanation,
};

use crate::output;

/// Most rules that are shown in full; of a big set, those that matched and the one that came closest matter.
const RULES_MAX: usize = 12;

/// Draws the tree. `omitted` rules are not in the explanation.
pub(in crate::command) fn lines(explanation: &Explanation, omitted: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let nearest = explanation.nearest_miss.as_ref().map(|miss| miss.id.as_str());
    let mut room = RULES_MAX;
    let mut hidden = omitted;
    for policy in &explanation.policies {
        let is_shown = |rule: &RuleExplanation| rule.matched || Some(rule.id.as_str()) == nearest;
        let mut body = Vec::new();
        for rule in &policy.rules {
            if is_shown(rule) || room > 0 {
                room = room.saturating_sub(1);
                draw_rule(rule, &mut body);
            } else {
                hidden += 1;
            }
        }
        if !body.is_empty() || policy.rules.is_empty() && omitted == 0 {
            lines.push(head(policy));
            lines.append(&mut body);
        }
    }
    if hidden > 0 {
        lines.push(format!("and {} that do not match", output::count(hidden, "rule", "rules")));
    }
    if explanation.policies.is_empty() {
        lines.push("no AuthorizationPolicy applies to the workload".to_owned());
    }
    lines
}

fn head(policy: &PolicyExplanation) -> String {
    let action = policy.action.as_str();
    let dry_run = if policy.dry_run { ", dry run" } else { "" };
    let outcome = match (policy.rules.is_empty(), policy.matched) {
        (true, _) => "has no rules and matches nothing",
        (false, true) => "matches",
        (false, false) => "does not match",
    };
    format!("{} {action}{dry_run} ({}): {outcome}", policy.policy, policy.origin)
}

fn draw_rule(rule: &RuleExplanation, lines: &mut Vec<String>) {
    let outcome = match &rule.not_in_force {
        Some(reason) => format!("is not in force: {reason}"),
        None if rule.matched => "matches".to_owned(),
        None => "does not match".to_owned(),
    };
    lines.push(format!("  {} rule {} {outcome}", mark(rule.matched), rule.index));
    draw_entries("from", &rule.from, lines);
    draw_entries("to", &rule.to, lines);
    for clause in &rule.when {
        lines.push(format!("    {} when {}", mark(clause.holds), clause_text(clause)));
    }
}

fn draw_entries(name: &str, entries: &[EntryExplanation], lines: &mut Vec<String>) {
    for entry in entries {
        for clause in &entry.clauses {
            lines.push(format!("    {} {name} {}", mark(clause.holds), clause_text(clause)));
        }
    }
}

fn clause_text(clause: &ClauseExplanation) -> String {
    let found = if clause.found.is_empty() {
        "nothing".to_owned()
    } else {
        let found: Vec<String> = clause.found.iter().map(|value| format!("{value:?}")).collect();
        found.join(", ")
    };
    let verb = if clause.excludes { "excludes" } else { "is one of" };
    let expected: Vec<String> = clause.expected.iter().map(|value| format!("{value:?}")).collect();
    format!("{} {verb} {}; {} is {found}", clause.field, expected.join(", "), clause.attribute)
}

fn mark(holds: bool) -> String {
    if holds { output::good("✔") } else { output::bad("✘") }
}
