//! One resource as it travels: its bytes, and a version that is the hash of its content.

use std::sync::Arc;

use mesh_api::wire::{self, TypeUrl};
use prost_types::Any;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Bytes of the digest that make a version: 128 bits never meet by accident.
const VERSION_BYTES: usize = 16;

/// A resource in its envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Hash of the content, lower-case hex: the same before and after a restart.
    pub version: String,
    /// The envelope.
    pub body: BodyBytes,
}

/// The envelope's parts; kept apart from the generated type, which is cloned only when it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyBytes {
    kind: TypeUrl,
    value: Vec<u8>,
}

impl Encoded {
    /// Encodes a model value.
    #[must_use]
    pub fn of<T: Serialize>(kind: TypeUrl, value: &T) -> Arc<Self> {
        let any = wire::encode(kind, value);
        let digest = Sha256::digest(&any.value);
        let version = digest.iter().take(VERSION_BYTES).map(|byte| format!("{byte:02x}")).collect();
        Arc::new(Self { version, body: BodyBytes { kind, value: any.value } })
    }

    /// The envelope, copied for one message.
    #[must_use]
    pub fn to_any(&self) -> Any {
        Any { type_url: self.body.kind.as_str().to_owned(), value: self.body.value.clone() }
    }

    /// Length of the content in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.value.len()
    }

    /// Whether the content is empty, which no encoded value is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.body.value.is_empty()
    }
}

/// What a subscriber is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Desired {
    /// This.
    Present(Arc<Encoded>),
    /// The definite answer that there is no such thing.
    Absent,
    /// Nothing can be said yet, so nothing is sent: the proxy's own workload is not known.
    Unknown,
}

impl Desired {
    /// The version, if there is something.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Present(encoded) => Some(&encoded.version),
            Self::Absent | Self::Unknown => None,
        }
    }
}
