//! What the mesh believes, after validation: the shared vocabulary of policy, control plane and proxy.
//!
//! The first half are the objects that users apply, lowered from [`crate::manifest`]; the second half
//! ([`destination`], [`proxy`], [`probe`]) is what a proxy is told. Every value here is valid: string patterns
//! have passed the checks of their field, ports are in range, a port-level mode has its selector.

pub mod authorization;
pub mod destination;
pub mod mesh;
pub mod meta;
pub mod peer_authentication;
pub mod probe;
pub mod proxy;
pub mod request_authentication;
pub mod service;
pub mod telemetry;
pub mod traffic;
pub mod workload;

pub use authorization::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
pub use destination::{Balance, Destination, DestinationKey, Endpoint, PeerTls, RouteSet};
pub use mesh::{
    AccessLogFormat, AuthorizerProtocol, BodyPacking, CheckBody, DefaultProviders, ExtensionProvider,
    ExternalAuthorizer, HttpCheck, LongerBody, MeshSettings, OnAuthorizerError, OutboundPolicy,
    PathNormalization, ProviderKind,
};
pub use meta::{
    DRY_RUN, DRY_RUN_DELETE, DRY_RUN_REPLACES, DRY_RUN_TRUE, Kind, ObjectMeta, ObjectRef, Origin, Selector,
    TargetRef, Trial,
};
pub use peer_authentication::{MtlsMode, PeerAuthentication};
pub use proxy::{CandidatePolicies, InboundPort, ProxyConfig, TrustBundleSet, WorkloadPolicies};
pub use request_authentication::{JwtRule, KeySet, KeySets, KeySource, RequestAuthentication};
pub use service::{Protocol, Service, ServicePort};
pub use telemetry::{Telemetry, WorkloadTelemetry};
pub use traffic::{DestinationRule, VirtualService};
pub use workload::{Availability, Workload};
