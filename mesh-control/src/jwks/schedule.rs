//! What is known of each source of keys, and when it is asked next. Pure: time, chance and the outcome of
//! fetches come in, jobs and what to publish go out.
//!
//! - A new source is asked at once, then in the refresh interval, or sooner where the provider says so.
//! - A failure keeps the last good keys and is tried again after a minute, and after twice as long each
//!   further time, up to an hour. A source that has never had keys starts at a second: nobody can use what
//!   depends on it, and mostly its provider is just starting.
//! - A key that a proxy does not know has its source asked before its time, with a pause between two fetches
//!   that grows while such questions bring nothing new, because whoever sends a token can ask one; and with
//!   a budget over all sources.
//! - A source that no policy uses is not asked, kept for a week, and then forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::admin::KeySourceStatus;
use mesh_api::model::KeySet;

use super::fetch::{Fetched, Spec};
use super::key_set::PublicKeys;

/// Most sources that policies may use together; what is beyond has no keys.
pub const SOURCES_MAX: usize = 1_000;
/// Most sources that are kept although no policy uses them.
pub const UNUSED_MAX: usize = 100;
/// Time for which they are (Istio evicts keys after 7 days without use).
pub const UNUSED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Shortest interval between refreshes, whatever a provider says.
pub const REFRESH_MIN: Duration = Duration::from_secs(60);
/// First delay after a failure, with and without keys in hand, and the longest.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_WITHOUT_KEYS: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Longest pause between fetches that proxies ask for.
const PAUSE_MAX: Duration = Duration::from_secs(5 * 60);
/// Fetches that proxies may ask for over all sources: at once, and how long one takes to come back.
const BUDGET: u32 = 30;
const BUDGET_EVERY: Duration = Duration::from_secs(1);
/// Longest problem that is told, in bytes.
const PROBLEM_BYTES_MAX: usize = 600;
/// What is said before the first fetch has ended.
pub const NOT_YET: &str = "its keys have not been fetched yet";

/// Intervals that differ between meshes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Between refreshes.
    pub refresh: Duration,
    /// Between two fetches of one source when proxies ask for them.
    pub pause: Duration,
}

/// What came of a proxy's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The source is asked, or will be as soon as its pause is over.
    Granted,
    /// The key is known by now: it is on its way to the proxy.
    Known,
    /// Too many questions.
    Limited,
    /// No policy uses the source.
    Unused,
}

impl Asked {
    /// A word for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Known => "known",
            Self::Limited => "limited",
            Self::Unused => "unused",
        }
    }
}

/// What came of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Other keys than before.
    Changed,
    /// The same keys.
    Unchanged,
    /// None; and for how many times in a row.
    Failed {
        /// Failures in a row.
        failures: u32,
        /// Whether former keys stay in use.
        has_keys: bool,
    },
    /// The source has been forgotten meanwhile.
    Forgotten,
}

/// Good keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    /// The keys.
    pub keys: PublicKeys,
    /// When they were last seen at their source.
    pub seen: SystemTime,
}

#[derive(Debug)]
struct Source {
    /// `None`: no policy uses it.
    spec: Option<Spec>,
    unused_since: Duration,
    good: Option<Good>,
    problem: String,
    failures: u32,
    /// Fetches in a row that proxies asked for and that brought nothing new.
    in_vain: u32,
    last: Option<Duration>,
    due: Duration,
    is_asked: bool,
    is_fetching: bool,
}

impl Source {
    fn new(now: Duration) -> Self {
        Self {
            spec: None,
            unused_since: now,
            good: None,
            problem: NOT_YET.to_owned(),
            failures: 0,
            in_vain: 0,
            last: None,
            due: now,
            is_asked: false,
            is_fetching: false,
        }
    }

    fn is_waiting(&self) -> bool {
        self.spec.is_some() && !self.is_fetching
    }

    fn key_set(&self) -> KeySet {
        let jwks = self.good.as_ref().map(|good| Arc::clone(&good.keys.text));
        // With keys in hand the problem is for operators, not for proxies: a provider that comes and goes is
        // to change nothing for them.
        let problem = if jwks.is_some() { String::new() } else { self.problem.clone() };
        KeySet { jwks, problem }
    }
}

/// The sources.
#[derive(Debug)]
pub struct Schedule {
    intervals: Intervals,
    sources: BTreeMap<String, Source>,
    /// Sources that found no room.
    left_out: BTreeSet<String>,
    budget: u32,
    budget_at: Duration,
}

impl Schedule {
    /// A schedule of nothing.
    #[must_use]
    pub fn new(intervals: Intervals) -> Self {
        Self {
            intervals,
            sources: BTreeMap::new(),
            left_out: BTreeSet::new(),
            budget: BUDGET,
            budget_at: Duration::ZERO,
        }
    }

    /// Takes keys in that were stored earlier. Nobody uses them until a policy says so.
    pub fn restore(&mut self, url: String, good: Good, now: Duration) {
        let source = self.sources.entry(url).or_insert_with(|| Source::new(now));
        source.good = Some(good);
        source.problem = String::new();
    }

    /// Policies use exactly these sources from now on. Answers with what is forgotten.
    pub fn want(&mut self, wanted: &BTreeMap<String, Spec>, now: Duration) -> Vec<String> {
        for (url, source) in &mut self.sources {
            match wanted.get(url) {
                Some(spec) if source.spec.is_some() => source.spec = Some(spec.clone()),
                Some(spec) => {
                    source.spec = Some(spec.clone());
                    source.due = now;
                }
                None if source.spec.is_some() => {
                    source.spec = None;
                    source.unused_since = now;
                }
                None => {}
            }
        }
        self.left_out.clear();
        let mut used = self.sources.values().filter(|source| source.spec.is_some()).count();
        for (url, spec) in wanted {
            if self.sources.contains_key(url) {
                continue;
            }
            // Whoever adds sources without end does not displace those that are there.
            if used >= SOURCES_MAX {
                self.left_out.insert(url.clone());
                continue;
            }
            used += 1;
            let source = Source { spec: Some(spec.clone()), ..Source::new(now) };
            self.sources.insert(url.clone(), source);
        }
        self.forget(now)
    }

    /// Forgets what has not been used for long, and the longest unused beyond a number.
    pub fn forget(&mut self, now: Duration) -> Vec<String> {
        let mut unused: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, source)| source.spec.is_none())
            .map(|(url, source)| (source.unused_since, url.clone()))
            .collect();
        unused.sort_unstable();
        let beyond = unused.len().saturating_sub(UNUSED_MAX);
        let is_over = |at: usize, since: Duration| at < beyond || now.saturating_sub(since) >= UNUSED_FOR;
        let forgotten: Vec<_> = unused
            .into_iter()
            .enumerate()
            .filter(|(at, (since, _))| is_over(*at, *since))
            .map(|(_, (_, url))| url)
            .collect();
        for url in &forgotten {
            self.sources.remove(url);
        }
        forgotten
    }

    /// Sources that are to be asked now, the longest due first, at most `room` of them.
    pub fn take_due(&mut self, now: Duration, room: usize) -> Vec<(String, Spec)> {
        let mut due: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, source)| source.is_waiting() && source.due <= now)
            .map(|(url, source)| (source.due, url.clone()))
            .collect();
        due.sort_unstable();
        due.truncate(room);
        let mut jobs = Vec::with_capacity(due.len());
        for (_, url) in due {
            let Some(source) = self.sources.get_mut(&url) else { continue };
            let Some(spec) = source.spec.clone() else { continue };
            source.is_fetching = true;
            source.last = Some(now);
            jobs.push((url, spec));
        }
        jobs
    }

    /// When a source is to be asked next; `None` while there is none that waits.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.sources.values().filter(|source| source.is_waiting()).map(|source| source.due).min()
    }

    /// A fetch has ended. `result` is the keys or the problem in words; `draw` is uniform in `0.0..1.0`.
    pub fn finish(
        &mut self,
        url: &str,
        result: Result<Fetched, String>,
        (now, clock): (Duration, SystemTime),
        draw: f64,
    ) -> Outcome {
        let refresh = self.intervals.refresh;
        let Some(source) = self.sources.get_mut(url) else { return Outcome::Forgotten };
        source.is_fetching = false;
        let was_asked = std::mem::take(&mut source.is_asked);
        let outcome = match result {
            Ok(Fetched { keys, fresh_for }) => {
                source.failures = 0;
                source.problem.clear();
                let fresh_for = fresh_for.map_or(refresh, |fresh| fresh.max(REFRESH_MIN).min(refresh));
                source.due = now + jittered(fresh_for, 0.9, draw);
                let is_same = source.good.as_ref().is_some_and(|good| good.keys.text == keys.text);
                source.good = Some(Good { keys, seen: clock });
                if is_same { Outcome::Unchanged } else { Outcome::Changed }
            }
            Err(problem) => {
                let has_keys = source.good.is_some();
                let first = if has_keys { RETRY } else { RETRY_WITHOUT_KEYS };
                let delay = first.saturating_mul(1 << source.failures.min(16)).min(RETRY_MAX);
                source.failures = source.failures.saturating_add(1);
                source.due = now + jittered(delay, 0.8, draw);
                source.problem = shortened(problem);
                Outcome::Failed { failures: source.failures, has_keys }
            }
        };
        source.in_vain = match outcome {
            Outcome::Unchanged | Outcome::Failed { .. } if was_asked => source.in_vain.saturating_add(1),
            Outcome::Changed | Outcome::Unchanged | Outcome::Failed { .. } | Outcome::Forgotten => 0,
        };
        outcome
    }

    /// A proxy was shown a token with a key that it does not know.
    pub fn ask(&mut self, url: &str, key_id: &str, now: Duration) -> Asked {
        let pause = self.intervals.pause;
        let has_budget = self.has_budget(now);
        let Some(source) = self.sources.get_mut(url).filter(|source| source.spec.is_some()) else {
            return Asked::Unused;
        };
        let is_known = source.good.as_ref().is_some_and(|good| good.keys.key_ids.contains(key_id));
        if is_known && !key_id.is_empty() {
            return Asked::Known;
        }
        if source.is_fetching || source.is_asked {
            return Asked::Granted;
        }
        if !has_budget {
            return Asked::Limited;
        }
        let pause = pause.saturating_mul(1 << source.in_vain.min(16)).min(PAUSE_MAX.max(pause));
        let soonest = source.last.map_or(now, |last| now.max(last + pause));
        if soonest < source.due {
            source.due = soonest;
            source.is_asked = true;
            self.budget -= 1;
        }
        Asked::Granted
    }

    fn has_budget(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.budget_at).as_nanos() / BUDGET_EVERY.as_nanos();
        let back = u32::try_from(passed).unwrap_or(u32::MAX);
        if back > 0 {
            self.budget = self.budget.saturating_add(back).min(BUDGET);
            self.budget_at = now;
        }
        self.budget > 0
    }

    /// What proxies are to know of a source; `None` when it is forgotten.
    #[must_use]
    pub fn key_set(&self, url: &str) -> Option<KeySet> {
        if self.left_out.contains(url) {
            return Some(KeySet { jwks: None, problem: Self::left_out_problem() });
        }
        self.sources.get(url).map(Source::key_set)
    }

    /// Every source that is known of.
    pub fn urls(&self) -> impl Iterator<Item = &String> {
        self.sources.keys().chain(&self.left_out)
    }

    /// The good keys of a source.
    #[must_use]
    pub fn good(&self, url: &str) -> Option<&Good> {
        self.sources.get(url)?.good.as_ref()
    }

    /// What operators are told of the sources that policies use.
    #[must_use]
    pub fn status(&self, clock: SystemTime) -> Vec<KeySourceStatus> {
        let used = self.sources.iter().filter(|(_, source)| source.spec.is_some()).map(|(url, source)| {
            let age = |good: &Good| clock.duration_since(good.seen).unwrap_or_default().as_secs();
            KeySourceStatus {
                url: url.clone(),
                keys: source.good.as_ref().map_or(0, |good| good.keys.number),
                age_seconds: source.good.as_ref().map(age),
                problem: source.problem.clone(),
            }
        });
        let left_out = self.left_out.iter().map(|url| KeySourceStatus {
            url: url.clone(),
            keys: 0,
            age_seconds: None,
            problem: Self::left_out_problem(),
        });
        used.chain(left_out).collect()
    }

    fn left_out_problem() -> String {
        format!("policies use more than {SOURCES_MAX} sources of keys, and this one found no room")
    }
}

/// A time in the upper part of `time`, from `least` of it on, so that sources do not stay in step.
fn jittered(time: Duration, least: f64, draw: f64) -> Duration {
    time.mul_f64(least + (1.0 - least) * draw.clamp(0.0, 1.0))
}

fn shortened(mut problem: String) -> String {
    let mut end = problem.len().min(PROBLEM_BYTES_MAX);
    while !problem.is_char_boundary(end) {
        end -= 1;
    }
    problem.truncate(end);
    problem
}

#[cfg(test)]
mod tests;
