//! Tasks that run beside the workers. Each has a name, this owner, and an end that is noticed.
//!
//! A task that panics ends alone; the owner is told which one it was and decides what that means.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinSet};

/// How a task came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned.
    Returned,
    /// It was cancelled.
    Cancelled,
    /// It panicked.
    Panicked,
}

/// A task that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// How.
    pub outcome: Outcome,
}

/// The tasks of one owner. Dropping it cancels them.
#[derive(Debug, Default)]
pub struct Tasks {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task on the runtime that the caller runs on.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.running.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Starts a task on the thread that the caller runs on.
    pub fn spawn_local(&mut self, name: &'static str, task: impl Future<Output = ()> + 'static) {
        let handle = self.running.spawn_local(task);
        self.names.insert(handle.id(), name);
    }

    /// Number of tasks that have not been seen to end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for the next task to end; `None` when there is none. Dropping the future loses nothing.
    pub async fn ended(&mut self) -> Option<Ended> {
        let (id, outcome) = match self.running.join_next_with_id().await? {
            Ok((id, ())) => (id, Outcome::Returned),
            Err(error) if error.is_cancelled() => (error.id(), Outcome::Cancelled),
            Err(error) => (error.id(), Outcome::Panicked),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        if outcome == Outcome::Panicked {
            tracing::error!(task = name, "task panicked");
        }
        Some(Ended { name, outcome })
    }

    /// Cancels all and waits until they are gone.
    pub async fn cancel(mut self) {
        self.running.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_each_task_is_told_by_its_name() {
        let mut tasks = Tasks::default();
        tasks.spawn("short", async {});
        assert_eq!(tasks.ended().await, Some(Ended { name: "short", outcome: Outcome::Returned }));
        tasks.spawn("broken", async { assert_eq!(1, 2, "on purpose") });
        assert_eq!(tasks.ended().await, Some(Ended { name: "broken", outcome: Outcome::Panicked }));
        assert_eq!(tasks.ended().await, None);
        tasks.spawn("endless", std::future::pending());
        tasks.cancel().await;
    }
}
