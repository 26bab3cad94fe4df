//! External authorizers: what a CUSTOM policy has asked before anything else about a request (SEMANTICS 4.1).
//!
//! [`grpc`] and [`http`] say what a check carries and what its answer means, [`client`] sends it, [`edit`]
//! holds the changes that an authorizer may make to what it lets pass. A check waits for its answer, for the
//! provider's time, or for the client to go away, whichever is first; dropping it ends it. It is made from
//! copies, so nothing is held meanwhile but the connection to the authorizer.
//!
//! Whatever goes wrong between here and the answer is a failure of the authorizer, for which the provider
//! says what holds: refuse, unless it was told to fail open.

mod client;
pub mod edit;
mod grpc;
mod http;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};

use ::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use mesh_api::error_chain::chain;
use mesh_api::model::{AuthorizerProtocol, ExternalAuthorizer, LongerBody, OnAuthorizerError};

use crate::connection::Connection;
use crate::forward::http1::flow::DownloadError;
use crate::respond;
use crate::upstream::{ConnectError, UpstreamAlpn};
use crate::worker::Worker;
use edit::{EditError, Edits, QueryEdits};

/// Checks that one worker waits for at a time. With more the authorizer is overrun, and asking it yet again
/// would not help; Envoy's own limit is the same.
const CHECKS_MAX: usize = 1024;
/// Says in a check whether the body that is shown is all of it.
const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

/// Header lines that can be listed.
pub trait Lines {
    /// Hands name (in any case) and value of every line to `each`, in order.
    fn each_line(&self, each: &mut dyn FnMut(&[u8], &[u8]));
}

/// The client of a request that is not forwarded yet.
pub trait Client {
    /// Length of the body as far as the head tells: `Some(0)` for none, `None` when it will be seen.
    fn stated_length(&self) -> Option<u64>;
    /// Reads the body until it ends or is longer than `limit`, and keeps it for forwarding. Gives what there
    /// is of it, and whether that is all.
    fn hold(&mut self, limit: usize) -> impl Future<Output = Result<Held, respond::Refusal>>;
    /// Ready once the client is gone.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// The part of a body that was read before its request is forwarded.
#[derive(Debug, Default)]
pub struct Held {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether the body has ended with them.
    pub is_whole: bool,
}

/// What an authorizer is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The request; `None` for a byte stream.
    pub http: Option<HttpAsked<'a>>,
}

/// The request that an authorizer is asked about.
#[derive(Clone, Copy)]
pub struct HttpAsked<'a> {
    /// Method.
    pub method: &'a str,
    /// Authority with its port.
    pub authority: &'a str,
    /// Path and query, as they will be judged.
    pub target: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// Header lines, as they will be judged.
    pub lines: &'a dyn Lines,
    /// The part of the body that is shown.
    pub body: &'a [u8],
    /// Whether that is all of it; `None` when no body is shown.
    pub is_whole: Option<bool>,
    /// Length of the body, when it is known.
    pub size: Option<u64>,
}

impl std::fmt::Debug for HttpAsked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpAsked")
            .field("method", &self.method)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// What an authorizer says.
#[derive(Debug)]
enum Verdict {
    Pass(Box<Changes>),
    Refuse(Box<Refusal>),
}

/// What an authorizer changes about a request that it lets pass.
#[derive(Debug, Default)]
pub struct Changes {
    /// Header lines of the request.
    pub request: Edits,
    /// Header lines of its response.
    pub response: Edits,
    /// Query of the request.
    pub query: QueryEdits,
}

/// The answer to a request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Status.
    pub status: StatusCode,
    /// Header lines; none of them frames the answer.
    pub lines: Vec<(HeaderName, HeaderValue)>,
    /// Body.
    pub body: Bytes,
}

/// Why an authorizer gave no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("too many checks at a time")]
    TooMany,
    #[error("mesh has no such service and port")]
    UnknownService,
    #[error("service was not resolved in time")]
    Unresolved,
    #[error("service has no endpoint")]
    NoEndpoint,
    #[error("no connection")]
    Connect(#[source] ConnectError),
    #[error("connection ended before the answer")]
    Ended,
    #[error("no answer in time")]
    TimedOut,
    #[error("answer has status {0}")]
    Status(StatusCode),
    #[error("answer has gRPC status {0}")]
    GrpcStatus(u32),
    #[error("answer cannot be read")]
    Malformed,
    #[error("check or answer is too large")]
    TooLarge,
    #[error("request cannot be put into a check")]
    Unaddressable,
    #[error("answer asks for a change that cannot be made")]
    Edit(#[from] EditError),
    /// The authorizer itself says that it failed, and with what to refuse.
    #[error("authorizer states an error")]
    Stated(Box<Refusal>),
}

impl From<DownloadError> for AskError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Truncated | DownloadError::Upstream(_) | DownloadError::Disconnected => {
                Self::Ended
            }
            DownloadError::Malformed(_) | DownloadError::Head(_) => Self::Malformed,
        }
    }
}

/// What came of a check.
#[derive(Debug)]
pub enum Outcome {
    /// It may go on, with these changes.
    Pass(Box<Changes>),
    /// The authorizer failed, and its provider says that this lets the request pass.
    PassUnasked,
    /// The authorizer refuses.
    Refused(Box<Refusal>),
    /// The authorizer failed, which refuses the request.
    Failed(Box<Refusal>),
    /// The client is gone.
    Gone,
}

/// Counts the checks that one worker waits for.
#[derive(Debug, Default)]
pub struct Checks(Cell<usize>);

struct InFlight<'a>(&'a Checks);

impl Checks {
    fn begin(&self) -> Option<InFlight<'_>> {
        (self.0.get() < CHECKS_MAX).then(|| {
            self.0.set(self.0.get() + 1);
            InFlight(self)
        })
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.0.set(self.0.0.get() - 1);
    }
}

/// How much of a body is held for a check of this provider; `None` for nothing.
#[must_use]
pub fn body_limit(authorizer: &ExternalAuthorizer, stated: Option<u64>) -> Option<usize> {
    let body = authorizer.body.filter(|_| stated != Some(0))?;
    usize::try_from(body.bytes_max).ok()
}

/// Whether a body of that length is refused before it is shown to anybody.
#[must_use]
pub fn is_too_long(authorizer: &ExternalAuthorizer, length: u64) -> bool {
    authorizer
        .body
        .is_some_and(|body| body.longer == LongerBody::Refused && length > u64::from(body.bytes_max))
}

/// Asks an authorizer, until it answers, its time is up, or `gone` is ready.
pub async fn check(
    worker: &Worker,
    (name, authorizer): (&str, &ExternalAuthorizer),
    asked: &Asked<'_>,
    gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Outcome {
    let asking = async {
        let _in_flight = worker.checks.begin().ok_or(AskError::TooMany)?;
        let time = client::timeout(authorizer);
        tokio::time::timeout(time, ask(worker, authorizer, asked)).await.unwrap_or(Err(AskError::TimedOut))
    };
    let (mut asking, mut gone) = (pin!(asking), gone);
    let verdict = poll_fn(|context| {
        if let Poll::Ready(verdict) = asking.as_mut().poll(context) {
            return Poll::Ready(Some(verdict));
        }
        gone(context).map(|()| None)
    })
    .await;
    match verdict {
        None => Outcome::Gone,
        Some(Ok(Verdict::Pass(changes))) => Outcome::Pass(changes),
        Some(Ok(Verdict::Refuse(refusal))) => Outcome::Refused(refusal),
        Some(Err(error)) => failed(name, authorizer, error),
    }
}

/// What a failure comes to. Failing open is for an authorizer that is not there. One that answered more than
/// fits, or with a change that cannot be made, has said more than "pass"; and what a client wrote so that it
/// fits into no check must not be a way round the check.
fn failed(name: &str, authorizer: &ExternalAuthorizer, error: AskError) -> Outcome {
    tracing::warn!(provider = name, host = %authorizer.host, error = %chain(&error), "external authorizer failed");
    let is_absence = !matches!(error, AskError::Edit(_) | AskError::TooLarge | AskError::Unaddressable);
    let passes = authorizer.on_error == OnAuthorizerError::Pass && is_absence;
    if passes {
        return Outcome::PassUnasked;
    }
    Outcome::Failed(match error {
        AskError::Stated(refusal) => refusal,
        _ => Box::new(Refusal {
            status: StatusCode::from_u16(authorizer.status_on_error).unwrap_or(StatusCode::FORBIDDEN),
            lines: Vec::new(),
            body: Bytes::new(),
        }),
    })
}

async fn ask(
    worker: &Worker,
    authorizer: &ExternalAuthorizer,
    asked: &Asked<'_>,
) -> Result<Verdict, AskError> {
    match (&authorizer.protocol, &asked.http) {
        (AuthorizerProtocol::Grpc, _) => {
            let principal = worker.local_labels.borrow().principal.clone();
            let request = grpc::request(authorizer, asked, &principal)?;
            let response = client::send(worker, authorizer, &request, UpstreamAlpn::Http2).await?;
            grpc::verdict(authorizer, &response)
        }
        (AuthorizerProtocol::Http(check), Some(http)) => {
            let request = http::request(check, http)?;
            let response = client::send(worker, authorizer, &request, UpstreamAlpn::Http1).await?;
            http::verdict(check, response)
        }
        // Policies do not ask such a provider about a byte stream.
        (AuthorizerProtocol::Http(_), None) => Err(AskError::Unaddressable),
    }
}
