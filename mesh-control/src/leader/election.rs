//! The rules of the election (pure): what one candidate may do, given what it has seen of the lease.
//!
//! Clocks of different machines are never compared. A candidate that wants another's lease waits until it
//! has seen the same record for the whole time of the lease by its own clock; a leader counts from the moment
//! *before* it sent the last renewal that succeeded, and stops earlier than anybody can have waited. Every
//! write names the version that it replaces, so of two candidates one fails.
//!
//! What this assumes is that clocks run at about the same rate: with 15 s to wait and 10 s to lead, one may
//! be faster than the other by half. A machine that stands still for more than 5 s in the middle of a write
//! and runs on can finish that write late; writes of duties name versions too, for that reason.

use std::time::Duration;

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long a record must stay as it is before it may be taken.
    pub lease: Duration,
    /// How long a renewal is good for the leader. Less than `lease`.
    pub lead: Duration,
    /// Time between two looks.
    pub retry: Duration,
}

impl Default for Timing {
    /// Those of Kubernetes' own components.
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), lead: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// What stands in the lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Who holds it; nobody when absent or empty.
    pub holder: Option<String>,
    /// How long its holder wants others to wait.
    pub lease: Duration,
    /// When its holder renewed it, by the holder's clock: only ever compared for equality.
    pub renewed: String,
    /// How often it has changed hands.
    pub transitions: i32,
}

/// What a candidate does with a record that it has just read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Write oneself into it; `transitions` goes with it.
    Claim {
        /// How often it has changed hands then.
        transitions: i32,
    },
    /// Leave it alone.
    Wait,
}

/// One candidate. Times are those of its own clock, since any moment that it likes.
#[derive(Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// The record of somebody else, and when it was first seen like that.
    seen: Option<(Record, Duration)>,
    leads_until: Option<Duration>,
}

impl Election {
    /// A candidate of this name, which no other has.
    #[must_use]
    pub fn new(me: String, timing: Timing) -> Self {
        Self { me, timing, seen: None, leads_until: None }
    }

    /// The name.
    #[must_use]
    pub fn me(&self) -> &str {
        &self.me
    }

    /// The times.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// What to do with the lease as it was just read; `None` when there is none.
    pub fn consider(&mut self, found: Option<&Record>, now: Duration) -> Verdict {
        let Some(record) = found else { return Verdict::Claim { transitions: 0 } };
        let holder = record.holder.as_deref().filter(|holder| !holder.is_empty());
        let Some(holder) = holder else {
            return Verdict::Claim { transitions: record.transitions.saturating_add(1) };
        };
        if holder == self.me {
            self.seen = None;
            return Verdict::Claim { transitions: record.transitions };
        }
        // Whatever was believed, it is another's now.
        self.leads_until = None;
        match &self.seen {
            Some((seen, since)) if seen == record => {
                let waited = now.saturating_sub(*since);
                if waited >= self.timing.lease.max(record.lease) {
                    Verdict::Claim { transitions: record.transitions.saturating_add(1) }
                } else {
                    Verdict::Wait
                }
            }
            Some(_) | None => {
                self.seen = Some((record.clone(), now));
                Verdict::Wait
            }
        }
    }

    /// A claim succeeded whose request was begun at `started`.
    pub fn claimed(&mut self, started: Duration) {
        self.seen = None;
        self.leads_until = Some(started + self.timing.lead);
    }

    /// Until when this candidate leads, if it does.
    #[must_use]
    pub fn leads_until(&self) -> Option<Duration> {
        self.leads_until
    }

    /// Whether this candidate leads.
    #[must_use]
    pub fn leads(&self, now: Duration) -> bool {
        self.leads_until.is_some_and(|until| now < until)
    }

    /// This candidate does not want to lead any more.
    pub fn resign(&mut self) {
        self.leads_until = None;
    }
}

#[cfg(test)]
mod tests;
