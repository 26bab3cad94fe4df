//! May this request pass, and by which rule? (SEMANTICS section 6)
//!
//! The policies of a workload are compiled once into an [`Authorizer`], an immutable index that any number
//! of threads read. A decision looks each attribute of the request up in the index, intersects the rule sets
//! found, and evaluates the few rules that remain, so that ten thousand rules cost about what ten do. It
//! allocates nothing: what it needs besides the index is a small array on the stack.
//!
//! What only HTTP has is absent on TCP, and the rules that test it are compiled apart for both.
//!
//! A request is judged in two steps, between which tokens are verified: [`Authorizer::external`] says whether
//! a CUSTOM policy has an authorizer asked, [`Authorizer::authorize`] is AUDIT, DENY and ALLOW.

mod attributes;
pub(crate) mod clause;
mod explain;
mod external;
pub(crate) mod field;
mod index;
mod lookup;
pub(crate) mod pattern;
mod radix;
pub(crate) mod request_principal;
pub(crate) mod rule;
mod rule_set;
pub(crate) mod template;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, MeshSettings, ObjectRef, Origin};
use mesh_api::name::TrustDomain;
use serde::{Deserialize, Serialize};

pub use attributes::{Attributes, Claims, HeaderList, HeaderValues, HttpAttributes};
pub use explain::{
    ClauseExplanation, EntryExplanation, Explanation, ExternalExplanation, NearestMiss, PolicyExplanation,
    RuleExplanation,
};
pub use external::External;

use attributes::Facts;
use external::Provider;
use index::{Index, Next};
use rule::RuleForms;

/// Names a rule of one [`Authorizer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u32);

/// The answer to one request or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may pass.
    Allowed {
        /// The ALLOW rule that matched; `None` when no enforced ALLOW policy applies.
        by: Option<RuleId>,
        /// What is recorded beside.
        aside: Aside,
    },
    /// It is refused.
    Denied {
        /// The rule that refused it; `None` when ALLOW policies apply and none matched.
        by: Option<RuleId>,
        /// Why.
        reason: DenyReason,
        /// What is recorded beside.
        aside: Aside,
    },
}

impl Decision {
    /// Whether the request may pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }

    /// The rule that decided, if one did.
    #[must_use]
    pub fn by(&self) -> Option<RuleId> {
        match self {
            Self::Allowed { by, .. } | Self::Denied { by, .. } => *by,
        }
    }

    /// What is recorded beside the answer.
    #[must_use]
    pub fn aside(&self) -> Aside {
        match self {
            Self::Allowed { aside, .. } | Self::Denied { aside, .. } => *aside,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DenyReason {
    /// A DENY rule matched.
    MatchedDeny,
    /// ALLOW policies apply to the workload and none of their rules matched.
    NoAllowMatched,
    /// A CUSTOM rule matched and its provider is none that the mesh knows as an authorizer.
    CustomUnavailable,
    /// A CUSTOM rule matched and the workload's CUSTOM policies name more than one provider.
    CustomProvidersDiffer,
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MatchedDeny => "a DENY rule matched",
            Self::NoAllowMatched => "ALLOW policies apply and no rule of them matched",
            Self::CustomUnavailable => "a CUSTOM rule matched and its provider is not available",
            Self::CustomProvidersDiffer => {
                "a CUSTOM rule matched and the CUSTOM policies of the workload name more than one provider"
            }
        })
    }
}

/// What is recorded beside an answer and changes nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aside {
    /// AUDIT rule that matched.
    pub audit: Option<RuleId>,
    /// Dry-run DENY rule that matched: enforced, it would have refused.
    pub dry_run_deny: Option<RuleId>,
    /// What the dry-run ALLOW policies say. They are not asked when the request was refused before.
    pub dry_run_allow: DryRunAllow,
}

/// What the dry-run ALLOW policies say about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DryRunAllow {
    /// There are none, or they were not asked.
    #[default]
    Silent,
    /// This rule of them matched.
    WouldAllow(RuleId),
    /// None of them matched; enforced, and alone, they would have refused.
    WouldDeny,
}

/// In which step of the evaluation a policy is asked (SEMANTICS 6.3); the order is that of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Custom,
    Audit,
    DryRunDeny,
    Deny,
    DryRunAllow,
    Allow,
}

impl Step {
    const COUNT: usize = 6;

    /// Dry-run exists for ALLOW and DENY only; on the others it would weaken them, so it is ignored.
    fn of(policy: &AuthorizationPolicy) -> Self {
        match (policy.action, policy.dry_run) {
            (Action::Custom, _) => Self::Custom,
            (Action::Audit, _) => Self::Audit,
            (Action::Deny, true) => Self::DryRunDeny,
            (Action::Deny, false) => Self::Deny,
            (Action::Allow, true) => Self::DryRunAllow,
            (Action::Allow, false) => Self::Allow,
        }
    }
}

#[derive(Debug, Clone)]
struct CompiledRule {
    step: Step,
    /// Position of the policy.
    policy: u32,
    /// Position within the policy.
    index: u32,
    forms: RuleForms,
}

/// The compiled AuthorizationPolicies of one workload.
#[derive(Debug, Clone, Default)]
pub struct Authorizer {
    /// In order of step, namespace and name, so that the order of the input is irrelevant.
    policies: Vec<Arc<AuthorizationPolicy>>,
    rules: Vec<CompiledRule>,
    /// First rule behind each step.
    step_ends: [u32; Step::COUNT],
    http: Arc<Index>,
    tcp: Arc<Index>,
    /// The trust domain of the mesh and its aliases, for which the rules are compiled.
    trust_domains: Box<[TrustDomain]>,
    /// Who CUSTOM policies have asked.
    provider: Provider,
    /// Whether an enforced ALLOW policy applies.
    has_allow: bool,
    has_dry_run_allow: bool,
    needs_http: bool,
}

/// By step, then as Envoy orders policies: by their id as text. Of several that match, the first is the one
/// that decided, so that `allow-admin` goes before `allow` here too (`-` before `]`).
fn sort_key(policy: &AuthorizationPolicy) -> (Step, IdOrder<'_>) {
    (Step::of(policy), IdOrder(&policy.meta.object))
}

/// Orders policies as the texts `NAMESPACE]-policy[NAME]` would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdOrder<'a>(&'a ObjectRef);

impl<'a> IdOrder<'a> {
    fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let (namespace, name) = (self.0.namespace.as_str().bytes(), self.0.name.as_str().bytes());
        namespace.chain(*b"]-policy[").chain(name).chain(*b"]")
    }
}

impl Ord for IdOrder<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl PartialOrd for IdOrder<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Rules, compiled or taken over from an authorizer before. Policies come in order on both sides, so that one
/// walk along both finds those that have stayed.
struct Recompiled<'a> {
    before: &'a [Arc<AuthorizationPolicy>],
    rules_before: &'a [CompiledRule],
    rules: Vec<CompiledRule>,
    /// Every rule so far stands where it stood before.
    is_same: bool,
}

impl<'a> Recompiled<'a> {
    fn of(before: Option<&'a Authorizer>) -> Self {
        let (policies, rules) = before.map_or((&[][..], &[][..]), |before| (&before.policies, &before.rules));
        Self { before: policies, rules_before: rules, rules: Vec::new(), is_same: before.is_some() }
    }

    fn add(&mut self, policy: &AuthorizationPolicy, position: u32, trust_domains: &[&str]) {
        let step = Step::of(policy);
        while let Some((first, rest)) = self.before.split_first() {
            let order = sort_key(first).cmp(&sort_key(policy));
            if order.is_gt() {
                break;
            }
            let (own, others) = self.rules_before.split_at(first.rules.len());
            (self.before, self.rules_before) = (rest, others);
            if order.is_lt() {
                self.is_same &= own.is_empty();
                continue;
            }
            if first.rules == policy.rules {
                self.rules.extend(own.iter().map(|rule| CompiledRule { policy: position, ..rule.clone() }));
                return;
            }
            self.is_same = false;
            break;
        }
        for (rule, index) in policy.rules.iter().zip(0_u32..) {
            let forms = rule::compile(policy, rule, trust_domains);
            self.rules.push(CompiledRule { step, policy: position, index, forms });
            self.is_same = false;
        }
    }

    /// Whether any rule is another than before, or stands elsewhere.
    fn is_new(&self) -> bool {
        !(self.is_same && self.rules_before.is_empty())
    }
}

impl Authorizer {
    /// Compiles the policies that apply to a workload, as [`crate::select::authorization`] gives them.
    #[must_use]
    pub fn compile(mesh: &MeshSettings, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        Self::default().recompile(mesh, policies)
    }

    /// What [`Self::compile`] gives, from what is compiled already: the rules of a policy are compiled anew only
    /// when they have changed, and the index is built anew only when any have.
    #[must_use]
    pub fn recompile(&self, mesh: &MeshSettings, policies: &[Arc<AuthorizationPolicy>]) -> Self {
        let trust_domains: Box<[TrustDomain]> =
            std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases).cloned().collect();
        let mut policies = policies.to_vec();
        policies.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        let mut compiled =
            Recompiled::of(if trust_domains == self.trust_domains { Some(self) } else { None });
        let domains: Vec<&str> = trust_domains.iter().map(AsRef::as_ref).collect();
        for (policy, position) in policies.iter().zip(0_u32..) {
            compiled.add(policy, position, &domains);
        }
        let is_new = compiled.is_new();
        let rules = compiled.rules;
        let (http, tcp) = if is_new {
            let numbered = || (0_u32..).zip(&rules);
            let http = numbered().filter_map(|(id, rule)| Some((id, rule.forms.http.as_deref().ok()?)));
            let tcp = numbered().filter_map(|(id, rule)| Some((id, rule.forms.tcp.as_deref().ok()?)));
            (Arc::new(Index::build(http, rules.len())), Arc::new(Index::build(tcp, rules.len())))
        } else {
            (Arc::clone(&self.http), Arc::clone(&self.tcp))
        };
        let has = |step| policies.iter().any(|policy| Step::of(policy) == step);
        let steps = [Step::Custom, Step::Audit, Step::DryRunDeny, Step::Deny, Step::DryRunAllow, Step::Allow];
        Self {
            provider: Provider::of(mesh, &policies),
            step_ends: steps.map(|step| {
                u32::try_from(rules.partition_point(|rule| rule.step <= step)).unwrap_or(u32::MAX)
            }),
            has_allow: has(Step::Allow),
            has_dry_run_allow: has(Step::DryRunAllow),
            needs_http: rules.iter().any(CompiledRule::needs_http),
            trust_domains,
            policies,
            rules,
            http,
            tcp,
        }
    }

    /// Decides about one request or connection by AUDIT, DENY and ALLOW; [`Self::external`] was asked before.
    /// Allocates nothing; called for every request.
    #[must_use]
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let facts = Facts::of(attributes);
        let mut matched = [None; Step::COUNT];
        self.index(attributes).candidates(&facts, |id| {
            let rule = &self.rules[id as usize];
            if rule.step == Step::Custom {
                return Next::SkipTo(self.step_ends[Step::Custom as usize]);
            }
            if !rule.form(attributes).is_some_and(|form| form.holds(&facts)) {
                return Next::Continue;
            }
            let step = rule.step as usize;
            matched[step] = Some(RuleId(id));
            match rule.step {
                Step::Deny | Step::Allow => Next::Stop,
                Step::Custom | Step::Audit | Step::DryRunDeny | Step::DryRunAllow => {
                    Next::SkipTo(self.step_ends[step])
                }
            }
        });
        self.judge(matched)
    }

    fn index(&self, attributes: &Attributes<'_>) -> &Index {
        if attributes.http.is_some() { &self.http } else { &self.tcp }
    }

    /// Combines the first match of each step.
    fn judge(&self, matched: [Option<RuleId>; Step::COUNT]) -> Decision {
        let [_custom, audit, dry_run_deny, deny, dry_run_allow, allow] = matched;
        let mut aside = Aside { audit, dry_run_deny, dry_run_allow: DryRunAllow::Silent };
        if deny.is_some() {
            return Decision::Denied { by: deny, reason: DenyReason::MatchedDeny, aside };
        }
        if self.has_dry_run_allow {
            aside.dry_run_allow = dry_run_allow.map_or(DryRunAllow::WouldDeny, DryRunAllow::WouldAllow);
        }
        if self.has_allow && allow.is_none() {
            return Decision::Denied { by: None, reason: DenyReason::NoAllowMatched, aside };
        }
        Decision::Allowed { by: allow, aside }
    }

    /// Every rule with its step and both of its forms.
    pub(crate) fn compiled(&self) -> impl Iterator<Item = (RuleId, Step, &RuleForms)> {
        (0_u32..).zip(&self.rules).map(|(id, rule)| (RuleId(id), rule.step, &rule.forms))
    }

    /// What a rule is and where it stands.
    ///
    /// # Panics
    /// If `id` comes from another authorizer with more rules.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> RuleRef<'_> {
        let rule = &self.rules[id.0 as usize];
        let policy = &self.policies[rule.policy as usize];
        RuleRef { policy, index: rule.index }
    }

    /// Position of a rule's policy in [`Self::policies`].
    ///
    /// # Panics
    /// If `id` comes from another authorizer with more rules.
    #[must_use]
    pub fn policy_position(&self, id: RuleId) -> usize {
        self.rules[id.0 as usize].policy as usize
    }

    /// The policies, in the order CUSTOM, AUDIT, DENY, ALLOW and then by namespace and name.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<AuthorizationPolicy>> {
        self.policies.iter()
    }

    /// Number of rules.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Whether any rule tests what only HTTP has. When none does, a connection is judged once for all its
    /// requests.
    #[must_use]
    pub fn needs_http(&self) -> bool {
        self.needs_http
    }

    /// Whether no policy applies, so that everything is allowed and nothing recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }
}

impl CompiledRule {
    fn form(&self, attributes: &Attributes<'_>) -> Option<&rule::RuleForm> {
        let form = if attributes.http.is_some() { &self.forms.http } else { &self.forms.tcp };
        form.as_deref().ok()
    }

    fn needs_http(&self) -> bool {
        self.forms.http.as_ref().is_ok_and(|form| form.clauses().any(|clause| clause.field.is_http_only()))
    }
}

/// A rule and its policy. Displays as Istio's policy id, `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`.
#[derive(Debug, Clone, Copy)]
pub struct RuleRef<'a> {
    policy: &'a AuthorizationPolicy,
    index: u32,
}

impl<'a> RuleRef<'a> {
    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &'a AuthorizationPolicy {
        self.policy
    }

    /// Kind, namespace and name of the policy.
    #[must_use]
    pub fn object(&self) -> &'a ObjectRef {
        &self.policy.meta.object
    }

    /// Action of the policy.
    #[must_use]
    pub fn action(&self) -> Action {
        self.policy.action
    }

    /// Whether the policy is evaluated without being enforced.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.policy.dry_run
    }

    /// Position of the rule in the policy, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the policy stands.
    #[must_use]
    pub fn origin(&self) -> &'a Origin {
        &self.policy.meta.origin
    }
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Action::Custom, Some(provider)) = (self.policy.action, &self.policy.provider) {
            write!(f, "istio-ext-authz-{provider}-")?;
        }
        let object = self.object();
        write!(f, "ns[{}]-policy[{}]-rule[{}]", object.namespace, object.name, self.index)
    }
}
