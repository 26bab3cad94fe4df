//! Duties in a cluster of which there must be one doer: the replica that leads.
//!
//! [`ca_bundle`] keeps the trust bundle in the webhook configurations, [`conditions`] says on each policy object
//! what became of it (with what `peers`, the other replicas, know of it), and [`unmeshed`] finds pods that ask for a
//! proxy and have none. [`run`] starts the duties when
//! leadership begins and drops them when it ends; a duty keeps nothing that the next leader would miss, and
//! looks at everything when it starts. Dropping one between two requests leaves the cluster as the last
//! request made it.

use std::convert::Infallible;
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::leader::Leadership;
use crate::plane::Plane;

pub mod ca_bundle;
pub mod conditions;
mod peers;
pub mod unmeshed;

/// What the duties need.
#[derive(Clone)]
pub struct Duties {
    /// The API server.
    pub client: Client,
    /// The control plane.
    pub plane: Arc<Plane>,
}

impl std::fmt::Debug for Duties {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Duties").finish_non_exhaustive()
    }
}

/// Does the duties while `leadership` says that this replica leads.
pub async fn run(duties: Duties, leadership: watch::Receiver<bool>) -> Infallible {
    Leadership::following(leadership).lead("reconcile", || all(duties.clone())).await
}

async fn all(duties: Duties) -> Infallible {
    let Duties { client, plane } = &duties;
    tokio::select! {
        never = ca_bundle::run(client, plane) => never,
        never = conditions::run(client, plane) => never,
        never = unmeshed::run(client, plane) => never,
    }
}
