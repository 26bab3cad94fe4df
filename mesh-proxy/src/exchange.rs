//! What happens to one request, decided before a byte of it is forwarded: the path in its one form, policy,
//! the route, and from those the plan. Both codecs ask here and nowhere else.

pub mod budget;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::model::destination::Retries;
use mesh_api::model::{DestinationKey, OutboundPolicy, PathNormalization};
use mesh_policy::authorize::{HeaderValues, HttpAttributes};
use mesh_policy::normalize;

use crate::authz::{self, Permit};
use crate::connection::{Connection, Direction};
use crate::respond::Refusal;
use crate::route;
use crate::state::{DestinationState, Resolution, WorkloadState};
use crate::telemetry::HttpRecord;
use crate::worker::Worker;

/// A request's head, whichever codec read it.
pub trait RequestHead {
    /// Method.
    fn method(&self) -> &str;
    /// Authority with its port, as sent.
    fn authority(&self) -> &str;
    /// Path and query, as sent.
    fn target(&self) -> &str;
    /// Header lines.
    fn headers(&self) -> &dyn HeaderValues;
}

/// Everything that forwarding one request needs.
#[derive(Debug)]
pub struct Plan {
    /// Leave to forward.
    pub permit: Permit,
    /// Path and query as judged; `None` when that is what was sent.
    pub path: Option<String>,
    /// Where to.
    pub hop: Hop,
    /// Time allowed for the whole exchange.
    pub timeout: Option<Duration>,
    /// Retries that the route states; `None` retries only what is safe in any case.
    pub retries: Option<Retries>,
}

/// Where a request goes next.
#[derive(Debug, Clone)]
pub enum Hop {
    /// To the own application, at the address that was dialled.
    Application,
    /// To an endpoint of a destination, still to be picked.
    Destination {
        /// The destination.
        state: Arc<DestinationState>,
        /// Service port.
        port: u16,
        /// Subset.
        subset: Option<String>,
    },
}

/// Decides about one request.
///
/// # Errors
/// The refusal to answer with; the record then says why.
pub async fn plan<H: RequestHead>(
    worker: &Worker,
    connection: &Connection,
    request: &H,
    record: &mut HttpRecord,
) -> Result<Plan, Refusal> {
    let state = worker.state.load();
    let Some(workload) = &state.workload else { return Err(Refusal::NotReady) };
    let path = Path::of(request.target(), workload.config.mesh.path_normalization)?;
    record.path.push_str(path.whole());
    match connection.direction {
        Direction::Inbound => inbound(workload, connection, request, path, record),
        Direction::Outbound => {
            let workload = Arc::clone(workload);
            drop(state);
            outbound(worker, &workload, connection, request, path, record).await
        }
    }
}

/// A request target in the form that is judged and forwarded.
#[derive(Debug)]
pub struct Path<'a> {
    sent: &'a str,
    /// The rewritten form, when it differs.
    rewritten: Option<String>,
    path_length: usize,
}

impl<'a> Path<'a> {
    /// Normalises a target.
    ///
    /// # Errors
    /// When no form of it is safe to forward.
    pub fn of(sent: &'a str, mode: PathNormalization) -> Result<Self, Refusal> {
        // `*` is about the server as a whole and has no path (RFC 9110 section 9.3.7).
        if sent == "*" {
            return Ok(Self { sent, rewritten: None, path_length: 1 });
        }
        let normal = normalize::path(sent, mode)
            .map_err(|_| Refusal::BadRequest { details: "path_normalization_failed" })?;
        let path_length = normal.policy_path().len();
        // A fragment is cut without the text being copied, so compare instead of asking whether it was.
        let rewritten = (normal.as_str() != sent).then(|| normal.into_text().into_owned());
        Ok(Self { sent, rewritten, path_length })
    }

    /// Path and query.
    #[must_use]
    pub fn whole(&self) -> &str {
        self.rewritten.as_deref().unwrap_or(self.sent)
    }

    /// The path alone.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.whole()[..self.path_length]
    }

    /// The query without its `?`.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.whole().get(self.path_length + 1..)
    }
}

/// Header lines with the pseudo headers that rules may ask for.
#[derive(Debug)]
pub struct JudgedHeaders<'a> {
    lines: &'a dyn HeaderValues,
    path: &'a str,
}

impl<'a> JudgedHeaders<'a> {
    /// The lines of a request whose path and query are `path`.
    #[must_use]
    pub fn new(lines: &'a dyn HeaderValues, path: &'a str) -> Self {
        Self { lines, path }
    }
}

impl HeaderValues for JudgedHeaders<'_> {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        match name {
            ":path" => {
                each(self.path.as_bytes());
            }
            ":scheme" => {
                each(b"http");
            }
            name => self.lines.visit(name, each),
        }
    }
}

fn inbound<H: RequestHead>(
    workload: &WorkloadState,
    connection: &Connection,
    request: &H,
    path: Path<'_>,
    record: &mut HttpRecord,
) -> Result<Plan, Refusal> {
    if authz::is_peer_expired(connection, SystemTime::now()) {
        return Err(Refusal::PeerExpired);
    }
    let headers = JudgedHeaders::new(request.headers(), path.whole());
    let http = HttpAttributes {
        method: request.method(),
        authority: request.authority(),
        path: path.path(),
        headers: &headers,
        claims: None,
    };
    let permit = authz::request(workload, connection, http, record).map_err(|_| Refusal::Denied)?;
    Ok(Plan { permit, path: path.rewritten, hop: Hop::Application, timeout: None, retries: None })
}

async fn outbound<H: RequestHead>(
    worker: &Worker,
    workload: &WorkloadState,
    connection: &Connection,
    request: &H,
    path: Path<'_>,
    record: &mut HttpRecord,
) -> Result<Plan, Refusal> {
    let permit = Permit::for_outbound(connection).ok_or(Refusal::NotReady)?;
    let key = DestinationKey::Address(connection.destination.ip());
    let destination = known(worker, workload, &key).await?;
    let port = connection.destination.port();
    let headers = JudgedHeaders::new(request.headers(), path.whole());
    let view = mesh_policy::route::RequestView {
        method: request.method(),
        authority: request.authority(),
        scheme: "http",
        path: path.path(),
        query: path.query(),
        port,
        headers: &headers,
    };
    let draw = worker.rng.borrow_mut().u32(..);
    let chosen = route::choose(&destination, &view, draw)?;
    record.route.push_str(chosen.route);
    let (timeout, retries) = (chosen.timeout, chosen.retries.cloned());
    let hop = match chosen.target {
        None => Hop::Destination { state: Arc::clone(&destination), port, subset: None },
        Some(target) => {
            let to_port = target.port.unwrap_or(port);
            let subset = target.subset.map(str::to_owned);
            let state = if target.host.as_str() == destination.destination.host {
                Arc::clone(&destination)
            } else {
                known(worker, workload, &DestinationKey::Host(target.host.clone())).await?
            };
            Hop::Destination { state, port: to_port, subset }
        }
    };
    if let Hop::Destination { state, .. } = &hop {
        state.touch(worker.process_seconds());
    }
    Ok(Plan { permit, path: path.rewritten, hop, timeout, retries })
}

/// The destination behind a key, asked for on a miss.
async fn known(
    worker: &Worker,
    workload: &WorkloadState,
    key: &DestinationKey,
) -> Result<Arc<DestinationState>, Refusal> {
    match worker.state.resolve(key).await {
        Resolution::Present(state) => Ok(state),
        Resolution::Absent => Err(match workload.config.mesh.outbound_policy {
            OutboundPolicy::RegistryOnly => Refusal::UnknownDestination,
            OutboundPolicy::AllowAny => Refusal::NoRoute,
        }),
        Resolution::Unanswered => Err(Refusal::Unanswered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_what_is_forwarded() {
        let path = Path::of("/a/../b/%2e/c?q=/../#x", PathNormalization::Base).expect("safe");
        assert_eq!((path.whole(), path.path(), path.query()), ("/b/c?q=/../", "/b/c", Some("q=/../")));
        assert_eq!(path.rewritten.as_deref(), Some("/b/c?q=/../"));
    }

    #[test]
    fn a_fragment_is_never_forwarded() {
        let path = Path::of("/a#b", PathNormalization::None).expect("safe");
        assert_eq!(path.rewritten.as_deref(), Some("/a"));
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        let path = Path::of("/a?b", PathNormalization::Base).expect("safe");
        assert_eq!((path.rewritten.as_deref(), path.path()), (None, "/a"));
    }

    #[test]
    fn an_encoded_nul_is_refused() {
        assert!(matches!(Path::of("/a%00b", PathNormalization::Base), Err(Refusal::BadRequest { .. })));
    }
}
