//! Istio's standard metrics (<https://istio.io/latest/docs/reference/config/metrics/>), with its labels.
//!
//! A label set is resolved to handles once and the handles are kept by the worker, keyed by what varies:
//! peer identity, called side, status, flags. A request costs one look-up in that small map and four updates.
//! Label values come from the mesh's own configuration and from bounded sets, never from what a client sent;
//! should there be more sets than [`SERIES_MAX`], the rest fold into one set named `overflow`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::model::telemetry::StandardMetric;
use metrics::{Counter, Histogram, Label, counter, describe_counter, describe_histogram, histogram};

use super::record::{DestinationLabels, Flag, HttpFields, LocalWorkload, PeerLabels, labels_of_identity};
use super::rules::SideRules;
use crate::connection::{Connection, Direction};

/// Label sets that one worker keeps handles for.
pub const SERIES_MAX: usize = 4096;

/// Requests, by response.
pub const REQUESTS_TOTAL: &str = "istio_requests_total";
/// Duration of requests, in milliseconds.
pub const REQUEST_DURATION: &str = "istio_request_duration_milliseconds";
/// Size of request bodies, in bytes.
pub const REQUEST_BYTES: &str = "istio_request_bytes";
/// Size of response bodies, in bytes.
pub const RESPONSE_BYTES: &str = "istio_response_bytes";
/// Byte streams opened.
pub const TCP_OPENED: &str = "istio_tcp_connections_opened_total";
/// Byte streams closed.
pub const TCP_CLOSED: &str = "istio_tcp_connections_closed_total";
/// Bytes sent to the client of byte streams.
pub const TCP_SENT: &str = "istio_tcp_sent_bytes_total";
/// Bytes received from the client of byte streams.
pub const TCP_RECEIVED: &str = "istio_tcp_received_bytes_total";
/// Access-log lines lost.
pub const ACCESS_LOG_DROPPED: &str = "mesh_proxy_access_log_dropped_lines_total";
/// Questions to the resolver, by outcome.
pub const DNS_QUERIES: &str = "mesh_proxy_dns_queries_total";
/// Records whose labels folded into `overflow`.
pub const SERIES_FOLDED: &str = "mesh_proxy_metric_series_folded_total";

/// HTTP/2 connections closed because of what their peer did, by reason.
pub const HTTP2_CLOSED_ON_PEER: &str = "mesh_proxy_http2_connections_closed_on_peer_total";

/// Registers the help texts of the metrics of this module with the installed recorder.
pub fn describe() {
    describe_counter!(REQUESTS_TOTAL, "Requests handled, by peer, called service and response.");
    describe_histogram!(REQUEST_DURATION, "Time from a request's head to the end of its response.");
    describe_histogram!(REQUEST_BYTES, "Size of request bodies.");
    describe_histogram!(RESPONSE_BYTES, "Size of response bodies.");
    describe_counter!(TCP_OPENED, "Byte streams opened.");
    describe_counter!(TCP_CLOSED, "Byte streams closed.");
    describe_counter!(TCP_SENT, "Bytes sent to the client of a byte stream.");
    describe_counter!(TCP_RECEIVED, "Bytes received from the client of a byte stream.");
    describe_counter!(ACCESS_LOG_DROPPED, "Access-log lines lost because the log could not keep up.");
    describe_counter!(HTTP2_CLOSED_ON_PEER, "HTTP/2 connections closed because of what their peer did.");
    describe_counter!(DNS_QUERIES, "Questions of the application to the resolver, by what became of them.");
    describe_counter!(SERIES_FOLDED, "Records whose labels were folded into the overflow set.");
}

/// What an HTTP record's labels are made of.
#[derive(Debug)]
pub struct HttpSeries<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The caller, when known by more than its identity.
    pub source: Option<&'a PeerLabels>,
    /// The own workload.
    pub local: &'a LocalWorkload,
    /// The record.
    pub fields: &'a HttpFields,
    /// What Telemetry says about metrics.
    pub rules: &'a SideRules,
    /// Values that its labels get from the record.
    pub values: &'a [String],
}

/// What a byte stream's labels are made of.
#[derive(Debug)]
pub struct TcpSeries<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// The caller, when known by more than its identity.
    pub source: Option<&'a PeerLabels>,
    /// The own workload.
    pub local: &'a LocalWorkload,
    /// The called side.
    pub destination: Option<&'a DestinationLabels>,
    /// Response flag.
    pub flag: Flag,
    /// The hop was mesh TLS.
    pub mutual_tls: bool,
    /// What Telemetry says about metrics.
    pub rules: &'a SideRules,
    /// Values that its labels get from the record.
    pub values: &'a [String],
}

/// Handles of one label set; none of a metric that is off.
#[derive(Debug)]
struct HttpHandles {
    requests: Option<Counter>,
    duration: Option<Histogram>,
    request_bytes: Option<Histogram>,
    response_bytes: Option<Histogram>,
}

#[derive(Debug)]
struct TcpHandles {
    opened: Option<Counter>,
    closed: Option<Counter>,
    sent: Option<Counter>,
    received: Option<Counter>,
}

/// Labels of each metric: the standard ones, with the changes of Telemetry.
struct LabelSet<'a> {
    standard: Vec<Label>,
    /// `None` for the set that everything beyond the bound folds into.
    changes: Option<&'a [String]>,
    rules: &'a SideRules,
}

impl LabelSet<'_> {
    /// The labels of a metric, unless it is off.
    fn of(&self, metric: StandardMetric) -> Option<Vec<Label>> {
        (!self.rules.is_disabled(metric)).then(|| match self.changes {
            Some(values) => self.rules.labels(metric, &self.standard, values),
            None => self.standard.clone(),
        })
    }
}

/// Handles of one worker. Keys are 64-bit hashes of the label set's parts; a collision would add a record to
/// another set's counters, which at [`SERIES_MAX`] sets has a chance of about 5e-13.
#[derive(Debug, Default)]
pub struct ExchangeMetrics {
    http: RefCell<HashMap<u64, HttpHandles, Prehashed>>,
    tcp: RefCell<HashMap<u64, TcpHandles, Prehashed>>,
    folded: Cell<u64>,
}

/// The key is a hash already.
#[derive(Debug, Clone, Copy, Default)]
struct Prehashed;

/// Hands the key through.
#[derive(Debug, Default)]
struct Identity(u64);

impl std::hash::BuildHasher for Prehashed {
    type Hasher = Identity;
    fn build_hasher(&self) -> Identity {
        Identity(0)
    }
}

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

impl ExchangeMetrics {
    /// Drops all handles: the own workload's labels changed.
    pub fn forget(&self) {
        self.http.borrow_mut().clear();
        self.tcp.borrow_mut().clear();
    }

    /// Counts one HTTP exchange.
    pub fn record_http(&self, series: &HttpSeries<'_>, elapsed: Duration) {
        let mut known = self.http.borrow_mut();
        let mut key = http_key(series);
        let is_full = known.len() >= SERIES_MAX;
        let folds = is_full && !known.contains_key(&key);
        if folds {
            key = 0;
            self.fold();
        }
        let handles = known.entry(key).or_insert_with(|| {
            let standard = if folds { overflow(series.connection.direction) } else { http_labels(series) };
            let changes = (!folds).then_some(series.values);
            HttpHandles::new(&LabelSet { standard, changes, rules: series.rules })
        });
        let fields = series.fields;
        increment(handles.requests.as_ref(), 1);
        let record = |histogram: Option<&Histogram>, value: f64| {
            if let Some(histogram) = histogram {
                histogram.record(value);
            }
        };
        record(handles.duration.as_ref(), elapsed.as_secs_f64() * 1000.0);
        record(handles.request_bytes.as_ref(), bytes_as_f64(fields.bytes_received));
        record(handles.response_bytes.as_ref(), bytes_as_f64(fields.bytes_sent));
    }

    /// Counts a byte stream as opened.
    pub fn open_tcp(&self, series: &TcpSeries<'_>) {
        self.with_tcp(series, |handles| increment(handles.opened.as_ref(), 1));
    }

    /// Counts bytes of a byte stream that goes on.
    pub fn carry_tcp(&self, series: &TcpSeries<'_>, received: u64, sent: u64) {
        self.with_tcp(series, |handles| {
            increment(handles.received.as_ref(), received);
            increment(handles.sent.as_ref(), sent);
        });
    }

    /// Counts a byte stream as closed, with the bytes that were not counted before.
    pub fn close_tcp(&self, series: &TcpSeries<'_>, received: u64, sent: u64) {
        self.with_tcp(series, |handles| {
            increment(handles.closed.as_ref(), 1);
            increment(handles.received.as_ref(), received);
            increment(handles.sent.as_ref(), sent);
        });
    }

    fn with_tcp(&self, series: &TcpSeries<'_>, update: impl FnOnce(&TcpHandles)) {
        let mut known = self.tcp.borrow_mut();
        let mut key = tcp_key(series);
        let folds = known.len() >= SERIES_MAX && !known.contains_key(&key);
        if folds {
            key = 0;
            self.fold();
        }
        let handles = known.entry(key).or_insert_with(|| {
            let standard = if folds { overflow(series.connection.direction) } else { tcp_labels(series) };
            let changes = (!folds).then_some(series.values);
            TcpHandles::new(&LabelSet { standard, changes, rules: series.rules })
        });
        update(handles);
    }

    fn fold(&self) {
        self.folded.set(self.folded.get() + 1);
        counter!(SERIES_FOLDED).increment(1);
    }
}

impl HttpHandles {
    fn new(labels: &LabelSet<'_>) -> Self {
        Self {
            requests: labels.of(StandardMetric::RequestCount).map(|labels| counter!(REQUESTS_TOTAL, labels)),
            duration: labels
                .of(StandardMetric::RequestDuration)
                .map(|labels| histogram!(REQUEST_DURATION, labels)),
            request_bytes: labels
                .of(StandardMetric::RequestSize)
                .map(|labels| histogram!(REQUEST_BYTES, labels)),
            response_bytes: labels
                .of(StandardMetric::ResponseSize)
                .map(|labels| histogram!(RESPONSE_BYTES, labels)),
        }
    }
}

impl TcpHandles {
    fn new(labels: &LabelSet<'_>) -> Self {
        Self {
            opened: labels
                .of(StandardMetric::TcpOpenedConnections)
                .map(|labels| counter!(TCP_OPENED, labels)),
            closed: labels
                .of(StandardMetric::TcpClosedConnections)
                .map(|labels| counter!(TCP_CLOSED, labels)),
            sent: labels.of(StandardMetric::TcpSentBytes).map(|labels| counter!(TCP_SENT, labels)),
            received: labels
                .of(StandardMetric::TcpReceivedBytes)
                .map(|labels| counter!(TCP_RECEIVED, labels)),
        }
    }
}

fn increment(counter: Option<&Counter>, by: u64) {
    if let Some(counter) = counter {
        counter.increment(by);
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes above 2^53 bytes lose a unit, which no bucket sees")]
fn bytes_as_f64(bytes: u64) -> f64 {
    bytes as f64
}

fn http_key(series: &HttpSeries<'_>) -> u64 {
    let fields = series.fields;
    let mut hasher = DefaultHasher::new();
    hash_ends(&mut hasher, series.connection, series.source, fields.destination.as_deref());
    (fields.status, fields.grpc_status, fields.flag, fields.mutual_tls, fields.is_grpc).hash(&mut hasher);
    series.values.hash(&mut hasher);
    hasher.finish().max(1)
}

fn tcp_key(series: &TcpSeries<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    hash_ends(&mut hasher, series.connection, series.source, series.destination);
    (series.flag, series.mutual_tls, series.values).hash(&mut hasher);
    hasher.finish().max(1)
}

fn hash_ends(
    hasher: &mut DefaultHasher,
    connection: &Connection,
    source: Option<&PeerLabels>,
    destination: Option<&DestinationLabels>,
) {
    connection.direction.hash(hasher);
    connection.peer_identity().map(|identity| identity.as_str()).hash(hasher);
    source.map(|source| (source.workload.as_str(), source.namespace.as_str())).hash(hasher);
    destination.map(|called| (called.cluster.as_str(), called.workload.workload.as_str())).hash(hasher);
}

fn http_labels(series: &HttpSeries<'_>) -> Vec<Label> {
    let fields = series.fields;
    let mut labels = end_labels(
        series.connection,
        series.source,
        series.local,
        fields.destination.as_deref(),
        fields.mutual_tls,
    );
    labels.push(Label::from_static_parts("request_protocol", if fields.is_grpc { "grpc" } else { "http" }));
    labels.push(Label::new("response_code", fields.status.to_string()));
    let grpc = fields.grpc_status.map_or(String::new(), |status| status.to_string());
    labels.push(Label::new("grpc_response_status", grpc));
    labels.push(Label::from_static_parts("response_flags", fields.flag.as_str()));
    labels
}

fn tcp_labels(series: &TcpSeries<'_>) -> Vec<Label> {
    let mut labels =
        end_labels(series.connection, series.source, series.local, series.destination, series.mutual_tls);
    labels.push(Label::from_static_parts("request_protocol", "tcp"));
    labels.push(Label::from_static_parts("response_flags", series.flag.as_str()));
    labels
}

fn end_labels(
    connection: &Connection,
    source: Option<&PeerLabels>,
    local: &LocalWorkload,
    destination: Option<&DestinationLabels>,
    mutual_tls: bool,
) -> Vec<Label> {
    let nobody = Arc::new(PeerLabels::default());
    let (caller, called) = match connection.direction {
        Direction::Outbound => {
            (local.labels.clone(), destination.map_or_else(|| (*nobody).clone(), |d| d.workload.clone()))
        }
        Direction::Inbound => {
            let by_identity = connection.peer_identity().map(labels_of_identity);
            let caller = source.cloned().or(by_identity).unwrap_or_default();
            (caller, local.labels.clone())
        }
    };
    let mut labels = vec![Label::from_static_parts("reporter", connection.direction.reporter())];
    push_workload(&mut labels, &SOURCE_KEYS, &caller);
    push_workload(&mut labels, &DESTINATION_KEYS, &called);
    let service = |pick: fn(&DestinationLabels) -> &String| known(destination.map_or("", |d| pick(d)));
    labels.push(Label::new("destination_service", service(|d| &d.service)));
    labels.push(Label::new("destination_service_name", service(|d| &d.service_name)));
    labels.push(Label::new("destination_service_namespace", service(|d| &d.service_namespace)));
    labels.push(Label::from_static_parts("source_cluster", CLUSTER));
    labels.push(Label::from_static_parts("destination_cluster", CLUSTER));
    let security = if mutual_tls { "mutual_tls" } else { "none" };
    labels.push(Label::from_static_parts("connection_security_policy", security));
    labels
}

/// Istio's name for the one cluster of a mesh that names none.
const CLUSTER: &str = "Kubernetes";

const SOURCE_KEYS: [&str; 7] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
];
const DESTINATION_KEYS: [&str; 7] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
];

fn push_workload(labels: &mut Vec<Label>, keys: &[&'static str; 7], workload: &PeerLabels) {
    let values = [
        &workload.workload,
        &workload.namespace,
        &workload.principal,
        &workload.app,
        &workload.version,
        &workload.canonical_service,
        &workload.canonical_revision,
    ];
    for (key, value) in keys.iter().zip(values) {
        labels.push(Label::new(*key, known(value)));
    }
}

/// Istio writes `unknown` for what it does not know.
fn known(value: &str) -> String {
    if value.is_empty() { "unknown".to_owned() } else { value.to_owned() }
}

fn overflow(direction: Direction) -> Vec<Label> {
    let mut labels = vec![Label::from_static_parts("reporter", direction.reporter())];
    for key in SOURCE_KEYS.iter().chain(&DESTINATION_KEYS) {
        labels.push(Label::from_static_parts(key, "overflow"));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn connection(direction: Direction) -> Connection {
        Connection {
            id: 1,
            direction,
            peer: "10.0.0.1:4000".parse().expect("address"),
            destination: "10.0.0.2:8080".parse().expect("address"),
            tls: None,
            accepted: Instant::now(),
        }
    }

    #[test]
    fn label_sets_are_bounded_and_the_rest_folds() {
        let metrics = ExchangeMetrics::default();
        let connection = connection(Direction::Inbound);
        let local = LocalWorkload::default();
        for number in 0..SERIES_MAX + 5 {
            let destination =
                DestinationLabels { cluster: number.to_string(), ..DestinationLabels::default() };
            let fields = HttpFields { destination: Some(Arc::new(destination)), ..HttpFields::default() };
            let series = HttpSeries {
                connection: &connection,
                source: None,
                local: &local,
                fields: &fields,
                rules: &SideRules::default(),
                values: &[],
            };
            metrics.record_http(&series, Duration::from_millis(1));
        }
        assert_eq!(metrics.http.borrow().len(), SERIES_MAX + 1);
        assert_eq!(metrics.folded.get(), 5);
    }

    #[test]
    fn the_reporter_decides_which_end_is_the_own_workload() {
        let local = LocalWorkload { labels: PeerLabels { workload: "me".into(), ..PeerLabels::default() } };
        for (direction, key) in
            [(Direction::Inbound, "destination_workload"), (Direction::Outbound, "source_workload")]
        {
            let labels = end_labels(&connection(direction), None, &local, None, false);
            let own = labels.iter().find(|label| label.value() == "me").expect("own workload is labelled");
            assert_eq!(own.key(), key);
        }
    }
}
