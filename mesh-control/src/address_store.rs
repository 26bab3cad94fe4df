//! Where the addresses are kept that were given to services that state none.
//!
//! A control plane of folders writes them to a file of its own. In a cluster a task shares them with the other
//! replicas ([`crate::cluster::addresses`]), which is told that there is something new.

use std::path::PathBuf;
use std::sync::Arc;

use mesh_api::error_chain::chain;
use tokio::sync::Notify;

use crate::registry::VirtualAddressState;
use crate::state_file::{self, Durability};

/// Keeps given addresses.
#[derive(Debug)]
pub enum AddressStore {
    /// In a file.
    File(PathBuf),
    /// In the cluster, by the task that waits for this.
    Shared(Arc<Notify>),
}

impl AddressStore {
    /// Keeps a state. Blocks on the disk when it is one of a file; a failure is logged, and the addresses
    /// hold until the process ends.
    pub fn keep(&self, state: &VirtualAddressState) {
        match self {
            Self::File(path) => {
                if let Err(error) = state_file::write_json(path, state, Durability::Flushed) {
                    tracing::error!(error = chain(&error), "given addresses could not be stored");
                }
            }
            Self::Shared(bell) => bell.notify_one(),
        }
    }
}
