//! Is every request of a set denied, or allowed?

use std::sync::Arc;

use mesh_api::model::{
    Action, AuthorizationPolicy, Kind as ObjectKind, MeshSettings, ObjectMeta, ObjectRef, Origin, Rule,
    Selector,
};
use mesh_api::name::{Labels, Namespace, ObjectName};
use mesh_api::policy_test::{Traffic, Verdict};

use super::atom::{Atoms, Form};
use super::scenario::{Scenario, Sight};
use super::search::{Folded, Wanted, fold};
use super::side::{Branch, Outcome, Reason, Side};
use super::space::{Kind, Preferred};
use super::text::Budget;
use super::{BUDGET, Example, Settled, Undecided, Workload, confirm, request};
use crate::authorize::rule::{self, RuleForm};
use crate::judge::Policies;
use crate::select::Subject;

/// What is asserted.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// What is to become of the requests.
    pub verdict: Verdict,
    /// HTTP or bytes alone; `None` for both.
    pub protocol: Option<Traffic>,
    /// The requests: those that one of these matches.
    pub requests: &'q [Rule],
    /// Requests that nothing is asserted of.
    pub except: &'q [Rule],
}

/// Whether an assertion holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// For every request.
    Holds,
    /// Not for this one.
    Broken(Box<CounterExample>),
    /// That is not known.
    Undecided(Undecided),
}

/// A request for which an assertion does not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct CounterExample {
    /// The request.
    pub example: Example,
    /// What becomes of it.
    pub settled: Settled,
}

/// Answers a question about one workload.
#[must_use]
pub fn verify(
    mesh: &MeshSettings,
    policies: &Policies,
    workload: &Workload,
    question: Question<'_>,
) -> Answer {
    match search(mesh, policies, workload, question) {
        Ok(None) => Answer::Holds,
        Ok(Some(found)) => Answer::Broken(Box::new(found)),
        Err(undecided) => Answer::Undecided(undecided),
    }
}

/// Rules of an assertion, in both forms that are needed.
struct Asserted {
    forms: Vec<(Form, Arc<RuleForm>)>,
}

impl Asserted {
    fn compile(mesh: &MeshSettings, rules: &[Rule], atoms: &mut Atoms) -> Result<Self, Undecided> {
        let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
        let domains: Vec<&str> = domains.map(AsRef::as_ref).collect();
        let policy = holder(mesh);
        let forms = rules.iter().map(|rule| match rule::compile(&policy, rule, &domains).http {
            Ok(form) => Ok((atoms.form(&form)?, form)),
            Err(dropped) => Err(Undecided::Untold(format!("the assertion cannot be read: {dropped:?}"))),
        });
        Ok(Self { forms: forms.collect::<Result<_, _>>()? })
    }
}

/// A policy for rules that are none of a policy. Its namespace does not matter, because bare service accounts
/// are refused in assertions.
fn holder(mesh: &MeshSettings) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: ObjectMeta {
            object: ObjectRef {
                kind: ObjectKind::AuthorizationPolicy,
                namespace: mesh.root_namespace.clone(),
                name: ObjectName::parse("assertion").expect("a valid constant"),
            },
            labels: Labels::new(),
            annotations: Labels::new(),
            created: 0,
            origin: Origin::default(),
        },
        selector: Selector::default(),
        targets: Vec::new(),
        action: Action::Allow,
        provider: None,
        rules: Vec::new(),
        dry_run: false,
    }
}

fn search(
    mesh: &MeshSettings,
    policies: &Policies,
    workload: &Workload,
    question: Question<'_>,
) -> Result<Option<CounterExample>, Undecided> {
    let mut atoms = Atoms::default();
    let side = Side::new(mesh, &subject(workload), policies, &mut atoms)?;
    let requests = Asserted::compile(mesh, question.requests, &mut atoms)?;
    let except = Asserted::compile(mesh, question.except, &mut atoms)?;
    let sides = [&side];
    let preferred = preferred(mesh, workload);
    let mut budget = Budget(BUDGET);
    for scenario in Scenario::all(&sides, workload) {
        let is_asked = question.protocol.is_none_or(|protocol| protocol == scenario.traffic)
            // CONNECT asks for a tunnel; nobody means it when requests are to be let pass.
            && (question.verdict == Verdict::Deny || scenario.kind == Kind::Usual);
        if !is_asked {
            continue;
        }
        let sights = scenario.sights(&sides, &mut atoms)?;
        let [sight] = &*sights else { continue };
        let found = search_scenario(
            (mesh, &side, &atoms),
            (&scenario, sight, &preferred),
            (question.verdict, &requests, &except),
            &mut budget,
        )?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn search_scenario(
    (mesh, side, atoms): (&MeshSettings, &Side, &Atoms),
    (scenario, sight, preferred): (&Scenario, &Sight, &Preferred),
    (verdict, requests, except): (Verdict, &Asserted, &Asserted),
    budget: &mut Budget,
) -> Result<Option<CounterExample>, Undecided> {
    let whole = scenario.whole();
    let folded = |asserted: &Asserted| -> Result<Vec<Folded>, Undecided> {
        if whole.http && !side.jwt.is_empty() {
            asserted.forms.iter().try_for_each(|(form, _)| side.refuse_token_headers(atoms, form))?;
        }
        Ok(asserted.forms.iter().filter_map(|(form, _)| fold(atoms, form, whole)).collect())
    };
    let (asked, excepted) = (folded(requests)?, folded(except)?);
    if asked.is_empty() {
        return Ok(None);
    }
    let mut space = scenario.space(atoms, mesh, preferred)?;
    let branches = sight.branches(side);
    // One whose token is refused is answered before any policy, and nothing is asserted of it.
    let breaking = |branch: &&Branch<'_>| breaks(branch.outcome, verdict) && branch.reason != Reason::Token;
    for branch in branches.iter().filter(breaking) {
        for request in &asked {
            let holds: Vec<&Folded> = branch.holds.iter().copied().chain([request]).collect();
            let contradicts = holds.iter().any(|form| branch.fails.iter().any(|rules| rules.has(form)));
            if contradicts {
                continue;
            }
            // Which rule is the first to match is no matter here.
            let fails = branch.fails.iter().map(|rules| rules.forms()).chain([&*excepted]).collect();
            let Some(found) = (Wanted { holds, fails }).find(&mut space, budget)? else { continue };
            let host = host(mesh, preferred);
            let request = request::request(atoms, mesh, scenario, &found, &host)?;
            let is_meant = |asserted: &Asserted| {
                asserted.forms.iter().any(|(_, form)| confirm::matches(mesh, form, &request))
            };
            if !is_meant(requests) || is_meant(except) {
                return Err(Undecided::Untold(
                    "the evaluator does not take an example for one that is asked about".to_owned(),
                ));
            }
            let settled = confirm::settled(side, sight, branch.outcome, &request)?;
            let class = class(atoms, &found.literals);
            return Ok(Some(CounterExample { example: Example { request, class }, settled }));
        }
    }
    Ok(None)
}

/// Whether an outcome is not what is asserted.
fn breaks(outcome: Outcome, verdict: Verdict) -> bool {
    match (outcome, verdict) {
        // An external authorizer may say either.
        (Outcome::Ask, _) => true,
        (Outcome::Allow, Verdict::Deny) | (Outcome::Deny, Verdict::Allow) => true,
        (Outcome::Allow, Verdict::Allow) | (Outcome::Deny, Verdict::Deny) => false,
    }
}

/// The tests that led to a request, as rules write them.
pub(super) fn class(atoms: &Atoms, literals: &[(u32, bool)]) -> Vec<String> {
    let told = |(atom, holds): &(u32, bool)| {
        let told = &atoms.atom(*atom).told;
        if *holds { told.clone() } else { format!("not {told}") }
    };
    let mut class: Vec<String> = literals.iter().filter(|(_, holds)| *holds).map(told).collect();
    class.extend(literals.iter().filter(|(_, holds)| !*holds).map(told));
    class
}

pub(super) fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

/// Values that read well for requests to a workload.
pub(super) fn preferred(mesh: &MeshSettings, workload: &Workload) -> Preferred {
    let spaces: [&str; 3] = ["other", workload.namespace.as_str(), "default"];
    let peer = |namespace: &str| format!("{}/ns/{namespace}/sa/other", mesh.trust_domain).into_bytes();
    let host = format!("{}.{}.svc.{}", workload.service_account, workload.namespace, mesh.cluster_domain);
    Preferred {
        peers: spaces.iter().map(|namespace| peer(namespace)).collect(),
        hosts: vec![host.into_bytes(), b"other.example".to_vec()],
    }
}

/// The host of a request of which no rule tests it.
pub(super) fn host(mesh: &MeshSettings, preferred: &Preferred) -> String {
    let host = preferred.hosts.first().map(|host| String::from_utf8_lossy(host).into_owned());
    host.unwrap_or_else(|| format!("a.{}", mesh.cluster_domain))
}

/// A namespace that stands for all that nobody names.
pub(super) fn unnamed_namespace(named: &[Namespace]) -> Namespace {
    let names = (0..)
        .map(|number: u32| if number == 0 { "elsewhere".to_owned() } else { format!("elsewhere-{number}") });
    names
        .take(named.len() + 1)
        .filter_map(|name| Namespace::parse(&name).ok())
        .find(|name| !named.contains(name))
        .unwrap_or_else(|| Namespace::parse("elsewhere").expect("a valid constant"))
}
