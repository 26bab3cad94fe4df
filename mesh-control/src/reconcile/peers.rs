//! What the other replicas of the control plane say of their proxies.
//!
//! Replicas are the ready pods of the control plane, as the registry knows them. Each is asked once a round over
//! the port and the mutual TLS that proxies use, and answers only when something has changed: so the numbers need
//! no object in the cluster that every replica would write all the time, and nobody but the control plane can
//! state them. One that has not answered for a while is named, and what it would say is not known.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use hyper_util::rt::TokioIo;
use mesh_api::admin::ObjectStatus;
use mesh_api::error_chain::chain;
use mesh_api::model::{Availability, Kind, ObjectRef};
use mesh_api::name::{Namespace, ObjectName};
use mesh_api::wire::MESSAGE_BYTES_MAX;
use mesh_api::wire::replicas::ReportRequest;
use mesh_api::wire::replicas::replica_service_client::ReplicaServiceClient;
use mesh_identity::tls::client_config;
use mesh_identity::verify::ExpectedPeer;
use mesh_kube::name::{CONTROL, LABEL_COMPONENT, PORT_DISCOVERY};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::plane::Plane;
use crate::serve::replicas::instance;
use crate::status::enforcement::Spread;

/// Time allowed for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// After this long without an answer a replica is silent. A pod that was killed leaves the registry sooner.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// Most replicas that are asked.
const REPLICAS_MAX: usize = 32;
/// Value of [`LABEL_COMPONENT`] on pods of the control plane.
const COMPONENT: &str = "control";

/// What one replica says.
#[derive(Debug)]
struct Peer {
    channel: Option<Channel>,
    /// It is this process.
    is_self: bool,
    heard: Instant,
    activity: u64,
    objects: BTreeMap<ObjectRef, ObjectStatus>,
}

impl Peer {
    fn new(now: Instant) -> Self {
        Self { channel: None, is_self: false, heard: now, activity: 0, objects: BTreeMap::new() }
    }

    fn is_silent(&self, now: Instant) -> bool {
        !self.is_self && now.duration_since(self.heard) >= SILENT_AFTER
    }
}

/// The other replicas.
#[derive(Debug)]
pub(super) struct Peers {
    plane: Arc<Plane>,
    peers: BTreeMap<String, Peer>,
}

/// An answer: who, up to what, what.
type Report = (u64, u64, Option<BTreeMap<ObjectRef, ObjectStatus>>);

impl Peers {
    pub(super) fn new(plane: &Arc<Plane>) -> Self {
        Self { plane: Arc::clone(plane), peers: BTreeMap::new() }
    }

    /// Asks every replica.
    pub(super) async fn refresh(&mut self) {
        let replicas = replicas(&self.plane);
        self.peers.retain(|name, _| replicas.contains_key(name));
        let now = Instant::now();
        for name in replicas.keys() {
            self.peers.entry(name.clone()).or_insert_with(|| Peer::new(now));
        }
        let plane = &self.plane;
        let questions = self.peers.iter_mut().filter(|(_, peer)| !peer.is_self).filter_map(|(name, peer)| {
            let address = *replicas.get(name)?;
            Some(async move {
                let asked = tokio::time::timeout(ANSWER_TIMEOUT, ask(plane, peer, address)).await;
                match asked {
                    Ok(Ok(report)) => peer.take(report),
                    Ok(Err(status)) => {
                        peer.channel = None;
                        tracing::debug!(replica = name, error = chain(&status), "a replica does not answer");
                    }
                    Err(_elapsed) => peer.channel = None,
                }
            })
        });
        join_all(questions).await;
    }

    /// Changes whenever a report does.
    pub(super) fn activity(&self) -> u64 {
        let now = Instant::now();
        let of = |peer: &Peer| peer.activity.wrapping_mul(2).wrapping_add(u64::from(peer.is_silent(now)));
        self.peers.values().fold(self.peers.len() as u64, |sum, peer| sum.wrapping_add(of(peer)))
    }

    /// Adds what the others say of a generation of an object, and names those that are silent.
    pub(super) fn add(&self, object: &ObjectRef, generation: i64, spread: &mut Spread) -> Vec<String> {
        let now = Instant::now();
        let mut silent = Vec::new();
        for (name, peer) in self.peers.iter().filter(|(_, peer)| !peer.is_self) {
            if peer.is_silent(now) {
                silent.push(name.clone());
            } else if let Some(status) = peer.objects.get(object) {
                // A replica that has not taken the generation in enforces it nowhere.
                let enforced = if status.generation >= generation { status.enforced } else { 0 };
                spread.add(status.applies, enforced, &status.laggards);
            }
        }
        silent
    }
}

impl Peer {
    fn take(&mut self, (instance_of, activity, objects): Report) {
        self.heard = Instant::now();
        self.is_self = instance_of == instance();
        if let Some(objects) = objects {
            self.objects = objects;
        }
        self.activity = activity;
    }
}

/// Ready pods of the control plane, with where they are asked.
fn replicas(plane: &Plane) -> BTreeMap<String, SocketAddr> {
    let snapshot = plane.snapshot();
    let registry = snapshot.registry();
    let root = registry.settings().root_namespace.clone();
    registry
        .workloads_in(&root)
        .filter(|workload| {
            workload.meta.object.kind == Kind::Pod
                && workload.availability == Availability::Ready
                && workload.labels.get(LABEL_COMPONENT).is_some_and(|component| component == COMPONENT)
                && workload.labels.get("app").is_some_and(|app| app == CONTROL)
        })
        .filter_map(|workload| {
            let address: IpAddr = *workload.addresses.first()?;
            Some((workload.meta.object.name.to_string(), SocketAddr::new(address, PORT_DISCOVERY)))
        })
        .take(REPLICAS_MAX)
        .collect()
}

async fn ask(plane: &Plane, peer: &mut Peer, address: SocketAddr) -> Result<Report, tonic::Status> {
    let channel = match &peer.channel {
        Some(channel) => channel.clone(),
        None => {
            let channel = connect(plane, address).await?;
            peer.channel = Some(channel.clone());
            channel
        }
    };
    let mut client = ReplicaServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = client.report(ReportRequest { activity: peer.activity }).await?.into_inner();
    if answer.objects.is_empty() {
        return Ok((answer.instance, answer.activity, None));
    }
    let statuses: Vec<ObjectStatus> = serde_json::from_slice(&answer.objects)
        .map_err(|error| tonic::Status::internal(format!("the report cannot be read: {error}")))?;
    let named = statuses.into_iter().filter_map(|status| {
        let namespace = Namespace::parse(&status.namespace).ok()?;
        let name = ObjectName::parse(&status.name).ok()?;
        Some((ObjectRef { kind: status.kind, namespace, name }, status))
    });
    Ok((answer.instance, answer.activity, Some(named.collect())))
}

/// A connection to a replica, which must have the control plane's identity, as oneself has.
async fn connect(plane: &Plane, address: SocketAddr) -> Result<Channel, tonic::Status> {
    let own = plane.identity.current().svid.as_ref().map(|svid| svid.id().clone());
    let own = own.ok_or_else(|| tonic::Status::unavailable("there is no certificate of our own"))?;
    let config = client_config(&plane.identity, &ExpectedPeer::one(own), &[b"h2"]);
    let connector = TlsConnector::from(config);
    let connect = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::from(address.ip());
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://mesh-control")
        .connect_timeout(ANSWER_TIMEOUT)
        .connect_with_connector(connect)
        .await
        .map_err(|error| tonic::Status::unavailable(chain(&error)))
}

#[cfg(test)]
mod tests;
