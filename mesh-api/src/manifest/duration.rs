//! Durations as Istio's YAML writes them: `1h`, `30s`, `1.5s`, `10ms`, `1m30s`.

/// Longest duration, in milliseconds: ten years, so that sums of a few cannot overflow anything.
const MILLISECONDS_MAX: u128 = 3650 * 24 * 3_600 * 1_000;

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("is not a duration")]
    Malformed,
    #[error("must be a whole number of milliseconds")]
    Fraction,
    #[error("is longer than ten years")]
    TooLong,
}

/// The duration in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, DurationError> {
    let mut rest = text;
    let mut nanoseconds: u128 = 0;
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or(DurationError::Malformed)?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        nanoseconds += number_of(number, unit_nanoseconds(unit)?)?;
        rest = after;
    }
    let whole = nanoseconds / 1_000_000;
    if whole > MILLISECONDS_MAX {
        return Err(DurationError::TooLong);
    }
    if !nanoseconds.is_multiple_of(1_000_000) {
        return Err(DurationError::Fraction);
    }
    u64::try_from(whole).map_err(|_| DurationError::TooLong)
}

fn unit_nanoseconds(unit: &str) -> Result<u128, DurationError> {
    Ok(match unit {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "µs" => 1_000,
        "ns" => 1,
        _ => return Err(DurationError::Malformed),
    })
}

fn number_of(number: &str, unit: u128) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // 15 digits of an hour are more than ten years, 12 after the point less than a nanosecond of it.
    if whole.len() + fraction.len() == 0 || fraction.contains('.') || fraction.len() > 12 {
        return Err(DurationError::Malformed);
    }
    if whole.len() > 15 {
        return Err(DurationError::TooLong);
    }
    let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| DurationError::Malformed)?;
    let scale = (0..fraction.len()).fold(1_u128, |scale, _| scale * 10);
    match digits * unit {
        scaled if scaled.is_multiple_of(scale) => Ok(scaled / scale),
        _ => Err(DurationError::Fraction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_istio_writes_them() {
        for (text, expected) in [
            ("1h", 3_600_000),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("10ms", 10),
            ("1m30s", 90_000),
            ("0s", 0),
            ("0", 0),
            (".5s", 500),
            ("1000us", 1),
        ] {
            assert_eq!(milliseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "1x", "-1s", "1 s", "1.2.3s", ".", "1s2", "1d", "1S", "٣s"] {
            assert_eq!(milliseconds(text), Err(DurationError::Malformed), "{text}");
        }
        assert_eq!(milliseconds("1.5ms"), Err(DurationError::Fraction));
        assert_eq!(milliseconds("1ns"), Err(DurationError::Fraction));
        assert_eq!(milliseconds("9999999h"), Err(DurationError::TooLong));
        assert_eq!(milliseconds(&format!("{}h", "9".repeat(400))), Err(DurationError::TooLong));
    }
}
