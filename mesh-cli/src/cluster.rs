//! The mesh in a cluster, as `meshctl` reaches it: through the API server and nothing else.
//!
//! Admin questions go to the loopback ports of pods by port-forward ([`forward`]), so that nobody is asked who
//! could not read the pod through Kubernetes anyway, and nothing is executed in a pod. Every call has a time
//! limit, and every failure names what was asked of which server: the verb and the resource when a right is
//! missing, the server when it is away.

pub(crate) mod error;
pub(crate) mod forward;
pub(crate) mod pod;
pub(crate) mod resolve;

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use mesh_kube::name;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::args::GlobalArgs;
pub(crate) use error::{ClusterError, Question};
use pod::PodView;

/// Time for one answer of the API server.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(15);
/// Time to reach it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Pages of one list: more is no answer for a person.
const PAGES_MAX: usize = 400;

/// A cluster, and who the mesh is in it.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// Address of the API server.
    pub(crate) server: String,
    /// Namespace of names without one, as the context says.
    pub(crate) default_namespace: String,
    /// Namespace of the control plane.
    pub(crate) system_namespace: String,
    /// Revision of the control plane, if one is meant.
    pub(crate) revision: Option<String>,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Whether something says how a cluster could be reached.
pub(crate) fn is_configured() -> bool {
    is_named()
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        || std::env::var_os("HOME").is_some_and(|home| Path::new(&home).join(".kube/config").is_file())
}

/// Whether the environment names a kubeconfig.
pub(crate) fn is_named() -> bool {
    std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty())
}

impl Cluster {
    /// Reads the kubeconfig and makes a client. Nothing is asked yet.
    ///
    /// # Errors
    /// When there is no kubeconfig, or it cannot be used.
    pub(crate) async fn connect(global: &GlobalArgs) -> Result<Self, ClusterError> {
        // Only the first call of a process installs it; a second one changes nothing.
        let _installed_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut config = configuration(global).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let server = config.cluster_url.to_string();
        let default_namespace = config.default_namespace.clone();
        let client =
            Client::try_from(config).map_err(|source| ClusterError::Client { source: Box::new(source) })?;
        Ok(Self {
            client,
            server,
            default_namespace,
            system_namespace: global.istio_namespace.clone(),
            revision: global.revision.clone(),
        })
    }

    /// A call of the API server with a time limit, and with what was asked in its failure.
    ///
    /// # Errors
    /// When it fails.
    pub(crate) async fn call<T>(
        &self,
        question: Question<'_>,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ClusterError> {
        match timeout(TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ClusterError::of(&self.server, question, error)),
            Err(_) => Err(ClusterError::Timeout {
                server: self.server.clone(),
                question: question.to_string(),
                waited: TIMEOUT,
            }),
        }
    }

    /// Objects of one namespace, or of all, page by page.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub(crate) async fn list<K>(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
    ) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let resource = K::plural(&());
        self.pages(&api, &Question::list(&resource, namespace), params).await
    }

    /// Objects without a namespace, page by page.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub(crate) async fn list_global<K>(&self, params: &ListParams) -> Result<Vec<K>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let resource = K::plural(&());
        self.pages(&api, &Question::list(&resource, None), params).await
    }

    /// All pages of a list.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub(crate) async fn pages<K>(
        &self,
        api: &Api<K>,
        question: &Question<'_>,
        params: &ListParams,
    ) -> Result<Vec<K>, ClusterError>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let mut params = params.clone().limit(PAGE);
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.call(*question, api.list(&params)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => params = params.continue_token(&next),
                None => return Ok(found),
            }
        }
        Err(ClusterError::TooMany { question: question.to_string() })
    }

    /// One object of a namespace; `None` when there is none.
    ///
    /// # Errors
    /// When the API server does not answer, or this user may not read it.
    pub(crate) async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, ClusterError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let resource = K::plural(&());
        let question =
            Question { verb: "get", resource: &resource, namespace: Some(namespace), name: Some(name) };
        self.call(question, api.get_opt(name)).await
    }

    /// One object without a namespace; `None` when there is none.
    ///
    /// # Errors
    /// When the API server does not answer, or this user may not read it.
    pub(crate) async fn get_global<K>(&self, name: &str) -> Result<Option<K>, ClusterError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let resource = K::plural(&());
        let question = Question { verb: "get", resource: &resource, namespace: None, name: Some(name) };
        self.call(question, api.get_opt(name)).await
    }

    /// Pods of one namespace, or of all, that labels select.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub(crate) async fn pods(
        &self,
        namespace: Option<&str>,
        labels: &str,
    ) -> Result<Vec<PodView>, ClusterError> {
        let params = ListParams::default().labels(labels);
        let mut pods: Vec<PodView> =
            self.list::<Pod>(namespace, &params).await?.iter().map(PodView::of).collect();
        pods.sort_by(|left, right| (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name)));
        Ok(pods)
    }

    /// Pods that a proxy of the mesh serves, or that are about to be.
    ///
    /// # Errors
    /// When the API server does not list them.
    pub(crate) async fn meshed_pods(&self, namespace: Option<&str>) -> Result<Vec<PodView>, ClusterError> {
        let labels = format!("{}={}", name::LABEL_TLS_MODE, name::TLS_MODE);
        let mut pods = self.pods(namespace, &labels).await?;
        pods.retain(|pod| pod.has_proxy && !pod.has_ended());
        Ok(pods)
    }

    /// Running replicas of the control plane, of the revision that is meant or of all, ready ones first.
    ///
    /// # Errors
    /// When there is none, or the API server does not list them.
    pub(crate) async fn replicas(&self) -> Result<Vec<PodView>, ClusterError> {
        let mut labels = format!("{}={}", name::LABEL_COMPONENT, name::COMPONENT_CONTROL);
        if let Some(revision) = &self.revision {
            labels.push_str(&format!(",{}={revision}", name::LABEL_REVISION));
        }
        let mut pods = self.pods(Some(&self.system_namespace), &labels).await?;
        pods.retain(|pod| pod.phase == "Running");
        pods.sort_by_key(|pod| (pod.is_ending, !pod.is_ready));
        if pods.is_empty() {
            return Err(ClusterError::NoControlPlane {
                namespace: self.system_namespace.clone(),
                revision: self.revision.clone(),
            });
        }
        Ok(pods)
    }
}

async fn configuration(global: &GlobalArgs) -> Result<Config, ClusterError> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    let unusable = |source| ClusterError::Kubeconfig { source: Box::new(source) };
    let file = match &global.kubeconfig {
        Some(path) => Kubeconfig::read_from(path).map_err(unusable)?,
        None if is_named() => Kubeconfig::read().map_err(unusable)?,
        None => match Kubeconfig::read() {
            Ok(file) => file,
            Err(error) if global.context.is_some() => return Err(unusable(error)),
            Err(_) => return Config::incluster().map_err(|_| ClusterError::NoKubeconfig),
        },
    };
    Config::from_custom_kubeconfig(file, &options).await.map_err(unusable)
}

#[cfg(test)]
mod tests;
