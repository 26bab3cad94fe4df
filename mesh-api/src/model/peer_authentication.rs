//! PeerAuthentication (SEMANTICS section 3), as validated.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ObjectMeta, Selector};

/// A mutual-TLS mode after inheritance; `UNSET` exists only in [`PeerAuthentication`] as `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MtlsMode {
    /// Bytes are handed to the application as they come.
    Disable,
    /// Mesh mutual TLS and plaintext are both served.
    #[default]
    Permissive,
    /// Only mesh mutual TLS is served.
    Strict,
}

impl MtlsMode {
    /// The mode as YAML writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
        }
    }
}

/// A PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerAuthentication {
    /// Kind, namespace, name, origin.
    pub meta: ObjectMeta,
    /// Workloads in scope; empty makes the policy one of its namespace (or mesh) level.
    pub selector: Selector,
    /// `None` is UNSET: inherit.
    pub mode: Option<MtlsMode>,
    /// Modes by target port; `None` is UNSET. Non-empty only with a non-empty selector.
    pub port_level: BTreeMap<u16, Option<MtlsMode>>,
}
