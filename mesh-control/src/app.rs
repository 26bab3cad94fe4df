//! Puts the control plane together: the only module that names what serves, watches and stores.
//!
//! There are two compositions: [`folders`] of YAML on one machine, and [`kubernetes`], where objects come
//! from the API server and the authority is shared by several replicas. What they have in common stands in
//! [`running`] (servers, and how they end) and [`upkeep`] (what is done from time to time).
//!
//! Order at the start: state is opened and locked, the configuration is looked at once, the authority is
//! read or made, the root is written for others to find, and only then do the listeners open. So whoever
//! reaches the control plane reaches a whole one. The listener of metrics and readiness opens first in a
//! cluster, where the kubelet asks it meanwhile.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use mesh_api::model::MeshSettings;
use mesh_api::name::{ServiceAccount, SpiffeId, TrustDomain};
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::SocketError;
use mesh_identity::ca::disk::DiskError;
use mesh_identity::ca::{CaSettings, Issuer as _};
use mesh_identity::tls::IdentitySource;
use tokio::net::TcpListener;

use crate::cluster::client::ConnectError;
use crate::config::{Config, Origin, WORKLOAD_TTL_MIN};
use crate::issue::{IssueService, UpkeepError};
use crate::jwks;
use crate::state_file::StateFileError;

mod folders;
mod kubernetes;
mod running;
mod upkeep;

pub use running::Running;

/// Service account of the control plane itself; clients expect it in the root namespace.
pub const SERVICE_ACCOUNT: &str = "mesh-control";
/// `EAFNOSUPPORT` of Linux: the kernel was started without a family of addresses.
const NO_FAMILY: i32 = 97;
/// Confirmations that may wait.
const CONFIRMATIONS: usize = 16;

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// State that cannot be read or written.
    #[error("the state cannot be used")]
    State(#[source] StateFileError),
    /// The authority.
    #[error("the authority cannot be used")]
    Authority(#[source] DiskError),
    /// The own certificate.
    #[error("the control plane has no certificate of its own")]
    Own(#[source] UpkeepError),
    /// Keys of token issuers.
    #[error("keys of token issuers cannot be fetched")]
    Keys(#[source] jwks::OpenError),
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's socket.
    #[error("the admin socket cannot be opened")]
    Admin(#[source] SocketError),
    /// The own name.
    #[error("the control plane has no valid name")]
    Name(#[source] mesh_api::name::NameError),
    /// The API server.
    #[error("the cluster cannot be reached")]
    Cluster(#[source] ConnectError),
}

/// Starts a control plane.
///
/// # Errors
/// Whatever keeps it from serving; nothing is left running then.
pub async fn start(config: Config, log: Option<LogControl>) -> Result<Running, StartError> {
    match config.origin.clone() {
        Origin::Folders(folders) => folders::start(config, &folders, log).await,
        Origin::Kubernetes(cluster) => kubernetes::start(config, cluster, log).await,
    }
}

fn trust_domains(settings: &MeshSettings) -> Vec<TrustDomain> {
    std::iter::once(&settings.trust_domain).chain(&settings.trust_domain_aliases).cloned().collect()
}

fn ca_settings(config: &Config, trust_domain: TrustDomain) -> CaSettings {
    let mut ca = CaSettings::new(trust_domain);
    ca.name.clone_from(&config.mesh_name);
    ca.root_ttl = config.root_ttl;
    ca.intermediate_ttl = config.intermediate_ttl;
    ca.workload_ttl = config.workload_ttl;
    ca.workload_ttl_min = WORKLOAD_TTL_MIN;
    ca
}

/// The identity that proxies expect of the control plane.
fn own_id(settings: &MeshSettings) -> Result<SpiffeId, StartError> {
    let account = ServiceAccount::parse(SERVICE_ACCOUNT).map_err(StartError::Name)?;
    Ok(SpiffeId::for_workload(&settings.trust_domain, &settings.root_namespace, &account))
}

/// Where the servers have the own certificate from. It has none yet.
fn identity_source(issue: &IssueService, settings: &MeshSettings) -> Arc<IdentitySource> {
    IdentitySource::new(issue.authority().trust_bundle(), trust_domains(settings))
}

/// Listens. Every address of both families that is not to be had, because the kernel has no IPv6, is every
/// address of IPv4: installations ask for `[::]` and are not to know what nodes can do.
async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address, source };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && error.raw_os_error() == Some(NO_FAMILY) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
