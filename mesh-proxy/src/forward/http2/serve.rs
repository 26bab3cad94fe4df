//! One HTTP/2 connection from its preface to its end, in one task.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt as _};
use h2::server::{Connection as H2Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use metrics::counter;
use tokio::sync::Notify;

use super::exchange::{self, End, Scope};
use super::limits::{self, Abuse, PREMATURE, Purse};
use super::watched::{Watch, Watched};
use crate::accept::downstream::Downstream;
use crate::authz;
use crate::connection::{Connection, Direction};
use crate::telemetry::metrics::HTTP2_CLOSED_ON_PEER;
use crate::telemetry::{FaultDomain, Flag};
use crate::worker::Worker;

/// Time that a peer has to take the last frames before its connection is dropped.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time that a connection without streams has to end in order, once it was asked to.
const LEAVING: Duration = Duration::from_secs(5);

type Http2 = H2Connection<Watched<Downstream>, Bytes>;

/// Serves a connection to its end. `early` holds bytes that were already read from it.
pub async fn serve(worker: &Rc<Worker>, connection: &Rc<Connection>, stream: Downstream, early: BytesMut) {
    let watch = Watch::new();
    let watched = Watched::from_client(stream, early, Rc::clone(&watch));
    let handshake = limits::server().handshake::<_, Bytes>(watched);
    match tokio::time::timeout(worker.settings.request_head_timeout, handshake).await {
        Ok(Ok(http2)) => Session::new(worker, connection, http2, watch).run().await,
        Ok(Err(error)) => note_no_preface(worker, connection, &error.to_string()),
        Err(_) => note_no_preface(worker, connection, "preface took too long"),
    }
}

fn note_no_preface(worker: &Worker, connection: &Rc<Connection>, why: &str) {
    tracing::debug!(peer = %connection.peer, why, "http/2 connection without a preface");
    counter!(HTTP2_CLOSED_ON_PEER, "reason" => Abuse::Preface.as_str()).increment(1);
    let mut record = worker.telemetry.tcp(connection);
    record.flag = Flag::DownstreamProtocolError;
    record.fault = FaultDomain::Client;
    record.details.push_str("http2.no_preface");
}

/// What happened on a connection.
enum Event {
    /// It ended.
    Ended,
    /// It broke.
    Failed(h2::Error),
    /// The peer asks for too much.
    Abused(Abuse),
    /// The process drains, and its callers have learnt of it.
    Leaving,
    /// Time to look whether it is used.
    Tick,
    /// The state changed.
    Changed,
    /// The caller's certificate ended.
    Expired,
}

struct Session<'a> {
    worker: &'a Rc<Worker>,
    connection: &'a Rc<Connection>,
    http2: Http2,
    watch: Rc<Watch>,
    resets: Purse,
    /// A stream was opened since the last tick.
    is_used: bool,
    is_leaving: bool,
}

impl<'a> Session<'a> {
    fn new(worker: &'a Rc<Worker>, connection: &'a Rc<Connection>, http2: Http2, watch: Rc<Watch>) -> Self {
        let resets = Purse::resets(Instant::now());
        Self { worker, connection, http2, watch, resets, is_used: false, is_leaving: false }
    }

    async fn run(mut self) {
        let (worker, connection) = (self.worker, self.connection);
        let judge_again = Notify::new();
        let scope = Scope { worker, connection, judge_again: &judge_again };
        // Made where it stays: an exchange is more than 4 KB, which would be moved twice on its way in.
        let start = |request, respond| Box::pin(exchange::run(scope, request, respond));
        let mut streams = FuturesUnordered::new();
        let mut revisions = worker.state.revisions();
        let is_judged = connection.direction == Direction::Inbound;
        let mut is_expired = false;
        let mut leaving = pin!(worker.leaving(connection.direction));
        let mut expiry = pin!(authz::peer_expiry(connection));
        let mut tick = pin!(tokio::time::sleep(worker.settings.http_idle_timeout));
        loop {
            let event = tokio::select! {
                biased;
                event = poll_fn(|context| self.poll(context, &mut streams, start)) => event,
                () = leaving.as_mut(), if !self.is_leaving => Event::Leaving,
                () = tick.as_mut() => Event::Tick,
                Ok(()) = revisions.changed(), if is_judged => Event::Changed,
                () = expiry.as_mut(), if is_judged && !is_expired => Event::Expired,
            };
            let was_leaving = self.is_leaving;
            match event {
                Event::Ended => return,
                Event::Failed(error) => return note_failure(connection, &error),
                Event::Abused(abuse) => {
                    drop(streams);
                    return self.close_on_peer(abuse).await;
                }
                Event::Leaving => self.leave(),
                Event::Changed => {
                    judge_again.notify_waiters();
                    if !crate::inbound::is_still_admitted(worker, connection) {
                        self.leave();
                    }
                }
                Event::Expired => {
                    is_expired = true;
                    judge_again.notify_waiters();
                    self.leave();
                }
                Event::Tick => {
                    let is_idle = streams.is_empty() && !std::mem::take(&mut self.is_used);
                    if is_idle && self.is_leaving {
                        return;
                    }
                    if is_idle {
                        self.leave();
                    }
                }
            }
            if tick.is_elapsed() || was_leaving != self.is_leaving {
                let pause = if self.is_leaving { LEAVING } else { worker.settings.http_idle_timeout };
                tick.as_mut().reset(tokio::time::Instant::now() + pause);
            }
        }
    }

    /// Asks the peer to open no further streams; those that are open come to their end.
    fn leave(&mut self) {
        if !std::mem::replace(&mut self.is_leaving, true) {
            self.http2.graceful_shutdown();
        }
    }

    /// Moves the streams, then the connection: what the streams queued is written in the same go.
    fn poll<F, S>(
        &mut self,
        context: &mut Context<'_>,
        streams: &mut FuturesUnordered<F>,
        start: S,
    ) -> Poll<Event>
    where
        F: Future<Output = End>,
        S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F,
    {
        loop {
            while let Poll::Ready(Some(end)) = streams.poll_next_unpin(context) {
                if let Some(abuse) = self.settle(end) {
                    return Poll::Ready(Event::Abused(abuse));
                }
            }
            let mut has_new = false;
            loop {
                match self.http2.poll_accept(context) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        streams.push(start(request, respond));
                        has_new = true;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Failed(error)),
                    Poll::Ready(None) => return Poll::Ready(Event::Ended),
                    Poll::Pending => break,
                }
            }
            if let Some(abuse) = self.watch.abuse() {
                return Poll::Ready(Event::Abused(abuse));
            }
            if !has_new {
                return Poll::Pending;
            }
            self.is_used = true;
        }
    }

    /// Accounts for a stream that has ended.
    fn settle(&mut self, end: End) -> Option<Abuse> {
        match end {
            End::Served => self.resets.earn(2),
            End::TakenBack { after } if after < PREMATURE => {
                if !self.resets.pay(Instant::now) {
                    return Some(Abuse::RapidReset);
                }
            }
            End::TakenBack { .. } => {}
        }
        None
    }

    /// Tells the peer to calm down, and leaves.
    async fn close_on_peer(mut self, abuse: Abuse) {
        note_abuse(self.connection, abuse);
        self.http2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let closed = poll_fn(|context| self.http2.poll_closed(context));
        if !matches!(tokio::time::timeout(FAREWELL, closed).await, Ok(Ok(()))) {
            tracing::trace!("peer did not take the end of its connection");
        }
    }
}

fn note_abuse(connection: &Connection, abuse: Abuse) {
    let reason = abuse.as_str();
    counter!(HTTP2_CLOSED_ON_PEER, "reason" => reason).increment(1);
    tracing::info!(peer = %connection.peer, reason, "http/2 connection closed on its peer");
}

fn note_failure(connection: &Connection, error: &h2::Error) {
    if error.is_library() {
        let is_limit = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
        note_abuse(connection, if is_limit { Abuse::CodecLimit } else { Abuse::Protocol });
    } else {
        tracing::debug!(peer = %connection.peer, %error, "http/2 connection ended early");
    }
}
