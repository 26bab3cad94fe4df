//! Probes and HTTP lifecycle handlers of the application, led to the proxy's status port.
//!
//! What the kubelet asks stays the same in time and number; only whom it asks changes, and the proxy is told
//! what to ask in turn ([`mesh_api::model::probe`]). Left as they are: `exec` and `sleep`, which use no
//! network; a probe with a host of its own, which does not ask this pod; what the API server will refuse.

use std::collections::BTreeMap;

use mesh_api::model::probe::{
    AppProbe, AppProbeHandler, AppProbeKind, GrpcHealth, HttpGet, ProbeHeader, ProbeScheme, TcpSocket,
};
use serde_json::{Map, Value, json};

use super::pod;
use crate::name;

/// Where probes stand in a container.
const PROBES: [(&str, AppProbeKind); 3] = [
    ("livenessProbe", AppProbeKind::Liveness),
    ("readinessProbe", AppProbeKind::Readiness),
    ("startupProbe", AppProbeKind::Startup),
];

/// Where handlers stand in a container's `lifecycle`.
const HANDLERS: [(&str, AppProbeKind); 2] =
    [("preStop", AppProbeKind::PreStop), ("postStart", AppProbeKind::PostStart)];

/// Grace period of a pod that states none (Kubernetes, PodSpec).
pub(super) const GRACE_SECONDS: u32 = 30;
/// Time for a `postStart` handler, for which Kubernetes has no limit.
const POST_START_SECONDS: u32 = 600;

/// Rewrites what a container has and adds what it was.
pub(super) fn rewrite(
    container: &mut Value,
    grace_seconds: u32,
    originals: &mut BTreeMap<String, AppProbe>,
    warnings: &mut Vec<String>,
) {
    let before = container.clone();
    let mut change = |place: &mut Value, field: &str, kind: AppProbeKind, default_seconds: u32| {
        let Some(probe) = place.get_mut(field).and_then(Value::as_object_mut) else { return };
        match original(probe, kind, &before, default_seconds) {
            Ok(Some(original)) => {
                let path = kind.path(pod::text(&before, "name"));
                for handler in ["httpGet", "tcpSocket", "grpc"] {
                    probe.remove(handler);
                }
                let get = json!({"path": path, "port": name::PORT_PROXY_STATUS, "scheme": "HTTP"});
                probe.insert("httpGet".to_owned(), get);
                originals.insert(path, original);
            }
            Ok(None) => {}
            Err(NoSuchPort(port)) => warnings.push(format!(
                "{field} of the container {:?} asks the port {port:?}, which that container does not name; it is left as it is",
                pod::text(&before, "name")
            )),
        }
    };
    for (field, kind) in PROBES {
        change(container, field, kind, 1);
    }
    let Some(lifecycle) = container.get_mut("lifecycle") else { return };
    for (field, kind) in HANDLERS {
        let seconds = if kind == AppProbeKind::PreStop { grace_seconds } else { POST_START_SECONDS };
        change(lifecycle, field, kind, seconds.max(1));
    }
}

/// Whether a container has something that [`rewrite`] would change.
pub(super) fn has_any(container: &Value) -> bool {
    rewrite_count(container) > 0
}

fn rewrite_count(container: &Value) -> usize {
    let mut originals = BTreeMap::new();
    rewrite(&mut container.clone(), GRACE_SECONDS, &mut originals, &mut Vec::new());
    originals.len()
}

/// Puts back what [`rewrite`] has changed.
pub(super) fn restore(container: &mut Value, originals: &BTreeMap<String, AppProbe>) {
    let name = pod::text(container, "name").to_owned();
    let put_back = |place: &mut Value, field: &str, kind: AppProbeKind| {
        let Some(probe) = place.get_mut(field).and_then(Value::as_object_mut) else { return };
        let Some(original) = originals.get(&kind.path(&name)) else { return };
        probe.remove("httpGet");
        // Of a probe, only the handler is written back; its times were never changed.
        if let Ok(Value::Object(written)) = serde_json::to_value(original) {
            let handler = written.into_iter().filter(|(key, _)| key != "timeoutSeconds");
            probe.extend(handler.map(|(key, value)| (key, without_empty(value))));
        }
    };
    for (field, kind) in PROBES {
        put_back(container, field, kind);
    }
    let Some(lifecycle) = container.get_mut("lifecycle") else { return };
    for (field, kind) in HANDLERS {
        put_back(lifecycle, field, kind);
    }
}

fn without_empty(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let is_empty = |value: &Value| value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty);
    Value::Object(fields.into_iter().filter(|(_, value)| !is_empty(value)).collect())
}

/// A port by a name that the container does not have.
struct NoSuchPort(String);

/// What a probe asks; `None` when it is to be left alone.
fn original(
    probe: &Map<String, Value>,
    kind: AppProbeKind,
    container: &Value,
    default_seconds: u32,
) -> Result<Option<AppProbe>, NoSuchPort> {
    let is_probe = match kind {
        AppProbeKind::Liveness | AppProbeKind::Readiness | AppProbeKind::Startup => true,
        // Of lifecycle handlers only HTTP ones are executed (Kubernetes, LifecycleHandler).
        AppProbeKind::PreStop | AppProbeKind::PostStart => false,
    };
    let handler = if let Some(get) = probe.get("httpGet").and_then(Value::as_object) {
        http_get(get, container)?.map(AppProbeHandler::HttpGet)
    } else if let Some(socket) = probe.get("tcpSocket").and_then(Value::as_object).filter(|_| is_probe) {
        own_port(socket, container)?.map(|port| AppProbeHandler::TcpSocket(TcpSocket { port }))
    } else if let Some(grpc) = probe.get("grpc").and_then(Value::as_object).filter(|_| is_probe) {
        let service = grpc.get("service").and_then(Value::as_str).unwrap_or_default().to_owned();
        own_port(grpc, container)?.map(|port| AppProbeHandler::Grpc(GrpcHealth { port, service }))
    } else {
        None
    };
    let stated = probe.get("timeoutSeconds").and_then(Value::as_u64).and_then(|s| u32::try_from(s).ok());
    let timeout_seconds = stated.filter(|seconds| *seconds > 0).unwrap_or(default_seconds);
    Ok(handler.map(|handler| AppProbe { handler, timeout_seconds }))
}

fn http_get(get: &Map<String, Value>, container: &Value) -> Result<Option<HttpGet>, NoSuchPort> {
    let Some(port) = own_port(get, container)? else { return Ok(None) };
    let text = |field: &str| get.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let scheme = match text("scheme").as_str() {
        "" | "HTTP" => ProbeScheme::Http,
        "HTTPS" => ProbeScheme::Https,
        _ => return Ok(None),
    };
    let header = |header: &Value| ProbeHeader {
        name: pod::text(header, "name").to_owned(),
        value: pod::text(header, "value").to_owned(),
    };
    let headers = get.get("httpHeaders").and_then(Value::as_array);
    let http_headers = headers.map(|headers| headers.iter().map(header).collect()).unwrap_or_default();
    Ok(Some(HttpGet { path: text("path"), port, scheme, host: String::new(), http_headers }))
}

/// The port of a handler that asks this pod; `None` for one that asks another host, or nothing sensible.
fn own_port(handler: &Map<String, Value>, container: &Value) -> Result<Option<u16>, NoSuchPort> {
    if handler.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
        return Ok(None);
    }
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match handler.get("port") {
        Some(Value::String(name)) => {
            let ports = container.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let named = ports.iter().find(|port| pod::text(port, "name") == name);
            let found = named.and_then(|port| number(port.get("containerPort")?));
            // A number as text is a number to the kubelet.
            match found.or_else(|| name.parse().ok()) {
                Some(port) => Some(port),
                None => return Err(NoSuchPort(name.clone())),
            }
        }
        Some(value) => number(value),
        None => None,
    };
    Ok(port.filter(|port| *port > 0))
}
