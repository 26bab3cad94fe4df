//! Which upstream connection serves a request, and whether another one may be tried after a failure.
//!
//! Some tries are safe in any case: another endpoint when a connect failed, since nothing was sent, or when its
//! proxy says that it could not connect to the application, since nothing was passed on; a fresh connection
//! when a kept one turned out to have been closed before a byte of a response came. Everything
//! else is repeated only when the route says so, the request can be sent again whole, and the worker's budget
//! of retries is not used up, so that a failing service is not buried under repetitions.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::model::PeerTls;
use mesh_api::model::destination::Retries;

use super::attempt::AttemptError;
use crate::balance::InFlight;
use crate::connection::Connection;
use crate::exchange::{Hop, Plan, budget};
use crate::forward::headers::HeaderLines;
use crate::forward::stream;
use crate::respond::{Refusal, UNPROCESSED};
use crate::state::DestinationState;
use crate::telemetry::HttpRecord;
use crate::telemetry::record::DestinationLabels;
use crate::upstream::{ConnectError, Http1Lease, Target, UpstreamAlpn, UpstreamStream};
use crate::worker::Worker;

/// Endpoints tried after a failed connect when the route states no retries (SEMANTICS 10.3).
const CONNECT_RETRIES: u32 = mesh_policy::route::DEFAULT_RETRY_ATTEMPTS;
/// Endpoints tried, at least, after one has said that it has not processed the request: in a restart of many
/// replicas several may be gone at a time.
const ELSEWHERE_MAX: u32 = 4;
/// First pause before a retry that the route asks for; doubles up to ten times it (SEMANTICS 10.3).
const BACKOFF: Duration = Duration::from_millis(25);

/// A picked endpoint.
#[derive(Debug)]
pub struct Pick {
    /// How to connect.
    pub target: Target,
    /// Labels of the called side.
    pub labels: Arc<DestinationLabels>,
    /// Tells the balancer when the request or stream is over.
    pub in_flight: Option<InFlight>,
    /// The endpoint, to be left out of the next pick.
    pub endpoint: Option<usize>,
}

/// Picks an endpoint of a destination; `None` when there is none left.
///
/// An endpoint that is this very workload is reached in plaintext at its own address: the proxy's traffic is
/// not intercepted, so mutual TLS would meet the application instead of a proxy.
#[must_use]
pub fn pick(
    worker: &Worker,
    connection: &Connection,
    destination: &Arc<DestinationState>,
    (port, subset): (u16, Option<&str>),
    alpn: UpstreamAlpn,
    tried: &[usize],
) -> Option<Pick> {
    let state = worker.state.load();
    let picked = worker.balance.pick(
        &crate::balance::Request {
            destination,
            port,
            subset,
            alpn,
            dialled: connection.destination,
            tried,
            zone: state.zone(),
            connect_timeout: worker.connect_timeout(),
        },
        &mut worker.rng.borrow_mut(),
    )?;
    let mut target = picked.target;
    drop(state);
    if is_own(worker, &target) {
        target.tls = PeerTls::Plaintext;
    }
    Some(Pick {
        target,
        labels: picked.labels,
        in_flight: Some(picked.in_flight),
        endpoint: Some(picked.endpoint),
    })
}

fn is_own(worker: &Worker, target: &Target) -> bool {
    let state = worker.state.load();
    let own = state.workload.as_ref().map(|workload| workload.config.addresses.as_slice());
    own.unwrap_or_default().contains(&target.address.ip())
}

/// An upstream connection in use for one request.
#[derive(Debug)]
pub enum Opened {
    /// From the pool, perhaps used before; goes back to it.
    Leased(Http1Lease, Option<InFlight>),
    /// Opened for this request alone.
    Fresh(UpstreamStream, Option<InFlight>),
}

impl Opened {
    /// The stream.
    pub fn stream(&mut self) -> &mut UpstreamStream {
        match self {
            Self::Leased(lease, _) => lease.stream(),
            Self::Fresh(stream, _) => stream,
        }
    }

    /// Tells the balancer that the endpoint has begun to answer.
    pub fn note_answer(&self) {
        if let Self::Leased(_, Some(in_flight)) | Self::Fresh(_, Some(in_flight)) = self {
            in_flight.note_answer();
        }
    }

    /// Whether it served a request before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        match self {
            Self::Leased(lease, _) => lease.is_reused(),
            Self::Fresh(..) => false,
        }
    }

    /// Ends the use; a connection that can serve another request is kept.
    pub fn finish(self, is_reusable: bool) {
        if let Self::Leased(lease, _) = self
            && is_reusable
        {
            lease.keep();
        }
    }
}

/// What can be told of a failure.
pub trait Failing {
    /// Tells the balancer that the endpoint failed.
    fn note_failure(&self);
}

impl Failing for Opened {
    fn note_failure(&self) {
        if let Self::Leased(_, Some(in_flight)) | Self::Fresh(_, Some(in_flight)) = self {
            in_flight.note_failure();
        }
    }
}

impl Failing for Pick {
    fn note_failure(&self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.note_failure();
        }
    }
}

/// A connection, before what else belongs to it.
enum Connected {
    Leased(Http1Lease),
    Fresh(UpstreamStream),
}

/// The attempts of one request.
#[derive(Debug)]
pub struct Attempts<'a> {
    hop: &'a Hop,
    connection: &'a Connection,
    alpn: UpstreamAlpn,
    stated: Option<&'a Retries>,
    /// Retries made because the route asked for them, or because a connect failed.
    made: u32,
    /// Endpoints that said that they had not processed the request.
    unprocessed: u32,
    /// The pool had a stale connection; the next one is fresh.
    is_stale_retry: bool,
    /// The next attempt waits first.
    is_pause_due: bool,
    repetition: Repetition,
    /// The endpoint picked last proves to be of the mesh.
    is_mesh: bool,
    tried: Vec<usize>,
    last: Option<usize>,
    in_flight: budget::InFlight,
}

/// What sending a request twice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repetition {
    /// The same as sending it once.
    Harmless,
    /// Perhaps something twice.
    Harmful,
}

impl Repetition {
    /// By the method (RFC 9110 section 9.2.2).
    #[must_use]
    pub fn of(method: &str) -> Self {
        match method {
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE" => Self::Harmless,
            _ => Self::Harmful,
        }
    }
}

impl<'a> Attempts<'a> {
    /// No attempt made yet.
    #[must_use]
    pub fn new(plan: &'a Plan, connection: &'a Connection, worker: &Worker, alpn: UpstreamAlpn) -> Self {
        Self {
            hop: &plan.hop,
            connection,
            alpn,
            stated: plan.retries.as_ref(),
            made: 0,
            unprocessed: 0,
            is_stale_retry: false,
            is_pause_due: false,
            repetition: Repetition::Harmful,
            is_mesh: false,
            tried: Vec::new(),
            last: None,
            in_flight: worker.retries.request(),
        }
    }

    /// Says what sending the request twice would do; without it the worse is assumed.
    #[must_use]
    pub fn with_repetition(mut self, repetition: Repetition) -> Self {
        self.repetition = repetition;
        self
    }

    /// Time allowed for one attempt.
    #[must_use]
    pub fn per_try_timeout(&self) -> Option<Duration> {
        self.stated.and_then(|stated| stated.per_try_timeout_ms).map(Duration::from_millis)
    }

    /// Opens a connection for the next attempt, going on to other endpoints when connects fail.
    ///
    /// # Errors
    /// The refusal to answer with when there is nowhere to go.
    pub async fn open(&mut self, worker: &Worker, record: &mut HttpRecord) -> Result<Opened, Refusal> {
        loop {
            let Pick { target, in_flight, endpoint, .. } = self.pick(worker, record)?;
            let connected = if std::mem::take(&mut self.is_stale_retry) {
                worker.upstreams.fresh(&target).await.map(Connected::Fresh)
            } else {
                self.lease(worker, &target).await.map(Connected::Leased)
            };
            match connected {
                Ok(Connected::Leased(lease)) => return Ok(Opened::Leased(lease, in_flight)),
                Ok(Connected::Fresh(stream)) => return Ok(Opened::Fresh(stream, in_flight)),
                Err(error) => {
                    if let Some(in_flight) = &in_flight {
                        in_flight.note_failure();
                    }
                    self.connect_failed(endpoint, error, record)?;
                }
            }
        }
    }

    /// A connection of the pool. A request that must not be sent twice cannot be repaired when it meets a
    /// connection that has ended, so the kernel is asked first, which costs a system call.
    async fn lease(&self, worker: &Worker, target: &Target) -> Result<Http1Lease, ConnectError> {
        loop {
            let mut lease = worker.upstreams.http1(target).await?;
            let is_certain = !lease.is_reused() || self.repetition == Repetition::Harmless;
            if is_certain || lease.stream().is_silent_in_kernel() {
                return Ok(lease);
            }
        }
    }

    /// Picks where the next attempt goes, and says so in the record.
    ///
    /// # Errors
    /// The refusal to answer with when there is nowhere to go.
    pub fn pick(&mut self, worker: &Worker, record: &mut HttpRecord) -> Result<Pick, Refusal> {
        let picked = match self.hop {
            Hop::Application => Pick {
                target: stream::application(worker, self.connection, self.alpn),
                labels: record.destination.clone().unwrap_or_default(),
                in_flight: None,
                endpoint: None,
            },
            Hop::Destination { state, port, subset } => {
                let wanted = (*port, subset.as_deref());
                pick(worker, self.connection, state, wanted, self.alpn, &self.tried)
                    .or_else(|| self.again(worker, state, wanted))
                    .ok_or(Refusal::NoHealthyUpstream)?
            }
        };
        record.attempts += 1;
        record.upstream = Some(picked.target.address);
        if matches!(self.hop, Hop::Destination { .. }) {
            record.mutual_tls = matches!(picked.target.tls, PeerTls::Mutual { .. });
            record.destination = Some(Arc::clone(&picked.labels));
        }
        self.last = picked.endpoint;
        self.is_mesh = matches!(picked.target.tls, PeerTls::Mutual { .. });
        Ok(picked)
    }

    /// Judges a failed connect: well when another endpoint may be tried, to which nothing has been sent.
    ///
    /// # Errors
    /// The refusal to answer with when none may.
    pub fn connect_failed(
        &mut self,
        endpoint: Option<usize>,
        error: ConnectError,
        record: &mut HttpRecord,
    ) -> Result<(), Refusal> {
        self.tried.extend(endpoint);
        if self.made >= self.limit() || endpoint.is_none() {
            record.is_at_retry_limit = endpoint.is_some() && self.limit() > 0;
            return Err(Refusal::ConnectFailed(error));
        }
        self.made += 1;
        Ok(())
    }

    /// Whether a response says that the application has not seen the request. Only a peer that has proved to be of
    /// the mesh is believed.
    #[must_use]
    pub fn is_unprocessed<L: HeaderLines>(&self, lines: &L) -> bool {
        self.is_mesh && lines.first(UNPROCESSED.as_str()).is_some()
    }

    /// Whether a request that an endpoint has not processed is sent to another one. It is no repetition, so the
    /// budget does not count it: the other endpoint gets no more than it would have got, had it been picked first.
    /// A route that forbids retries forbids this too.
    pub fn wants_elsewhere(
        &mut self,
        failed: &impl Failing,
        can_restart: bool,
        record: &mut HttpRecord,
    ) -> bool {
        failed.note_failure();
        let limit = if self.limit() == 0 { 0 } else { self.limit().max(ELSEWHERE_MAX) };
        if self.unprocessed >= limit || !can_restart {
            record.is_at_retry_limit = limit > 0;
            return false;
        }
        self.unprocessed += 1;
        self.leave_endpoint();
        // The first goes at once: another endpoint does not suffer from what this one suffers from.
        self.is_pause_due = self.unprocessed > 1;
        true
    }

    /// Leaves the last endpoint out of the next pick, if there is another.
    pub fn leave_endpoint(&mut self) {
        self.tried.extend(self.last);
    }

    /// Every endpoint was tried: better one of them again than none.
    fn again(
        &mut self,
        worker: &Worker,
        state: &Arc<DestinationState>,
        wanted: (u16, Option<&str>),
    ) -> Option<Pick> {
        if self.tried.is_empty() {
            return None;
        }
        self.tried.clear();
        pick(worker, self.connection, state, wanted, self.alpn, &self.tried)
    }

    fn limit(&self) -> u32 {
        self.stated.map_or(CONNECT_RETRIES, |stated| stated.attempts)
    }

    /// Judges a failed attempt: well when another may be made.
    ///
    /// # Errors
    /// The refusal to answer with when none may.
    pub fn judge(
        &mut self,
        error: &AttemptError,
        opened: &Opened,
        can_restart: bool,
        record: &mut HttpRecord,
    ) -> Result<(), Refusal> {
        if let AttemptError::Ended { is_untouched: true, .. } = error
            && opened.is_reused()
            && self.repetition == Repetition::Harmless
            && can_restart
        {
            self.is_stale_retry = true;
            return Ok(());
        }
        if !matches!(error, AttemptError::Request(_)) {
            opened.note_failure();
        }
        let conditions: &[&str] = match error {
            AttemptError::Ended { is_untouched: true, .. } => {
                &["5xx", "gateway-error", "reset", "reset-before-request"]
            }
            AttemptError::Ended { .. } => &["5xx", "gateway-error", "reset"],
            AttemptError::TimedOut => &["5xx", "gateway-error"],
            AttemptError::Protocol(_) | AttemptError::Request(_) => &[],
        };
        if can_restart && self.wants_retry_on(conditions, record) {
            return Ok(());
        }
        Err(match error {
            AttemptError::Ended { is_reset, .. } => Refusal::UpstreamReset { is_reset: *is_reset },
            AttemptError::TimedOut => Refusal::UpstreamTimeout,
            AttemptError::Protocol(_) | AttemptError::Request(_) => Refusal::UpstreamProtocol {
                details: "upstream_reset_before_response_started{protocol_error}",
            },
        })
    }

    /// Whether a response of this status is to be thrown away for another attempt.
    pub fn wants_retry_for(&mut self, status: u16, can_restart: bool, record: &mut HttpRecord) -> bool {
        let conditions: &[&str] = match status {
            502..=504 => &["5xx", "gateway-error"],
            500..=599 => &["5xx"],
            409 => &["retriable-4xx"],
            _ => &[],
        };
        let is_named = || {
            let status = status.to_string();
            self.stated.is_some_and(|stated| stated.retry_on.contains(&status))
        };
        if !can_restart || !(self.asks_for(conditions) || is_named()) || !self.has_left(record) {
            return false;
        }
        if !self.in_flight.may_retry() {
            return false;
        }
        self.next();
        true
    }

    /// Whether the route asks for a retry on one of these conditions, and one may still be made; then the next
    /// attempt waits first.
    pub fn wants_retry_on(&mut self, conditions: &[&str], record: &mut HttpRecord) -> bool {
        let wants = self.asks_for(conditions) && self.has_left(record) && self.in_flight.may_retry();
        if wants {
            self.next();
        }
        wants
    }

    /// Whether a retry that is wanted may still be made; if not, the record says so.
    fn has_left(&self, record: &mut HttpRecord) -> bool {
        let most = self.stated.map_or(0, |stated| stated.attempts);
        record.is_at_retry_limit = most > 0 && self.made >= most;
        self.made < most
    }

    fn asks_for(&self, conditions: &[&str]) -> bool {
        self.stated.is_some_and(|stated| {
            stated.retry_on.iter().any(|condition| conditions.contains(&condition.as_str()))
        })
    }

    fn next(&mut self) {
        self.made += 1;
        self.is_pause_due = true;
        self.tried.extend(self.last);
    }

    /// Waits before the next attempt, if it is one that the route asked for.
    pub async fn pause(&mut self, worker: &Worker) {
        if !std::mem::take(&mut self.is_pause_due) {
            return;
        }
        let exponent = (self.made + self.unprocessed).saturating_sub(1).min(4);
        let longest = (BACKOFF * (1 << exponent)).min(BACKOFF * 10);
        let share = worker.rng.borrow_mut().f64();
        tokio::time::sleep(longest.mul_f64(share)).await;
    }
}
