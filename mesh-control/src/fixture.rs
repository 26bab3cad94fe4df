//! Objects for tests, as short as they can be said.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::model::destination::{HttpRoute, WeightedTarget};
use mesh_api::model::service::{Protocol, Resolution, ServicePort};
use mesh_api::model::telemetry::{AccessLogging, Telemetry};
use mesh_api::model::traffic::{ClientTlsMode, TrafficPolicy};
use mesh_api::model::{
    Action, AuthorizationPolicy, DestinationRule, Kind, MeshSettings, MtlsMode, ObjectMeta, ObjectRef,
    Origin, PeerAuthentication, Selector, Service, VirtualService, Workload,
};
use mesh_api::name::{Host, Labels, Namespace, ObjectName, ServiceAccount};

use crate::registry::{Entry, Registry, VirtualAddressState, VirtualAddresses};

pub(crate) mod api_server;
mod made_up;
pub(crate) mod versioned_objects;

pub(crate) fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).expect("valid")
}

pub(crate) fn host(name: &str) -> Host {
    Host::parse(name).expect("valid")
}

pub(crate) fn object(kind: Kind, in_namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind, namespace: namespace(in_namespace), name: ObjectName::parse(name).expect("valid") }
}

fn meta(kind: Kind, in_namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        object: object(kind, in_namespace, name),
        labels: Labels::new(),
        annotations: Labels::new(),
        created: 0,
        origin: Origin::default(),
    }
}

fn app(name: &str) -> Labels {
    Labels::from([("app".to_owned(), name.to_owned())])
}

pub(crate) fn selector(name: &str) -> Selector {
    Selector { match_labels: app(name) }
}

/// A meshed workload with label `app`, its account being the app's name.
pub(crate) fn workload(in_namespace: &str, name: &str, of: &str, address: &str) -> Workload {
    Workload {
        meta: meta(Kind::WorkloadEntry, in_namespace, name),
        addresses: vec![address.parse().expect("valid")],
        dns_name: None,
        labels: app(of),
        service_account: ServiceAccount::parse(of).expect("valid"),
        ports: BTreeMap::new(),
        weight: 1,
        locality: String::new(),
        meshed: true,
        availability: mesh_api::model::Availability::Ready,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    }
}

/// A service of port 80 to 8080 that selects label `app`.
pub(crate) fn service(in_namespace: &str, name: &str, of: &str) -> Service {
    Service {
        meta: meta(Kind::Service, in_namespace, name),
        hosts: vec![host(&format!("{name}.{in_namespace}.svc.cluster.local"))],
        addresses: Vec::new(),
        headless: false,
        ports: vec![ServicePort {
            name: "http".to_owned(),
            port: 80,
            target_port: 8080,
            target_port_name: None,
            protocol: Protocol::Http,
        }],
        selector: Some(selector(of)),
        endpoints: Vec::new(),
        resolution: Resolution::Static,
        external: false,
        subject_alt_names: Vec::new(),
        publish_not_ready: false,
        members: Default::default(),
        zone_hints: Default::default(),
    }
}

pub(crate) fn peer(in_namespace: &str, name: &str, of: Option<&str>, mode: MtlsMode) -> PeerAuthentication {
    PeerAuthentication {
        meta: meta(Kind::PeerAuthentication, in_namespace, name),
        selector: of.map(selector).unwrap_or_default(),
        mode: Some(mode),
        port_level: BTreeMap::new(),
    }
}

pub(crate) fn policy(in_namespace: &str, name: &str, of: Option<&str>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: meta(Kind::AuthorizationPolicy, in_namespace, name),
        selector: of.map(selector).unwrap_or_default(),
        targets: Vec::new(),
        action: Action::Deny,
        provider: None,
        rules: Vec::new(),
        dry_run: false,
    }
}

/// Telemetry that turns the access log off.
pub(crate) fn silence(in_namespace: &str, name: &str, of: Option<&str>) -> Telemetry {
    Telemetry {
        meta: meta(Kind::Telemetry, in_namespace, name),
        selector: of.map(selector).unwrap_or_default(),
        targets: Vec::new(),
        access_logging: vec![AccessLogging { disabled: true, ..AccessLogging::default() }],
        tracing: Vec::new(),
        metrics: Vec::new(),
    }
}

pub(crate) fn rule(in_namespace: &str, name: &str, of: &str, tls: Option<ClientTlsMode>) -> DestinationRule {
    DestinationRule {
        meta: meta(Kind::DestinationRule, in_namespace, name),
        host: host(of),
        policy: TrafficPolicy { tls, ..TrafficPolicy::default() },
        port_level: Vec::new(),
        subsets: Vec::new(),
    }
}

pub(crate) fn routes(in_namespace: &str, name: &str, of: &str, to: &str) -> VirtualService {
    let target = WeightedTarget { host: host(to), port: None, subset: None, weight: 100 };
    VirtualService {
        meta: meta(Kind::VirtualService, in_namespace, name),
        hosts: vec![host(of)],
        gateways: vec!["mesh".to_owned()],
        http: vec![HttpRoute { targets: vec![target], ..HttpRoute::default() }],
    }
}

pub(crate) fn registry() -> Registry {
    let v4 = "240.240.0.0/16".parse().expect("valid");
    let v6 = "fd77:6d6d::/64".parse().expect("valid");
    Registry::new(MeshSettings::default(), VirtualAddresses::new(v4, v6, VirtualAddressState::default()))
}

impl From<Workload> for Entry {
    fn from(object: Workload) -> Self {
        Self::Workload(Arc::new(object))
    }
}

impl From<Service> for Entry {
    fn from(object: Service) -> Self {
        Self::Service(Arc::new(object))
    }
}

impl From<PeerAuthentication> for Entry {
    fn from(object: PeerAuthentication) -> Self {
        Self::Peer(Arc::new(object))
    }
}

impl From<AuthorizationPolicy> for Entry {
    fn from(object: AuthorizationPolicy) -> Self {
        Self::Authorization(Arc::new(object))
    }
}

impl From<Telemetry> for Entry {
    fn from(object: Telemetry) -> Self {
        Self::Telemetry(Arc::new(object))
    }
}

impl From<DestinationRule> for Entry {
    fn from(object: DestinationRule) -> Self {
        Self::DestinationRule(Arc::new(object))
    }
}

impl From<VirtualService> for Entry {
    fn from(object: VirtualService) -> Self {
        Self::VirtualService(Arc::new(object))
    }
}

/// A control plane in memory: an authority of its own, and nothing in force. What it would write to disk is
/// lost.
pub(crate) fn plane() -> Arc<crate::plane::Plane> {
    let domain = mesh_api::name::TrustDomain::parse("cluster.local").expect("valid");
    let settings = mesh_identity::ca::CaSettings::new(domain);
    plane_of(mesh_identity::ca::Authority::create(settings, std::time::SystemTime::now()).expect("made"))
}

/// A control plane that signs with `authority`.
pub(crate) fn plane_of(authority: mesh_identity::ca::Authority) -> Arc<crate::plane::Plane> {
    use mesh_identity::ca::Issuer as _;
    use mesh_identity::tls::IdentitySource;

    let folder = tempfile::tempdir().expect("a folder");
    let domain = authority.settings().trust_domain.clone();
    let bundle = authority.trust_bundle();
    let tokens = folder.path().join("tokens.json");
    let issue = crate::issue::IssueService::new(authority, None, tokens).expect("a service");
    let (keys, _) =
        crate::jwks::open(crate::jwks::KeySettings::default(), &folder.path().join("jwks")).expect("keys");
    let (confirmations, _) = tokio::sync::mpsc::channel(1);
    Arc::new(crate::plane::Plane::new(crate::plane::Parts {
        name: "test".to_owned(),
        issue: Arc::new(issue),
        identity: IdentitySource::new(bundle.clone(), vec![domain]),
        keys,
        snapshot: crate::snapshot::Snapshot::new(registry(), bundle.to_model()),
        addresses: crate::address_store::AddressStore::File(folder.path().join("addresses.json")),
        confirmations,
        look_now: Arc::new(tokio::sync::Notify::new()),
    }))
}
