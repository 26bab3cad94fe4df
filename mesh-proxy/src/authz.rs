//! May this pass? The one place where a [`Permit`] is made.
//!
//! Forwarding towards the workload takes a permit, so nothing is forwarded that was not judged. A permit for
//! a request is used up with it; a permit for a byte stream is a standing one, and [`revoked`] says when the
//! policies of the day would no longer give it. Policy is enforced inbound only (SEMANTICS 4.1).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use mesh_policy::authorize::{Aside, Attributes, Decision, DenyReason, External, HttpAttributes};

use crate::connection::{Connection, Direction};
use crate::state::{State, WorkloadState};
use crate::telemetry::{HttpRecord, TcpRecord, Verdict};

/// Leave to forward; only this module makes one.
#[derive(Debug)]
#[must_use = "a permit is what forwarding takes"]
pub struct Permit(());

impl Permit {
    /// Leave for what the own workload sends: policy is the business of who receives it.
    ///
    /// Gives `None` for a connection that came in, which has to be judged.
    pub fn for_outbound(connection: &Connection) -> Option<Self> {
        (connection.direction == Direction::Outbound).then_some(Self(()))
    }
}

/// Policy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("access denied: {0}")]
pub struct Denied(pub DenyReason);

/// What is known about a connection; `http` is that of one request on it.
///
/// The original client is taken to be the TCP peer: any direct caller can write X-Forwarded-For, so it is
/// never believed here (SEMANTICS 6.5, TRAP 20).
fn attributes<'a>(connection: &'a Connection, http: Option<HttpAttributes<'a>>) -> Attributes<'a> {
    let source: IpAddr = connection.peer.ip();
    Attributes {
        peer: connection.peer_identity(),
        source_ip: source,
        remote_ip: source,
        destination_ip: connection.destination.ip(),
        destination_port: connection.destination.port(),
        sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        http,
    }
}

/// The whole of policy while no authorizer can be asked: what one would be asked about is refused.
fn judge(workload: &WorkloadState, attributes: &Attributes<'_>) -> Decision {
    match workload.authorizer.external(attributes) {
        External::NotAsked => workload.authorizer.authorize(attributes),
        External::Ask { rule, .. } => Decision::Denied {
            by: Some(rule),
            reason: DenyReason::CustomUnavailable,
            aside: Aside::default(),
        },
        External::Refuse { rule, reason } => {
            Decision::Denied { by: Some(rule), reason, aside: Aside::default() }
        }
    }
}

/// Judges one request.
///
/// # Errors
/// When policy refuses; the record then says which rule did.
pub fn request(
    workload: &WorkloadState,
    connection: &Connection,
    http: HttpAttributes<'_>,
    record: &mut HttpRecord,
) -> Result<Permit, Denied> {
    let decision = judge(workload, &attributes(connection, Some(http)));
    match decision {
        Decision::Allowed { by, .. } => {
            record.verdict = Verdict::Allowed;
            if let Some(rule) = by {
                use std::fmt::Write as _;
                let _infallible = write!(record.policy, "{}", workload.authorizer.rule(rule));
            }
            Ok(Permit(()))
        }
        Decision::Denied { by, reason, .. } => {
            let rule = by.map(|id| workload.authorizer.rule(id));
            record.deny(rule.as_ref().map(|rule| rule as &dyn std::fmt::Display), &reason.to_string());
            Err(Denied(reason))
        }
    }
}

/// Judges a byte stream.
///
/// # Errors
/// When policy refuses; the record then says which rule did.
pub fn stream(
    workload: &WorkloadState,
    connection: &Connection,
    record: &mut TcpRecord,
) -> Result<Permit, Denied> {
    match judge(workload, &attributes(connection, None)) {
        Decision::Allowed { by, .. } => {
            record.verdict = Verdict::Allowed;
            if let Some(rule) = by {
                record.policy = workload.authorizer.rule(rule).to_string();
            }
            Ok(Permit(()))
        }
        Decision::Denied { by, reason, .. } => {
            let rule = by.map(|id| workload.authorizer.rule(id));
            record.deny(rule.as_ref().map(|rule| rule as &dyn std::fmt::Display), &reason.to_string());
            Err(Denied(reason))
        }
    }
}

/// Why a standing permit ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Revocation {
    /// Policy changed and no longer allows it.
    #[error("policy changed: {reason}")]
    Policy {
        /// The rule that refuses now, as Istio writes it; empty when no ALLOW rule matches any more.
        rule: String,
        /// Why.
        reason: DenyReason,
    },
    /// The port now demands mutual TLS and the connection has none.
    #[error("port demands mutual TLS now")]
    TlsRequired,
    /// The peer's certificate has expired.
    #[error("certificate of the peer has expired")]
    PeerExpired,
}

/// What a standing permit was given for.
#[derive(Debug, Clone, Copy)]
pub enum Standing<'a> {
    /// A byte stream.
    Stream,
    /// A request whose connection switched protocols: it is judged again as the request that it was.
    Request(HttpAttributes<'a>),
}

/// Waits until a permit would no longer be given: on every change of state it is judged again, and it ends
/// with the certificate of the peer. Never returns for what the workload itself sent.
///
/// Dropping the future loses nothing.
pub async fn revoked(state: &State, connection: &Connection, standing: Standing<'_>) -> Revocation {
    if connection.direction == Direction::Outbound {
        return std::future::pending().await;
    }
    tokio::select! {
        revocation = refused_by_policy(state, connection, standing) => revocation,
        () = peer_expiry(connection) => Revocation::PeerExpired,
    }
}

async fn refused_by_policy(state: &State, connection: &Connection, standing: Standing<'_>) -> Revocation {
    let mut revisions = state.revisions();
    loop {
        // The revision is marked as seen before it is judged, so a change in between is not missed.
        revisions.mark_unchanged();
        if let Some(workload) = &state.load().workload
            && let Some(revocation) = judge_again(workload, connection, standing)
        {
            return revocation;
        }
        if revisions.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Judges a standing permit by the state of today: why it would no longer be given, if so.
#[must_use]
pub fn judge_again(
    workload: &WorkloadState,
    connection: &Connection,
    standing: Standing<'_>,
) -> Option<Revocation> {
    let mode = workload.mtls_mode(connection.destination.port());
    if mode == mesh_api::model::MtlsMode::Strict && connection.tls.is_none() {
        return Some(Revocation::TlsRequired);
    }
    let http = match standing {
        Standing::Stream => None,
        Standing::Request(http) => Some(http),
    };
    match judge(workload, &attributes(connection, http)) {
        Decision::Allowed { .. } => None,
        Decision::Denied { by, reason, .. } => {
            let rule = by.map(|id| workload.authorizer.rule(id).to_string()).unwrap_or_default();
            Some(Revocation::Policy { rule, reason })
        }
    }
}

/// Longest time between two looks at the wall clock while waiting for a certificate to expire: the clock of
/// timers stands still while a machine sleeps, and the wall clock jumps.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);

/// Waits for the end of the peer's certificate; for ever without one.
pub async fn peer_expiry(connection: &Connection) {
    expiry(connection.tls.as_ref().map(|tls| tls.not_after)).await;
}

/// Waits for the end of a certificate; for ever without one. Dropping the future loses nothing.
pub async fn expiry(not_after: Option<SystemTime>) {
    let Some(not_after) = not_after else { return std::future::pending().await };
    while let Ok(left) = not_after.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(EXPIRY_LOOK)).await;
    }
}

/// Whether the peer's certificate has expired: asked before each request on a kept connection.
#[must_use]
pub fn is_peer_expired(connection: &Connection, now: SystemTime) -> bool {
    connection.tls.as_ref().is_some_and(|tls| tls.not_after <= now)
}
