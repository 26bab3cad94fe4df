//! Runs every file in `tests/manifest_cases`. What is expected stands in the file itself, where it happens:
//!
//! - `#! SEVERITY CODE FIELD: TEXT` at the end of a line: a problem of this line, its field path (`-` for
//!   none) and a part of its message or hint. Several are separated by ` #! `.
//! - `#: KIND NAMESPACE/NAME` on a line of its own before a document: the document is valid.
//! - `#- SEVERITY` on a line of its own before a document: it is refused (`Error`) or passed over.
//!
//! Every problem must be expected and every expectation met. Adding a file adds a case; a file that expects
//! nothing fails.

use std::fs;
use std::path::Path;

use mesh_api::manifest::{self, Document, LowerContext};
use mesh_api::problem::{Problem, Severity};

#[derive(Debug, PartialEq, Eq)]
struct Expected {
    line: u32,
    severity: String,
    code: String,
    field: String,
    part: String,
}

fn expected_problems(text: &str) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (number, row) in (1..).zip(text.lines()) {
        for note in row.split("#! ").skip(1) {
            let (head, part) = note.trim().split_once(": ").expect("SEVERITY CODE FIELD: TEXT");
            let [severity, code, field] = head.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                unreachable!("line {number}: SEVERITY CODE FIELD: TEXT")
            };
            expected.push(Expected {
                line: number,
                severity: severity.to_owned(),
                code: code.to_owned(),
                field: field.replace('-', "").to_owned(),
                part: part.to_owned(),
            });
        }
    }
    expected
}

fn expected_documents(text: &str) -> Vec<String> {
    let notes = text.lines().filter_map(|row| row.strip_prefix("#: ").or_else(|| row.strip_prefix("#- ")));
    notes.map(|note| note.trim().to_owned()).collect()
}

fn outcome(document: &Document) -> String {
    match &document.outcome {
        Ok(object) => object.object_ref().to_string(),
        Err(problems) => {
            let worst = problems.iter().map(|problem| problem.severity).max();
            worst.unwrap_or(Severity::Info).to_string()
        }
    }
}

fn meets(expected: &Expected, problem: &Problem) -> bool {
    expected.line == problem.origin.line
        && expected.severity == problem.severity.to_string()
        && expected.code == problem.code
        && expected.field == problem.field.replace('-', "")
        && (problem.message.contains(&expected.part) || problem.hint.contains(&expected.part))
}

fn run(name: &str, text: &str) -> Vec<String> {
    let parsed = manifest::parse(name, text, &LowerContext::default());
    let mut failures = Vec::new();
    let outcomes: Vec<String> = parsed.documents.iter().map(outcome).collect();
    let expected = expected_documents(text);
    if outcomes != expected {
        failures.push(format!("{name}: documents are {outcomes:#?}, expected {expected:#?}"));
    }
    let mut open = expected_problems(text);
    if open.is_empty() && expected.is_empty() {
        failures.push(format!("{name}: expects nothing"));
    }
    for problem in parsed.problems() {
        match open.iter().position(|expected| meets(expected, problem)) {
            Some(at) => drop(open.remove(at)),
            None => failures.push(format!("{name}: not expected: {problem}")),
        }
    }
    failures.extend(open.into_iter().map(|expected| format!("{name}: not found: {expected:?}")));
    failures
}

#[test]
fn every_case_file_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifest_cases");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of cases")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() >= 17, "case files are missing");
    let mut failures = Vec::new();
    for file in files {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        failures.extend(run(&name, &fs::read_to_string(&file).expect("a readable file")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_shop_s_own_documents_are_valid_and_without_complaint() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let mut seen = 0;
    for folder in ["config", "policies"] {
        for entry in fs::read_dir(shop.join(folder)).expect("a folder of the shop") {
            let path = entry.expect("an entry").path();
            let text = fs::read_to_string(&path).expect("a readable file");
            let parsed = manifest::parse("shop.yaml", &text, &LowerContext::default());
            let problems: Vec<String> = parsed.problems().map(ToString::to_string).collect();
            assert!(problems.is_empty(), "{}: {problems:?}", path.display());
            seen += parsed.documents.len();
        }
    }
    assert!(seen >= 8, "documents are missing");
}
