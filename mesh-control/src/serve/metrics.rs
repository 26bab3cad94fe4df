//! `GET /metrics`, `/live` and `/ready` over plain HTTP: nothing here is secret, and nothing can be changed.
//!
//! `/live` answers as long as the process can answer at all. It says nothing about what it depends on: a
//! control plane that is killed because the API server is away would not come back better.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::readiness::Readiness;
use crate::telemetry::metrics;

/// Content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// The routes; the admin listeners serve them too.
pub fn routes<S: Clone + Send + Sync + 'static>(readiness: Arc<Readiness>) -> Router<S> {
    Router::new()
        .route("/metrics", get(render))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(async move || ready(&readiness)))
}

async fn render() -> impl IntoResponse {
    let text = metrics::install().map(|handle| handle.render()).unwrap_or_default();
    ([(CONTENT_TYPE, TEXT_FORMAT)], text)
}

fn ready(readiness: &Readiness) -> (StatusCode, String) {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}
