//! DestinationRule.

use super::super::Definition;
use super::super::schema::{COUNT, PERCENT, PORT, SELECTOR, Shape, TEXT_MAP, TEXTS, UNBOUNDED};
use super::{GROUP, VERSIONS};

const TCP_POOL: Shape = Shape::Object(&[
    ("maxConnections", COUNT, ""),
    ("connectTimeout", Shape::Duration, "Default: that of MeshConfig."),
    (
        "tcpKeepalive",
        Shape::Object(&[
            ("probes", COUNT, ""),
            ("time", Shape::Duration, ""),
            ("interval", Shape::Duration, ""),
        ]),
        "",
    ),
    ("maxConnectionDuration", Shape::Duration, ""),
    ("idleTimeout", Shape::Duration, ""),
]);
const HTTP_POOL: Shape = Shape::Object(&[
    ("http1MaxPendingRequests", COUNT, ""),
    ("http2MaxRequests", COUNT, ""),
    ("maxRequestsPerConnection", COUNT, ""),
    ("maxRetries", COUNT, ""),
    ("idleTimeout", Shape::Duration, ""),
    ("h2UpgradePolicy", Shape::OneOf(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]), ""),
    ("useClientProtocol", Shape::Boolean, ""),
    ("maxConcurrentStreams", COUNT, ""),
]);
const OUTLIER_DETECTION: Shape = Shape::Object(&[
    ("consecutiveErrors", COUNT, ""),
    ("consecutive5xxErrors", COUNT, ""),
    ("consecutiveGatewayErrors", COUNT, ""),
    ("consecutiveLocalOriginFailures", COUNT, ""),
    ("splitExternalLocalOriginErrors", Shape::Boolean, ""),
    ("interval", Shape::Duration, ""),
    ("baseEjectionTime", Shape::Duration, ""),
    ("maxEjectionPercent", PERCENT, ""),
    ("minHealthPercent", PERCENT, ""),
]);
const CONSISTENT_HASH: Shape = Shape::Object(&[
    ("httpHeaderName", Shape::Text, ""),
    (
        "httpCookie",
        Shape::Object(&[
            ("name", Shape::Text, ""),
            ("path", Shape::Text, ""),
            ("ttl", Shape::Duration, ""),
            ("attributes", Shape::Any, ""),
        ]),
        "",
    ),
    ("useSourceIp", Shape::Boolean, ""),
    ("httpQueryParameterName", Shape::Text, ""),
    ("minimumRingSize", COUNT, ""),
    ("ringHash", Shape::Object(&[("minimumRingSize", COUNT, "")]), ""),
    ("maglev", Shape::Object(&[("tableSize", Shape::Integer(2, 5_000_011), "")]), ""),
]);
const LOCALITY: Shape = Shape::Object(&[
    (
        "distribute",
        Shape::List(&Shape::Object(&[("from", Shape::Text, ""), ("to", Shape::Map(&COUNT), "")]), UNBOUNDED),
        "",
    ),
    (
        "failover",
        Shape::List(&Shape::Object(&[("from", Shape::Text, ""), ("to", Shape::Text, "")]), UNBOUNDED),
        "",
    ),
    ("failoverPriority", TEXTS, ""),
    ("enabled", Shape::Boolean, ""),
]);
const LOAD_BALANCER: Shape = Shape::Object(&[
    (
        "simple",
        Shape::OneOf(&["UNSPECIFIED", "LEAST_REQUEST", "LEAST_CONN", "ROUND_ROBIN", "RANDOM", "PASSTHROUGH"]),
        "How an endpoint is chosen. Default: LEAST_REQUEST.",
    ),
    ("consistentHash", CONSISTENT_HASH, ""),
    ("localityLbSetting", LOCALITY, ""),
    ("warmupDurationSecs", Shape::Duration, ""),
    (
        "warmup",
        Shape::Object(&[
            ("duration", Shape::Duration, ""),
            ("minimumPercent", PERCENT, ""),
            ("aggression", Shape::Number(1.0, 1_000_000.0), ""),
        ]),
        "",
    ),
]);
const TLS: Shape = Shape::Object(&[
    (
        "mode",
        Shape::OneOf(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]),
        "ISTIO_MUTUAL is the mesh's own; DISABLE is plaintext.",
    ),
    ("clientCertificate", Shape::Text, ""),
    ("privateKey", Shape::Text, ""),
    ("caCertificates", Shape::Text, ""),
    ("credentialName", Shape::Text, ""),
    ("caCrl", Shape::Text, ""),
    ("insecureSkipVerify", Shape::Boolean, ""),
    ("subjectAltNames", TEXTS, ""),
    ("sni", Shape::Text, ""),
]);
const CONNECTION_POOL: Shape = Shape::Object(&[("tcp", TCP_POOL, ""), ("http", HTTP_POOL, "")]);
const PORT_POLICY: Shape = Shape::Object(&[
    ("port", Shape::Object(&[("number", PORT, "Port of the service.")]), ""),
    ("loadBalancer", LOAD_BALANCER, ""),
    ("connectionPool", CONNECTION_POOL, ""),
    ("outlierDetection", OUTLIER_DETECTION, ""),
    ("tls", TLS, ""),
]);
const POLICY: Shape = Shape::Object(&[
    ("loadBalancer", LOAD_BALANCER, "How endpoints are chosen."),
    ("connectionPool", CONNECTION_POOL, "Limits of connections."),
    ("outlierDetection", OUTLIER_DETECTION, "When endpoints are left out."),
    ("tls", TLS, "How endpoints are called."),
    (
        "portLevelSettings",
        Shape::List(&PORT_POLICY, UNBOUNDED),
        "Policies of single ports, in place of the others.",
    ),
    (
        "tunnel",
        Shape::Object(&[
            ("protocol", Shape::Text, ""),
            ("targetHost", Shape::Text, ""),
            ("targetPort", COUNT, ""),
        ]),
        "",
    ),
    ("proxyProtocol", Shape::Any, ""),
    ("retryBudget", Shape::Object(&[("percent", PERCENT, ""), ("minRetryConcurrency", COUNT, "")]), ""),
]);

/// DestinationRule.
pub(in super::super) const DESTINATION_RULE: Definition = Definition {
    group: GROUP,
    kind: "DestinationRule",
    plural: "destinationrules",
    singular: "destinationrule",
    short: "dr",
    versions: VERSIONS,
    about: "How a service is called, once a route has chosen it.",
    spec: Shape::Object(&[
        ("host", Shape::Text, "Name of the service."),
        ("trafficPolicy", POLICY, ""),
        (
            "subsets",
            Shape::List(
                &Shape::Object(&[
                    ("name", Shape::Text, ""),
                    ("labels", TEXT_MAP, ""),
                    ("trafficPolicy", POLICY, ""),
                ]),
                UNBOUNDED,
            ),
            "Parts of the service's endpoints, by their labels, for routes to name.",
        ),
        ("exportTo", TEXTS, ""),
        ("workloadSelector", SELECTOR, "Clients for which it holds."),
    ]),
    columns: &[("Host", "string", ".spec.host")],
};
