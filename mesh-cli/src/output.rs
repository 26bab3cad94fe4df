//! The only place that writes to the terminal: results to standard output, everything else to standard error.
//!
//! A closed pipe (`meshctl … | head`) is the reader's choice and not a failure.

use std::io::Write as _;

use clap::ValueEnum;
pub(crate) use mesh_api::error_chain::chain;
use owo_colors::{OwoColorize as _, Style};
use serde::Serialize;

/// Spaces between columns, as istioctl and kubectl print them.
const GAP: usize = 3;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    #[value(aliases = ["short", "log", "text"])]
    Table,
    /// For programs.
    Json,
    /// For programs, and people who like it.
    Yaml,
}

/// Prints lines of a result.
pub(crate) fn line(text: &str) {
    let mut out = anstream::stdout().lock();
    let _closed_pipe = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints progress or a remark.
pub(crate) fn note(text: &str) {
    let mut out = anstream::stderr().lock();
    let _closed_pipe = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints what is a result for people, and a remark beside the document that programs are given.
pub(crate) fn told(text: &str, form: Format) {
    match form {
        Format::Table => line(text),
        Format::Json | Format::Yaml => note(text),
    }
}

/// Prints an error, and what to do about it.
pub(crate) fn error(text: &str, hint: Option<&str>) {
    note(&format!("{} {text}", "error:".style(Style::new().red().bold())));
    if let Some(hint) = hint {
        note(&format!("{} {hint}", "hint:".style(Style::new().cyan().bold())));
    }
}

/// Prints a value as JSON or YAML.
pub(crate) fn value(value: &impl Serialize, format: Format) {
    let text = match format {
        Format::Table | Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| error.to_string())
        }
        Format::Yaml => serde_saphyr::to_string(value).map_err(|error| error.to_string()),
    };
    match text {
        Ok(text) => line(text.trim_end()),
        Err(message) => error(&format!("the result cannot be printed: {message}"), None),
    }
}

/// Prints a value as one line of JSON, of which many make a stream.
pub(crate) fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(message) => error(&format!("a line cannot be printed: {message}"), None),
    }
}

/// Prints rows below a header, in columns as wide as they need.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    line(&layout(header, rows).join("\n"));
}

/// Good news, in green where colours are shown.
pub(crate) fn good(text: &str) -> String {
    text.style(Style::new().green()).to_string()
}

/// What needs attention, in yellow where colours are shown.
pub(crate) fn doubtful(text: &str) -> String {
    text.style(Style::new().yellow()).to_string()
}

/// Bad news, in red where colours are shown.
pub(crate) fn bad(text: &str) -> String {
    text.style(Style::new().red()).to_string()
}

/// A title, bold where that is shown.
pub(crate) fn title(text: &str) -> String {
    text.style(Style::new().bold()).to_string()
}

/// A duration as istioctl and kubectl print it: its two largest units.
pub(crate) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        (_, _, _) => format!("{days}d{hours}h"),
    }
}

/// `1 proxy`, `2 proxies`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Cells a text takes on a terminal: escape sequences take none.
fn width_of(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

fn layout(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of(cell));
        cells.chain(header.get(column).map(|title| width_of(title))).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let draw = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + GAP - width_of(cell)));
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![draw(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| draw(&mut row.iter().map(String::as_str))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned(), "x".to_owned()], vec!["größer".to_owned()]];
        assert_eq!(
            layout(&["NAME", "B", "LAST"], &rows),
            ["NAME     B           LAST", "a        long cell   x", "größer"]
        );
    }

    #[test]
    fn colours_take_no_room() {
        let rows = [vec![bad("no"), "x".to_owned()], vec!["yes".to_owned(), "y".to_owned()]];
        let plain: Vec<String> = layout(&["A", "B"], &rows)
            .iter()
            .map(|line| anstream::adapter::strip_str(line).to_string())
            .collect();
        assert_eq!(plain, ["A     B", "no    x", "yes   y"]);
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (90, "1m30s"), (3700, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::fmt::Error);
        assert_eq!(chain(&Outer(std::fmt::Error)), format!("outer: {}", std::fmt::Error));
    }
}
