//! `PolicyAssertion` documents: what is to hold for every request, read as strictly as policies are.
//!
//! Requests are described in Istio's own words (`from`, `to`, `when`), and by the code that reads them in
//! policies, so that an assertion means what the same words mean in an AuthorizationPolicy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::authorization_policy;
use super::policy_test::{self, PolicySource};
use super::report::Report;
use super::split::{Chunk, split};
use super::tree::{Found, Place, build_generously};
use crate::model::{Action, Origin, Rule};
use crate::name::{Namespace, ServiceAccount};
use crate::policy_assertion::{Assertion, StatedWorkload, WorkloadScope};
use crate::policy_test::{MeshOverrides, Traffic, Verdict, Workload};
use crate::problem::{Problem, Severity};

const API_VERSION: &str = "mini-mesh.io/v1alpha1";
const KIND: &str = "PolicyAssertion";
const VERDICTS: [(&str, Verdict); 2] = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
const PROTOCOLS: [(&str, Traffic); 2] = [("http", Traffic::Http), ("tcp", Traffic::Tcp)];

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyAssertion {
    /// Its name; empty when it states none.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// Settings of the mesh, as far as it states them.
    pub mesh: MeshOverrides,
    /// Policies beside those that are given with it.
    pub policies: Vec<PolicySource>,
    /// What it asserts.
    pub assertions: Vec<Assertion>,
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyAssertions {
    /// The documents, in order.
    pub documents: Vec<PolicyAssertion>,
    /// Errors, with one of which nothing of the file is to be believed, and what is doubtful.
    pub problems: Vec<Problem>,
}

impl PolicyAssertions {
    /// Whether something is wrong with the file.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads the assertions of a file. `file` is its name as the user would write it.
#[must_use]
pub fn parse(file: &str, text: &str) -> PolicyAssertions {
    let file: Arc<str> = file.into();
    let mut read = PolicyAssertions::default();
    for chunk in split(text) {
        read_chunk(&file, chunk, &mut read);
    }
    read
}

fn read_chunk(file: &Arc<str>, chunk: Chunk<'_>, read: &mut PolicyAssertions) {
    let (tree, error) = build_generously(chunk);
    let mut report = Report::new(file);
    if let Some(error) = error {
        report.error_at_line(error.line, error.message, error.hint);
        read.problems.extend(report.into_problems());
        return;
    }
    let Some(root) = tree.root().filter(|root| !root.is_null()) else { return };
    let document = document(file, root, &mut report);
    read.problems.extend(report.into_problems());
    read.documents.push(document);
}

fn document(file: &Arc<str>, root: Place<'_>, report: &mut Report) -> PolicyAssertion {
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec"], report);
    let hint = "Write apiVersion: mini-mesh.io/v1alpha1 and kind: PolicyAssertion.";
    if let Some(place) = fields.required("apiVersion", hint, report) {
        let _ = place.choice(&[(API_VERSION, ())], report);
    }
    if let Some(place) = fields.required("kind", hint, report) {
        let _ = place.choice(&[(KIND, ())], report);
    }
    let known = ["name", "namespace", "labels", "annotations"];
    let metadata = fields.optional("metadata").map(|place| place.fields(&known, report));
    let name = metadata.and_then(|metadata| metadata.get("name")).and_then(|place| place.non_empty(report));
    let mut document = PolicyAssertion {
        name: name.unwrap_or_default().to_owned(),
        origin: Origin { file: Arc::clone(file), line: root.line() },
        mesh: MeshOverrides::default(),
        policies: Vec::new(),
        assertions: Vec::new(),
    };
    if let Some(spec) = fields.required("spec", "State assertions.", report) {
        read_spec(file, spec, &mut document, report);
    }
    document
}

fn read_spec(file: &Arc<str>, place: Place<'_>, document: &mut PolicyAssertion, report: &mut Report) {
    let spec = place.fields(&["mesh", "policies", "assertions"], report);
    document.mesh = spec.get("mesh").map(|place| policy_test::mesh(place, report)).unwrap_or_default();
    if let Some(place) = spec.get("policies") {
        document.policies = policy_test::policies(file, place, &policy_test::context(&document.mesh), report);
    }
    let hint = "State at least one.";
    let Some(list) = spec.required("assertions", hint, report) else { return };
    let items = list.items(report);
    if items.is_empty() && matches!(list.found(), Found::List) {
        report.error(list, "asserts nothing", hint);
    }
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    for item in items {
        let Some(assertion) = assertion(file, item, report) else { continue };
        let place = item.child("name");
        if let Some((place, Found::Scalar(_, name))) = place.map(|place| (place, place.found()))
            && let Some(line) = names.insert(name, item.line())
        {
            let message = format!("the name {name:?} stands twice; the other is at line {line}");
            report.error(place, message, "Name one of the two otherwise.");
        }
        document.assertions.push(assertion);
    }
}

fn assertion(file: &Arc<str>, place: Place<'_>, report: &mut Report) -> Option<Assertion> {
    let known = ["name", "workloads", "verdict", "protocol", "requests", "except"];
    let fields = place.fields(&known, report);
    let name = fields.required("name", "Name the assertion.", report);
    let name = name.and_then(|place| place.non_empty(report));
    let workloads = fields.get("workloads").map(|place| scope(place, report)).unwrap_or_default();
    let verdict = fields.required("verdict", "Write allow or deny.", report);
    let verdict = verdict.and_then(|place| place.choice(&VERDICTS, report));
    let protocol = fields.get("protocol").and_then(|place| place.choice(&PROTOCOLS, report));
    let requests = match fields.get("requests") {
        Some(place) => rules(place, report),
        None => vec![Rule::default()],
    };
    let except = fields.get("except").map(|place| rules(place, report)).unwrap_or_default();
    Some(Assertion {
        name: name?.to_owned(),
        origin: Origin { file: Arc::clone(file), line: place.line() },
        workloads,
        verdict: verdict?,
        protocol,
        requests,
        except,
    })
}

/// One description of requests, or a list of them.
fn rules(place: Place<'_>, report: &mut Report) -> Vec<Rule> {
    let places = match place.found() {
        Found::Map => vec![place],
        Found::List | Found::Scalar(..) => place.items(report),
    };
    if places.is_empty() && matches!(place.found(), Found::List) {
        report.error(place, "must not be empty", "Remove the field, or write {} for every request.");
    }
    places.into_iter().map(|place| rule(place, report)).collect()
}

fn rule(place: Place<'_>, report: &mut Report) -> Rule {
    let rule = authorization_policy::rule(place, Some(Action::Allow), report);
    let bare = |values: &[String]| values.iter().any(|value| !value.contains('/'));
    let in_source = rule.from.iter().any(|of| bare(&of.service_accounts) || bare(&of.not_service_accounts));
    let mut conditions = rule.when.iter().filter(|when| when.key == "source.serviceAccount");
    if in_source || conditions.any(|when| bare(&when.values) || bare(&when.not_values)) {
        let message = "a service account must state its namespace: an assertion is in none";
        report.error(place, message, "Write NAMESPACE/NAME.");
    }
    rule
}

fn scope(place: Place<'_>, report: &mut Report) -> WorkloadScope {
    if let Found::List = place.found() {
        let items = place.items(report);
        if items.is_empty() {
            report.error(place, "must not be empty", "Remove the field for all workloads.");
        }
        return WorkloadScope::Stated(items.into_iter().filter_map(|item| stated(item, report)).collect());
    }
    let fields = place.fields(&["namespace", "labels"], report);
    let namespace = fields.required("namespace", "Name the namespace of the workloads.", report);
    let namespace = namespace.and_then(|place| place.parsed(Namespace::parse, report));
    let labels = fields.get("labels").map(|place| place.string_map(report)).unwrap_or_default();
    match namespace {
        Some(namespace) => WorkloadScope::Selected { namespace, labels },
        None => WorkloadScope::All,
    }
}

fn stated(place: Place<'_>, report: &mut Report) -> Option<StatedWorkload> {
    let fields = place.fields(&["namespace", "labels", "serviceAccount", "ports"], report);
    let namespace = fields.required("namespace", "Name the namespace of the workload.", report);
    let namespace = namespace.and_then(|place| place.parsed(Namespace::parse, report));
    let account = match fields.get("serviceAccount") {
        Some(place) => place.parsed(ServiceAccount::parse, report),
        None => ServiceAccount::parse("default").ok(),
    };
    let labels = fields.get("labels").map(|place| place.string_map(report)).unwrap_or_default();
    let mut declared = BTreeMap::new();
    let ports = fields.get("ports").map(|place| {
        let ports = place.items(report).into_iter().filter_map(|place| port(place, &mut declared, report));
        ports.collect::<BTreeSet<u16>>()
    });
    Some(StatedWorkload {
        workload: Workload { namespace: namespace?, labels, service_account: account? },
        ports,
        declared,
    })
}

/// A port, alone or with what it carries.
fn port(place: Place<'_>, declared: &mut BTreeMap<u16, Traffic>, report: &mut Report) -> Option<u16> {
    let Found::Map = place.found() else { return place.port(report) };
    let fields = place.fields(&["port", "protocol"], report);
    let port = fields.required("port", "State the number of the port.", report)?.port(report)?;
    if let Some(traffic) = fields.get("protocol").and_then(|place| place.choice(&PROTOCOLS, report)) {
        declared.insert(port, traffic);
    }
    Some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(assertions: &str) -> PolicyAssertions {
        parse(
            "a.yaml",
            &format!(
                "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyAssertion\nmetadata: {{name: a}}\nspec:\n  assertions:\n{assertions}"
            ),
        )
    }

    #[test]
    fn an_assertion_is_read_with_its_defaults() {
        let read = read("  - {name: a, verdict: deny}\n");
        assert_eq!(read.problems, []);
        let assertion = &read.documents[0].assertions[0];
        assert_eq!(assertion.requests, [Rule::default()], "every request");
        assert_eq!((assertion.protocol, &assertion.workloads), (None, &WorkloadScope::All));
        assert_eq!((assertion.verdict, assertion.origin.line), (Verdict::Deny, 6));
    }

    #[test]
    fn requests_are_one_description_or_several() {
        let read = read(
            "  - name: a\n    verdict: allow\n    workloads: [{namespace: b, ports: [80, {port: 9, protocol: tcp}]}]\n\
             \x20   requests: {from: [{source: {namespaces: [w]}}]}\n    except: [{to: [{operation: {paths: [/x]}}]}, {}]\n",
        );
        assert_eq!(read.problems, []);
        let assertion = &read.documents[0].assertions[0];
        assert_eq!((assertion.requests.len(), assertion.except.len()), (1, 2));
        let WorkloadScope::Stated(stated) = &assertion.workloads else { unreachable!("stated") };
        assert_eq!(stated[0].ports, Some([80, 9].into()));
        assert_eq!(stated[0].declared, [(9, Traffic::Tcp)].into());
    }

    #[test]
    fn every_mistake_is_told_with_its_place() {
        for (assertions, expected) in [
            ("    []\n", "asserts nothing"),
            ("  - {name: a, verdict: Deny}\n", "Write deny; case matters."),
            ("  - {name: a, verdict: deny, request: {}}\n", "Did you mean requests?"),
            ("  - {name: a, verdict: deny, requests: []}\n", "must not be empty"),
            ("  - {name: a, verdict: deny, workloads: {labels: {a: b}}}\n", "is missing"),
            (
                "  - {name: a, verdict: deny}\n  - {name: a, verdict: allow}\n",
                "stands twice; the other is at line 6",
            ),
            (
                "  - {name: a, verdict: deny, requests: {from: [{source: {serviceAccounts: [b]}}]}}\n",
                "must state its namespace",
            ),
            (
                "  - {name: a, verdict: deny, except: [{to: [{operation: {path: [/x]}}]}]}\n",
                "Did you mean paths?",
            ),
        ] {
            let read = read(assertions);
            let told: Vec<String> = read
                .problems
                .iter()
                .map(|problem| format!("{}: {} ({})", problem.field, problem.message, problem.hint))
                .collect();
            assert!(
                read.is_broken() && told.iter().any(|told| told.contains(expected)),
                "{assertions}\n{told:#?}"
            );
        }
    }
}
