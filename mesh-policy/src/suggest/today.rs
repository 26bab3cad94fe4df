//! Today's rules in the light of what was seen: which of them it makes use of, and what they demand beside
//! what a record shows.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, MeshSettings, Rule};
use mesh_api::traffic_record::TrafficRecord;

use super::is_allowed;
use crate::authorize::Authorizer;

/// What a rule demands that a record does not show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Demands {
    /// Of `from`.
    pub(super) request_principals: Vec<String>,
    /// Key, values, excluded values.
    pub(super) when: Vec<(String, Vec<String>, Vec<String>)>,
}

/// Whether records hold nothing that a `when` key could be tested on.
fn is_hidden(key: &str) -> bool {
    key.starts_with("request.headers") || key.starts_with("request.auth") || key.starts_with("experimental.")
}

/// Whether an enforced ALLOW policy.
pub(super) fn is_enforced_allow(policy: &AuthorizationPolicy) -> bool {
    policy.action == Action::Allow && policy.is_enforced()
}

/// What the rule demands that let a request in, named by its id in the record.
pub(super) fn demands(
    policies: &[Arc<AuthorizationPolicy>],
    id: &str,
    remarks: &mut BTreeSet<String>,
) -> Demands {
    let Some(rule) = rule_of(policies, id) else { return Demands::default() };
    let mut demands = Demands::default();
    for condition in rule.when.iter().filter(|condition| is_hidden(&condition.key)) {
        demands.when.push((condition.key.clone(), condition.values.clone(), condition.not_values.clone()));
    }
    // Entries of `from` are alternatives: only what all of them demand is demanded of whoever matched.
    if !rule.from.is_empty() && rule.from.iter().all(|source| !source.request_principals.is_empty()) {
        let all = rule.from.iter().flat_map(|source| source.request_principals.iter().cloned());
        demands.request_principals = all.collect::<BTreeSet<_>>().into_iter().collect();
    } else if rule
        .from
        .iter()
        .any(|source| !source.request_principals.is_empty() || !source.not_request_principals.is_empty())
    {
        remarks.insert(format!("{id} tells some callers apart by their token, and this policy does not."));
    }
    demands
}

/// The rule with an id such as `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`.
fn rule_of<'a>(policies: &'a [Arc<AuthorizationPolicy>], id: &str) -> Option<&'a Rule> {
    let (namespace, rest) = id.strip_prefix("ns[")?.split_once("]-policy[")?;
    let (name, index) = rest.split_once("]-rule[")?;
    let index: usize = index.strip_suffix(']')?.parse().ok()?;
    let policy = policies.iter().find(|policy| {
        policy.meta.object.namespace.as_str() == namespace && policy.meta.object.name.as_str() == name
    })?;
    policy.rules.get(index)
}

/// A rule that no allowed record makes use of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// The policy.
    pub policy: Arc<AuthorizationPolicy>,
    /// Position of the rule.
    pub rule: usize,
}

#[derive(Debug)]
struct Counted {
    policy: Arc<AuthorizationPolicy>,
    rule: usize,
    /// Compiled on first use: the rule alone, without what records do not show.
    alone: Option<Authorizer>,
    is_used: bool,
}

/// Which rules of enforced ALLOW policies records make use of.
#[derive(Debug)]
pub struct Usage {
    rules: Vec<Counted>,
}

impl Usage {
    pub(super) fn of(policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let allows = policies.iter().filter(|policy| is_enforced_allow(policy));
        let rules = allows.flat_map(|policy| {
            (0..policy.rules.len()).map(|rule| Counted {
                policy: Arc::clone(policy),
                rule,
                alone: None,
                is_used: false,
            })
        });
        Self { rules: rules.collect() }
    }

    /// Counts a record for each rule that matches it, not only for the one that was asked first.
    pub(super) fn count(
        &mut self,
        mesh: &MeshSettings,
        selected: &[Arc<AuthorizationPolicy>],
        record: &TrafficRecord,
    ) {
        for counted in self.rules.iter_mut().filter(|counted| !counted.is_used) {
            if !selected.iter().any(|policy| Arc::ptr_eq(policy, &counted.policy)) {
                continue;
            }
            let alone = counted.alone.get_or_insert_with(|| alone(mesh, &counted.policy, counted.rule));
            counted.is_used = is_allowed(alone, record);
        }
    }

    pub(super) fn unused(self) -> Vec<Unused> {
        let unused = self.rules.into_iter().filter(|counted| !counted.is_used);
        unused.map(|counted| Unused { policy: counted.policy, rule: counted.rule }).collect()
    }
}

fn alone(mesh: &MeshSettings, policy: &AuthorizationPolicy, rule: usize) -> Authorizer {
    let mut only = policy.clone();
    only.rules = only.rules.into_iter().skip(rule).take(1).collect();
    for rule in &mut only.rules {
        rule.when.retain(|condition| !is_hidden(&condition.key));
        for source in &mut rule.from {
            source.request_principals.clear();
            source.not_request_principals.clear();
        }
    }
    Authorizer::compile(mesh, &[Arc::new(only)])
}
