//! Reports for CI servers: JUnit XML and the Test Anything Protocol.

use std::fmt::Write as _;

use super::{CaseResult, Report};

/// What differs, in one line.
fn summary(result: &CaseResult) -> String {
    let told = result.mismatches.iter().map(|mismatch| {
        format!("{}: expected {}, found {}", mismatch.field, mismatch.expected, mismatch.found)
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Why, in lines without colours.
fn details(result: &CaseResult) -> Vec<String> {
    let judgement = result.judgement.iter().flat_map(super::people::judgement_lines);
    let problems = result.problems.iter().map(ToString::to_string);
    problems.chain(judgement).map(|line| anstream::adapter::strip_str(&line).to_string()).collect()
}

/// The report as JUnit XML: a suite for each file, and an error for each reason why tests did not run.
pub(super) fn junit(report: &Report) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _cannot_fail = writeln!(
        xml,
        "<testsuites name=\"meshctl policy test\" tests=\"{}\" failures=\"{}\" errors=\"{}\">",
        report.results.len() + report.problems.len(),
        report.failed,
        report.problems.len()
    );
    let mut results = report.results.as_slice();
    while let Some(first) = results.first() {
        let count = results.iter().take_while(|result| result.file == first.file).count();
        let (of_file, rest) = results.split_at(count);
        results = rest;
        suite(&mut xml, of_file);
    }
    if !report.problems.is_empty() {
        let count = report.problems.len();
        let _cannot_fail = writeln!(
            xml,
            "  <testsuite name=\"not run\" tests=\"{count}\" failures=\"0\" errors=\"{count}\">"
        );
        for problem in &report.problems {
            let place = escaped(&problem.origin.to_string());
            let _cannot_fail = writeln!(
                xml,
                "    <testcase classname=\"{place}\" name=\"can be read\">\n      <error message=\"{}\"/>\n    \
                 </testcase>",
                escaped(&problem.to_string())
            );
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>");
    xml
}

fn suite(xml: &mut String, results: &[CaseResult]) {
    let file = escaped(&results.first().map(|result| result.file.clone()).unwrap_or_default());
    let failures = results.iter().filter(|result| !result.passed).count();
    let _cannot_fail = writeln!(
        xml,
        "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\">",
        results.len()
    );
    for result in results {
        let head = format!(
            "    <testcase classname=\"{file}\" name=\"{}\" file=\"{file}\" line=\"{}\"",
            escaped(&result.name),
            result.line
        );
        xml.push_str(&head);
        if result.passed {
            xml.push_str("/>\n");
            continue;
        }
        let _cannot_fail = writeln!(
            xml,
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
            escaped(&summary(result)),
            escaped(&details(result).join("\n"))
        );
    }
    xml.push_str("  </testsuite>\n");
}

/// Text as XML takes it; what XML 1.0 cannot hold at all becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The report in the Test Anything Protocol, version 14 (<https://testanything.org/tap-version-14-specification.html>).
pub(super) fn tap(report: &Report) -> String {
    let mut text = "TAP version 14\n".to_owned();
    let _cannot_fail = writeln!(text, "1..{}", report.results.len() + report.problems.len());
    let mut number = 0;
    for result in &report.results {
        number += 1;
        let name = described(&format!("{}:{} {}", result.file, result.line, result.name));
        if result.passed {
            let _cannot_fail = writeln!(text, "ok {number} - {name}");
        } else {
            let _cannot_fail = writeln!(text, "not ok {number} - {name}");
            diagnostics(&mut text, &summary(result), &details(result));
        }
    }
    for problem in &report.problems {
        number += 1;
        let name = described(&format!("{} cannot run", problem.origin));
        let _cannot_fail = writeln!(text, "not ok {number} - {name}");
        diagnostics(&mut text, &problem.to_string(), &[]);
    }
    if report.lacks_coverage() {
        let demanded = report.coverage_demanded.unwrap_or_default();
        let _cannot_fail = writeln!(
            text,
            "# coverage of {} % is less than the {demanded} % demanded",
            report.coverage_percent
        );
    }
    text.trim_end().to_owned()
}

/// A YAML block below a test.
fn diagnostics(text: &mut String, message: &str, details: &[String]) {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let _cannot_fail = writeln!(text, "  ---\n  message: {}", quoted(message));
    if !details.is_empty() {
        text.push_str("  explanation:\n");
        for line in details {
            let _cannot_fail = writeln!(text, "  - {}", quoted(line));
        }
    }
    text.push_str("  ...\n");
}

/// A description: a `#` would start a directive.
fn described(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '#' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_name_is_markup() {
        assert_eq!(escaped("a<b>&\"\n\u{1}"), "a&lt;b&gt;&amp;&quot;&#10;\u{fffd}");
        assert_eq!(described("a # SKIP\\\nb"), "a \\# SKIP\\\\ b");
    }
}
