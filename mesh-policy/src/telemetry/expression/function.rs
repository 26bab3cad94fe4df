//! Functions and arithmetic (langdef, "Standard Definitions"), as far as a record has use for them.

use std::borrow::Cow;

use mesh_api::cel::{Binary, Unary};

use super::{Evaluated, NoValue, Value};

/// Longest text that `+` makes, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// A function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Contains,
    StartsWith,
    EndsWith,
    Size,
    Text,
    Int,
    Uint,
    Double,
    Bool,
    Bytes,
    Duration,
    Timestamp,
    Same,
}

impl Function {
    /// The function of that name, called on something or not, with as many operands in all.
    pub(super) fn parse(name: &str, has_target: bool, operands: usize) -> Option<Self> {
        Some(match (name, has_target, operands) {
            ("contains", true, 2) => Self::Contains,
            ("startsWith", true, 2) => Self::StartsWith,
            ("endsWith", true, 2) => Self::EndsWith,
            ("size", _, 1) => Self::Size,
            ("string", false, 1) => Self::Text,
            ("int", false, 1) => Self::Int,
            ("uint", false, 1) => Self::Uint,
            ("double", false, 1) => Self::Double,
            ("bool", false, 1) => Self::Bool,
            ("bytes", false, 1) => Self::Bytes,
            ("duration", false, 1) => Self::Duration,
            ("timestamp", false, 1) => Self::Timestamp,
            ("dyn", false, 1) => Self::Same,
            _ => return None,
        })
    }

    pub(super) fn call<'a>(self, mut operands: Vec<Value<'a>>) -> Evaluated<'a> {
        let last = operands.pop().ok_or(NoValue)?;
        let first = operands.pop();
        match (self, first, last) {
            (Self::Contains, Some(Value::Text(text)), Value::Text(part)) => {
                Ok(Value::Bool(text.contains(part.as_ref())))
            }
            (Self::StartsWith, Some(Value::Text(text)), Value::Text(part)) => {
                Ok(Value::Bool(text.starts_with(part.as_ref())))
            }
            (Self::EndsWith, Some(Value::Text(text)), Value::Text(part)) => {
                Ok(Value::Bool(text.ends_with(part.as_ref())))
            }
            (Self::Same, None, value) => Ok(value),
            (Self::Size, None, value) => {
                size(&value).and_then(|size| i64::try_from(size).ok()).map(Value::Int).ok_or(NoValue)
            }
            (Self::Text, None, value) => to_text(value).map(Value::Text).ok_or(NoValue),
            (Self::Int, None, value) => to_int(&value).map(Value::Int).ok_or(NoValue),
            (Self::Uint, None, value) => {
                to_int(&value).and_then(|value| u64::try_from(value).ok()).map(Value::Uint).ok_or(NoValue)
            }
            (Self::Double, None, value) => to_double(&value).map(Value::Double).ok_or(NoValue),
            (Self::Bool, None, Value::Bool(value)) => Ok(Value::Bool(value)),
            (Self::Bool, None, Value::Text(text)) => text.parse().map(Value::Bool).map_err(|_| NoValue),
            (Self::Bytes, None, Value::Text(text)) => Ok(Value::Bytes(Cow::Owned(text.as_bytes().to_vec()))),
            (Self::Bytes, None, bytes @ Value::Bytes(_)) => Ok(bytes),
            (Self::Duration, None, Value::Text(text)) => duration(&text).map(Value::Duration).ok_or(NoValue),
            (Self::Duration, None, value @ Value::Duration(_)) => Ok(value),
            (Self::Timestamp, None, Value::Text(text)) => {
                timestamp(&text).map(Value::Timestamp).ok_or(NoValue)
            }
            (Self::Timestamp, None, value @ Value::Timestamp(_)) => Ok(value),
            _ => Err(NoValue),
        }
    }
}

fn size(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::Text(text) => Some(text.chars().count()),
        Value::Bytes(bytes) => Some(bytes.len()),
        Value::List(items) => Some(items.len()),
        Value::Map(entries) => Some(entries.len()),
        _ => None,
    }
}

/// A value as text: text, numbers, truth values and UTF-8.
pub(super) fn to_text(value: Value<'_>) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Text(text) => text,
        Value::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Value::Int(value) => Cow::Owned(value.to_string()),
        Value::Uint(value) => Cow::Owned(value.to_string()),
        Value::Double(value) => Cow::Owned(value.to_string()),
        Value::Bytes(bytes) => Cow::Owned(String::from_utf8(bytes.into_owned()).ok()?),
        Value::Duration(nanoseconds) => Cow::Owned(format!("{}s", seconds(nanoseconds))),
        Value::Null | Value::Timestamp(_) | Value::List(_) | Value::Map(_) => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a text for people")]
fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn to_int(value: &Value<'_>) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Double(value) => (value.abs() < 9.2e18).then_some(*value as i64),
        Value::Text(text) => text.parse().ok(),
        Value::Timestamp(nanoseconds) => Some(nanoseconds.div_euclid(1_000_000_000)),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "what the language does")]
fn to_double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// `1h30m`, `1.5s`, `-10ms` in nanoseconds.
fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale = match unit {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" => 1e3,
            "ns" => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * scale;
        rest = after;
    }
    (!text.is_empty()).then(|| to_int(&Value::Double((sign * total).round())))?
}

/// RFC 3339 in nanoseconds of the Unix epoch.
fn timestamp(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't'])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = clock.split(':');
    let (hour, minute) = (parts.next()?.parse::<i64>().ok()?, parts.next()?.parse::<i64>().ok()?);
    let second = parts.next()?.parse::<f64>().ok()?;
    let is_valid = (0..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0.0..60.0).contains(&second);
    if !is_valid {
        return None;
    }
    let whole = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 - offset * 60;
    whole.checked_mul(1_000_000_000)?.checked_add(to_int(&Value::Double((second * 1e9).round()))?)
}

/// Days since the Unix epoch of a date of the Gregorian calendar, by eras of 400 years.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

pub(super) fn unary<'a>(operator: Unary, operand: &Value<'a>) -> Evaluated<'a> {
    match (operator, operand) {
        (Unary::Not, Value::Bool(value)) => Ok(Value::Bool(!value)),
        (Unary::Minus, Value::Int(value)) => value.checked_neg().map(Value::Int).ok_or(NoValue),
        (Unary::Minus, Value::Double(value)) => Ok(Value::Double(-value)),
        (Unary::Not | Unary::Minus, _) => Err(NoValue),
    }
}

/// Overflow and division by zero have no value.
pub(super) fn arithmetic<'a>(operator: Binary, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
    let value = match (operator, left, right) {
        (Binary::Add, Value::Text(left), Value::Text(right)) => {
            (left.len() + right.len() <= TEXT_BYTES_MAX).then(|| Value::Text(left + right))
        }
        (Binary::Add, Value::List(mut left), Value::List(right)) => {
            left.extend(right);
            Some(Value::List(left))
        }
        (Binary::Add, Value::Duration(left), Value::Duration(right)) => {
            left.checked_add(right).map(Value::Duration)
        }
        (Binary::Add, Value::Timestamp(left), Value::Duration(right))
        | (Binary::Add, Value::Duration(left), Value::Timestamp(right)) => {
            left.checked_add(right).map(Value::Timestamp)
        }
        (Binary::Subtract, Value::Timestamp(left), Value::Timestamp(right))
        | (Binary::Subtract, Value::Duration(left), Value::Duration(right)) => {
            left.checked_sub(right).map(Value::Duration)
        }
        (Binary::Subtract, Value::Timestamp(left), Value::Duration(right)) => {
            left.checked_sub(right).map(Value::Timestamp)
        }
        (operator, Value::Int(left), Value::Int(right)) => match operator {
            Binary::Add => left.checked_add(right),
            Binary::Subtract => left.checked_sub(right),
            Binary::Multiply => left.checked_mul(right),
            Binary::Divide => left.checked_div(right),
            Binary::Remainder => left.checked_rem(right),
            _ => None,
        }
        .map(Value::Int),
        (operator, Value::Uint(left), Value::Uint(right)) => match operator {
            Binary::Add => left.checked_add(right),
            Binary::Subtract => left.checked_sub(right),
            Binary::Multiply => left.checked_mul(right),
            Binary::Divide => left.checked_div(right),
            Binary::Remainder => left.checked_rem(right),
            _ => None,
        }
        .map(Value::Uint),
        (operator, Value::Double(left), Value::Double(right)) => match operator {
            Binary::Add => Some(left + right),
            Binary::Subtract => Some(left - right),
            Binary::Multiply => Some(left * right),
            Binary::Divide => Some(left / right),
            _ => None,
        }
        .map(Value::Double),
        _ => None,
    };
    value.ok_or(NoValue)
}
