//! What the processes of a small shop answer.

use std::collections::BTreeMap;

use mesh_api::admin::{
    CaStatus, CertificateStatus, ClusterStatus, ControlStatus, Denial, EndpointStatus, KeySourceStatus,
    ListenerStatus, LogLevel, ObjectSummary, PolicyStatus, ProxyStatus, ReadyStatus, RegistryDump,
    RouteStatus, SourceStatus, SyncStatus,
};
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{KeySet, Kind, MtlsMode, ObjectRef, Origin, WorkloadPolicies};
use mesh_api::name::{Namespace, ObjectName};
use mesh_api::problem::{Problem, Severity};

use crate::admin::{Answer, FakeMesh, fixed, json};

pub(crate) const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";

/// What is in force in the shop: services, workloads and policies.
pub(crate) const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: backend}
spec:
  selector: {app: catalog}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: grpc, port: 9090}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: catalog-0, namespace: backend}
spec:
  address: 10.77.0.3
  serviceAccount: catalog
  labels: {app: catalog, version: v1, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: catalog-1, namespace: backend}
spec:
  address: 10.77.0.4
  serviceAccount: catalog
  labels: {app: catalog, version: v2, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: intruder, namespace: outside}
spec:
  address: 10.77.0.9
  labels: {app: intruder}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: catalog, namespace: backend}
spec:
  host: catalog.backend.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: catalog, namespace: backend}
spec:
  hosts: [catalog.backend.svc.cluster.local]
  http:
  - route:
    - {destination: {host: catalog.backend.svc.cluster.local, subset: v1}, weight: 90}
    - {destination: {host: catalog.backend.svc.cluster.local, subset: v2}, weight: 10}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: catalog, namespace: backend}
spec:
  selector: {matchLabels: {app: catalog}}
  mtls: {mode: STRICT}
  portLevelMtls: {9090: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: catalog-read, namespace: backend}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {methods: [GET]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: backend}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin/*]}}]
  - to: [{operation: {paths: [/debug/*]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-all, namespace: istio-system}
spec: {}
";

pub(crate) fn shop_objects() -> Vec<Object> {
    let parsed = manifest::parse("shop.yaml", SHOP, &LowerContext::default());
    parsed.documents.into_iter().map(|document| document.outcome.expect("a valid object")).collect()
}

/// `GET /objects`. Policies are enforced by two of two; one of them is held.
pub(crate) fn objects(folder: &str) -> Vec<ObjectSummary> {
    let parsed = manifest::parse("shop.yaml", SHOP, &LowerContext::default());
    let summary = |document: manifest::Document| {
        let object = document.outcome.expect("a valid object").object_ref();
        let is_policy = matches!(object.kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication);
        let file = if is_policy {
            format!("{folder}/policies.yaml")
        } else {
            format!("{folder}/state/config/local/mesh.yaml")
        };
        ObjectSummary {
            kind: object.kind,
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            file,
            line: document.origin.line,
            yaml: document.text.to_string(),
            held: object.name.as_str() == "no-admin",
            problems: if object.name.as_str() == "deny-all" { vec![warning(&object)] } else { Vec::new() },
            enforced: is_policy.then_some((if object.name.as_str() == "catalog-read" { 1 } else { 2 }, 2)),
            tried: None,
        }
    };
    parsed.documents.into_iter().map(summary).collect()
}

fn warning(object: &ObjectRef) -> Problem {
    Problem {
        code: "IST0127".to_owned(),
        severity: Severity::Warning,
        object: Some(object.clone()),
        origin: Origin { file: "config/deny.yaml".into(), line: 1 },
        field: String::new(),
        message: "selects no workload".to_owned(),
        hint: "Check the labels of its selector.".to_owned(),
    }
}

pub(crate) fn registry() -> RegistryDump {
    let mut dump = RegistryDump::default();
    for object in shop_objects() {
        match object {
            Object::Service(service) => dump.services.push(service),
            Object::Workload(workload) => dump.workloads.push(workload),
            _ => {}
        }
    }
    dump
}

fn sync(state: &str, error: Option<&str>) -> SyncStatus {
    SyncStatus {
        state: state.to_owned(),
        resources: 3,
        age_seconds: Some(75),
        error: error.map(str::to_owned),
    }
}

fn proxy(name: &str, is_connected: bool, types: &[(&str, SyncStatus)]) -> ProxyStatus {
    ProxyStatus {
        name: name.to_owned(),
        identity: FRONTEND.to_owned(),
        version: "0.1.0".to_owned(),
        connected: is_connected,
        connected_at: "2026-11-25T03:00:00Z".to_owned(),
        types: types.iter().map(|(kind, sync)| ((*kind).to_owned(), sync.clone())).collect(),
        clock_skew_ms: Some(-3),
        address: "10.77.0.2:40000".parse().ok(),
    }
}

pub(crate) fn healthy_proxies() -> Vec<ProxyStatus> {
    let all = |name| {
        proxy(
            name,
            true,
            &[("DDS", sync("SYNCED", None)), ("PCDS", sync("SYNCED", None)), ("WPDS", sync("SYNCED", None))],
        )
    };
    vec![all("frontend.web"), all("catalog-0.backend")]
}

pub(crate) fn unhealthy_proxies() -> Vec<ProxyStatus> {
    vec![
        proxy(
            "frontend.web",
            true,
            &[("DDS", sync("SYNCED", None)), ("WPDS", sync("ERROR", Some("rule 1 is too long")))],
        ),
        proxy("catalog-0.backend", true, &[("DDS", sync("STALE", None)), ("WPDS", sync("SYNCED", None))]),
        proxy("catalog-1.backend", false, &[]),
    ]
}

pub(crate) fn control_status(folder: &str, proxies: Vec<ProxyStatus>) -> ControlStatus {
    ControlStatus {
        version: "0.1.0".to_owned(),
        name: "mesh-control".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        revision: 42,
        sources: vec![SourceStatus {
            path: format!("{folder}/config"),
            files: 2,
            objects: 4,
            held: Vec::new(),
            suspended: None,
            missing: None,
        }],
        proxies,
        key_sources: Vec::new(),
        errors: 0,
        warnings: 1,
        objects: BTreeMap::from([("AuthorizationPolicy".to_owned(), 3), ("Service".to_owned(), 1)]),
    }
}

pub(crate) fn key_sources() -> Vec<KeySourceStatus> {
    let source = |url: &str, keys, age_seconds, problem: &str| KeySourceStatus {
        url: url.to_owned(),
        keys,
        age_seconds,
        problem: problem.to_owned(),
    };
    vec![
        source("https://a.example/keys", 2, Some(60), ""),
        source(
            "https://b.example/keys",
            1,
            Some(7_300),
            "cannot connect to https://b.example/keys at 192.0.2.1",
        ),
        source(
            "https://c.example/keys",
            0,
            None,
            "https://c.example/keys has no usable keys: the answer is not JSON",
        ),
    ]
}

pub(crate) fn held_source(folder: &str) -> SourceStatus {
    SourceStatus {
        path: format!("{folder}/config"),
        files: 0,
        objects: 1,
        held: vec![ObjectRef {
            kind: Kind::AuthorizationPolicy,
            namespace: Namespace::parse("backend").expect("a name"),
            name: ObjectName::parse("no-admin").expect("a name"),
        }],
        suspended: Some("all of its objects disappeared at once".to_owned()),
        missing: None,
    }
}

fn certificate(name: &str, kind: &str, index: usize) -> CertificateStatus {
    let is_leaf = index == 0 && name == "default";
    CertificateStatus {
        resource_name: name.to_owned(),
        kind: kind.to_owned(),
        status: "ACTIVE".to_owned(),
        valid: true,
        chain_index: index,
        spiffe_id: if is_leaf { FRONTEND.to_owned() } else { String::new() },
        trust_domain: "cluster.local".to_owned(),
        subject: if is_leaf { String::new() } else { format!("O=cluster.local, CN={kind} {index}") },
        serial_number: format!("3a{index}f"),
        not_before: "2026-11-25T03:00:00Z".to_owned(),
        not_after: "2026-11-26T03:00:00Z".to_owned(),
        ttl_seconds: 86_000,
        next_rotation: is_leaf.then(|| "2026-11-25T15:04:00Z".to_owned()),
        pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
    }
}

pub(crate) fn certificates() -> Vec<CertificateStatus> {
    vec![
        certificate("default", "Cert Chain", 0),
        certificate("default", "Cert Chain", 1),
        certificate("ROOTCA", "CA", 0),
    ]
}

pub(crate) fn ca() -> CaStatus {
    CaStatus {
        authorities: vec![certificate("ROOTCA", "CA", 0), certificate("INTERMEDIATE", "CA", 1)],
        issued: 12,
        refused: 1,
        workload_ttl_seconds: 86_400,
    }
}

fn cluster(host: &str, port: u16, subset: &str, direction: &str, rule: &str) -> ClusterStatus {
    ClusterStatus {
        service_fqdn: host.to_owned(),
        port,
        subset: subset.to_owned(),
        direction: direction.to_owned(),
        kind: if direction == "inbound" { "ORIGINAL_DST" } else { "EDS" }.to_owned(),
        destination_rule: rule.to_owned(),
        name: format!("{direction}|{port}|{subset}|{host}"),
        protocol: "HTTP".to_owned(),
    }
}

pub(crate) fn policy() -> PolicyStatus {
    let mut policies = WorkloadPolicies { mtls: MtlsMode::Strict, ..WorkloadPolicies::default() };
    for object in shop_objects() {
        match object {
            Object::AuthorizationPolicy(policy) => policies.authorization.push(policy.into()),
            Object::PeerAuthentication(policy) => policies.peer.push(policy.into()),
            _ => {}
        }
    }
    let jwks = r#"{"keys":[{"crv":"P-256","kid":"2026-11","kty":"EC","x":"1","y":"2"},{"e":"AQAB","kty":"RSA","n":"AQ"}]}"#;
    let problem = "cannot connect to https://b.example/keys at 192.0.2.1".to_owned();
    policies.key_sets = BTreeMap::from([
        ("https://a.example/keys".to_owned(), KeySet { jwks: Some(jwks.into()), problem: String::new() }),
        ("https://b.example/keys".to_owned(), KeySet { jwks: None, problem }),
    ]);
    PolicyStatus {
        version: "7".to_owned(),
        mtls: MtlsMode::Strict,
        mtls_ports: BTreeMap::from([(9090, MtlsMode::Disable)]),
        policies,
    }
}

fn denial(time: &str, peer: &str, method: &str, policy: &str, count: u64) -> Denial {
    let is_http = !method.is_empty();
    Denial {
        id: format!("{:016x}", 0x5a17_0000_0000_0000_u64 + count),
        time: time.to_owned(),
        peer: peer.to_owned(),
        source: "10.77.0.2:40000".to_owned(),
        port: 8080,
        method: method.to_owned(),
        authority: if is_http { "payments.backend".to_owned() } else { String::new() },
        path: if is_http { "/api/payments".to_owned() } else { String::new() },
        policy: policy.to_owned(),
        reason: if policy == "none" { "no ALLOW policy matched" } else { "a DENY policy matched" }.to_owned(),
        count,
        explanation: serde_json::Value::Null,
    }
}

pub(crate) fn denials() -> Vec<Denial> {
    vec![
        denial("2026-11-25T03:10:05.25Z", "", "", "none", 1),
        denial("2026-11-25T03:10:00Z", FRONTEND, "POST", "ns[backend]-policy[no-admin]-rule[0]", 3),
    ]
}

pub(crate) fn ready() -> ReadyStatus {
    ReadyStatus {
        ready: true,
        waiting_for: Vec::new(),
        draining: false,
        control_plane_silent_seconds: Some(1),
        control_plane_connected: true,
    }
}

/// A proxy that answers everything.
pub(crate) fn proxy_answers() -> Answer {
    let host = "catalog.backend.svc.cluster.local";
    let clusters = vec![
        cluster(host, 80, "v1", "outbound", "catalog.backend"),
        cluster(host, 80, "-", "outbound", "catalog.backend"),
        cluster("", 8080, "-", "inbound", ""),
    ];
    let listeners = [
        ("15001", "ALL", "PassthroughCluster", "TCP"),
        ("15006", "Trans: tls; App: HTTP", "Cluster: inbound|8080||", "HTTP"),
    ];
    let listeners: Vec<ListenerStatus> = listeners
        .iter()
        .map(|(port, matches, destination, kind)| ListenerStatus {
            address: "0.0.0.0".to_owned(),
            port: port.parse().expect("a port"),
            matches: (*matches).to_owned(),
            destination: (*destination).to_owned(),
            kind: (*kind).to_owned(),
        })
        .collect();
    let route = |vhost: &str, domains: &[&str], targets: &[&str]| RouteStatus {
        name: "80".to_owned(),
        vhost_name: vhost.to_owned(),
        domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
        matches: "/api*".to_owned(),
        virtual_service: "catalog.backend".to_owned(),
        targets: targets.iter().map(|target| (*target).to_owned()).collect(),
    };
    let routes = vec![
        route(
            &format!("{host}:80"),
            &["catalog.backend", "catalog.backend.svc", host, "10.96.0.2"],
            &["outbound|80|v1 (90)"],
        ),
        route("blackhole:80", &["*"], &[]),
    ];
    let endpoints: Vec<EndpointStatus> = [("10.77.0.4:8080", "DRAINING"), ("10.77.0.3:8080", "HEALTHY")]
        .iter()
        .map(|(endpoint, status)| EndpointStatus {
            endpoint: (*endpoint).to_owned(),
            status: (*status).to_owned(),
            outlier_check: "OK".to_owned(),
            cluster: format!("outbound|80||{host}"),
            identity: "spiffe://cluster.local/ns/backend/sa/catalog".to_owned(),
            active_requests: 1,
        })
        .collect();
    fixed(&[
        ("/ready", json(&ready())),
        ("/certs", json(&certificates())),
        ("/clusters", json(&clusters)),
        ("/listeners", json(&listeners)),
        ("/routes", json(&routes)),
        ("/endpoints", json(&endpoints)),
        ("/policy", json(&policy())),
        ("/denials", json(&denials())),
        ("/logging", json(&LogLevel { level: "info".to_owned() })),
    ])
}

/// A control plane that answers everything.
pub(crate) fn control_answers(mesh: &FakeMesh, status: &ControlStatus) -> Answer {
    let folder = mesh.path("").to_string_lossy().trim_end_matches('/').to_owned();
    let objects = objects(&folder);
    let problems: Vec<Problem> = objects.iter().flat_map(|object| object.problems.clone()).collect();
    fixed(&[
        ("/status", json(status)),
        ("/problems", json(&problems)),
        ("/objects", json(&objects)),
        ("/registry", json(&registry())),
        ("/ca", json(&ca())),
    ])
}

/// The shop with its control plane and the proxies of `frontend.web` and of both `catalog`s.
pub(crate) fn shop(proxies: Vec<ProxyStatus>) -> FakeMesh {
    let mesh = FakeMesh::new();
    let folder = mesh.path("").to_string_lossy().trim_end_matches('/').to_owned();
    mesh.control(control_answers(&mesh, &control_status(&folder, proxies)));
    for workload in ["frontend.web", "catalog-0.backend", "catalog-1.backend"] {
        mesh.proxy(workload, proxy_answers());
    }
    mesh.stranger("intruder.outside");
    mesh
}
