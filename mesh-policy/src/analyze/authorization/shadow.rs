//! Rules that change nothing, because another one covers them.
//!
//! A rule is covered by one with the same action whose policy selects at least its workloads; an ALLOW rule
//! is also covered by a DENY rule, which always wins. Comparing each with each would take minutes in a mesh
//! of ten thousand: rules are found by a value that whatever covers another must share with it, and the
//! number of comparisons is bounded.

use std::collections::BTreeMap;

use mesh_api::model::{Action, AuthorizationPolicy, Rule};
use mesh_api::name::{Labels, Namespace};

use crate::analyze::catalogue;
use crate::analyze::cover::{self, operation_fields, source_fields};
use crate::analyze::finding::{Finding, Named};
use crate::analyze::survey::Survey;

/// Most comparisons of two rules. A comparison takes well below a microsecond.
const COMPARISONS_MAX: usize = 2_000_000;
/// Selectors with more pairs are compared with those of no pair, one pair, and the same pairs only.
const PAIRS_MAX: usize = 5;

/// A rule: positions of its policy and within it.
type At = (usize, usize);
/// A field with one of its values.
type Anchor<'r> = (&'static str, &'r str);
/// Rules that can only cover others of these workloads, action and provider.
type GroupKey<'r> = (&'r Namespace, Labels, Action, Option<&'r str>);

#[derive(Debug, Default)]
struct Group<'r> {
    /// By a value that a covered rule must have.
    anchored: BTreeMap<Anchor<'r>, Vec<At>>,
    /// Those without such a value.
    broad: Vec<At>,
}

struct Search<'s> {
    policies: Vec<&'s AuthorizationPolicy>,
    groups: BTreeMap<GroupKey<'s>, Group<'s>>,
    left: usize,
}

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let policies: Vec<&AuthorizationPolicy> =
        survey.model.authorization.iter().map(|policy| &**policy).collect();
    let mut search = Search { groups: groups(&policies), policies, left: COMPARISONS_MAX };
    let root = &survey.model.mesh.root_namespace;
    for policy in 0..search.policies.len() {
        for rule in 0..search.policies[policy].rules.len() {
            findings.extend(search.covered((policy, rule), root));
        }
    }
    if search.left == 0 {
        let message =
            format!("Shadowed rules were looked for with {COMPARISONS_MAX} comparisons only; there are more");
        let subject =
            Named { kind: "MeshConfig".to_owned(), namespace: root.to_string(), name: "default".to_owned() };
        findings.push(Finding::about(
            catalogue::INCOMPLETE,
            subject,
            &mesh_api::model::Origin::default(),
            "",
            message,
        ));
    }
}

fn groups<'r>(policies: &[&'r AuthorizationPolicy]) -> BTreeMap<GroupKey<'r>, Group<'r>> {
    let mut frequency: BTreeMap<Anchor<'_>, usize> = BTreeMap::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        for anchors in anchors(rule) {
            anchors.into_iter().for_each(|anchor| *frequency.entry(anchor).or_default() += 1);
        }
    }
    let mut groups: BTreeMap<GroupKey<'_>, Group<'_>> = BTreeMap::new();
    for (position, policy) in policies.iter().enumerate() {
        // A dry-run policy covers nothing, and one for gateways covers nothing of a sidecar.
        if !policy.is_enforced() || !policy.targets.is_empty() {
            continue;
        }
        let key = (
            &policy.meta.object.namespace,
            policy.selector.match_labels.clone(),
            policy.action,
            policy.provider.as_deref(),
        );
        let group = groups.entry(key).or_default();
        for (index, rule) in policy.rules.iter().enumerate() {
            let rarity = |anchors: &Vec<Anchor<'_>>| {
                anchors.iter().map(|anchor| frequency.get(anchor).copied().unwrap_or(0)).max()
            };
            match anchors(rule).into_iter().min_by_key(rarity) {
                Some(anchors) => {
                    for anchor in anchors {
                        group.anchored.entry(anchor).or_default().push((position, index));
                    }
                }
                None => group.broad.push((position, index)),
            }
        }
    }
    groups
}

/// Longest literal by whose beginnings a rule is looked for, in bytes.
const LITERAL_BYTES_MAX: usize = 256;

/// Fields whose values may be prefixes, with the name under which those are kept.
fn prefixed(name: &str) -> Option<&'static str> {
    match name {
        "principals" => Some("principals^"),
        "paths" => Some("paths^"),
        _ => None,
    }
}

/// By what a value is found: itself, or the literal that everything that it matches begins with.
fn anchor<'r>(name: &'static str, value: &'r str) -> Option<Anchor<'r>> {
    let (literal, is_whole) = literal(value);
    match (is_whole, prefixed(name)) {
        (true, _) => Some((name, value)),
        // A suffix says nothing about beginnings.
        (false, Some(_)) if value.starts_with('*') && value.len() > 1 => None,
        (false, Some(name)) => Some((name, literal)),
        (false, None) => None,
    }
}

/// The literal that a pattern begins with, and whether that is all of it.
fn literal(value: &str) -> (&str, bool) {
    if value.starts_with('*') {
        return ("", false);
    }
    match (value.find('{'), value.strip_suffix('*')) {
        (Some(at), _) => (&value[..at], false),
        (None, Some(prefix)) => (prefix, false),
        (None, None) => (value, true),
    }
}

/// The fields of a rule by which a rule that it covers can be found, each with all its values: the covered
/// rule has one of them, or one that begins so, as the first value of its first entry.
fn anchors(rule: &Rule) -> Vec<Vec<Anchor<'_>>> {
    let mut found = Vec::new();
    for field in 0..source_fields(&mesh_api::model::Source::default()).len() {
        found.extend(field_anchors(rule.from.iter().map(|source| source_fields(source)[field]).collect()));
    }
    for field in 0..operation_fields(&mesh_api::model::Operation::default()).len() {
        found.extend(field_anchors(
            rule.to.iter().map(|operation| operation_fields(operation)[field]).collect(),
        ));
    }
    found
}

/// The anchors of one field of all entries; `None` when some entry or value has none.
fn field_anchors(lists: Vec<cover::Field<'_>>) -> Option<Vec<Anchor<'_>>> {
    let is_comparable = |(_, form, values, _): &cover::Field<'_>| {
        !matches!(form, cover::Form::Address | cover::Form::Authority) && !values.is_empty()
    };
    if lists.is_empty() || !lists.iter().all(is_comparable) {
        return None;
    }
    let values =
        lists.into_iter().flat_map(|(name, _, values, _)| values.iter().map(move |value| (name, value)));
    values.map(|(name, value)| anchor(name, value)).collect()
}

/// What a rule that covers `rule` may be found by.
fn lookups(rule: &Rule) -> Vec<Anchor<'_>> {
    let sources = rule.from.first().map(|source| source_fields(source).to_vec()).unwrap_or_default();
    let operations =
        rule.to.first().map(|operation| operation_fields(operation).to_vec()).unwrap_or_default();
    let mut found = Vec::new();
    for (name, _, values, _) in sources.into_iter().chain(operations) {
        let Some(value) = values.first() else { continue };
        found.push((name, value.as_str()));
        if let Some(name) = prefixed(name) {
            let (literal, _) = literal(value);
            let ends =
                (0..=literal.len().min(LITERAL_BYTES_MAX)).filter(|end| literal.is_char_boundary(*end));
            found.extend(ends.map(|end| (name, &literal[..end])));
        }
    }
    found
}

impl Search<'_> {
    /// What covers a rule, if anything does.
    fn covered(&mut self, at: At, root: &Namespace) -> Option<Finding> {
        let policy = self.policies[at.0];
        if !policy.targets.is_empty() || !policy.is_enforced() {
            return None;
        }
        let rule = &policy.rules[at.1];
        let own = &policy.meta.object.namespace;
        let namespaces = if own == root { vec![own] } else { vec![own, root] };
        let mut selectors = subsets(&policy.selector.match_labels);
        selectors.sort_by_key(BTreeMap::len);
        let actions: &[Action] = match policy.action {
            Action::Allow => &[Action::Allow, Action::Deny],
            Action::Deny => &[Action::Deny],
            Action::Audit => &[Action::Audit],
            Action::Custom => &[Action::Custom],
        };
        for action in actions {
            for namespace in &namespaces {
                for selector in &selectors {
                    let provider = policy.provider.as_deref().filter(|_| *action == Action::Custom);
                    let key = (*namespace, selector.clone(), *action, provider);
                    let found = self.within(&key, at, rule);
                    if let Some(wide) = found {
                        return Some(self.finding(wide, at));
                    }
                }
            }
        }
        None
    }

    fn within(&mut self, key: &GroupKey<'_>, at: At, rule: &Rule) -> Option<At> {
        let group = self.groups.get(key)?;
        let anchored = lookups(rule).into_iter().filter_map(|anchor| group.anchored.get(&anchor)).flatten();
        let same_namespace = *key.0 == self.policies[at.0].meta.object.namespace;
        for wide in group.broad.iter().chain(anchored) {
            if *wide == at {
                continue;
            }
            self.left = self.left.checked_sub(1)?;
            let (by, own) = (self.policies[wide.0], self.policies[at.0]);
            let candidate = &by.rules[wide.1];
            // A bare account means one of the policy's own namespace: not comparable across namespaces.
            let is_comparable = same_namespace || !has_bare_account(candidate) && !has_bare_account(rule);
            let is_peer = same_namespace && by.selector == own.selector && by.action == own.action;
            if !is_comparable || !cover::rule(candidate, rule) {
                continue;
            }
            // Of two peers that say the same the later one changes nothing.
            if !is_peer || *wide < at || !cover::rule(rule, candidate) {
                return Some(*wide);
            }
        }
        None
    }

    fn finding(&self, wide: At, at: At) -> Finding {
        let (by, policy) = (self.policies[wide.0], self.policies[at.0]);
        let field = format!("spec.rules[{}]", at.1);
        let place = match by.meta.object == policy.meta.object {
            true => format!("⟨spec.rules[{}]⟩ of the same policy", wide.1),
            false => format!("rules[{}] of {} ({})", wide.1, by.meta.object, by.meta.origin),
        };
        if by.action == policy.action {
            let same = cover::rule(&policy.rules[at.1], &by.rules[wide.1]);
            let how = if same { "says the same" } else { "matches everything that this rule does" };
            let message = format!("Changes nothing: {place} {how}, for the same workloads");
            return Finding::of(catalogue::SHADOWED, &policy.meta, field, message);
        }
        let message = format!(
            "Never lets anything pass: {place} denies everything that this rule matches, and DENY wins"
        );
        Finding::of(catalogue::NEVER_ALLOWED, &policy.meta, field, message)
    }
}

fn has_bare_account(rule: &Rule) -> bool {
    let is_bare = |account: &String| !account.contains('/');
    rule.from
        .iter()
        .any(|source| source.service_accounts.iter().chain(&source.not_service_accounts).any(is_bare))
        || rule.when.iter().any(|condition| {
            condition.key == "source.serviceAccount"
                && condition.values.iter().chain(&condition.not_values).any(is_bare)
        })
}

/// The selectors that select at least what `labels` does.
fn subsets(labels: &Labels) -> Vec<Labels> {
    let pairs: Vec<(&String, &String)> = labels.iter().collect();
    let owned = |pair: &(&String, &String)| (pair.0.clone(), pair.1.clone());
    if pairs.len() > PAIRS_MAX {
        let single = pairs.iter().map(|pair| Labels::from([owned(pair)]));
        return [Labels::new(), labels.clone()].into_iter().chain(single).collect();
    }
    (0..1_usize << pairs.len())
        .map(|mask| {
            let chosen = pairs.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1);
            chosen.map(|(_, pair)| owned(pair)).collect()
        })
        .collect()
}
