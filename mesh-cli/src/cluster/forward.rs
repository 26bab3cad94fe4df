//! A connection to a loopback port of a pod, through the API server.
//!
//! The API server and the kubelet carry the bytes; the connection is made inside of the pod's own network, so
//! that a port which listens on loopback only is reached and none has to be opened. It ends with the stream.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Cluster, ClusterError, Question};

/// What HTTP is spoken over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A stream to a port of a pod, and what the kubelet says when it breaks.
pub(crate) struct Forward {
    /// The stream.
    pub(crate) stream: Box<dyn Stream>,
    /// Resolves when the port cannot be used (any more), with the kubelet's words if it has some.
    pub(crate) fault: BoxFuture<'static, Option<String>>,
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward").finish_non_exhaustive()
    }
}

impl Cluster {
    /// Opens a stream to a port of a pod.
    ///
    /// # Errors
    /// When the API server does not forward. That nothing listens in the pod shows only when the stream is used.
    pub(crate) async fn forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<Forward, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let question = Question {
            verb: "create",
            resource: "pods/portforward",
            namespace: Some(namespace),
            name: Some(pod),
        };
        let mut forwarder = self.call(question, api.portforward(pod, &[port])).await?;
        let (Some(stream), Some(fault)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
            return Err(ClusterError::Refused {
                question: question.to_string(),
                message: "the port was not opened".to_owned(),
                code: 0,
            });
        };
        Ok(Forward { stream: Box::new(stream), fault: fault.boxed() })
    }
}
