//! One HTTP/1.1 connection from its first request to its last, in one task.
//!
//! Requests are served one after the other; pipelined ones wait in the buffer, and beyond it in the socket.
//! The heads, the buffers and the output are kept from request to request and refilled.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::answer;
use super::attempt::{self, AttemptError, Client};
use super::flow::{self, Download, DownloadError, Upload, UploadError};
use super::framing::{Framing, Version};
use super::head::{self, HeadError, HeadScanner, Keeping, RequestHead, ResponseHead};
use super::upstreams::{Attempts, Opened, Repetition};
use super::waiting::Waiting;
use crate::accept::downstream::Downstream;
use crate::authz::{self, Standing};
use crate::connection::{Connection, Direction};
use crate::exchange::{self, JudgedHeaders, Plan};
use crate::ext_authz::Lines;
use crate::ext_authz::edit::EditableLines;
use crate::forward::{headers, tcp};
use crate::respond::Refusal;
use crate::telemetry::{FaultDomain, Flag, HttpRecord};
use crate::upstream::UpstreamAlpn;
use crate::worker::Worker;

/// Time that a client has to read an answer after which the connection is closed with input unread. Closing
/// at once would reset the connection, and the reset would overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of a refused request's body that are read and thrown away, so that its connection stays usable.
const DISCARD_MAX: usize = 64 * 1024;

/// What becomes of the connection after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// It carries the next.
    Keep,
    /// It ends in order.
    Close,
    /// It ends, and the client is still sending.
    Linger,
    /// It ends at once, because a response was cut.
    Reset,
}

/// What forwarding a request came to.
#[derive(Debug)]
enum Forwarded {
    /// The response was delivered, or cut.
    Done(After),
    /// The upstream switches protocols.
    Switching(Opened),
}

/// What waiting for a request came to.
#[derive(Debug)]
enum Next {
    Request,
    Ended,
    TimedOut,
    Refused(HeadError),
}

/// Serves a connection to its end. `early` holds bytes that were already read from it.
pub async fn serve(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    mut stream: Downstream,
    early: BytesMut,
) {
    let mut session = Session {
        worker,
        connection,
        stream: &mut stream,
        buffer: early,
        upstream_buffer: BytesMut::new(),
        request: RequestHead::default(),
        response: ResponseHead::default(),
        scanner: HeadScanner::default(),
        out: Vec::new(),
    };
    let mut leaving = pin!(worker.leaving(connection.direction));
    let waiting_since = Cell::new(Instant::now());
    let mut idle = pin!(idle(worker.settings.http_idle_timeout, &waiting_since));
    loop {
        waiting_since.set(Instant::now());
        let after = match session.next_request(leaving.as_mut(), idle.as_mut()).await {
            Next::Request if !crate::inbound::is_still_admitted(worker, connection) => After::Reset,
            Next::Request => session.exchange().await,
            Next::Ended => After::Close,
            Next::TimedOut => session.refuse_unread(&Refusal::RequestTimeout).await,
            Next::Refused(error) => session.refuse_unread(&refusal_of(error)).await,
        };
        match after {
            After::Keep => {}
            After::Close => {
                if let Err(error) = session.stream.shutdown().await {
                    tracing::trace!(%error, "connection was gone before its end");
                }
                return;
            }
            After::Linger => return linger(session.stream).await,
            After::Reset => {
                session.stream.reset_on_drop();
                return;
            }
        }
    }
}

/// Waits until nothing was asked for as long as `limit` allows. One timer serves all requests of a connection:
/// setting one for each costs more than to look, when it fires, whether there was a request since.
async fn idle(limit: Duration, waiting_since: &Cell<Instant>) {
    loop {
        let end = waiting_since.get() + limit;
        if Instant::now() >= end {
            return;
        }
        tokio::time::sleep_until(end).await;
    }
}

fn refusal_of(error: HeadError) -> Refusal {
    match error {
        HeadError::TooLarge | HeadError::TooManyHeaders => Refusal::HeadersTooLarge,
        HeadError::Connect => Refusal::MethodNotServed,
        error => Refusal::BadRequest { details: error.details() },
    }
}

struct Session<'a> {
    worker: &'a Rc<Worker>,
    connection: &'a Rc<Connection>,
    stream: &'a mut Downstream,
    buffer: BytesMut,
    upstream_buffer: BytesMut,
    request: RequestHead,
    response: ResponseHead,
    scanner: HeadScanner,
    out: Vec<u8>,
}

impl exchange::RequestHead for RequestHead {
    fn method(&self) -> &str {
        &self.method
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn headers(&self) -> &dyn mesh_policy::authorize::HeaderValues {
        &self.headers
    }

    fn lines_mut(&mut self) -> &mut dyn EditableLines {
        &mut self.headers
    }
}

impl Lines for RequestHead {
    fn each_line(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.headers.iter().for_each(|(name, value)| each(name, value));
    }
}

impl Session<'_> {
    /// Waits for the next request and reads its head.
    async fn next_request(
        &mut self,
        leaving: Pin<&mut impl Future<Output = ()>>,
        idle: Pin<&mut impl Future<Output = ()>>,
    ) -> Next {
        self.scanner.reset();
        if self.buffer.is_empty() {
            let filled = tokio::select! {
                biased;
                filled = fill(self.stream, &mut self.buffer) => filled,
                () = leaving => return Next::Ended,
                () = idle => return Next::Ended,
            };
            if !matches!(filled, Ok(length) if length > 0) {
                return Next::Ended;
            }
        }
        head::skip_empty_line(&mut self.buffer);
        // The usual case, a head that is all there, starts no timer.
        match self.scanner.scan(&self.buffer) {
            Err(error) => return Next::Refused(error),
            Ok(Some(end)) => return self.parse(end),
            Ok(None) => {}
        }
        let limit = self.worker.settings.request_head_timeout;
        match tokio::time::timeout(limit, self.rest_of_head()).await {
            Ok(next) => next,
            Err(_) => Next::TimedOut,
        }
    }

    async fn rest_of_head(&mut self) -> Next {
        loop {
            match fill(self.stream, &mut self.buffer).await {
                Ok(length) if length > 0 => {}
                _ => return Next::Ended,
            }
            match self.scanner.scan(&self.buffer) {
                Err(error) => return Next::Refused(error),
                Ok(Some(end)) => return self.parse(end),
                Ok(None) => {}
            }
        }
    }

    fn parse(&mut self, end: usize) -> Next {
        let parsed = self.request.parse(&self.buffer[..end]);
        self.buffer.advance(end);
        match parsed {
            Ok(()) => Next::Request,
            Err(error) => Next::Refused(error),
        }
    }

    /// Serves the request in hand.
    async fn exchange(&mut self) -> After {
        let mut record = self.worker.telemetry.http(self.connection);
        self.describe(&mut record);
        headers::finish_request(
            &mut self.request.headers,
            &headers::Hop { connection: self.connection, worker: self.worker },
            &mut record,
        );
        let mut upload = Upload::new(self.request.framing, self.worker.settings.request_body_timeout);
        let mut waiting = Waiting::new(self.stream, &mut self.buffer, &mut upload, &self.request);
        let planned =
            exchange::plan(self.worker, self.connection, &mut self.request, &mut waiting, &mut record).await;
        if waiting.has_continued() {
            // The client was told to go on, and will be told so once.
            self.request.expects_continue = false;
            self.request.headers.remove("expect");
        }
        let plan = match planned {
            Ok(plan) => plan,
            Err(Refusal::Abandoned) => {
                Refusal::Abandoned.note(&mut record);
                record.status = 0;
                return After::Close;
            }
            Err(refusal) if upload.is_begun() => {
                record.bytes_received = upload.received();
                return self.refuse_begun(&refusal, &upload, &mut record).await;
            }
            Err(refusal) => return self.refuse(&refusal, &mut record).await,
        };
        if let Err(error) = upload.prime(&mut self.buffer) {
            let refusal = Refusal::BadRequest { details: error.details() };
            self.answer(&refusal, &mut record, Keeping::Close).await;
            return After::Linger;
        }
        let deadline = plan.timeout.map(|timeout| Instant::now() + timeout);
        let forwarding = self.forward(&plan, &mut upload, &mut record);
        let result = match deadline {
            None => forwarding.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, forwarding).await {
                Ok(result) => result,
                Err(_) => Err(Refusal::UpstreamTimeout),
            },
        };
        record.bytes_received = upload.received();
        match result {
            Ok(Forwarded::Done(after)) => after,
            // From here on the connection is a stream, to which no time is set.
            Ok(Forwarded::Switching(opened)) => match self.switch(&plan, opened, &mut record).await {
                Ok(after) => after,
                Err(refusal) => self.refuse(&refusal, &mut record).await,
            },
            // The head of a response has been sent: all that can be said now is that it is cut.
            Err(refusal) if record.status != 0 => {
                refusal.note(&mut record);
                After::Reset
            }
            Err(refusal) => self.refuse_begun(&refusal, &upload, &mut record).await,
        }
    }

    /// Answers a request whose body was read in part or in whole.
    async fn refuse_begun(&mut self, refusal: &Refusal, upload: &Upload, record: &mut HttpRecord) -> After {
        if upload.is_read() && !refusal.closes_for(self.connection) {
            let (_, keeping) = self.answer_form(Framing::Empty);
            self.answer(refusal, record, keeping).await;
            return if keeping == Keeping::Close { After::Close } else { After::Keep };
        }
        self.answer(refusal, record, Keeping::Close).await;
        After::Linger
    }

    /// Makes attempts until one gives a response, and delivers that.
    async fn forward(
        &mut self,
        plan: &Plan,
        upload: &mut Upload,
        record: &mut HttpRecord,
    ) -> Result<Forwarded, Refusal> {
        let mut attempts = Attempts::new(plan, self.connection, self.worker, UpstreamAlpn::Http1)
            .with_repetition(Repetition::of(&self.request.method));
        loop {
            let mut opened = attempts.open(self.worker, record).await?;
            self.upstream_buffer.clear();
            let started = std::time::Instant::now();
            let got = self.attempt(plan, upload, &mut opened, attempts.per_try_timeout()).await;
            match got {
                Ok(())
                    if (self.response.status == 503 || record.is_grpc)
                        && attempts.is_unprocessed(&self.response.headers)
                        && attempts.wants_elsewhere(&opened, upload.can_restart(), record) => {}
                Ok(()) if attempts.wants_retry_for(self.response.status, upload.can_restart(), record) => {}
                Ok(()) => {
                    opened.note_answer();
                    let micros = started.elapsed().as_micros();
                    record.upstream_service_micros = Some(u64::try_from(micros).unwrap_or(u64::MAX));
                    if self.response.status == 101 {
                        return Ok(Forwarded::Switching(opened));
                    }
                    return Ok(Forwarded::Done(self.deliver(plan, upload, opened, record).await));
                }
                Err(AttemptError::Request(UploadError::Disconnected)) => {
                    note_disconnect(record);
                    return Ok(Forwarded::Done(After::Close));
                }
                Err(AttemptError::Request(UploadError::Stalled)) => return Err(Refusal::BodyTimeout),
                Err(AttemptError::Request(UploadError::Malformed(error))) => {
                    return Err(Refusal::BadRequest { details: error.details() });
                }
                Err(error) => attempts.judge(&error, &opened, upload.can_restart(), record)?,
            }
            drop(opened);
            attempts.pause(self.worker).await;
            upload.restart();
        }
    }

    /// One attempt.
    async fn attempt(
        &mut self,
        plan: &Plan,
        upload: &mut Upload,
        opened: &mut Opened,
        limit: Option<Duration>,
    ) -> Result<(), AttemptError> {
        self.out.clear();
        let path = plan.path.as_deref().unwrap_or(&self.request.target);
        let fallback;
        let authority = if self.request.authority.is_empty() {
            fallback = self.connection.destination.to_string();
            &fallback
        } else {
            &self.request.authority
        };
        self.request.write_to(&mut self.out, path, authority);
        let mut client = Client { stream: self.stream, buffer: &mut self.buffer, request: &self.request };
        let trying = attempt::response_head(
            &mut client,
            upload,
            opened.stream(),
            &mut self.upstream_buffer,
            &mut self.out,
            &mut self.response,
        );
        match limit {
            None => trying.await,
            Some(limit) => tokio::time::timeout(limit, trying).await.unwrap_or(Err(AttemptError::TimedOut)),
        }
    }

    /// Hands the response on, head first.
    async fn deliver(
        &mut self,
        plan: &Plan,
        upload: &mut Upload,
        mut opened: Opened,
        record: &mut HttpRecord,
    ) -> After {
        let comes = self.response.framing_for(&self.request.method);
        let (goes, keeping) = self.answer_form(comes);
        if let Some(edits) = &plan.response {
            edits.apply(&mut self.response.headers);
        }
        headers::finish_response(&mut self.response.headers, self.connection, record);
        note_grpc(&self.request, &self.response, record);
        self.out.clear();
        self.response.write_to(&mut self.out, goes, keeping);
        let mut download = Download::new(&self.out, comes, goes);
        record.status = self.response.status;
        let (stream, buffer) = (&mut *self.stream, &mut self.buffer);
        let upstream_buffer = &mut self.upstream_buffer;
        let upstream = opened.stream();
        let result = std::future::poll_fn(|context| {
            if let std::task::Poll::Ready(error) = upload.poll(context, stream, buffer, upstream) {
                return std::task::Poll::Ready(Err(Cut::Request(error)));
            }
            download.poll(context, upstream, upstream_buffer, stream).map_err(Cut::Response)
        })
        .await;
        record.bytes_sent = download.sent();
        match result {
            Ok(()) => {
                record.details.push_str("via_upstream");
                let is_reusable = upload.is_complete()
                    && self.response.is_keep_alive
                    && comes != Framing::UntilClose
                    && self.upstream_buffer.is_empty();
                opened.finish(is_reusable);
                match keeping {
                    _ if !upload.is_read() => After::Linger,
                    Keeping::Close | Keeping::Upgrade => After::Close,
                    Keeping::Default | Keeping::OldKeepAlive => After::Keep,
                }
            }
            Err(cut) => note_cut(&cut, record),
        }
    }

    /// How the response is framed for this client, and whether the connection stays.
    fn answer_form(&self, comes: Framing) -> (Framing, Keeping) {
        let is_old = self.request.version == Version::Http10;
        let goes = match comes {
            Framing::Chunked if is_old => Framing::UntilClose,
            Framing::UntilClose if !is_old => Framing::Chunked,
            other => other,
        };
        let stays = self.request.is_keep_alive && goes != Framing::UntilClose && !self.worker.is_draining();
        let keeping = match (stays, is_old) {
            (false, _) => Keeping::Close,
            (true, true) => Keeping::OldKeepAlive,
            (true, false) => Keeping::Default,
        };
        (goes, keeping)
    }

    /// The connection switches protocols and is a byte stream from here on.
    async fn switch(
        &mut self,
        plan: &Plan,
        mut opened: Opened,
        record: &mut HttpRecord,
    ) -> Result<After, Refusal> {
        if self.request.upgrade.is_none() || !self.response.has_upgrade {
            return Err(Refusal::UpstreamProtocol { details: "http1.unexpected_upgrade" });
        }
        record.status = 101;
        record.details.push_str("via_upstream");
        if let Some(edits) = &plan.response {
            edits.apply(&mut self.response.headers);
        }
        self.out.clear();
        self.response.write_to(&mut self.out, Framing::Empty, Keeping::Upgrade);
        self.out.extend_from_slice(&self.upstream_buffer);
        record.bytes_sent = self.upstream_buffer.len() as u64;
        self.upstream_buffer.clear();
        if self.stream.write_all(&self.out).await.is_err() || self.stream.flush().await.is_err() {
            note_disconnect(record);
            return Ok(After::Close);
        }
        let path = plan.path.as_deref().unwrap_or(&self.request.target);
        let lines = JudgedHeaders::new(&self.request.headers, path);
        let standing = Standing::Request(mesh_policy::authorize::HttpAttributes {
            method: &self.request.method,
            authority: &self.request.authority,
            path: exchange::policy_path(path),
            headers: &lines,
            claims: None,
        });
        let stop = authz::revoked(&self.worker.state, self.connection, &plan.permit, standing);
        let early = std::mem::take(&mut self.buffer);
        let ended = tcp::copy(self.stream, opened.stream(), early, record, stop).await;
        Ok(match ended {
            tcp::Ended::Complete => After::Close,
            tcp::Ended::Downstream(_) => {
                record.flag = Flag::DownstreamConnectionTermination;
                After::Reset
            }
            tcp::Ended::Upstream(_) => {
                record.flag = Flag::UpstreamConnectionTermination;
                After::Reset
            }
            tcp::Ended::Stopped(revocation) => {
                record.flag = Flag::LocalReset;
                record.fault = FaultDomain::Policy;
                record.reason.push_str(&revocation.to_string());
                After::Reset
            }
        })
    }

    /// Answers a request that is not forwarded. What it still sends is thrown away, within bounds, so that
    /// the connection stays usable.
    async fn refuse(&mut self, refusal: &Refusal, record: &mut HttpRecord) -> After {
        let mut body = super::framing::BodyDecoder::new(self.request.framing);
        let is_small = match self.request.framing {
            Framing::Empty => true,
            Framing::Length(length) => length <= DISCARD_MAX as u64 && !self.request.expects_continue,
            Framing::Chunked => !self.request.expects_continue,
            Framing::UntilClose => false,
        };
        let (_, keeping) = self.answer_form(Framing::Empty);
        let keeping = if is_small && !refusal.closes_for(self.connection) { keeping } else { Keeping::Close };
        self.answer(refusal, record, keeping).await;
        if keeping == Keeping::Close {
            return if self.request.framing == Framing::Empty { After::Close } else { After::Linger };
        }
        match tokio::time::timeout(LINGER, self.discard(&mut body)).await {
            Ok(true) => After::Keep,
            Ok(false) | Err(_) => After::Linger,
        }
    }

    /// Reads a body to its end and drops it; false when it is too long, broken or cut.
    async fn discard(&mut self, body: &mut super::framing::BodyDecoder) -> bool {
        let mut left = DISCARD_MAX;
        loop {
            match body.advance(&mut self.buffer) {
                Ok(super::framing::Piece::End) => return true,
                Ok(super::framing::Piece::Data(length)) => {
                    self.buffer.advance(length);
                    let Some(rest) = left.checked_sub(length) else { return false };
                    left = rest;
                }
                Ok(super::framing::Piece::NeedMore) => {
                    if !matches!(fill(self.stream, &mut self.buffer).await, Ok(length) if length > 0) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
    }

    /// Answers what could not be read as a request; it is recorded with what is known of it.
    async fn refuse_unread(&mut self, refusal: &Refusal) -> After {
        let mut record = self.worker.telemetry.http(self.connection);
        // What is left of an earlier request must not speak for this one.
        self.request.method.clear();
        self.answer(refusal, &mut record, Keeping::Close).await;
        After::Linger
    }

    /// Writes the answer of a refusal.
    async fn answer(&mut self, refusal: &Refusal, record: &mut HttpRecord, keeping: Keeping) {
        refusal.note(record);
        self.out.clear();
        let is_head = self.request.method == "HEAD";
        let is_grpc = record.is_grpc;
        if is_grpc {
            record.status = 200;
            record.grpc_status = Some(refusal.grpc_status());
        }
        let direction = self.connection.direction;
        let is_unprocessed = refusal.is_unprocessed(self.connection);
        let form = answer::Form { direction, keeping, is_head, is_unprocessed, is_grpc };
        record.bytes_sent = answer::write(&mut self.out, refusal, form, record.told_decision().as_deref());
        let written = match self.stream.write_all(&self.out).await {
            Ok(()) => self.stream.flush().await,
            Err(error) => Err(error),
        };
        if written.is_err() {
            record.flag = Flag::DownstreamConnectionTermination;
        }
    }

    /// Puts what the head says into the record.
    fn describe(&self, record: &mut HttpRecord) {
        record.method.push_str(&self.request.method);
        record.original_path.push_str(&self.request.target);
        record.authority.push_str(&self.request.authority);
        record.protocol = match self.request.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        };
        let keeps_headers = record.keeps_headers();
        for (name, value) in self.request.headers.iter() {
            if keeps_headers {
                record.keep_header(name, value);
            }
            let text = || std::str::from_utf8(value).unwrap_or_default();
            if name.eq_ignore_ascii_case(b"user-agent") {
                record.user_agent.push_str(text());
            } else if name.eq_ignore_ascii_case(b"x-forwarded-for") {
                record.forwarded_for.push_str(text());
            } else if name.eq_ignore_ascii_case(b"content-type") {
                record.is_grpc = value.starts_with(b"application/grpc");
            }
        }
        if let Some(labels) = crate::inbound::labels(self.worker, self.connection) {
            record.destination = Some(labels);
        }
    }
}

/// Why a response was cut.
#[derive(Debug)]
enum Cut {
    Request(UploadError),
    Response(DownloadError),
}

fn note_disconnect(record: &mut HttpRecord) {
    record.flag = Flag::DownstreamConnectionTermination;
    record.fault = FaultDomain::Client;
    record.details.clear();
    record.details.push_str("downstream_remote_disconnect");
}

fn note_cut(cut: &Cut, record: &mut HttpRecord) -> After {
    match cut {
        Cut::Request(UploadError::Disconnected) | Cut::Response(DownloadError::Disconnected) => {
            note_disconnect(record);
            After::Close
        }
        Cut::Request(UploadError::Stalled) => {
            record.flag = Flag::DurationTimeout;
            record.fault = FaultDomain::Client;
            record.details.push_str("request_body_timeout");
            After::Reset
        }
        Cut::Request(UploadError::Malformed(error)) => {
            record.flag = Flag::DownstreamProtocolError;
            record.fault = FaultDomain::Client;
            record.details.push_str(error.details());
            After::Reset
        }
        Cut::Response(DownloadError::Truncated | DownloadError::Upstream(_)) => {
            record.flag = Flag::UpstreamConnectionTermination;
            record.fault = upstream_fault(record);
            record.details.push_str("upstream_reset_after_response_started{connection_termination}");
            After::Reset
        }
        Cut::Response(DownloadError::Malformed(_) | DownloadError::Head(_)) => {
            record.flag = Flag::UpstreamProtocolError;
            record.fault = upstream_fault(record);
            record.details.push_str("upstream_reset_after_response_started{protocol_error}");
            After::Reset
        }
    }
}

fn upstream_fault(record: &HttpRecord) -> FaultDomain {
    match record.connection().direction {
        Direction::Inbound => FaultDomain::App,
        Direction::Outbound => FaultDomain::ServerProxy,
    }
}

/// gRPC-Web and gRPC over HTTP/1.1 state their outcome in a header when there is no body.
fn note_grpc(request: &RequestHead, response: &ResponseHead, record: &mut HttpRecord) {
    if record.is_grpc && request.method == "POST" {
        record.grpc_status =
            response.headers.text("grpc-status").and_then(|status| status.trim().parse().ok());
    }
}

/// Reads once into `buffer`.
async fn fill(stream: &mut Downstream, buffer: &mut BytesMut) -> std::io::Result<usize> {
    std::future::poll_fn(|context| flow::poll_fill(context, stream, buffer)).await
}

/// Ends the own side and reads on for a while, so that the answer arrives before the connection is gone.
async fn linger(stream: &mut Downstream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let mut sink = [0; 1024];
        let mut left = 16 * DISCARD_MAX;
        while let Ok(length) = stream.read(&mut sink).await {
            left = left.saturating_sub(length);
            if length == 0 || left == 0 {
                return;
            }
        }
    };
    if tokio::time::timeout(LINGER, discard).await.is_err() {
        tracing::trace!("client was still sending when its connection was closed");
    }
}
