//! Injection as the webhook does it: settings from a ConfigMap, the pod's namespace and the server's version
//! from the API server, and the decision and the patch from [`mesh_kube::inject`].
//!
//! The namespace is asked for with each pod, and not kept: a namespace that was labelled a moment ago must not
//! get a pod without a proxy because a watch was behind. Whatever cannot be known is a refusal that says what
//! is missing, never a pod without a proxy.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::Api;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use mesh_api::error_chain::chain;
use mesh_api::problem::{Problem, Severity};
use mesh_kube::inject::{InjectError, InjectSettings, Injection, NamespaceMeta, Platform};
use mesh_kube::name::{CONFIG, CONFIG_INJECT, CONTROL, DEFAULT_REVISION};
use serde_json::Value;
use tokio::time::timeout;

use crate::plane::Plane;
use crate::serve::webhook::review::shortened;
use crate::telemetry::metrics::webhook as metrics;

/// Time allowed for a question to the API server. It waits for the answer to its own.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the server's version is believed: an upgrade takes longer.
const VERSION_FOR: Duration = Duration::from_secs(600);
/// First minor version of Kubernetes 1 whose clusters run native sidecars unless told otherwise
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).
const NATIVE_SIDECARS_SINCE: u32 = 29;
/// Longest note of an event: one that is longer is refused by the API server.
const NOTE_BYTES_MAX: usize = 1024;
/// Code of the problem of broken settings.
const SETTINGS_PROBLEM: &str = "MM0120";

/// Why a pod could not be looked at, or is refused.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// There are no settings.
    #[error(
        "the settings of injection are missing: the ConfigMap {namespace}/{name} with key {CONFIG_INJECT} is not \
         there or not valid; install or upgrade the mesh with meshctl"
    )]
    NoSettings {
        /// Namespace of the ConfigMap.
        namespace: String,
        /// Name of the ConfigMap.
        name: String,
    },
    /// The namespace cannot be had.
    #[error("the namespace {namespace} could not be read, so it is not known whether its pods get a proxy")]
    Namespace {
        /// The pod's namespace.
        namespace: String,
        /// Why.
        source: QuestionError,
    },
    /// The server's version cannot be had.
    #[error(
        "the version of the API server could not be read, so it is not known which form of sidecar it runs"
    )]
    Version(#[source] QuestionError),
    /// The pod cannot be injected.
    #[error(transparent)]
    Inject(InjectError),
}

/// Why the API server has not answered.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// It took too long.
    #[error("the API server did not answer in {} seconds", QUESTION_TIMEOUT.as_secs())]
    Late,
    /// It refused, or was not reached.
    #[error(transparent)]
    Refused(kube::Error),
}

/// Injects pods.
pub struct Injector {
    client: Client,
    plane: Arc<Plane>,
    namespace: String,
    config_map: String,
    settings: ArcSwapOption<InjectSettings>,
    platform: Mutex<Option<(Instant, Platform)>>,
}

impl std::fmt::Debug for Injector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Injector").field("config_map", &self.config_map).finish_non_exhaustive()
    }
}

/// The ConfigMap of a revision.
#[must_use]
pub fn config_map(revision: &str) -> String {
    match revision {
        DEFAULT_REVISION => CONFIG.to_owned(),
        other => format!("{CONFIG}-{other}"),
    }
}

impl Injector {
    /// An injector that has no settings yet.
    #[must_use]
    pub fn new(client: Client, plane: Arc<Plane>, namespace: &str, revision: &str) -> Arc<Self> {
        Arc::new(Self {
            client,
            plane,
            namespace: namespace.to_owned(),
            config_map: config_map(revision),
            settings: ArcSwapOption::empty(),
            platform: Mutex::new(None),
        })
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Option<Arc<InjectSettings>> {
        self.settings.load_full()
    }

    /// Follows the ConfigMap. A broken one, or one that goes away, changes nothing but the list of problems.
    pub async fn follow(&self) -> Infallible {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.config_map));
        let mut events = watcher(api, config).default_backoff().boxed();
        let recorder = Recorder::new(self.client.clone(), CONTROL.into());
        let mut is_there = false;
        loop {
            match events.next().await {
                Some(Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map))) => {
                    is_there = true;
                    let text = map.data.as_ref().and_then(|data| data.get(CONFIG_INJECT)).map(String::as_str);
                    if let Some(problem) = self.take(text) {
                        tell(&recorder, &map, &problem).await;
                    }
                }
                Some(Ok(watcher::Event::Delete(_))) => drop(self.take(None)),
                Some(Ok(watcher::Event::Init)) => is_there = false,
                Some(Ok(watcher::Event::InitDone)) if !is_there => drop(self.take(None)),
                Some(Ok(watcher::Event::InitDone)) => {}
                Some(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the settings of injection cannot be watched");
                }
                // A watch never ends by itself.
                None => std::future::pending().await,
            }
        }
    }

    /// Takes settings in; `None` when there are none. Answers what is wrong with them.
    pub fn take(&self, text: Option<&str>) -> Option<Problem> {
        let read = match text {
            Some(text) => InjectSettings::parse(text).map_err(|error| chain(&error)),
            None => Err(format!("there is no key {CONFIG_INJECT}, or no such ConfigMap")),
        };
        match read {
            Ok(settings) => {
                if self.settings.load().as_deref() != Some(&settings) {
                    tracing::info!(config_map = self.config_map, "settings of injection are in force");
                }
                self.settings.store(Some(Arc::new(settings)));
                self.plane.set_notice(SETTINGS_PROBLEM, None);
                metrics::inject_settings("good");
                None
            }
            Err(reason) => {
                let is_held = self.settings.load().is_some();
                let consequence = match is_held {
                    true => "the last good ones stay in force",
                    false => "pods that ask for a proxy are refused",
                };
                tracing::error!(config_map = self.config_map, reason, consequence, "settings of injection");
                let problem = self.problem(&reason, consequence);
                self.plane.set_notice(SETTINGS_PROBLEM, Some(problem.clone()));
                metrics::inject_settings(if is_held { "held" } else { "missing" });
                Some(problem)
            }
        }
    }

    fn problem(&self, reason: &str, consequence: &str) -> Problem {
        let place = format!("ConfigMap {}/{}", self.namespace, self.config_map);
        Problem {
            code: SETTINGS_PROBLEM.to_owned(),
            severity: Severity::Error,
            object: None,
            origin: mesh_api::model::Origin { file: place.into(), line: 0 },
            field: format!("data[{CONFIG_INJECT}]"),
            message: format!("{reason}; {consequence}"),
            hint: "Correct it with meshctl install or meshctl upgrade.".to_owned(),
        }
    }

    /// Decides about a pod and makes its patch.
    ///
    /// # Errors
    /// When the pod cannot be injected, or what is needed to decide cannot be known.
    pub async fn admit(&self, pod: &Value, namespace: &str) -> Result<Injection, AdmitError> {
        let settings = self.settings().ok_or_else(|| AdmitError::NoSettings {
            namespace: self.namespace.clone(),
            name: self.config_map.clone(),
        })?;
        let meta = self.namespace_meta(namespace).await;
        let meta =
            meta.map_err(|source| AdmitError::Namespace { namespace: namespace.to_owned(), source })?;
        let platform = self.platform().await.map_err(AdmitError::Version)?;
        mesh_kube::inject::inject(pod, &meta, &settings, platform).map_err(AdmitError::Inject)
    }

    async fn namespace_meta(&self, name: &str) -> Result<NamespaceMeta, QuestionError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let namespace = asked(api.get_metadata(name)).await?;
        Ok(NamespaceMeta {
            name: name.to_owned(),
            labels: namespace.metadata.labels.unwrap_or_default(),
            annotations: namespace.metadata.annotations.unwrap_or_default(),
        })
    }

    async fn platform(&self) -> Result<Platform, QuestionError> {
        let known = *self.platform.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, platform)) = known
            && at.elapsed() < VERSION_FOR
        {
            return Ok(platform);
        }
        match asked(self.client.apiserver_version()).await {
            Ok(version) => {
                let platform =
                    Platform { native_sidecars: has_native_sidecars(&version.major, &version.minor) };
                *self.platform.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), platform));
                Ok(platform)
            }
            // A server does not lose what it could.
            Err(error) => known.map(|(_, platform)| platform).ok_or(error),
        }
    }
}

/// Says on the ConfigMap what is wrong with it. Every replica does; the API server counts them together.
async fn tell(recorder: &Recorder, map: &ConfigMap, problem: &Problem) {
    let event = Event {
        type_: EventType::Warning,
        reason: "InvalidSettings".to_owned(),
        note: Some(shortened(&format!("{}: {}", problem.field, problem.message), NOTE_BYTES_MAX).to_owned()),
        action: "Read".to_owned(),
        secondary: None,
    };
    if let Err(error) = asked(recorder.publish(&event, &map.object_ref(&()))).await {
        tracing::warn!(error = chain(&error), "an event of the settings could not be written");
    }
}

async fn asked<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Result<T, QuestionError> {
    match timeout(QUESTION_TIMEOUT, question).await {
        Ok(answer) => answer.map_err(QuestionError::Refused),
        Err(_elapsed) => Err(QuestionError::Late),
    }
}

/// Providers write minor versions such as `29+`.
fn has_native_sidecars(major: &str, minor: &str) -> bool {
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().unwrap_or_default()
    };
    (number(major), number(minor)) >= (1, NATIVE_SIDECARS_SINCE)
}

#[cfg(test)]
mod tests;
