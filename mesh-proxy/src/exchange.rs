//! What happens to one request, decided before a byte of it is forwarded: the path in its one form, policy,
//! the route, and from those the plan. Both codecs ask here and nowhere else.

pub mod budget;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderName;
use mesh_api::model::destination::Retries;
use mesh_api::model::{DestinationKey, OutboundPolicy, PathNormalization};
use mesh_policy::authenticate::TokenRequest;
use mesh_policy::authorize::{External, HeaderValues, HttpAttributes, RuleId};
use mesh_policy::normalize;

use crate::authz::{self, Grounds, Permit, Token};
use crate::connection::{Connection, Direction};
use crate::ext_authz::edit::{EditableLines, Edits, HeaderEdit, How};
use crate::ext_authz::{self, Asked, Changes, Client, Held, HttpAsked, Lines, Outcome};
use crate::respond::{ExternalCause, Refusal};
use crate::route;
use crate::state::{DestinationState, Resolution, WorkloadState};
use crate::telemetry::HttpRecord;
use crate::trial::{Beside, Seen};
use crate::worker::Worker;

/// A request's head, whichever codec read it.
pub trait RequestHead: Lines {
    /// Method.
    fn method(&self) -> &str;
    /// Authority with its port, as sent.
    fn authority(&self) -> &str;
    /// Path and query, as sent.
    fn target(&self) -> &str;
    /// Header lines.
    fn headers(&self) -> &dyn HeaderValues;
    /// Header lines, to be changed before they are judged.
    fn lines_mut(&mut self) -> &mut dyn EditableLines;
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
    /// Header lines that an authorizer has put on the response.
    pub response: Option<Box<Edits>>,
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

/// Decides about one request, and makes the changes to its head that authorizers and tokens ask for. `client`
/// is where the rest of it comes from.
///
/// # Errors
/// The refusal to answer with; the record then says why.
pub async fn plan<H: RequestHead, C: Client>(
    worker: &Worker,
    connection: &Connection,
    request: &mut H,
    client: &mut C,
    record: &mut HttpRecord,
) -> Result<Plan, Refusal> {
    let state = worker.state.load();
    let Some(workload) = &state.workload else { return Err(Refusal::NotReady) };
    let is_inbound = connection.direction == Direction::Inbound;
    if is_inbound && !workload.is_judged_at_once() {
        let workload = Arc::clone(workload);
        drop(state);
        // Apart, so that requests of workloads without such policies do not pay for its size.
        return Box::pin(judged_in_steps(worker, &workload, connection, request, client, record)).await;
    }
    let path = Path::of(request.target(), workload.config.mesh.path_normalization)?;
    record.path.push_str(path.whole());
    if is_inbound {
        return inbound(worker, workload, connection, request, path, record);
    }
    let workload = Arc::clone(workload);
    drop(state);
    outbound(worker, &workload, connection, request, path, record).await
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
    worker: &Worker,
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
    let mut beside = Beside::of(workload, connection, worker.state.unknown_keys());
    if let Some(beside) = &mut beside {
        let seen = seen(request, path.whole());
        beside.judge(&seen);
        beside.judge_rest(&seen);
    }
    let permit = authz::request(workload, connection, http, None, record).map_err(|_| Refusal::Denied);
    if let Some(beside) = beside {
        beside.settle(permit.as_ref().map(drop), record);
    }
    Ok(Plan::to_application(permit?, path.rewritten))
}

impl Plan {
    fn to_application(permit: Permit, path: Option<String>) -> Self {
        Self { permit, path, hop: Hop::Application, timeout: None, retries: None, response: None }
    }
}

/// The path that policies judge: what stands before the query.
#[must_use]
pub fn policy_path(target: &str) -> &str {
    target.split('?').next().unwrap_or(target)
}

/// Judges a request as SEMANTICS 4.1 orders it: CUSTOM, the token, then AUDIT, DENY and ALLOW. Each step sees
/// what the one before made of the request, and the last form is the one that is forwarded.
///
/// Dropping the future gives a check up; nothing was forwarded then.
async fn judged_in_steps<H: RequestHead, C: Client>(
    worker: &Worker,
    workload: &Arc<WorkloadState>,
    connection: &Connection,
    request: &mut H,
    client: &mut C,
    record: &mut HttpRecord,
) -> Result<Plan, Refusal> {
    if authz::is_peer_expired(connection, SystemTime::now()) {
        return Err(Refusal::PeerExpired);
    }
    let mut judging = Judging {
        worker,
        workload,
        connection,
        beside: Beside::of(workload, connection, worker.state.unknown_keys()),
    };
    let plan = judging.walk(request, client, record).await;
    if let Some(beside) = judging.beside {
        beside.settle(plan.as_ref().map(drop), record);
    }
    plan
}

/// What requests are judged by, step by step.
struct Judging<'a> {
    worker: &'a Worker,
    workload: &'a WorkloadState,
    connection: &'a Connection,
    /// The policies that are tried.
    beside: Option<Beside<'a>>,
}

impl Judging<'_> {
    async fn walk<H: RequestHead, C: Client>(
        &mut self,
        request: &mut H,
        client: &mut C,
        record: &mut HttpRecord,
    ) -> Result<Plan, Refusal> {
        let Self { worker, workload, connection, beside } = self;
        let mut target =
            Path::of(request.target(), workload.config.mesh.path_normalization)?.whole().to_owned();
        record.path.push_str(&target);
        if let Some(beside) = beside {
            beside.judge(&seen(request, &target));
        }
        let mut grounds = Box::<Grounds>::default();
        let mut response = None;
        let external = {
            let headers = JudgedHeaders::new(request.headers(), &target);
            workload
                .authorizer
                .external(&authz::attributes(connection, Some(judged(request, &headers, &target))))
        };
        match external {
            External::NotAsked => {}
            External::Refuse { rule, reason } => {
                authz::refuse_unasked(workload, rule, reason, record);
                return Err(Refusal::Denied);
            }
            External::Ask { provider, rule } => {
                let subject = Subject { worker, workload, connection, target: &target };
                if let Some(beside) = beside {
                    beside.note_asked(provider);
                }
                let changes = subject.ask((provider, rule), request, client, record).await?;
                grounds.note_asked(provider);
                if let Some(changes) = changes {
                    changes.request.apply(request.lines_mut());
                    if let Some(changed) = changes.query.apply(&target) {
                        target = changed;
                    }
                    response = (!changes.response.is_empty()).then(|| Box::new(changes.response));
                }
            }
        }
        if let Some(beside) = beside {
            beside.judge_rest(&seen(request, &target));
        }
        if !workload.authenticator.is_empty() {
            let token = verify(worker, workload, request, &mut target, record)?;
            grounds.note_token(token);
        }
        record.path.clear();
        record.path.push_str(&target);
        let headers = JudgedHeaders::new(request.headers(), &target);
        let http = judged(request, &headers, &target);
        let permit =
            authz::request(workload, connection, http, Some(grounds), record).map_err(|_| Refusal::Denied)?;
        let path = (target != request.target()).then_some(target);
        Ok(Plan { response, ..Plan::to_application(permit, path) })
    }
}

/// A request for policies that are tried.
fn seen<'a, H: RequestHead>(request: &'a H, target: &'a str) -> Seen<'a> {
    Seen { method: request.method(), authority: request.authority(), target, lines: request.headers() }
}

fn judged<'a, H: RequestHead>(
    request: &'a H,
    headers: &'a JudgedHeaders<'a>,
    target: &'a str,
) -> HttpAttributes<'a> {
    HttpAttributes {
        method: request.method(),
        authority: request.authority(),
        path: policy_path(target),
        headers,
        claims: None,
    }
}

/// What an authorizer is asked about.
struct Subject<'a> {
    worker: &'a Worker,
    workload: &'a WorkloadState,
    connection: &'a Connection,
    target: &'a str,
}

impl Subject<'_> {
    /// Asks, and gives the changes with which the request passes.
    async fn ask<H: RequestHead, C: Client>(
        &self,
        (provider, rule): (&str, RuleId),
        request: &H,
        client: &mut C,
        record: &mut HttpRecord,
    ) -> Result<Option<Box<Changes>>, Refusal> {
        // Policies ask only such providers as the mesh knows; should one be missing, nothing is let pass.
        let Some(authorizer) = self.workload.config.mesh.authorizer(provider) else {
            return Err(Refusal::Denied);
        };
        let stated = client.stated_length();
        if stated.is_some_and(|length| ext_authz::is_too_long(authorizer, length)) {
            return Err(Refusal::BodyTooLarge);
        }
        let limit = ext_authz::body_limit(authorizer, stated);
        let held = match limit {
            Some(limit) => client.hold(limit).await?,
            None => Held::default(),
        };
        let limit_or_none = limit.unwrap_or_default();
        if ext_authz::is_too_long(authorizer, held.bytes.len() as u64) {
            return Err(Refusal::BodyTooLarge);
        }
        let body = &held.bytes[..held.bytes.len().min(limit_or_none)];
        let is_whole = held.is_whole && body.len() == held.bytes.len();
        let asked = Asked {
            connection: self.connection,
            http: Some(HttpAsked {
                method: request.method(),
                authority: request.authority(),
                target: self.target,
                protocol: record.protocol,
                request_id: &record.request_id,
                lines: request,
                body,
                is_whole: limit.map(|_| is_whole),
                size: if is_whole { Some(body.len() as u64) } else { stated },
            }),
        };
        let gone = |context: &mut std::task::Context<'_>| client.poll_gone(context);
        let outcome = ext_authz::check(self.worker, (provider, authorizer), &asked, gone).await;
        authz::note_external(self.workload, (provider, rule), &outcome, record);
        match outcome {
            Outcome::Pass(changes) => Ok(Some(changes)),
            Outcome::PassUnasked => Ok(None),
            Outcome::Refused(answer) => Err(Refusal::External { answer, cause: ExternalCause::Denied }),
            Outcome::Failed(answer) => Err(Refusal::External { answer, cause: ExternalCause::Error }),
            Outcome::Gone => Err(Refusal::Abandoned),
        }
    }
}

/// Verifies the tokens of a request and makes the changes that the rules ask for.
fn verify<H: RequestHead>(
    worker: &Worker,
    workload: &WorkloadState,
    request: &mut H,
    target: &mut String,
    record: &mut HttpRecord,
) -> Result<Token, Refusal> {
    let now = SystemTime::now();
    let headers = JudgedHeaders::new(request.headers(), target);
    let asked = TokenRequest {
        method: request.method(),
        scheme: "http",
        authority: request.authority(),
        target,
        headers: &headers,
    };
    let authenticated = match workload.authenticator.authenticate(&asked, now) {
        Ok(authenticated) => authenticated,
        Err(refused) => {
            if let Some(key) = &refused.unknown_key {
                worker.state.unknown_keys().report(&key.source, &key.kid);
            }
            authz::count_token_refusal(workload, &refused);
            return Err(Refusal::Token(Box::new(refused)));
        }
    };
    let mut token = Token {
        verified_by: Arc::clone(&workload.authenticator),
        verified_at: now,
        claims: authenticated.claims,
        taken: Vec::new(),
        effects: authenticated.effects,
        target: target.clone(),
    };
    for name in token.effects.removed() {
        request.headers().visit(name, &mut |value| {
            token.taken.push((name.to_owned(), value.to_vec()));
            true
        });
        // A name that is none is no line of any request.
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            request.lines_mut().remove_line(&name);
        }
    }
    for (name, value) in token.effects.added() {
        match HeaderEdit::new(name, value.as_bytes(), How::Add) {
            Ok(HeaderEdit { name, value, .. }) => request.lines_mut().add_line(&name, &value),
            Err(error) => tracing::debug!(%error, "claim cannot be put into a header"),
        }
    }
    if let Some(changed) = token.effects.target() {
        changed.clone_into(target);
        // The token was in the query, and logs are no place for it.
        changed.clone_into(&mut record.original_path);
    }
    Ok(token)
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
    Ok(Plan { permit, path: path.rewritten, hop, timeout, retries, response: None })
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
