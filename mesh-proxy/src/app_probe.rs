//! Probes of the application, answered at the status listener.
//!
//! The kubelet has no certificate, so its probes cannot come through interception. Injection leads them to the
//! status port, which is not intercepted, and says which path stands for which probe. The proxy then asks the
//! application as the kubelet would have: at the address that the kubelet dialled, with the same path and
//! header lines, by the same rules of what is well. Only what is listed is asked, with a GET, and nothing of an
//! answer but its status is told, so that nothing else of the application is opened.
//!
//! The readiness of the proxy itself is another path: an application that is not ready does not make its proxy
//! unready, nor the other way round.

mod grpc;
mod http;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::http::header::{ACCEPT, HOST, USER_AGENT};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use mesh_api::model::probe::{AppProbe, AppProbeHandler, AppProbes, HttpGet, ProbeScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for a handler of a container's life: the kubelet waits for one as long as the pod may take to
/// end, and gives the connection up then. This is for a kubelet that has gone.
pub const LIFECYCLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Begin of the paths of probes.
const HEALTH: &str = "/app-health/";
/// Begin of the paths of handlers of a container's life.
const LIFECYCLE: &str = "/app-lifecycle/";

/// What each path stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppProbeTable {
    probes: BTreeMap<String, Prepared>,
}

/// Why a table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppProbesError {
    /// It cannot be read.
    #[error("it is not a JSON object of probes: {reason}")]
    Malformed {
        /// Where and why.
        reason: String,
    },
    /// A path is not one of those that the kubelet is led to.
    #[error("{path:?} does not begin with {HEALTH} or {LIFECYCLE}")]
    Path {
        /// The path.
        path: String,
    },
    /// The application's path cannot be asked for.
    #[error("{target:?} of {path} cannot be a path of HTTP")]
    Target {
        /// Whose.
        path: String,
        /// The path at the application.
        target: String,
    },
    /// A header line cannot be sent.
    #[error("the header {name:?} of {path} cannot be sent")]
    Header {
        /// Whose.
        path: String,
        /// Its name.
        name: String,
    },
}

/// A probe, ready to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    question: Question,
    limit: Duration,
    purpose: Purpose,
}

/// What the kubelet wants with the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the application is well.
    Health,
    /// To tell it something: the kubelet takes any answer for success.
    Lifecycle,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    Http(http::Get),
    Tcp { port: u16 },
    Grpc { port: u16, service: String },
}

/// What became of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The application answered with this status; those without a status of HTTP have 200 for well.
    Status(StatusCode),
    /// It did not, or said that it is not well.
    Failed(String),
}

impl AppProbeTable {
    /// Reads a table as injection writes it; an empty text is an empty table.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn parse(text: &str) -> Result<Self, AppProbesError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let read: AppProbes = serde_json::from_str(text)
            .map_err(|error| AppProbesError::Malformed { reason: error.to_string() })?;
        let prepared = read.0.into_iter().map(|(path, probe)| {
            let prepared = Prepared::new(&path, probe)?;
            Ok((path, prepared))
        });
        Ok(Self { probes: prepared.collect::<Result<_, AppProbesError>>()? })
    }

    /// The probe of a path, if it is listed.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Prepared> {
        self.probes.get(path)
    }

    /// The paths, in order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.probes.keys().map(String::as_str)
    }

    /// Longest time that one of them may take.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.probes.values().map(|probe| probe.limit).max().unwrap_or_default()
    }
}

impl Prepared {
    fn new(path: &str, probe: AppProbe) -> Result<Self, AppProbesError> {
        let purpose = if path.starts_with(HEALTH) {
            Purpose::Health
        } else if path.starts_with(LIFECYCLE) {
            Purpose::Lifecycle
        } else {
            return Err(AppProbesError::Path { path: path.to_owned() });
        };
        let limit = match purpose {
            Purpose::Health => Duration::from_secs(u64::from(probe.timeout_seconds)),
            Purpose::Lifecycle => LIFECYCLE_TIMEOUT,
        };
        let question = match probe.handler {
            AppProbeHandler::HttpGet(get) => Question::Http(prepare_get(path, &get)?),
            AppProbeHandler::TcpSocket(socket) => Question::Tcp { port: socket.port },
            AppProbeHandler::Grpc(health) => Question::Grpc { port: health.port, service: health.service },
        };
        Ok(Self { question, limit, purpose })
    }

    /// What the kubelet wants with the answer.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Asks the application at `address`, an address of this workload. `asker` are the header lines of the
    /// kubelet's request, by which the application knows it. Dropping the future gives the question up.
    pub async fn ask(&self, address: IpAddr, asker: &HeaderMap) -> Answered {
        let user_agent = asker.get(USER_AGENT).cloned();
        let asking = async {
            match &self.question {
                Question::Http(get) => http::get(get, address, user_agent).await,
                Question::Tcp { port } => {
                    connect(SocketAddr::new(address, *port)).await.map(|_| StatusCode::OK)
                }
                Question::Grpc { port, service } => {
                    grpc::check(SocketAddr::new(address, *port), service, user_agent)
                        .await
                        .map(|()| StatusCode::OK)
                }
            }
        };
        match timeout(self.limit, asking).await {
            Ok(Ok(status)) => Answered::Status(status),
            Ok(Err(failure)) => Answered::Failed(failure.to_string()),
            Err(_elapsed) => Answered::Failed(format!("no answer within {} s", self.limit.as_secs())),
        }
    }
}

/// Why the application is not taken for well.
#[derive(Debug)]
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(mesh_api::error_chain::chain(&error))
    }
}

/// A connection to the workload's own address, which interception leaves alone.
async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    TcpStream::connect(address)
        .await
        .map_err(|error| Failure(format!("cannot connect to {address}: {error}")))
}

fn prepare_get(path: &str, get: &HttpGet) -> Result<http::Get, AppProbesError> {
    let target = if get.path.starts_with('/') { get.path.clone() } else { format!("/{}", get.path) };
    let wrong = || AppProbesError::Target { path: path.to_owned(), target: get.path.clone() };
    let target: PathAndQuery = target.parse().map_err(|_| wrong())?;
    let mut lines = HeaderMap::new();
    lines.insert(ACCEPT, HeaderValue::from_static("*/*"));
    let mut stated = HeaderMap::new();
    for header in &get.http_headers {
        let wrong = || AppProbesError::Header { path: path.to_owned(), name: header.name.clone() };
        let name: HeaderName = header.name.parse().map_err(|_| wrong())?;
        stated.append(name, header.value.parse().map_err(|_| wrong())?);
    }
    // An `Accept` without a value is how an author asks for none (`HTTPGetAction` of the kubelet).
    for name in stated.keys() {
        lines.remove(name);
    }
    for (name, value) in &stated {
        if name != ACCEPT || !value.is_empty() {
            lines.append(name, value.clone());
        }
    }
    let host = lines.remove(HOST);
    let is_tls = get.scheme == ProbeScheme::Https;
    Ok(http::Get { port: get.port, is_tls, target, host, lines })
}

#[cfg(test)]
mod tests;
