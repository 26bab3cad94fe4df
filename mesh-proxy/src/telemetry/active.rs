//! Requests and streams in flight to each endpoint, for balancing and for the admin socket.
//!
//! Each worker has a cell of its own per endpoint and is the only one that writes it, so counting touches no
//! other core's memory. Whoever wants the sum over all workers reads all cells; only then, and when a worker
//! meets an endpoint for the first time, the list of cells is locked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One worker's count for one endpoint. Aligned so that two counts never share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ActiveCell {
    count: AtomicU32,
}

impl ActiveCell {
    /// The count.
    #[must_use]
    pub fn get(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// One more. Only the owning worker calls this, so that reading and writing apart is enough.
    pub(crate) fn increment(&self) {
        self.count.store(self.get().saturating_add(1), Ordering::Relaxed);
    }

    /// One less.
    pub(crate) fn decrement(&self) {
        self.count.store(self.get().saturating_sub(1), Ordering::Relaxed);
    }
}

/// The cells of all workers.
#[derive(Debug, Clone, Default)]
pub struct ActiveRequests {
    cells: Arc<Mutex<HashMap<SocketAddr, Vec<Weak<ActiveCell>>>>>,
}

impl ActiveRequests {
    /// A new cell for an endpoint. It counts for as long as its worker keeps it.
    #[must_use]
    pub fn cell(&self, endpoint: SocketAddr) -> Arc<ActiveCell> {
        let cell = Arc::new(ActiveCell::default());
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cells.entry(endpoint).or_default();
        known.retain(|other| other.strong_count() > 0);
        known.push(Arc::downgrade(&cell));
        cell
    }

    /// Forgets endpoints that no worker keeps any more.
    pub fn prune(&self) {
        let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        cells.retain(|_, known| {
            known.retain(|cell| cell.strong_count() > 0);
            !known.is_empty()
        });
    }

    /// In flight to an endpoint, over all workers.
    #[must_use]
    pub fn of(&self, endpoint: SocketAddr) -> u64 {
        let cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cells.get(&endpoint).map(Vec::as_slice).unwrap_or_default();
        known.iter().filter_map(Weak::upgrade).map(|cell| u64::from(cell.get())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_over_the_cells_that_are_kept() {
        let endpoint = "10.0.0.1:80".parse().expect("address");
        let active = ActiveRequests::default();
        let (one, other) = (active.cell(endpoint), active.cell(endpoint));
        one.increment();
        other.increment();
        other.increment();
        other.decrement();
        assert_eq!(active.of(endpoint), 2);
        drop(one);
        active.prune();
        assert_eq!(active.of(endpoint), 1);
        drop(other);
        active.prune();
        assert!(active.cells.lock().expect("not poisoned").is_empty());
    }
}
