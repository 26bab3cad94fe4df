//! A time in whole seconds, written as Istio and Go write durations: `30s`, `1m30s`, `1h`.

use serde::{Deserialize, Serialize};

/// Longest time, in seconds: a day. A proxy that drains longer is forgotten, not draining.
const SECONDS_MAX: u64 = 86_400;

/// A time of whole seconds, a day at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Seconds(u32);

/// A text that is no such time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a time of whole seconds such as 30s or 1m30s, a day at most")]
pub struct SecondsError {
    text: String,
}

impl Seconds {
    /// So many seconds; more than a day is a day.
    #[must_use]
    pub fn new(seconds: u64) -> Self {
        Self(u32::try_from(seconds.min(SECONDS_MAX)).unwrap_or(u32::MAX))
    }

    /// Reads a time.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, SecondsError> {
        let refused = || SecondsError { text: text.to_owned() };
        let seconds = seconds(text).filter(|seconds| *seconds <= SECONDS_MAX).ok_or_else(refused)?;
        Ok(Self::new(seconds))
    }

    /// The number of seconds.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0)
    }
}

impl TryFrom<String> for Seconds {
    type Error = SecondsError;

    fn try_from(text: String) -> Result<Self, SecondsError> {
        Self::parse(&text)
    }
}

impl From<Seconds> for String {
    fn from(seconds: Seconds) -> Self {
        seconds.to_string()
    }
}

fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(end);
        let number: u64 = number.parse().ok()?;
        let (unit, length) = match after.as_bytes() {
            [b'm', b's', ..] => return None,
            [b'h', ..] => (3_600, 1),
            [b'm', ..] => (60, 1),
            [b's', ..] => (1, 1),
            _ => return None,
        };
        sum = number.checked_mul(unit).and_then(|seconds| sum.checked_add(seconds))?;
        rest = after.get(length..)?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_istio_writes_them() {
        for (text, seconds) in [("30s", 30), ("1m30s", 90), ("1h", 3_600), ("0s", 0), ("24h", 86_400)] {
            assert_eq!(Seconds::parse(text).map(Seconds::get), Ok(seconds), "{text}");
        }
        assert_eq!(Seconds::new(90).to_string(), "90s");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "5", "s", "1d", "-1s", "10ms", "1.5s", "25h", "99999999999999999999s"] {
            assert!(Seconds::parse(text).is_err(), "{text}");
        }
    }
}
