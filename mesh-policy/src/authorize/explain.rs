//! Why a request was allowed or refused, as a tree that people and programs read.
//!
//! It evaluates every rule of every policy with the same clauses as the decision, without the index, so a
//! rule that was not reached is shown as well. The verdict is the decision's own. This allocates and walks
//! everything: it is for one request at a time.

use mesh_api::model::{Action, ObjectRef, Origin};
use serde::{Deserialize, Serialize};

use super::attributes::{Attributes, Facts};
use super::clause::Clause;
use super::rule::{Dropped, RuleForm};
use super::{Aside, Authorizer, Decision, DenyReason, DryRunAllow, External, RuleId};

/// The account of one decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the request may pass; as far as an external authorizer has a say, if that lets it pass.
    pub allowed: bool,
    /// The external authorizer that has a say, or why it cannot be asked; absent when no CUSTOM rule matches.
    pub external: Option<ExternalExplanation>,
    /// The verdict in one sentence.
    pub verdict: String,
    /// Policy id of the rule that decided, if one did.
    pub decided_by: Option<String>,
    /// Why it was refused.
    pub deny_reason: Option<DenyReason>,
    /// Policy id of the AUDIT rule that matched.
    pub audit: Option<String>,
    /// Policy id of the dry-run DENY rule that matched.
    pub dry_run_deny: Option<String>,
    /// What the dry-run ALLOW policies say: a policy id, `none` when none of them matched, absent when there
    /// are none or they were not asked.
    pub dry_run_allow: Option<String>,
    /// Whether the request was judged as HTTP.
    pub http: bool,
    /// Every policy, in the order in which they are asked.
    pub policies: Vec<PolicyExplanation>,
    /// For a refusal because no ALLOW rule matched: the enforced rule that failed by fewest clauses.
    pub nearest_miss: Option<NearestMiss>,
}

/// What the CUSTOM policies say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalExplanation {
    /// Policy id of the CUSTOM rule that matched.
    pub rule: String,
    /// The provider that is asked; absent when nobody can be.
    pub provider: Option<String>,
}

/// One policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyExplanation {
    /// Kind, namespace and name.
    pub policy: ObjectRef,
    /// Where it stands.
    pub origin: Origin,
    /// Action.
    pub action: Action,
    /// Evaluated without being enforced.
    pub dry_run: bool,
    /// Whether any rule matched.
    pub matched: bool,
    /// Its rules; a policy without any matches nothing.
    pub rules: Vec<RuleExplanation>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleExplanation {
    /// Policy id, as logs write it.
    pub id: String,
    /// Position in the policy, from 0.
    pub index: u32,
    /// Whether it matched.
    pub matched: bool,
    /// Why the rule is not in force for this request at all.
    pub not_in_force: Option<String>,
    /// Sources, of which one must match; empty means any.
    pub from: Vec<EntryExplanation>,
    /// Operations, of which one must match; empty means any.
    pub to: Vec<EntryExplanation>,
    /// Conditions, which must all hold.
    pub when: Vec<ClauseExplanation>,
}

/// One source or operation: it matches when all of its clauses hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryExplanation {
    /// Whether all clauses hold.
    pub matched: bool,
    /// The clauses.
    pub clauses: Vec<ClauseExplanation>,
}

/// One field of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClauseExplanation {
    /// The field as written, for instance `notPrincipals`.
    pub field: String,
    /// The attribute that it tests, for instance `source.principal`.
    pub attribute: String,
    /// Holds when none of the values matches.
    pub excludes: bool,
    /// Values as written.
    pub expected: Vec<String>,
    /// Value or values of the request; empty when the attribute is absent.
    pub found: Vec<String>,
    /// Whether the clause holds.
    pub holds: bool,
}

/// The ALLOW rule that came closest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NearestMiss {
    /// Policy id of the rule.
    pub id: String,
    /// The policy.
    pub policy: ObjectRef,
    /// Where it stands.
    pub origin: Origin,
    /// The clauses that would have to hold besides those that do.
    pub unmet: Vec<ClauseExplanation>,
}

impl Explanation {
    /// Keeps the rules that match, the one that came closest, and at most `max` others; gives the number of
    /// those left out. So the account of a decision among many rules stays readable, and small.
    pub fn abridge(&mut self, max: usize) -> usize {
        let nearest = self.nearest_miss.as_ref().map(|miss| miss.id.clone());
        let (mut room, mut omitted) = (max, 0);
        for policy in &mut self.policies {
            policy.rules.retain(|rule| {
                let is_kept = rule.matched || Some(&rule.id) == nearest.as_ref() || room > 0;
                room = room.saturating_sub(1);
                omitted += usize::from(!is_kept);
                is_kept
            });
        }
        omitted
    }
}

impl Authorizer {
    /// Explains the decision about one request or connection.
    #[must_use]
    pub fn explain(&self, attributes: &Attributes<'_>) -> Explanation {
        let facts = Facts::of(attributes);
        let external = self.external(attributes);
        let decision = self.decision_after(external, attributes);
        let policies = self.explain_policies(attributes, &facts);
        let aside = decision.aside();
        let deny_reason = match decision {
            Decision::Denied { reason, .. } => Some(reason),
            Decision::Allowed { .. } => None,
        };
        let nearest_miss =
            (deny_reason == Some(DenyReason::NoAllowMatched)).then(|| nearest_miss(&policies)).flatten();
        Explanation {
            allowed: decision.is_allowed(),
            external: match external {
                External::NotAsked => None,
                External::Ask { provider, rule } => Some(ExternalExplanation {
                    rule: self.rule(rule).to_string(),
                    provider: Some(provider.to_owned()),
                }),
                External::Refuse { rule, .. } => {
                    Some(ExternalExplanation { rule: self.rule(rule).to_string(), provider: None })
                }
            },
            verdict: self.verdict(external, decision, nearest_miss.as_ref()),
            decided_by: decision.by().map(|id| self.rule(id).to_string()),
            deny_reason,
            audit: aside.audit.map(|id| self.rule(id).to_string()),
            dry_run_deny: aside.dry_run_deny.map(|id| self.rule(id).to_string()),
            dry_run_allow: match aside.dry_run_allow {
                DryRunAllow::Silent => None,
                DryRunAllow::WouldAllow(id) => Some(self.rule(id).to_string()),
                DryRunAllow::WouldDeny => Some("none".to_owned()),
            },
            http: attributes.http.is_some(),
            policies,
            nearest_miss,
        }
    }

    /// The rules that match, enforced or not, whether they decide or not.
    #[must_use]
    pub fn matching(&self, attributes: &Attributes<'_>) -> Vec<RuleId> {
        let facts = Facts::of(attributes);
        let matches =
            |rule: &super::CompiledRule| rule.form(attributes).is_some_and(|form| form.holds(&facts));
        let rules = (0_u32..).zip(&self.rules);
        rules.filter(|(_, rule)| matches(rule)).map(|(id, _)| RuleId(id)).collect()
    }

    /// A decision in one sentence.
    #[must_use]
    pub fn describe(&self, decision: Decision) -> String {
        self.verdict_of(decision, None)
    }

    fn explain_policies(&self, attributes: &Attributes<'_>, facts: &Facts<'_>) -> Vec<PolicyExplanation> {
        let mut explained: Vec<_> = self
            .policies
            .iter()
            .map(|policy| PolicyExplanation {
                policy: policy.meta.object.clone(),
                origin: policy.meta.origin.clone(),
                action: policy.action,
                dry_run: policy.dry_run,
                matched: false,
                rules: Vec::new(),
            })
            .collect();
        for (rule, id) in self.rules.iter().zip(0_u32..) {
            let form = if attributes.http.is_some() { &rule.forms.http } else { &rule.forms.tcp };
            let empty = RuleForm::default();
            let (shown, not_in_force) = match form {
                Ok(form) => (&**form, None),
                Err(dropped) => (rule.forms.http.as_deref().unwrap_or(&empty), Some(not_in_force(dropped))),
            };
            let matched = form.as_ref().is_ok_and(|form| form.holds(facts));
            let policy = &mut explained[rule.policy as usize];
            policy.matched |= matched;
            policy.rules.push(RuleExplanation {
                id: self.rule(RuleId(id)).to_string(),
                index: rule.index,
                matched,
                not_in_force,
                from: shown.from.iter().map(|clauses| entry(clauses, facts)).collect(),
                to: shown.to.iter().map(|clauses| entry(clauses, facts)).collect(),
                when: shown.when.iter().map(|clause| explain_clause(clause, facts)).collect(),
            });
        }
        explained
    }

    /// The decision, if an authorizer that is asked lets the request pass.
    fn decision_after(&self, external: External<'_>, attributes: &Attributes<'_>) -> Decision {
        match external {
            External::NotAsked | External::Ask { .. } => self.authorize(attributes),
            External::Refuse { rule, reason } => {
                Decision::Denied { by: Some(rule), reason, aside: Aside::default() }
            }
        }
    }

    fn verdict(&self, external: External<'_>, decision: Decision, nearest: Option<&NearestMiss>) -> String {
        let verdict = self.verdict_of(decision, nearest);
        match external {
            External::Ask { provider, .. } if decision.is_allowed() => {
                format!("{verdict}, if the external authorizer {provider} lets it pass")
            }
            External::NotAsked | External::Ask { .. } | External::Refuse { .. } => verdict,
        }
    }

    fn verdict_of(&self, decision: Decision, nearest: Option<&NearestMiss>) -> String {
        match decision {
            Decision::Allowed { by: Some(id), .. } => format!("allowed by {}", self.rule(id)),
            Decision::Allowed { by: None, .. } => {
                "allowed: no ALLOW policy applies to the workload and nothing refuses".to_owned()
            }
            Decision::Denied { by: Some(id), reason, .. } => format!("denied by {}: {reason}", self.rule(id)),
            Decision::Denied { by: None, reason, .. } => match nearest {
                Some(nearest) => format!("denied: {reason}; {} came closest", nearest.id),
                None => format!("denied: {reason}"),
            },
        }
    }
}

fn not_in_force(dropped: &Dropped) -> String {
    match dropped {
        Dropped::NeedsHttp(field) => format!("{field} exists for HTTP only and this traffic is not HTTP"),
        Dropped::Malformed(problem) => problem.clone(),
    }
}

fn entry(clauses: &[Clause], facts: &Facts<'_>) -> EntryExplanation {
    let clauses: Vec<_> = clauses.iter().map(|clause| explain_clause(clause, facts)).collect();
    EntryExplanation { matched: clauses.iter().all(|clause| clause.holds), clauses }
}

fn explain_clause(clause: &Clause, facts: &Facts<'_>) -> ClauseExplanation {
    ClauseExplanation {
        field: clause.written.to_string(),
        attribute: clause.field.to_string(),
        excludes: clause.negated,
        expected: clause.values.to_vec(),
        found: clause.field.found(facts),
        holds: clause.holds(facts),
    }
}

/// The enforced ALLOW rule with fewest clauses to go; of equals the first.
fn nearest_miss(policies: &[PolicyExplanation]) -> Option<NearestMiss> {
    policies
        .iter()
        .filter(|policy| policy.action == Action::Allow && !policy.dry_run)
        .flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)))
        .filter(|(_, rule)| rule.not_in_force.is_none())
        .map(|(policy, rule)| NearestMiss {
            id: rule.id.clone(),
            policy: policy.policy.clone(),
            origin: policy.origin.clone(),
            unmet: unmet(&rule.from)
                .into_iter()
                .chain(unmet(&rule.to))
                .chain(rule.when.iter().filter(|clause| !clause.holds))
                .cloned()
                .collect(),
        })
        .min_by_key(|miss| miss.unmet.len())
}

/// What is missing in the entry that misses least.
fn unmet(entries: &[EntryExplanation]) -> Vec<&ClauseExplanation> {
    entries
        .iter()
        .map(|entry| entry.clauses.iter().filter(|clause| !clause.holds).collect::<Vec<_>>())
        .min_by_key(Vec::len)
        .unwrap_or_default()
}
