//! The schema of fields that are accepted and have no effect yet: their names and types are still checked,
//! because a typing error in them is one all the same.

use super::report::Report;
use super::tree::{Found, Place};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Anything at all.
    Any,
    /// A string.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number from 0.
    Count,
    /// A number in a range.
    Number(f64, f64),
    /// A duration.
    Duration,
    /// One of these names.
    OneOf(&'static [&'static str]),
    /// A list of one shape.
    List(&'static Self),
    /// A map with free keys and values of one shape.
    Map(&'static Self),
    /// A map with known fields.
    Object(&'static [(&'static str, Self)]),
}

impl Shape {
    /// Reports whatever at `place` is not of this shape.
    pub(super) fn check(&self, place: Place<'_>, report: &mut Report) {
        match self {
            Self::Any => {}
            Self::Text => drop(place.text(report)),
            Self::Boolean => drop(place.boolean(report)),
            Self::Count => drop(place.integer(0..=i64::from(u32::MAX), report)),
            Self::Number(low, high) => drop(place.number(*low..=*high, report)),
            Self::Duration => drop(place.duration_or_zero(report)),
            Self::OneOf(names) => {
                let choices: Vec<(&str, ())> = names.iter().map(|name| (*name, ())).collect();
                let _ = place.choice(&choices, report);
            }
            Self::List(item) => place.items(report).into_iter().for_each(|place| item.check(place, report)),
            Self::Map(value) => {
                place.entries(report).into_iter().for_each(|place| value.check(place, report))
            }
            Self::Object(known) => {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                place.fields(&names, report);
                if !matches!(place.found(), Found::Map) {
                    return;
                }
                for child in place.children() {
                    if let Some((_, shape)) = known.iter().find(|(name, _)| *name == child.name()) {
                        shape.check(child, report);
                    }
                }
            }
        }
    }
}
