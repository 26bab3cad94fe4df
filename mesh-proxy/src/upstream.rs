//! Connections to what is called: made, secured, kept for the next request, and given up in time.
//!
//! A worker has one [`Upstreams`]; nothing in it is shared between workers. [`connect`] makes a connection
//! (marked, so that interception lets it pass; verified, so that it is the expected workload that answers),
//! [`stream`] is what comes of it, [`pool`] keeps HTTP/1.1 connections between requests, [`http2`] shares
//! HTTP/2 connections among requests that run at the same time, [`downgrade`] translates for an application that
//! does not speak it.
//!
//! A connection is used for new requests only while what it was made with still holds: the own certificate,
//! the trust bundle, and the certificate of the peer. One that is in use when these change finishes what it
//! carries and is closed then.

pub mod connect;
mod downgrade;
pub mod http2;
pub mod pool;
pub mod stream;
mod validity;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::model::PeerTls;
use mesh_identity::tls::IdentitySource;

pub use connect::ConnectError;
pub use pool::Http1Lease;
pub use stream::UpstreamStream;
pub use validity::Validity;

use connect::Connector;
use pool::Http1Pool;
use validity::Epochs;

/// Time between two looks at what is kept: idle connections that ended or became too old are dropped.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// What is spoken on a connection, and with that which ALPN names are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamAlpn {
    /// A byte stream.
    Tcp,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Where to connect, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// Address.
    pub address: SocketAddr,
    /// Security, with the identity that the peer must prove.
    pub tls: PeerTls,
    /// What is spoken.
    pub alpn: UpstreamAlpn,
    /// Server name for the peer, `outbound_.PORT_.SUBSET_.HOST`; empty for none. It decides nothing here.
    pub sni: Arc<str>,
    /// Time allowed for the connect, and again for the handshake.
    pub connect_timeout: Duration,
}

/// Connections are alike when all but the time allowed is the same.
impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
            && self.alpn == other.alpn
            && self.tls == other.tls
            && self.sni == other.sni
    }
}

impl Eq for Target {}

impl std::hash::Hash for Target {
    /// Address and protocol tell nearly all targets apart; the rest is left to the comparison.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.alpn.hash(state);
    }
}

/// A worker's connections upstream.
#[derive(Debug)]
pub struct Upstreams {
    connector: Connector,
    fwmark: Option<u32>,
    epochs: Epochs,
    http1: Http1Pool,
    /// HTTP/2 connections.
    pub http2: http2::Http2Pool,
}

impl Upstreams {
    /// Connections that present the identity in `identity` and bear `fwmark`.
    #[must_use]
    pub fn new(identity: Arc<IdentitySource>, fwmark: Option<u32>) -> Self {
        Self {
            epochs: Epochs::new(Arc::clone(&identity)),
            connector: Connector::new(identity, fwmark),
            fwmark,
            http1: Http1Pool::default(),
            http2: http2::Http2Pool::default(),
        }
    }

    /// A new connection, for a stream or for a request that must not meet a stale one.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn fresh(&self, target: &Target) -> Result<UpstreamStream, ConnectError> {
        let epoch = self.epochs.current(Instant::now());
        self.connector.connect(target, epoch).await
    }

    /// A connection for one HTTP/1.1 request: a kept one if there is one, else a new one.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn http1(&self, target: &Target) -> Result<Http1Lease, ConnectError> {
        let now = Instant::now();
        let epoch = self.epochs.current(now);
        let slot = self.http1.slot(target);
        if let Some(lease) = slot.take(now, epoch) {
            return Ok(lease);
        }
        let stream = self.connector.connect(target, epoch).await?;
        Ok(slot.lease(stream))
    }

    /// Whether a connection may carry a further request: made with the identity and trust of today, to a peer
    /// whose certificate still holds.
    #[must_use]
    pub fn holds(&self, validity: &Validity) -> bool {
        let now = Instant::now();
        validity.holds(now, self.epochs.current(now))
    }

    /// Number of idle HTTP/1.1 connections.
    #[must_use]
    pub fn idle_http1(&self) -> usize {
        self.http1.idle()
    }

    /// Drops what became too old or has ended, for as long as it is polled. Each worker runs it beside its
    /// connections; without it idle connections would wait for the next request to be looked at.
    pub async fn upkeep(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let epoch = self.epochs.look(now);
            self.http1.prune(now, SystemTime::now(), epoch);
            self.http2.prune(self);
        }
    }
}

#[cfg(test)]
mod tests;
