//! The report for people: a line and a tree for each case that fails, then totals and coverage.

use mesh_policy::judge::Judgement;

use super::{CaseResult, Report, Subject, tree};
use crate::output;

/// Most rules that are named as never exercised.
const RULES_MAX: usize = 50;

/// Prints the report.
pub(super) fn print(report: &Report) {
    for result in report.results.iter().filter(|result| !result.passed) {
        failure(result);
    }
    output::line(&totals(report));
    if report.coverage.rules > 0 {
        coverage(report);
    }
}

fn failure(result: &CaseResult) {
    let mismatches: Vec<String> = result
        .mismatches
        .iter()
        .map(|mismatch| {
            format!(
                "{}: expected {}, found {}",
                mismatch.field,
                plain(&mismatch.expected),
                plain(&mismatch.found)
            )
        })
        .collect();
    let place = format!("{}:{}", result.file, result.line);
    let name = plain(&result.name);
    output::line(&format!("{} {place} {name}: {}", output::bad("FAIL"), mismatches.join("; ")));
    for problem in &result.problems {
        output::line(&format!("    {}", plain(&problem.to_string())));
    }
    if let Some(judgement) = &result.judgement {
        judgement_lines(judgement).iter().for_each(|line| output::line(&format!("    {line}")));
    }
}

/// What became of a request, and why.
pub(super) fn judgement_lines(judgement: &Judgement) -> Vec<String> {
    let mut lines = vec![plain(&judgement.reason)];
    if let Some(path) = &judgement.policy_path {
        lines.push(format!("path as policies see it: {}", plain(path)));
    }
    if let Some(principal) = &judgement.request_principal {
        lines.push(format!("request principal: {}", plain(principal)));
    }
    if let Some(explanation) = &judgement.explanation {
        lines.extend(tree::lines(explanation, judgement.rules_omitted));
    }
    lines
}

fn totals(report: &Report) -> String {
    let of = |subject: Subject| report.results.iter().filter(move |result| result.subject == subject);
    let mut parts = Vec::new();
    for (subject, one, many) in
        [(Subject::Case, "case", "cases"), (Subject::Admission, "admission test", "admission tests")]
    {
        let all = of(subject).count();
        let failed = of(subject).filter(|result| !result.passed).count();
        if all > 0 {
            let count = output::count(all, one, many);
            parts.push(match failed {
                0 => format!("{count} passed"),
                failed => format!("{failed} of {count} failed"),
            });
        }
    }
    if parts.is_empty() {
        parts.push("no test ran".to_owned());
    }
    let text = parts.join(", ");
    match (report.problems.len(), report.failed) {
        (0, 0) => format!("{} {text}", output::good("✔")),
        (0, _) => format!("{} {text}", output::bad("✘")),
        (problems, _) => {
            let problems = output::count(
                problems,
                "problem keeps tests from running",
                "problems keep tests from running",
            );
            format!("{} {text}; {problems}", output::bad("✘"))
        }
    }
}

fn coverage(report: &Report) {
    let never = &report.coverage.never_exercised;
    let rules = output::count(report.coverage.rules, "rule", "rules");
    let percent = report.coverage_percent;
    if never.is_empty() {
        output::line(&format!("coverage: {rules}, all exercised"));
    } else {
        output::line(&format!("coverage: {} of {rules} never exercised ({percent} % covered)", never.len()));
    }
    for rule in never.iter().take(RULES_MAX) {
        output::line(&format!("  {}:{} {} rule {}", rule.file, rule.line, rule.policy, rule.rule));
    }
    if never.len() > RULES_MAX {
        output::line(&format!("  and {} more; -o json lists them all", never.len() - RULES_MAX));
    }
    if let Some(demanded) = report.coverage_demanded.filter(|_| report.lacks_coverage()) {
        output::line(&format!("{} {percent} % is less than the {demanded} % demanded", output::bad("✘")));
    }
}

/// Text of a file, with what a terminal would obey made visible.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}
