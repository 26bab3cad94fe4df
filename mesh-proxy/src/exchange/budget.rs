//! The worker's budget of retries: a share of what is in flight, so that a service that fails is not buried
//! under repetitions of what it failed at.

use std::cell::Cell;
use std::rc::Rc;

/// Retries allowed for each hundred requests in flight (Envoy's `retry_budget` default).
const SHARE_PERCENT: u32 = 20;
/// Retries allowed however little is in flight (Envoy's `min_retry_concurrency` default).
const FLOOR: u32 = 3;

/// Counts requests and retries in flight.
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    counts: Rc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    requests: Cell<u32>,
    retries: Cell<u32>,
}

impl RetryBudget {
    /// Counts a request for as long as the guard lives.
    #[must_use]
    pub fn request(&self) -> InFlight {
        self.counts.requests.set(self.counts.requests.get() + 1);
        InFlight { counts: Rc::clone(&self.counts), is_retrying: false }
    }
}

/// A request in flight.
#[derive(Debug)]
pub struct InFlight {
    counts: Rc<Counts>,
    is_retrying: bool,
}

impl InFlight {
    /// Asks for leave to retry; false when too many requests do already. A request that retries once more
    /// needs no further leave.
    pub fn may_retry(&mut self) -> bool {
        if self.is_retrying {
            return true;
        }
        let allowed = (self.counts.requests.get().saturating_mul(SHARE_PERCENT) / 100).max(FLOOR);
        if self.counts.retries.get() >= allowed {
            return false;
        }
        self.counts.retries.set(self.counts.retries.get() + 1);
        self.is_retrying = true;
        true
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.counts.requests.set(self.counts.requests.get() - 1);
        if self.is_retrying {
            self.counts.retries.set(self.counts.retries.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_may_always_retry_and_beyond_that_a_share() {
        let budget = RetryBudget::default();
        let mut few: Vec<_> = (0..5).map(|_| budget.request()).collect();
        assert_eq!(few.iter_mut().filter_map(|one| one.may_retry().then_some(())).count(), 3);
        drop(few);
        let mut many: Vec<_> = (0..100).map(|_| budget.request()).collect();
        assert_eq!(many.iter_mut().filter_map(|one| one.may_retry().then_some(())).count(), 20);
        assert!(many[0].may_retry(), "one that retries may go on");
    }

    #[test]
    fn what_ended_gives_its_share_back() {
        let budget = RetryBudget::default();
        for _ in 0..100 {
            assert!(budget.request().may_retry());
        }
    }
}
