//! Probes of an application that its proxy answers for it.
//!
//! The kubelet has no certificate, so under STRICT a probe that goes to the application itself fails, and
//! without interception of its port it would open that port for everybody. So injection turns every probe into
//! a request to the proxy's status port and tells the proxy, in one environment variable, what each path stands
//! for. Only the listed paths are answered; a path that is not listed opens nothing.
//!
//! Injection writes these values and the proxy reads them: one type, so that both mean the same. Ports are
//! numbers here; names are resolved by injection, which sees the container.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Environment variable with an [`AppProbes`] as JSON.
pub const APP_PROBES_ENV: &str = "MESH_PROXY_APP_PROBES";

/// Original handlers by path of the proxy's status port: `/app-health/CONTAINER/{livez|readyz|startupz}` and
/// `/app-lifecycle/CONTAINER/{prestop|poststart}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppProbes(pub BTreeMap<String, AppProbe>);

/// Which question of the kubelet a path answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppProbeKind {
    /// `livenessProbe`.
    Liveness,
    /// `readinessProbe`.
    Readiness,
    /// `startupProbe`.
    Startup,
    /// `lifecycle.preStop`.
    PreStop,
    /// `lifecycle.postStart`.
    PostStart,
}

impl AppProbeKind {
    /// The path of a container's probe.
    #[must_use]
    pub fn path(self, container: &str) -> String {
        match self {
            Self::Liveness => format!("/app-health/{container}/livez"),
            Self::Readiness => format!("/app-health/{container}/readyz"),
            Self::Startup => format!("/app-health/{container}/startupz"),
            Self::PreStop => format!("/app-lifecycle/{container}/prestop"),
            Self::PostStart => format!("/app-lifecycle/{container}/poststart"),
        }
    }
}

/// One probe as its author wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct AppProbe {
    /// What is asked.
    pub handler: AppProbeHandler,
    /// Time allowed, in seconds, at least 1. Default 1, as in Kubernetes.
    pub timeout_seconds: u32,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppProbeHandler {
    /// A GET; good is a status from 200 to 399.
    HttpGet(HttpGet),
    /// A connection.
    TcpSocket(TcpSocket),
    /// The health service of gRPC.
    Grpc(GrpcHealth),
}

/// [`AppProbe`] as it is written: the handler is a field beside the time, as in a pod.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    http_get: Option<HttpGet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tcp_socket: Option<TcpSocket>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc: Option<GrpcHealth>,
    /// Default of Kubernetes (`Probe` v1 core): 1.
    #[serde(default)]
    timeout_seconds: Option<u32>,
}

/// Why a value is no probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppProbeError {
    /// None or several handlers.
    #[error("a probe has exactly one of httpGet, tcpSocket and grpc")]
    Handlers,
    /// A time of 0.
    #[error("timeoutSeconds must be at least 1")]
    Timeout,
}

impl TryFrom<Written> for AppProbe {
    type Error = AppProbeError;

    fn try_from(written: Written) -> Result<Self, AppProbeError> {
        let handler = match (written.http_get, written.tcp_socket, written.grpc) {
            (Some(get), None, None) => AppProbeHandler::HttpGet(get),
            (None, Some(socket), None) => AppProbeHandler::TcpSocket(socket),
            (None, None, Some(health)) => AppProbeHandler::Grpc(health),
            _ => return Err(AppProbeError::Handlers),
        };
        match written.timeout_seconds.unwrap_or(1) {
            0 => Err(AppProbeError::Timeout),
            timeout_seconds => Ok(Self { handler, timeout_seconds }),
        }
    }
}

impl From<AppProbe> for Written {
    fn from(probe: AppProbe) -> Self {
        let timeout_seconds = Some(probe.timeout_seconds);
        match probe.handler {
            AppProbeHandler::HttpGet(get) => Self { http_get: Some(get), timeout_seconds, ..Self::default() },
            AppProbeHandler::TcpSocket(socket) => {
                Self { tcp_socket: Some(socket), timeout_seconds, ..Self::default() }
            }
            AppProbeHandler::Grpc(health) => Self { grpc: Some(health), timeout_seconds, ..Self::default() },
        }
    }
}

/// `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    /// Path with query; empty stands for `/`.
    #[serde(default)]
    pub path: String,
    /// Port of the application.
    pub port: u16,
    /// Whether TLS is spoken; certificates are not verified, as the kubelet does not.
    #[serde(default)]
    pub scheme: ProbeScheme,
    /// Always empty: a probe with a host of its own is not rewritten.
    #[serde(default)]
    pub host: String,
    /// Header fields in order; a `Host` among them is the request's authority.
    #[serde(default)]
    pub http_headers: Vec<ProbeHeader>,
}

/// `scheme` of an [`HttpGet`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeScheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTP over TLS.
    Https,
}

/// A header field of an [`HttpGet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeHeader {
    /// Name.
    pub name: String,
    /// Value.
    #[serde(default)]
    pub value: String,
}

/// `tcpSocket`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpSocket {
    /// Port of the application.
    pub port: u16,
}

/// `grpc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcHealth {
    /// Port of the application.
    pub port: u16,
    /// Name of the service that is asked about; empty for the whole server.
    #[serde(default)]
    pub service: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_as_they_are_written() {
        let text = r#"{"/app-health/db/livez":{"tcpSocket":{"port":5432},"timeoutSeconds":3},"/app-health/g/livez":{"grpc":{"port":9000,"service":"x"},"timeoutSeconds":1},"/app-health/web/readyz":{"httpGet":{"path":"/ready","port":8080,"scheme":"HTTPS","host":"","httpHeaders":[{"name":"X","value":"y"}]},"timeoutSeconds":1}}"#;
        let probes: AppProbes = serde_json::from_str(text).expect("probes");
        assert_eq!(serde_json::to_string(&probes).expect("JSON"), text);
        assert_eq!(
            probes.0.get(&AppProbeKind::Liveness.path("db")).map(|probe| probe.timeout_seconds),
            Some(3)
        );
    }

    #[test]
    fn what_is_not_stated_has_the_default_of_kubernetes() {
        let probe: AppProbe = serde_json::from_str(r#"{"httpGet":{"port":80}}"#).expect("a probe");
        assert_eq!(probe.timeout_seconds, 1);
        assert!(
            matches!(probe.handler, AppProbeHandler::HttpGet(get) if get.scheme == ProbeScheme::Http && get.path.is_empty())
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            r#"{"timeoutSeconds":1}"#,
            r#"{"exec":{"command":["true"]}}"#,
            r#"{"httpGet":{"port":"http"}}"#,
            r#"{"tcpSocket":{"port":1,"host":"x"}}"#,
            r#"{"tcpSocket":{"port":1},"other":1}"#,
            r#"{"tcpSocket":{"port":1},"grpc":{"port":1}}"#,
            r#"{"tcpSocket":{"port":1},"timeoutSeconds":0}"#,
        ] {
            assert!(serde_json::from_str::<AppProbe>(text).is_err(), "{text}");
        }
    }
}
