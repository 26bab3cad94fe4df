//! A byte stream from its first byte to its record: who speaks first, the copy, and how its end is told.

use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use mesh_api::error_chain::chain;
use mesh_api::model::PeerTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http1::flow;
use super::tcp::{self, Ended};
use crate::accept::detect::{self, FirstBytes};
use crate::accept::downstream::Downstream;
use crate::accept::peek::{self, Peeked};
use crate::authz::{self, Permit, Revocation, Standing};
use crate::connection::{Connection, Direction};
use crate::telemetry::{FaultDomain, Flag, TcpRecord};
use crate::upstream::{ConnectError, Target, UpstreamAlpn, UpstreamStream};
use crate::worker::Worker;

/// Bytes of an application's greeting that are taken at once.
const GREETING: usize = 4096;

/// An upstream connection for a stream, and what it has said so far.
#[derive(Debug)]
pub struct Upstream {
    stream: UpstreamStream,
    said: BytesMut,
    permit: Permit,
    /// What is told apart by it: the pick of an endpoint ends with the stream.
    guard: Option<crate::balance::InFlight>,
}

impl Upstream {
    /// An opened connection.
    #[must_use]
    pub fn new(stream: UpstreamStream, permit: Permit, guard: Option<crate::balance::InFlight>) -> Self {
        Self { stream, said: BytesMut::new(), permit, guard }
    }
}

/// Connects to the own application at the address that was dialled. On failure the record says why.
pub async fn to_application(
    worker: &Worker,
    connection: &Connection,
    permit: Permit,
    record: &mut TcpRecord,
) -> Option<Upstream> {
    record.upstream = Some(connection.destination);
    let target = application(worker, connection, UpstreamAlpn::Tcp);
    match worker.upstreams.fresh(&target).await {
        Ok(stream) => Some(Upstream::new(stream, permit, None)),
        Err(error) => {
            note_connect_failure(&error, FaultDomain::App, record);
            None
        }
    }
}

/// The own application, as a target.
#[must_use]
pub fn application(worker: &Worker, connection: &Connection, alpn: UpstreamAlpn) -> Target {
    Target {
        address: connection.destination,
        tls: PeerTls::Plaintext,
        alpn,
        sni: Arc::clone(&worker.no_server_name),
        connect_timeout: worker.connect_timeout(),
    }
}

/// Writes a failed connect into the record.
pub fn note_connect_failure(error: &ConnectError, fault: FaultDomain, record: &mut TcpRecord) {
    // A stream's connects are all the attempts that it gets, and Envoy says so of the last one.
    record.flag = Flag::ConnectionFailureAtRetryLimit;
    record.fault = fault;
    record.details.clear();
    record.details.push_str("upstream_connection_failure");
    record.transport_failure = chain(error);
}

/// Who spoke first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The client, and with what.
    Client(FirstBytes),
    /// The application.
    Application,
    /// Neither before the end.
    Nobody,
}

/// Waits for the first word of either side. When the upstream ends without one (or there is none), the client
/// is given a while longer: it may still turn out to speak HTTP, which is judged differently.
///
/// Nothing is taken from the client; what the upstream says is kept with it.
pub async fn who_speaks(worker: &Worker, client: &TcpStream, upstream: Option<&mut Upstream>) -> Speaker {
    let settings = &worker.settings;
    let waits_for_both = upstream.is_some();
    let greeting = async {
        let Some(upstream) = upstream else { return pending().await };
        upstream.said.reserve(GREETING);
        matches!(upstream.stream.read_buf(&mut upstream.said).await, Ok(length) if length > 0)
    };
    let mut greeting = std::pin::pin!(greeting);
    if waits_for_both {
        tokio::select! {
            biased;
            readable = client.readable() => {
                if readable.is_err() {
                    return Speaker::Nobody;
                }
            }
            has_spoken = greeting.as_mut() => {
                if has_spoken {
                    return Speaker::Application;
                }
            }
        }
    }
    let limit = settings.request_head_timeout;
    match peek::first_bytes(client, limit, limit).await {
        Ok(Peeked::Start(first)) => Speaker::Client(first),
        // Its side is over and the other one is not: a stream, whatever the application says.
        Ok(Peeked::Ended) => Speaker::Client(FirstBytes::Other),
        Ok(Peeked::Silent) | Err(_) => Speaker::Nobody,
    }
}

/// The first bytes inside a TLS session; what was read is left in `early`. A silent peer is taken for one
/// that waits for the other side.
pub async fn first_bytes_inside(
    worker: &Worker,
    stream: &mut Downstream,
    early: &mut BytesMut,
) -> FirstBytes {
    let looking = async {
        loop {
            match detect::look_at_http(early) {
                FirstBytes::NeedMore => {}
                known => return known,
            }
            let filled = std::future::poll_fn(|context| flow::poll_fill(context, stream, early)).await;
            if !matches!(filled, Ok(length) if length > 0) {
                return FirstBytes::Other;
            }
        }
    };
    tokio::time::timeout(worker.settings.request_head_timeout, looking).await.unwrap_or(FirstBytes::Other)
}

/// Runs a stream to its end.
pub async fn run(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    mut downstream: Downstream,
    early: BytesMut,
    upstream: Upstream,
    mut record: TcpRecord,
) {
    let Upstream { stream: mut upstream, said, permit, guard } = upstream;
    record.opened();
    if !said.is_empty() {
        record.bytes_sent += said.len() as u64;
        if downstream.write_all(&said).await.is_err() || downstream.flush().await.is_err() {
            record.flag = Flag::DownstreamConnectionTermination;
            record.fault = FaultDomain::Client;
            return;
        }
    }
    drop(said);
    let upstream_end = upstream.validity().peer_not_after();
    let stop = async {
        tokio::select! {
            revocation = authz::revoked(&worker.state, connection, &permit, Standing::Stream) => revocation,
            () = authz::expiry(upstream_end) => Revocation::PeerExpired,
        }
    };
    let ended = tcp::copy(&mut downstream, &mut upstream, early, &mut record, stop).await;
    drop(guard);
    match ended {
        Ended::Complete => {}
        Ended::Downstream(error) => {
            record.flag = Flag::DownstreamConnectionTermination;
            record.fault = FaultDomain::Client;
            if tcp::is_reset(&error) {
                upstream.reset_on_drop();
            }
        }
        Ended::Upstream(error) => {
            record.flag = Flag::UpstreamConnectionTermination;
            record.fault = match connection.direction {
                Direction::Inbound => FaultDomain::App,
                Direction::Outbound => FaultDomain::Network,
            };
            record.transport_failure = error.to_string();
            downstream.reset_on_drop();
        }
        Ended::Stopped(revocation) => {
            note_revocation(&revocation, &mut record);
            downstream.reset_on_drop();
            upstream.reset_on_drop();
        }
    }
}

fn note_revocation(revocation: &Revocation, record: &mut TcpRecord) {
    match revocation {
        Revocation::Policy { rule, reason } => {
            let rule = (!rule.is_empty()).then_some(rule as &dyn std::fmt::Display);
            record.deny(rule, &reason.to_string());
        }
        Revocation::NotAsked { rule, .. } => record.deny(Some(rule), &revocation.to_string()),
        Revocation::Token { .. } | Revocation::TlsRequired | Revocation::PeerExpired => {
            record.deny(None, &revocation.to_string());
            record.details = revocation.to_string().replace(' ', "_");
        }
    }
    record.flag = Flag::LocalReset;
}
