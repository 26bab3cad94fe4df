//! What policies that are tried would have decided otherwise, counted.
//!
//! Alike requests share an entry: of the same caller, with the same method and, but for identifiers, the same
//! path. The lock is taken for a difference only and never waited for: what is not entered, then or because
//! the table is full, still counts.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use mesh_api::admin::{PolicyDifference, TrialOutcome, TrialVerdict};
use mesh_policy::suggest::templated;

use crate::connection::Connection;

/// Entries kept.
const ENTRIES_MAX: usize = 512;
/// Longest text kept of what a client sent, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// How one request ends and would end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Outcomes {
    pub(super) now: TrialOutcome,
    pub(super) then: TrialOutcome,
}

impl Outcomes {
    /// Whether the client would notice.
    pub(super) fn differ(&self) -> bool {
        let refused = TrialVerdict::Refused;
        self.now.verdict != self.then.verdict
            || (self.now.verdict == refused && self.now.status != self.then.status)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Kind {
    caller: String,
    method: String,
    path: String,
    port: u16,
    outcomes: Outcomes,
}

#[derive(Debug)]
struct Tally {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

/// The count of one trial.
#[derive(Debug)]
pub(super) struct Differences {
    since: Timestamp,
    judged: AtomicU64,
    differing: AtomicU64,
    entries: Mutex<HashMap<Kind, Tally>>,
}

impl Default for Differences {
    fn default() -> Self {
        Self {
            since: Timestamp::now(),
            judged: AtomicU64::new(0),
            differing: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }
}

impl Differences {
    /// Counts one request, or with empty texts one connection, that both sets of policies judged.
    pub(super) fn note(&self, connection: &Connection, (method, path): (&str, &str), outcomes: Outcomes) {
        self.judged.fetch_add(1, Ordering::Relaxed);
        if !outcomes.differ() {
            return;
        }
        self.differing.fetch_add(1, Ordering::Relaxed);
        let caller = connection.peer_identity().map_or("none", |identity| identity.as_str());
        let kind = Kind {
            caller: caller.to_owned(),
            method: bounded(method).to_owned(),
            path: templated(bounded(path)),
            port: connection.destination.port(),
            outcomes,
        };
        let now = Timestamp::now();
        let Ok(mut entries) = self.entries.try_lock() else { return };
        if let Some(tally) = entries.get_mut(&kind) {
            tally.count += 1;
            tally.last = now;
        } else if entries.len() < ENTRIES_MAX {
            entries.insert(kind, Tally { count: 1, first: now, last: now });
        }
    }

    /// Since when it is counted.
    #[must_use]
    pub(super) fn since(&self) -> Timestamp {
        self.since
    }

    /// Numbers of requests that were judged, and of those that differ.
    #[must_use]
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.judged.load(Ordering::Relaxed), self.differing.load(Ordering::Relaxed))
    }

    /// The entries, the most frequent first.
    ///
    /// # Panics
    /// Never in practice: only if a holder of the lock panicked.
    #[must_use]
    pub(super) fn list(&self) -> Vec<PolicyDifference> {
        let entries = self.entries.lock().expect("no holder panics");
        let entry = |(kind, tally): (&Kind, &Tally)| PolicyDifference {
            caller: kind.caller.clone(),
            method: kind.method.clone(),
            path: kind.path.clone(),
            port: kind.port,
            count: tally.count,
            now: kind.outcomes.now.clone(),
            then: kind.outcomes.then.clone(),
            first: tally.first.to_string(),
            last: tally.last.to_string(),
        };
        let mut list: Vec<PolicyDifference> = entries.iter().map(entry).collect();
        drop(entries);
        list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| key(a).cmp(&key(b))));
        list
    }
}

fn key(difference: &PolicyDifference) -> (&str, &str, &str, u16) {
    (&difference.caller, &difference.path, &difference.method, difference.port)
}

fn bounded(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Direction;
    use mesh_api::admin::TrialStage;
    use std::time::Instant;

    fn connection() -> Connection {
        Connection {
            id: 1,
            direction: Direction::Inbound,
            peer: "10.0.0.1:4000".parse().expect("address"),
            destination: "10.0.0.2:8080".parse().expect("address"),
            tls: None,
            accepted: Instant::now(),
        }
    }

    fn outcome(verdict: TrialVerdict, status: u16) -> TrialOutcome {
        TrialOutcome { verdict, stage: TrialStage::Policy, status, by: "none".to_owned() }
    }

    fn refused_then() -> Outcomes {
        Outcomes { now: outcome(TrialVerdict::Allowed, 0), then: outcome(TrialVerdict::Refused, 403) }
    }

    #[test]
    fn only_differences_are_entered_and_alike_ones_together() {
        let differences = Differences::default();
        let same = Outcomes { now: outcome(TrialVerdict::Refused, 403), ..refused_then() };
        differences.note(&connection(), ("GET", "/a/1"), same);
        differences.note(&connection(), ("GET", "/a/1"), refused_then());
        differences.note(&connection(), ("GET", "/a/2"), refused_then());
        assert_eq!(differences.numbers(), (3, 2));
        let list = differences.list();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].path.as_str(), list[0].count, list[0].caller.as_str()), ("/a/{*}", 2, "none"));
        assert!(list[0].first <= list[0].last);
    }

    #[test]
    fn another_status_of_a_refusal_is_a_difference() {
        let other = Outcomes { now: outcome(TrialVerdict::Refused, 401), ..refused_then() };
        assert!(other.differ());
    }

    #[test]
    fn the_table_is_bounded_and_the_count_is_not() {
        let differences = Differences::default();
        for number in 0..ENTRIES_MAX + 9 {
            let word: String = format!("{number:04}").bytes().map(|digit| char::from(digit + 49)).collect();
            differences.note(&connection(), ("GET", &format!("/{word}")), refused_then());
        }
        assert_eq!(differences.list().len(), ENTRIES_MAX);
        assert_eq!(differences.numbers().1, ENTRIES_MAX as u64 + 9);
    }
}
