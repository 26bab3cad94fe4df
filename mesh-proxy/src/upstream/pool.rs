//! HTTP/1.1 connections between two requests.
//!
//! A connection is leased for one request and comes back when it can serve another. The one used last is used
//! next, so that what is not needed grows old and ends. The pool is bounded in all and per target; what does
//! not fit is closed. A lease holds its place in the pool by itself, so taking and keeping allocate nothing.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::Target;
use super::stream::UpstreamStream;

/// Idle connections kept for one target.
const IDLE_PER_TARGET_MAX: usize = 256;
/// Idle connections kept by one worker.
const IDLE_MAX: usize = 1024;
/// Targets with a place in the pool; places without connections are given up beyond it.
const TARGETS_MAX: usize = 4096;
/// Time after which an unused connection is closed. Shorter than what servers commonly allow (nginx 75 s), so
/// that the end usually comes from here and meets no request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connections of one worker.
#[derive(Debug, Default)]
pub(super) struct Http1Pool {
    slots: RefCell<HashMap<Target, Rc<Slot>>>,
    idle: Rc<Cell<usize>>,
}

/// The connections to one target, the one used last at the end.
#[derive(Debug)]
pub(super) struct Slot {
    connections: RefCell<Vec<Idle>>,
    /// Idle connections of the whole pool.
    idle: Rc<Cell<usize>>,
}

#[derive(Debug)]
struct Idle {
    stream: UpstreamStream,
    since: Instant,
}

/// A connection in use for one request. Dropped, it is closed.
#[derive(Debug)]
pub struct Http1Lease {
    stream: UpstreamStream,
    slot: Rc<Slot>,
    is_reused: bool,
}

impl Http1Lease {
    /// The stream.
    pub fn stream(&mut self) -> &mut UpstreamStream {
        &mut self.stream
    }

    /// Whether it served a request before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Gives the connection back for another request. Only for one whose last response was read to its end.
    pub fn keep(self) {
        let Self { stream, slot, .. } = self;
        let mut connections = slot.connections.borrow_mut();
        if connections.len() < IDLE_PER_TARGET_MAX && slot.idle.get() < IDLE_MAX {
            slot.idle.set(slot.idle.get() + 1);
            connections.push(Idle { stream, since: Instant::now() });
        }
    }
}

impl Http1Pool {
    /// The place of a target.
    pub(super) fn slot(&self, target: &Target) -> Rc<Slot> {
        if let Some(slot) = self.slots.borrow().get(target) {
            return Rc::clone(slot);
        }
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= TARGETS_MAX {
            slots.retain(|_, slot| !slot.connections.borrow().is_empty());
        }
        let slot = Rc::new(Slot { connections: RefCell::default(), idle: Rc::clone(&self.idle) });
        slots.insert(target.clone(), Rc::clone(&slot));
        slot
    }

    /// Number of idle connections.
    pub(super) fn idle(&self) -> usize {
        self.idle.get()
    }

    /// Drops what ended, is too old, or was made with what no longer holds.
    pub(super) fn prune(&self, now: Instant, wall: SystemTime, epoch: u64) {
        self.slots.borrow_mut().retain(|_, slot| {
            let mut connections = slot.connections.borrow_mut();
            let before = connections.len();
            connections.retain_mut(|idle| {
                now.saturating_duration_since(idle.since) < IDLE_TIMEOUT
                    && idle.stream.validity().holds_by_wall_clock(now, wall, epoch)
                    && idle.stream.is_quiet()
            });
            slot.idle.set(slot.idle.get() - (before - connections.len()));
            let room = connections.len() * 2;
            connections.shrink_to(room);
            !connections.is_empty() || Rc::strong_count(slot) > 1
        });
    }
}

impl Slot {
    /// An idle connection that can be used.
    pub(super) fn take(self: &Rc<Self>, now: Instant, epoch: u64) -> Option<Http1Lease> {
        let mut connections = self.connections.borrow_mut();
        while let Some(mut idle) = connections.pop() {
            self.idle.set(self.idle.get() - 1);
            let is_usable = now.saturating_duration_since(idle.since) < IDLE_TIMEOUT
                && idle.stream.validity().holds(now, epoch)
                && idle.stream.is_quiet();
            if is_usable {
                return Some(Http1Lease { stream: idle.stream, slot: Rc::clone(self), is_reused: true });
            }
        }
        None
    }

    /// A lease of a new connection.
    pub(super) fn lease(self: &Rc<Self>, stream: UpstreamStream) -> Http1Lease {
        Http1Lease { stream, slot: Rc::clone(self), is_reused: false }
    }
}
