//! What the operator's socket answers: what the control plane knows, and the few things that a person may
//! tell it. Who may ask is [`OperatorSocket`]'s: a join token is any identity.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use mesh_api::admin::{
    AdminError, CaStatus, ControlStatus, JoinTokenRequest, JoinTokenResponse, LogLevel, ObjectStatus,
    ObjectSummary, RegistryDump, UnmeshedPod,
};
use mesh_api::error_chain::chain;
use mesh_api::name::SpiffeId;
use mesh_api::problem::Problem;
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::OperatorSocket;
use mesh_identity::certificate::timestamp;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::net::unix::SocketAddr;

use crate::issue::TokenRefusal;
use crate::plane::Plane;
use crate::readiness::Readiness;
use crate::status::{self, ObjectFilter};

/// Life of a join token whose request states none.
const TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// The socket, as the web framework takes connections from it.
#[derive(Debug)]
pub struct AdminListener(pub OperatorSocket);

impl axum::serve::Listener for AdminListener {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What the routes need.
#[derive(Debug, Clone)]
pub struct Admin {
    /// The control plane.
    pub plane: Arc<Plane>,
    /// The log filter, if logging is ours.
    pub log: Option<LogControl>,
}

/// The routes.
pub fn routes(admin: Admin, readiness: Arc<Readiness>) -> Router {
    Router::new()
        .route("/status", get(control_status))
        .route("/problems", get(problems))
        .route("/objects", get(objects))
        .route("/objects/status", get(object_statuses))
        .route("/unmeshed", get(unmeshed))
        .route("/registry", get(registry))
        .route("/ca", get(ca))
        .route("/tokens", post(tokens))
        .route("/sources/confirm", post(confirm))
        .route("/logging", get(log_level).post(set_log_level))
        .merge(super::metrics::routes(readiness))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(admin)
}

const PATHS: &str = "GET /status, /problems, /objects, /objects/status, /unmeshed, /registry, /ca, /logging, /metrics, /live, /ready; \
                     POST /tokens, /sources/confirm?path=DIR, /logging?level=FILTER.";

async fn unknown_path(uri: Uri) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()), PATHS)
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {}", uri.path()), PATHS)
}

/// An answer of failure.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    body: AdminError,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>, hint: &str) -> Self {
        Self { status, body: AdminError { error: error.into(), hint: hint.to_owned() } }
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), "")
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text(), "")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// Answers that walk the mesh are computed beside the servers' threads.
async fn compute<T: Send + 'static>(
    admin: Admin,
    answer: impl FnOnce(&Plane) -> T + Send + 'static,
) -> Result<Json<T>, Failure> {
    tokio::task::spawn_blocking(move || answer(&admin.plane))
        .await
        .map(Json)
        .map_err(|_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer was not finished", ""))
}

async fn control_status(State(admin): State<Admin>) -> Result<Json<ControlStatus>, Failure> {
    compute(admin, |plane| status::control_status(plane, Instant::now())).await
}

async fn problems(State(admin): State<Admin>) -> Result<Json<Vec<Problem>>, Failure> {
    compute(admin, Plane::problems).await
}

async fn objects(
    State(admin): State<Admin>,
    filter: Result<Query<ObjectFilter>, QueryRejection>,
) -> Result<Json<Vec<ObjectSummary>>, Failure> {
    let Query(filter) = filter?;
    compute(admin, move |plane| status::objects(plane, &filter)).await
}

async fn object_statuses(
    State(admin): State<Admin>,
    filter: Result<Query<ObjectFilter>, QueryRejection>,
) -> Result<Json<Vec<ObjectStatus>>, Failure> {
    let Query(filter) = filter?;
    compute(admin, move |plane| status::enforcement::object_statuses(plane, &filter)).await
}

async fn unmeshed(State(admin): State<Admin>) -> Json<Vec<UnmeshedPod>> {
    Json(admin.plane.unmeshed())
}

async fn registry(State(admin): State<Admin>) -> Result<Json<RegistryDump>, Failure> {
    compute(admin, status::registry_dump).await
}

async fn ca(State(admin): State<Admin>) -> Result<Json<CaStatus>, Failure> {
    compute(admin, |plane| status::ca_status(plane, SystemTime::now())).await
}

async fn tokens(
    State(admin): State<Admin>,
    request: Result<Json<JoinTokenRequest>, JsonRejection>,
) -> Result<Json<JoinTokenResponse>, Failure> {
    let Json(request) = request?;
    let id = SpiffeId::parse(&request.spiffe_id)
        .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string(), ""))?;
    let ttl = match request.ttl_seconds {
        0 => TOKEN_TTL_DEFAULT,
        seconds => Duration::from_secs(seconds),
    };
    let now = SystemTime::now();
    let issue = Arc::clone(&admin.plane.issue);
    let issued = tokio::task::spawn_blocking(move || issue.issue_token(id, ttl, now))
        .await
        .map_err(|_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the token was not finished", ""))?;
    let token = issued.map_err(|refusal| {
        let status = match refusal {
            TokenRefusal::ForeignTrustDomain { .. } => StatusCode::BAD_REQUEST,
            TokenRefusal::Token(_) => StatusCode::UNPROCESSABLE_ENTITY,
            TokenRefusal::Record(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, chain(&refusal), "")
    })?;
    tracing::info!(id = request.spiffe_id, ttl_seconds = ttl.as_secs(), "join token issued");
    Ok(Json(JoinTokenResponse { token, expires: timestamp(now + ttl) }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    path: PathBuf,
}

async fn confirm(
    State(admin): State<Admin>,
    confirmation: Result<Query<Confirmation>, QueryRejection>,
) -> Result<StatusCode, Failure> {
    let Query(Confirmation { path }) = confirmation?;
    let is_suspended = {
        let configuration = admin.plane.configuration();
        let folder = configuration.folders.iter().find(|folder| Path::new(&folder.path) == path);
        folder.map(|folder| folder.suspended.is_some())
    };
    match is_suspended {
        None => Err(Failure::new(
            StatusCode::NOT_FOUND,
            format!("{} is not watched", path.display()),
            "The folders that are watched stand in the status.",
        )),
        Some(false) => Err(Failure::new(
            StatusCode::CONFLICT,
            format!("{} is obeyed already; there is nothing to confirm", path.display()),
            "",
        )),
        Some(true) => {
            tracing::warn!(path = %path.display(), "an operator confirms what disappeared");
            admin.plane.confirmations.try_send(path).map_err(|_| {
                Failure::new(StatusCode::SERVICE_UNAVAILABLE, "other confirmations are waiting", "Try again.")
            })?;
            admin.plane.look_now.notify_one();
            Ok(StatusCode::ACCEPTED)
        }
    }
}

fn log_control(admin: &Admin) -> Result<&LogControl, Failure> {
    admin.log.as_ref().ok_or_else(|| {
        Failure::new(StatusCode::NOT_IMPLEMENTED, "logging belongs to the embedding process", "")
    })
}

async fn log_level(State(admin): State<Admin>) -> Result<Json<LogLevel>, Failure> {
    Ok(Json(LogLevel { level: log_control(&admin)?.current() }))
}

async fn set_log_level(
    State(admin): State<Admin>,
    wanted: Result<Query<LogLevel>, QueryRejection>,
) -> Result<Json<LogLevel>, Failure> {
    let Query(wanted) = wanted?;
    let log = log_control(&admin)?;
    log.set(&wanted.level).map_err(|error| {
        let hint = "For instance info, or info,mesh_control=debug.";
        Failure::new(StatusCode::BAD_REQUEST, chain(&error), hint)
    })?;
    Ok(Json(LogLevel { level: log.current() }))
}
