//! Runs the admission tests in `tests/admission_cases`: what is taken and what is refused, with words of the
//! message, by the sections of the contract that the files name.
//!
//! The sizes that would make such a file long are tested here.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use mesh_api::manifest::policy_test::{self, AdmissionCase};
use mesh_api::manifest::{self, LowerContext};
use mesh_api::policy_test::Admission;
use mesh_api::problem::Severity;

/// What does not hold of a case.
fn failure(case: &AdmissionCase) -> Option<String> {
    let told: Vec<String> = case.problems.iter().map(ToString::to_string).collect();
    let is_as_expected = match case.expect {
        Admission::Accept => case.found != Admission::Reject,
        Admission::Warn | Admission::Reject => case.found == case.expect,
    };
    let is_said = case
        .message
        .as_ref()
        .is_none_or(|part| told.iter().any(|message| message.to_lowercase().contains(&part.to_lowercase())));
    (!is_as_expected || !is_said).then(|| {
        format!(
            "{} ({}): {:?} {:?}, found {:?}: {told:#?}",
            case.name, case.origin, case.expect, case.message, case.found
        )
    })
}

#[test]
fn every_admission_case_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/admission_cases");
    let (mut run, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(&folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let read = policy_test::parse(&name, &fs::read_to_string(&path).expect("a readable file"));
        assert!(!read.is_broken(), "{name}: {:#?}", read.problems);
        for case in read.tests.iter().flat_map(|test| &test.admission) {
            run += 1;
            failures.extend(failure(case));
        }
    }
    assert!(run >= 200, "only {run} cases were found");
    assert!(failures.is_empty(), "{} of {run}:\n{}", failures.len(), failures.join("\n"));
}

/// The first error about a policy with this spec, or nothing.
fn refusal(spec: &str) -> Option<String> {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: x}}\nspec: {spec}\n"
    );
    let parsed = manifest::parse("f.yaml", &text, &LowerContext::default());
    assert_eq!(parsed.documents.len(), 1);
    parsed.problems().find(|problem| problem.severity == Severity::Error).map(ToString::to_string)
}

fn repeated(item: &str, count: usize) -> String {
    vec![item; count].join(", ")
}

#[test]
fn limits_hold_at_their_last_value_and_refuse_the_next() {
    let rules = |count| format!("{{rules: [{}]}}", repeated("{}", count));
    let sources =
        |count| format!("{{rules: [{{from: [{}]}}]}}", repeated("{source: {principals: [a]}}", count));
    let operations =
        |count| format!("{{rules: [{{to: [{}]}}]}}", repeated("{operation: {methods: [a]}}", count));
    let account = |length| {
        format!("{{rules: [{{from: [{{source: {{serviceAccounts: [{}]}}}}]}}]}}", "a".repeat(length))
    };
    let labels = |count: usize| {
        let mut pairs = String::new();
        for number in 0..count {
            let _infallible = write!(pairs, "l{number}: v, ");
        }
        format!("{{selector: {{matchLabels: {{{pairs}}}}}}}")
    };
    let target = |length| format!("{{targetRefs: [{{kind: Service, name: {}}}]}}", "a".repeat(length));
    for good in [rules(512), sources(512), operations(600), account(320), labels(4096), target(253)] {
        assert_eq!(refusal(&good), None, "{}", &good[..good.len().min(60)]);
    }
    for (bad, part) in [
        (rules(513), "at most 512"),
        (sources(513), "at most 512"),
        (account(321), "320"),
        (labels(4097), "at most 4096"),
        (target(254), "253"),
    ] {
        let told = refusal(&bad).expect("it is over a limit");
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn huge_and_hostile_texts_end_in_a_refusal() {
    let nested = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let bomb = "{rules: [&a {from: &b [&c {source: {principals: &d [x, x, x, x, x, x, x, x]}}, *c, *c, *c, *c, *c, *c, *c]}, \
                {from: *b}, {from: *b}, *a, *a, *a, *a]}";
    assert!(refusal(&format!("{{rules: {nested}}}")).is_some());
    assert_eq!(refusal(bomb), None, "aliases are no crime");
    let value = "v".repeat(2 * 1024 * 1024);
    let long = refusal(&format!("{{action: {value}, rules: [{{}}]}}")).expect("no action");
    assert!(long.len() < 1_000, "a message of {} bytes", long.len());
    let paths = vec!["'/p'"; 200_000].join(", ");
    assert_eq!(refusal(&format!("{{rules: [{{to: [{{operation: {{paths: [{paths}]}}}}]}}]}}")), None);
}
