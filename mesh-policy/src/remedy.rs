//! The smallest edit that would change what becomes of a request.
//!
//! Candidates come from the account of the decision: what the rule that came closest still lacks, what a DENY
//! rule would have to except, or a rule for just this request. A candidate is offered only when the request,
//! judged again with the edit made, is decided otherwise; so an edit is never a guess. Not every refusal ends
//! by an edit: a token that has expired, or a caller without identity, is told in words.

mod edit;

use std::sync::Arc;

use mesh_api::model::{
    Action, AuthorizationPolicy, Kind, ObjectMeta, ObjectRef, Operation, Origin, Rule, Selector, Source,
};
use mesh_api::name::{Labels, ObjectName};
use mesh_api::policy_test::{Request, Traffic, Verdict};

pub use edit::{Change, Edit};

use crate::authorize::{
    ClauseExplanation, EntryExplanation, Explanation, PolicyExplanation, RuleExplanation,
};
use crate::judge::{Judge, Judgement, Policies, Stage};
use crate::select::Subject;
use edit::Place;
use mesh_api::model::MeshSettings;

/// Candidates that are tried, the smallest first.
const CANDIDATES_MAX: usize = 8;
/// DENY rules that one answer makes exceptions of.
const DENIES_MAX: usize = 8;

/// What would change a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remedy {
    /// Edits that change it together; empty when none does.
    pub edits: Vec<Edit>,
    /// What no edit of a policy does, in words.
    pub advice: Vec<String>,
}

/// A request and everything that judges it.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// The workload that is called.
    pub subject: Subject<'a>,
    /// All policies.
    pub policies: &'a Policies,
    /// The request.
    pub request: &'a Request,
    /// Seconds of the Unix epoch.
    pub now: i64,
}

impl Case<'_> {
    fn judged_with(&self, authorization: &[Arc<AuthorizationPolicy>]) -> Judgement {
        let policies = Policies { authorization: authorization.to_vec(), ..self.policies.clone() };
        Judge::compile(self.mesh, &self.subject, &policies).explain(self.request, self.now)
    }
}

/// Finds the smallest edit that turns the verdict of `judgement`, which must be explained.
#[must_use]
pub fn remedy(case: &Case<'_>, judgement: &Judgement) -> Remedy {
    if judgement.decision == Verdict::Allow {
        return Remedy { edits: refusing(case).into_iter().collect(), advice: Vec::new() };
    }
    let told = |advice: &str| Remedy { edits: Vec::new(), advice: vec![advice.to_owned()] };
    match judgement.stage {
        Stage::MutualTls => told(
            "The caller has to come through the mesh (with a proxy of its own), or a PeerAuthentication has to \
             set this port to PERMISSIVE.",
        ),
        Stage::Codec => told("The request has to be one that every proxy reads in the same way."),
        Stage::Authentication => told(
            "The caller has to send a token that this RequestAuthentication accepts, or none: then policies \
             decide without one.",
        ),
        Stage::External => told("The external authorizer decides about this request; ask whoever runs it."),
        Stage::Authorization => admitting(case, judgement),
    }
}

/// An edit that refuses what is allowed: a DENY for just this request.
fn refusing(case: &Case<'_>) -> Option<Edit> {
    let edit = Edit {
        policy: new_policy(case, "deny-this"),
        origin: Origin::default(),
        field: String::new(),
        change: Change::AddPolicy {
            action: Action::Deny,
            selector: selector(case),
            rule: rule_for(case.request),
        },
    };
    let mut authorization = case.policies.authorization.clone();
    edit.make(&mut authorization);
    (case.judged_with(&authorization).decision == Verdict::Deny).then_some(edit)
}

/// Edits that admit what is refused: exceptions of the DENY rules that match, then what an ALLOW rule lacks.
fn admitting(case: &Case<'_>, judgement: &Judgement) -> Remedy {
    let mut remedy = Remedy::default();
    let mut authorization = case.policies.authorization.clone();
    let mut judgement = judgement.clone();
    for _ in 0..DENIES_MAX {
        let Some(denying) = matching_deny(judgement.explanation.as_ref()) else { break };
        let Some(edit) = exception(case.request, &denying) else {
            remedy
                .advice
                .push(format!("{} refuses everyone: no exception can be made for this caller.", denying.id));
            return Remedy { edits: Vec::new(), ..remedy };
        };
        edit.make(&mut authorization);
        remedy.edits.push(edit);
        judgement = case.judged_with(&authorization);
    }
    if judgement.decision == Verdict::Allow {
        return remedy;
    }
    let Some(explanation) = &judgement.explanation else { return Remedy { edits: Vec::new(), ..remedy } };
    remedy.advice.extend(lacking(explanation));
    let mut candidates = candidates(explanation);
    candidates.sort_by_key(Vec::len);
    candidates.truncate(CANDIDATES_MAX);
    candidates.push(vec![Edit {
        policy: new_policy(case, "allow-this"),
        origin: Origin::default(),
        field: String::new(),
        change: Change::AddPolicy {
            action: Action::Allow,
            selector: selector(case),
            rule: rule_for(case.request),
        },
    }]);
    for edits in candidates {
        let mut edited = authorization.clone();
        edits.iter().for_each(|edit| edit.make(&mut edited));
        if case.judged_with(&edited).decision == Verdict::Allow {
            remedy.edits.extend(edits);
            return remedy;
        }
    }
    Remedy { edits: Vec::new(), ..remedy }
}

/// A rule of an enforced DENY policy that matches.
#[derive(Debug)]
struct Denying {
    id: String,
    policy: ObjectRef,
    origin: Origin,
    rule: usize,
    /// The sources that match; none when the rule states none.
    sources: Vec<usize>,
}

fn matching_deny(explanation: Option<&Explanation>) -> Option<Denying> {
    let enforced = |policy: &&PolicyExplanation| policy.action == Action::Deny && !policy.dry_run;
    explanation?.policies.iter().filter(enforced).find_map(|policy| {
        let rule = policy.rules.iter().find(|rule| rule.matched)?;
        let matched = rule.from.iter().enumerate().filter(|(_, source)| source.matched);
        Some(Denying {
            id: rule.id.clone(),
            policy: policy.policy.clone(),
            origin: policy.origin.clone(),
            rule: rule.index as usize,
            sources: matched.map(|(index, _)| index).collect(),
        })
    })
}

/// Excepts the caller from a DENY rule.
fn exception(request: &Request, denying: &Denying) -> Option<Edit> {
    let (field, value) = match &request.principal {
        Some(principal) => ("notPrincipals", principal.principal().to_owned()),
        None => ("notIpBlocks", request.source_ip.to_string()),
    };
    let place = match denying.sources.is_empty() {
        true => "from[0].source".to_owned(),
        false => {
            let places: Vec<String> =
                denying.sources.iter().map(|index| format!("from[{index}].source")).collect();
            places.join(" and ")
        }
    };
    Some(Edit {
        policy: denying.policy.clone(),
        origin: denying.origin.clone(),
        field: format!("spec.rules[{}].{place}.{field}", denying.rule),
        change: Change::Except {
            rule: denying.rule,
            sources: denying.sources.clone(),
            field: field.to_owned(),
            value,
        },
    })
}

/// What a caller lacks that no edit of a list can give.
fn lacking(explanation: &Explanation) -> Vec<String> {
    let Some(nearest) = &explanation.nearest_miss else { return Vec::new() };
    let absent = nearest.unmet.iter().filter(|clause| !clause.excludes && clause.found.is_empty());
    absent
        .map(|clause| match clause.attribute.as_str() {
            "source.principal" | "source.namespace" | "source.serviceAccount" | "source.trustDomain" => format!(
                "{} tests {}, and the caller has no identity: it has to come through the mesh.",
                nearest.id, clause.field
            ),
            "request.auth.principal" => format!(
                "{} tests {}, and no token was accepted: the caller has to send one, and a RequestAuthentication \
                 has to accept it.",
                nearest.id, clause.field
            ),
            attribute => format!("{} tests {attribute}, which this request does not have.", nearest.id),
        })
        .collect()
}

/// For each enforced ALLOW rule, what it would have to say to match.
fn candidates(explanation: &Explanation) -> Vec<Vec<Edit>> {
    explanation
        .policies
        .iter()
        .filter(|policy| policy.action == Action::Allow && !policy.dry_run)
        .flat_map(|policy| policy.rules.iter().filter_map(|rule| completing(policy, rule)))
        .collect()
}

/// What one rule lacks; `None` when it lacks what no value gives.
fn completing(policy: &PolicyExplanation, rule: &RuleExplanation) -> Option<Vec<Edit>> {
    if rule.not_in_force.is_some() {
        return None;
    }
    let mut edits = Vec::new();
    let edit = |place: Place, clause: &ClauseExplanation| -> Option<Edit> {
        let change = match clause.excludes {
            true => Change::Remove { place, values: clause.expected.clone() },
            false => Change::Add { place, value: clause.found.first()?.clone() },
        };
        Some(Edit {
            policy: policy.policy.clone(),
            origin: policy.origin.clone(),
            field: change.place()?.path(rule.index as usize),
            change,
        })
    };
    let from = best(&rule.from, |entry, field| Place::Source { rule: rule.index as usize, entry, field });
    let to = best(&rule.to, |entry, field| Place::Operation { rule: rule.index as usize, entry, field });
    for (place, clause) in from.into_iter().chain(to) {
        edits.push(edit(place, clause)?);
    }
    for clause in rule.when.iter().filter(|clause| !clause.holds) {
        let place = Place::Condition {
            rule: rule.index as usize,
            key: clause.attribute.clone(),
            excludes: clause.excludes,
        };
        edits.push(edit(place, clause)?);
    }
    Some(edits)
}

/// The clauses that the entry lacks which lacks fewest.
fn best(
    entries: &[EntryExplanation],
    place: impl Fn(usize, String) -> Place,
) -> Vec<(Place, &ClauseExplanation)> {
    let unmet = |(index, entry): (usize, &'_ EntryExplanation)| {
        (index, entry.clauses.iter().filter(|clause| !clause.holds).count())
    };
    let Some((index, _)) = entries.iter().enumerate().map(unmet).min_by_key(|(_, count)| *count) else {
        return Vec::new();
    };
    let unmet = entries[index].clauses.iter().filter(|clause| !clause.holds);
    unmet.map(|clause| (place(index, clause.field.clone()), clause)).collect()
}

fn new_policy(case: &Case<'_>, name: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::AuthorizationPolicy,
        namespace: case.subject.namespace.clone(),
        name: ObjectName::parse(name).expect("a valid constant"),
    }
}

fn selector(case: &Case<'_>) -> Selector {
    let naming = case.subject.labels.get_key_value("app").map(|(key, value)| (key.clone(), value.clone()));
    Selector { match_labels: naming.map_or_else(|| case.subject.labels.clone(), |pair| Labels::from([pair])) }
}

/// A rule that states this request and no other, as far as policies can.
fn rule_for(request: &Request) -> Rule {
    let source = match &request.principal {
        Some(principal) => Source { principals: vec![principal.principal().to_owned()], ..Source::default() },
        None => Source { ip_blocks: vec![request.source_ip.to_string()], ..Source::default() },
    };
    let mut operation = Operation { ports: vec![request.port.to_string()], ..Operation::default() };
    if request.protocol == Traffic::Http {
        operation.methods.push(request.http.method.clone());
        let path = request.http.path.split(['?', '#']).next().unwrap_or_default();
        if !path.is_empty() && !path.contains(['*', '{', '}']) {
            operation.paths.push(path.to_owned());
        }
    }
    Rule { from: vec![source], to: vec![operation], when: Vec::new() }
}

/// A policy of just one rule.
fn policy_of(object: &ObjectRef, action: Action, selector: &Selector, rule: &Rule) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: ObjectMeta {
            object: object.clone(),
            labels: Labels::new(),
            annotations: Labels::new(),
            created: 0,
            origin: Origin::default(),
        },
        selector: selector.clone(),
        targets: Vec::new(),
        action,
        provider: None,
        rules: vec![rule.clone()],
        dry_run: false,
    }
}

#[cfg(test)]
mod tests;
