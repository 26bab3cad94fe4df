//! The least privilege that recorded traffic needs: ALLOW policies that admit all that was seen and nothing
//! else, and what of today's policies nothing that was seen makes use of.
//!
//! Records are grouped by the workload that judged them, callers that do the same share a rule, and paths
//! become templates where they vary ([`paths`](self)). What a record cannot tell (headers, claims of tokens)
//! is taken over from the rule that let the request in, so that a suggestion never drops a demand.

mod paths;
mod today;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::model::{
    AuthorizationPolicy, Condition, MeshSettings, Operation, Origin, Rule, Selector, Source, Workload,
};
use mesh_api::name::{Labels, Namespace};
use mesh_api::traffic_record::{Recorded, TrafficRecord};

use crate::authorize::{Attributes, Authorizer, HeaderList, HttpAttributes};
use crate::select::{self, Subject};
use paths::Patterns;
pub use paths::templated;
use today::Demands;
pub use today::{Unused, Usage};

/// Labels that usually name an application, the best first.
const NAMING_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// What the mesh is today.
#[derive(Debug, Clone, Copy)]
pub struct Today<'a> {
    /// Its settings.
    pub mesh: &'a MeshSettings,
    /// Its workloads: their labels are what a suggestion selects by.
    pub workloads: &'a [Arc<Workload>],
    /// Its AuthorizationPolicies.
    pub policies: &'a [Arc<AuthorizationPolicy>],
}

/// How a suggestion is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// So many path segments beside each other that lead to the same stay words; more become `{*}`.
    pub siblings_max: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self { siblings_max: 16 }
    }
}

/// What is suggested for the workloads that one selector selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggested {
    /// Namespace.
    pub namespace: Namespace,
    /// Name for the policy.
    pub name: String,
    /// Whom it selects.
    pub selector: Selector,
    /// Its rules. Empty when nothing was allowed that a rule can state.
    pub rules: Vec<Rule>,
    /// Records that it was made from.
    pub records: u64,
    /// What its reader should know.
    pub remarks: BTreeSet<String>,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Suggestion {
    /// One policy for each group of workloads that was called.
    pub policies: Vec<Suggested>,
    /// Records of requests that were allowed.
    pub allowed: u64,
    /// Of those, how many the suggestion allows. Fewer than all only for what `remarks` names.
    pub covered: u64,
    /// Of those, how many depend on headers or tokens, which records do not hold.
    pub untold: u64,
    /// Records of requests that were refused: they are not allowed by the suggestion either.
    pub denied: u64,
    /// Workloads that nobody called.
    pub silent: Vec<String>,
    /// Workloads of records that are not among the mesh's: nothing is suggested for them.
    pub unknown: BTreeMap<String, u64>,
    /// Rules of today that no allowed record makes use of.
    pub unused: Vec<Unused>,
    /// Enforced ALLOW policies of today that the suggested ones stand in for.
    pub replaced: Vec<Arc<AuthorizationPolicy>>,
}

/// Suggests the policies that recorded traffic needs: its records, each with how often it was seen.
#[must_use]
pub fn suggest(today: Today<'_>, traffic: &[(TrafficRecord, u64)], manner: Manner) -> Suggestion {
    let mut suggestion = Suggestion::default();
    let mut groups: BTreeMap<(&Namespace, Labels), Group<'_>> = BTreeMap::new();
    for (record, count) in traffic {
        if record.decision == Recorded::Denied {
            suggestion.denied += count;
            continue;
        }
        suggestion.allowed += count;
        match called(today.workloads, record) {
            Some(workload) => {
                let key = (&workload.meta.object.namespace, selecting(workload));
                groups.entry(key).or_insert_with(|| Group::of(workload)).records.push((record, *count));
            }
            None => {
                let name = format!("{} ({})", record.destination, record.workload);
                *suggestion.unknown.entry(name).or_default() += count;
            }
        }
    }
    let mut usage = Usage::of(today.policies);
    for ((namespace, labels), group) in groups {
        let selected = select::authorization(today.mesh, &subject(group.workload), today.policies);
        for (record, _) in &group.records {
            usage.count(today.mesh, &selected, record);
        }
        let mut suggested = group.suggest(namespace, labels, today, manner);
        let (covered, untold) = replay(today.mesh, &suggested, &group);
        suggestion.covered += covered;
        suggestion.untold += untold;
        suggested.records = group.records.iter().map(|(_, count)| count).sum();
        suggestion.policies.push(suggested);
        for policy in selected {
            // One without rules allows nothing, so nothing stands in for it.
            if today::is_enforced_allow(&policy)
                && !policy.rules.is_empty()
                && !suggestion.replaced.iter().any(|known| Arc::ptr_eq(known, &policy))
            {
                suggestion.replaced.push(policy);
            }
        }
    }
    suggestion.silent = silent(today.workloads, &suggestion.policies);
    suggestion.unused = usage.unused();
    suggestion
}

fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.meta.object.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

/// The workload that judged a record: by its name, otherwise the only one with its identity.
fn called<'a>(workloads: &'a [Arc<Workload>], record: &TrafficRecord) -> Option<&'a Workload> {
    let (namespace, account) = record.destination.workload_parts()?;
    let mut with_identity = workloads.iter().map(|workload| &**workload).filter(|workload| {
        workload.meta.object.namespace.as_str() == namespace && workload.service_account.as_str() == account
    });
    let first = with_identity.clone().next()?;
    with_identity
        .find(|workload| workload.meta.object.name.as_str() == record.workload)
        .or_else(|| workloads_alike(workloads, first, account).then_some(first))
}

/// Whether all workloads of an identity would be selected alike, so that it does not matter which it was.
fn workloads_alike(workloads: &[Arc<Workload>], first: &Workload, account: &str) -> bool {
    let labels = selecting(first);
    workloads
        .iter()
        .filter(|workload| {
            workload.meta.object.namespace == first.meta.object.namespace
                && workload.service_account.as_str() == account
        })
        .all(|workload| selecting(workload) == labels)
}

/// Labels that select a workload and its replicas: the one that names its application, otherwise all.
fn selecting(workload: &Workload) -> Labels {
    let naming = NAMING_LABELS.iter().find_map(|name| workload.labels.get_key_value(*name));
    match naming {
        Some((name, value)) => std::iter::once((name.clone(), value.clone())).collect(),
        None => workload.labels.clone(),
    }
}

fn silent(workloads: &[Arc<Workload>], policies: &[Suggested]) -> Vec<String> {
    let is_called = |workload: &Workload| {
        policies.iter().any(|policy| {
            policy.namespace == workload.meta.object.namespace && policy.selector.selects(&workload.labels)
        })
    };
    let silent = workloads.iter().filter(|workload| !is_called(workload));
    silent
        .map(|workload| format!("{}.{}", workload.meta.object.name, workload.meta.object.namespace))
        .collect()
}

/// The records of workloads that are selected alike.
#[derive(Debug)]
struct Group<'a> {
    workload: &'a Workload,
    records: Vec<(&'a TrafficRecord, u64)>,
}

/// Who called, and under which demands that a record does not show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Caller {
    who: Who,
    demands: Demands,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Identity(String),
    /// No identity: the address is all there is.
    Address(IpAddr),
}

/// Methods by port and path pattern; a connection that is not HTTP has neither.
type Seen = BTreeMap<(u16, Option<String>), BTreeSet<String>>;

/// What was called, as one entry of `to` states it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    port: u16,
    /// Empty for a connection that is not HTTP.
    methods: BTreeSet<String>,
    paths: BTreeSet<String>,
}

impl<'a> Group<'a> {
    fn of(workload: &'a Workload) -> Self {
        Self { workload, records: Vec::new() }
    }

    fn suggest(&self, namespace: &Namespace, labels: Labels, today: Today<'_>, manner: Manner) -> Suggested {
        let mut remarks = BTreeSet::new();
        if labels.is_empty() {
            remarks.insert(format!(
                "The workload {} has no labels, so this policy selects its whole namespace.",
                self.workload.meta.object.name
            ));
        }
        let seen = self.records.iter().filter_map(|(record, _)| record.http.as_ref()).map(|http| http.path());
        let patterns = Patterns::of(seen, manner.siblings_max);
        let mut callers: BTreeMap<Caller, Seen> = BTreeMap::new();
        for (record, _) in &self.records {
            let who = match &record.principal {
                Some(principal) => Who::Identity(principal.principal().to_owned()),
                None => {
                    remarks.insert(format!(
                        "{} called without an identity: its address is no proof of who it is.",
                        record.source_ip
                    ));
                    Who::Address(record.source_ip)
                }
            };
            let demands = today::demands(today.policies, &record.policy, &mut remarks);
            let calls = callers.entry(Caller { who, demands }).or_default();
            match &record.http {
                None => {
                    calls.entry((record.address.port(), None)).or_default();
                }
                Some(http) => match patterns.covering(http.path()) {
                    Some(pattern) => {
                        let methods = calls.entry((record.address.port(), Some(pattern))).or_default();
                        methods.insert(http.method.clone());
                    }
                    None => {
                        remarks.insert(format!("No value of `paths` can state {:?} alone.", http.path()));
                    }
                },
            }
        }
        Suggested {
            namespace: namespace.clone(),
            name: format!("{}-allow-seen", name_of(self.workload, &labels)),
            selector: Selector { match_labels: labels },
            rules: rules(callers),
            records: 0,
            remarks,
        }
    }
}

fn name_of(workload: &Workload, labels: &Labels) -> String {
    let name = NAMING_LABELS.iter().find_map(|label| labels.get(*label));
    let name = name.map_or(workload.meta.object.name.as_str(), String::as_str);
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

/// Callers that call the same under the same demands share a rule.
fn rules(callers: BTreeMap<Caller, Seen>) -> Vec<Rule> {
    let mut by_calls: BTreeMap<(Demands, BTreeSet<Call>), Vec<Who>> = BTreeMap::new();
    for (caller, seen) in callers {
        if !seen.is_empty() {
            by_calls.entry((caller.demands, calls(seen))).or_default().push(caller.who);
        }
    }
    by_calls.into_iter().map(|((demands, calls), callers)| rule(&demands, &calls, callers)).collect()
}

fn calls(seen: Seen) -> BTreeSet<Call> {
    let mut by_methods: BTreeMap<(u16, BTreeSet<String>), BTreeSet<String>> = BTreeMap::new();
    for ((port, path), methods) in seen {
        by_methods.entry((port, methods)).or_default().extend(path);
    }
    by_methods.into_iter().map(|((port, methods), paths)| Call { port, methods, paths }).collect()
}

fn rule(demands: &Demands, calls: &BTreeSet<Call>, callers: Vec<Who>) -> Rule {
    let mut named = Source { request_principals: demands.request_principals.clone(), ..Source::default() };
    let mut unnamed = Source { not_principals: vec!["*".to_owned()], ..named.clone() };
    for who in callers {
        match who {
            Who::Identity(principal) => named.principals.push(principal),
            Who::Address(address) => unnamed.ip_blocks.push(address.to_string()),
        }
    }
    let is_used = |source: &Source| !source.principals.is_empty() || !source.ip_blocks.is_empty();
    let to = |call: &Call| Operation {
        ports: vec![call.port.to_string()],
        methods: call.methods.iter().cloned().collect(),
        paths: call.paths.iter().cloned().collect(),
        ..Operation::default()
    };
    let when = demands.when.iter().map(|(key, values, not_values)| Condition {
        key: key.clone(),
        values: values.clone(),
        not_values: not_values.clone(),
    });
    Rule {
        from: [named, unnamed].into_iter().filter(is_used).collect(),
        to: calls.iter().map(to).collect(),
        when: when.collect(),
    }
}

/// How many records the suggestion allows, and how many depend on what records do not hold.
fn replay(mesh: &MeshSettings, suggested: &Suggested, group: &Group<'_>) -> (u64, u64) {
    let policy = |rules: Vec<Rule>| {
        let mut policy = AuthorizationPolicy {
            meta: group.workload.meta.clone(),
            selector: Selector::default(),
            targets: Vec::new(),
            action: mesh_api::model::Action::Allow,
            provider: None,
            rules,
            dry_run: false,
        };
        policy.meta.origin = Origin::default();
        Authorizer::compile(mesh, &[Arc::new(policy)])
    };
    let told = policy(suggested.rules.clone());
    let without_demands = suggested.rules.iter().cloned().map(|mut rule| {
        rule.when.clear();
        rule.from.iter_mut().for_each(|source| source.request_principals.clear());
        rule
    });
    let untold = policy(without_demands.collect());
    let mut counts = (0, 0);
    for (record, count) in &group.records {
        if is_allowed(&told, record) {
            counts.0 += count;
        } else if is_allowed(&untold, record) {
            counts.1 += count;
        }
    }
    counts
}

/// Whether an authorizer allows a record, which holds neither headers nor claims.
fn is_allowed(authorizer: &Authorizer, record: &TrafficRecord) -> bool {
    let headers = HeaderList(&[]);
    let http = record.http.as_ref().map(|http| HttpAttributes {
        method: &http.method,
        authority: &http.authority,
        path: http.path(),
        headers: &headers,
        claims: None,
    });
    let attributes = Attributes {
        peer: record.principal.as_ref(),
        source_ip: record.source_ip,
        remote_ip: record.source_ip,
        destination_ip: record.address.ip(),
        destination_port: record.address.port(),
        sni: record.sni.as_deref(),
        http,
    };
    authorizer.authorize(&attributes).is_allowed()
}

#[cfg(test)]
mod tests;
