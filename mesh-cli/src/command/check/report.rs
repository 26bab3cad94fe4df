//! What checks found, and how it is printed.

use serde_json::{Value, json};

use super::catalogue::{Check, Section};
use crate::output;

/// Lines that one check prints below itself; the others are counted.
const LINES_MAX: usize = 10;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// √
    Good,
    /// ‼
    Doubtful,
    /// ×
    Bad,
}

impl Mark {
    fn sign(self) -> String {
        match self {
            Self::Good => output::good("√"),
            Self::Doubtful => output::doubtful("‼"),
            Self::Bad => output::bad("×"),
        }
    }

    fn result(self) -> &'static str {
        match self {
            Self::Good => "success",
            Self::Doubtful => "warning",
            Self::Bad => "error",
        }
    }
}

/// One check that was made.
#[derive(Debug)]
pub(super) struct Finding {
    check: &'static Check,
    mark: Mark,
    /// What it is about, one object a line.
    lines: Vec<String>,
    /// What to do, when that is not what the catalogue says.
    fix: Option<String>,
}

/// All of them, in order.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Every check.
    Every,
    /// What is not well.
    Trouble,
}

impl Report {
    /// A check ended well.
    pub(super) fn good(&mut self, check: &'static Check) {
        self.add(check, Mark::Good, Vec::new());
    }

    /// A check found something that may be meant.
    pub(super) fn doubtful(&mut self, check: &'static Check, lines: Vec<String>) {
        self.add(check, Mark::Doubtful, lines);
    }

    /// A check found something that is wrong.
    pub(super) fn bad(&mut self, check: &'static Check, lines: Vec<String>) {
        self.add(check, Mark::Bad, lines);
    }

    /// A check found something that is wrong, and what to do is not what the catalogue says.
    pub(super) fn bad_with(&mut self, check: &'static Check, lines: Vec<String>, fix: &str) {
        self.add(check, Mark::Bad, lines);
        if let Some(finding) = self.findings.last_mut() {
            finding.fix = Some(fix.to_owned());
        }
    }

    /// A check could not be made.
    pub(super) fn unanswered(&mut self, check: &'static Check, error: &(dyn std::error::Error + 'static)) {
        self.add(check, Mark::Doubtful, vec![format!("could not be checked: {}", output::chain(error))]);
        if let Some(finding) = self.findings.last_mut() {
            finding.fix = super::super::hint_for(error);
        }
    }

    /// Good without lines, else as `mark` says.
    pub(super) fn judge(&mut self, check: &'static Check, mark: Mark, lines: Vec<String>) {
        match lines.is_empty() {
            true => self.good(check),
            false => self.add(check, mark, lines),
        }
    }

    fn add(&mut self, check: &'static Check, mark: Mark, lines: Vec<String>) {
        self.findings.push(Finding { check, mark, lines, fix: None });
    }

    /// How each check ended, in order.
    #[cfg(test)]
    pub(super) fn marks(&self) -> Vec<Mark> {
        self.findings.iter().map(|finding| finding.mark).collect()
    }

    /// The worst end of all.
    pub(super) fn worst(&self) -> Mark {
        self.findings.iter().map(|finding| finding.mark).max().unwrap_or(Mark::Good)
    }

    fn sections(&self) -> Vec<(Section, Vec<&Finding>)> {
        let mut sections: Vec<(Section, Vec<&Finding>)> = Vec::new();
        for finding in &self.findings {
            match sections.iter_mut().find(|(section, _)| *section == finding.check.section) {
                Some((_, findings)) => findings.push(finding),
                None => sections.push((finding.check.section, vec![finding])),
            }
        }
        sections
    }

    /// Prints it for people.
    pub(super) fn print(&self, detail: Detail) {
        output::line(&self.lines(detail).join("\n"));
    }

    /// The lines for people.
    fn lines(&self, detail: Detail) -> Vec<String> {
        let mut lines = Vec::new();
        for (section, findings) in self.sections() {
            let shown: Vec<&&Finding> = findings
                .iter()
                .filter(|finding| detail == Detail::Every || finding.mark != Mark::Good)
                .collect();
            if shown.is_empty() {
                continue;
            }
            lines.push(output::title(section.as_str()));
            lines.push("-".repeat(section.as_str().len()));
            shown.iter().for_each(|finding| finding.lines(&mut lines));
            lines.push(String::new());
        }
        let status = match self.worst() {
            Mark::Good | Mark::Doubtful => Mark::Good,
            Mark::Bad => Mark::Bad,
        };
        lines.push(format!("Status check results are {}", status.sign()));
        lines
    }

    /// The form for programs: linkerd's.
    pub(super) fn value(&self) -> Value {
        let check = |finding: &&Finding| {
            let mut value = json!({
                "code": finding.check.id,
                "description": finding.check.title,
                "result": finding.mark.result(),
            });
            if finding.mark != Mark::Good
                && let Some(fields) = value.as_object_mut()
            {
                fields.insert("error".to_owned(), json!(finding.lines.join("\n")));
                fields.insert("objects".to_owned(), json!(finding.lines));
                fields.insert("fix".to_owned(), json!(finding.fix()));
                fields.insert("hint".to_owned(), json!(finding.check.anchor()));
            }
            value
        };
        let categories: Vec<Value> = self
            .sections()
            .into_iter()
            .map(|(section, findings)| {
                json!({
                    "categoryName": section.as_str(),
                    "checks": findings.iter().map(check).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"success": self.worst() != Mark::Bad, "categories": categories})
    }
}

impl Finding {
    fn fix(&self) -> &str {
        self.fix.as_deref().unwrap_or(self.check.fix)
    }

    fn lines(&self, lines: &mut Vec<String>) {
        lines.push(format!("{} {}", self.mark.sign(), self.check.title));
        if self.mark == Mark::Good {
            return;
        }
        lines.extend(self.lines.iter().take(LINES_MAX).map(|line| format!("    {line}")));
        if self.lines.len() > LINES_MAX {
            lines.push(format!("    and {} more: -o json lists all", self.lines.len() - LINES_MAX));
        }
        lines.push(format!("    {}", self.fix()));
        lines.push(format!("    see {} for hints", self.check.anchor()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue;
    use super::*;

    fn plain(report: &Report, detail: Detail) -> String {
        anstream::adapter::strip_str(&report.lines(detail).join("\n")).to_string()
    }

    fn sample() -> Report {
        let mut report = Report::default();
        report.good(catalogue::KUBERNETES_API);
        report.bad(catalogue::CONTROL_READY, vec!["mesh-control-1: CrashLoopBackOff".to_owned()]);
        report.doubtful(catalogue::KUBERNETES_VERSION, vec!["v1.28.0".to_owned()]);
        report
    }

    #[test]
    fn a_report_reads_like_linkerds() {
        insta::assert_snapshot!(plain(&sample(), Detail::Every));
    }

    #[test]
    fn the_short_form_leaves_out_what_is_well() {
        let text = plain(&sample(), Detail::Trouble);
        assert!(!text.contains(catalogue::KUBERNETES_API.title), "{text}");
        assert!(text.contains("× ") && text.contains("‼ "), "{text}");
    }

    #[test]
    fn only_what_is_bad_is_a_failure() {
        let mut report = Report::default();
        report.doubtful(catalogue::KUBERNETES_VERSION, vec![String::new()]);
        assert_eq!(report.value()["success"], true);
        assert!(plain(&report, Detail::Every).ends_with("Status check results are √"));
        assert_eq!(sample().value()["success"], false);
        assert!(plain(&sample(), Detail::Every).ends_with("Status check results are ×"));
    }

    #[test]
    fn many_objects_are_counted_and_not_listed() {
        let mut report = Report::default();
        report.doubtful(catalogue::UNMESHED, (0..25).map(|number| format!("pod-{number}")).collect());
        let text = plain(&report, Detail::Every);
        assert!(text.contains("and 15 more") && !text.contains("pod-10"), "{text}");
        assert_eq!(
            report.value()["categories"][0]["checks"][0]["objects"].as_array().map(Vec::len),
            Some(25)
        );
    }
}
