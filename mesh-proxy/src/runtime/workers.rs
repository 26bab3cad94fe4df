//! Threads of the workers: one each, with a runtime of its own that never leaves it, so that nothing a worker
//! owns is ever touched by another.

use std::io;
use std::thread::JoinHandle;

use tokio::runtime::LocalOptions;

use crate::worker::{self, WorkerSetup};

/// Events that a worker handles before it looks at its sockets again.
const EVENT_INTERVAL: u32 = 61;

/// A running worker.
#[derive(Debug)]
pub struct WorkerThread {
    id: usize,
    thread: JoinHandle<io::Result<()>>,
}

/// Why a worker ended badly.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its thread or its runtime could not be made, or its listeners not be registered.
    #[error("worker {id} failed")]
    Io {
        /// Number of the worker.
        id: usize,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It panicked.
    #[error("worker {id} panicked")]
    Panicked {
        /// Number of the worker.
        id: usize,
    },
}

/// Starts a worker in a thread of its own; it ends once it has drained.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(setup: WorkerSetup) -> Result<WorkerThread, WorkerError> {
    let id = setup.id;
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .event_interval(EVENT_INTERVAL)
            .build_local(LocalOptions::default())?;
        runtime.block_on(worker::run(setup))
    };
    let thread = std::thread::Builder::new().name(format!("worker-{id}")).spawn(run);
    let thread = thread.map_err(|source| WorkerError::Io { id, source })?;
    Ok(WorkerThread { id, thread })
}

impl WorkerThread {
    /// Whether the worker has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end. Blocks the thread of the caller.
    ///
    /// # Errors
    /// When the worker failed or panicked.
    pub fn join(self) -> Result<(), WorkerError> {
        let id = self.id;
        match self.thread.join() {
            Ok(result) => result.map_err(|source| WorkerError::Io { id, source }),
            Err(_) => Err(WorkerError::Panicked { id }),
        }
    }
}
