//! One stream, from its head to its record.
//!
//! A permit that was given for a stream that stays open is a standing one: when policy changes, or the
//! caller's certificate ends, the request is judged again as the request that it was, and the stream is cut
//! if it would be refused today.

use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use mesh_policy::authorize::HttpAttributes;
use tokio::sync::Notify;

use super::answer;
use super::attempt::{self, Answer, AttemptError};
use super::head::{self, Head};
use super::pipe::{Pipe, PipeError};
use super::waiting::Waiting;
use crate::authz::{self, Revocation, Standing};
use crate::connection::{Connection, Direction};
use crate::exchange::{self, JudgedHeaders, Plan};
use crate::forward::headers;
use crate::forward::http1::upstreams::{Attempts, Repetition};
use crate::respond::Refusal;
use crate::telemetry::{FaultDomain, Flag, HttpRecord};
use crate::upstream::UpstreamAlpn;
use crate::worker::Worker;

/// Times that one request is sent again because an upstream had not looked at it.
const UNPROCESSED_MAX: u32 = 3;

/// What the streams of one connection share.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The worker.
    pub worker: &'a Rc<Worker>,
    /// The connection.
    pub connection: &'a Rc<Connection>,
    /// Says that open streams are to be judged again.
    pub judge_again: &'a Notify,
}

/// How a stream ended, as far as its connection cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was answered, or this side ended it.
    Served,
    /// The client took it back.
    TakenBack {
        /// After this time.
        after: Duration,
    },
}

/// Why an exchange does not come to its end.
#[derive(Debug)]
enum Stop {
    /// It is answered by the proxy.
    Refused(Refusal),
    /// The client ended its stream.
    Client,
    /// The upstream ended its stream, or its connection when there is no reason.
    Upstream(Option<Reason>),
    /// It may not go on.
    Revoked(Revocation),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves one stream. Dropped, it resets the stream upstream and writes its record.
pub async fn run(scope: Scope<'_>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> End {
    let mut record = scope.worker.telemetry.http(scope.connection);
    let (parts, body) = request.into_parts();
    head::describe(&parts, &mut record);
    if let Some(labels) = crate::inbound::labels(scope.worker, scope.connection) {
        record.destination = Some(labels);
    }
    // A request that was taken back before it was looked at costs nothing more than this.
    if poll_fn(|context| Poll::Ready(respond.poll_reset(context).is_ready())).await {
        note_client(&mut record);
        return End::TakenBack { after: Duration::ZERO };
    }
    let upload = Pipe::replayable(body);
    let mut exchange = Exchange { scope, record, upload, download: None, respond, sending: None };
    match Head::read(parts) {
        Ok(head) => exchange.serve(head).await,
        Err(refusal) => exchange.end(Stop::Refused(refusal)),
    }
}

fn note_client(record: &mut HttpRecord) {
    record.flag = Flag::DownstreamConnectionTermination;
    record.fault = FaultDomain::Client;
    record.details.clear();
    record.details.push_str("downstream_remote_disconnect");
}

struct Exchange<'a> {
    scope: Scope<'a>,
    record: HttpRecord,
    upload: Pipe,
    download: Option<Pipe>,
    respond: SendResponse<Bytes>,
    /// Takes the response's body, once its head was sent.
    sending: Option<SendStream<Bytes>>,
}

impl Drop for Exchange<'_> {
    /// What was moved is recorded however the exchange ends.
    fn drop(&mut self) {
        self.record.bytes_received = self.upload.moved();
        if let Some(download) = &self.download {
            self.record.bytes_sent = download.moved();
            if let Some(status) = download.trailers().and_then(answer::grpc_status) {
                self.record.grpc_status = Some(status);
            }
        }
    }
}

impl Exchange<'_> {
    async fn serve(&mut self, mut head: Head) -> End {
        let scope = self.scope;
        let Scope { worker, connection, .. } = scope;
        if self.record.authority.is_empty() {
            self.record.authority.push_str(head.authority.as_str());
        }
        headers::finish_request(&mut head.lines.0, &headers::Hop { connection, worker }, &mut self.record);
        if !crate::inbound::is_still_admitted(worker, connection) {
            return self.end(Stop::Revoked(Revocation::TlsRequired));
        }
        let patience = worker.settings.request_body_timeout;
        let stated = head.content_length();
        let mut waiting = Waiting::new(&mut self.upload, &mut self.respond, stated, patience);
        let planned = exchange::plan(worker, connection, &mut head, &mut waiting, &mut self.record).await;
        let plan = match planned {
            Ok(plan) => plan,
            Err(Refusal::Abandoned) => return self.end(Stop::Client),
            Err(refusal) => return self.end(Stop::Refused(refusal)),
        };
        let deadline = plan.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        let late = async {
            match deadline {
                None => pending().await,
                Some(deadline) => tokio::time::sleep_until(deadline).await,
            }
        };
        let result = tokio::select! {
            biased;
            result = self.forward(&plan, &head) => result,
            revocation = revoked(scope, &plan, &head) => Err(Stop::Revoked(revocation)),
            () = late => Err(Stop::Refused(Refusal::UpstreamTimeout)),
        };
        match result {
            Ok(()) => {
                self.record.details.push_str("via_upstream");
                End::Served
            }
            Err(stop) => self.end(stop),
        }
    }

    /// Makes attempts until one gives a response, and delivers that.
    async fn forward(&mut self, plan: &Plan, head: &Head) -> Result<(), Stop> {
        let Scope { worker, connection, .. } = self.scope;
        let mut attempts = Attempts::new(plan, connection, worker, UpstreamAlpn::Http2);
        let mut resends = Resends::new(Repetition::of(head.method.as_str()));
        loop {
            let picked = attempts.pick(worker, &mut self.record)?;
            let lease = match worker.upstreams.http2(&picked.target).await {
                Ok(lease) => lease,
                Err(error) => {
                    attempts.connect_failed(picked.endpoint, error, &mut self.record)?;
                    continue;
                }
            };
            let started = Instant::now();
            let request = head.to_request(plan.path.as_deref())?;
            let trying = attempt::response(&lease, request, &mut self.upload, &mut self.respond);
            let got = match attempts.per_try_timeout() {
                None => trying.await,
                Some(limit) => {
                    tokio::time::timeout(limit, trying).await.unwrap_or(Err(AttemptError::TimedOut))
                }
            };
            let can_restart = self.upload.can_restart();
            match got {
                Ok(answer)
                    if (answer.response.status() == 503 || self.record.is_grpc)
                        && attempts.is_unprocessed(answer.response.headers())
                        && attempts.wants_elsewhere(&picked, can_restart, &mut self.record) =>
                {
                    lease.note_end();
                }
                Ok(answer) if self.wants_retry(&mut attempts, &answer, can_restart) => {}
                Ok(answer) => {
                    if let Some(in_flight) = &picked.in_flight {
                        in_flight.note_answer();
                    }
                    let micros = started.elapsed().as_micros();
                    self.record.upstream_service_micros = Some(u64::try_from(micros).unwrap_or(u64::MAX));
                    let delivered = self.deliver(plan, answer).await;
                    if matches!(delivered, Ok(()) | Err(Stop::Upstream(_))) {
                        lease.note_end();
                    }
                    return delivered;
                }
                Err(AttemptError::Client(_)) => return Err(Stop::Client),
                Err(error) if can_restart && resends.is_safe(error, lease.is_reused()) => {
                    if error == AttemptError::Unprocessed {
                        attempts.leave_endpoint();
                    }
                    lease.note_end();
                }
                Err(error) => {
                    if matches!(error, AttemptError::Ended { .. } | AttemptError::Unprocessed) {
                        lease.note_end();
                    }
                    if let Some(in_flight) = &picked.in_flight {
                        in_flight.note_failure();
                    }
                    if !can_restart || !attempts.wants_retry_on(conditions(error), &mut self.record) {
                        return Err(Stop::Refused(refusal_of(error)));
                    }
                }
            }
            drop(lease);
            attempts.pause(worker).await;
            self.upload.restart();
        }
    }

    /// Whether a response is to be thrown away for another attempt.
    fn wants_retry(&mut self, attempts: &mut Attempts<'_>, answer: &Answer, can_restart: bool) -> bool {
        let status = answer.response.status().as_u16();
        if attempts.wants_retry_for(status, can_restart, &mut self.record) {
            return true;
        }
        if !can_restart || !self.record.is_grpc {
            return false;
        }
        let conditions: &[&str] = match answer::grpc_status(answer.response.headers()) {
            Some(1) => &["cancelled"],
            Some(4) => &["deadline-exceeded"],
            Some(8) => &["resource-exhausted"],
            Some(13) => &["internal"],
            Some(14) => &["unavailable"],
            Some(_) | None => return false,
        };
        attempts.wants_retry_on(conditions, &mut self.record)
    }

    /// Hands the response on, while the rest of the request goes the other way.
    async fn deliver(&mut self, plan: &Plan, answer: Answer) -> Result<(), Stop> {
        let Answer { response, mut sink } = answer;
        let (parts, body) = response.into_parts();
        let mut response = Response::from_parts(parts, ());
        if let Some(edits) = &plan.response {
            edits.apply(response.headers_mut());
        }
        headers::finish_response(response.headers_mut(), self.scope.connection, &self.record);
        let status = response.status().as_u16();
        self.record.grpc_status = answer::grpc_status(response.headers());
        let is_whole = body.is_end_stream();
        let sending = self.respond.send_response(response, is_whole).map_err(|_| Stop::Client)?;
        self.record.status = status;
        if is_whole {
            return Ok(());
        }
        self.upload.commit();
        let (upload, sending) = (&mut self.upload, self.sending.insert(sending));
        let download = self.download.insert(Pipe::once(body));
        let result = poll_fn(|context| {
            if let Poll::Ready(reset) = sending.poll_reset(context) {
                return Poll::Ready(Err((Stop::Client, reset.unwrap_or(Reason::CANCEL))));
            }
            if let Poll::Ready(Err(PipeError::Source(error))) = upload.poll(context, &mut sink) {
                return Poll::Ready(Err((Stop::Client, error.reason().unwrap_or(Reason::CANCEL))));
            }
            download.poll(context, sending).map_err(|error| match error {
                PipeError::Source(error) => {
                    (Stop::Upstream(error.reason().filter(|_| error.is_reset())), Reason::CANCEL)
                }
                PipeError::Sink => (Stop::Client, Reason::CANCEL),
            })
        })
        .await;
        result.map_err(|(stop, reason)| {
            sink.send_reset(reason);
            stop
        })
    }

    /// Ends the stream early, in the way that fits how far it has come.
    fn end(&mut self, stop: Stop) -> End {
        match stop {
            Stop::Client => {
                note_client(&mut self.record);
                return End::TakenBack { after: self.record.started().elapsed() };
            }
            Stop::Refused(refusal) => self.refuse(&refusal),
            Stop::Revoked(revocation) => {
                let refusal = note_revocation(&revocation, &mut self.record);
                self.refuse(&refusal);
                self.record.flag = Flag::LocalReset;
            }
            Stop::Upstream(reason) => self.cut(reason),
        }
        End::Served
    }

    /// Answers with a refusal, or ends the answer that has begun.
    fn refuse(&mut self, refusal: &Refusal) {
        let result = match &mut self.sending {
            None => answer::refuse(&mut self.respond, refusal, &mut self.record),
            Some(sending) => {
                refusal.note(&mut self.record);
                if self.record.is_grpc {
                    answer::end_grpc(sending, refusal, &mut self.record)
                } else {
                    sending.send_reset(Reason::CANCEL);
                    Ok(())
                }
            }
        };
        if result.is_err() {
            note_client(&mut self.record);
        }
    }

    /// The upstream cut its response: so is the client's.
    fn cut(&mut self, reason: Option<Reason>) {
        if let Some(sending) = &mut self.sending {
            sending.send_reset(match reason {
                // A response that is cut is never one that was not begun, nor one that is complete.
                None | Some(Reason::NO_ERROR | Reason::REFUSED_STREAM) => Reason::INTERNAL_ERROR,
                Some(reason) => reason,
            });
        }
        self.record.flag = Flag::UpstreamConnectionTermination;
        self.record.fault = match self.scope.connection.direction {
            Direction::Inbound => FaultDomain::App,
            Direction::Outbound => FaultDomain::ServerProxy,
        };
        let how = if reason.is_some() { "remote_reset" } else { "connection_termination" };
        self.record.details.push_str("upstream_reset_after_response_started{");
        self.record.details.push_str(how);
        self.record.details.push('}');
    }
}

/// Attempts that are repeated whatever the route says, because nothing has been done for them.
#[derive(Debug)]
struct Resends {
    repetition: Repetition,
    unprocessed: u32,
    stale: u32,
}

impl Resends {
    fn new(repetition: Repetition) -> Self {
        Self { repetition, unprocessed: 0, stale: 0 }
    }

    fn is_safe(&mut self, error: AttemptError, is_reused: bool) -> bool {
        match error {
            AttemptError::Unprocessed => {
                self.unprocessed += 1;
                self.unprocessed <= UNPROCESSED_MAX
            }
            // A connection that served before and ends without a byte had most likely ended before the request
            // came; likely is enough where a second time does no harm.
            AttemptError::Ended { is_untouched: true, is_reset: false }
                if is_reused && self.repetition == Repetition::Harmless =>
            {
                self.stale += 1;
                self.stale <= 1
            }
            AttemptError::Ended { .. }
            | AttemptError::TimedOut
            | AttemptError::Protocol
            | AttemptError::Client(_) => false,
        }
    }
}

/// What a route may name to have such an attempt repeated.
fn conditions(error: AttemptError) -> &'static [&'static str] {
    match error {
        AttemptError::Unprocessed => {
            &["5xx", "gateway-error", "reset", "reset-before-request", "refused-stream"]
        }
        AttemptError::Ended { is_untouched: true, .. } => {
            &["5xx", "gateway-error", "reset", "reset-before-request"]
        }
        AttemptError::Ended { .. } => &["5xx", "gateway-error", "reset"],
        AttemptError::TimedOut => &["5xx", "gateway-error"],
        AttemptError::Protocol | AttemptError::Client(_) => &[],
    }
}

fn refusal_of(error: AttemptError) -> Refusal {
    match error {
        AttemptError::Unprocessed | AttemptError::Client(_) => Refusal::UpstreamReset { is_reset: true },
        AttemptError::Ended { is_reset, .. } => Refusal::UpstreamReset { is_reset },
        AttemptError::TimedOut => Refusal::UpstreamTimeout,
        AttemptError::Protocol => {
            Refusal::UpstreamProtocol { details: "upstream_reset_before_response_started{protocol_error}" }
        }
    }
}

/// Writes a revocation into the record, as the refusal that the request would get today.
fn note_revocation(revocation: &Revocation, record: &mut HttpRecord) -> Refusal {
    record.policy.clear();
    record.reason.clear();
    record.details.clear();
    match revocation {
        Revocation::Policy { rule, .. } | Revocation::NotAsked { rule, .. } if !rule.is_empty() => {
            record.deny(Some(rule), &revocation.to_string());
        }
        Revocation::Policy { .. }
        | Revocation::NotAsked { .. }
        | Revocation::Token { .. }
        | Revocation::TlsRequired => record.deny(None, &revocation.to_string()),
        Revocation::PeerExpired => return Refusal::PeerExpired,
    }
    Refusal::Denied
}

/// Waits until the request would be refused. Never returns for what the workload itself sent.
async fn revoked(scope: Scope<'_>, plan: &Plan, head: &Head) -> Revocation {
    let Scope { worker, connection, judge_again } = scope;
    if connection.direction == Direction::Outbound {
        return pending().await;
    }
    let path = plan.path.as_deref().unwrap_or(head.target.as_str());
    let headers = JudgedHeaders::new(&head.lines, path);
    let http = HttpAttributes {
        method: head.method.as_str(),
        authority: head.authority.as_str(),
        path: exchange::policy_path(path),
        headers: &headers,
        claims: None,
    };
    loop {
        judge_again.notified().await;
        if authz::is_peer_expired(connection, SystemTime::now()) {
            return Revocation::PeerExpired;
        }
        if let Some(workload) = &worker.state.load().workload
            && let Some(revocation) =
                authz::judge_again(workload, connection, &plan.permit, Standing::Request(http))
        {
            return revocation;
        }
    }
}
