//! The client of the API server.
//!
//! In a pod it is the cluster that the pod runs in. Elsewhere it is the kubeconfig of `KUBECONFIG`, so that
//! a control plane can be tried against a cluster from a desk.

use std::time::Duration;

use kube::config::{InClusterError, KubeConfigOptions, KubeconfigError};
use kube::{Client, Config};

/// Time to reach the API server. Less than the time in which a leader must renew its lease.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// In a pod: its service account is not mounted, mostly.
    #[error("the pod's own credentials cannot be used")]
    Pod(#[source] InClusterError),
    /// Elsewhere.
    #[error("this is not a pod, and the kubeconfig cannot be used; set KUBECONFIG")]
    Kubeconfig(#[source] KubeconfigError),
    /// The client could not be built.
    #[error("the client of the API server cannot be made")]
    Client(#[source] kube::Error),
}

/// A client. The API server is not asked yet.
///
/// # Errors
/// When there are no credentials, or none that can be read.
pub async fn connect() -> Result<Client, ConnectError> {
    // Another one that is installed is the same: there is one provider in this program.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut config = if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster().map_err(ConnectError::Pod)?
    } else {
        Config::from_kubeconfig(&KubeConfigOptions::default()).await.map_err(ConnectError::Kubeconfig)?
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    Client::try_from(config).map_err(ConnectError::Client)
}
