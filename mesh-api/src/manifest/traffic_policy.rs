//! `trafficPolicy` of a DestinationRule (SEMANTICS section 11).

use super::fields::Fields;
use super::report::Report;
use super::shape::Shape;
use super::tree::{Found, Place};
use crate::model::Balance;
use crate::model::traffic::{ClientTlsMode, TrafficPolicy};

/// Where a policy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// `spec.trafficPolicy`.
    Host,
    /// `spec.subsets[].trafficPolicy`.
    Subset,
    /// An entry of `portLevelSettings`.
    Port,
}

/// A policy with those of single ports.
#[derive(Debug, Clone, Default)]
pub(super) struct Policies {
    pub(super) policy: TrafficPolicy,
    pub(super) port_level: Vec<(u16, TrafficPolicy)>,
}

impl Policies {
    /// Whether some call is stated to be in plaintext.
    pub(super) fn has_plaintext(&self) -> bool {
        let is_plain = |policy: &TrafficPolicy| policy.tls == Some(ClientTlsMode::Disable);
        is_plain(&self.policy) || self.port_level.iter().any(|(_, policy)| is_plain(policy))
    }
}

const SECTIONS: [&str; 4] = ["loadBalancer", "connectionPool", "outlierDetection", "tls"];
const OTHERS: [&str; 4] = ["portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"];

const TCP_KEEPALIVE: Shape =
    Shape::Object(&[("probes", Shape::Count), ("time", Shape::Duration), ("interval", Shape::Duration)]);
const HTTP_POOL: Shape = Shape::Object(&[
    ("http1MaxPendingRequests", Shape::Count),
    ("http2MaxRequests", Shape::Count),
    ("maxRequestsPerConnection", Shape::Count),
    ("maxRetries", Shape::Count),
    ("idleTimeout", Shape::Duration),
    ("h2UpgradePolicy", Shape::OneOf(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"])),
    ("useClientProtocol", Shape::Boolean),
    ("maxConcurrentStreams", Shape::Count),
]);
const OUTLIER_DETECTION: Shape = Shape::Object(&[
    ("consecutiveErrors", Shape::Count),
    ("consecutive5xxErrors", Shape::Count),
    ("consecutiveGatewayErrors", Shape::Count),
    ("consecutiveLocalOriginFailures", Shape::Count),
    ("splitExternalLocalOriginErrors", Shape::Boolean),
    ("interval", Shape::Duration),
    ("baseEjectionTime", Shape::Duration),
    ("maxEjectionPercent", Shape::Number(0.0, 100.0)),
    ("minHealthPercent", Shape::Number(0.0, 100.0)),
]);
const CONSISTENT_HASH: Shape = Shape::Object(&[
    ("httpHeaderName", Shape::Text),
    (
        "httpCookie",
        Shape::Object(&[
            ("name", Shape::Text),
            ("path", Shape::Text),
            ("ttl", Shape::Duration),
            ("attributes", Shape::Any),
        ]),
    ),
    ("useSourceIp", Shape::Boolean),
    ("httpQueryParameterName", Shape::Text),
    ("minimumRingSize", Shape::Count),
    ("ringHash", Shape::Object(&[("minimumRingSize", Shape::Count)])),
    ("maglev", Shape::Object(&[("tableSize", Shape::Number(2.0, 5_000_011.0))])),
]);
const LOCALITY: Shape = Shape::Object(&[
    ("distribute", Shape::List(&Shape::Object(&[("from", Shape::Text), ("to", Shape::Map(&Shape::Count))]))),
    ("failover", Shape::List(&Shape::Object(&[("from", Shape::Text), ("to", Shape::Text)]))),
    ("failoverPriority", Shape::List(&Shape::Text)),
    ("enabled", Shape::Boolean),
]);
const WARMUP: Shape = Shape::Object(&[
    ("duration", Shape::Duration),
    ("minimumPercent", Shape::Number(0.0, 100.0)),
    ("aggression", Shape::Number(1.0, 1_000_000.0)),
]);
const TUNNEL: Shape =
    Shape::Object(&[("protocol", Shape::Text), ("targetHost", Shape::Text), ("targetPort", Shape::Count)]);
const RETRY_BUDGET: Shape =
    Shape::Object(&[("percent", Shape::Number(0.0, 100.0)), ("minRetryConcurrency", Shape::Count)]);

/// Reads a policy.
pub(super) fn read(place: Place<'_>, level: Level, report: &mut Report) -> Policies {
    let known: Vec<&str> = match level {
        Level::Host | Level::Subset => SECTIONS.into_iter().chain(OTHERS).collect(),
        Level::Port => SECTIONS.into_iter().chain(["port"]).collect(),
    };
    let fields = place.fields(&known, report);
    if matches!(place.found(), Found::Map) && place.children().len() == 0 {
        report.error(place, "must not be empty", "State a section, or remove it.");
    }
    let policy = TrafficPolicy {
        balance: fields.get("loadBalancer").and_then(|place| balance(place, report)),
        tls: fields.get("tls").and_then(|place| tls(place, report)),
        connect_timeout_ms: fields.get("connectionPool").and_then(|place| connection_pool(place, report)),
    };
    let unenforced = [
        ("outlierDetection", OUTLIER_DETECTION, "failing endpoints stay in use"),
        ("tunnel", TUNNEL, "connections are not tunnelled"),
        ("retryBudget", RETRY_BUDGET, "the proxy's own budget of retries holds"),
    ];
    for (name, shape, effect) in unenforced {
        unenforced_field(fields, (name, shape), effect, report);
    }
    if let Some(place) = fields.get("proxyProtocol") {
        let hint = "Remove it; the peer's address cannot be handed on this way.";
        report.error(place, "the PROXY protocol is not available", hint);
    }
    let port_level =
        fields.get("portLevelSettings").map(|place| ports(place, level, report)).unwrap_or_default();
    Policies { policy, port_level }
}

/// Checks the form of a field that has no effect, and says so.
pub(super) fn unenforced_field(
    fields: Fields<'_>,
    (name, shape): (&str, Shape),
    effect: &str,
    report: &mut Report,
) {
    if let Some(place) = fields.get(name) {
        shape.check(place, report);
        report.not_enforced(place, effect);
    }
}

fn ports(place: Place<'_>, level: Level, report: &mut Report) -> Vec<(u16, TrafficPolicy)> {
    let mut ports: Vec<(u16, TrafficPolicy)> = Vec::new();
    for item in place.items(report) {
        let number = item.child("port");
        if number.is_none() {
            report.missing(item, "port", "Write port: {number: N}.");
        }
        let number = number.and_then(|place| {
            let fields = place.fields(&["number"], report);
            fields.required("number", "State the service's port.", report)?.port(report)
        });
        let policy = read(item, Level::Port, report).policy;
        let Some(number) = number else { continue };
        if ports.iter().any(|(port, _)| *port == number) {
            report.error(item, format!("port {number} stands twice"), "");
        }
        ports.push((number, policy));
    }
    if level == Level::Subset && !ports.is_empty() {
        if ports.iter().any(|(_, policy)| policy.tls.is_some()) {
            let hint = "State tls for the whole subset, or in spec.trafficPolicy.portLevelSettings.";
            report.error(place, "tls by port within a subset is not available", hint);
        } else {
            report.not_enforced(place, "the subset's own policy holds for every port");
        }
        return Vec::new();
    }
    ports
}

fn balance(place: Place<'_>, report: &mut Report) -> Option<Balance> {
    let known = ["simple", "consistentHash", "localityLbSetting", "warmupDurationSecs", "warmup"];
    let fields = place.fields(&known, report);
    if fields.stated(&["simple", "consistentHash"]) > 1 {
        report.error(place, "only one of simple and consistentHash may be set", "");
    }
    let unenforced = [
        ("consistentHash", CONSISTENT_HASH, "endpoints are chosen by least request"),
        ("localityLbSetting", LOCALITY, "localities are not told apart"),
        ("warmupDurationSecs", Shape::Duration, "new endpoints get their full share at once"),
        ("warmup", WARMUP, "new endpoints get their full share at once"),
    ];
    for (name, shape, effect) in unenforced {
        unenforced_field(fields, (name, shape), effect, report);
    }
    let choices = [
        ("UNSPECIFIED", Balance::LeastRequest),
        ("LEAST_REQUEST", Balance::LeastRequest),
        ("LEAST_CONN", Balance::LeastRequest),
        ("ROUND_ROBIN", Balance::RoundRobin),
        ("RANDOM", Balance::Random),
        ("PASSTHROUGH", Balance::Passthrough),
    ];
    fields.get("simple").and_then(|place| place.choice(&choices, report))
}

/// The connect timeout; the limits of the pool are told as not enforced, one by one.
fn connection_pool(place: Place<'_>, report: &mut Report) -> Option<u64> {
    let fields = place.fields(&["tcp", "http"], report);
    unenforced_field(fields, ("http", HTTP_POOL), "the proxy's own limits hold", report);
    let tcp = fields.get("tcp")?;
    let known = ["maxConnections", "connectTimeout", "tcpKeepalive", "maxConnectionDuration", "idleTimeout"];
    let tcp = tcp.fields(&known, report);
    let unenforced = [
        ("maxConnections", Shape::Count, "connections are not limited"),
        ("tcpKeepalive", TCP_KEEPALIVE, "the system's keepalive holds"),
        ("maxConnectionDuration", Shape::Duration, "connections last as long as they are used"),
        ("idleTimeout", Shape::Duration, "the proxy's own idle timeout holds"),
    ];
    for (name, shape, effect) in unenforced {
        unenforced_field(tcp, (name, shape), effect, report);
    }
    tcp.get("connectTimeout").and_then(|place| place.duration(report))
}

/// Client TLS. Ignoring TLS that was asked for would send plaintext, so it is refused (TRAP 41, 42).
fn tls(place: Place<'_>, report: &mut Report) -> Option<ClientTlsMode> {
    let files = [
        "clientCertificate",
        "privateKey",
        "caCertificates",
        "credentialName",
        "caCrl",
        "insecureSkipVerify",
    ];
    let names = ["subjectAltNames", "sni"];
    let known: Vec<&str> = ["mode"].into_iter().chain(files).chain(names).collect();
    let fields = place.fields(&known, report);
    if !matches!(place.found(), Found::Map) {
        return None;
    }
    let hint = "Istio takes an absent mode for DISABLE, plaintext; state what is meant.";
    let mode_place = fields.required("mode", hint, report)?;
    let choices = [("DISABLE", 0), ("SIMPLE", 1), ("MUTUAL", 2), ("ISTIO_MUTUAL", 3)];
    let mode = mode_place.choice(&choices, report)?;
    for name in files {
        if mode == 3
            && let Some(place) = fields.get(name)
        {
            report.error(
                place,
                "cannot be set with ISTIO_MUTUAL, which uses the mesh's certificates",
                "Remove it.",
            );
        }
    }
    for name in names {
        if let Some(place) = fields.get(name) {
            let shape = if name == "sni" { Shape::Text } else { Shape::List(&Shape::Text) };
            shape.check(place, report);
            report
                .not_enforced(place, "the peer must present the identity of the endpoint's service account");
        }
    }
    match mode {
        0 => Some(ClientTlsMode::Disable),
        3 => Some(ClientTlsMode::IstioMutual),
        _ => {
            let hint = "Let the application speak TLS to the host itself; the mesh passes it through.";
            let message = "TLS to hosts outside of the mesh is not available, and plaintext will not be sent in its place";
            report.error(mode_place, message, hint);
            None
        }
    }
}
