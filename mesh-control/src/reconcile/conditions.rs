//! Conditions on every policy object, written by the leader.
//!
//! The leader watches the kinds of Istio for what is needed here (generation, conditions that stand, the verdict
//! on what is written) and keeps nothing else of them. Whenever something has happened it computes what should
//! stand and writes what differs, at the pace that [`conditions`] sets and at most [`WRITES_MAX`] objects a round,
//! so that a thousand objects or a thousand proxies do not flood the API server.
//!
//! The conditions are its own by server-side apply; other fields of a status stay whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use mesh_api::error_chain::chain;
use mesh_api::manifest::LowerContext;
use mesh_api::model::ObjectRef;
use mesh_api::name::{Host, Namespace, ObjectName};
use mesh_identity::certificate::timestamp;
use mesh_kube::name::FIELD_MANAGER_CONTROL;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::peers::Peers;
use crate::plane::Plane;
use crate::registry::Registry;
use crate::registry::lookup::MESH_GATEWAY;
use crate::serve::webhook::validate;
use crate::source::Payload;
use crate::source::kubernetes::{ISTIO, Istio};
use crate::status::conditions::{Condition, Facts, InForce, conditions, difference, is_due};
use crate::status::enforcement::{self, Spread};
use crate::status::said;
use crate::telemetry::metrics::webhook as metrics;

/// Time between two rounds.
const ROUND: Duration = Duration::from_secs(1);
/// Objects that are written in one round.
const WRITES_MAX: usize = 50;
/// Objects that are looked at before others have their turn: with a thousand proxies that takes milliseconds.
const OBJECTS_AT_ONCE: usize = 16;
/// Writes at once.
const WRITERS: usize = 4;
/// What watches have told and is not taken in yet.
const FEED: usize = 256;
/// Pause before a kind that is not installed is looked for again, and after a refused write of one object.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long conflicts are believed while no object changes: services come and go too.
const CONFLICTS_FOR: Duration = Duration::from_secs(30);
/// Findings that another object goes before this one.
const CONFLICTS: [&str; 3] = ["MM0108", "MM0201", "MM0502"];

/// One object as it was last seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    resource: Arc<ApiResource>,
    generation: i64,
    refused: Option<String>,
    is_tried: bool,
    conditions: Vec<Condition>,
}

/// What watches tell.
enum Fed {
    Set(ObjectRef, Seen),
    Gone(ObjectRef),
    /// These are all of one kind.
    All(mesh_api::model::Kind, BTreeSet<ObjectRef>),
}

/// Keeps conditions as they should be.
pub(super) async fn run(client: &Client, plane: &Arc<Plane>) -> Infallible {
    let (sender, mut feed) = mpsc::channel(FEED);
    let mut watches = JoinSet::new();
    for istio in &ISTIO {
        watches.spawn(follow(client.clone(), istio, Arc::clone(plane), sender.clone()));
    }
    let mut writer = Writer::new(client, plane);
    let mut peers = Peers::new(plane);
    let mut tick = tokio::time::interval(ROUND);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(fed) = feed.recv() => writer.take(fed),
            _ = tick.tick() => {
                peers.refresh().await;
                writer.round(&peers).await;
            }
        }
    }
}

/// One kind, for ever.
async fn follow(client: Client, istio: &'static Istio, plane: Arc<Plane>, feed: mpsc::Sender<Fed>) {
    loop {
        let Some(resource) = served(&client, istio).await else {
            tokio::time::sleep(LOOK_AGAIN).await;
            continue;
        };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), resource.as_ref());
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut all = BTreeSet::new();
        while let Some(event) = events.next().await {
            let fed = match event {
                Ok(watcher::Event::Apply(object)) => {
                    see(istio, &resource, &object, &plane).map(|(n, s)| Fed::Set(n, s))
                }
                Ok(watcher::Event::InitApply(object)) => {
                    see(istio, &resource, &object, &plane).map(|(name, seen)| {
                        all.insert(name.clone());
                        Fed::Set(name, seen)
                    })
                }
                Ok(watcher::Event::Delete(object)) => name(istio, &object).map(Fed::Gone),
                Ok(watcher::Event::Init) => {
                    all.clear();
                    None
                }
                Ok(watcher::Event::InitDone) => Some(Fed::All(istio.kind, std::mem::take(&mut all))),
                Err(error) => {
                    tracing::debug!(
                        kind = istio.plural,
                        error = chain(&error),
                        "objects cannot be watched for conditions"
                    );
                    if is_gone(&error) {
                        break;
                    }
                    None
                }
            };
            if let Some(fed) = fed
                && feed.send(fed).await.is_err()
            {
                return;
            }
        }
    }
}

fn is_gone(error: &watcher::Error) -> bool {
    let cause = match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => cause,
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => return false,
    };
    matches!(cause, kube::Error::Api(status) if status.code == 404)
}

/// The version of a kind that the API server serves, the preferred first.
async fn served(client: &Client, istio: &Istio) -> Option<Arc<ApiResource>> {
    for version in istio.versions {
        let kind = GroupVersionKind::gvk(istio.group, version, istio.kind.as_str());
        let resource = ApiResource::from_gvk_with_plural(&kind, istio.plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        if api.list_metadata(&ListParams::default().limit(1)).await.is_ok() {
            return Some(Arc::new(resource));
        }
    }
    None
}

fn name(istio: &Istio, object: &DynamicObject) -> Option<ObjectRef> {
    let namespace = Namespace::parse(object.metadata.namespace.as_deref()?).ok()?;
    Some(ObjectRef {
        kind: istio.kind,
        namespace,
        name: ObjectName::parse(object.metadata.name.as_deref()?).ok()?,
    })
}

fn see(
    istio: &Istio,
    resource: &Arc<ApiResource>,
    object: &DynamicObject,
    plane: &Plane,
) -> Option<(ObjectRef, Seen)> {
    let name = name(istio, object)?;
    let mut whole = serde_json::to_value(object).ok()?;
    // Items of a list come without the kind, which is the list's.
    whole["apiVersion"] = Value::from(resource.api_version.as_str());
    whole["kind"] = Value::from(resource.kind.as_str());
    let settings = Arc::clone(&plane.configuration().objects.settings);
    let context = LowerContext {
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        default_namespace: name.namespace.clone(),
    };
    let (verdict, _) = validate::verdict(&whole, &context);
    let is_tried = verdict
        .as_ref()
        .is_ok_and(|object| object.as_ref().is_some_and(|object| !object.meta().is_in_force()));
    let refused = verdict.err().map(|problems| problems.iter().map(said).collect::<Vec<_>>().join("; "));
    let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
    let seen = Seen {
        resource: Arc::clone(resource),
        generation: object.metadata.generation.unwrap_or_default(),
        refused,
        is_tried,
        conditions: serde_json::from_value(conditions).unwrap_or_default(),
    };
    Some((name, seen))
}

/// One object with what this replica did for it.
struct Tracked {
    seen: Seen,
    written: Option<Instant>,
    refused_until: Option<Instant>,
}

struct Writer {
    client: Client,
    plane: Arc<Plane>,
    objects: BTreeMap<ObjectRef, Tracked>,
    conflicts: BTreeMap<ObjectRef, String>,
    conflicts_at: Option<Instant>,
    /// Something may be different since the last round.
    is_stale: bool,
    activity: u64,
}

/// One write.
struct Write {
    object: ObjectRef,
    resource: Arc<ApiResource>,
    generation: i64,
    conditions: Vec<Condition>,
}

impl Writer {
    fn new(client: &Client, plane: &Arc<Plane>) -> Self {
        Self {
            client: client.clone(),
            plane: Arc::clone(plane),
            objects: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            conflicts_at: None,
            is_stale: true,
            activity: 0,
        }
    }

    fn take(&mut self, fed: Fed) {
        self.is_stale = true;
        match fed {
            Fed::Set(object, seen) => {
                let former = self.objects.get(&object);
                let is_new = former.is_none_or(|former| former.seen.generation != seen.generation);
                if is_new {
                    self.conflicts_at = None;
                }
                let (written, refused_until) =
                    former.map_or((None, None), |former| (former.written, former.refused_until));
                self.objects.insert(object, Tracked { seen, written, refused_until });
            }
            Fed::Gone(object) => {
                self.objects.remove(&object);
                self.conflicts_at = None;
            }
            Fed::All(kind, all) => {
                self.objects.retain(|object, _| object.kind != kind || all.contains(object))
            }
        }
    }

    /// Computes what should stand, and writes what differs and is due.
    async fn round(&mut self, peers: &Peers) {
        let activity = self.plane.activity().wrapping_add(peers.activity());
        let is_over = self.conflicts_at.is_none_or(|at| at.elapsed() > CONFLICTS_FOR);
        if !self.is_stale && activity == self.activity && !is_over {
            return;
        }
        if is_over {
            self.conflicts = conflicts(&self.plane).await;
            self.conflicts_at = Some(Instant::now());
        }
        let writes = self.writes(peers).await;
        // What waits for its pause, or for a place, is looked at in the next round.
        self.is_stale = writes.waits;
        self.activity = activity;
        let client = self.client.clone();
        let results: Vec<(ObjectRef, Result<DynamicObject, kube::Error>)> = stream::iter(writes.due)
            .map(|write| apply(client.clone(), write))
            .buffer_unordered(WRITERS)
            .collect()
            .await;
        for (object, result) in results {
            self.settle(&object, result);
        }
    }

    async fn writes(&self, peers: &Peers) -> Writes {
        let (now, time) = (Instant::now(), timestamp(SystemTime::now()));
        let mut writes = Writes { due: Vec::new(), waits: false };
        for (index, (object, tracked)) in self.objects.iter().enumerate() {
            // Each looks at every proxy; others have their turn meanwhile.
            if index % OBJECTS_AT_ONCE == OBJECTS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let facts = self.facts(object, &tracked.seen, peers);
            let next = conditions(&facts, &tracked.seen.conditions, &time);
            let difference = difference(&tracked.seen.conditions, &next);
            if difference == crate::status::conditions::Difference::None {
                continue;
            }
            let is_refused = tracked.refused_until.is_some_and(|until| now < until);
            if is_refused || !is_due(difference, tracked.written, now) || writes.due.len() >= WRITES_MAX {
                writes.waits = true;
                continue;
            }
            writes.due.push(Write {
                object: object.clone(),
                resource: Arc::clone(&tracked.seen.resource),
                generation: tracked.seen.generation,
                conditions: next,
            });
        }
        writes
    }

    fn facts(&self, object: &ObjectRef, seen: &Seen, peers: &Peers) -> Facts {
        let document = self.plane.configuration().objects.documents.get(object).cloned();
        let in_force =
            document.as_ref().map_or(InForce::Nothing, |found| InForce::Generation(found.generation));
        let is_current = in_force == InForce::Generation(seen.generation);
        let mut spread = match document.as_ref().map(|document| &document.payload) {
            Some(Payload::Entry(entry)) if is_current => enforcement::spread(&self.plane, entry),
            Some(Payload::Entry(_) | Payload::Settings(_) | Payload::Noted(_)) | None => Spread::default(),
        };
        let silent = peers.add(object, seen.generation, &mut spread);
        Facts {
            generation: seen.generation,
            refused: seen.refused.clone(),
            in_force,
            is_tried: seen.is_tried,
            spread,
            silent,
            conflict: self.conflicts.get(object).cloned(),
        }
    }

    fn settle(&mut self, object: &ObjectRef, result: Result<DynamicObject, kube::Error>) {
        let Some(tracked) = self.objects.get_mut(object) else { return };
        match result {
            Ok(written) => {
                metrics::status_write("written");
                tracked.written = Some(Instant::now());
                tracked.refused_until = None;
                // The watch tells the same a little later; until then this is what stands.
                let standing = written.data.pointer("/status/conditions").cloned().unwrap_or_default();
                tracked.seen.conditions = serde_json::from_value(standing).unwrap_or_default();
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                metrics::status_write("gone");
                tracked.refused_until = Some(Instant::now() + LOOK_AGAIN);
            }
            Err(error) => {
                metrics::status_write("failed");
                tracing::warn!(%object, error = chain(&error), "conditions could not be written");
                tracked.refused_until = Some(Instant::now() + LOOK_AGAIN);
                self.is_stale = true;
            }
        }
    }
}

struct Writes {
    due: Vec<Write>,
    waits: bool,
}

async fn apply(client: Client, write: Write) -> (ObjectRef, Result<DynamicObject, kube::Error>) {
    let Write { object, resource, generation, conditions } = write;
    let api: Api<DynamicObject> = Api::namespaced_with(client, object.namespace.as_str(), resource.as_ref());
    let patch = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": object.name.as_str(), "namespace": object.namespace.as_str()},
        "status": {"observedGeneration": generation, "conditions": conditions},
    });
    let params = PatchParams::apply(FIELD_MANAGER_CONTROL).force();
    let result = api.patch_status(object.name.as_str(), &params, &Patch::Apply(patch)).await;
    (object, result)
}

/// What goes before which object. Looks at all objects together, beside the threads of servers.
async fn conflicts(plane: &Arc<Plane>) -> BTreeMap<ObjectRef, String> {
    let plane = Arc::clone(plane);
    let look = tokio::task::spawn_blocking(move || {
        let outrouted = outrouted(plane.snapshot().registry());
        (outrouted, plane.problems())
    });
    let (mut found, problems) = look.await.unwrap_or_default();
    for problem in problems.iter().filter(|problem| CONFLICTS.contains(&problem.code.as_str())) {
        if let Some(object) = &problem.object {
            found.entry(object.clone()).or_insert_with(|| said(problem));
        }
    }
    found
}

/// VirtualServices of whose hosts an older one has the say.
fn outrouted(registry: &Registry) -> BTreeMap<ObjectRef, String> {
    let mut found = BTreeMap::new();
    for routes in registry.virtual_services() {
        let object = &routes.meta.object;
        let winner = |host: &Host| {
            let winner = registry.routes_by_host(host)?;
            (winner.meta.object != *object).then(|| (host.clone(), winner.meta.object.clone()))
        };
        let is_ours = routes.gateways.iter().any(|name| name == MESH_GATEWAY);
        if let Some((host, winner)) = routes.hosts.iter().find_map(winner).filter(|_| is_ours) {
            let message = format!("spec.hosts: {host} is routed by {winner}, which is older");
            found.insert(object.clone(), message);
        }
    }
    found
}

#[cfg(test)]
mod tests;
