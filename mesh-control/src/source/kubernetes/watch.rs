//! One kind of objects of a cluster, followed: listed by the page, then watched, for ever.
//!
//! Written over kube's list and watch calls and not over its watcher, because operators are to be told when a
//! watch is down and when it is back, and because a call that the API server takes and never answers must end.
//!
//! At the edges: a failure removes nothing and is told; the next attempt comes after a pause that doubles up to
//! [`PAUSE_MAX`], with jitter. When the API server has forgotten where the watch stood (410), everything is listed
//! anew and only what is different is told; what the new list lacks is gone. Dropping the future ends the watch; what
//! was not fed yet is lost with it.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::Api;
use kube::api::{ListParams, ObjectList, ObjectMeta, PartialObjectMeta, WatchEvent, WatchParams};
use mesh_api::error_chain::chain;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::object::{Item, Key, Topic};

/// Objects of one page of a list (as client-go asks for).
pub(super) const PAGE: u32 = 500;
/// Wait for the beginning of an answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Shortest and longest pause after a failure. An API server that was gone for a minute is asked again within ten
/// seconds of its return.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long the API server is asked to keep a watch open, in seconds: drawn for each, so that the watches of a
/// replica do not all begin anew at once. Below 295 (<https://github.com/kubernetes/kubernetes/issues/6513>).
const OPEN_SECONDS: std::ops::Range<u32> = 240..290;
/// For so long after that a watch may be silent before its connection is taken to be dead.
const SILENCE_MARGIN: Duration = Duration::from_secs(10);

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Fed {
    /// An object is new or different.
    Set(Item),
    /// An object is gone.
    Gone(Topic, Key),
    /// Every object has been told at least once.
    Listed(Topic),
    /// The API server cannot be asked, and why.
    Down(Topic, String),
    /// It can again.
    Up(Topic),
    /// The API server does not know the kind.
    Missing(Topic, String),
}

/// Where what watches tell is taken in.
pub(super) type Feed = mpsc::Sender<Fed>;

/// The calls of one kind.
pub(super) trait Reader: Send + Sync {
    /// An object as it comes.
    type Object: Clone + Send;

    fn list(
        &self,
        params: &ListParams,
    ) -> impl Future<Output = kube::Result<ObjectList<Self::Object>>> + Send;

    fn watch(
        &self,
        params: &WatchParams,
        version: &str,
    ) -> impl Future<Output = kube::Result<Events<Self::Object>>> + Send;

    /// What is kept of an object.
    fn item(&self, object: Self::Object) -> Item;

    fn meta(object: &Self::Object) -> &ObjectMeta;

    /// Restricts which objects are read.
    fn fields(&self) -> Option<&str> {
        None
    }
}

type Events<T> = BoxStream<'static, kube::Result<WatchEvent<T>>>;

/// Reads whole objects.
pub(super) struct Whole<K> {
    pub(super) api: Api<K>,
    pub(super) fields: Option<String>,
    pub(super) item: Box<dyn Fn(K) -> Item + Send + Sync>,
}

impl<K> Reader for Whole<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    type Object = K;

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<K>> {
        self.api.list(params).await
    }

    async fn watch(&self, params: &WatchParams, version: &str) -> kube::Result<Events<K>> {
        Ok(self.api.watch(params, version).await?.boxed())
    }

    fn item(&self, object: K) -> Item {
        (self.item)(object)
    }

    fn meta(object: &K) -> &ObjectMeta {
        object.meta()
    }

    fn fields(&self) -> Option<&str> {
        self.fields.as_deref()
    }
}

/// Reads metadata alone, so that what the mesh has no use for (the images of a node) is not sent.
pub(super) struct MetadataOnly<K> {
    pub(super) api: Api<K>,
    pub(super) item: fn(ObjectMeta) -> Item,
}

impl<K> Reader for MetadataOnly<K>
where
    K: Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    type Object = PartialObjectMeta<K>;

    async fn list(&self, params: &ListParams) -> kube::Result<ObjectList<PartialObjectMeta<K>>> {
        self.api.list_metadata(params).await
    }

    async fn watch(&self, params: &WatchParams, version: &str) -> kube::Result<Events<PartialObjectMeta<K>>> {
        Ok(self.api.watch_metadata(params, version).await?.boxed())
    }

    fn item(&self, object: PartialObjectMeta<K>) -> Item {
        (self.item)(object.metadata)
    }

    fn meta(object: &PartialObjectMeta<K>) -> &ObjectMeta {
        &object.metadata
    }
}

/// Why following ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody takes in what is told.
    Unheard,
    /// The API server does not know the kind (any more).
    Unknown,
}

/// Why an attempt ended.
enum Failed {
    /// List anew.
    Forgotten,
    /// Nobody listens.
    Unheard,
    /// The kind is not served.
    Unknown,
    /// Anything else.
    Because(String),
}

impl From<kube::Error> for Failed {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 410 => Self::Forgotten,
            kube::Error::Api(status) if status.code == 404 => Self::Unknown,
            kube::Error::Api(status) => Self::Because(format!("{} {}", status.code, status.message)),
            other => Self::Because(chain(&other).to_string()),
        }
    }
}

/// One kind, followed.
pub(super) struct Watch {
    topic: Topic,
    feed: Feed,
    /// Version of each object that was told.
    known: HashMap<Key, String>,
    is_down: bool,
    pause: Duration,
}

impl Watch {
    pub(super) fn new(topic: Topic, feed: Feed) -> Self {
        Self { topic, feed, known: HashMap::new(), is_down: false, pause: PAUSE_MIN }
    }

    /// Follows until nobody listens or the kind is not served.
    pub(super) async fn follow<R: Reader>(&mut self, reader: &R) -> Ended {
        let mut version = None;
        loop {
            let outcome = match version.take() {
                None => self.list(reader).await.map(Some),
                Some(at) => self.watch(reader, at).await,
            };
            match outcome {
                Ok(next) => version = next,
                Err(Failed::Forgotten) => {}
                Err(Failed::Unheard) => return Ended::Unheard,
                Err(Failed::Unknown) => return Ended::Unknown,
                Err(Failed::Because(reason)) => {
                    if self.tell(Fed::Down(self.topic, reason)).await.is_err() {
                        return Ended::Unheard;
                    }
                    self.is_down = true;
                    self.rest().await;
                }
            }
        }
    }

    /// Says that the API server does not know the kind, and waits.
    pub(super) async fn missing(&mut self, reason: String) -> Result<(), Ended> {
        self.tell(Fed::Missing(self.topic, reason)).await.map_err(|_| Ended::Unheard)?;
        self.rest().await;
        Ok(())
    }

    /// Says that the API server cannot be asked, and waits.
    pub(super) async fn down(&mut self, reason: String) -> Result<(), Ended> {
        self.is_down = true;
        self.tell(Fed::Down(self.topic, reason)).await.map_err(|_| Ended::Unheard)?;
        self.rest().await;
        Ok(())
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    async fn tell(&self, fed: Fed) -> Result<(), Failed> {
        self.feed.send(fed).await.map_err(|_| Failed::Unheard)
    }

    async fn up(&mut self) -> Result<(), Failed> {
        if std::mem::take(&mut self.is_down) {
            self.tell(Fed::Up(self.topic)).await?;
        }
        Ok(())
    }

    /// Lists every page; answers where a watch goes on from.
    async fn list<R: Reader>(&mut self, reader: &R) -> Result<String, Failed> {
        let mut params = ListParams { limit: Some(PAGE), ..ListParams::default() };
        params.field_selector = reader.fields().map(str::to_owned);
        let mut seen = HashSet::new();
        let version = loop {
            let page = within(ANSWER_WAIT, reader.list(&params)).await?;
            for object in page.items {
                seen.extend(self.set(reader, object).await?);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break page.metadata.resource_version.unwrap_or_default(),
            }
        };
        let gone: Vec<Key> = self.known.keys().filter(|key| !seen.contains(*key)).cloned().collect();
        for key in gone {
            self.known.remove(&key);
            self.tell(Fed::Gone(self.topic, key)).await?;
        }
        self.up().await?;
        self.tell(Fed::Listed(self.topic)).await?;
        Ok(version)
    }

    /// Watches from a version until the watch ends; answers where the next one goes on from.
    async fn watch<R: Reader>(&mut self, reader: &R, mut version: String) -> Result<Option<String>, Failed> {
        let seconds = fastrand::u32(OPEN_SECONDS);
        let mut params = WatchParams::default().timeout(seconds);
        params.field_selector = reader.fields().map(str::to_owned);
        let silence = Duration::from_secs(u64::from(seconds)) + SILENCE_MARGIN;
        let mut events = match within(ANSWER_WAIT, reader.watch(&params, &version)).await {
            Ok(events) => events,
            Err(failed) => return self.went_down(failed, version).await,
        };
        self.up().await?;
        while let Some(event) = next(&mut events, silence).await {
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    version = R::meta(&object).resource_version.clone().unwrap_or(version);
                    self.set(reader, object).await?;
                    self.pause = PAUSE_MIN;
                }
                Ok(WatchEvent::Deleted(object)) => {
                    let meta = R::meta(&object);
                    version = meta.resource_version.clone().unwrap_or(version);
                    let key = Key::of(meta);
                    self.known.remove(&key);
                    self.tell(Fed::Gone(self.topic, key)).await?;
                }
                Ok(WatchEvent::Bookmark(mark)) => {
                    version = mark.metadata.resource_version;
                    self.pause = PAUSE_MIN;
                }
                Ok(WatchEvent::Error(status)) => {
                    return self.broke_off(kube::Error::Api(status), version).await;
                }
                // One object that cannot be read is told and passed over; the last good version stays.
                Err(kube::Error::SerdeError(error)) => {
                    tracing::warn!(topic = %self.topic, %error, "an object of a watch cannot be read");
                }
                Err(error) => return self.broke_off(error, version).await,
            }
        }
        Ok(Some(version))
    }

    async fn broke_off(&mut self, error: kube::Error, version: String) -> Result<Option<String>, Failed> {
        self.went_down(Failed::from(error), version).await
    }

    /// Tells of a failure that leaves the watch where it is.
    async fn went_down(&mut self, failed: Failed, version: String) -> Result<Option<String>, Failed> {
        let Failed::Because(reason) = failed else { return Err(failed) };
        self.is_down = true;
        self.tell(Fed::Down(self.topic, reason)).await?;
        self.rest().await;
        Ok(Some(version))
    }

    /// Tells of an object, unless that very version was told before.
    async fn set<R: Reader>(&mut self, reader: &R, object: R::Object) -> Result<Option<Key>, Failed> {
        let meta = R::meta(&object);
        if meta.name.is_none() {
            return Ok(None);
        }
        let key = Key::of(meta);
        let version = meta.resource_version.clone().unwrap_or_default();
        if version.is_empty() || self.known.get(&key) != Some(&version) {
            self.known.insert(key.clone(), version);
            self.tell(Fed::Set(reader.item(object))).await?;
        }
        Ok(Some(key))
    }
}

async fn within<T>(wait: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match timeout(wait, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failed::Because(format!("no answer within {} s", wait.as_secs()))),
    }
}

/// The next event; `None` at the end of the watch, or when it has been silent for longer than it may be.
async fn next<T>(events: &mut (impl Stream<Item = T> + Unpin), silence: Duration) -> Option<T> {
    timeout(silence, events.next()).await.ok().flatten()
}

/// Plural names of what the API server has in one version of a group; `None` when it has none of it.
pub(super) async fn resources(
    client: &kube::Client,
    group: &str,
    version: &str,
) -> Result<Option<Vec<String>>, String> {
    let group_version = format!("{group}/{version}");
    match within(ANSWER_WAIT, client.list_api_group_resources(&group_version)).await {
        Ok(list) => Ok(Some(list.resources.into_iter().map(|resource| resource.name).collect())),
        Err(Failed::Unknown) => Ok(None),
        Err(Failed::Because(reason)) => Err(reason),
        Err(Failed::Forgotten | Failed::Unheard) => Err("410".to_owned()),
    }
}
