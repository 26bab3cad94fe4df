//! Where the addresses are kept that were given to services that state none.
//!
//! A control plane of folders writes them to a file of its own. The replicas of a cluster hand them to the
//! task that shares them in a ConfigMap ([`crate::cluster::addresses`]): the latest state is what counts, so
//! one that was not yet written is replaced by the next.

use std::path::PathBuf;

use mesh_api::error_chain::chain;
use tokio::sync::watch;

use crate::registry::VirtualAddressState;
use crate::state_file::{self, Durability};

/// Keeps given addresses.
#[derive(Debug)]
pub enum AddressStore {
    /// In a file.
    File(PathBuf),
    /// In the cluster, by the task that holds the other end.
    Shared(watch::Sender<VirtualAddressState>),
}

impl AddressStore {
    /// Keeps a state. Blocks on the disk when it is one of a file; a failure is logged, and the addresses
    /// hold until the process ends.
    pub fn keep(&self, state: VirtualAddressState) {
        match self {
            Self::File(path) => {
                if let Err(error) = state_file::write_json(path, &state, Durability::Flushed) {
                    tracing::error!(error = chain(&error), "given addresses could not be stored");
                }
            }
            Self::Shared(state_now) => drop(state_now.send_replace(state)),
        }
    }
}
