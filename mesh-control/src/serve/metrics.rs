//! `GET /metrics` and `GET /ready` over plain HTTP: nothing here is secret, and nothing can be changed.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::telemetry::metrics;

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// The routes; the admin socket serves them too.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/metrics", get(render)).route("/ready", get(async || "ready\n"))
}

async fn render() -> impl IntoResponse {
    let text = metrics::install().map(|handle| handle.render()).unwrap_or_default();
    ([(CONTENT_TYPE, TEXT_FORMAT)], text)
}
