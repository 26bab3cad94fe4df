//! HTTP/2 connections upstream, each shared by as many requests at a time as its peer allows.
//!
//! A worker keeps a few connections for each target: a request takes the first one with a free place, so that
//! what is not needed grows idle and ends, and only when none has a free place another one is made. Requests
//! that come while one is being made wait for it instead of making their own.
//!
//! A connection gets no further requests once its peer said GOAWAY, its identity or trust is no longer that
//! of today, or it was idle too long; what it carries it finishes. Its task ends with it.
//!
//! Nor does it once too many requests were taken back from it at once: its peer counts them against the
//! connection, cannot tell the caller who does so from the others, and would close it on all of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::sync::Notify;
use tokio::time::{Interval, MissedTickBehavior};

use super::downgrade::{self, Wire};
use super::{ConnectError, Target, Upstreams, Validity};
use crate::forward::http2::limits::{self, PREMATURE, Purse};
use crate::forward::http2::watched::{Watch, Watched};

/// Time after which an unused connection is closed; the same as for HTTP/1.1.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time between two looks at whether the peer is still there. It is asked after one such time without a byte
/// from it while requests are open, and given up after another.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(15);
/// Connections for one target. With 200 streams each this is more than one worker can drive.
const CONNECTIONS_MAX: usize = 64;
/// Targets with a place in the pool; places without connections are given up beyond it.
const TARGETS_MAX: usize = 4096;

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Http2Pool {
    slots: RefCell<HashMap<Target, Rc<Slot>>>,
}

/// The connections to one target.
#[derive(Debug, Default)]
struct Slot {
    connections: RefCell<Vec<Rc<Shared>>>,
    is_connecting: Cell<bool>,
    /// Connects that failed; tells those who wait how the one they wait for ended.
    failures: Cell<u64>,
    changed: Notify,
    /// The peer speaks HTTP/1.1 only, as it has said to the preface of HTTP/2.
    is_http1: Cell<bool>,
}

/// One connection, as its requests see it.
#[derive(Debug)]
struct Shared {
    /// `None` once it takes no further requests; the connection ends with the last of those it has.
    requests: RefCell<Option<SendRequest<Bytes>>>,
    in_flight: Cell<usize>,
    served: Cell<u64>,
    idle_since: Cell<Instant>,
    validity: Validity,
    watch: Rc<Watch>,
    /// What requests that are taken back at once are paid from.
    resets: RefCell<Purse>,
}

/// A place on a connection for one request. A request that was sent is taken for one that this side took back,
/// unless [`Self::note_end`] was told otherwise.
#[derive(Debug)]
pub struct Http2Lease {
    shared: Rc<Shared>,
    slot: Rc<Slot>,
    is_reused: bool,
    /// When the request was sent; `None` before, and once it has ended.
    open_since: Cell<Option<Instant>>,
}

impl Drop for Http2Lease {
    fn drop(&mut self) {
        let shared = &self.shared;
        let is_taken_back = self.open_since.get().is_some_and(|since| since.elapsed() < PREMATURE);
        if is_taken_back && !shared.resets.borrow_mut().pay(Instant::now) && !shared.is_retired() {
            tracing::debug!("http/2 connection to upstream gets no more requests: many were taken back");
            shared.retire();
        }
        shared.in_flight.set(shared.in_flight.get() - 1);
        if shared.in_flight.get() == 0 {
            shared.idle_since.set(Instant::now());
        }
        self.slot.changed.notify_one();
    }
}

impl Http2Lease {
    /// Whether the connection served a request before.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Bytes read from the connection so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.shared.watch.bytes_read()
    }

    /// Whether the peer has answered in another protocol, and so has not understood the request. The next lease
    /// is for a connection that translates.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let is_foreign = self.shared.watch.is_foreign();
        if is_foreign {
            self.slot.is_http1.set(true);
        }
        is_foreign
    }

    /// Says that the request came to an end which is not this side's taking it back.
    pub fn note_end(&self) {
        if self.open_since.take().is_some() {
            self.shared.resets.borrow_mut().earn(1);
        }
    }

    /// Sends a request's head.
    ///
    /// # Errors
    /// When the connection takes no requests any more; nothing has been sent then.
    pub fn send(
        &self,
        request: Request<()>,
        is_whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        match self.shared.requests.borrow_mut().as_mut() {
            Some(requests) => {
                let sent = requests.send_request(request, is_whole)?;
                self.open_since.set(Some(Instant::now()));
                Ok(sent)
            }
            None => Err(h2::Reason::REFUSED_STREAM.into()),
        }
    }
}

impl Shared {
    /// Takes a place, if there is one.
    fn lease(self: &Rc<Self>, slot: &Rc<Slot>) -> Option<Http2Lease> {
        let mut requests = self.requests.borrow_mut();
        let sender = requests.as_mut()?;
        match sender.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                *requests = None;
                return None;
            }
            Poll::Pending => return None,
        }
        // A peer that allows no stream at all is asked for one: it will refuse it, in words.
        let most = sender.current_max_send_streams().clamp(1, limits::STREAMS_MAX as usize);
        if self.in_flight.get() >= most {
            return None;
        }
        self.in_flight.set(self.in_flight.get() + 1);
        let is_reused = self.served.get() > 0;
        self.served.set(self.served.get() + 1);
        Some(Http2Lease {
            shared: Rc::clone(self),
            slot: Rc::clone(slot),
            is_reused,
            open_since: Cell::new(None),
        })
    }

    fn is_retired(&self) -> bool {
        self.requests.borrow().is_none()
    }

    fn retire(&self) {
        self.requests.borrow_mut().take();
    }
}

/// Says that a connection is being made; dropped without success it counts as a failure.
struct Connecting<'a>(&'a Slot);

impl<'a> Connecting<'a> {
    fn begin(slot: &'a Slot) -> Self {
        slot.is_connecting.set(true);
        Self(slot)
    }

    fn succeeded(self) {
        self.0.failures.set(self.0.failures.get().wrapping_sub(1));
    }
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.is_connecting.set(false);
        self.0.failures.set(self.0.failures.get().wrapping_add(1));
        self.0.changed.notify_waiters();
    }
}

impl Slot {
    fn take(self: &Rc<Self>, upstreams: &Upstreams) -> Option<Http2Lease> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|shared| {
            if !upstreams.holds(&shared.validity) {
                shared.retire();
            }
            !shared.is_retired()
        });
        connections.iter().find_map(|shared| shared.lease(self))
    }
}

impl Http2Pool {
    fn slot(&self, target: &Target) -> Rc<Slot> {
        if let Some(slot) = self.slots.borrow().get(target) {
            return Rc::clone(slot);
        }
        let mut slots = self.slots.borrow_mut();
        if slots.len() >= TARGETS_MAX {
            slots.retain(|_, slot| slot.is_needed());
        }
        let slot = Rc::new(Slot::default());
        slots.insert(target.clone(), Rc::clone(&slot));
        slot
    }

    /// Number of connections that take requests.
    #[must_use]
    pub fn open(&self) -> usize {
        self.slots.borrow().values().map(|slot| slot.connections.borrow().len()).sum()
    }

    /// Gives up connections that are idle too long or were made with what no longer holds.
    pub(super) fn prune(&self, upstreams: &Upstreams) {
        let now = Instant::now();
        self.slots.borrow_mut().retain(|_, slot| {
            slot.connections.borrow_mut().retain(|shared| {
                let is_old = shared.in_flight.get() == 0
                    && now.saturating_duration_since(shared.idle_since.get()) >= IDLE_TIMEOUT;
                if is_old || !upstreams.holds(&shared.validity) {
                    shared.retire();
                }
                !shared.is_retired()
            });
            slot.is_needed()
        });
    }
}

impl Slot {
    fn is_needed(self: &Rc<Self>) -> bool {
        !self.connections.borrow().is_empty() || Rc::strong_count(self) > 1
    }
}

impl Upstreams {
    /// A place for one request on an HTTP/2 connection, which is made if none has one. Dropping the future
    /// while it makes a connection lets another request that waits for it make its own.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn http2(&self, target: &Target) -> Result<Http2Lease, ConnectError> {
        let slot = self.http2.slot(target);
        loop {
            if let Some(lease) = slot.take(self) {
                return Ok(lease);
            }
            let is_full = slot.connections.borrow().len() >= CONNECTIONS_MAX;
            if !slot.is_connecting.get() && !is_full {
                let connecting = Connecting::begin(&slot);
                let lease = self.open_http2(target, &slot).await?;
                connecting.succeeded();
                return Ok(lease);
            }
            let failures = slot.failures.get();
            slot.changed.notified().await;
            // What others were waiting for has failed: each learns by itself, and none waits in a row.
            if slot.failures.get() != failures && !is_full {
                return self.open_http2(target, &slot).await;
            }
        }
    }

    async fn open_http2(&self, target: &Target, slot: &Rc<Slot>) -> Result<Http2Lease, ConnectError> {
        let stream = self.fresh(target).await?;
        let validity = *stream.validity();
        let watch = Watch::new();
        // Peers of the mesh have said in the handshake what they speak.
        let is_plain = target.tls == mesh_api::model::PeerTls::Plaintext;
        let wire = if is_plain && slot.is_http1.get() {
            downgrade::start(stream, target, self.fwmark)
        } else {
            Wire::Peer(Box::new(stream))
        };
        let watched = Watched::to_server(wire, Rc::clone(&watch));
        let handshake = limits::client().handshake::<_, Bytes>(watched);
        let (requests, connection) = tokio::time::timeout(target.connect_timeout, handshake)
            .await
            .map_err(|_| ConnectError::HandshakeTimedOut)?
            .map_err(|error| ConnectError::Handshake(std::io::Error::other(error)))?;
        let shared = Rc::new(Shared {
            requests: RefCell::new(Some(requests)),
            in_flight: Cell::new(1),
            served: Cell::new(1),
            idle_since: Cell::new(Instant::now()),
            validity,
            watch,
            resets: RefCell::new(Purse::shared_resets(Instant::now())),
        });
        let lease = Http2Lease {
            shared: Rc::clone(&shared),
            slot: Rc::clone(slot),
            is_reused: false,
            open_since: Cell::new(None),
        };
        slot.connections.borrow_mut().push(Rc::clone(&shared));
        // The peer of a mesh connection is another proxy, which may be gone without a word. The own application
        // is on this machine, where the kernel tells, and common servers take unasked PINGs for an attack.
        let liveness = matches!(target.tls, mesh_api::model::PeerTls::Mutual { .. });
        let driver = Driver::new(connection, &shared, slot, liveness);
        tokio::task::spawn_local(driver.run());
        Ok(lease)
    }
}

type H2Connection = h2::client::Connection<Watched<Wire>, Bytes>;

/// Moves the bytes of one connection, until it ends.
struct Driver {
    connection: H2Connection,
    shared: Weak<Shared>,
    slot: Weak<Slot>,
    watch: Rc<Watch>,
    liveness: Option<Liveness>,
}

/// Asks the peer whether it is there.
struct Liveness {
    ping: PingPong,
    ticks: Interval,
    /// Bytes read at the last look.
    read: u64,
    is_asked: bool,
}

impl Driver {
    fn new(mut connection: H2Connection, shared: &Rc<Shared>, slot: &Rc<Slot>, is_watched: bool) -> Self {
        let liveness = connection.ping_pong().filter(|_| is_watched).map(|ping| {
            let start = tokio::time::Instant::now() + LIVENESS_INTERVAL;
            let mut ticks = tokio::time::interval_at(start, LIVENESS_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Liveness { ping, ticks, read: 0, is_asked: false }
        });
        let watch = Rc::clone(&shared.watch);
        Self { connection, shared: Rc::downgrade(shared), slot: Rc::downgrade(slot), watch, liveness }
    }

    async fn run(self) {
        let Self { connection, shared, slot, watch, mut liveness } = self;
        let mut connection = pin!(connection);
        let ended = std::future::poll_fn(|context| {
            if let Poll::Ready(result) = connection.as_mut().poll(context) {
                return Poll::Ready(match result {
                    Ok(()) => "closed".to_owned(),
                    Err(error) => error.to_string(),
                });
            }
            if let Some(abuse) = watch.abuse() {
                return Poll::Ready(abuse.as_str().to_owned());
            }
            let is_dead = liveness.as_mut().is_some_and(|liveness| {
                let has_requests = shared.upgrade().is_some_and(|shared| shared.in_flight.get() > 0);
                liveness.is_dead(context, watch.bytes_read(), has_requests)
            });
            if is_dead { Poll::Ready("peer is silent".to_owned()) } else { Poll::Pending }
        })
        .await;
        tracing::debug!(reason = ended, "http/2 connection to upstream ended");
        let Some(slot) = slot.upgrade() else { return };
        if let Some(shared) = shared.upgrade() {
            shared.retire();
            slot.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, &shared));
        }
        slot.changed.notify_waiters();
    }
}

impl Liveness {
    fn is_dead(&mut self, context: &mut Context<'_>, read: u64, has_requests: bool) -> bool {
        // An answer counts by its bytes; it is fetched so that the next question can be asked.
        while let Poll::Ready(Ok(_)) = self.ping.poll_pong(context) {}
        while Pin::new(&mut self.ticks).poll_tick(context).is_ready() {
            let is_silent = std::mem::replace(&mut self.read, read) == read;
            if !has_requests || !is_silent {
                self.is_asked = false;
            } else if self.is_asked {
                return true;
            } else {
                self.is_asked = self.ping.send_ping(Ping::opaque()).is_ok();
            }
        }
        false
    }
}
