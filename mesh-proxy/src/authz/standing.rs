//! Permits of streams that stay open, judged again when something changed.
//!
//! What a standing permit is judged again by:
//! - An authorizer that let it pass is not asked again. One that was not asked, because the policy is new or
//!   names another provider now, would have to be, and so the permit ends.
//! - A token that was verified stays so while rules and keys stay as they are, whatever its `exp`, as in
//!   Envoy. When these change it is verified again, as of the time when it came, and a key that was withdrawn
//!   ends what it opened. Keys that are merely not at hand (the control plane has just started) end nothing.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_policy::authenticate::{Authenticated, TokenRequest};
use mesh_policy::authorize::{Claims, Decision, DenyReason, External, HeaderValues, HttpAttributes, RuleId};

use super::{Grounds, Permit, Token, attributes};
use crate::connection::{Connection, Direction};
use crate::state::{State, WorkloadState};

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
    /// Policy changed, and an external authorizer would have to be asked that was not.
    #[error("policy changed: external authorizer {provider} was not asked")]
    NotAsked {
        /// The rule that has it asked, as Istio writes it.
        rule: String,
        /// The provider.
        provider: String,
    },
    /// Keys or rules changed, and the token that the request came with is not accepted any more.
    #[error("token is no longer accepted: {message}")]
    Token {
        /// What a request with it would be answered.
        message: String,
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
    /// A request whose connection switched protocols: it is judged again as the request that it was. Claims
    /// are those of the permit.
    Request(HttpAttributes<'a>),
}

/// Waits until a permit would no longer be given: on every change of state it is judged again, and it ends
/// with the certificate of the peer. Never returns for what the workload itself sent.
///
/// Dropping the future loses nothing.
pub async fn revoked(
    state: &State,
    connection: &Connection,
    permit: &Permit,
    standing: Standing<'_>,
) -> Revocation {
    if connection.direction == Direction::Outbound {
        return std::future::pending().await;
    }
    tokio::select! {
        revocation = refused_by_policy(state, connection, permit, standing) => revocation,
        () = peer_expiry(connection) => Revocation::PeerExpired,
    }
}

async fn refused_by_policy(
    state: &State,
    connection: &Connection,
    permit: &Permit,
    standing: Standing<'_>,
) -> Revocation {
    let mut revisions = state.revisions();
    loop {
        // The revision is marked as seen before it is judged, so a change in between is not missed.
        revisions.mark_unchanged();
        if let Some(workload) = &state.load().workload
            && let Some(revocation) = judge_again(workload, connection, permit, standing)
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
    permit: &Permit,
    standing: Standing<'_>,
) -> Option<Revocation> {
    let mode = workload.mtls_mode(connection.destination.port());
    if mode == mesh_api::model::MtlsMode::Strict && connection.tls.is_none() {
        return Some(Revocation::TlsRequired);
    }
    let grounds = permit.0.as_deref();
    let anew;
    let http = match standing {
        Standing::Stream => None,
        Standing::Request(http) => {
            let claims = match verify_again(workload, grounds, &http) {
                Again::Same(claims) => claims,
                Again::Anew(authenticated) => {
                    anew = authenticated;
                    anew.claims.as_ref()
                }
                Again::Refused(message) => return Some(Revocation::Token { message }),
            };
            Some(HttpAttributes { claims, ..http })
        }
    };
    let attributes = attributes(connection, http);
    let written = |rule: RuleId| workload.authorizer.rule(rule).to_string();
    match workload.authorizer.external(&attributes) {
        External::NotAsked => {}
        External::Refuse { rule, reason } => {
            return Some(Revocation::Policy { rule: written(rule), reason });
        }
        External::Ask { provider, rule } => {
            if grounds.and_then(|grounds| grounds.asked.as_deref()) != Some(provider) {
                let provider = provider.to_owned();
                return Some(Revocation::NotAsked { rule: written(rule), provider });
            }
        }
    }
    match workload.authorizer.authorize(&attributes) {
        Decision::Allowed { .. } => None,
        Decision::Denied { by, reason, .. } => {
            Some(Revocation::Policy { rule: by.map(written).unwrap_or_default(), reason })
        }
    }
}

/// Header lines of a forwarded request with those that were taken off it, and without those that were put on.
#[derive(Debug)]
struct AsItCame<'a> {
    lines: &'a dyn HeaderValues,
    token: &'a Token,
}

impl HeaderValues for AsItCame<'_> {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        if name == ":path" {
            each(self.token.target.as_bytes());
            return;
        }
        let mut taken = self.token.taken.iter().filter(|(taken, _)| taken == name).peekable();
        if taken.peek().is_some() {
            for (_, value) in taken {
                if !each(value) {
                    return;
                }
            }
        } else if !self.token.effects.added().any(|(added, _)| added == name) {
            self.lines.visit(name, each);
        }
    }
}

/// What a token is worth today.
enum Again<'a> {
    /// Nothing changed that it rests on.
    Same(Option<&'a Claims>),
    /// It was verified once more.
    Anew(Authenticated),
    /// It is not accepted any more.
    Refused(String),
}

/// Body of the answer to a token whose keys were never fetched (SEMANTICS 7.4).
const KEYS_NOT_FETCHED: &str = "Jwks remote fetch is failed";

fn verify_again<'a>(
    workload: &WorkloadState,
    grounds: Option<&'a Grounds>,
    http: &HttpAttributes<'_>,
) -> Again<'a> {
    let token = grounds.and_then(|grounds| grounds.token.as_ref());
    if workload.authenticator.is_empty() {
        return Again::Same(None);
    }
    if let Some(token) = token
        && Arc::ptr_eq(&token.verified_by, &workload.authenticator)
    {
        return Again::Same(token.claims.as_ref());
    }
    let as_it_came = token.map(|token| AsItCame { lines: http.headers, token });
    let request = TokenRequest {
        method: http.method,
        scheme: "http",
        authority: http.authority,
        target: token.map_or(http.path, |token| &token.target),
        headers: match &as_it_came {
            Some(lines) => lines,
            None => http.headers,
        },
    };
    let at = token.map_or_else(SystemTime::now, |token| token.verified_at);
    match workload.authenticator.authenticate(&request, at) {
        Ok(authenticated) => Again::Anew(authenticated),
        Err(refused) if refused.message == KEYS_NOT_FETCHED => {
            Again::Same(token.and_then(|token| token.claims.as_ref()))
        }
        Err(refused) => Again::Refused(refused.message),
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
