//! A running control plane: its servers, its tasks, and how they end.
//!
//! In a cluster the end takes a while on purpose. Being not ready takes this replica out of its Service;
//! then discovery streams are ended one by one, at moments drawn for each, so that a thousand proxies do not
//! come to the other replicas at once; only then do listeners and tasks end. On one machine there is nowhere
//! else to go, and everything ends at once.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use mesh_api::error_chain::chain;
use mesh_api::wire::MESSAGE_BYTES_MAX;
use mesh_api::wire::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use mesh_api::wire::identity::identity_service_server::IdentityServiceServer;
use mesh_api::wire::keys::key_service_server::KeyServiceServer;
use mesh_api::wire::replicas::replica_service_server::ReplicaServiceServer;
use mesh_identity::tls::{ClientAuth, server_config};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

use crate::plane::Plane;
use crate::readiness::Readiness;
use crate::serve::admin::AdminListener;
use crate::serve::ads::Discovery;
use crate::serve::farewell::Farewell;
use crate::serve::identity::Identity;
use crate::serve::keys::UnknownKeys;
use crate::serve::replicas::Reports;
use crate::serve::tls;

/// How often an idle connection is probed, and how long an answer may take: a proxy whose machine has gone
/// is noticed within the sum.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one connection: a proxy has one for discovery and now and then a request for a certificate.
const STREAMS_PER_CONNECTION: u32 = 32;
/// Longest report of an unknown key, in bytes: a URL, a node id and a `kid`. Some of them wait in a queue.
const REPORT_BYTES_MAX: usize = 8 * 1024;
/// Time that tasks are given to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How long it takes until nobody is sent to a replica that is not ready any more: the EndpointSlice is
/// written at once, and the nodes follow within about a second.
const UNLISTED_AFTER: Duration = Duration::from_secs(2);
/// Proxies that come back to the other replicas in a second, and the longest time that this may take. With
/// the waits above and below it stays well within the 30 s that a pod has to end.
const RETURNS_PER_SECOND: usize = 200;
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// A running control plane.
#[derive(Debug)]
pub struct Running {
    /// Where proxies connect.
    pub address: SocketAddr,
    /// Where metrics are served.
    pub metrics_address: SocketAddr,
    /// Where operators are served over TCP, if they are.
    pub admin_address: Option<SocketAddr>,
    /// The shared state.
    pub plane: Arc<Plane>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) base: Base,
    pub(super) admin_socket: Option<PathBuf>,
    pub(super) departure: Departure,
}

/// How a control plane ends.
#[derive(Debug)]
pub(super) enum Departure {
    /// At once.
    Immediate,
    /// After its proxies have been sent elsewhere; `duties` ends what only the leader does, and its task
    /// gives the lease back.
    Gradual {
        /// Ends the leader's duties.
        duties: CancellationToken,
    },
}

/// Tasks and their ends; exists before there is anything to serve.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) farewell: Farewell,
}

impl Running {
    /// Stops everything and waits for it, up to a deadline.
    pub async fn stop(self) {
        self.readiness.stop();
        if let Departure::Gradual { duties } = &self.departure {
            duties.cancel();
            tokio::time::sleep(UNLISTED_AFTER).await;
            let proxies = self.plane.proxies().values().filter(|record| record.is_connected).count();
            let window = window(proxies);
            tracing::info!(proxies, window_ms = window.as_millis(), "proxies are sent to other replicas");
            self.base.farewell.begin(window);
            tokio::time::sleep(window).await;
        }
        self.base.stop().await;
        if let Some(path) = &self.admin_socket
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "the admin socket was gone already");
        }
    }
}

/// Time over which the streams of so many proxies are ended.
fn window(proxies: usize) -> Duration {
    let proxies = u32::try_from(proxies).unwrap_or(u32::MAX);
    let per_second = u32::try_from(RETURNS_PER_SECOND).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * proxies / per_second).min(FAREWELL_MAX)
}

impl Base {
    pub(super) fn new() -> Self {
        Self { tasks: TaskTracker::new(), shutdown: CancellationToken::new(), farewell: Farewell::default() }
    }

    /// Ends every task and waits for it.
    pub(super) async fn stop(&self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
    }

    /// A task that ends with the control plane, by itself never.
    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = Infallible> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                never = task => match never {},
                () = shutdown.cancelled() => tracing::debug!(task = name, "stopped"),
            }
        });
    }

    pub(super) fn serve_proxies(&self, listener: TcpListener, plane: &Arc<Plane>, identity: Identity) {
        let config = server_config(&plane.identity, ClientAuth::Optional, &[b"h2"]);
        let connections = tls::incoming(listener, config, &self.tasks, self.shutdown.clone());
        let discovery = Discovery::new(Arc::clone(plane), self.tasks.clone(), self.shutdown.clone())
            .with_farewell(self.farewell.clone());
        let discovery = AggregatedDiscoveryServiceServer::new(discovery)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let keys = KeyServiceServer::new(UnknownKeys::new(Arc::clone(plane)))
            .max_decoding_message_size(REPORT_BYTES_MAX);
        let replicas = ReplicaServiceServer::new(Reports::new(Arc::clone(plane)))
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(Some(STREAMS_PER_CONNECTION))
            .add_service(discovery)
            .add_service(IdentityServiceServer::new(identity))
            .add_service(keys)
            .add_service(replicas)
            .serve_with_incoming_shutdown(connections, self.shutdown.clone().cancelled_owned());
        self.tasks.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(error = chain(&error), "the server for proxies has ended");
            }
        });
    }

    /// Serves plain HTTP: metrics, or the operators on loopback.
    pub(super) fn serve_http(&self, what: &'static str, listener: TcpListener, routes: Router) {
        let shutdown = self.shutdown.clone().cancelled_owned();
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown).await {
                tracing::error!(%error, what, "a server has ended");
            }
        });
    }

    pub(super) fn serve_admin(&self, listener: AdminListener, routes: Router) {
        let shutdown = self.shutdown.clone().cancelled_owned();
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown).await {
                tracing::error!(%error, "the admin socket has ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_return_to_other_replicas_at_a_bounded_rate_and_within_a_pods_time_to_end() {
        assert_eq!(window(0), Duration::ZERO);
        assert_eq!(window(1_000), Duration::from_secs(5));
        assert_eq!(window(usize::MAX), FAREWELL_MAX);
        assert!(UNLISTED_AFTER + FAREWELL_MAX + STOP_DEADLINE < Duration::from_secs(30));
    }
}
