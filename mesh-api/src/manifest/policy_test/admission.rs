//! One admission test: a document that somebody applies, what is said about it, and what was expected.
//!
//! An invalid document is the point here, so it is read like one that is applied and nothing of it is an error
//! of the test. A text stands for what a file would hold, and may be no YAML at all.

use std::sync::Arc;

use super::super::report::Report;
use super::super::scalar::ScalarType;
use super::super::tree::{Found, Place};
use super::super::{self as manifest, document};
use super::AdmissionCase;
use crate::manifest::LowerContext;
use crate::model::Origin;
use crate::policy_test::Admission;
use crate::problem::{Problem, Severity};

pub(super) fn read(
    file: &Arc<str>,
    place: Place<'_>,
    context: &LowerContext,
    report: &mut Report,
) -> Option<AdmissionCase> {
    let fields = place.fields(&["name", "document", "expect", "message"], report);
    let name = fields.required("name", "Name the test.", report).and_then(|place| super::name(place, report));
    let document = fields.required("document", "Write the document that is applied.", report);
    let choices = [("accept", Admission::Accept), ("warn", Admission::Warn), ("reject", Admission::Reject)];
    let expect = fields.required("expect", "Write accept, warn or reject.", report);
    let expect = expect.and_then(|place| place.choice(&choices, report));
    let message = fields.optional("message").map(|place| super::name(place, report));
    let document = document?;
    let prefix = document.path();
    let mut problems = applied(file, document, context);
    for problem in &mut problems {
        if let Some(rest) = problem.field.strip_prefix(&prefix) {
            problem.field = rest.trim_start_matches('.').to_owned();
        }
    }
    let worst = problems.iter().map(|problem| problem.severity).max();
    Some(AdmissionCase {
        name: name?.to_owned(),
        origin: Origin { file: Arc::clone(file), line: place.line() },
        expect: expect?,
        message: match message {
            Some(message) => Some(message?.to_owned()),
            None => None,
        },
        found: match worst {
            Some(Severity::Error) => Admission::Reject,
            Some(Severity::Warning) => Admission::Warn,
            Some(Severity::Info) | None => Admission::Accept,
        },
        problems,
    })
}

/// What is said about a document that somebody applies. Text stands for what a file would hold.
fn applied(file: &Arc<str>, place: Place<'_>, context: &LowerContext) -> Vec<Problem> {
    match place.found() {
        Found::Scalar(ScalarType::Text, text) => {
            manifest::parse(file, text, context).problems().cloned().collect()
        }
        Found::Scalar(..) | Found::List | Found::Map => document::of_place(file, place, context).problems,
    }
}
