//! The moment of renewal, drawn once when a certificate arrives.

use std::time::{Duration, SystemTime};

/// Part of the life after which a certificate is renewed (SEMANTICS 2.2).
const RENEW_AT: f64 = 0.5;
/// Jitter to both sides, as a part of the life. Istio's 1 % leaves a mesh that was started at once renewing
/// within a quarter of an hour each day; 5 % spreads it over more than two hours.
const JITTER: f64 = 0.05;
/// What is left of the life when its end is announced.
const WARN_WITH_LEFT: f64 = 0.2;

/// When to renew one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPlan {
    /// Start of the certificate's validity.
    pub not_before: SystemTime,
    /// End of the certificate's validity.
    pub not_after: SystemTime,
    /// When to renew.
    pub renew_at: SystemTime,
    /// When to warn that it has still not been renewed.
    pub warn_at: SystemTime,
}

impl RotationPlan {
    /// Draws the moment of renewal. `received_at` is when the certificate arrived: the life is counted from
    /// then, since authorities back-date validities, and for a life of seconds half of the back-dated
    /// validity would already be over. `draw` is uniform in `0.0..1.0`.
    #[must_use]
    pub fn draw(not_before: SystemTime, not_after: SystemTime, received_at: SystemTime, draw: f64) -> Self {
        let start = received_at.clamp(not_before.min(not_after), not_after);
        let life = not_after.duration_since(start).unwrap_or_default();
        let ratio = RENEW_AT + JITTER * (2.0 * draw.clamp(0.0, 1.0) - 1.0);
        Self {
            not_before,
            not_after,
            renew_at: start + part(life, ratio),
            warn_at: start + part(life, 1.0 - WARN_WITH_LEFT),
        }
    }
}

/// A part of a duration; `ratio` within `0.0..=1.0`.
fn part(duration: Duration, ratio: f64) -> Duration {
    // Lives beyond what a float of seconds can hold are no lives of certificates.
    Duration::try_from_secs_f64(duration.as_secs_f64() * ratio).unwrap_or(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_middle_of_the_draw_is_the_middle_of_the_remaining_life() {
        let plan = RotationPlan::draw(epoch(880), epoch(1010), epoch(1000), 0.5);
        assert_eq!(plan.renew_at, epoch(1005));
        assert_eq!(plan.warn_at, epoch(1008));
    }

    proptest! {
        #[test]
        fn renewal_lies_around_half_of_the_life(life in 1_u64..10_000_000, draw in 0.0_f64..1.0) {
            let start = epoch(1_700_000_000);
            let end = start + Duration::from_secs(life);
            let plan = RotationPlan::draw(start - Duration::from_secs(120), end, start, draw);
            let at = plan.renew_at.duration_since(start).expect("after the start").as_secs_f64();
            let ratio = at / Duration::from_secs(life).as_secs_f64();
            prop_assert!((0.4499..=0.5501).contains(&ratio), "{ratio}");
        }

        #[test]
        fn a_plan_never_lies_outside_the_validity(
            before in 0_u64..2_000, after in 0_u64..2_000, received in 0_u64..4_000, draw in 0.0_f64..1.0,
        ) {
            let (before, after) = (epoch(before.min(after)), epoch(before.max(after)));
            let plan = RotationPlan::draw(before, after, epoch(received), draw);
            prop_assert!(before <= plan.renew_at && plan.renew_at <= after);
            prop_assert!(plan.renew_at <= plan.warn_at && plan.warn_at <= after);
        }
    }
}
