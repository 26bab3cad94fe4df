//! Durations as flags state them: a whole number with its unit.

use std::time::Duration;

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration such as {example}")]
pub struct DurationError {
    text: String,
    example: &'static str,
}

/// Units by rising size, in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses how long something may take: a whole number of `ms`, `s`, `m` or `h`.
///
/// # Errors
/// When it is anything else, or too large for 64 bits of milliseconds.
pub fn wait(text: &str) -> Result<Duration, DurationError> {
    parse(text, &UNITS[..4]).ok_or_else(|| refusal(text, "30s, 500ms or 2m"))
}

/// Parses how long something is valid: a whole number of `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// When it is anything else, or too large for 64 bits of milliseconds.
pub fn lifetime(text: &str) -> Result<Duration, DurationError> {
    parse(text, &UNITS).ok_or_else(|| refusal(text, "24h, 90s, 500ms or 30d"))
}

fn refusal(text: &str, example: &'static str) -> DurationError {
    DurationError { text: text.to_owned(), example }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<Duration> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*milliseconds).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_whole_numbers_with_a_unit() {
        assert_eq!(lifetime("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(lifetime("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(lifetime("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(lifetime("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "h", "24", "1.5h", "-1s", "24 h", "1w", "99999999999999999d"] {
            assert!(lifetime(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn waits_have_no_days() {
        assert_eq!(wait("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(wait("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "s", "30", "1.5s", "-1s", "30 s", "99999999999999999h", "1d"] {
            assert!(wait(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
