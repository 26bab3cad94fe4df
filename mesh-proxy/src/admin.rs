//! What operators of this machine are told and may do, and what probes and scrapers are told.
//!
//! [`socket`] is a socket in the file system, for the user of this process and root only: everything may be
//! read there and the few things changed that a person may change (log level, drain). The status listener
//! is reached from the network and answers readiness and metrics alone. [`http`] serves both, [`dump`] and
//! [`certificates`] say what is in force.

pub mod certificates;
pub mod dump;
pub mod http;
pub mod socket;

use std::sync::Arc;
use std::time::SystemTime;

use ::http::{Method, StatusCode};
use mesh_api::admin::{AdminError, LogLevel, ReadyStatus};
use mesh_api::error_chain::chain;
use mesh_daemon::logging::LogControl;
use mesh_identity::tls::IdentitySource;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::control::status::Status;
use crate::identity::IdentityStatus;
use crate::runtime::drain::Drain;
use crate::settings::Settings;
use crate::state::State;
use crate::telemetry::Telemetry;
use http::Answer;

/// What answers are made from.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Settings of the process.
    pub settings: Arc<Settings>,
    /// The snapshot.
    pub state: State,
    /// Own identity.
    pub identity: Arc<IdentitySource>,
    /// How renewal stands.
    pub identity_status: Arc<IdentityStatus>,
    /// How discovery stands.
    pub control_status: Arc<Status>,
    /// Refusals and requests in flight.
    pub telemetry: Telemetry,
    /// Metrics.
    pub metrics: Option<PrometheusHandle>,
    /// The log filter.
    pub log: LogControl,
    /// Begins the drain.
    pub drain: Drain,
}

/// Whom is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The admin socket.
    Operator,
    /// The status listener.
    Network,
}

impl Admin {
    /// Whether traffic is served, and if not, why.
    #[must_use]
    pub fn ready(&self) -> ReadyStatus {
        let mut waiting_for = Vec::new();
        if self.identity.current().valid_svid(SystemTime::now()).is_none() {
            let reason = self.identity_status.failure().map(|reason| format!(" ({reason})"));
            waiting_for.push(format!("identity{}", reason.unwrap_or_default()));
        }
        if self.state.load().workload.is_none() {
            let missing = self.control_status.missing().join(", ");
            let reason = self.control_status.rejection().map(|reason| format!("; rejected: {reason}"));
            waiting_for.push(format!("configuration ({missing}{})", reason.unwrap_or_default()));
        }
        let draining = self.drain.has_begun();
        ReadyStatus {
            ready: waiting_for.is_empty() && !draining,
            waiting_for,
            draining,
            control_plane_silent_seconds: self.control_status.silent().map(|silent| silent.as_secs()),
            control_plane_connected: self.control_status.is_connected(),
        }
    }

    /// The answer to one request.
    #[must_use]
    pub fn answer(&self, audience: Audience, method: &Method, path: &str, query: Option<&str>) -> Answer {
        match (audience, path) {
            (_, "/stats/prometheus") => only(&Method::GET, method, || self.metrics_text()),
            (Audience::Network, "/healthz/ready") => only(&Method::GET, method, || self.ready_answer()),
            (Audience::Network, _) => not_found(path),
            (Audience::Operator, _) => self.operator(method, path, query),
        }
    }

    fn operator(&self, method: &Method, path: &str, query: Option<&str>) -> Answer {
        let get = |answer: &dyn Fn() -> Answer| only(&Method::GET, method, answer);
        match path {
            "/ready" | "/healthz/ready" => get(&|| self.ready_answer()),
            "/config_dump" => get(&|| Answer::json(StatusCode::OK, &self.dump())),
            "/certs" => get(&|| Answer::json(StatusCode::OK, &self.certificates(SystemTime::now()))),
            "/clusters" => get(&|| Answer::json(StatusCode::OK, &dump::clusters(&self.state.load()))),
            "/listeners" => {
                get(&|| Answer::json(StatusCode::OK, &dump::listeners(&self.settings, &self.state.load())))
            }
            "/routes" => get(&|| Answer::json(StatusCode::OK, &dump::routes(&self.state.load()))),
            "/endpoints" => {
                get(&|| Answer::json(StatusCode::OK, &dump::endpoints(&self.state.load(), &self.telemetry)))
            }
            "/policy" => get(&|| Answer::json(StatusCode::OK, &dump::policy(&self.state.load()))),
            "/policy/differences" => {
                get(&|| Answer::json(StatusCode::OK, &dump::differences(&self.state.load())))
            }
            "/denials" => get(&|| Answer::json(StatusCode::OK, &dump::denials(&self.telemetry))),
            "/decision" => get(&|| self.decision(query)),
            "/logging" if method == Method::POST => self.set_log_level(query),
            "/logging" => get(&|| self.log_level()),
            "/drain" => only(&Method::POST, method, || {
                tracing::warn!("an operator begins the drain");
                self.drain.begin();
                Answer::json(StatusCode::ACCEPTED, &self.ready())
            }),
            _ => not_found(path),
        }
    }

    fn ready_answer(&self) -> Answer {
        let ready = self.ready();
        let status = if ready.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer::json(status, &ready)
    }

    fn metrics_text(&self) -> Answer {
        match &self.metrics {
            Some(metrics) => {
                let mut text = metrics.render();
                if let Some(workload) = &self.state.load().workload {
                    text.push_str(&workload.decisions.render());
                }
                Answer::metrics(text)
            }
            None => failure(StatusCode::NOT_IMPLEMENTED, "metrics belong to the embedding process", ""),
        }
    }

    /// The refusal with the id that the query names.
    fn decision(&self, query: Option<&str>) -> Answer {
        let hint = "GET /decision?id=ID, with the 16 hexadecimal digits of the access log's decision_id.";
        let id = query.and_then(|query| http::parameter(query, "id"));
        let Some(id) = id.and_then(|id| u64::from_str_radix(&id, 16).ok()) else {
            return failure(StatusCode::BAD_REQUEST, "no id of a decision is given", hint);
        };
        match self.telemetry.denials().find(id) {
            Some(denial) => Answer::json(StatusCode::OK, &denial),
            None => failure(StatusCode::NOT_FOUND, "no refusal with this id is remembered", ""),
        }
    }

    fn log_level(&self) -> Answer {
        Answer::json(StatusCode::OK, &LogLevel { level: self.log.current() })
    }

    fn set_log_level(&self, query: Option<&str>) -> Answer {
        let hint = "For instance POST /logging?level=info,mesh_proxy=debug";
        let Some(level) = query.and_then(|query| http::parameter(query, "level")) else {
            return failure(StatusCode::BAD_REQUEST, "no level is given", hint);
        };
        match self.log.set(&level) {
            Ok(()) => {
                tracing::info!(level, "the log level was changed");
                self.log_level()
            }
            Err(error) => failure(StatusCode::BAD_REQUEST, &chain(&error), hint),
        }
    }
}

fn only(wanted: &Method, method: &Method, answer: impl FnOnce() -> Answer) -> Answer {
    if method == wanted {
        return answer();
    }
    failure(StatusCode::METHOD_NOT_ALLOWED, "the method is not served here", &format!("Use {wanted}."))
}

fn not_found(path: &str) -> Answer {
    failure(StatusCode::NOT_FOUND, &format!("nothing is served at {path:?}"), "")
}

fn failure(status: StatusCode, error: &str, hint: &str) -> Answer {
    Answer::json(status, &AdminError { error: error.to_owned(), hint: hint.to_owned() })
}
