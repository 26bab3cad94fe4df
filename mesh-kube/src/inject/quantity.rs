//! Quantities of Kubernetes: `10m`, `24Mi`, `0.5`, `1e3`.
//!
//! The text is kept as it was written and compared by its value, so that `1000m` and `1` are the same to the
//! rules about quality of service. Grammar:
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An amount of a resource, zero or more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct Quantity {
    text: String,
    /// Billionths: the smallest unit that Kubernetes knows.
    billionths: u128,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.billionths == other.billionths
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.billionths.cmp(&other.billionths)
    }
}

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quantity such as 100m, 0.5 or 64Mi")]
pub struct QuantityError {
    text: String,
}

/// Digits that are looked at, before and after the point: more than any machine has of anything.
const DIGITS_MAX: usize = 18;

impl Quantity {
    /// Reads a quantity.
    ///
    /// # Errors
    /// When the text is none, or is negative.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let billionths = billionths(text).ok_or_else(|| QuantityError { text: text.to_owned() })?;
        Ok(Self { text: text.to_owned(), billionths })
    }

    /// The quantity that stands in a pod, where a number is allowed too.
    #[must_use]
    pub fn of_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text).ok(),
            Value::Number(number) => Self::parse(&number.to_string()).ok(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.billionths == 0
    }

    /// The next whole number: of processors, when it counts processors.
    #[must_use]
    pub fn rounded_up(&self) -> u64 {
        u64::try_from(self.billionths.div_ceil(ONE)).unwrap_or(u64::MAX)
    }
}

impl TryFrom<Value> for Quantity {
    type Error = QuantityError;

    fn try_from(value: Value) -> Result<Self, QuantityError> {
        Self::of_json(&value).ok_or_else(|| QuantityError { text: value.to_string() })
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.text
    }
}

const ONE: u128 = 1_000_000_000;

fn billionths(text: &str) -> Option<u128> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0
        || fraction.contains('.')
        || whole.len() > DIGITS_MAX
        || fraction.len() > DIGITS_MAX
    {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // What is smaller than a billionth is rounded up, as Kubernetes does.
    digits.checked_mul(unit(suffix)?).map(|scaled| scaled.div_ceil(scale))
}

/// Billionths of one unit.
fn unit(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => ONE,
        "k" => ONE * 1_000,
        "M" => ONE * 1_000_000,
        "G" => ONE * 1_000_000_000,
        "T" => ONE * 1_000_000_000_000,
        "P" => ONE * 1_000_000_000_000_000,
        "E" => ONE * 1_000_000_000_000_000_000,
        "Ki" => ONE << 10,
        "Mi" => ONE << 20,
        "Gi" => ONE << 30,
        "Ti" => ONE << 40,
        "Pi" => ONE << 50,
        "Ei" => ONE << 60,
        _ => return exponent(suffix),
    })
}

fn exponent(suffix: &str) -> Option<u128> {
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    match power {
        0..=18 => Some(ONE * 10_u128.pow(power.unsigned_abs())),
        -9..0 => Some(ONE / 10_u128.pow(power.unsigned_abs())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_their_value() {
        for (left, right) in
            [("1", "1000m"), ("1Ki", "1024"), ("0.5", "500m"), ("1e3", "1k"), ("1E", "1e18"), (".5", "0.50")]
        {
            assert_eq!(
                Quantity::parse(left).expect(left),
                Quantity::parse(right).expect(right),
                "{left} {right}"
            );
        }
        assert!(Quantity::parse("64Mi").expect("memory") > Quantity::parse("64M").expect("memory"));
        assert_eq!(Quantity::parse("1500m").expect("processors").rounded_up(), 2);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-1", "1 Mi", "m", ".", "1.2.3", "1mi", "1e99", "٣", "1234567890123456789012"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_a_quantity_too() {
        assert_eq!(Quantity::of_json(&serde_json::json!(2)), Quantity::parse("2").ok());
        assert_eq!(Quantity::of_json(&serde_json::json!(0.5)), Quantity::parse("500m").ok());
        assert_eq!(Quantity::of_json(&serde_json::json!(true)), None);
    }
}
