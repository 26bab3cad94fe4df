//! The discovery service: one task for each stream, around the pure session.
//!
//! Who may be served what is decided by the certificate on the stream: the node that a proxy claims to be
//! must be a workload of the certificate's namespace and service account. A workload that is not known yet
//! is waited for, with the stream open and nothing sent; one whose account changes loses its stream. A
//! stream ends with the certificate that opened it; the proxy comes back with the next one and is sent what
//! has changed meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::wire::discovery::aggregated_discovery_service_server::AggregatedDiscoveryService;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_api::wire::{METADATA_NOW_UNIX_MS, METADATA_VERSION, TypeUrl};
use mesh_identity::tls::Peer;
use prost_types::value::Kind;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{self, StreamRefusal};
use super::farewell::Farewell;
use super::identity::caller;
use crate::plane::Plane;
use crate::push::fanout::Mailbox;
use crate::push::session::{self, Effect, Session};
use crate::registry::WorkloadKey;
use crate::snapshot::{Desired, ResourceKey, SubscriberId};
use crate::status::ProxyRecord;
use crate::telemetry::metrics;

/// Time allowed for the first request of a stream.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Responses on their way into the transport. The session keeps at most one unanswered for each type.
const QUEUE: usize = 4;
/// Most proxies that are remembered after they have gone.
const REMEMBERED_MAX: usize = 1_000;
/// Longest text of a proxy that is kept, in bytes: versions and rejections are shown to operators.
const FOREIGN_TEXT_MAX: usize = 2_000;

/// The service.
#[derive(Debug)]
pub struct Discovery {
    plane: Arc<Plane>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    farewell: Farewell,
}

impl Discovery {
    /// A service of `plane`. Streams are tasks of `tasks` and end with `shutdown`.
    #[must_use]
    pub fn new(plane: Arc<Plane>, tasks: TaskTracker, shutdown: CancellationToken) -> Self {
        Self { plane, tasks, shutdown, farewell: Farewell::default() }
    }

    /// Ends each stream when `farewell` says so, with a status that sends its proxy elsewhere.
    #[must_use]
    pub fn with_farewell(self, farewell: Farewell) -> Self {
        Self { farewell, ..self }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let caller = caller(&request)?;
        let refuse = |refusal: &StreamRefusal| {
            metrics::stream_refused(refusal.label());
            tracing::warn!(address = %caller.address, reason = %refusal, "a discovery stream was refused");
            answer::to_stream(refusal)
        };
        let Some(peer) = caller.peer else { return Err(refuse(&StreamRefusal::NoCertificate)) };
        if peer.id.workload_parts().is_none() {
            let identity = peer.id.to_string();
            return Err(refuse(&StreamRefusal::NotWorkload { identity }));
        }
        let (responses, outgoing) = mpsc::channel(QUEUE);
        let stream = Opening {
            plane: Arc::clone(&self.plane),
            peer,
            address: caller.address,
            requests: request.into_inner(),
            responses,
        };
        let (shutdown, farewell) = (self.shutdown.clone(), self.farewell.clone());
        let ending = stream.responses.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stream.serve() => {}
                () = shutdown.cancelled() => {}
                () = farewell.turn() => {
                    // A stream whose queue is full is not read; it ends without a word.
                    drop(ending.try_send(Err(Status::unavailable("this replica ends; connect anew"))));
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

type Responses = mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>;

/// A stream before its first request.
struct Opening {
    plane: Arc<Plane>,
    peer: Peer,
    address: std::net::SocketAddr,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: Responses,
}

/// How a stream ends.
enum End {
    /// The peer has gone, or its certificate has ended.
    Quiet,
    /// It is not served any more.
    Refused(StreamRefusal),
}

impl From<StreamRefusal> for End {
    fn from(refusal: StreamRefusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Whether a proxy may act for its workload now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// It may.
    Granted,
    /// The workload is not known; it may come.
    Waiting(String),
}

impl Opening {
    async fn serve(self) {
        let Self { plane, peer, address, mut requests, responses } = self;
        let end = match first(&mut requests).await {
            Ok(Some(request)) => match node(&request) {
                Some((node, workload)) => {
                    let (subscriber, mailbox) = plane.join();
                    let stream =
                        Stream { plane: &plane, peer: &peer, workload, subscriber, session: Session::new() };
                    let channel = Channel { requests, responses: &responses, mailbox: &mailbox };
                    let departure = Departure { plane: &plane, subscriber };
                    let end = stream.run(request, &node, address, channel).await;
                    drop(departure);
                    end
                }
                None => End::Refused(StreamRefusal::NoNode),
            },
            Ok(None) => End::Quiet,
            Err(refusal) => End::Refused(refusal),
        };
        if let End::Refused(refusal) = end {
            metrics::stream_refused(refusal.label());
            tracing::warn!(%address, identity = %peer.id, reason = %refusal, "a discovery stream was refused");
            // When this fails the peer has gone and needs no answer.
            drop(responses.send(Err(answer::to_stream(&refusal))).await);
        }
    }
}

/// Leaves the plane when the stream ends, also when its task is dropped.
struct Departure<'a> {
    plane: &'a Plane,
    subscriber: SubscriberId,
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.plane.leave(self.subscriber);
        let mut proxies = self.plane.proxies();
        for record in proxies.values_mut().filter(|record| record.subscriber == self.subscriber) {
            record.is_connected = false;
        }
        let mut gone = proxies.values().filter(|record| !record.is_connected).count();
        proxies.retain(|_, record| {
            let keep = record.is_connected || gone <= REMEMBERED_MAX;
            gone -= usize::from(!keep);
            keep
        });
        drop(proxies);
        self.plane.measure_connections();
    }
}

async fn first(
    requests: &mut Streaming<DeltaDiscoveryRequest>,
) -> Result<Option<DeltaDiscoveryRequest>, StreamRefusal> {
    match timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await {
        Ok(Ok(request)) => Ok(request),
        Ok(Err(_gone)) => Ok(None),
        Err(_elapsed) => Err(StreamRefusal::Silent),
    }
}

fn node(request: &DeltaDiscoveryRequest) -> Option<(Node, WorkloadKey)> {
    let node = request.node.clone()?;
    let workload = WorkloadKey::from_node_id(&node.id)?;
    Some((node, workload))
}

struct Channel<'a> {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: &'a Responses,
    mailbox: &'a Mailbox,
}

struct Stream<'a> {
    plane: &'a Plane,
    peer: &'a Peer,
    workload: WorkloadKey,
    subscriber: SubscriberId,
    session: Session,
}

impl Stream<'_> {
    async fn run(
        mut self,
        request: DeltaDiscoveryRequest,
        node: &Node,
        address: std::net::SocketAddr,
        mut channel: Channel<'_>,
    ) -> End {
        self.plane.snapshot().watch_workload(self.subscriber, &self.workload);
        let mut access = match self.access() {
            Ok(access) => access,
            Err(refusal) => return refusal.into(),
        };
        self.register(node, address, &access);
        tracing::info!(node = %self.workload, identity = %self.peer.id, %address, "proxy connected");
        let left = self.peer.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let expiry = tokio::time::sleep(left);
        tokio::pin!(expiry);
        let mut changed_at: Option<Instant> = None;
        let mut next = Some(request);
        loop {
            if let Some(request) = next.take()
                && let Err(refusal) = self.take(request)
            {
                return refusal.into();
            }
            if access == Access::Granted {
                while let Some(response) = self.session.poll() {
                    if let Some(kind) = TypeUrl::parse(&response.type_url) {
                        metrics::pushed(kind);
                    }
                    if channel.responses.send(Ok(response)).await.is_err() {
                        return End::Quiet;
                    }
                }
            }
            if self.is_settled()
                && let Some(at) = changed_at.take()
            {
                metrics::converged(at.elapsed());
            }
            self.observe(None, &access);
            tokio::select! {
                message = channel.requests.message() => match message {
                    Ok(Some(request)) => next = Some(request),
                    Ok(None) | Err(_) => {
                        tracing::info!(node = %self.workload, "proxy disconnected");
                        return End::Quiet;
                    }
                },
                keys = channel.mailbox.changed() => {
                    access = match self.access() {
                        Ok(access) => access,
                        Err(refusal) => return refusal.into(),
                    };
                    changed_at = changed_at.or_else(|| (!keys.is_empty()).then(Instant::now));
                    for key in keys {
                        self.refresh(&key);
                    }
                }
                () = &mut expiry => {
                    tracing::info!(node = %self.workload, "the certificate of a stream has ended");
                    return End::Quiet;
                }
                () = channel.responses.closed() => return End::Quiet,
            }
        }
    }

    fn access(&self) -> Result<Access, StreamRefusal> {
        access(self.plane, self.peer, &self.workload)
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), StreamRefusal> {
        let kind = TypeUrl::parse(&request.type_url)
            .ok_or_else(|| StreamRefusal::UnknownType { url: shortened(&request.type_url) })?;
        let request = session::Request {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| shortened(&status.message)),
        };
        for effect in self.session.request(kind, request).map_err(StreamRefusal::Session)? {
            match effect {
                Effect::Subscribed(kind, name) => {
                    let desired = match ResourceKey::resolve(kind, &name, &self.workload) {
                        Some(key) => self.plane.snapshot().subscribe(self.subscriber, &key),
                        None => Desired::Absent,
                    };
                    self.session.update(kind, &name, &desired);
                }
                Effect::Unsubscribed(kind, name) => {
                    if let Some(key) = ResourceKey::resolve(kind, &name, &self.workload) {
                        self.plane.snapshot().unsubscribe(self.subscriber, &key);
                    }
                }
                Effect::Acknowledged(kind) => {
                    metrics::acknowledged(kind);
                    self.observe(Some(kind), &Access::Granted);
                }
                Effect::Rejected(kind, reason) => {
                    metrics::rejected(kind);
                    tracing::error!(
                        node = %self.workload,
                        kind = kind.short(),
                        reason,
                        "a proxy rejects its configuration and keeps what it had"
                    );
                }
            }
        }
        Ok(())
    }

    /// A key's name on the wire is the one that it was subscribed by, but for addresses, which have several
    /// spellings; those that differ are refreshed when the proxy asks again.
    fn refresh(&mut self, key: &ResourceKey) {
        let desired = self.plane.snapshot().desired(key);
        if let Some(desired) = desired {
            self.session.update(key.kind(), &key.wire_name(), &desired);
        }
    }

    fn is_settled(&self) -> bool {
        TypeUrl::ALL.into_iter().all(|kind| {
            let state = self.session.state(kind);
            !state.is_unanswered && !state.is_due
        })
    }

    fn register(&self, node: &Node, address: std::net::SocketAddr, access: &Access) {
        let text = |key: &str| match node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.clone()),
            Kind::NumberValue(number) => Some(format!("{number:.0}")),
            Kind::NullValue(_) | Kind::BoolValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => None,
        };
        let now = SystemTime::now();
        let ours = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let skew = text(METADATA_NOW_UNIX_MS)
            .and_then(|theirs| theirs.parse::<i64>().ok())
            .and_then(|theirs| theirs.checked_sub(i64::try_from(ours).ok()?));
        let record = ProxyRecord {
            subscriber: self.subscriber,
            workload: self.workload.clone(),
            identity: self.peer.id.to_string(),
            version: text(METADATA_VERSION).map(|version| shortened(&version)).unwrap_or_default(),
            is_connected: true,
            waiting: waiting(access),
            connected_at: now,
            clock_skew_ms: skew,
            address,
            types: BTreeMap::new(),
            policies_version: None,
            destinations: BTreeMap::new(),
        };
        self.plane.proxies().insert(self.workload.to_string(), record);
        self.plane.measure_connections();
    }

    fn observe(&mut self, acknowledged: Option<TypeUrl>, access: &Access) {
        let mut proxies = self.plane.proxies();
        let record = proxies.get_mut(&self.workload.to_string());
        // A later stream of the same proxy may have taken the record over.
        if let Some(record) = record.filter(|record| record.subscriber == self.subscriber) {
            record.waiting = waiting(access);
            record.observe(&mut self.session, acknowledged, Instant::now());
            if acknowledged.is_some() {
                self.plane.stir();
            }
        }
    }
}

/// Whether an identity may act for a node.
pub(super) fn access(plane: &Plane, peer: &Peer, node: &WorkloadKey) -> Result<Access, StreamRefusal> {
    let foreign = |reason: String| StreamRefusal::Foreign {
        identity: peer.id.to_string(),
        node: node.to_string(),
        reason,
    };
    let namespace = node.namespace.as_str();
    if peer.id.namespace() != Some(namespace) {
        return Err(foreign(format!("the certificate is not of namespace {namespace}")));
    }
    let snapshot = plane.snapshot();
    // Certificates of other domains may be trusted by the mesh, but no workload of it has one.
    let trust_domain = &snapshot.registry().settings().trust_domain;
    if peer.id.trust_domain() != trust_domain.as_str() {
        return Err(foreign(format!("the certificate is not of trust domain {trust_domain}")));
    }
    let Some(workload) = snapshot.registry().workload(node) else {
        return Ok(Access::Waiting(format!("no workload {node} is known")));
    };
    let account = workload.service_account.as_str();
    if peer.id.service_account() == Some(account) {
        Ok(Access::Granted)
    } else {
        Err(foreign(format!("the workload's service account is {account}")))
    }
}

fn waiting(access: &Access) -> Option<String> {
    match access {
        Access::Granted => None,
        Access::Waiting(reason) => Some(reason.clone()),
    }
}

/// Text of a peer, cut to what is kept.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(FOREIGN_TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
