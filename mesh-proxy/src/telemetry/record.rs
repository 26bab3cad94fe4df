//! The record of one HTTP exchange or one byte stream, and the guard that emits it exactly once.
//!
//! Records are taken from a free list of their worker and given back on drop with their buffers cleared but
//! not freed, so that a request in the steady state allocates nothing for telemetry.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh_api::model::AccessLogFormat;
use mesh_api::name::SpiffeId;
use mesh_policy::authorize::Explanation;

use super::access_log::{self, AccessLog, FLUSH_INTERVAL, WorkerLog};
use super::active::ActiveRequests;
use super::attributes::{HttpView, TcpView};
use super::denials::Denials;
use super::explaining::{self, Explaining};
use super::metrics::{ExchangeMetrics, HttpSeries, TcpSeries};
use super::rules::{HEADER_BYTES_MAX, Rules};
use crate::connection::{Connection, Direction};

/// Records kept for reuse by one worker; more are freed.
const FREE_RECORDS_MAX: usize = 256;

/// Bytes of a stream between two updates of its metrics.
const REPORT_BYTES: u64 = 1024 * 1024;

/// Envoy's response flags, as far as this proxy sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Flag {
    /// Nothing to say.
    #[default]
    None,
    /// `DC`: the downstream ended the connection.
    DownstreamConnectionTermination,
    /// `UF`: the upstream connection could not be made.
    UpstreamConnectionFailure,
    /// `UC`: the upstream connection ended early.
    UpstreamConnectionTermination,
    /// `UH`: no healthy endpoint.
    NoHealthyUpstream,
    /// `UO`: a limit of the upstream was reached.
    UpstreamOverflow,
    /// `UT`: the upstream did not answer in time.
    UpstreamTimeout,
    /// `URX`: the upstream's own answer, for which no retry was left.
    UpstreamRetryLimitExceeded,
    /// `UF,URX`: no upstream connection could be made, and no retry was left.
    ConnectionFailureAtRetryLimit,
    /// `UC,URX`: the upstream connection ended early, and no retry was left.
    ConnectionTerminationAtRetryLimit,
    /// `UT,URX`: the upstream did not answer in time, and no retry was left.
    TimeoutAtRetryLimit,
    /// `NR`: no route.
    NoRoute,
    /// `NC`: the destination is not known (yet).
    NoCluster,
    /// `DPE`: the downstream broke the protocol.
    DownstreamProtocolError,
    /// `UPE`: the upstream broke the protocol.
    UpstreamProtocolError,
    /// `DT`: the downstream was too slow, or the connection's time was up.
    DurationTimeout,
    /// `LR`: reset by this proxy.
    LocalReset,
    /// `UAEX`: refused by an external authorizer.
    UnauthorizedExternal,
}

impl Flag {
    /// The letters of the access log, `-` for none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::DownstreamConnectionTermination => "DC",
            Self::UpstreamConnectionFailure => "UF",
            Self::UpstreamConnectionTermination => "UC",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamOverflow => "UO",
            Self::UpstreamTimeout => "UT",
            Self::UpstreamRetryLimitExceeded => "URX",
            Self::ConnectionFailureAtRetryLimit => "UF,URX",
            Self::ConnectionTerminationAtRetryLimit => "UC,URX",
            Self::TimeoutAtRetryLimit => "UT,URX",
            Self::NoRoute => "NR",
            Self::NoCluster => "NC",
            Self::DownstreamProtocolError => "DPE",
            Self::UpstreamProtocolError => "UPE",
            Self::DurationTimeout => "DT",
            Self::LocalReset => "LR",
            Self::UnauthorizedExternal => "UAEX",
        }
    }

    /// The same with `URX`: another attempt was wanted, and none was left. What has nothing to do with attempts
    /// stays as it is.
    #[must_use]
    pub fn at_retry_limit(self) -> Self {
        match self {
            Self::None => Self::UpstreamRetryLimitExceeded,
            Self::UpstreamConnectionFailure => Self::ConnectionFailureAtRetryLimit,
            Self::UpstreamConnectionTermination => Self::ConnectionTerminationAtRetryLimit,
            Self::UpstreamTimeout => Self::TimeoutAtRetryLimit,
            other => other,
        }
    }
}

/// Who is at fault when an exchange fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FaultDomain {
    /// Nobody: it did not fail.
    #[default]
    None,
    /// The caller.
    Client,
    /// The caller's proxy.
    ClientProxy,
    /// What lies between.
    Network,
    /// The proxy of the workload called.
    ServerProxy,
    /// The application called.
    App,
    /// The control plane.
    ControlPlane,
    /// Policy refused.
    Policy,
}

impl FaultDomain {
    /// The word in the access log, `-` for none.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Client => "client",
            Self::ClientProxy => "client-proxy",
            Self::Network => "network",
            Self::ServerProxy => "server-proxy",
            Self::App => "app",
            Self::ControlPlane => "control-plane",
            Self::Policy => "policy",
        }
    }
}

/// What policy decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Verdict {
    /// Policy was not asked (outbound, or the exchange ended before).
    #[default]
    NotJudged,
    /// Allowed.
    Allowed,
    /// Refused.
    Denied,
}

impl Verdict {
    /// The word in the access log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJudged => "-",
            Self::Allowed => "allow",
            Self::Denied => "deny",
        }
    }
}

/// Labels of the workload and service called, resolved once per endpoint (outbound) or port (inbound).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PeerLabels {
    /// Workload name.
    pub workload: String,
    /// Workload namespace.
    pub namespace: String,
    /// Label `app`.
    pub app: String,
    /// Label `version`.
    pub version: String,
    /// `service.istio.io/canonical-name`, or `app`, or the workload.
    pub canonical_service: String,
    /// `service.istio.io/canonical-revision`, or `version`, or `latest`.
    pub canonical_revision: String,
    /// SPIFFE id.
    pub principal: String,
}

/// Everything about the called side that labels need.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct DestinationLabels {
    /// The workload called.
    pub workload: PeerLabels,
    /// Service host.
    pub service: String,
    /// Service name.
    pub service_name: String,
    /// Service namespace.
    pub service_namespace: String,
    /// Envoy's cluster name, `outbound|80||host` or `inbound|8080||`.
    pub cluster: String,
}

/// The fields of an HTTP exchange that stages fill in. Text fields are cleared, not freed, between uses.
#[derive(Debug, Default)]
pub struct HttpFields {
    /// Method.
    pub method: String,
    /// Path and query as received.
    pub original_path: String,
    /// Path and query as judged and forwarded.
    pub path: String,
    /// Authority.
    pub authority: String,
    /// `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'static str,
    /// Whether the request is gRPC by its content type.
    pub is_grpc: bool,
    /// Headers for the log.
    pub user_agent: String,
    /// `x-request-id`.
    pub request_id: String,
    /// `x-forwarded-for`.
    pub forwarded_for: String,
    /// Further headers that expressions of Telemetry read, by name in lower case; repeated lines are joined.
    pub kept_headers: Vec<(String, String)>,
    /// Response status; 0 when none was sent.
    pub status: u16,
    /// gRPC status from trailers or headers.
    pub grpc_status: Option<u32>,
    /// Body bytes from the downstream.
    pub bytes_received: u64,
    /// Body bytes to the downstream.
    pub bytes_sent: u64,
    /// Response flag.
    pub flag: Flag,
    /// Who is at fault.
    pub fault: FaultDomain,
    /// `response_code_details`: `via_upstream`, `rbac_access_denied_matched_policy[…]`, … .
    pub details: String,
    /// Why the upstream connection failed.
    pub transport_failure: String,
    /// Verdict of policy.
    pub verdict: Verdict,
    /// `ns[…]-policy[…]-rule[…]` of the deciding rule, empty for none.
    pub policy: String,
    /// Why, in words; empty when allowed.
    pub reason: String,
    /// The AUDIT rule that matched, empty for none.
    pub audit: String,
    /// Names a refusal; 0 before there is one.
    pub decision_id: u64,
    /// The account of a refusal, as JSON, when there was time to write one.
    pub explanation: Option<Box<str>>,
    /// Upstream address.
    pub upstream: Option<SocketAddr>,
    /// Called side.
    pub destination: Option<Arc<DestinationLabels>>,
    /// Route name.
    pub route: String,
    /// Time to the upstream's response head, in microseconds.
    pub upstream_service_micros: Option<u64>,
    /// Attempts made upstream; 0 when none.
    pub attempts: u32,
    /// Another attempt was wanted, and none was left.
    pub is_at_retry_limit: bool,
    /// The hop to or from the peer was mesh TLS. For outbound: to the upstream.
    pub mutual_tls: bool,
}

impl HttpFields {
    fn clear(&mut self) {
        let Self { method, original_path, path, authority, .. } = self;
        let Self { user_agent, request_id, forwarded_for, details, .. } = self;
        for text in [method, original_path, path, authority, user_agent, request_id, forwarded_for, details] {
            text.clear();
        }
        let Self { transport_failure, policy, reason, audit, route, .. } = self;
        for text in [transport_failure, policy, reason, audit, route] {
            text.clear();
        }
        self.kept_headers.clear();
        self.decision_id = 0;
        self.explanation = None;
        self.protocol = "HTTP/1.1";
        self.is_grpc = false;
        self.status = 0;
        self.grpc_status = None;
        self.bytes_received = 0;
        self.bytes_sent = 0;
        self.flag = Flag::None;
        self.fault = FaultDomain::None;
        self.verdict = Verdict::NotJudged;
        self.upstream = None;
        self.destination = None;
        self.upstream_service_micros = None;
        self.attempts = 0;
        self.is_at_retry_limit = false;
        self.mutual_tls = false;
    }
}

/// The record of one HTTP exchange; emits when dropped.
#[derive(Debug)]
pub struct HttpRecord {
    fields: Option<Box<HttpFields>>,
    worker: WorkerTelemetry,
    connection: Rc<Connection>,
    started: Instant,
    /// What the drop reports when no status was set: the exchange was cut.
    source: Option<Arc<PeerLabels>>,
    /// What held when the request came: its headers were kept for that.
    rules: Rc<Rules>,
}

impl std::ops::Deref for HttpRecord {
    type Target = HttpFields;
    fn deref(&self) -> &HttpFields {
        self.fields.as_ref().expect("taken only by drop")
    }
}

impl std::ops::DerefMut for HttpRecord {
    fn deref_mut(&mut self) -> &mut HttpFields {
        self.fields.as_mut().expect("taken only by drop")
    }
}

impl HttpRecord {
    /// When the request's head was complete.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The connection that the request came on.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Names the calling workload, when it is known.
    pub fn set_source(&mut self, source: Arc<PeerLabels>) {
        self.source = Some(source);
    }

    /// Whether expressions read headers of requests, which are to be handed to [`Self::keep_header`] then.
    #[must_use]
    pub fn keeps_headers(&self) -> bool {
        !self.rules.headers().is_empty()
    }

    /// Keeps a header line if an expression reads it.
    pub fn keep_header(&mut self, name: &[u8], value: &[u8]) {
        let rules = Rc::clone(&self.rules);
        let read = rules.headers().iter().find(|read| name.eq_ignore_ascii_case(read.as_bytes()));
        let (Some(name), Ok(value)) = (read, std::str::from_utf8(value)) else { return };
        let kept = self.kept_headers.iter_mut().find(|(kept, _)| kept == name);
        match kept {
            Some((_, lines)) if lines.len() + value.len() < HEADER_BYTES_MAX => {
                lines.push(',');
                lines.push_str(value);
            }
            Some(_) => {}
            None if value.len() <= HEADER_BYTES_MAX => {
                self.kept_headers.push((name.clone(), value.to_owned()));
            }
            None => {}
        }
    }

    /// Keeps the account of a refusal if there is time to write one: under a flood of refusals only some are
    /// explained, and alike ones are explained once.
    pub fn explain(&mut self, explain: impl FnOnce() -> Explanation) {
        if self.worker.inner.explaining.may_explain_http(&self.connection, self) {
            self.explanation = explaining::text(explain());
        }
    }

    /// The id of the decision, for the peer of a refused request. Only a peer of the mesh is told: to strangers
    /// an id says how often, and whether twice the same proxy, refused them.
    #[must_use]
    pub fn told_decision(&mut self) -> Option<String> {
        if self.verdict != Verdict::Denied || self.connection.peer_identity().is_none() {
            return None;
        }
        Some(format!("{:016x}", self.named_decision()))
    }

    /// The id of the decision, which is drawn when it is first asked for.
    fn named_decision(&mut self) -> u64 {
        if self.decision_id == 0 {
            self.decision_id = fastrand::u64(1..);
        }
        self.decision_id
    }

    /// Says that policy refused: rule id (`None` when no ALLOW matched), reason in words.
    ///
    /// # Panics
    /// Never: the fields are there until the record is dropped.
    pub fn deny(&mut self, rule: Option<&dyn std::fmt::Display>, reason: &str) {
        self.verdict = Verdict::Denied;
        self.fault = FaultDomain::Policy;
        self.reason.push_str(reason);
        let fields = self.fields.as_mut().expect("taken only by drop");
        if let Some(rule) = rule {
            let _infallible = write!(fields.policy, "{rule}");
        }
        let policy = if fields.policy.is_empty() { "none" } else { fields.policy.as_str() };
        let _infallible = write!(fields.details, "rbac_access_denied_matched_policy[{policy}]");
    }
}

impl Drop for HttpRecord {
    fn drop(&mut self) {
        if self.fields.as_ref().is_some_and(|fields| fields.verdict == Verdict::Denied) {
            self.named_decision();
        }
        let Some(mut fields) = self.fields.take() else { return };
        let elapsed = self.started.elapsed();
        if fields.status == 0 && fields.flag == Flag::None {
            fields.flag = Flag::DownstreamConnectionTermination;
            fields.fault = FaultDomain::Client;
            if fields.details.is_empty() {
                fields.details.push_str("downstream_remote_disconnect");
            }
        }
        if fields.is_at_retry_limit {
            fields.flag = fields.flag.at_retry_limit();
        }
        let inner = &self.worker.inner;
        let rules = self.rules.of(self.connection.direction);
        let view = HttpView { connection: &self.connection, fields: &fields, elapsed };
        inner.metrics.record_http(
            &HttpSeries {
                connection: &self.connection,
                source: self.source.as_deref(),
                local: &inner.local.borrow(),
                fields: &fields,
                rules,
                values: &rules.values(&view),
            },
            elapsed,
        );
        if fields.verdict == Verdict::Denied {
            inner.shared.denials.note_http(&self.connection, &fields);
        }
        if inner.log.is_on()
            && let Some(format) = rules.log_format(inner.format.get(), &view)
        {
            let now = SystemTime::now();
            inner.log.line(|line| {
                access_log::write_http(line, format, &self.connection, &fields, elapsed, now);
            });
        }
        fields.clear();
        let mut free = inner.free_http.borrow_mut();
        if free.len() < FREE_RECORDS_MAX {
            free.push(fields);
        }
    }
}

/// The record of one byte stream (or of a connection that ended before it carried a request).
#[derive(Debug)]
pub struct TcpRecord {
    worker: WorkerTelemetry,
    connection: Rc<Connection>,
    source: Option<Arc<PeerLabels>>,
    opened: bool,
    /// Bytes from and to the downstream that metrics know of already.
    reported: (u64, u64),
    /// Bytes from the downstream.
    pub bytes_received: u64,
    /// Bytes to the downstream.
    pub bytes_sent: u64,
    /// Flag.
    pub flag: Flag,
    /// Who is at fault.
    pub fault: FaultDomain,
    /// `connection_termination_details`.
    pub details: String,
    /// Why the upstream connection failed.
    pub transport_failure: String,
    /// Verdict of policy.
    pub verdict: Verdict,
    /// Deciding rule, empty for none.
    pub policy: String,
    /// Why, in words.
    pub reason: String,
    /// The AUDIT rule that matched, empty for none.
    pub audit: String,
    /// Names a refusal; 0 before there is one.
    pub decision_id: u64,
    /// The account of a refusal, as JSON, when there was time to write one.
    pub explanation: Option<Box<str>>,
    /// Upstream address.
    pub upstream: Option<SocketAddr>,
    /// Called side.
    pub destination: Option<Arc<DestinationLabels>>,
    /// The hop to or from the peer was mesh TLS.
    pub mutual_tls: bool,
    /// Nothing is to be emitted: the connection carried HTTP, whose requests are recorded each.
    silent: bool,
}

impl TcpRecord {
    /// The connection recorded.
    #[must_use]
    pub fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Names the calling workload, when it is known.
    pub fn set_source(&mut self, source: Arc<PeerLabels>) {
        self.source = Some(source);
    }

    /// Counts the stream as opened, once its destination is known and it was allowed.
    pub fn opened(&mut self) {
        if !self.opened {
            self.opened = true;
            let inner = Rc::clone(&self.worker.inner);
            self.with_series(|series| inner.metrics.open_tcp(series));
        }
    }

    /// Tells metrics of what has passed, once there is enough of it: a stream may live for days.
    pub fn report_if_due(&mut self) {
        let total = self.bytes_received + self.bytes_sent;
        if total - (self.reported.0 + self.reported.1) >= REPORT_BYTES {
            let (received, sent) = self.take_unreported();
            self.with_series(|series| self.worker.inner.metrics.carry_tcp(series, received, sent));
        }
    }

    fn take_unreported(&mut self) -> (u64, u64) {
        let before = std::mem::replace(&mut self.reported, (self.bytes_received, self.bytes_sent));
        (self.bytes_received - before.0, self.bytes_sent - before.1)
    }

    /// Gives the record up: the connection turned out to carry HTTP.
    pub fn hand_over_to_http(mut self) {
        self.silent = true;
    }

    /// Keeps the account of a refusal, as [`HttpRecord::explain`].
    pub fn explain(&mut self, explain: impl FnOnce() -> Explanation) {
        if self.worker.inner.explaining.may_explain_tcp(&self.connection) {
            self.explanation = explaining::text(explain());
        }
    }

    /// Says that policy refused.
    pub fn deny(&mut self, rule: Option<&dyn std::fmt::Display>, reason: &str) {
        self.verdict = Verdict::Denied;
        self.fault = FaultDomain::Policy;
        self.reason.clear();
        self.reason.push_str(reason);
        self.policy.clear();
        if let Some(rule) = rule {
            let _infallible = write!(self.policy, "{rule}");
        }
        let policy = if self.policy.is_empty() { "none" } else { self.policy.as_str() };
        self.details = format!("rbac_access_denied_matched_policy[{policy}]");
    }

    fn with_series(&self, update: impl FnOnce(&TcpSeries<'_>)) {
        let inner = &self.worker.inner;
        let rules = Rc::clone(&inner.rules.borrow());
        let rules = rules.of(self.connection.direction);
        update(&TcpSeries {
            connection: &self.connection,
            source: self.source.as_deref(),
            local: &inner.local.borrow(),
            destination: self.destination.as_deref(),
            flag: self.flag,
            mutual_tls: self.mutual_tls,
            rules,
            values: &rules.values(&TcpView(self)),
        });
    }
}

impl Drop for TcpRecord {
    fn drop(&mut self) {
        if self.silent {
            return;
        }
        self.opened();
        if self.verdict == Verdict::Denied {
            self.decision_id = fastrand::u64(1..);
        }
        let inner = Rc::clone(&self.worker.inner);
        let (received, sent) = self.take_unreported();
        self.with_series(|series| inner.metrics.close_tcp(series, received, sent));
        if self.verdict == Verdict::Denied {
            inner.shared.denials.note_tcp(&self.connection, self);
        }
        let rules = Rc::clone(&inner.rules.borrow());
        let rules = rules.of(self.connection.direction);
        if inner.log.is_on()
            && let Some(format) = rules.log_format(inner.format.get(), &TcpView(self))
        {
            inner.log.line(|line| access_log::write_tcp(line, format, self, SystemTime::now()));
        }
    }
}

/// The own workload, for labels.
#[derive(Debug, Clone, Default)]
pub struct LocalWorkload {
    /// Labels of the own workload.
    pub labels: PeerLabels,
}

#[derive(Debug)]
struct Shared {
    log: AccessLog,
    denials: Arc<Denials>,
    active: ActiveRequests,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    metrics: ExchangeMetrics,
    format: std::cell::Cell<AccessLogFormat>,
    local: RefCell<LocalWorkload>,
    rules: RefCell<Rc<Rules>>,
    explaining: Explaining,
    log: WorkerLog,
    #[expect(
        clippy::vec_box,
        reason = "boxes go in and out whole; without them every record would be copied"
    )]
    free_http: RefCell<Vec<Box<HttpFields>>>,
}

/// The process's telemetry: where records of all workers end up.
#[derive(Debug, Clone)]
pub struct Telemetry {
    shared: Arc<Shared>,
}

impl Telemetry {
    /// Telemetry that writes access-log lines to `log` and refusals to `denials`.
    #[must_use]
    pub fn new(log: AccessLog, denials: Arc<Denials>) -> Self {
        Self { shared: Arc::new(Shared { log, denials, active: ActiveRequests::default() }) }
    }

    /// The part of one worker. Its metric handles are its own cache of the process's recorder.
    #[must_use]
    pub fn worker(&self) -> WorkerTelemetry {
        WorkerTelemetry {
            inner: Rc::new(Inner {
                shared: Arc::clone(&self.shared),
                metrics: ExchangeMetrics::default(),
                format: std::cell::Cell::new(AccessLogFormat::Json),
                local: RefCell::default(),
                rules: RefCell::default(),
                explaining: Explaining::default(),
                log: WorkerLog::new(self.shared.log.clone()),
                free_http: RefCell::default(),
            }),
        }
    }

    /// What is in flight to each endpoint, over all workers.
    #[must_use]
    pub fn active(&self) -> &ActiveRequests {
        &self.shared.active
    }

    /// The refusals, for the admin socket.
    #[must_use]
    pub fn denials(&self) -> &Arc<Denials> {
        &self.shared.denials
    }
}

/// One worker's telemetry; cheap to clone within the worker.
#[derive(Debug, Clone)]
pub struct WorkerTelemetry {
    inner: Rc<Inner>,
}

impl WorkerTelemetry {
    /// Takes over what configuration says: log format, the own workload's labels, and its Telemetry. Called when
    /// the configuration changes, not per request.
    pub fn configure(&self, format: AccessLogFormat, local: LocalWorkload, rules: Rules) {
        self.inner.format.set(format);
        *self.inner.rules.borrow_mut() = Rc::new(rules);
        *self.inner.local.borrow_mut() = local;
        self.inner.metrics.forget();
        self.inner.explaining.forget();
    }

    /// Hands buffered access-log lines on, every [`FLUSH_INTERVAL`], for as long as it is polled. Each worker
    /// runs it beside its connections; dropping it loses nothing, since the last handle flushes too.
    pub async fn flush_periodically(&self) {
        let mut ticks = tokio::time::interval(FLUSH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.inner.log.flush();
        }
    }

    /// A record for a request whose head was just read.
    #[must_use]
    pub fn http(&self, connection: &Rc<Connection>) -> HttpRecord {
        let mut fields = self.inner.free_http.borrow_mut().pop().unwrap_or_default();
        fields.protocol = "HTTP/1.1";
        if connection.direction == Direction::Inbound {
            fields.mutual_tls = connection.tls.is_some();
        }
        HttpRecord {
            fields: Some(fields),
            worker: self.clone(),
            connection: Rc::clone(connection),
            started: Instant::now(),
            source: None,
            rules: Rc::clone(&self.inner.rules.borrow()),
        }
    }

    /// A record for a connection that was just accepted.
    #[must_use]
    pub fn tcp(&self, connection: &Rc<Connection>) -> TcpRecord {
        TcpRecord {
            worker: self.clone(),
            connection: Rc::clone(connection),
            source: None,
            opened: false,
            reported: (0, 0),
            bytes_received: 0,
            bytes_sent: 0,
            flag: Flag::None,
            fault: FaultDomain::None,
            details: String::new(),
            transport_failure: String::new(),
            verdict: Verdict::NotJudged,
            policy: String::new(),
            reason: String::new(),
            audit: String::new(),
            decision_id: 0,
            explanation: None,
            upstream: None,
            destination: None,
            mutual_tls: connection.direction == Direction::Inbound && connection.tls.is_some(),
            silent: false,
        }
    }
}

/// Labels of a peer of whom only the identity is known.
#[must_use]
pub fn labels_of_identity(identity: &SpiffeId) -> PeerLabels {
    let (namespace, _account) = identity.workload_parts().unwrap_or(("unknown", "unknown"));
    PeerLabels {
        workload: "unknown".to_owned(),
        namespace: namespace.to_owned(),
        app: "unknown".to_owned(),
        version: "unknown".to_owned(),
        canonical_service: "unknown".to_owned(),
        canonical_revision: "latest".to_owned(),
        principal: identity.as_str().to_owned(),
    }
}
