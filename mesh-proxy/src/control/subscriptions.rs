//! Which destinations are kept: when each was asked for, when it was answered, when it is let go.
//!
//! A proxy's memory is a function of what its workload calls. What is idle is let go; a definite "no such
//! destination" is believed for seconds; a question without an answer is not asked for ever. The number is
//! bounded: when all places are taken, the least useful destination makes room.
//!
//! Nothing is let go while the control plane is away, since it could not be asked for again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mesh_api::model::DestinationKey;

/// Most destinations at once. The control plane accepts 10,000 subscriptions of one stream.
pub const DESTINATIONS_MAX: usize = 4_096;
/// Time without use after which a destination is let go.
pub const IDLE_AFTER: Duration = Duration::from_secs(300);
/// Time for which "no such destination" is believed without asking again.
pub const ABSENT_FOR: Duration = Duration::from_secs(10);
/// Time after which a question that nobody answered is withdrawn.
pub const UNANSWERED_FOR: Duration = Duration::from_secs(60);

/// What is known of a destination, as far as keeping it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Asked, not answered or not in force yet.
    Asked,
    /// In force, last used at this time of the process.
    Present {
        /// Time of the process.
        last_used: Duration,
    },
    /// There is none.
    Absent,
}

/// The destinations that are subscribed to, with the time of the process at which each was (last) asked for.
#[derive(Debug, Default)]
pub struct Subscriptions {
    asked: HashMap<DestinationKey, Duration>,
    answered: HashMap<DestinationKey, Duration>,
}

impl Subscriptions {
    /// Whether a destination is subscribed to.
    #[must_use]
    pub fn contains(&self, key: &DestinationKey) -> bool {
        self.asked.contains_key(key)
    }

    /// Number of destinations.
    #[must_use]
    pub fn len(&self) -> usize {
        self.asked.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Notes that somebody asks now.
    pub fn ask(&mut self, key: DestinationKey, now: Duration) {
        self.asked.insert(key, now);
    }

    /// Notes an answer.
    pub fn answer(&mut self, key: &DestinationKey, now: Duration) {
        if self.asked.contains_key(key) {
            self.answered.insert(key.clone(), now);
        }
    }

    /// Forgets a destination.
    pub fn remove(&mut self, key: &DestinationKey) {
        self.asked.remove(key);
        self.answered.remove(key);
    }

    /// What is to be let go now. `needed` are hosts that routes name.
    #[must_use]
    pub fn idle(
        &self,
        now: Duration,
        needed: &HashSet<DestinationKey>,
        standing: impl Fn(&DestinationKey) -> Standing,
    ) -> Vec<DestinationKey> {
        let is_over = |key: &DestinationKey, asked: Duration| {
            let since = |then: Duration| now.saturating_sub(then);
            match standing(key) {
                Standing::Asked => since(asked) >= UNANSWERED_FOR,
                Standing::Present { last_used } => since(last_used.max(asked)) >= IDLE_AFTER,
                Standing::Absent => {
                    since(self.answered.get(key).copied().unwrap_or(asked).max(asked)) >= ABSENT_FOR
                }
            }
        };
        self.asked
            .iter()
            .filter(|(key, asked)| !needed.contains(*key) && is_over(key, **asked))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Whom to let go so that there is room for one more; `None` when there is room, or nobody can go.
    ///
    /// Absent ones go first, then those in force, each the longest unused first. Questions stay: somebody
    /// waits for their answers.
    #[must_use]
    pub fn victim(
        &self,
        needed: &HashSet<DestinationKey>,
        standing: impl Fn(&DestinationKey) -> Standing,
    ) -> Option<DestinationKey> {
        let rank = |key: &DestinationKey, asked: Duration| match standing(key) {
            Standing::Absent => Some((0, asked)),
            Standing::Present { last_used } => Some((1, last_used.max(asked))),
            Standing::Asked => None,
        };
        self.asked
            .iter()
            .filter(|(key, _)| !needed.contains(*key))
            .filter_map(|(key, asked)| rank(key, *asked).map(|rank| (rank, key)))
            .min()
            .map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> DestinationKey {
        DestinationKey::parse(&format!("host/{name}.b.svc.cluster.local")).expect("valid")
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_standing_has_its_own_patience() {
        let mut kept = Subscriptions::default();
        for name in ["asked", "used", "idle", "absent", "needed"] {
            kept.ask(key(name), at(0));
            kept.answer(&key(name), at(1));
        }
        let standing = |of: &DestinationKey| match of {
            of if *of == key("asked") => Standing::Asked,
            of if *of == key("absent") => Standing::Absent,
            of if *of == key("used") => Standing::Present { last_used: at(250) },
            _ => Standing::Present { last_used: at(0) },
        };
        let needed = HashSet::from([key("needed")]);
        assert_eq!(kept.idle(at(10), &needed, standing), []);
        assert_eq!(kept.idle(at(11), &needed, standing), [key("absent")]);
        let mut late = kept.idle(at(300), &needed, standing);
        late.sort_unstable();
        assert_eq!(late, [key("absent"), key("asked"), key("idle")]);
    }

    #[test]
    fn what_is_absent_makes_room_before_what_is_used_and_questions_stay() {
        let mut kept = Subscriptions::default();
        for (name, when) in [("absent", 9), ("old", 1), ("new", 5), ("asked", 0)] {
            kept.ask(key(name), at(when));
        }
        let standing = |of: &DestinationKey| match of {
            of if *of == key("asked") => Standing::Asked,
            of if *of == key("absent") => Standing::Absent,
            _ => Standing::Present { last_used: at(0) },
        };
        let mut order = Vec::new();
        while let Some(victim) = kept.victim(&HashSet::new(), standing) {
            kept.remove(&victim);
            order.push(victim);
        }
        assert_eq!(order, [key("absent"), key("old"), key("new")]);
        assert!(kept.contains(&key("asked")));
    }
}
