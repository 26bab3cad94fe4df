//! The webhooks that an API server calls: injection of pods and validation of the mesh's objects.
//!
//! `listen` takes connections, `certificate` keeps the certificate that they are served with, `review` reads
//! questions and writes answers, `validate` and `inject` know the answers. Everything else of a question is
//! the same for both and stands here: what may be sent, how much, how long it may take, and how it is counted.
//!
//! Nothing that is sent makes a webhook fail: what cannot be read is refused with a status and a sentence, and
//! what takes too long is answered as such. The API server then does what `failurePolicy` says.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kube::Client;
use mesh_api::error_chain::chain;
use mesh_api::name::{Host, NameError};
use mesh_identity::tls::ServingSource;
use mesh_kube::name::{INJECT_PATH, VALIDATE_PATH};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::inject::Injector;
use crate::plane::Plane;
use crate::telemetry::metrics::webhook as metrics;

pub mod certificate;
mod inject;
mod listen;
pub mod review;
pub(crate) mod validate;

use review::{Answer, Request};

/// Longest body, in bytes. An API server takes requests of 3 MiB (`MaxRequestBodyBytes`), and a review of an
/// update holds the object twice.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bodies that are read or judged at once, in units of [`BODY_UNIT`]: 128 MiB.
const BODY_UNITS: usize = 2048;
/// Bytes of one unit.
const BODY_UNIT: usize = 64 * 1024;
/// Time allowed for one review, from its head to its answer. Webhook configurations allow 10 seconds.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(8);

/// The webhooks of one revision, with a certificate.
#[derive(Debug)]
pub struct Webhooks {
    plane: Arc<Plane>,
    injector: Arc<Injector>,
    certificate: Arc<ServingSource>,
    names: Vec<Host>,
}

/// Where the webhooks of a revision are reached.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Namespace of the control plane.
    pub namespace: &'a str,
    /// Revision of the control plane.
    pub revision: &'a str,
    /// DNS suffix of services.
    pub cluster_domain: &'a str,
}

impl Webhooks {
    /// The webhooks at a place. Their certificate is made at once, so that whoever has them can serve them;
    /// without one, because the authority cannot sign now, handshakes are refused until there is.
    ///
    /// # Errors
    /// When the place has no valid name.
    pub fn new(plane: Arc<Plane>, client: Client, place: Place<'_>) -> Result<Self, NameError> {
        let names = certificate::names(place.namespace, place.revision, place.cluster_domain)?;
        let certificate = ServingSource::new();
        certificate::renew_once(&plane, &certificate, &names);
        let injector = Injector::new(client, Arc::clone(&plane), place.namespace, place.revision);
        Ok(Self { plane, injector, certificate, names })
    }

    /// Whether there is a certificate.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.certificate.current().is_some_and(|serving| serving.is_valid_at(SystemTime::now()))
    }
}

/// Serves the webhooks, keeps their certificate good, and follows the settings of injection. Ends its
/// connections when it is dropped.
pub async fn serve(listener: TcpListener, webhooks: Webhooks) -> Infallible {
    let Webhooks { plane, injector, certificate, names } = webhooks;
    let routes = routes(Desk::new(Arc::clone(&plane), Arc::clone(&injector)));
    tokio::select! {
        never = listen::run(listener, &certificate, routes) => never,
        never = certificate::keep(&plane, &certificate, &names) => never,
        never = injector.follow() => never,
    }
}

/// What a review needs.
#[derive(Debug, Clone)]
struct Desk {
    plane: Arc<Plane>,
    injector: Arc<Injector>,
    units: Arc<Semaphore>,
    lint: Arc<Semaphore>,
}

impl Desk {
    fn new(plane: Arc<Plane>, injector: Arc<Injector>) -> Self {
        let (units, lint) = (Arc::new(Semaphore::new(BODY_UNITS)), Arc::new(Semaphore::new(1)));
        Self { plane, injector, units, lint }
    }
}

fn routes(desk: Desk) -> Router {
    Router::new()
        .route(INJECT_PATH, post(inject_pod))
        .route(VALIDATE_PATH, post(validate_object))
        .route("/ready", get(async || "ready\n"))
        .fallback(async || (StatusCode::NOT_FOUND, "here are POST /inject and POST /validate\n"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}

async fn inject_pod(State(desk): State<Desk>, request: HttpRequest) -> Response {
    let injector = Arc::clone(&desk.injector);
    review("inject", &desk, request, async move |request| inject::answer(&injector, request).await).await
}

async fn validate_object(State(desk): State<Desk>, request: HttpRequest) -> Response {
    let (plane, lint) = (Arc::clone(&desk.plane), Arc::clone(&desk.lint));
    review("validate", &desk, request, async move |request| validate::answer(&plane, &lint, request).await)
        .await
}

/// Why there is no review to answer.
#[derive(Debug, thiserror::Error)]
enum Unanswerable {
    #[error("the content type is not application/json")]
    ContentType,
    #[error("the request states no Content-Length")]
    NoLength,
    #[error("the body is longer than {BODY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the body could not be read")]
    Body,
    #[error("{0}")]
    Review(String),
    #[error("the answer took longer than {} seconds", REVIEW_TIMEOUT.as_secs())]
    Late,
    #[error("the answer could not be written")]
    Write,
}

impl IntoResponse for Unanswerable {
    fn into_response(self) -> Response {
        let status = match self {
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body | Self::Review(_) => StatusCode::BAD_REQUEST,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
            Self::Write => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// Reads a review, has it answered, and writes the answer.
async fn review(
    webhook: &'static str,
    desk: &Desk,
    request: HttpRequest,
    judge: impl AsyncFnOnce(Request) -> Answer,
) -> Response {
    let start = Instant::now();
    let answered = timeout(REVIEW_TIMEOUT, answer(desk, request, judge)).await;
    let (outcome, response) = match answered.unwrap_or(Err(Unanswerable::Late)) {
        Ok((outcome, body)) => (outcome, ([(CONTENT_TYPE, "application/json")], body).into_response()),
        Err(error) => {
            tracing::warn!(webhook, error = chain(&error), "an admission review could not be answered");
            ("unanswered", error.into_response())
        }
    };
    metrics::admission(webhook, outcome, start.elapsed());
    response
}

async fn answer(
    desk: &Desk,
    request: HttpRequest,
    judge: impl AsyncFnOnce(Request) -> Answer,
) -> Result<(&'static str, Vec<u8>), Unanswerable> {
    let length = length(request.headers())?;
    let units = u32::try_from(length / BODY_UNIT + 1).map_err(|_| Unanswerable::TooLong)?;
    // The semaphore is never closed.
    let _units = desk.units.acquire_many(units).await.map_err(|_| Unanswerable::Late)?;
    let body: Bytes =
        axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await.map_err(|_| Unanswerable::Body)?;
    let request = Request::read(&body).map_err(|error| Unanswerable::Review(chain(&error)))?;
    drop(body);
    let uid = request.uid.clone();
    let answer = judge(request).await;
    let outcome = if answer.refusal.is_some() { "refused" } else { "admitted" };
    let body = answer.to_json(&uid).map_err(|_| Unanswerable::Write)?;
    Ok((outcome, body))
}

/// What is about to be read, from the head of the request.
fn length(headers: &HeaderMap) -> Result<usize, Unanswerable> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let media = text(CONTENT_TYPE).and_then(|value| value.split(';').next()).map(str::trim);
    if !media.is_some_and(|media| media.eq_ignore_ascii_case("application/json")) {
        return Err(Unanswerable::ContentType);
    }
    let length = text(CONTENT_LENGTH).and_then(|value| value.parse().ok()).ok_or(Unanswerable::NoLength)?;
    if length > BODY_BYTES_MAX {
        return Err(Unanswerable::TooLong);
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
