//! Telemetry: what is logged, counted and traced, as its author wrote it, and as it holds for one workload.
//!
//! The first half is the object (SEMANTICS 9.1); the second ([`WorkloadTelemetry`]) is what is left when every
//! object that concerns a workload has been merged (9.2), which is what its proxy is sent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Selector, TargetRef};

/// A Telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Metadata.
    pub meta: ObjectMeta,
    /// Workloads it concerns; empty for all of the namespace, or of the mesh in the root namespace.
    #[serde(default)]
    pub selector: Selector,
    /// Gateways and services it concerns; with one, no sidecar is concerned.
    #[serde(default)]
    pub targets: Vec<TargetRef>,
    /// Access logs.
    #[serde(default)]
    pub access_logging: Vec<AccessLogging>,
    /// Traces.
    #[serde(default)]
    pub tracing: Vec<Tracing>,
    /// Metrics.
    #[serde(default)]
    pub metrics: Vec<Metrics>,
}

/// Which side of an exchange an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// The caller's: outbound.
    Client,
    /// The called: inbound.
    Server,
}

impl WorkloadMode {
    /// Whether it covers a side.
    #[must_use]
    pub fn covers(self, side: Side) -> bool {
        match self {
            Self::ClientAndServer => true,
            Self::Client => side == Side::Client,
            Self::Server => side == Side::Server,
        }
    }
}

/// One side of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Outbound.
    Client,
    /// Inbound.
    Server,
}

impl Side {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];
}

/// One entry of `accessLogging`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLogging {
    /// Providers by name; none inherits those of the wider level.
    pub providers: Vec<String>,
    /// Side.
    pub mode: WorkloadMode,
    /// Turns the providers off.
    pub disabled: bool,
    /// Expression that a record must fulfil to be logged ([`crate::cel`]).
    pub filter: Option<String>,
}

/// One entry of `tracing`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// Providers by name; none inherits that of the wider level.
    pub providers: Vec<String>,
    /// Side.
    pub mode: WorkloadMode,
    /// Requests traced without a decision before, in millionths (1 % is 10 000).
    pub sampling_ppm: Option<u32>,
    /// Whether spans are made and not reported.
    pub disable_span_reporting: Option<bool>,
    /// Tags of spans by name.
    pub custom_tags: Option<BTreeMap<String, CustomTag>>,
    /// Whether the request's id decides about sampling.
    pub use_request_id: Option<bool>,
    /// Whether spans carry Istio's own tags.
    pub enable_istio_tags: Option<bool>,
}

/// Where the value of a span's tag comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CustomTag {
    /// This text.
    Literal(String),
    /// A variable of the proxy's environment, or else a default.
    Environment(String, String),
    /// A header of the request, or else a default.
    Header(String, String),
    /// A pattern of the access log.
    Formatter(String),
    /// Nothing is stated.
    Nothing,
}

/// One entry of `metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Providers by name; none inherits those of the wider level.
    pub providers: Vec<String>,
    /// Changes to the standard metrics, in order.
    pub overrides: Vec<MetricsOverride>,
    /// Time between reports, in milliseconds; Prometheus asks when it wants to.
    pub reporting_interval_ms: Option<u64>,
}

/// One change to metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsOverride {
    /// Which metrics.
    pub metric: MetricSelector,
    /// Side.
    pub mode: WorkloadMode,
    /// Whether they are off; `None` leaves that as it is.
    pub disabled: Option<bool>,
    /// Changes to labels by name.
    pub tags: BTreeMap<String, TagOverride>,
}

/// Which metrics a change is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricSelector {
    /// Every one.
    #[default]
    All,
    /// A standard one.
    Standard(StandardMetric),
    /// One by another name, of which this mesh has none.
    Custom(String),
}

/// Istio's standard metrics (<https://istio.io/latest/docs/reference/config/metrics/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StandardMetric {
    /// `istio_requests_total`.
    RequestCount,
    /// `istio_request_duration_milliseconds`.
    RequestDuration,
    /// `istio_request_bytes`.
    RequestSize,
    /// `istio_response_bytes`.
    ResponseSize,
    /// `istio_tcp_connections_opened_total`.
    TcpOpenedConnections,
    /// `istio_tcp_connections_closed_total`.
    TcpClosedConnections,
    /// `istio_tcp_sent_bytes_total`.
    TcpSentBytes,
    /// `istio_tcp_received_bytes_total`.
    TcpReceivedBytes,
    /// `istio_request_messages_total`.
    GrpcRequestMessages,
    /// `istio_response_messages_total`.
    GrpcResponseMessages,
}

impl StandardMetric {
    /// Every one.
    pub const ALL: [Self; 10] = [
        Self::RequestCount,
        Self::RequestDuration,
        Self::RequestSize,
        Self::ResponseSize,
        Self::TcpOpenedConnections,
        Self::TcpClosedConnections,
        Self::TcpSentBytes,
        Self::TcpReceivedBytes,
        Self::GrpcRequestMessages,
        Self::GrpcResponseMessages,
    ];
}

/// A change to a label.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TagOverride {
    /// The label has the value of this expression ([`crate::cel`]).
    Upsert(String),
    /// The label is left out.
    Remove,
}

/// Telemetry of one workload, merged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkloadTelemetry {
    /// What it does as a caller.
    pub client: SideTelemetry,
    /// What it does as the called.
    pub server: SideTelemetry,
}

impl WorkloadTelemetry {
    /// The half of a side.
    #[must_use]
    pub fn side(&self, side: Side) -> &SideTelemetry {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    /// The half of a side, to be changed.
    pub fn side_mut(&mut self, side: Side) -> &mut SideTelemetry {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

/// Telemetry of one side of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SideTelemetry {
    /// The access log.
    pub access_log: AccessLogRule,
    /// Metrics that are off.
    pub disabled_metrics: BTreeSet<StandardMetric>,
    /// Changes to labels.
    pub tags: BTreeMap<StandardMetric, BTreeMap<String, TagOverride>>,
    /// Traces.
    pub tracing: TracingRule,
}

/// When the access log has a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogRule {
    /// As the settings of the mesh have it (`accessLogFile`).
    #[default]
    OfMesh,
    /// Never.
    Off,
    /// When one of these expressions holds; none stands for always.
    On(Vec<String>),
}

/// How traces are made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracingRule {
    /// Where spans go; `None` for nowhere.
    pub provider: Option<String>,
    /// Requests traced without a decision before, in millionths.
    pub sampling_ppm: Option<u32>,
    /// Whether spans are made and not reported.
    pub is_silent: bool,
    /// Tags of spans by name.
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Whether the request's id decides about sampling.
    pub use_request_id: Option<bool>,
    /// Whether spans carry Istio's own tags.
    pub enable_istio_tags: Option<bool>,
}
