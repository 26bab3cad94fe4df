//! Runs policy tests: judges each case, compares what became of it with what was expected, and counts which
//! rules were exercised.
//!
//! Policies are compiled once for each set of them, each settings of the mesh and each workload, so that a
//! thousand cases against ten thousand rules cost about what one does. Every expectation that is stated is
//! compared; a case fails with all that differ, not with the first.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::model::{AuthorizationPolicy, MeshSettings, ObjectRef, Origin};
use mesh_api::policy_test::{Case, Expectation, HeaderLines, UpstreamExpectation, Verdict, Workload};
use serde::Serialize;

use crate::judge::{Judge, Judgement, Policies};
use crate::select::Subject;

/// Most rules that the account of a failure tells beside those that matter.
const RULES_EXPLAINED_MAX: usize = 20;

/// Policies that cases are judged by.
#[derive(Debug, Clone, Default)]
pub struct PolicySet {
    /// The policies.
    pub policies: Policies,
    /// Settings of the mesh that stand among them; what a test states goes before.
    pub mesh: Option<MeshSettings>,
    /// Line of each rule of an AuthorizationPolicy.
    pub rule_lines: BTreeMap<ObjectRef, Vec<u32>>,
}

/// Names a set of a [`Suite`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SetId(usize);

/// A rule of a policy, where it stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleName {
    /// File of the policy.
    pub file: String,
    /// Line of the rule, or of its policy when that is all that is known.
    pub line: u32,
    /// The policy.
    pub policy: ObjectRef,
    /// Position in the policy, from 0.
    pub rule: usize,
}

/// Which rules the cases made use of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Coverage {
    /// Number of rules.
    pub rules: usize,
    /// Those that matched in no case.
    pub never_exercised: Vec<RuleName>,
}

impl Coverage {
    /// Share of the rules that was exercised, in percent, rounded down; 100 when there are none.
    #[must_use]
    pub fn percent(&self) -> usize {
        match self.rules {
            0 => 100,
            rules => (rules - self.never_exercised.len()) * 100 / rules,
        }
    }
}

/// One expectation that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// Its field, for instance `upstream.path`.
    pub field: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseReport {
    /// Expectations that do not hold; empty when the case passes.
    pub mismatches: Vec<Mismatch>,
    /// The judgement, with its explanation when the case fails; `None` when there was no request.
    pub judgement: Option<Judgement>,
}

/// Sets of policies, compiled as cases need them.
#[derive(Debug, Default)]
pub struct Suite {
    sets: Vec<PolicySet>,
    judges: BTreeMap<(SetId, String, Workload), Judge>,
    exercised: BTreeSet<RuleName>,
}

impl Suite {
    /// Takes a set of policies.
    pub fn add(&mut self, set: PolicySet) -> SetId {
        self.sets.push(set);
        SetId(self.sets.len() - 1)
    }

    /// Judges a case by a set. `now` is the present, in seconds of the Unix epoch; the case may state another.
    ///
    /// # Panics
    /// If `set` comes from another suite with more sets.
    pub fn run(&mut self, set: SetId, case: &Case, now: i64) -> CaseReport {
        let mut mesh = self.sets[set.0].mesh.clone().unwrap_or_default();
        case.mesh.apply_to(&mut mesh);
        let key = (set, mesh_key(&mesh), case.workload.clone());
        let policies = &self.sets[set.0];
        let judge = self.judges.entry(key).or_insert_with(|| {
            let workload = &case.workload;
            let subject = Subject {
                namespace: &workload.namespace,
                labels: &workload.labels,
                service_account: &workload.service_account,
            };
            Judge::compile(&mesh, &subject, &policies.policies)
        });
        let now = case.now.unwrap_or(now);
        let Some(request) = &case.request else {
            let found = judge.mtls(case.port).as_str();
            let mut mismatches = Vec::new();
            let expected = case.expect.mtls.map(|mode| mode.as_str());
            compare(&mut mismatches, "mtls", expected, Some(found));
            return CaseReport { mismatches, judgement: None };
        };
        let mut judgement = judge.judge(request, now);
        for id in &judgement.matched {
            let rule = judge.authorizer().rule(*id);
            let index = usize::try_from(rule.index()).unwrap_or(usize::MAX);
            self.exercised.insert(rule_name(policies, rule.policy(), index));
        }
        let mismatches = mismatches(&case.expect, request.protocol, &judgement);
        if !mismatches.is_empty() {
            judgement = judge.explain(request, now).abridged(RULES_EXPLAINED_MAX);
        }
        CaseReport { mismatches, judgement: Some(judgement) }
    }

    /// Which rules of all sets the cases so far made use of.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut all = BTreeSet::new();
        for set in &self.sets {
            for policy in &set.policies.authorization {
                all.extend((0..policy.rules.len()).map(|index| rule_name(set, policy, index)));
            }
        }
        Coverage {
            rules: all.len(),
            never_exercised: all.into_iter().filter(|rule| !self.exercised.contains(rule)).collect(),
        }
    }
}

/// Settings as text that orders them.
fn mesh_key(mesh: &MeshSettings) -> String {
    let MeshSettings { trust_domain, trust_domain_aliases, root_namespace, path_normalization, .. } = mesh;
    format!("{trust_domain} {trust_domain_aliases:?} {root_namespace} {path_normalization:?}")
}

fn rule_name(set: &PolicySet, policy: &AuthorizationPolicy, rule: usize) -> RuleName {
    let Origin { file, line } = &policy.meta.origin;
    let object = &policy.meta.object;
    let lines = set.rule_lines.get(object);
    RuleName {
        file: file.to_string(),
        line: lines.and_then(|lines| lines.get(rule)).copied().unwrap_or(*line),
        policy: object.clone(),
        rule,
    }
}

/// Compares everything that is stated with what was found.
fn mismatches(
    expect: &Expectation,
    protocol: mesh_api::policy_test::Traffic,
    judgement: &Judgement,
) -> Vec<Mismatch> {
    let mut out = Vec::new();
    let decision = format!("{} ({})", judgement.decision.as_str(), judgement.reason);
    if expect.decision.is_some_and(|expected| expected != judgement.decision) {
        compare(&mut out, "decision", expect.decision.map(Verdict::as_str), Some(&decision));
    }
    let status = judgement.status(protocol).map(|status| status.to_string());
    compare(&mut out, "status", expect.status.map(|status| status.to_string()).as_deref(), status.as_deref());
    let answer = judgement.answer.as_ref();
    let body = answer.map(|answer| answer.body.as_str());
    compare(&mut out, "body", expect.body.as_deref(), body);
    let answered = answer.map(|answer| answer.headers.as_slice());
    headers(&mut out, "responseHeaders", &expect.response_headers, answered);
    let policy = judgement.policy.as_ref().map(|policy| format!("{}/{}", policy.namespace, policy.name));
    compare(&mut out, "policy", expect.policy.as_deref(), Some(policy.as_deref().unwrap_or_default()));
    let principal = judgement.request_principal.as_deref().unwrap_or_default();
    compare(&mut out, "requestPrincipal", expect.request_principal.as_deref(), Some(principal));
    let mode = expect.mtls.map(|mode| mode.as_str());
    compare(&mut out, "mtls", mode, Some(judgement.mtls.as_str()));
    if let Some(expect) = &expect.upstream {
        upstream(&mut out, expect, judgement);
    }
    out
}

/// What the application receives. Both forms of the path are known of a refused request too.
fn upstream(out: &mut Vec<Mismatch>, expect: &UpstreamExpectation, judgement: &Judgement) {
    compare(out, "upstream.path", expect.path.as_deref(), judgement.path.as_deref());
    let seen = judgement.policy_path.as_deref();
    compare(out, "upstream.policyPath", expect.policy_path.as_deref(), seen);
    let received = (judgement.decision == Verdict::Allow).then_some(judgement.headers.as_slice());
    headers(out, "upstream.headers", &expect.headers, received);
    let lines = |name: &str| values(received.unwrap_or_default(), name);
    for name in expect.present_headers.iter().filter(|name| lines(name).is_empty()) {
        let field = format!("upstream.presentHeaders[{name}]");
        compare(out, &field, Some("present"), received.map(|_| "absent"));
    }
    for name in expect.absent_headers.iter().filter(|name| !lines(name).is_empty()) {
        let found = lines(name).join(", ");
        compare(out, &format!("upstream.absentHeaders[{name}]"), Some("absent"), Some(&found));
    }
    if let (Some(part), Some(path)) = (&expect.path_not_contains, &judgement.path)
        && path.contains(part.as_str())
    {
        let expected = format!("a path without {part:?}");
        compare(out, "upstream.pathNotContains", Some(&expected), Some(path));
    }
}

fn headers(
    out: &mut Vec<Mismatch>,
    field: &str,
    expected: &[HeaderLines],
    found: Option<&[(String, String)]>,
) {
    for (name, lines) in expected {
        let field = format!("{field}[{name}]");
        let values = found.map(|found| values(found, name));
        let found =
            values.as_ref().map(|values| if values.is_empty() { "absent".to_owned() } else { told(values) });
        let is_met =
            values.is_some_and(|values| values == lines.iter().map(String::as_str).collect::<Vec<_>>());
        if !is_met {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            compare(out, &field, Some(&told(&lines)), found.as_deref());
        }
    }
}

/// Lines of a header, told apart.
fn told(lines: &[&str]) -> String {
    match lines {
        [only] => format!("{only:?}"),
        lines => format!("{lines:?}"),
    }
}

fn values<'h>(headers: &'h [(String, String)], name: &str) -> Vec<&'h str> {
    let named = headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

/// Notes a difference between what is stated and what was found; `None` is nothing at all.
fn compare(out: &mut Vec<Mismatch>, field: &str, expected: Option<&str>, found: Option<&str>) {
    let Some(expected) = expected.filter(|expected| Some(*expected) != found) else { return };
    let none = match field.split('.').next() {
        Some("upstream") => "nothing: the request does not reach the application, or has none",
        _ => "nothing: the proxy gives no answer of its own",
    };
    out.push(Mismatch {
        field: field.to_owned(),
        expected: if expected.is_empty() { "none".to_owned() } else { expected.to_owned() },
        found: match found {
            None => none.to_owned(),
            Some("") => "none".to_owned(),
            Some(found) => found.to_owned(),
        },
    });
}
