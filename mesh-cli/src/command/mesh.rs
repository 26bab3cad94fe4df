//! The mesh that a command is about, and what its processes answer: on this machine over their sockets, in a
//! cluster through the API server.
//!
//! A control plane in a cluster has several replicas with the same configuration, and each proxy is connected
//! to one of them. What is of the configuration is asked of any replica; what is of proxies is asked of all, and
//! put together.

mod local;
mod merge;

use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream;
use http::Method;
use mesh_api::admin::{CaStatus, ControlStatus, ObjectSummary, RegistryDump};
use mesh_api::model::ObjectRef;
use mesh_api::problem::Problem;
use mesh_kube::name;
use serde::de::DeserializeOwned;

use super::block_on_cluster;
use crate::admin_client::{self, AskError, Connection};
use crate::args::{GlobalArgs, Target};
use crate::cluster::pod::PodView;
use crate::cluster::{self, Cluster, ClusterError};
use crate::local::state::LocateError;
use crate::output;
pub(crate) use local::{LocalMesh, refuse_cluster};
pub(crate) use merge::{is_newer, status as merged};

/// Proxies that are asked at the same time.
pub(crate) const ASKED_AT_ONCE: usize = 16;

/// A mesh.
#[derive(Debug)]
pub(crate) enum Mesh {
    /// One on this machine.
    Local(Box<LocalMesh>),
    /// One in a cluster.
    Cluster(Box<Cluster>),
}

/// Why no mesh was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeshError {
    /// None on this machine.
    #[error(transparent)]
    Local(#[from] LocateError),
    /// None in a cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Flags that do not go together.
    #[error("{0} names a mesh on this machine, and {1} a cluster; name one of the two")]
    Both(&'static str, &'static str),
}

/// What one replica of the control plane answered.
#[derive(Debug)]
pub(crate) struct Replica<T> {
    /// Its pod; that of a mesh on this machine has the name that it gives itself.
    pub(crate) name: String,
    /// The answer.
    pub(crate) answer: Result<T, AskError>,
}

/// What flags and environment say about which kind of mesh is meant.
fn said(global: &GlobalArgs) -> Result<Option<Target>, MeshError> {
    let local = match (&global.state_dir, &global.mesh) {
        (Some(_), _) => Some("--state-dir (MESH_STATE_DIR)"),
        (None, Some(_)) => Some("--mesh (MESH_NAME)"),
        (None, None) => None,
    };
    let cluster = match (&global.context, &global.kubeconfig) {
        (Some(_), _) => Some("--context"),
        (None, Some(_)) => Some("--kubeconfig"),
        (None, None) => None,
    };
    match (local, cluster, global.target) {
        (Some(local), Some(cluster), None) => Err(MeshError::Both(local, cluster)),
        (_, _, Some(target)) => Ok(Some(target)),
        (Some(_), None, None) => Ok(Some(Target::Local)),
        (None, Some(_), None) => Ok(Some(Target::Cluster)),
        (None, None, None) => Ok(cluster::is_named().then_some(Target::Cluster)),
    }
}

impl Mesh {
    /// Finds the mesh that the flags mean.
    ///
    /// # Errors
    /// When there is none, or several.
    pub(crate) fn locate(global: &GlobalArgs) -> Result<Self, MeshError> {
        match said(global)? {
            Some(Target::Cluster) => return Self::in_cluster(global),
            Some(Target::Local) => return Ok(Self::Local(Box::new(LocalMesh::locate(global)?))),
            None => {}
        }
        match LocalMesh::locate(global) {
            Ok(mesh) => {
                if cluster::is_configured() {
                    output::note(&format!(
                        "this is mesh {} on this machine; --target cluster asks the cluster",
                        mesh.state.name
                    ));
                }
                Ok(Self::Local(Box::new(mesh)))
            }
            Err(LocateError::None | LocateError::NoHome) if cluster::is_configured() => {
                Self::in_cluster(global)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn in_cluster(global: &GlobalArgs) -> Result<Self, MeshError> {
        Ok(Self::Cluster(Box::new(block_on_cluster(Cluster::connect(global))?)))
    }

    /// Its name, as tables show it: istioctl calls a cluster Kubernetes.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Local(mesh) => &mesh.state.name,
            Self::Cluster(_) => "Kubernetes",
        }
    }

    /// `GET path` of every replica of the control plane.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn each_replica<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Vec<Replica<T>>, AskError> {
        match self {
            Self::Local(mesh) => {
                let answer = admin_client::get(&mesh.directory.control_socket(), path).await;
                Ok(vec![Replica { name: name::CONTROL.to_owned(), answer }])
            }
            Self::Cluster(cluster) => {
                let replicas = cluster.replicas().await?;
                let ask = |pod: PodView| async move {
                    let answer =
                        forwarded(cluster, &pod.namespace, &pod.name, name::PORT_CONTROL_ADMIN, path).await;
                    Replica { name: pod.name, answer }
                };
                Ok(stream::iter(replicas).map(ask).buffered(ASKED_AT_ONCE).collect().await)
            }
        }
    }

    /// `GET /status` of each replica that answers, under the name of its pod. Those that do not are told.
    ///
    /// # Errors
    /// When none answers.
    pub(crate) async fn control_statuses(&self) -> Result<Vec<ControlStatus>, AskError> {
        let mut answers = Vec::new();
        let mut failure = None;
        for Replica { name, answer } in self.each_replica::<ControlStatus>("/status").await? {
            match (answer, self) {
                (Ok(status), Self::Local(_)) => answers.push(status),
                (Ok(status), Self::Cluster(_)) => answers.push(ControlStatus { name, ..status }),
                (Err(error), _) => failure = Some((name, error)),
            }
        }
        if let Self::Cluster(cluster) = self {
            forget_ended(cluster, &mut answers).await;
        }
        match (answers.is_empty(), failure) {
            (true, Some((_, error))) => Err(error),
            (false, Some((name, error))) => {
                output::note(&format!("{name} does not answer: {}", output::chain(&error)));
                Ok(answers)
            }
            (_, None) => Ok(answers),
        }
    }

    /// `GET /status` of the control plane, of all replicas together.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn control_status(&self) -> Result<ControlStatus, AskError> {
        let statuses = self.control_statuses().await?;
        merge::status(statuses).ok_or_else(|| self.nobody())
    }

    /// `GET /ca` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn ca(&self) -> Result<CaStatus, AskError> {
        self.control("/ca").await
    }

    /// `GET /problems` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn problems(&self) -> Result<Vec<Problem>, AskError> {
        self.control("/problems").await
    }

    /// `GET /registry` of the control plane.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn registry(&self) -> Result<RegistryDump, AskError> {
        self.control("/registry").await
    }

    /// `GET /objects` of the control plane: every object in force.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn objects(&self) -> Result<Vec<ObjectSummary>, AskError> {
        self.merged_objects("/objects").await
    }

    /// `GET /objects` of the control plane: one object, if it is in force.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn object(&self, object: &ObjectRef) -> Result<Option<ObjectSummary>, AskError> {
        let path = format!(
            "/objects?kind={}&namespace={}&name={}",
            object.kind,
            encode(object.namespace.as_str()),
            encode(object.name.as_str())
        );
        Ok(self.merged_objects(&path).await?.into_iter().next())
    }

    async fn merged_objects(&self, path: &str) -> Result<Vec<ObjectSummary>, AskError> {
        let mut answers = Vec::new();
        // What a replica counts of its own proxies is missing when it does not answer: better none than wrong.
        for Replica { answer, .. } in self.each_replica::<Vec<ObjectSummary>>(path).await? {
            answers.push(answer?);
        }
        Ok(merge::objects(answers))
    }

    /// `GET path` of a workload's proxy.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn proxy<T: DeserializeOwned>(&self, workload: &str, path: &str) -> Result<T, AskError> {
        self.proxy_connection(workload).await?.value(Method::GET, path, &()).await
    }

    /// A connection to a workload's proxy.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn proxy_connection(&self, workload: &str) -> Result<Connection, AskError> {
        match self {
            Self::Local(mesh) => Connection::open(&mesh.directory.proxy_socket(workload)).await,
            Self::Cluster(cluster) => {
                let (pod, namespace) =
                    workload.rsplit_once('.').unwrap_or((workload, &cluster.default_namespace));
                let forward = cluster.forward(namespace, pod, name::PORT_PROXY_ADMIN).await?;
                Connection::forwarded(place(namespace, pod, name::PORT_PROXY_ADMIN), forward).await
            }
        }
    }

    /// `GET path` of any replica of the control plane: the first that answers.
    async fn control<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        let cluster = match self {
            Self::Local(mesh) => return admin_client::get(&mesh.directory.control_socket(), path).await,
            Self::Cluster(cluster) => cluster,
        };
        let mut failure = None;
        for pod in cluster.replicas().await? {
            match forwarded(cluster, &pod.namespace, &pod.name, name::PORT_CONTROL_ADMIN, path).await {
                Ok(answer) => return Ok(answer),
                Err(error @ AskError::Refused { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| self.nobody()))
    }

    /// The error of a control plane without replicas.
    fn nobody(&self) -> AskError {
        let (namespace, revision) = match self {
            Self::Local(mesh) => (mesh.state.name.clone(), None),
            Self::Cluster(cluster) => (cluster.system_namespace.clone(), cluster.revision.clone()),
        };
        ClusterError::NoControlPlane { namespace, revision }.into()
    }
}

/// Takes proxies out that are not connected and whose pods have ended: a replica remembers them for a while, and
/// nobody misses them. Without an answer of the API server all stay.
async fn forget_ended(cluster: &Cluster, statuses: &mut [ControlStatus]) {
    if statuses.iter().flat_map(|status| &status.proxies).all(|proxy| proxy.connected) {
        return;
    }
    let Ok(pods) = cluster.meshed_pods(None).await else { return };
    let running: BTreeSet<String> = pods.iter().map(PodView::id).collect();
    for status in statuses {
        status.proxies.retain(|proxy| proxy.connected || running.contains(&proxy.name));
    }
}

/// `GET path` at a loopback port of a pod.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn forwarded<T: DeserializeOwned>(
    cluster: &Cluster,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<T, AskError> {
    let forward = cluster.forward(namespace, pod, port).await?;
    Connection::forwarded(place(namespace, pod, port), forward).await?.value(Method::GET, path, &()).await
}

fn place(namespace: &str, pod: &str, port: u16) -> String {
    format!("port {port} of pod {pod} in namespace {namespace}")
}

/// Percent-encodes a value of a query (RFC 3986, section 2.3: what is not unreserved).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn only_unreserved_characters_stay() {
        assert_eq!(encode("/srv/my mesh+a&b"), "/srv/my%20mesh%2Ba%26b");
        assert_eq!(encode("ü"), "%C3%BC");
        assert_eq!(encode("info,mesh_proxy=debug"), "info%2Cmesh_proxy%3Ddebug");
    }
}
