//! The supervisor's API: HTTP/1.1 with JSON bodies over `supervisor.sock`.
//!
//! Only the mesh's owner may enter the state directory, and only the owner may connect. A workload that is
//! attached to a command belongs to that command's connection: when it closes, for whatever reason, the
//! workload goes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_api::admin::AdminError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::context::Context;
use super::roster::{JoinError, OrderError, Roster};
use crate::local::client::{LeaveRequest, Part, RestartRequest, RunMode, RunRequest, RunResponse};
use crate::output;

/// The socket, seen from the state directory.
const SOCKET: &str = "supervisor.sock";
/// Longest body of a request, in bytes. An environment is below.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Connections at the same time; each attached workload holds one.
const CONNECTIONS_MAX: usize = 1024;
/// Pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for the proxy of a workload that joins.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Opens the socket, in the place of one that a killed supervisor left.
///
/// # Errors
/// When it cannot be opened.
pub(crate) fn bind() -> io::Result<UnixListener> {
    match fs::remove_file(SOCKET) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(SOCKET)?;
    fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for ever.
pub(crate) async fn serve(listener: UnixListener, context: Rc<Context>, roster: Rc<Roster>) {
    let places = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(()) = places.acquire().await.map(tokio::sync::SemaphorePermit::forget) else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let api =
                    Api { context: Rc::clone(&context), roster: Rc::clone(&roster), attached: Rc::default() };
                let places = Rc::clone(&places);
                tokio::task::spawn_local(async move {
                    converse(stream, api).await;
                    places.add_permits(1);
                });
            }
            Err(error) => {
                output::note(&format!("a connection to {SOCKET} could not be accepted: {error}"));
                places.add_permits(1);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What is answered on one connection.
#[derive(Clone)]
struct Api {
    context: Rc<Context>,
    roster: Rc<Roster>,
    /// Workloads that belong to this connection.
    attached: Rc<RefCell<Vec<String>>>,
}

/// A refusal.
struct Refusal {
    status: StatusCode,
    error: String,
    hint: &'static str,
}

impl Refusal {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: "" }
    }
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        let (status, hint) = match &error {
            OrderError::Unknown(_) => (StatusCode::NOT_FOUND, "`meshctl ps` lists them."),
            OrderError::NoProxy(_) | OrderError::Attached(_) => (StatusCode::CONFLICT, ""),
            OrderError::TooEarly => (StatusCode::SERVICE_UNAVAILABLE, "Try again in a moment."),
        };
        Self { status, error: output::chain(&error), hint }
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        let status = match &error {
            JoinError::Invalid { .. } => StatusCode::BAD_REQUEST,
            JoinError::Taken(_) | JoinError::ServiceTaken(_) => StatusCode::CONFLICT,
            JoinError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, output::chain(&error))
    }
}

async fn converse(stream: UnixStream, api: Api) {
    let answering = api.clone();
    let service = service_fn(move |request| {
        let api = answering.clone();
        async move { Ok::<_, Infallible>(api.answer(request).await) }
    });
    // A client that breaks off is its own affair.
    let _broken_off = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    let attached = api.attached.take();
    for id in attached {
        // It may have been taken out by another command.
        let _gone_before = api.roster.remove(&id).await;
    }
}

impl Api {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = self.routed(request).await;
        let (status, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err(refusal) => {
                let error = AdminError { error: refusal.error, hint: refusal.hint.to_owned() };
                (refusal.status, serde_json::to_vec(&error).unwrap_or_default())
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let json = http::HeaderValue::from_static("application/json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, json);
        response
    }

    async fn routed(&self, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
        let (head, body) = request.into_parts();
        let body = timeout(Duration::from_secs(10), Limited::new(body, BODY_BYTES_MAX).collect());
        let body = match body.await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string())),
            Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request was not finished")),
        };
        match (&head.method, head.uri.path()) {
            (&Method::GET, "/ps") => json(&self.context.board.status()),
            (&Method::POST, "/run") => json(&self.run(parsed(&body)?).await?),
            (&Method::POST, "/leave") => {
                let LeaveRequest { workload } = parsed(&body)?;
                self.roster.remove(&workload).await?;
                json(&())
            }
            (&Method::POST, "/restart") => {
                let RestartRequest { workload, part } = parsed(&body)?;
                match (part, workload) {
                    (Part::Control, _) => self.roster.restart("", part)?,
                    (Part::App | Part::Proxy, Some(id)) => self.roster.restart(&id, part)?,
                    (Part::App | Part::Proxy, None) => {
                        return Err(Refusal::new(StatusCode::BAD_REQUEST, "it is not said which workload"));
                    }
                }
                json(&())
            }
            (&Method::POST, "/stop") => {
                self.context.board.stopping();
                self.context.request_stop();
                json(&())
            }
            (_, path) => {
                Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {} {path}", head.method)))
            }
        }
    }

    /// Starts one more workload. An attached one is answered for once its application may start.
    async fn run(&self, request: RunRequest) -> Result<RunResponse, Refusal> {
        if self.context.board.status().is_stopping {
            return Err(Refusal::new(StatusCode::CONFLICT, "the mesh is going down"));
        }
        let mode = request.mode;
        let workload = self.roster.join(request)?;
        let id = workload.id();
        if mode == RunMode::Supervised {
            return Ok(RunResponse { workload });
        }
        // From here on it goes with the connection, also when this wait is broken off.
        self.attached.borrow_mut().push(id.clone());
        match timeout(READY_DEADLINE, self.roster.until_ready(&id)).await {
            Ok(ready) => ready?,
            Err(_) => {
                let status = self.context.board.status();
                let proxy =
                    status.workloads.into_iter().find(|other| other.id() == id).and_then(|other| other.proxy);
                let why = proxy.map(|proxy| proxy.message).unwrap_or_default();
                let error = format!("{id} was not ready within {} s: {why}", READY_DEADLINE.as_secs());
                return Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, error));
            }
        }
        self.context.board.update(&super::board::Subject::App(id), |status| {
            status.phase = crate::local::client::Phase::Running;
            status.message = "attached to a terminal".to_owned();
        });
        Ok(RunResponse { workload })
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the request is not understood: {error}"))
    })
}
