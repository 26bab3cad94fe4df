//! Conditions of policy objects (pure): what of an object is said in its `status`, and when it is written.
//!
//! `Accepted`: the object is valid. `Enforced`: how many of the proxies that it applies to enforce it.
//! `Conflicted`: another object of the same place goes before it. Form and words are Kubernetes' own
//! (<https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md#typical-status-properties>).
//!
//! Proxies come and go all the time, and each coming changes the numbers of every policy that applies to it.
//! So what is written is paced for each object: news at once but for a short pause after the last write, mere
//! numbers after a longer one.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::enforcement::Spread;

/// Shortest time between two writes of one object.
pub const NEWS_EVERY: Duration = Duration::from_secs(3);
/// The same when only the words differ and no condition has another status.
pub const WORDS_EVERY: Duration = Duration::from_secs(30);
/// Longest message: of more than 32768 bytes Kubernetes takes none (metav1.Condition).
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    #[serde(default)]
    pub reason: String,
    /// Why, for people.
    #[serde(default)]
    pub message: String,
    /// Generation of the object that this is said of.
    #[serde(default)]
    pub observed_generation: i64,
    /// When `status` was last another, in RFC 3339.
    #[serde(default)]
    pub last_transition_time: String,
}

/// What of an object is in force at the replica that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InForce {
    /// Nothing.
    Nothing,
    /// A generation of it.
    Generation(i64),
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its generation.
    pub generation: i64,
    /// Why it is refused, if it is.
    pub refused: Option<String>,
    /// What of it is in force.
    pub in_force: InForce,
    /// It is only tried on live traffic.
    pub is_tried: bool,
    /// Where it is enforced, over all replicas.
    pub spread: Spread,
    /// Replicas that have not said what their proxies enforce.
    pub silent: Vec<String>,
    /// What goes before it.
    pub conflict: Option<String>,
}

/// The conditions of an object. Times are kept from `former` where nothing changes.
#[must_use]
pub fn conditions(facts: &Facts, former: &[Condition], now: &str) -> Vec<Condition> {
    [accepted(facts), enforced(facts), conflicted(facts)]
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = former.iter().find(|condition| condition.kind == kind && condition.status == status);
            let since = before.map(|condition| condition.last_transition_time.as_str());
            Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: crate::serve::webhook::review::shortened(&message, MESSAGE_BYTES_MAX).to_owned(),
                observed_generation: facts.generation,
                last_transition_time: since.filter(|time| !time.is_empty()).unwrap_or(now).to_owned(),
            }
        })
        .collect()
}

type Said = (&'static str, &'static str, &'static str, String);

fn accepted(facts: &Facts) -> Said {
    match &facts.refused {
        None => ("Accepted", "True", "Valid", "the object is valid".to_owned()),
        Some(reason) => ("Accepted", "False", "Invalid", reason.clone()),
    }
}

fn enforced(facts: &Facts) -> Said {
    let (status, reason, message) = match (&facts.refused, facts.in_force) {
        (Some(_), InForce::Generation(generation)) => {
            ("False", "NotAccepted", format!("generation {generation}, the last good one, stays in force"))
        }
        (Some(_), InForce::Nothing) => ("False", "NotAccepted", "it is not in force".to_owned()),
        (None, InForce::Nothing) => {
            ("Unknown", "Pending", "the control plane has not taken it in yet".to_owned())
        }
        (None, InForce::Generation(generation)) if generation < facts.generation => {
            ("Unknown", "Pending", format!("the control plane is at generation {generation}"))
        }
        (None, InForce::Generation(_)) => by_proxies(facts),
    };
    ("Enforced", status, reason, message)
}

fn by_proxies(facts: &Facts) -> (&'static str, &'static str, String) {
    let Spread { applies, enforced, laggards } = &facts.spread;
    let count = format!("{enforced}/{applies} proxies");
    if !facts.silent.is_empty() {
        let message = format!("{count}, without those of {}, which does not answer", facts.silent.join(", "));
        return ("Unknown", "ReplicaSilent", message);
    }
    if facts.is_tried {
        return ("False", "DryRun", format!("{count} try it on live traffic; it is not in force"));
    }
    if *applies == 0 {
        return ("Unknown", "NoProxies", format!("{count}: it applies to no connected proxy"));
    }
    if enforced == applies {
        return ("True", "AllProxies", count);
    }
    let more = match applies - enforced > laggards.len() {
        true => " and others",
        false => "",
    };
    ("False", "Waiting", format!("{count}, waiting for {}{more}", laggards.join(", ")))
}

fn conflicted(facts: &Facts) -> Said {
    match &facts.conflict {
        Some(conflict) => ("Conflicted", "True", "OtherGoesBefore", conflict.clone()),
        None => ("Conflicted", "False", "NoConflict", String::new()),
    }
}

/// What is different between conditions that stand and conditions that should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// Nothing.
    None,
    /// Words.
    Words,
    /// A status, or the generation that is spoken of.
    News,
}

/// Compares conditions; others' among `former` are not looked at.
#[must_use]
pub fn difference(former: &[Condition], next: &[Condition]) -> Difference {
    let mut difference = Difference::None;
    for condition in next {
        let Some(before) = former.iter().find(|before| before.kind == condition.kind) else {
            return Difference::News;
        };
        if before.status != condition.status || before.observed_generation != condition.observed_generation {
            return Difference::News;
        }
        if before.reason != condition.reason || before.message != condition.message {
            difference = Difference::Words;
        }
    }
    difference
}

/// Whether conditions are written now. `written` is when this object's were last written by this replica.
#[must_use]
pub fn is_due(difference: Difference, written: Option<Instant>, now: Instant) -> bool {
    let pause = match difference {
        Difference::None => return false,
        Difference::Words => WORDS_EVERY,
        Difference::News => NEWS_EVERY,
    };
    written.is_none_or(|written| now.duration_since(written) >= pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-12-01T12:00:00Z";

    fn facts() -> Facts {
        Facts {
            generation: 3,
            refused: None,
            in_force: InForce::Generation(3),
            is_tried: false,
            spread: Spread { applies: 3, enforced: 3, laggards: Vec::new() },
            silent: Vec::new(),
            conflict: None,
        }
    }

    fn said(facts: &Facts, kind: &str) -> (String, String, String) {
        let all = conditions(facts, &[], NOW);
        let one = all.into_iter().find(|condition| condition.kind == kind).expect("said");
        (one.status, one.reason, one.message)
    }

    fn is(status: &str, reason: &str, message: &str) -> (String, String, String) {
        (status.to_owned(), reason.to_owned(), message.to_owned())
    }

    #[test]
    fn enforcement_is_said_with_numbers_and_the_names_of_laggards() {
        assert_eq!(said(&facts(), "Enforced"), is("True", "AllProxies", "3/3 proxies"));
        let mut behind = facts();
        behind.spread =
            Spread { applies: 3, enforced: 1, laggards: vec!["a.shop".to_owned(), "b.shop".to_owned()] };
        assert_eq!(
            said(&behind, "Enforced"),
            is("False", "Waiting", "1/3 proxies, waiting for a.shop, b.shop")
        );
        behind.spread.applies = 9;
        assert!(said(&behind, "Enforced").2.ends_with("b.shop and others"));
        behind.spread = Spread::default();
        assert_eq!(said(&behind, "Enforced").0, "Unknown");
        assert_eq!(said(&behind, "Enforced").1, "NoProxies");
    }

    #[test]
    fn a_replica_that_does_not_answer_makes_enforcement_unknown() {
        let mut facts = facts();
        facts.silent = vec!["mesh-control-b".to_owned()];
        let (status, reason, message) = said(&facts, "Enforced");
        assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "ReplicaSilent"));
        assert!(message.contains("mesh-control-b"), "{message}");
    }

    #[test]
    fn a_refused_object_is_not_enforced_and_its_last_good_version_is_named() {
        let mut facts = facts();
        facts.refused = Some("spec.action: has an invalid value".to_owned());
        facts.in_force = InForce::Generation(2);
        assert_eq!(said(&facts, "Accepted"), is("False", "Invalid", "spec.action: has an invalid value"));
        let (status, reason, message) = said(&facts, "Enforced");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "NotAccepted"));
        assert!(message.contains("generation 2"), "{message}");
    }

    #[test]
    fn what_is_not_taken_in_yet_is_pending() {
        for in_force in [InForce::Nothing, InForce::Generation(2)] {
            assert_eq!(said(&Facts { in_force, ..facts() }, "Enforced").1, "Pending", "{in_force:?}");
        }
    }

    #[test]
    fn an_object_that_is_tried_is_not_in_force() {
        let (status, reason, _) = said(&Facts { is_tried: true, ..facts() }, "Enforced");
        assert_eq!((status.as_str(), reason.as_str()), ("False", "DryRun"));
    }

    #[test]
    fn a_time_moves_with_the_status_alone() {
        let former = conditions(&facts(), &[], "2026-01-01T00:00:00Z");
        let mut next = facts();
        next.spread.applies = 4;
        let next = conditions(&next, &former, NOW);
        let time =
            |kind: &str| next.iter().find(|c| c.kind == kind).expect("said").last_transition_time.clone();
        assert_eq!((time("Accepted").as_str(), time("Enforced").as_str()), ("2026-01-01T00:00:00Z", NOW));
    }

    #[test]
    fn numbers_wait_longer_than_news_and_sameness_is_never_written() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let four = Spread { applies: 4, enforced: 4, laggards: Vec::new() };
        let (three, four) =
            (conditions(&facts(), &[], NOW), conditions(&Facts { spread: four, ..facts() }, &[], NOW));
        assert_eq!(difference(&three, &three), Difference::None);
        assert_eq!(difference(&three, &four), Difference::Words);
        assert_eq!(difference(&[], &four), Difference::News);
        let newer =
            conditions(&Facts { generation: 4, in_force: InForce::Generation(4), ..facts() }, &[], NOW);
        assert_eq!(difference(&three, &newer), Difference::News);
        assert!(!is_due(Difference::None, None, start));
        assert!(is_due(Difference::Words, None, start), "the first write does not wait");
        assert!(
            !is_due(Difference::Words, Some(start), after(29))
                && is_due(Difference::Words, Some(start), after(30))
        );
        assert!(
            !is_due(Difference::News, Some(start), after(2))
                && is_due(Difference::News, Some(start), after(3))
        );
    }
}
