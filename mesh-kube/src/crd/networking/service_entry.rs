//! ServiceEntry and WorkloadEntry, whose endpoints have the same fields.

use super::super::Definition;
use super::super::schema::{COUNT, Field, PORT, Shape, TEXT_MAP, TEXTS, UNBOUNDED};
use super::{GROUP, VERSIONS};

const WORKLOAD: &[Field] = &[
    ("address", Shape::Text, "Address of the workload, or a name that is looked up."),
    ("ports", Shape::Map(&PORT), "Ports of the workload by the names of the service's ports."),
    ("labels", TEXT_MAP, ""),
    ("network", Shape::Text, ""),
    ("locality", Shape::Text, "REGION, REGION/ZONE or REGION/ZONE/SUBZONE."),
    ("weight", COUNT, "Share of the calls. Default: 1."),
    ("serviceAccount", Shape::Text, "Account whose identity the workload has. Default: default."),
];
const SERVICE_PORT: Shape = Shape::Object(&[
    ("number", PORT, "Port that clients dial."),
    ("protocol", Shape::Text, "HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP or MONGO."),
    ("name", Shape::Text, ""),
    ("targetPort", PORT, "Port of the endpoints. Default: number."),
]);

/// ServiceEntry.
pub(in super::super) const SERVICE_ENTRY: Definition = Definition {
    group: GROUP,
    kind: "ServiceEntry",
    plural: "serviceentries",
    singular: "serviceentry",
    short: "se",
    versions: VERSIONS,
    about: "A service that Kubernetes does not list.",
    spec: Shape::Object(&[
        ("hosts", TEXTS, "Names of the service."),
        ("addresses", TEXTS, "Virtual addresses or ranges of the service."),
        ("ports", Shape::List(&SERVICE_PORT, UNBOUNDED), ""),
        ("location", Shape::OneOf(&["MESH_EXTERNAL", "MESH_INTERNAL"]), "Default: MESH_EXTERNAL."),
        (
            "resolution",
            Shape::OneOf(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]),
            "How endpoints are found. Default: NONE, the address that was dialled.",
        ),
        ("endpoints", Shape::List(&Shape::Object(WORKLOAD), UNBOUNDED), ""),
        (
            "workloadSelector",
            Shape::Object(&[("labels", TEXT_MAP, "")]),
            "Pods and WorkloadEntries of the namespace that are the endpoints.",
        ),
        ("exportTo", TEXTS, ""),
        ("subjectAltNames", TEXTS, "Identities that endpoints may present."),
    ]),
    columns: &[
        ("Hosts", "string", ".spec.hosts"),
        ("Location", "string", ".spec.location"),
        ("Resolution", "string", ".spec.resolution"),
    ],
};

/// WorkloadEntry.
pub(in super::super) const WORKLOAD_ENTRY: Definition = Definition {
    group: GROUP,
    kind: "WorkloadEntry",
    plural: "workloadentries",
    singular: "workloadentry",
    short: "we",
    versions: VERSIONS,
    about: "A workload that is no pod.",
    spec: Shape::Object(WORKLOAD),
    columns: &[("Address", "string", ".spec.address")],
};
