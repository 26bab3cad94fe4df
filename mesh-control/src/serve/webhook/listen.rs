//! Connections of API servers: TLS, then HTTP/1.1.
//!
//! Whoever reaches the port can open connections, so each step has a deadline and each thing that is kept has
//! a bound: connections, handshakes, bytes of bodies. A connection outlives a renewal of the certificate.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use mesh_identity::tls::{ServingSource, serving_config};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::telemetry::metrics::webhook as metrics;

/// Time allowed for a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the head of a request must come, and after which an idle connection is closed. An API server
/// closes idle ones itself after 90 seconds (net/http, `IdleConnTimeout` of its transport), so that it never
/// sends a request into a connection that is being closed here.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Most connections at once; more wait in the accept queue. An API server opens one for each review that runs.
const CONNECTIONS_MAX: usize = 1024;
/// Pause after an error of `accept`, which is mostly a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` on `listener` with the source's certificate. When this is dropped its connections end.
pub(super) async fn run(
    listener: TcpListener,
    source: &Arc<ServingSource>,
    routes: Router,
) -> std::convert::Infallible {
    let acceptor = TlsAcceptor::from(serving_config(source, &[b"http/1.1"]));
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = Arc::clone(&permits).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, _address)) => {
                connections.spawn(connection(acceptor.clone(), stream, routes.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of an API server could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    routes: Router,
    permit: Option<OwnedSemaphorePermit>,
) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            metrics::handshake_failed();
            // An API server with another caBundle ends here: it is what people look for first.
            tracing::info!(%error, "a handshake of the webhooks failed");
            return;
        }
        Err(_elapsed) => {
            metrics::handshake_failed();
            return;
        }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the webhooks has ended");
    }
    drop(permit);
}
