//! A connection from the workload, stage by stage: address dialled, destination, protocol, endpoint.
//!
//! The dialled address decides which destination this is; what a client writes into Host does not. "Not of
//! the mesh" and "could not be asked" are different answers: only the first lets a connection pass as it is.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use mesh_api::model::{DestinationKey, OutboundPolicy, PeerTls, Protocol};
use tokio::net::TcpStream;

use crate::accept::detect::FirstBytes;
use crate::accept::downstream::{Downstream, reset_on_drop};
use crate::accept::listener;
use crate::accept::peek::{self, Peeked};
use crate::authz::Permit;
use crate::connection::{Connection, Direction};
use crate::forward;
use crate::forward::http1::upstreams::{Pick, pick};
use crate::forward::stream::{self, Speaker, Upstream};
use crate::inbound;
use crate::state::{DestinationState, Resolution};
use crate::telemetry::{FaultDomain, Flag, TcpRecord};
use crate::upstream::UpstreamAlpn;
use crate::worker::Worker;

/// Endpoints tried for one stream when connects fail.
const CONNECTS_MAX: usize = 3;

/// Serves one accepted connection to its end. `dialled` is the address before interception.
pub async fn serve(worker: Rc<Worker>, socket: TcpStream, peer: SocketAddr, dialled: Option<SocketAddr>) {
    listener::tune(&socket);
    let Some(destination) = dialled.filter(|&address| !inbound::is_own_port(&worker, address)) else {
        tracing::debug!(%peer, "outbound connection was not redirected to the proxy; closed");
        reset_on_drop(&socket);
        return;
    };
    let connection = Rc::new(worker.connection(Direction::Outbound, peer, destination));
    let key = DestinationKey::Address(destination.ip());
    match worker.state.resolve(&key).await {
        Resolution::Present(state) => known(&worker, &connection, socket, &state).await,
        Resolution::Absent => absent(&worker, &connection, socket).await,
        Resolution::Unanswered => {
            let is_http = refuse_http(&worker, &connection, socket).await;
            if let Some(mut record) = is_http {
                record.flag = Flag::NoCluster;
                record.fault = FaultDomain::ControlPlane;
                record.details.push_str("destination_not_resolved_in_time");
            }
        }
    }
}

/// The address belongs to a destination of the mesh.
async fn known(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    socket: TcpStream,
    destination: &Arc<DestinationState>,
) {
    destination.touch(worker.process_seconds());
    let port = connection.destination.port();
    let model = &destination.destination;
    if model.port_index(port).is_none() && model.direct.is_none() {
        let mut record = worker.telemetry.tcp(connection);
        record.flag = Flag::NoRoute;
        record.fault = FaultDomain::Client;
        record.details.push_str("port_not_declared");
        reset_on_drop(&socket);
        return;
    }
    let settings = &worker.settings;
    let peeked = match model.protocol(port) {
        Protocol::Tcp | Protocol::Tls => Ok(Peeked::Silent),
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
            inbound::first_bytes_or_drain(worker, &socket, Direction::Outbound, settings.http_idle_timeout)
                .await
        }
        Protocol::Auto => {
            peek::first_bytes(&socket, settings.detect_wait, settings.request_head_timeout).await
        }
    };
    let protocol = model.protocol(port);
    match peeked {
        // A client that has said all that it will say may still wait for the application to speak.
        Ok(Peeked::Ended) if protocol == Protocol::Auto => {
            as_stream(worker, connection, socket, destination).await;
        }
        Err(_) | Ok(Peeked::Ended) => drop(worker.telemetry.tcp(connection)),
        Ok(Peeked::Silent) if protocol.is_http() => drop(worker.telemetry.tcp(connection)),
        Ok(Peeked::Silent) => Box::pin(silent(worker, connection, socket, destination)).await,
        Ok(Peeked::Start(FirstBytes::Http2)) => {
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http2::serve(worker, connection, stream, BytesMut::new())).await;
        }
        Ok(Peeked::Start(first)) if first == FirstBytes::Http1 || protocol.is_http() => {
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http1::serve::serve(worker, connection, stream, BytesMut::new())).await;
        }
        Ok(Peeked::Start(_)) => as_stream(worker, connection, socket, destination).await,
    }
}

/// A stream by declaration or by what it starts with.
async fn as_stream(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    socket: TcpStream,
    destination: &Arc<DestinationState>,
) {
    let mut record = worker.telemetry.tcp(connection);
    match open(worker, connection, destination, &mut record).await {
        Some(upstream) => {
            let stream = Downstream::Plain(socket);
            Box::pin(stream::run(worker, connection, stream, BytesMut::new(), upstream, record)).await;
        }
        None => reset_on_drop(&socket),
    }
}

/// The client waits: a declared stream is opened at once; otherwise whoever speaks first decides.
async fn silent(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    socket: TcpStream,
    destination: &Arc<DestinationState>,
) {
    if destination.destination.protocol(connection.destination.port()) != Protocol::Auto {
        return as_stream(worker, connection, socket, destination).await;
    }
    let mut record = worker.telemetry.tcp(connection);
    let mut upstream = open(worker, connection, destination, &mut record).await;
    match stream::who_speaks(worker, &socket, upstream.as_mut()).await {
        Speaker::Nobody => {}
        Speaker::Client(FirstBytes::Http1) => {
            record.hand_over_to_http();
            drop(upstream);
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http1::serve::serve(worker, connection, stream, BytesMut::new())).await;
        }
        Speaker::Client(FirstBytes::Http2) => {
            record.hand_over_to_http();
            drop(upstream);
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http2::serve(worker, connection, stream, BytesMut::new())).await;
        }
        Speaker::Client(_) | Speaker::Application => match upstream {
            Some(upstream) => {
                let stream = Downstream::Plain(socket);
                Box::pin(stream::run(worker, connection, stream, BytesMut::new(), upstream, record)).await;
            }
            None => reset_on_drop(&socket),
        },
    }
}

/// Opens a stream to an endpoint, trying others when connects fail. On failure the record says why.
async fn open(
    worker: &Worker,
    connection: &Connection,
    destination: &Arc<DestinationState>,
    record: &mut TcpRecord,
) -> Option<Upstream> {
    let port = connection.destination.port();
    let mut tried = Vec::new();
    for _ in 0..CONNECTS_MAX {
        let Some(Pick { target, labels, in_flight, endpoint }) =
            pick(worker, connection, destination, (port, None), UpstreamAlpn::Tcp, &tried)
        else {
            if tried.is_empty() {
                record.flag = Flag::NoHealthyUpstream;
                record.fault = FaultDomain::ControlPlane;
                record.details.push_str("no_healthy_upstream");
            }
            return None;
        };
        record.upstream = Some(target.address);
        record.mutual_tls = matches!(target.tls, PeerTls::Mutual { .. });
        record.destination = Some(labels);
        match worker.upstreams.fresh(&target).await {
            Ok(stream) => {
                let permit = Permit::for_outbound(connection)?;
                record.flag = Flag::None;
                record.fault = FaultDomain::None;
                record.details.clear();
                record.transport_failure.clear();
                return Some(Upstream::new(stream, permit, in_flight));
            }
            Err(error) => {
                if let Some(in_flight) = &in_flight {
                    in_flight.note_failure();
                }
                stream::note_connect_failure(&error, FaultDomain::Network, record);
            }
        }
        tried.extend(endpoint);
    }
    None
}

/// The mesh has no such destination: the outbound policy decides.
async fn absent(worker: &Rc<Worker>, connection: &Rc<Connection>, socket: TcpStream) {
    let policy = worker.state.load().workload.as_ref().map(|workload| workload.config.mesh.outbound_policy);
    if policy != Some(OutboundPolicy::AllowAny) {
        if let Some(mut record) = refuse_http(worker, connection, socket).await {
            record.flag = Flag::NoRoute;
            record.fault = FaultDomain::Policy;
            record.details.push_str("block_all");
        }
        return;
    }
    let mut record = worker.telemetry.tcp(connection);
    record.destination = Some(Arc::clone(&worker.passthrough));
    record.upstream = Some(connection.destination);
    let target = stream::application(worker, connection, UpstreamAlpn::Tcp);
    let Some(permit) = Permit::for_outbound(connection) else { return };
    match worker.upstreams.fresh(&target).await {
        Ok(upstream) => {
            let upstream = Upstream::new(upstream, permit, None);
            let stream = Downstream::Plain(socket);
            Box::pin(stream::run(worker, connection, stream, BytesMut::new(), upstream, record)).await;
        }
        Err(error) => {
            stream::note_connect_failure(&error, FaultDomain::Network, &mut record);
            reset_on_drop(&socket);
        }
    }
}

/// Serves what will be refused: HTTP gets its answer per request, anything else is closed, and its record is
/// given back to say why.
async fn refuse_http(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    socket: TcpStream,
) -> Option<TcpRecord> {
    let settings = &worker.settings;
    match peek::first_bytes(&socket, settings.detect_wait, settings.request_head_timeout).await {
        Ok(Peeked::Start(FirstBytes::Http1)) => {
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http1::serve::serve(worker, connection, stream, BytesMut::new())).await;
            None
        }
        Ok(Peeked::Start(FirstBytes::Http2)) => {
            let stream = Downstream::Plain(socket);
            Box::pin(forward::http2::serve(worker, connection, stream, BytesMut::new())).await;
            None
        }
        _ => {
            reset_on_drop(&socket);
            Some(worker.telemetry.tcp(connection))
        }
    }
}
