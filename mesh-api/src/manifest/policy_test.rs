//! `PolicyTest` documents: unit tests of policies, read as strictly as policies are.
//!
//! A test is not configuration of a mesh, so it is no [`Object`] and has its own entrance here. Policies that
//! stand in it are read by the same code that reads a policy of its own, with the lines of the test's file. An
//! invalid one makes the file unusable, except as the `document` of an admission test: there it is the point.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{self, Whole};
use super::report::Report;
use super::split::{Chunk, split};
use super::tree::{Found, Place, build_generously};
use super::{LowerContext, Object};
use crate::model::{KeySet, KeySets, MeshSettings, Origin};
use crate::policy_test::{Admission, Case, MeshOverrides};
use crate::problem::{Problem, Severity};

mod admission;
mod case;
mod expectation;
mod request;

const API_VERSION: &str = "mini-mesh.io/v1alpha1";
const KIND: &str = "PolicyTest";

/// One document.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyTest {
    /// Its name; empty when it states none.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// Policies of every case that has none of its own.
    pub policies: Vec<PolicySource>,
    /// Keys by the URL that they would be fetched from. Nothing is fetched for a test.
    pub key_sets: KeySets,
    /// Requests.
    pub cases: Vec<TestCase>,
    /// Documents that somebody applies.
    pub admission: Vec<AdmissionCase>,
}

/// A request and the policies that it is judged by.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// The request and what is expected of it.
    pub case: Case,
    /// Policies in place of those of the test.
    pub policies: Option<Vec<PolicySource>>,
}

/// Where policies come from.
#[derive(Debug, Clone, PartialEq)]
pub enum PolicySource {
    /// They stand in the test.
    Inline(Box<SourcedObject>),
    /// They stand in files.
    Files {
        /// File, folder or pattern, relative to the test's file.
        pattern: String,
        /// Where the pattern stands.
        origin: Origin,
    },
}

/// A valid object, and where its rules stand.
#[derive(Debug, Clone, PartialEq)]
pub struct SourcedObject {
    /// The object.
    pub object: Object,
    /// Line of each entry of `spec.rules`, or of `spec.jwtRules`.
    pub rule_lines: Vec<u32>,
}

/// A document that somebody applies, and what is to become of it.
#[derive(Debug, Clone, PartialEq)]
pub struct AdmissionCase {
    /// Its name, unique among the admission tests of its file.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// What is expected.
    pub expect: Admission,
    /// What one of the messages is to hold, whatever its case.
    pub message: Option<String>,
    /// What becomes of it.
    pub found: Admission,
    /// Everything that is said about it; fields are paths within the document.
    pub problems: Vec<Problem>,
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolicyTests {
    /// The tests, in order.
    pub tests: Vec<PolicyTest>,
    /// Documents of other kinds, by their first line.
    pub others: Vec<Origin>,
    /// Errors, with one of which no test of the file is to be run, and what is doubtful.
    pub problems: Vec<Problem>,
}

impl PolicyTests {
    /// Whether something is wrong with the file.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// Reads the tests of a file. `file` is its name as the user would write it.
#[must_use]
pub fn parse(file: &str, text: &str) -> PolicyTests {
    let file: Arc<str> = file.into();
    let mut read = PolicyTests::default();
    for chunk in split(text) {
        read_chunk(&file, chunk, &mut read);
    }
    refuse_repeated_names(&mut read);
    read
}

/// Reads the objects of a file of policies, as [`super::parse`] does, with the lines of their rules.
///
/// # Errors
/// What is wrong with its documents. Those of kinds that are not the mesh's are passed over.
pub fn parse_policies(
    file: &str,
    text: &str,
    context: &LowerContext,
) -> Result<Vec<SourcedObject>, Vec<Problem>> {
    let mut objects = Vec::new();
    let mut errors = Vec::new();
    for document in super::parse(file, text, context).documents {
        match document.outcome {
            Ok(object) => {
                let rule_lines = document::rule_lines(&document.text, document.origin.line);
                objects.push(SourcedObject { object, rule_lines });
            }
            Err(problems) => {
                errors.extend(problems.into_iter().filter(|problem| problem.severity == Severity::Error));
            }
        }
    }
    if errors.is_empty() { Ok(objects) } else { Err(errors) }
}

fn read_chunk(file: &Arc<str>, chunk: Chunk<'_>, read: &mut PolicyTests) {
    let (tree, error) = build_generously(chunk);
    let mut report = Report::new(file);
    if let Some(error) = error {
        report.error_at_line(error.line, error.message, error.hint);
        read.problems.extend(report.into_problems());
        return;
    }
    let Some(root) = tree.root().filter(|root| !root.is_null()) else { return };
    if is_other(root) {
        read.others.push(Origin { file: Arc::clone(file), line: root.line() });
        return;
    }
    let test = policy_test(file, root, &mut report);
    read.problems.extend(report.into_problems());
    read.tests.push(test);
}

/// Whether the document says that it is something else. One that says nothing is refused as a test.
fn is_other(root: Place<'_>) -> bool {
    let says = |name: &str| match root.child(name)?.found() {
        Found::Scalar(_, text) => Some(text),
        Found::List | Found::Map => None,
    };
    says("apiVersion").is_some() && says("kind").is_some_and(|kind| kind != KIND)
}

fn policy_test(file: &Arc<str>, root: Place<'_>, report: &mut Report) -> PolicyTest {
    let fields = root.fields(&["apiVersion", "kind", "metadata", "spec"], report);
    let hint = "Write apiVersion: mini-mesh.io/v1alpha1 and kind: PolicyTest.";
    if let Some(place) = fields.required("apiVersion", hint, report) {
        let _ = place.choice(&[(API_VERSION, ())], report);
    }
    if let Some(place) = fields.required("kind", hint, report) {
        let _ = place.choice(&[(KIND, ())], report);
    }
    let metadata = fields
        .optional("metadata")
        .map(|place| place.fields(&["name", "namespace", "labels", "annotations"], report));
    let named = metadata.and_then(|metadata| metadata.optional("name"));
    let name = named.and_then(|place| name(place, report));
    let mut test = PolicyTest {
        name: name.unwrap_or_default().to_owned(),
        origin: Origin { file: Arc::clone(file), line: root.line() },
        policies: Vec::new(),
        key_sets: KeySets::new(),
        cases: Vec::new(),
        admission: Vec::new(),
    };
    if let Some(spec) = fields.required("spec", "State cases or admission.", report) {
        read_spec(file, spec, &mut test, report);
    }
    test
}

fn read_spec(file: &Arc<str>, place: Place<'_>, test: &mut PolicyTest, report: &mut Report) {
    let spec = place.fields(&["mesh", "policies", "keySets", "cases", "admission"], report);
    let mesh = spec.optional("mesh").map(|place| mesh(place, report)).unwrap_or_default();
    let context = context(&mesh);
    let policies = spec.optional("policies").map(|place| policies(file, place, &context, report));
    test.policies = policies.unwrap_or_default();
    test.key_sets = spec.optional("keySets").map(|place| key_sets(place, report)).unwrap_or_default();
    for place in spec.optional("cases").map(|place| place.items(report)).unwrap_or_default() {
        test.cases.extend(case::read(file, place, &mesh, report));
    }
    for place in spec.optional("admission").map(|place| place.items(report)).unwrap_or_default() {
        test.admission.extend(admission::read(file, place, &context, report));
    }
    let is_map = matches!(place.found(), Found::Map);
    if is_map && test.cases.is_empty() && test.admission.is_empty() && !report.has_errors() {
        report.error(place, "tests nothing", "State cases or admission.");
    }
}

/// What documents are read in the light of.
pub(super) fn context(mesh: &MeshOverrides) -> LowerContext {
    let mut settings = MeshSettings::default();
    mesh.apply_to(&mut settings);
    LowerContext { root_namespace: settings.root_namespace, ..LowerContext::default() }
}

pub(super) fn mesh(place: Place<'_>, report: &mut Report) -> MeshOverrides {
    let known = ["rootNamespace", "trustDomain", "trustDomainAliases", "pathNormalization"];
    let fields = place.fields(&known, report);
    let domain = |place: Place<'_>, report: &mut Report| {
        // Istio takes an `@` for a dot (SEMANTICS 2.1).
        place.parsed(|text| crate::name::TrustDomain::parse(&text.replace('@', ".")), report)
    };
    let aliases = fields.get("trustDomainAliases").map(|place| place.items(report));
    MeshOverrides {
        root_namespace: fields
            .get("rootNamespace")
            .and_then(|place| place.parsed(crate::name::Namespace::parse, report)),
        trust_domain: fields.get("trustDomain").and_then(|place| domain(place, report)),
        trust_domain_aliases: aliases
            .map(|places| places.into_iter().filter_map(|place| domain(place, report)).collect()),
        path_normalization: fields
            .get("pathNormalization")
            .and_then(|place| place.choice(&super::mesh_config::NORMALIZATIONS, report)),
    }
}

pub(super) fn policies(
    file: &Arc<str>,
    place: Place<'_>,
    context: &LowerContext,
    report: &mut Report,
) -> Vec<PolicySource> {
    place.items(report).into_iter().filter_map(|place| policy(file, place, context, report)).collect()
}

fn policy(
    file: &Arc<str>,
    place: Place<'_>,
    context: &LowerContext,
    report: &mut Report,
) -> Option<PolicySource> {
    if place.child("file").is_some() && place.child("kind").is_none() {
        let fields = place.fields(&["file"], report);
        let pattern = fields.get("file")?.non_empty(report)?.to_owned();
        return Some(PolicySource::Files {
            pattern,
            origin: Origin { file: Arc::clone(file), line: place.line() },
        });
    }
    match document::of_place(file, place, context) {
        Whole { object: Some(object), problems: _ } => {
            let rule_lines = document::lines_of_rules(place);
            Some(PolicySource::Inline(Box::new(SourcedObject { object, rule_lines })))
        }
        Whole { object: None, problems } => {
            for problem in problems.into_iter().filter(|problem| problem.severity == Severity::Error) {
                report.adopt(problem);
            }
            None
        }
    }
}

/// Keys of rules with `jwksUri` or an issuer to ask: the JWKS that its URL would answer with, as a map or as
/// JSON text.
fn key_sets(place: Place<'_>, report: &mut Report) -> KeySets {
    let mut sets = KeySets::new();
    for entry in place.entries(report) {
        let text = match entry.found() {
            Found::Map => entry.to_json().to_string(),
            Found::Scalar(..) | Found::List => match entry.non_empty(report) {
                Some(text) => text.to_owned(),
                None => continue,
            },
        };
        if serde_json::from_str::<serde_json::Value>(&text).is_err() {
            report.error(entry, "is not JSON", "Write the JWKS that the URL would answer with.");
        }
        let set = KeySet { jwks: Some(text.into()), problem: String::new() };
        sets.insert(entry.name().to_owned(), set);
    }
    sets
}

fn refuse_repeated_names(read: &mut PolicyTests) {
    let cases = read.tests.iter().flat_map(|test| &test.cases);
    let cases = cases.map(|case| (case.case.name.as_str(), &case.case.origin));
    let mut repeated = repeated(cases);
    let admission = read.tests.iter().flat_map(|test| &test.admission);
    repeated.extend(self::repeated(admission.map(|case| (case.name.as_str(), &case.origin))));
    read.problems.extend(repeated);
}

fn repeated<'t>(names: impl Iterator<Item = (&'t str, &'t Origin)>) -> Vec<Problem> {
    let mut first: BTreeMap<&str, &Origin> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, origin) in names {
        if let Some(other) = first.get(name) {
            problems.push(Problem {
                code: super::report::INVALID.to_owned(),
                severity: Severity::Error,
                object: None,
                origin: origin.clone(),
                field: String::new(),
                message: format!("the name {name:?} stands twice in the file; the other is at {other}"),
                hint: "Name one of the two otherwise.".to_owned(),
            });
        } else {
            first.insert(name, origin);
        }
    }
    problems
}

/// Says that a field has no effect.
fn without_effect(place: Place<'_>, reason: &str, report: &mut Report) {
    report.warn(place, reason, "Remove it.");
}

/// A text that is not empty; a number or truth value needs no quotes.
fn name<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    let text = loose_text(place, report)?;
    if text.is_empty() {
        return place.non_empty(report);
    }
    Some(text)
}

/// The text of a value, or of a number or truth value that is written without quotes.
fn loose_text<'t>(place: Place<'t>, report: &mut Report) -> Option<&'t str> {
    use super::scalar::ScalarType;
    match place.found() {
        Found::Scalar(
            ScalarType::Text | ScalarType::Boolean(_) | ScalarType::Integer(_) | ScalarType::Float(_),
            text,
        ) => Some(text),
        Found::Scalar(ScalarType::Null, _) | Found::List | Found::Map => place.text(report),
    }
}

/// Headers by name: one value, or a list of lines.
fn header_lines(place: Place<'_>, report: &mut Report) -> Vec<(String, Vec<String>)> {
    let mut headers = Vec::new();
    for entry in place.entries(report) {
        let lines: Vec<String> = match entry.found() {
            Found::List => {
                let lines = entry.items(report).into_iter();
                lines.filter_map(|line| loose_text(line, report)).map(str::to_owned).collect()
            }
            Found::Scalar(..) | Found::Map => {
                loose_text(entry, report).map(str::to_owned).into_iter().collect()
            }
        };
        headers.push((entry.name().to_owned(), lines));
    }
    headers
}

#[cfg(test)]
mod tests;
