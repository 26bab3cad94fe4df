//! Keys of token issuers, fetched once for the whole mesh (SEMANTICS 7.2).
//!
//! Policies say where keys come from; [`KeyFetcher`] asks those places in its own task and publishes what it
//! finds into the [snapshot](crate::snapshot), from which they reach the proxies whose policies use them.
//! So a provider that is slow, down or hostile delays nothing: configuration flows, a source without keys is
//! one that no token passes, and a source that had keys keeps the last good ones, over restarts too.
//!
//! [`target`] reads URLs (pure), [`guard`] says which addresses may be dialled (pure), [`fetch`] does one
//! fetch, [`key_set`] takes from an answer what verifying needs (pure), [`schedule`] decides when (pure),
//! [`store`] keeps keys on disk, [`roots`] says whom providers' certificates must come from.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mesh_api::admin::KeySourceStatus;
use mesh_api::error_chain::chain;
use mesh_api::model::{KeySet, RequestAuthentication};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::plane::Plane;
use crate::state_file::{Durability, StateFileError};
use crate::telemetry::metrics;

pub mod fetch;
pub mod guard;
pub mod key_set;
pub mod roots;
pub mod schedule;
pub mod store;
pub mod target;

use fetch::{FetchError, Fetched, Fetcher, Spec};
use guard::{Destination, Guard};
use roots::RootsError;
use schedule::{Asked, Intervals, Outcome, Schedule};
use store::KeyStore;

/// Fetches at once.
const FETCHES_MAX: usize = 8;
/// Questions of proxies that may wait; more are dropped, and asked again with the next such token.
const QUESTIONS_MAX: usize = 256;
/// Names of keys in one log line, and letters of each: they are the provider's words.
const KEY_IDS_SHOWN: usize = 10;
const KEY_ID_SHOWN: usize = 64;
/// How often what is unused is looked for, and ages are measured.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Time between refreshes unless a flag says otherwise (Istio, `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
pub const REFRESH_DEFAULT: Duration = Duration::from_secs(20 * 60);
/// Time between two fetches of one source that proxies ask for.
const PAUSE: Duration = Duration::from_secs(10);

/// What operators state.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// The only destinations; empty: all that are not refused.
    pub allowed: Vec<Destination>,
    /// Networks that are not asked.
    pub blocked: Vec<ipnet::IpNet>,
    /// Authorities beside the system's.
    pub ca_certificates: Option<PathBuf>,
    /// Intervals.
    pub intervals: Intervals,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self {
            allowed: Vec::new(),
            blocked: Vec::new(),
            ca_certificates: None,
            intervals: Intervals { refresh: REFRESH_DEFAULT, pause: PAUSE },
        }
    }
}

/// Why keys cannot be fetched at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store.
    #[error("keys cannot be stored")]
    Store(#[from] StateFileError),
    /// Certificates.
    #[error("providers cannot be verified")]
    Roots(#[from] RootsError),
}

/// A proxy's question about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    source: String,
    key_id: String,
}

/// The rest of the control plane's end: says what is wanted, and reads what is known.
#[derive(Debug)]
pub struct Keys {
    wanted: watch::Sender<BTreeMap<String, Spec>>,
    questions: mpsc::Sender<Question>,
    status: Arc<Mutex<Vec<KeySourceStatus>>>,
}

impl Keys {
    /// The policies in force are these; called whenever they may have changed.
    pub fn follow<'p>(&self, policies: impl IntoIterator<Item = &'p Arc<RequestAuthentication>>) {
        let wanted = wanted(policies);
        self.wanted.send_if_modified(|former| {
            let is_other = *former != wanted;
            *former = wanted;
            is_other
        });
    }

    /// A proxy that uses `source` does not know a key. Never waits; tells whether the question was taken.
    pub fn ask(&self, source: &str, key_id: &str) -> bool {
        let question = Question { source: source.to_owned(), key_id: key_id.to_owned() };
        let is_taken = self.questions.try_send(question).is_ok();
        if !is_taken {
            metrics::unknown_key(Asked::Limited.label());
        }
        is_taken
    }

    /// What operators are told.
    #[must_use]
    pub fn status(&self) -> Vec<KeySourceStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The sources that rules name.
fn wanted<'p>(policies: impl IntoIterator<Item = &'p Arc<RequestAuthentication>>) -> BTreeMap<String, Spec> {
    let mut wanted: BTreeMap<String, Spec> = BTreeMap::new();
    for (url, spec) in policies.into_iter().flat_map(|policy| &policy.jwt_rules).filter_map(Spec::of) {
        wanted.entry(url).and_modify(|known| known.merge(&spec)).or_insert(spec);
    }
    wanted
}

/// The task that fetches.
#[derive(Debug)]
pub struct KeyFetcher {
    schedule: Schedule,
    fetcher: Fetcher,
    store: KeyStore,
    wanted: watch::Receiver<BTreeMap<String, Spec>>,
    questions: mpsc::Receiver<Question>,
    status: Arc<Mutex<Vec<KeySourceStatus>>>,
    started: Instant,
}

/// Why a fetch brought nothing.
#[derive(Debug)]
struct Failure {
    label: &'static str,
    problem: String,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { label: error.label(), problem: chain(&error) }
    }
}

/// Fetches under way.
#[derive(Debug, Default)]
struct Fetches {
    tasks: JoinSet<Result<Fetched, FetchError>>,
    urls: HashMap<Id, String>,
}

impl Fetches {
    fn start(
        &mut self,
        url: String,
        fetch: impl Future<Output = Result<Fetched, FetchError>> + Send + 'static,
    ) {
        let task = self.tasks.spawn(fetch);
        self.urls.insert(task.id(), url);
    }

    /// The next that ends; waits for ever while there is none. Dropping the future loses nothing.
    async fn next(&mut self) -> (String, Result<Fetched, Failure>) {
        loop {
            let (id, result) = match self.tasks.join_next_with_id().await {
                None => return std::future::pending().await,
                Some(Ok((id, result))) => (id, result.map_err(Failure::from)),
                // Only a defect of ours ends one without a result.
                Some(Err(error)) => {
                    tracing::error!(%error, "a fetch of keys was not finished");
                    let problem = "the fetch was not finished".to_owned();
                    (error.id(), Err(Failure { label: "unfinished", problem }))
                }
            };
            if let Some(url) = self.urls.remove(&id) {
                return (url, result);
            }
        }
    }

    fn room(&self) -> usize {
        FETCHES_MAX.saturating_sub(self.tasks.len())
    }
}

/// Opens the store in `directory` and makes both ends. Nothing is fetched before [`KeyFetcher::run`].
///
/// # Errors
/// What cannot be used.
pub fn open(settings: KeySettings, directory: &Path) -> Result<(Keys, KeyFetcher), OpenError> {
    let store = KeyStore::open(directory)?;
    let tls = roots::client_config(settings.ca_certificates.as_deref())?;
    let guard = Guard::new(settings.allowed, settings.blocked);
    let mut schedule = Schedule::new(settings.intervals);
    for (url, good) in store.load() {
        schedule.restore(url, good, Duration::ZERO);
    }
    let (wanted, wanting) = watch::channel(BTreeMap::new());
    let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
    let status = Arc::new(Mutex::new(Vec::new()));
    let keys = Keys { wanted, questions, status: Arc::clone(&status) };
    let fetcher = KeyFetcher {
        schedule,
        fetcher: Fetcher::new(guard, tls),
        store,
        wanted: wanting,
        questions: asked,
        status,
        started: Instant::now(),
    };
    Ok((keys, fetcher))
}

impl KeyFetcher {
    /// What was stored, to be published before the first proxy is served.
    #[must_use]
    pub fn restored(&self) -> BTreeMap<String, Option<KeySet>> {
        self.schedule.urls().map(|url| (url.clone(), self.schedule.key_set(url))).collect()
    }

    /// Fetches for as long as it is polled. Dropping the future ends the fetches that are under way; keys
    /// that were published stay.
    pub async fn run(mut self, plane: Arc<Plane>) -> Infallible {
        let mut fetches = Fetches::default();
        let directory = Arc::clone(&plane);
        let directory = Arc::new(move |name: &str, port| directory.snapshot().service_addresses(name, port));
        let fetcher = Arc::new(self.fetcher.clone().with_directory(directory));
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.take_wanted(&plane).await;
        loop {
            for (url, spec) in self.schedule.take_due(self.started.elapsed(), fetches.room()) {
                let fetcher = Arc::clone(&fetcher);
                fetches.start(url, async move { fetcher.fetch(&spec).await });
            }
            let due = self.schedule.next_due().filter(|_| fetches.room() > 0).map(|due| self.started + due);
            tokio::select! {
                (url, result) = fetches.next() => {
                    self.finish(&url, result, &plane).await;
                    self.tell();
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                Ok(()) = self.wanted.changed() => {
                    self.take_wanted(&plane).await;
                    self.tell();
                }
                Some(question) = self.questions.recv() => self.answer(&question),
                _ = sweep.tick() => {
                    let forgotten = self.schedule.forget(self.started.elapsed());
                    self.drop_forgotten(forgotten, &plane).await;
                    self.tell();
                }
            }
        }
    }

    fn answer(&mut self, question: &Question) {
        let Question { source, key_id } = question;
        let asked = self.schedule.ask(source, key_id, self.started.elapsed());
        metrics::unknown_key(asked.label());
        tracing::debug!(source, key_id, result = asked.label(), "a proxy does not know a key");
    }

    async fn take_wanted(&mut self, plane: &Plane) {
        let wanted = self.wanted.borrow_and_update().clone();
        let forgotten = self.schedule.want(&wanted, self.started.elapsed());
        plane.take_keys(wanted.keys().map(|url| (url.clone(), self.schedule.key_set(url))).collect());
        self.drop_forgotten(forgotten, plane).await;
    }

    async fn drop_forgotten(&self, forgotten: Vec<String>, plane: &Plane) {
        if forgotten.is_empty() {
            return;
        }
        plane.take_keys(forgotten.iter().map(|url| (url.clone(), None)).collect());
        let store = self.store.clone();
        let work = tokio::task::spawn_blocking(move || {
            for url in forgotten {
                match store.remove(&url) {
                    Ok(()) => tracing::info!(source = url, "keys that nobody uses are forgotten"),
                    Err(error) => tracing::warn!(source = url, %error, "stored keys cannot be removed"),
                }
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "stored keys were not removed");
        }
    }

    async fn finish(&mut self, url: &str, result: Result<Fetched, Failure>, plane: &Plane) {
        let result = result.map_err(|Failure { label, problem }| {
            metrics::keys_fetched(label);
            problem
        });
        let problem = result.as_ref().err().cloned().unwrap_or_default();
        let now = (self.started.elapsed(), SystemTime::now());
        let outcome = self.schedule.finish(url, result, now, fastrand::f64());
        // Proxies first: the disk may be slow.
        plane.take_keys(BTreeMap::from([(url.to_owned(), self.schedule.key_set(url))]));
        match outcome {
            Outcome::Changed => {
                metrics::keys_fetched("changed");
                self.announce(url);
                self.save(url, Durability::Flushed).await;
            }
            Outcome::Unchanged => {
                metrics::keys_fetched("unchanged");
                tracing::debug!(source = url, "the keys are the same");
                self.save(url, Durability::Cached).await;
            }
            Outcome::Failed { failures, has_keys: true } => {
                tracing::warn!(
                    source = url,
                    failures,
                    problem,
                    "no keys were fetched; the last good ones stay"
                );
            }
            Outcome::Failed { failures, has_keys: false } => {
                tracing::warn!(
                    source = url,
                    failures,
                    problem,
                    "no keys were fetched, so no token of them passes"
                );
            }
            Outcome::Forgotten => {}
        }
    }

    fn announce(&self, url: &str) {
        let Some(good) = self.schedule.good(url) else { return };
        let shortened = |key_id: &String| key_id.chars().take(KEY_ID_SHOWN).collect::<String>();
        let key_ids: Vec<_> = good.keys.key_ids.iter().take(KEY_IDS_SHOWN).map(shortened).collect();
        tracing::info!(source = url, keys = good.keys.number, ?key_ids, "keys were fetched");
        if good.keys.has_secret {
            tracing::warn!(
                source = url,
                "a symmetric key is published there: whoever can fetch it can sign tokens with it"
            );
        }
    }

    async fn save(&self, url: &str, durability: Durability) {
        let Some(good) = self.schedule.good(url).cloned() else { return };
        let (store, of) = (self.store.clone(), url.to_owned());
        match tokio::task::spawn_blocking(move || store.save(&of, &good, durability)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = chain(&error);
                tracing::error!(source = url, error, "keys could not be stored, so a restart forgets them");
            }
            Err(error) => tracing::error!(source = url, %error, "keys were not stored"),
        }
    }

    /// Brings what operators are told up to date.
    fn tell(&self) {
        let status = self.schedule.status(SystemTime::now());
        metrics::key_sources(&status);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

#[cfg(test)]
mod tests;
