//! `meshctl policy test`: unit tests of policies, for CI.
//!
//! A test that cannot run is worse than one that fails, because it says nothing: an unknown field, a policy
//! that is not valid, a pattern of files that finds none end the command with status 2, whatever else holds.
//! The other tests run all the same, so that one mistake hides nothing.

mod machine;
mod people;
pub(super) mod sources;
pub(in crate::command) mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use mesh_api::manifest::policy_test::{AdmissionCase, PolicyTest};
use mesh_api::policy_test::Admission;
use mesh_api::problem::{Problem, Severity};
use mesh_policy::judge::Judgement;
use mesh_policy::policy_test::{Coverage, Mismatch, Suite};
use serde::Serialize;

use crate::command::{EXIT_FAILURE, Failure, Outcome, analyze};
use crate::output;
use sources::{Sources, TestFile};

/// Exit status when a test cannot run.
const EXIT_NOT_RUN: u8 = 2;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct TestArgs {
    /// Files of PolicyTest documents, folders that hold some, or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    /// Fail when less than this share of the rules is exercised, in percent.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    coverage: Option<u8>,
}

/// Form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Human,
    /// For programs.
    Json,
    /// JUnit XML, for CI servers.
    Junit,
    /// Test Anything Protocol, version 14.
    Tap,
}

/// What a result is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Subject {
    /// A request.
    Case,
    /// A document that somebody applies.
    Admission,
}

/// What became of one case.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CaseResult {
    file: String,
    line: u32,
    name: String,
    subject: Subject,
    passed: bool,
    /// What differs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatches: Vec<Mismatch>,
    /// Of a request that did not become what was expected, with the explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    judgement: Option<Judgement>,
    /// What was said about a document that somebody applies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
}

/// Everything that the command found out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    passed: usize,
    failed: usize,
    /// Files and policies that could not be read, so that tests did not run.
    problems: Vec<Problem>,
    coverage: Coverage,
    /// Share of the rules that was exercised, in percent.
    coverage_percent: usize,
    /// The least share that is demanded.
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage_demanded: Option<u8>,
    results: Vec<CaseResult>,
}

impl Report {
    fn lacks_coverage(&self) -> bool {
        self.coverage_demanded.is_some_and(|demanded| self.coverage_percent < usize::from(demanded))
    }

    fn status(&self) -> u8 {
        if !self.problems.is_empty() {
            EXIT_NOT_RUN
        } else if self.failed > 0 || self.lacks_coverage() {
            EXIT_FAILURE
        } else {
            0
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is nothing to run.
pub(crate) fn run(args: &TestArgs) -> Outcome {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let files = sources::test_files(&args.files, &mut problems);
    let mut suite = Suite::default();
    let mut results = Vec::new();
    let now = jiff::Timestamp::now().as_second();
    for TestFile { name, folder, read } in files {
        let (errors, doubts): (Vec<_>, Vec<_>) =
            read.problems.into_iter().partition(|problem| problem.severity == Severity::Error);
        warnings.extend(doubts);
        if !errors.is_empty() {
            problems.extend(errors);
            continue;
        }
        for test in &read.tests {
            let mut run = Run { suite: &mut suite, sources: &mut sources, folder: &folder, now };
            run.cases(test, &mut results, &mut problems);
            results.extend(test.admission.iter().map(admission));
        }
        if read.tests.is_empty() {
            problems.push(sources::problem(&name, 1, "holds no PolicyTest", ""));
        }
    }
    for problem in warnings.iter().chain(&problems) {
        output::note(&analyze::painted(problem));
    }
    if results.is_empty() && problems.is_empty() {
        let named: Vec<String> = args.files.iter().map(|file| file.display().to_string()).collect();
        return Err(Failure::new(format!("there is no PolicyTest in {}", named.join(", ")))
            .hint("A test states apiVersion: mini-mesh.io/v1alpha1 and kind: PolicyTest.")
            .status(EXIT_NOT_RUN));
    }
    let passed = results.iter().filter(|result| result.passed).count();
    let coverage = suite.coverage();
    let report = Report {
        passed,
        failed: results.len() - passed,
        problems,
        coverage_percent: coverage.percent(),
        coverage,
        coverage_demanded: args.coverage,
        results,
    };
    match args.output {
        Form::Human => people::print(&report),
        Form::Json => output::value(&report, output::Format::Json),
        Form::Junit => output::line(&machine::junit(&report)),
        Form::Tap => output::line(&machine::tap(&report)),
    }
    Ok(ExitCode::from(report.status()))
}

/// What the cases of a file are run with.
struct Run<'r> {
    suite: &'r mut Suite,
    sources: &'r mut Sources,
    /// Where the file stands: its patterns are relative to it.
    folder: &'r std::path::Path,
    now: i64,
}

impl Run<'_> {
    /// Runs the cases of a test. Those whose policies cannot be read do not run.
    fn cases(&mut self, test: &PolicyTest, results: &mut Vec<CaseResult>, problems: &mut Vec<Problem>) {
        let mut sets = Vec::new();
        for case in &test.cases {
            let policies = case.policies.as_ref().unwrap_or(&test.policies);
            let root = case.case.mesh.root_namespace.as_ref();
            let known = sets.iter().find(|(other, of_root, _)| *other == policies && *of_root == root);
            let set = match known {
                Some((.., set)) => *set,
                None => {
                    let set = match self.sources.policy_set(self.folder, policies, root) {
                        Ok(mut set) => {
                            set.policies.key_sets.clone_from(&test.key_sets);
                            Some(self.suite.add(set))
                        }
                        Err(found) => {
                            problems.extend(found);
                            None
                        }
                    };
                    sets.push((policies, root, set));
                    set
                }
            };
            let Some(set) = set else { continue };
            let found = self.suite.run(set, &case.case, self.now);
            let passed = found.mismatches.is_empty();
            results.push(CaseResult {
                file: case.case.origin.file.to_string(),
                line: case.case.origin.line,
                name: case.case.name.clone(),
                subject: Subject::Case,
                passed,
                mismatches: found.mismatches,
                judgement: found.judgement.filter(|_| !passed),
                problems: Vec::new(),
            });
        }
    }
}

/// Compares what was said about a document with what was expected.
fn admission(case: &AdmissionCase) -> CaseResult {
    let is_met = match case.expect {
        Admission::Accept => case.found != Admission::Reject,
        Admission::Warn | Admission::Reject => case.found == case.expect,
    };
    let mut mismatches = Vec::new();
    if !is_met {
        mismatches.push(Mismatch {
            field: "expect".to_owned(),
            expected: case.expect.as_str().to_owned(),
            found: case.found.as_str().to_owned(),
        });
    }
    if let Some(message) = &case.message {
        // What a refusal is to say must not be found in a warning beside it.
        let least = match case.expect {
            Admission::Reject => Severity::Error,
            Admission::Warn => Severity::Warning,
            Admission::Accept => Severity::Info,
        };
        let told: Vec<String> = case
            .problems
            .iter()
            .filter(|problem| problem.severity >= least)
            .map(|problem| format!("{}: {} ({})", problem.field, problem.message, problem.hint))
            .collect();
        if !told.iter().any(|told| told.to_lowercase().contains(&message.to_lowercase())) {
            mismatches.push(Mismatch {
                field: "message".to_owned(),
                expected: format!("a message with {message:?}"),
                found: if told.is_empty() { "none".to_owned() } else { told.join("; ") },
            });
        }
    }
    CaseResult {
        file: case.origin.file.to_string(),
        line: case.origin.line,
        name: case.name.clone(),
        subject: Subject::Admission,
        passed: mismatches.is_empty(),
        problems: if mismatches.is_empty() { Vec::new() } else { case.problems.clone() },
        mismatches,
        judgement: None,
    }
}
