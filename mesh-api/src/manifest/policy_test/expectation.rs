//! What a case expects: the bare word `allow` or `deny`, or a map.

use super::super::report::Report;
use super::super::tree::{Found, Place};
use super::{header_lines, loose_text};
use crate::model::MtlsMode;
use crate::policy_test::{Expectation, UpstreamExpectation, Verdict};

const KNOWN: [&str; 8] =
    ["decision", "status", "body", "responseHeaders", "policy", "requestPrincipal", "mtls", "upstream"];
const VERDICTS: [(&str, Verdict); 2] = [("allow", Verdict::Allow), ("deny", Verdict::Deny)];
const MODES: [(&str, MtlsMode); 3] =
    [("STRICT", MtlsMode::Strict), ("PERMISSIVE", MtlsMode::Permissive), ("DISABLE", MtlsMode::Disable)];

pub(super) fn read(place: Place<'_>, report: &mut Report) -> Option<Expectation> {
    if let Found::Scalar(super::super::scalar::ScalarType::Text, _) = place.found() {
        let decision = place.choice(&VERDICTS, report)?;
        return Some(Expectation { decision: Some(decision), ..Expectation::default() });
    }
    let fields = place.fields(&KNOWN, report);
    let text = |name: &str, report: &mut Report| {
        fields.get(name).and_then(|place| loose_text(place, report)).map(str::to_owned)
    };
    let status = fields.get("status").and_then(|place| place.integer(100..=599, report));
    let expectation = Expectation {
        decision: fields.get("decision").and_then(|place| place.choice(&VERDICTS, report)),
        status: status.and_then(|status| u16::try_from(status).ok()),
        body: text("body", report),
        response_headers: fields
            .get("responseHeaders")
            .map(|place| header_lines(place, report))
            .unwrap_or_default(),
        policy: fields.get("policy").and_then(|place| policy(place, report)),
        request_principal: match fields.get("requestPrincipal") {
            Some(place) if place.is_null() => Some(String::new()),
            Some(_) | None => text("requestPrincipal", report),
        },
        mtls: fields.get("mtls").and_then(|place| place.choice(&MODES, report)),
        upstream: fields.get("upstream").map(|place| upstream(place, report)),
    };
    if matches!(place.found(), Found::Map) && place.children().len() == 0 {
        report.error(place, "expects nothing", "State a decision, or something else to be checked.");
    }
    Some(expectation)
}

/// `NAMESPACE/NAME`; empty or null for none.
fn policy(place: Place<'_>, report: &mut Report) -> Option<String> {
    let text = if place.is_null() { "" } else { place.text(report)? };
    let is_named = text
        .split_once('/')
        .is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'));
    if !is_named && !text.is_empty() {
        let hint = "Write the namespace and the name of the policy that is to decide, or \"\" for none.";
        report.error(place, "is not NAMESPACE/NAME", hint);
        return None;
    }
    Some(text.to_owned())
}

fn upstream(place: Place<'_>, report: &mut Report) -> UpstreamExpectation {
    let known = ["path", "policyPath", "headers", "presentHeaders", "absentHeaders", "pathNotContains"];
    let fields = place.fields(&known, report);
    if matches!(place.found(), Found::Map) && place.children().len() == 0 {
        report.error(place, "expects nothing", "State what the application is to receive.");
    }
    let names = |name: &str, report: &mut Report| {
        fields.get(name).map(|place| place.texts(report)).unwrap_or_default()
    };
    UpstreamExpectation {
        path: fields.get("path").and_then(|place| place.text(report)).map(str::to_owned),
        policy_path: fields.get("policyPath").and_then(|place| place.text(report)).map(str::to_owned),
        headers: fields.get("headers").map(|place| header_lines(place, report)).unwrap_or_default(),
        present_headers: names("presentHeaders", report),
        absent_headers: names("absentHeaders", report),
        path_not_contains: fields
            .get("pathNotContains")
            .and_then(|place| place.non_empty(report))
            .map(str::to_owned),
    }
}
