//! `cargo xtask bench policy`: what a decision costs in instructions and allocations, with ten rules and with
//! ten thousand.
//!
//! Counted under valgrind and not timed, so a busy machine does not matter and a change of one percent shows.
//! Each figure is the difference of two runs that differ in the number of decisions alone, which leaves out the
//! making of policies and requests. Limits are ratios, because the instructions themselves belong to a compiler
//! and a processor. Time is measured by `cargo bench -p mesh-policy`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::output;
use crate::process::{capture, cargo, command, display};
use crate::tools;

/// Numbers of rules.
const RULES: [u32; 4] = [10, 100, 1_000, 10_000];
/// Decisions that are counted; some rounds through the requests of the benchmark.
const DECISIONS: u32 = 2_560;
/// Rules for which allocations are counted: memory is watched slowly.
const RULES_WATCHED: u32 = 1_000;
/// Most that ten thousand rules may cost, with what ten cost as the unit (DESIGN.md section 9).
const RATIO_MAX: f64 = 1.5;

/// One shape of rules and requests, measured.
#[derive(Debug)]
struct Row {
    shape: String,
    /// Instructions of one decision, for each of [`RULES`].
    instructions: [f64; RULES.len()],
    /// Allocations of all decisions.
    allocations: u64,
}

impl Row {
    fn ratio(&self) -> f64 {
        let [few, .., many] = self.instructions;
        many / few
    }

    fn missed(&self) -> Option<String> {
        let mut missed = Vec::new();
        if self.ratio() > RATIO_MAX {
            missed.push(format!("ten thousand rules cost {:.2} times what ten cost", self.ratio()));
        }
        if self.allocations > 0 {
            missed.push(format!("{} allocations in {DECISIONS} decisions", self.allocations));
        }
        (!missed.is_empty()).then(|| format!("{}: {}", self.shape, missed.join(", ")))
    }
}

/// Counts, prints the table, and judges it.
///
/// # Errors
/// When something that it needs is missing, or a limit is missed.
pub(crate) fn run() -> Result<()> {
    tools::ensure(&[tools::VALGRIND])?;
    output::note("building the benchmark of mesh-policy, optimised");
    let program = build()?;
    let shapes = capture(&mut command(&program, &["shapes"]))?;
    ensure!(shapes.status.success(), "{}: {}", program.display(), shapes.status);
    let shapes = String::from_utf8(shapes.stdout).context("the names of the shapes")?;
    let mut rows = Vec::new();
    for shape in shapes.lines() {
        output::note(&format!("counting {shape}"));
        rows.push(measure(&program, shape)?);
    }
    output::line(&table(&rows));
    let missed: Vec<_> = rows.iter().filter_map(Row::missed).collect();
    if missed.is_empty() { Ok(()) } else { bail!("limits missed: {}", missed.join("; ")) }
}

/// Builds the benchmark and says where it is.
fn build() -> Result<PathBuf> {
    let words =
        ["bench", "--package", "mesh-policy", "--bench", "evaluate", "--no-run", "--message-format=json"];
    let mut building = cargo(&words);
    building.stderr(std::process::Stdio::inherit());
    let built = building.output().with_context(|| format!("cannot run {}", display(&building)))?;
    ensure!(built.status.success(), "{}: {}", display(&building), built.status);
    let lines = String::from_utf8(built.stdout).context("messages of cargo")?;
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages
        .filter(|message| message["target"]["name"] == "evaluate")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next().context("cargo names no program of the benchmark")
}

fn measure(program: &Path, shape: &str) -> Result<Row> {
    let mut instructions = [0.0; RULES.len()];
    for (slot, rules) in instructions.iter_mut().zip(RULES) {
        let counted = difference(program, shape, rules, &CALLGRIND)?;
        *slot = f64::from(u32::try_from(counted).context("more instructions than can be")?)
            / f64::from(DECISIONS);
    }
    let allocations = difference(program, shape, RULES_WATCHED, &MEMCHECK)?;
    Ok(Row { shape: shape.to_owned(), instructions, allocations })
}

/// A tool of valgrind, and the words in front of its figure.
struct Counter {
    arguments: &'static [&'static str],
    figure: &'static str,
}

const CALLGRIND: Counter =
    Counter { arguments: &["--tool=callgrind", "--callgrind-out-file=/dev/null"], figure: "Collected : " };
const MEMCHECK: Counter = Counter {
    arguments: &["--tool=memcheck", "--leak-check=no", "--undef-value-errors=no"],
    figure: "total heap usage: ",
};

/// What [`DECISIONS`] decisions add to the figure.
fn difference(program: &Path, shape: &str, rules: u32, counter: &Counter) -> Result<u64> {
    let [few, many] = [1, 1 + DECISIONS].map(|decisions| count(program, shape, (rules, decisions), counter));
    let (few, many) = (few?, many?);
    many.checked_sub(few).with_context(|| format!("{shape}: more decisions count {many} and fewer {few}"))
}

fn count(program: &Path, shape: &str, (rules, decisions): (u32, u32), counter: &Counter) -> Result<u64> {
    let mut counting = command("valgrind", counter.arguments);
    counting.arg(program).args(["count", shape, &rules.to_string(), &decisions.to_string()]);
    let counted = capture(&mut counting)?;
    let report = String::from_utf8_lossy(&counted.stderr);
    ensure!(counted.status.success(), "{}: {}\n{report}", display(&counting), counted.status);
    let (_, after) = report.split_once(counter.figure).with_context(|| format!("no figure in:\n{report}"))?;
    let digits: String =
        after.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no number in:\n{report}"))
}

fn table(rows: &[Row]) -> String {
    let mut table = format!("{:<22}", "instructions/decision");
    for rules in RULES {
        let _infallible = write!(table, "{rules:>9}");
    }
    let _infallible = writeln!(table, "{:>8}{:>13}", "ratio", "allocations");
    for row in rows {
        let _infallible = write!(table, "{:<22}", row.shape);
        for count in row.instructions {
            let _infallible = write!(table, "{count:>9.0}");
        }
        let _infallible = writeln!(table, "{:>8.2}{:>13}", row.ratio(), row.allocations);
    }
    table.truncate(table.trim_end().len());
    table
}
