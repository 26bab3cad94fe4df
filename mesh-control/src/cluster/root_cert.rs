//! Whom to trust, in every namespace: ConfigMap `mini-mesh-ca-root-cert`, which the proxies of its pods mount.
//!
//! A duty of the leader. Namespaces and the ConfigMaps of this name are watched, and what differs from what
//! it should be is written: in a namespace that appears, after somebody edited or deleted one, and everywhere
//! when the roots change. Writes are server-side apply, so that what others add to the object stays theirs.
//! The names of [`SKIPPED`] have no pods of the mesh, and a namespace that ends takes nothing any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use mesh_api::error_chain::chain;
use mesh_identity::ca::Issuer as _;
use mesh_kube::name;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::plane::Plane;
use crate::telemetry::metrics;

/// Namespaces without pods of the mesh.
pub const SKIPPED: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Writes at once.
const WRITES_MAX: usize = 8;
/// Time for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the first failed write in a namespace; it doubles.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Longest pause.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);
/// Time between two comparisons with the roots.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// What is known of the cluster (pure).
#[derive(Debug, Default)]
struct Ledger {
    namespaces: Relisted<()>,
    found: Relisted<Option<String>>,
}

/// Objects of one watch, which may begin anew.
#[derive(Debug)]
struct Relisted<V> {
    known: BTreeMap<String, V>,
    next: BTreeMap<String, V>,
    is_complete: bool,
}

impl<V> Default for Relisted<V> {
    fn default() -> Self {
        Self { known: BTreeMap::new(), next: BTreeMap::new(), is_complete: false }
    }
}

impl<V> Relisted<V> {
    /// Takes an event; `read` says where an object belongs and what it says, or that it is as if it were not there.
    fn take<K>(&mut self, event: Event<K>, read: impl Fn(&K) -> (String, Option<V>)) {
        let set = |objects: &mut BTreeMap<String, V>, object: &K| match read(object) {
            (key, Some(value)) => drop(objects.insert(key, value)),
            (key, None) => drop(objects.remove(&key)),
        };
        match event {
            Event::Apply(object) => set(&mut self.known, &object),
            Event::Delete(object) => drop(self.known.remove(&read(&object).0)),
            Event::Init => self.next.clear(),
            Event::InitApply(object) => set(&mut self.next, &object),
            Event::InitDone => {
                self.known = std::mem::take(&mut self.next);
                self.is_complete = true;
            }
        }
    }
}

impl Ledger {
    fn take_namespace(&mut self, event: Event<PartialObjectMeta<Namespace>>) {
        self.namespaces.take(event, |namespace| {
            let is_ending = namespace.metadata.deletion_timestamp.is_some();
            let name = namespace.name_any();
            let wants = !is_ending && !SKIPPED.contains(&name.as_str());
            (name, wants.then_some(()))
        });
    }

    fn take_config_map(&mut self, event: Event<ConfigMap>) {
        self.found.take(event, |map| {
            let roots = map.data.as_ref().and_then(|data| data.get(name::ROOT_CERT_KEY)).cloned();
            (map.namespace().unwrap_or_default(), Some(roots))
        });
    }

    /// Namespaces whose ConfigMap does not say `roots`. None before both watches have told everything.
    fn wanting(&self, roots: &str) -> Vec<String> {
        if !self.namespaces.is_complete || !self.found.is_complete {
            return Vec::new();
        }
        let has =
            |name: &String| self.found.known.get(name).is_some_and(|found| found.as_deref() == Some(roots));
        self.namespaces.known.keys().filter(|name| !has(name)).cloned().collect()
    }

    /// What was written stands, until a watch says otherwise.
    fn written(&mut self, namespace: &str, roots: &str) {
        self.found.known.insert(namespace.to_owned(), Some(roots.to_owned()));
    }
}

/// When to try a namespace again.
#[derive(Debug, Default)]
struct Pauses {
    until: HashMap<String, (Instant, Duration)>,
}

impl Pauses {
    fn failed(&mut self, namespace: &str, now: Instant) {
        let former = self.until.get(namespace).map(|(_, pause)| *pause * 2);
        let pause = former.unwrap_or(RETRY_AFTER).min(RETRY_AFTER_MAX);
        self.until.insert(namespace.to_owned(), (now + pause, pause));
    }

    fn is_over(&self, namespace: &str, now: Instant) -> bool {
        self.until.get(namespace).is_none_or(|(until, _)| now >= *until)
    }

    fn next(&self) -> Option<Instant> {
        self.until.values().map(|(until, _)| *until).min()
    }
}

/// Keeps the roots in every namespace. Dropping it leaves what is written.
pub async fn keep(client: Client, plane: Arc<Plane>) -> Infallible {
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let mut namespaces = watcher(namespaces, watcher::Config::default()).default_backoff().boxed();
    let fields = format!("metadata.name={}", name::ROOT_CERT);
    let config_maps: Api<ConfigMap> = Api::all(client.clone());
    let config_maps = watcher(config_maps, watcher::Config::default().fields(&fields));
    let mut config_maps = config_maps.default_backoff().boxed();
    let (mut ledger, mut pauses) = (Ledger::default(), Pauses::default());
    let mut compare = tokio::time::interval(COMPARE_EVERY);
    loop {
        let due = pauses.next().unwrap_or_else(|| Instant::now() + COMPARE_EVERY);
        tokio::select! {
            event = namespaces.next() => match event {
                Some(Ok(event)) => ledger.take_namespace(event),
                Some(Err(error)) => tracing::warn!(error = chain(&error), "namespaces cannot be watched"),
                None => return std::future::pending().await,
            },
            event = config_maps.next() => match event {
                Some(Ok(event)) => ledger.take_config_map(event),
                Some(Err(error)) => tracing::warn!(error = chain(&error), "root certificates of namespaces cannot be watched"),
                None => return std::future::pending().await,
            },
            _ = compare.tick() => {}
            () = tokio::time::sleep_until(due) => {}
        }
        settle(&client, &plane, &mut ledger, &mut pauses).await;
    }
}

/// Writes where it is due.
async fn settle(client: &Client, plane: &Plane, ledger: &mut Ledger, pauses: &mut Pauses) {
    let roots = plane.issue.authority().trust_bundle().to_pem();
    let now = Instant::now();
    let wanting = ledger.wanting(&roots);
    metrics::root_certificates_wanting(wanting.len());
    let known: BTreeSet<&String> = wanting.iter().collect();
    pauses.until.retain(|namespace, _| known.contains(namespace));
    let due: Vec<String> = wanting.into_iter().filter(|name| pauses.is_over(name, now)).collect();
    let mut writes = stream::iter(due)
        .map(async |namespace| {
            let written = write(client, &namespace, &roots).await;
            (namespace, written)
        })
        .buffer_unordered(WRITES_MAX);
    while let Some((namespace, written)) = writes.next().await {
        match written {
            Ok(()) => {
                metrics::root_certificate_written("written");
                tracing::debug!(namespace, "the root certificate was written");
                pauses.until.remove(&namespace);
                ledger.written(&namespace, &roots);
            }
            Err(reason) => {
                metrics::root_certificate_written("failed");
                tracing::warn!(namespace, reason, "the root certificate could not be written");
                pauses.failed(&namespace, Instant::now());
            }
        }
    }
}

async fn write(client: &Client, namespace: &str, roots: &str) -> Result<(), String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name::ROOT_CERT, "labels": {name::LABEL_PART_OF: name::PART_OF}},
        "data": {name::ROOT_CERT_KEY: roots},
    });
    let params = PatchParams::apply(name::FIELD_MANAGER_CONTROL).force();
    match timeout(WRITE_TIMEOUT, api.patch(name::ROOT_CERT, &params, &Patch::Apply(object))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(chain(&error).to_string()),
        Err(_elapsed) => Err(format!("no answer within {WRITE_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests;
