//! What a worker knows about the load of an endpoint: what is in flight, and how long answers take.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::telemetry::active::{ActiveCell, ActiveRequests};
use crate::upstream::UpstreamAlpn;

/// Time in which what was learnt fades to a third. Finagle's peak-EWMA balancer takes 10 s.
const FADING: Duration = Duration::from_secs(10);
/// What a failure counts as, in seconds: long enough that others are preferred for some fadings, short
/// enough that the endpoint is asked again soon after it recovered.
const FAILURE_SECONDS: f64 = 1.0;
/// Latency assumed of an endpoint that was never asked, in seconds: low, so that it is asked.
const UNKNOWN_SECONDS: f64 = 0.0005;

/// Load of one endpoint.
#[derive(Debug)]
pub(super) struct Load {
    active: Arc<ActiveCell>,
    /// Average time to an answer, in seconds; rises at once and falls slowly.
    latency: Cell<f64>,
    updated: Cell<Instant>,
}

impl Load {
    /// What one more request would cost, as far as is known.
    pub(super) fn cost(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.updated.get());
        let fade = (-elapsed.as_secs_f64() / FADING.as_secs_f64()).exp();
        let latency = (self.latency.get() * fade).max(UNKNOWN_SECONDS);
        latency * (f64::from(self.active.get()) + 1.0)
    }

    /// Takes one latency into the average: a higher one at once, a lower one by its share of time.
    fn note(&self, seconds: f64, now: Instant) {
        let before = self.latency.get();
        let next = if seconds > before {
            seconds
        } else {
            let elapsed = now.saturating_duration_since(self.updated.get());
            let keep = (-elapsed.as_secs_f64() / FADING.as_secs_f64()).exp();
            before * keep + seconds * (1.0 - keep)
        };
        self.latency.set(next);
        self.updated.set(now);
    }
}

/// Loads by address.
#[derive(Debug, Default)]
pub(super) struct Loads {
    known: RefCell<HashMap<SocketAddr, Rc<Load>>>,
    active: ActiveRequests,
}

impl Loads {
    pub(super) fn new(active: ActiveRequests) -> Self {
        Self { known: RefCell::default(), active }
    }

    /// The load of an endpoint.
    pub(super) fn of(&self, endpoint: SocketAddr, now: Instant) -> Rc<Load> {
        let mut known = self.known.borrow_mut();
        Rc::clone(known.entry(endpoint).or_insert_with(|| {
            Rc::new(Load {
                active: self.active.cell(endpoint),
                latency: Cell::new(UNKNOWN_SECONDS),
                updated: Cell::new(now),
            })
        }))
    }

    /// Forgets endpoints that no group has and nothing is in flight to.
    pub(super) fn prune(&self) {
        self.known.borrow_mut().retain(|_, load| Rc::strong_count(load) > 1);
        self.active.prune();
    }
}

/// Something in flight to an endpoint; dropped when it is over.
#[derive(Debug)]
pub struct InFlight {
    load: Rc<Load>,
    started: Instant,
    alpn: UpstreamAlpn,
}

impl InFlight {
    pub(super) fn new(load: Rc<Load>, started: Instant, alpn: UpstreamAlpn) -> Self {
        load.active.increment();
        Self { load, started, alpn }
    }

    /// The endpoint has begun to answer. Streams say nothing by that: who speaks when is the business of
    /// their protocol.
    pub fn note_answer(&self) {
        if self.alpn != UpstreamAlpn::Tcp {
            let now = Instant::now();
            self.load.note(now.saturating_duration_since(self.started).as_secs_f64(), now);
        }
    }

    /// The endpoint could not be reached, or failed. Without this a failing endpoint would look like a fast
    /// one and draw the traffic to itself.
    pub fn note_failure(&self) {
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.started).as_secs_f64();
        self.load.note(elapsed.max(FAILURE_SECONDS), now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.active.decrement();
    }
}
