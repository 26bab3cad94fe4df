//! Every code that `meshctl analyze` prints: its level, what it means, an example, and what to do.
//!
//! The codes are an interface: pipelines suppress and count them, so that a number keeps its meaning for ever.
//! Istio's are used where Istio has one (`IST…`), ours (`MM…`) for the rest. docs/analyze.md is this table; a
//! test holds the two equal.

use mesh_api::problem::Severity;

/// One code.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The number, for instance `MM0405`.
    pub id: &'static str,
    /// A name in one word, by which it can be selected too.
    pub name: &'static str,
    /// Level, unless a finding states another.
    pub severity: Severity,
    /// What is wrong, and what happens because of it.
    pub meaning: &'static str,
    /// A few lines that are reported.
    pub example: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

macro_rules! codes {
    ($($ident:ident = $id:literal $name:literal $severity:ident, $meaning:literal, $example:literal, $fix:literal;)*) => {
        $(pub(crate) const $ident: &Code = &Code {
            id: $id,
            name: $name,
            severity: Severity::$severity,
            meaning: $meaning,
            example: $example,
            fix: $fix,
        };)*

        /// Every code, in order of its number.
        pub const CATALOGUE: &[&Code] = &[$($ident),*];
    };
}

mod table;

pub use table::CATALOGUE;
pub(crate) use table::*;

/// The code of a number or name, in any case.
#[must_use]
pub fn find(text: &str) -> Option<&'static Code> {
    CATALOGUE
        .iter()
        .copied()
        .find(|code| code.id.eq_ignore_ascii_case(text) || code.name.eq_ignore_ascii_case(text))
}

/// The catalogue as a page of documentation.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(INTRODUCTION);
    for code in CATALOGUE {
        page.push_str(&format!(
            "| [{id}](#{anchor}) | {} | {} |\n",
            code.severity,
            code.name,
            id = code.id,
            anchor = anchor(code)
        ));
    }
    for code in CATALOGUE {
        page.push_str(&format!("\n### {} {}\n\n{}: {}\n", code.id, code.name, code.severity, code.meaning));
        if !code.example.is_empty() {
            page.push_str(&format!("\n```yaml\n{}\n```\n", code.example.trim_end()));
        }
        page.push_str(&format!("\nFix: {}\n", code.fix));
    }
    page
}

fn anchor(code: &Code) -> String {
    format!("{}-{}", code.id.to_lowercase(), code.name.to_lowercase())
}

const INTRODUCTION: &str = "\
# What `meshctl analyze` finds

`meshctl analyze FILE…` reads files and folders (`-` for standard input) without any mesh; `meshctl analyze` or
`meshctl analyze live` looks at the running mesh, and `meshctl analyze -k FILE…` at the files as if they were applied
to it. Every finding has a code, a level, the object, file and line of the field, what happens because of it, and a fix.

Exit status: 0, or 79 when a finding reaches the threshold (`--fail-on`, default `error`).

What needs other objects to be judged is only reported when they are there: a selector is compared with workloads
(WorkloadEntry, Pod, Deployment and the like, or a `mesh.yaml`) as soon as any is known, hosts with Services and
ServiceEntries, namespaces with Namespaces. With none of them nothing is guessed, and a remark says what was not looked at.

A finding that is meant can be left out: `--suppress \"MM0405=AuthorizationPolicy *.shop\"`, or on the object itself the
annotation `mini-mesh.io/analyze-suppress: MM0405` (Istio's `galley.istio.io/analyze-suppress` works too; `*` stands for
any characters).

A namespace is marked as regulated with the label or annotation `mini-mesh.io/regulated: \"true\"`: plaintext is then
reported wherever it is accepted in it (MM0204).

| code | level | name |
|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        assert!(CATALOGUE.windows(2).all(|pair| pair[0].id < pair[1].id), "in order of their numbers");
        let mut names: Vec<_> = CATALOGUE.iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CATALOGUE.len());
        assert_eq!(find("mm0405").map(|code| code.name), Some("StrayDash"));
        assert_eq!(find("straydash").map(|code| code.id), Some("MM0405"));
    }

    #[test]
    fn the_page_is_the_catalogue() {
        let written = include_str!("../../../docs/analyze.md");
        assert!(
            written == page(),
            "write it anew: UPDATE_DOCS=1 cargo test -p mesh-cli the_page_is_the_catalogue"
        );
    }
}
