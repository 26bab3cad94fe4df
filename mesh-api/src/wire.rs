//! What control plane and proxy say to each other.
//!
//! The transport is Envoy's delta aggregated discovery service ([`discovery`]); the resources are the mesh's
//! own ([`TypeUrl`]), far smaller than Envoy's. A resource travels as the JSON of its model type: the model
//! is already what the proxy compiles, serde refuses unknown policy fields (a proxy that is older than a
//! policy field rejects the push instead of widening access), and gzip on the stream takes the redundancy.
//!
//! Versions are content hashes, made by the sender, so that they mean the same before and after a restart.

use prost_types::Any;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Generated types and services of the delta aggregated discovery service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// Generated types and services of the identity service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod identity {
    tonic::include_proto!("mesh.identity.v1");
}

/// Generated types and services of the keys service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod keys {
    tonic::include_proto!("mesh.keys.v1");
}

/// Generated types and services of what replicas of the control plane say to each other.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod replicas {
    tonic::include_proto!("mesh.replicas.v1");
}

/// Generated types and services of Envoy's external authorization service.
#[expect(
    missing_docs,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    reason = "generated"
)]
pub mod authorizer {
    tonic::include_proto!("envoy.service.auth.v3");
}

/// Largest message that either side accepts, in bytes (16 MiB: ten thousand policies are about 6 MiB).
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Name of the resource that concerns the subscriber's own workload.
pub const SELF: &str = "self";

/// Node metadata key: the proxy's wall clock in milliseconds of the Unix epoch, for measuring skew.
pub const METADATA_NOW_UNIX_MS: &str = "now_unix_ms";
/// Node metadata key: version of the proxy.
pub const METADATA_VERSION: &str = "version";

/// The resource types, in the order in which changes are sent (make before break).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TypeUrl {
    /// [`crate::model::TrustBundleSet`], named [`SELF`].
    TrustBundle,
    /// [`crate::model::ProxyConfig`], named [`SELF`].
    ProxyConfig,
    /// [`crate::model::WorkloadPolicies`], named [`SELF`].
    WorkloadPolicies,
    /// [`crate::model::Destination`], named by [`crate::model::DestinationKey`].
    Destination,
}

impl TypeUrl {
    /// Every type, in sending order.
    pub const ALL: [Self; 4] =
        [Self::TrustBundle, Self::ProxyConfig, Self::WorkloadPolicies, Self::Destination];

    /// The URL on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrustBundle => "type.mini-mesh.io/v1.TrustBundle",
            Self::ProxyConfig => "type.mini-mesh.io/v1.ProxyConfig",
            Self::WorkloadPolicies => "type.mini-mesh.io/v1.WorkloadPolicies",
            Self::Destination => "type.mini-mesh.io/v1.Destination",
        }
    }

    /// Short name for tables, in the manner of `CDS` and `EDS`.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::TrustBundle => "TBDS",
            Self::ProxyConfig => "PCDS",
            Self::WorkloadPolicies => "WPDS",
            Self::Destination => "DDS",
        }
    }

    /// Parses the URL on the wire.
    #[must_use]
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|candidate| candidate.as_str() == url)
    }
}

/// Why a resource could not be read; the receiver answers NACK with this text.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The resource has no body.
    #[error("resource {name:?} has no body")]
    Missing {
        /// Name of the resource.
        name: String,
    },
    /// The body is of another type than its envelope.
    #[error("resource {name:?} is of type {found:?}, expected {expected:?}")]
    WrongType {
        /// Name of the resource.
        name: String,
        /// Type URL found.
        found: String,
        /// Type URL expected.
        expected: &'static str,
    },
    /// The body is not valid.
    #[error("resource {name:?} cannot be read")]
    Malformed {
        /// Name of the resource.
        name: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
}

/// Puts a resource into its envelope.
///
/// # Panics
/// Never: model types have string keys and no failing serializer.
#[must_use]
pub fn encode<T: Serialize>(kind: TypeUrl, resource: &T) -> Any {
    let value = serde_json::to_vec(resource).expect("model types serialize: string keys, no failing impl");
    Any { type_url: kind.as_str().to_owned(), value }
}

/// Takes a resource out of its envelope.
///
/// # Errors
/// When the body is missing, of another type, or not valid.
pub fn decode<T: DeserializeOwned>(kind: TypeUrl, resource: &discovery::Resource) -> Result<T, DecodeError> {
    let name = || resource.name.clone();
    let body = resource.resource.as_ref().ok_or_else(|| DecodeError::Missing { name: name() })?;
    if body.type_url != kind.as_str() {
        return Err(DecodeError::WrongType {
            name: name(),
            found: body.type_url.clone(),
            expected: kind.as_str(),
        });
    }
    serde_json::from_slice(&body.value).map_err(|source| DecodeError::Malformed { name: name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MeshSettings, WorkloadPolicies};

    fn resource(body: Any) -> discovery::Resource {
        discovery::Resource { version: "1".into(), name: SELF.into(), resource: Some(body) }
    }

    #[test]
    fn a_resource_survives_the_wire() {
        let sent = WorkloadPolicies::default();
        let body = encode(TypeUrl::WorkloadPolicies, &sent);
        let read: WorkloadPolicies =
            decode(TypeUrl::WorkloadPolicies, &resource(body)).expect("what was encoded decodes");
        assert_eq!(read, sent);
    }

    #[test]
    fn an_unknown_policy_field_is_refused() {
        let body = Any {
            type_url: TypeUrl::WorkloadPolicies.as_str().into(),
            value: br#"{"authorization":[],"invented":1}"#.to_vec(),
        };
        let read = decode::<WorkloadPolicies>(TypeUrl::WorkloadPolicies, &resource(body));
        assert!(matches!(read, Err(DecodeError::Malformed { .. })));
    }

    #[test]
    fn a_resource_of_another_type_is_refused() {
        let body = encode(TypeUrl::ProxyConfig, &MeshSettings::default());
        let read = decode::<WorkloadPolicies>(TypeUrl::WorkloadPolicies, &resource(body));
        assert!(matches!(read, Err(DecodeError::WrongType { .. })));
    }
}
