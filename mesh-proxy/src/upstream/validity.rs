//! How long a connection may be used: what it was made with is noted and compared.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_identity::tls::{Current, IdentitySource};

/// Longest time between two looks at the own identity. Looking touches memory that all workers share, so it
/// is not done for each request.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Numbers the states of the own identity: a connection of an earlier number is not used again.
#[derive(Debug)]
pub(super) struct Epochs {
    identity: Arc<IdentitySource>,
    seen: RefCell<Arc<Current>>,
    number: Cell<u64>,
    looked: Cell<Instant>,
}

impl Epochs {
    pub(super) fn new(identity: Arc<IdentitySource>) -> Self {
        let seen = RefCell::new(identity.current());
        Self { identity, seen, number: Cell::new(0), looked: Cell::new(Instant::now()) }
    }

    /// The number of today, at most [`LOOK_INTERVAL`] old.
    pub(super) fn current(&self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.looked.get()) < LOOK_INTERVAL {
            return self.number.get();
        }
        self.look(now)
    }

    /// Looks now.
    pub(super) fn look(&self, now: Instant) -> u64 {
        self.looked.set(now);
        let current = self.identity.current();
        let mut seen = self.seen.borrow_mut();
        if !Arc::ptr_eq(&seen, &current) {
            if !is_same(&seen, &current) {
                self.number.set(self.number.get() + 1);
            }
            *seen = current;
        }
        self.number.get()
    }
}

fn is_same(one: &Current, other: &Current) -> bool {
    let serial = |current: &Current| current.svid.as_ref().map(|svid| svid.serial().to_owned());
    Arc::ptr_eq(&one.bundle, &other.bundle)
        && one.trust_domains == other.trust_domains
        && serial(one) == serial(other)
}

/// What a connection was made with.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    epoch: u64,
    /// End of the peer's certificate on both clocks: that of timers, and the wall clock, which may jump.
    peer: Option<(Instant, SystemTime)>,
}

impl Validity {
    /// A plaintext connection: it has no end of its own.
    pub(super) fn unlimited() -> Self {
        Self { epoch: u64::MAX, peer: None }
    }

    /// A connection made in `epoch` to a peer whose certificate ends at `not_after`.
    pub(super) fn until(epoch: u64, not_after: SystemTime) -> Self {
        let left = not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let at = Instant::now().checked_add(left);
        Self { epoch, peer: at.map(|at| (at, not_after)) }
    }

    /// Whether a further request may be sent.
    pub(super) fn holds(&self, now: Instant, epoch: u64) -> bool {
        (self.epoch == epoch || self.epoch == u64::MAX) && self.peer.is_none_or(|(at, _)| now < at)
    }

    /// The same, by the wall clock too.
    pub(super) fn holds_by_wall_clock(&self, now: Instant, wall: SystemTime, epoch: u64) -> bool {
        self.holds(now, epoch) && self.peer.is_none_or(|(_, not_after)| wall < not_after)
    }

    /// End of the peer's certificate; `None` for plaintext.
    #[must_use]
    pub fn peer_not_after(&self) -> Option<SystemTime> {
        self.peer.map(|(_, not_after)| not_after)
    }
}
