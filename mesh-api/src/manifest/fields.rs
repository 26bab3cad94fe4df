//! Reads values of a [`Place`] into types, each refusal with its reason; nothing stops at the first one.
//!
//! A value that is refused is `None`, so that reading goes on. A null is refused too where a value is
//! stated: in a file that was cut off half way, `from:` with nothing behind it would otherwise widen a rule.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::duration;
use super::report::{Report, alternatives, nearest, shortened};
use super::scalar::ScalarType;
use super::tree::{Found, Place};
use crate::name::Labels;

/// A map whose field names are known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'t> {
    /// The map itself.
    pub(super) place: Place<'t>,
}

impl<'t> Fields<'t> {
    /// The value of a field, null included: a reader will refuse that.
    pub(super) fn get(&self, name: &str) -> Option<Place<'t>> {
        self.place.child(name)
    }

    /// The value of a field, where null is the same as absent (core kinds, metadata).
    pub(super) fn optional(&self, name: &str) -> Option<Place<'t>> {
        self.place.child(name).filter(|place| !place.is_null())
    }

    /// The value of a field that must be there.
    pub(super) fn required(&self, name: &str, hint: &str, report: &mut Report) -> Option<Place<'t>> {
        let found = self.get(name);
        if found.is_none() && matches!(self.place.found(), Found::Map) {
            report.missing(self.place, name, hint);
        }
        found
    }

    /// How many of the fields are stated.
    pub(super) fn stated(&self, names: &[&str]) -> usize {
        names.iter().filter(|name| self.get(name).is_some()).count()
    }
}

impl<'t> Place<'t> {
    /// The map at this place. Fields that are not `known` are refused.
    pub(super) fn fields(self, known: &[&str], report: &mut Report) -> Fields<'t> {
        if self.is(Found::Map, report) {
            for child in self.children().filter(|child| !known.contains(&child.name())) {
                unknown(child, known, report);
            }
        }
        Fields { place: self }
    }

    fn is(self, wanted: Found<'_>, report: &mut Report) -> bool {
        let is_so = std::mem::discriminant(&self.found()) == std::mem::discriminant(&wanted);
        if !is_so {
            let empty = if matches!(wanted, Found::Map) { "{}" } else { "[]" };
            self.refuse_type(
                wanted.words(),
                &format!("Remove the field, or write {empty} if it is meant to be empty."),
                report,
            );
        }
        is_so
    }

    fn refuse_type(self, wanted: &str, empty_hint: &str, report: &mut Report) {
        let hint = if self.is_null() { empty_hint } else { "" };
        report.error(self, format!("must be {wanted}, found {}", self.found().words()), hint);
    }

    /// Items of a list.
    pub(super) fn items(self, report: &mut Report) -> Vec<Self> {
        if self.is(Found::List, report) { self.children().collect() } else { Vec::new() }
    }

    /// Values of a map with free keys; their names are the keys.
    pub(super) fn entries(self, report: &mut Report) -> Vec<Self> {
        if !self.is(Found::Map, report) {
            return Vec::new();
        }
        if self.children().any(|child| child.name().is_empty()) {
            report.error(self, "a key must not be empty", "Name the field before the colon.");
        }
        self.children().collect()
    }

    /// A string.
    pub(super) fn text(self, report: &mut Report) -> Option<&'t str> {
        match self.found() {
            Found::Scalar(ScalarType::Text, text) => Some(text),
            Found::Scalar(
                kind @ (ScalarType::Boolean(_) | ScalarType::Integer(_) | ScalarType::Float(_)),
                text,
            ) => {
                let message = format!("must be a string, found {} {}", kind.words(), shortened(text));
                report.error(self, message, format!("Put it in quotes: \"{}\".", shortened(text)));
                None
            }
            Found::Scalar(ScalarType::Null, _) | Found::List | Found::Map => {
                self.refuse_type("a string", "Write the value, or remove the field.", report);
                None
            }
        }
    }

    /// A string that is not empty.
    pub(super) fn non_empty(self, report: &mut Report) -> Option<&'t str> {
        let text = self.text(report)?;
        if text.is_empty() {
            report.error(self, "must not be empty", "Write the value, or remove the field.");
            return None;
        }
        Some(text)
    }

    /// A string that `parse` accepts.
    pub(super) fn parsed<T, E: Display>(
        self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        report: &mut Report,
    ) -> Option<T> {
        match parse(self.text(report)?) {
            Ok(value) => Some(value),
            Err(reason) => {
                report.error(self, reason.to_string(), "");
                None
            }
        }
    }

    /// Strings that are not empty.
    pub(super) fn texts(self, report: &mut Report) -> Vec<String> {
        self.items(report).into_iter().filter_map(|item| item.non_empty(report)).map(str::to_owned).collect()
    }

    /// `true` or `false`.
    pub(super) fn boolean(self, report: &mut Report) -> Option<bool> {
        match self.found() {
            Found::Scalar(ScalarType::Boolean(value), _) => Some(value),
            found => {
                let message = format!("must be true or false, found {}", found.words());
                report.error(self, message, "Write true or false, without quotes.");
                None
            }
        }
    }

    /// A whole number in a range.
    pub(super) fn integer(self, range: RangeInclusive<i64>, report: &mut Report) -> Option<i64> {
        match self.found() {
            Found::Scalar(ScalarType::Integer(value), _) if range.contains(&value) => Some(value),
            Found::Scalar(ScalarType::Integer(value), _) => {
                let message = format!("is {value}, must be from {} to {}", range.start(), range.end());
                report.error(self, message, "");
                None
            }
            Found::Scalar(ScalarType::Text, text) if ScalarType::of_plain(text) != ScalarType::Text => {
                report.error(self, "must be an integer, found a string", "Remove the quotes.");
                None
            }
            found => {
                report.error(self, format!("must be an integer, found {}", found.words()), "");
                None
            }
        }
    }

    /// A port.
    pub(super) fn port(self, report: &mut Report) -> Option<u16> {
        self.integer(1..=65_535, report).and_then(|port| u16::try_from(port).ok())
    }

    /// A number in a range, whole or not.
    pub(super) fn number(self, range: RangeInclusive<f64>, report: &mut Report) -> Option<f64> {
        let value = match self.found() {
            Found::Scalar(ScalarType::Float(value), _) => value,
            // Exact up to 2^53; what is beyond is out of every range in use.
            Found::Scalar(ScalarType::Integer(value), _) => {
                i32::try_from(value).map_or(f64::INFINITY, f64::from)
            }
            found => {
                report.error(self, format!("must be a number, found {}", found.words()), "");
                return None;
            }
        };
        if range.contains(&value) {
            return Some(value);
        }
        report.error(self, format!("is {value}, must be from {} to {}", range.start(), range.end()), "");
        None
    }

    /// One of a few names, exactly as they are written.
    pub(super) fn choice<T: Copy>(self, choices: &[(&str, T)], report: &mut Report) -> Option<T> {
        let names = || choices.iter().map(|(name, _)| *name);
        let Found::Scalar(ScalarType::Text, text) = self.found() else {
            let message = format!("must be {}, found {}", alternatives(names()), self.found().words());
            report.error(self, message, "");
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let message = format!("{:?} is not {}", shortened(text), alternatives(names()));
        let hint = match nearest(text, names()) {
            Some(name) if name.eq_ignore_ascii_case(text) => format!("Write {name}; case matters."),
            Some(name) => format!("Did you mean {name}?"),
            None => String::new(),
        };
        report.error(self, message, hint);
        None
    }

    /// A duration of at least a millisecond, in milliseconds.
    pub(super) fn duration(self, report: &mut Report) -> Option<u64> {
        let milliseconds = self.duration_or_zero(report)?;
        if milliseconds == 0 {
            report.error(self, "must be at least 1ms", "Remove the field for no limit.");
            return None;
        }
        Some(milliseconds)
    }

    /// A duration, possibly zero, in milliseconds.
    pub(super) fn duration_or_zero(self, report: &mut Report) -> Option<u64> {
        if let Found::Scalar(ScalarType::Integer(value), _) = self.found() {
            report.error(self, "must be a duration, found an integer", format!("Write a unit: {value}s."));
            return None;
        }
        let text = self.text(report)?;
        match duration::milliseconds(text) {
            Ok(milliseconds) => Some(milliseconds),
            Err(reason) => {
                report.error(self, reason.to_string(), "Write a duration such as 1h, 30s, 1.5s or 10ms.");
                None
            }
        }
    }

    /// A map of strings.
    pub(super) fn string_map(self, report: &mut Report) -> Labels {
        let entries = self.entries(report).into_iter();
        entries.filter_map(|entry| Some((entry.name().to_owned(), entry.text(report)?.to_owned()))).collect()
    }
}

fn unknown(child: Place<'_>, known: &[&str], report: &mut Report) {
    let hint = match nearest(child.name(), known.iter().copied()) {
        Some(name) => format!("Did you mean {name}?"),
        None if known.len() <= 12 => format!("Known here: {}.", known.join(", ")),
        None => String::new(),
    };
    report.error(child, "unknown field", hint);
}
