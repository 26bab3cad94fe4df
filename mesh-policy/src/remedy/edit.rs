//! One edit of one policy: what it changes, how it is made, and how it is told.

use std::fmt;
use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, ObjectRef, Operation, Origin, Rule, Selector, Source};

use super::policy_of;

/// A list in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `from[entry].source.field`.
    Source {
        /// Position of the rule.
        rule: usize,
        /// Position of the source.
        entry: usize,
        /// Name of the list.
        field: String,
    },
    /// `to[entry].operation.field`.
    Operation {
        /// Position of the rule.
        rule: usize,
        /// Position of the operation.
        entry: usize,
        /// Name of the list.
        field: String,
    },
    /// `values` or `notValues` of the condition with this key.
    Condition {
        /// Position of the rule.
        rule: usize,
        /// Key of the condition.
        key: String,
        /// Whether `notValues`.
        excludes: bool,
    },
}

impl Place {
    /// Path of the field in the document.
    pub(super) fn path(&self, rule: usize) -> String {
        match self {
            Self::Source { entry, field, .. } => format!("spec.rules[{rule}].from[{entry}].source.{field}"),
            Self::Operation { entry, field, .. } => {
                format!("spec.rules[{rule}].to[{entry}].operation.{field}")
            }
            Self::Condition { key, excludes, .. } => {
                let list = if *excludes { "notValues" } else { "values" };
                format!("spec.rules[{rule}].when, key {key}, {list}")
            }
        }
    }

    /// The list itself.
    fn list<'p>(&self, policy: &'p mut AuthorizationPolicy) -> Option<&'p mut Vec<String>> {
        match self {
            Self::Source { rule, entry, field } => {
                source_list(policy.rules.get_mut(*rule)?.from.get_mut(*entry)?, field)
            }
            Self::Operation { rule, entry, field } => {
                operation_list(policy.rules.get_mut(*rule)?.to.get_mut(*entry)?, field)
            }
            Self::Condition { rule, key, excludes } => {
                let mut conditions = policy.rules.get_mut(*rule)?.when.iter_mut();
                let condition = conditions.find(|condition| {
                    let list = if *excludes { &condition.not_values } else { &condition.values };
                    condition.key.eq_ignore_ascii_case(key) && !list.is_empty()
                })?;
                Some(if *excludes { &mut condition.not_values } else { &mut condition.values })
            }
        }
    }
}

/// What an edit does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a value to a list.
    Add {
        /// The list.
        place: Place,
        /// The value.
        value: String,
    },
    /// Takes values out of a list that excludes.
    Remove {
        /// The list.
        place: Place,
        /// The values.
        values: Vec<String>,
    },
    /// Excepts a caller from a rule.
    Except {
        /// Position of the rule.
        rule: usize,
        /// Its sources that match; empty when it has none, and then it gets one.
        sources: Vec<usize>,
        /// `notPrincipals` or `notIpBlocks`.
        field: String,
        /// The caller.
        value: String,
    },
    /// Adds a policy of one rule.
    AddPolicy {
        /// Its action.
        action: Action,
        /// Whom it selects.
        selector: Selector,
        /// Its rule.
        rule: Rule,
    },
}

impl Change {
    pub(super) fn place(&self) -> Option<&Place> {
        match self {
            Self::Add { place, .. } | Self::Remove { place, .. } => Some(place),
            Self::Except { .. } | Self::AddPolicy { .. } => None,
        }
    }
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The policy.
    pub policy: ObjectRef,
    /// Where it stands; empty for a policy that is added.
    pub origin: Origin,
    /// The field; empty for a policy that is added.
    pub field: String,
    /// What changes.
    pub change: Change,
}

impl Edit {
    /// Makes the edit on a set of policies.
    pub(super) fn make(&self, policies: &mut Vec<Arc<AuthorizationPolicy>>) {
        if let Change::AddPolicy { action, selector, rule } = &self.change {
            policies.push(Arc::new(policy_of(&self.policy, *action, selector, rule)));
            return;
        }
        let Some(policy) = policies.iter_mut().find(|policy| policy.meta.object == self.policy) else {
            return;
        };
        let policy = Arc::make_mut(policy);
        match &self.change {
            Change::Add { place, value } => {
                if let Some(list) = place.list(policy) {
                    list.push(value.clone());
                }
            }
            Change::Remove { place, values } => {
                if let Some(list) = place.list(policy) {
                    list.retain(|value| !values.contains(value));
                }
                tidy(policy);
            }
            Change::Except { rule, sources, field, value } => {
                let Some(rule) = policy.rules.get_mut(*rule) else { return };
                if rule.from.is_empty() {
                    rule.from.push(Source::default());
                }
                let all = sources.is_empty();
                let matching =
                    rule.from.iter_mut().enumerate().filter(|(index, _)| all || sources.contains(index));
                for (_, source) in matching {
                    if let Some(list) = source_list(source, field) {
                        list.push(value.clone());
                    }
                }
            }
            Change::AddPolicy { .. } => {}
        }
    }
}

/// An entry whose last list was emptied means any, and is not written.
fn tidy(policy: &mut AuthorizationPolicy) {
    for rule in &mut policy.rules {
        if rule.from.contains(&Source::default()) {
            rule.from.clear();
        }
        if rule.to.contains(&Operation::default()) {
            rule.to.clear();
        }
        rule.when.retain(|condition| !condition.values.is_empty() || !condition.not_values.is_empty());
    }
}

fn source_list<'s>(source: &'s mut Source, field: &str) -> Option<&'s mut Vec<String>> {
    Some(match field {
        "principals" => &mut source.principals,
        "notPrincipals" => &mut source.not_principals,
        "requestPrincipals" => &mut source.request_principals,
        "notRequestPrincipals" => &mut source.not_request_principals,
        "namespaces" => &mut source.namespaces,
        "notNamespaces" => &mut source.not_namespaces,
        "serviceAccounts" => &mut source.service_accounts,
        "notServiceAccounts" => &mut source.not_service_accounts,
        "ipBlocks" => &mut source.ip_blocks,
        "notIpBlocks" => &mut source.not_ip_blocks,
        "remoteIpBlocks" => &mut source.remote_ip_blocks,
        "notRemoteIpBlocks" => &mut source.not_remote_ip_blocks,
        "trustDomains" => &mut source.trust_domains,
        "notTrustDomains" => &mut source.not_trust_domains,
        _ => return None,
    })
}

fn operation_list<'o>(operation: &'o mut Operation, field: &str) -> Option<&'o mut Vec<String>> {
    Some(match field {
        "hosts" => &mut operation.hosts,
        "notHosts" => &mut operation.not_hosts,
        "ports" => &mut operation.ports,
        "notPorts" => &mut operation.not_ports,
        "methods" => &mut operation.methods,
        "notMethods" => &mut operation.not_methods,
        "paths" => &mut operation.paths,
        "notPaths" => &mut operation.not_paths,
        _ => return None,
    })
}

fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    values.join(", ")
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>| {
            write!(
                f,
                "{} of AuthorizationPolicy {}/{}",
                self.field, self.policy.namespace, self.policy.name
            )?;
            match self.origin.file.is_empty() {
                true => Ok(()),
                false => write!(f, " ({})", self.origin),
            }
        };
        match &self.change {
            Change::Add { value, .. } | Change::Except { value, .. } => {
                write!(f, "add {value:?} to ")?;
                place(f)
            }
            Change::Remove { values, .. } => {
                write!(f, "take {} out of ", quoted(values))?;
                place(f)
            }
            Change::AddPolicy { action, selector, rule } => {
                let action = if *action == Action::Deny { "DENY" } else { "ALLOW" };
                write!(
                    f,
                    "add an AuthorizationPolicy in namespace {}: action {action}",
                    self.policy.namespace
                )?;
                for (key, value) in &selector.match_labels {
                    write!(f, ", selector {key}: {value}")?;
                }
                for source in &rule.from {
                    match source.principals.is_empty() {
                        true => write!(f, ", from ipBlocks {}", quoted(&source.ip_blocks))?,
                        false => write!(f, ", from principals {}", quoted(&source.principals))?,
                    }
                }
                for operation in &rule.to {
                    write!(f, ", to ports {}", quoted(&operation.ports))?;
                    if !operation.methods.is_empty() {
                        write!(f, ", methods {}", quoted(&operation.methods))?;
                    }
                    if !operation.paths.is_empty() {
                        write!(f, ", paths {}", quoted(&operation.paths))?;
                    }
                }
                Ok(())
            }
        }
    }
}
