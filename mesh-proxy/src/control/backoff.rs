//! Delays between attempts: exponential, with jitter over the upper half, bounded.
//!
//! Jitter is what keeps a mesh of proxies from coming back in step after its control plane was restarted.

use std::time::Duration;

/// First delay.
const BASE: Duration = Duration::from_millis(250);
/// Longest delay. The control plane being away is no emergency, but its return is to be noticed soon.
const MAX: Duration = Duration::from_secs(15);

/// Counts failures in a row.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The next delay; `draw` is uniform in `0.0..1.0`.
    pub fn next(&mut self, draw: f64) -> Duration {
        let doubled = BASE.saturating_mul(1 << self.failures.min(10)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        doubled.mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
    }

    /// It went well: the next delay is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_stay_bounded_and_start_over() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..20).map(|_| backoff.next(1.0)).collect();
        assert_eq!(delays[0], BASE);
        assert!(delays.windows(2).all(|pair| pair[0] <= pair[1]) && delays[19] == MAX, "{delays:?}");
        assert_eq!(backoff.next(0.0), MAX / 2);
        backoff.reset();
        assert_eq!(backoff.next(1.0), BASE);
    }
}
