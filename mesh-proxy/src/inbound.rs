//! A connection towards the workload, stage by stage: address dialled, transport security, protocol,
//! permission, application.
//!
//! What the first bytes are decides nothing by itself: a port that is declared HTTP carries HTTP, one that is
//! declared TCP carries a stream, and only where nothing is declared the ALPN name of a mesh peer or, without
//! one, the first bytes tell. In STRICT nothing is read from a connection but a handshake.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use mesh_api::model::{MtlsMode, Protocol};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::accept::detect::FirstBytes;
use crate::accept::downstream::Downstream;
use crate::accept::peek::{self, Peeked};
use crate::accept::{listener, original_destination};
use crate::authz;
use crate::connection::{Connection, Direction};
use crate::forward::http1::flow;
use crate::forward::{self, stream};
use crate::telemetry::record::DestinationLabels;
use crate::telemetry::record::PeerLabels;
use crate::telemetry::{FaultDomain, Flag, TcpRecord};
use crate::trial;
use crate::worker::Worker;

/// Serves one accepted connection to its end. `dialled` is the address before interception.
pub async fn serve(worker: Rc<Worker>, socket: TcpStream, peer: SocketAddr, dialled: Option<SocketAddr>) {
    listener::tune(&socket);
    let Some(destination) = dialled.filter(|&address| !is_own_port(&worker, address)) else {
        tracing::debug!(%peer, "inbound connection was not redirected to the proxy; closed");
        socket_reset(&socket);
        return;
    };
    let connection = worker.connection(Direction::Inbound, peer, destination);
    let Some(mode) = mode_of(&worker, destination.port()) else { return };
    match mode {
        MtlsMode::Strict => Box::pin(secured(&worker, connection, socket)).await,
        MtlsMode::Disable => plain(&worker, connection, socket, Transport::Opaque).await,
        MtlsMode::Permissive => {
            plain(&worker, connection, socket, Transport::Detected).await;
        }
    }
}

/// What TLS on a plaintext-capable port means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// PERMISSIVE: mesh TLS is served, the application's own passes through.
    Detected,
    /// DISABLE: whatever it is belongs to the application.
    Opaque,
}

fn socket_reset(socket: &TcpStream) {
    crate::accept::downstream::reset_on_drop(socket);
}

/// Whether a connection to `address` would come back to this proxy.
#[must_use]
pub fn is_own_port(worker: &Worker, address: SocketAddr) -> bool {
    let state = worker.state.load();
    let own = state.workload.as_ref().map(|workload| workload.config.addresses.as_slice());
    let ports = [worker.settings.inbound_port, worker.settings.outbound_port];
    original_destination::is_loop(address, own.unwrap_or_default(), &ports)
}

fn mode_of(worker: &Worker, port: u16) -> Option<MtlsMode> {
    worker.state.load().workload.as_ref().map(|workload| workload.mtls_mode(port))
}

fn declared(worker: &Worker, port: u16) -> Protocol {
    let state = worker.state.load();
    let port = state.workload.as_ref().and_then(|workload| workload.inbound.get(&port));
    port.map_or(Protocol::Auto, |port| port.protocol)
}

/// Whether a connection that was admitted may carry another request: false once its port demands mutual TLS
/// and it has none, or there is no configuration to judge it by.
#[must_use]
pub fn is_still_admitted(worker: &Worker, connection: &Connection) -> bool {
    if connection.direction == Direction::Outbound || connection.tls.is_some() {
        return true;
    }
    mode_of(worker, connection.destination.port()).is_some_and(|mode| mode != MtlsMode::Strict)
}

/// Mesh TLS, then what is inside.
async fn secured(worker: &Rc<Worker>, mut connection: Connection, socket: TcpStream) {
    let accepted = worker.tls.accept(socket).await;
    let (stream, facts) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => {
            let mut record = worker.telemetry.tcp(&Rc::new(connection));
            record.flag = Flag::DownstreamProtocolError;
            record.fault = FaultDomain::Client;
            record.details.push_str("downstream_tls_handshake_failed");
            record.transport_failure = refusal.to_string();
            if refusal.is_plaintext()
                && let Some(workload) = &worker.state.load().workload
            {
                trial::plaintext_refused(workload, record.connection());
            }
            return;
        }
    };
    let alpn = facts.alpn.clone();
    connection.tls = Some(facts);
    let connection = Rc::new(connection);
    let mut stream = Downstream::Tls(Box::new(stream));
    let protocol = declared(worker, connection.destination.port());
    let mut early = BytesMut::new();
    let carried = match (protocol, alpn.as_deref()) {
        (Protocol::Tcp | Protocol::Tls, _) => Carried::Stream,
        (Protocol::Auto, Some(b"istio-http/1.1" | b"istio-http/1.0" | b"http/1.1")) => Carried::Http1,
        (Protocol::Auto, Some(b"istio-h2" | b"h2")) => Carried::Http2,
        (Protocol::Auto, Some(_)) => Carried::Stream,
        (Protocol::Http | Protocol::Http2 | Protocol::Grpc, _) => {
            match stream::first_bytes_inside(worker, &mut stream, &mut early).await {
                FirstBytes::Http2 => Carried::Http2,
                _ => Carried::Http1,
            }
        }
        (Protocol::Auto, None) => match stream::first_bytes_inside(worker, &mut stream, &mut early).await {
            FirstBytes::Http1 => Carried::Http1,
            FirstBytes::Http2 => Carried::Http2,
            _ => Carried::Stream,
        },
    };
    carry(worker, connection, stream, early, carried).await;
}

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carried {
    Http1,
    Http2,
    Stream,
}

async fn carry(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    mut stream: Downstream,
    mut early: BytesMut,
    carried: Carried,
) {
    // What serves a protocol is kept apart, so that a connection pays for its own and not for the largest.
    match carried {
        Carried::Http1 => Box::pin(forward::http1::serve::serve(worker, &connection, stream, early)).await,
        Carried::Http2 => Box::pin(forward::http2::serve(worker, &connection, stream, early)).await,
        Carried::Stream => {
            let mut record = record(worker, &connection);
            let gone = gone(&mut stream, &mut early);
            let permit = authz::stream(worker, &connection, &mut record, gone).await;
            if let Some(tried) = tried(worker, &connection, permit.as_ref(), &record) {
                tried.note(&connection);
            }
            let Some(permit) = permit else { return };
            let opened = stream::to_application(worker, &connection, permit, &mut record).await;
            let Some(upstream) = opened else {
                stream.reset_on_drop();
                return;
            };
            Box::pin(stream::run(worker, &connection, stream, early, upstream, record)).await;
        }
    }
}

/// A connection that need not be TLS: its first bytes tell, or its silence.
async fn plain(worker: &Rc<Worker>, connection: Connection, socket: TcpStream, transport: Transport) {
    let protocol = declared(worker, connection.destination.port());
    let settings = &worker.settings;
    let silence = if protocol.is_http() { settings.http_idle_timeout } else { settings.detect_wait };
    // A stream that is nobody's but the application's needs no look at all.
    let peeked = if transport == Transport::Opaque && matches!(protocol, Protocol::Tcp | Protocol::Tls) {
        Ok(Peeked::Silent)
    } else {
        first_bytes_or_drain(worker, &socket, Direction::Inbound, silence).await
    };
    let first = match peeked {
        // A client that has said all that it will say may still wait for the application to speak.
        Ok(Peeked::Ended) if !protocol.is_http() => FirstBytes::Other,
        Err(_) | Ok(Peeked::Ended) => return note_silent_end(worker, connection),
        Ok(Peeked::Silent) if protocol.is_http() => return note_silent_end(worker, connection),
        Ok(Peeked::Silent) => return Box::pin(silent(worker, connection, socket, transport)).await,
        Ok(Peeked::Start(first)) => first,
    };
    Box::pin(spoken(worker, connection, socket, (transport, protocol, first))).await;
}

/// Waits for the first bytes of a connection. One that is still silent when connections end that carry nothing
/// has ended by that.
///
/// # Errors
/// When the socket fails.
pub async fn first_bytes_or_drain(
    worker: &Worker,
    socket: &TcpStream,
    direction: Direction,
    silence: std::time::Duration,
) -> std::io::Result<Peeked> {
    if silence <= worker.settings.detect_wait {
        return peek::first_bytes(socket, silence, worker.settings.request_head_timeout).await;
    }
    tokio::select! {
        biased;
        peeked = peek::first_bytes(socket, silence, worker.settings.request_head_timeout) => peeked,
        () = worker.leaving(direction) => Ok(Peeked::Ended),
    }
}

/// The client spoke first.
async fn spoken(
    worker: &Rc<Worker>,
    connection: Connection,
    socket: TcpStream,
    (transport, protocol, first): (Transport, Protocol, FirstBytes),
) {
    // The mode may have changed while the client was silent; what was admitted under the old one is closed.
    if mode_of(worker, connection.destination.port())
        .is_none_or(|mode| mode == MtlsMode::Strict && first != FirstBytes::MeshTls)
    {
        return note_silent_end(worker, connection);
    }
    let carried = match (transport, first, protocol) {
        (Transport::Detected, FirstBytes::MeshTls, _) => {
            return Box::pin(secured(worker, connection, socket)).await;
        }
        (_, FirstBytes::MeshTls | FirstBytes::OtherTls, protocol) if protocol.is_http() => {
            let mut record = worker.telemetry.tcp(&Rc::new(connection));
            record.flag = Flag::DownstreamProtocolError;
            record.fault = FaultDomain::Client;
            record.details.push_str("filter_chain_not_found");
            return;
        }
        (_, _, Protocol::Tcp | Protocol::Tls) => Carried::Stream,
        (_, FirstBytes::Http2, _) => Carried::Http2,
        (_, FirstBytes::Http1, _) | (_, _, Protocol::Http | Protocol::Http2 | Protocol::Grpc) => {
            Carried::Http1
        }
        (_, _, Protocol::Auto) => Carried::Stream,
    };
    carry(worker, Rc::new(connection), Downstream::Plain(socket), BytesMut::new(), carried).await;
}

/// The client waits: perhaps the application speaks first. It is asked, if policy lets a stream reach it; and
/// whoever speaks first decides what this is.
async fn silent(worker: &Rc<Worker>, connection: Connection, socket: TcpStream, transport: Transport) {
    let protocol = declared(worker, connection.destination.port());
    let connection = Rc::new(connection);
    let mut tcp_record = record(worker, &connection);
    // Nothing is read here, because nobody knows yet whose bytes these are; but a reset is seen.
    let permit = {
        let mut reset = pin!(socket.ready(Interest::ERROR));
        let gone = |context: &mut Context<'_>| reset.as_mut().poll(context).map(drop);
        authz::stream(worker, &connection, &mut tcp_record, gone).await
    };
    // It counts as a stream once it is known to be one.
    let tried = tried(worker, &connection, permit.as_ref(), &tcp_record);
    let mut upstream = match permit {
        Some(permit) => stream::to_application(worker, &connection, permit, &mut tcp_record).await,
        None => None,
    };
    let note = || {
        if let Some(tried) = tried {
            tried.note(&connection);
        }
    };
    if transport == Transport::Opaque && matches!(protocol, Protocol::Tcp | Protocol::Tls) {
        note();
        match upstream {
            Some(upstream) => {
                let stream = Downstream::Plain(socket);
                stream::run(worker, &connection, stream, BytesMut::new(), upstream, tcp_record).await;
            }
            None => socket_reset(&socket),
        }
        return;
    }
    match stream::who_speaks(worker, &socket, upstream.as_mut()).await {
        stream::Speaker::Application => {
            note();
            if let Some(upstream) = upstream {
                let stream = Downstream::Plain(socket);
                stream::run(worker, &connection, stream, BytesMut::new(), upstream, tcp_record).await;
            }
        }
        stream::Speaker::Client(first) => {
            let is_stream = match (first, protocol) {
                (FirstBytes::MeshTls, _) => transport == Transport::Opaque,
                (FirstBytes::Http1 | FirstBytes::Http2, Protocol::Auto) => false,
                _ => true,
            };
            match upstream {
                Some(upstream) if is_stream => {
                    note();
                    let stream = Downstream::Plain(socket);
                    stream::run(worker, &connection, stream, BytesMut::new(), upstream, tcp_record).await;
                }
                // Refused as a stream, or not reached; the record says which.
                None if is_stream => {
                    note();
                    socket_reset(&socket);
                }
                _ => {
                    tcp_record.hand_over_to_http();
                    let connection = Connection::clone(&connection);
                    spoken(worker, connection, socket, (transport, protocol, first)).await;
                }
            }
        }
        stream::Speaker::Nobody => note(),
    }
}

/// What the policies that are tried make of a stream that was judged.
fn tried(
    worker: &Worker,
    connection: &Connection,
    permit: Option<&authz::Permit>,
    record: &TcpRecord,
) -> Option<trial::TriedStream> {
    trial::stream(worker.state.load().workload.as_ref()?, connection, permit, record)
}

fn record(worker: &Worker, connection: &Rc<Connection>) -> TcpRecord {
    let mut record = worker.telemetry.tcp(connection);
    record.destination = labels(worker, connection);
    record
}

/// Sees a client go away while its stream is judged. What it says meanwhile is kept, within a bound; a client
/// that merely has said all is not gone; from there on the time of the provider is what bounds the wait.
fn gone<'a>(
    stream: &'a mut Downstream,
    early: &'a mut BytesMut,
) -> impl FnMut(&mut Context<'_>) -> Poll<()> + 'a {
    let mut has_ended = false;
    move |context| {
        while !has_ended && early.len() < flow::READ_AHEAD {
            match flow::poll_fill(context, stream, early) {
                Poll::Ready(Ok(length)) => has_ended = length == 0,
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}

/// A connection that ended, or was ended, before it said anything is still an outcome.
fn note_silent_end(worker: &Worker, connection: Connection) {
    let mut record = worker.telemetry.tcp(&Rc::new(connection));
    record.flag = Flag::DownstreamConnectionTermination;
    record.fault = FaultDomain::Client;
}

/// Labels of the own workload as the called side of an inbound connection; `None` for an outbound one.
#[must_use]
pub fn labels(worker: &Worker, connection: &Connection) -> Option<Arc<DestinationLabels>> {
    if connection.direction == Direction::Outbound {
        return None;
    }
    let port = connection.destination.port();
    if let Some(labels) = worker.inbound_labels.borrow().get(&port) {
        return Some(Arc::clone(labels));
    }
    let state = worker.state.load();
    let workload = state.workload.as_ref()?;
    let declared = workload.inbound.get(&port);
    let labels = Arc::new(DestinationLabels {
        workload: worker.local_labels.borrow().clone(),
        service: declared.map(|port| port.service_host.clone()).unwrap_or_default(),
        service_name: declared.map(|port| port.service_name.clone()).unwrap_or_default(),
        service_namespace: declared.map(|port| port.service_namespace.clone()).unwrap_or_default(),
        cluster: format!("inbound|{port}||"),
    });
    let mut cache = worker.inbound_labels.borrow_mut();
    if cache.len() >= LABELS_MAX {
        cache.clear();
    }
    cache.insert(port, Arc::clone(&labels));
    Some(labels)
}

/// Ports whose labels are kept: a scan over all ports must not fill the memory.
const LABELS_MAX: usize = 256;

/// Labels of the own workload.
#[must_use]
pub fn local_labels(config: &mesh_api::model::ProxyConfig) -> PeerLabels {
    let label = |name: &str| config.labels.get(name).cloned();
    let app = label("app").or_else(|| label("app.kubernetes.io/name"));
    let version = label("version").or_else(|| label("app.kubernetes.io/version"));
    let unknown = || "unknown".to_owned();
    PeerLabels {
        workload: config.workload.clone(),
        namespace: config.namespace.to_string(),
        canonical_service: label("service.istio.io/canonical-name")
            .or_else(|| app.clone())
            .unwrap_or_else(|| config.workload.clone()),
        canonical_revision: label("service.istio.io/canonical-revision")
            .or_else(|| version.clone())
            .unwrap_or_else(|| "latest".to_owned()),
        app: app.unwrap_or_else(unknown),
        version: version.unwrap_or_else(unknown),
        principal: mesh_api::name::SpiffeId::for_workload(
            &config.mesh.trust_domain,
            &config.namespace,
            &config.service_account,
        )
        .to_string(),
    }
}
