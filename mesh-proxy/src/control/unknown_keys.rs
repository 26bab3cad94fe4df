//! Tokens whose key is not known, on their way to the control plane, which fetches keys for the whole mesh.
//!
//! The request path calls [`UnknownKeys::report`] and goes on at once: the request that showed the token is
//! refused all the same, and the next one after the new keys have come is not. What is kept is one question
//! for each source, because one fetch answers for all of its keys, and a pause between two questions about
//! the same source, because whoever sends a token chooses its `kid`. So neither memory nor traffic grows
//! with what strangers send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Most sources that are asked about at a time: those of one workload's policies.
pub const SOURCES_MAX: usize = 256;
/// Time between two questions about one source. The control plane's own pause is at least as long.
pub const PAUSE: Duration = Duration::from_secs(10);
/// Time for which the same key of the same source is not asked about again.
pub const EXPIRY: Duration = Duration::from_secs(60);
/// Keys of one source that are remembered as asked about.
const KEY_IDS_MAX: usize = 32;
/// Longest `kid` that is passed on, in bytes; it serves to tell whether the key has come meanwhile.
const KEY_ID_BYTES_MAX: usize = 256;

/// One question for the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKey {
    /// The source, named as in [`mesh_api::model::KeySets`].
    pub source: Arc<str>,
    /// `kid` of the token; empty when it has none.
    pub key_id: String,
}

impl UnknownKey {
    /// The question while it is asked.
    #[must_use]
    pub fn until_answered(self, keys: &UnknownKeys) -> Pending<'_> {
        Pending { keys, question: Some(self) }
    }
}

/// A question that is being asked. When it is dropped without an answer, it waits to be asked again.
#[derive(Debug)]
pub struct Pending<'k> {
    keys: &'k UnknownKeys,
    question: Option<UnknownKey>,
}

impl Pending<'_> {
    /// The question.
    ///
    /// # Panics
    /// Never: only an answer, which takes `self`, removes it.
    #[must_use]
    pub fn key(&self) -> &UnknownKey {
        self.question.as_ref().expect("it is there until it is answered")
    }

    /// It was answered, one way or the other.
    pub fn answered(mut self) {
        self.question = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(question) = self.question.take() {
            self.keys.put_back(question);
        }
    }
}

/// What is known about one source.
#[derive(Debug, Default)]
struct Asked {
    /// Waits to be asked.
    waiting: Option<String>,
    /// When the last question went out.
    last: Option<Instant>,
    /// Keys that were asked about, and when.
    recent: HashMap<String, Instant>,
}

impl Asked {
    /// When the question that waits may go out.
    fn due(&self, now: Instant) -> Option<Instant> {
        self.waiting.as_ref().map(|_| self.last.map_or(now, |last| last + PAUSE))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_none() && self.last.is_none_or(|last| now >= last + EXPIRY)
    }
}

#[derive(Debug, Default)]
struct Shared {
    sources: Mutex<HashMap<Arc<str>, Asked>>,
    bell: Notify,
}

/// The questions of all workers. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct UnknownKeys {
    shared: Arc<Shared>,
}

impl UnknownKeys {
    /// A token of a rule whose keys come from `source` ([`mesh_api::model::KeySource::url`]) names a key that
    /// is not among them, or there are no keys of that source at all. `key_id` is the token's `kid`, empty
    /// when it has none.
    ///
    /// To be called by the request path for every token that is refused for this reason; never waits. What
    /// was asked a moment ago is not asked again.
    pub fn report(&self, source: &str, key_id: &str) {
        let now = Instant::now();
        let key_id = shortened(key_id);
        let mut sources = self.lock();
        if !sources.contains_key(source) {
            if sources.len() >= SOURCES_MAX {
                sources.retain(|_, asked| !asked.is_over(now));
                if sources.len() >= SOURCES_MAX {
                    return;
                }
            }
            sources.insert(Arc::from(source), Asked::default());
        }
        let Some(asked) = sources.get_mut(source) else { return };
        if asked.recent.get(key_id).is_some_and(|at| now < *at + EXPIRY) {
            return;
        }
        // Of several keys one is enough: the fetch brings all. The first stays, so that a storm of invented
        // ones does not keep replacing it.
        let is_new = asked.waiting.is_none();
        asked.waiting.get_or_insert_with(|| key_id.to_owned());
        drop(sources);
        if is_new {
            self.shared.bell.notify_one();
        }
    }

    /// The next question, when it is due. Dropping the future loses nothing.
    pub async fn next(&self) -> UnknownKey {
        loop {
            let bell = self.shared.bell.notified();
            let now = Instant::now();
            match self.take(now) {
                Ok(question) => return question,
                Err(Some(due)) => tokio::select! {
                    () = bell => {}
                    () = sleep_until(due) => {}
                },
                Err(None) => bell.await,
            }
        }
    }

    /// The question could not be asked: it waits again, and after the pause it is the next.
    fn put_back(&self, question: UnknownKey) {
        let mut sources = self.lock();
        let asked = sources.entry(question.source).or_default();
        asked.recent.remove(&question.key_id);
        asked.waiting.get_or_insert(question.key_id);
        drop(sources);
        self.shared.bell.notify_one();
    }

    /// A question that is due, or else the time at which one will be.
    fn take(&self, now: Instant) -> Result<UnknownKey, Option<Instant>> {
        let mut sources = self.lock();
        let next = sources.iter_mut().filter_map(|(source, asked)| Some((asked.due(now)?, source, asked)));
        let Some((due, source, asked)) = next.min_by_key(|(due, ..)| *due) else { return Err(None) };
        if due > now {
            return Err(Some(due));
        }
        let key_id = asked.waiting.take().unwrap_or_default();
        asked.last = Some(now);
        asked.recent.retain(|_, at| now < *at + EXPIRY);
        if asked.recent.len() < KEY_IDS_MAX {
            asked.recent.insert(key_id.clone(), now);
        }
        Ok(UnknownKey { source: Arc::clone(source), key_id })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Asked>> {
        self.shared.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shortened(key_id: &str) -> &str {
    let mut end = key_id.len().min(KEY_ID_BYTES_MAX);
    while !key_id.is_char_boundary(end) {
        end -= 1;
    }
    &key_id[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{advance, timeout};

    const SOURCE: &str = "https://idp.example/jwks";

    async fn is_quiet(keys: &UnknownKeys, time: Duration) -> bool {
        timeout(time, keys.next()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_asked_about_at_once_and_not_again_before_it_expires() {
        let keys = UnknownKeys::default();
        keys.report(SOURCE, "a");
        assert_eq!(keys.next().await, UnknownKey { source: Arc::from(SOURCE), key_id: "a".to_owned() });
        keys.report(SOURCE, "a");
        assert!(is_quiet(&keys, EXPIRY - Duration::from_secs(1)).await);
        advance(Duration::from_secs(1)).await;
        keys.report(SOURCE, "a");
        assert_eq!(keys.next().await.key_id, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn invented_keys_cost_one_question_for_each_pause_and_other_sources_do_not_wait() {
        let keys = UnknownKeys::default();
        let start = Instant::now();
        for number in 0..10_000 {
            keys.report(SOURCE, &number.to_string());
        }
        assert_eq!(keys.next().await.key_id, "0");
        keys.report(SOURCE, "x");
        keys.report("https://other.example/jwks", "y");
        assert_eq!(keys.next().await.key_id, "y");
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(keys.next().await.key_id, "x");
        assert_eq!(start.elapsed(), PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_is_over_makes_room() {
        let keys = UnknownKeys::default();
        for number in 0..2 * SOURCES_MAX {
            keys.report(&format!("https://{number}.example/"), "k");
        }
        assert_eq!(keys.lock().len(), SOURCES_MAX);
        for _ in 0..SOURCES_MAX {
            keys.next().await;
        }
        advance(EXPIRY).await;
        keys.report(SOURCE, &"k".repeat(10_000));
        assert_eq!(keys.next().await.key_id.len(), KEY_ID_BYTES_MAX);
        assert_eq!(keys.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_could_not_be_asked_is_asked_after_the_pause() {
        let keys = UnknownKeys::default();
        keys.report(SOURCE, "a");
        let question = keys.next().await;
        let start = Instant::now();
        drop(question.clone().until_answered(&keys));
        let again = keys.next().await;
        assert_eq!((&again, start.elapsed()), (&question, PAUSE));
        again.until_answered(&keys).answered();
        assert!(is_quiet(&keys, EXPIRY).await);
    }
}
