//! The keys service: proxies report tokens whose key they do not know.
//!
//! Who may have a source asked is decided like who is sent its keys: the certificate must be the node's, and
//! a policy of that node must use the source. What is asked, and how often, is [`crate::jwks`]'s decision;
//! the proxy is answered before that.

use std::sync::Arc;

use mesh_api::wire::keys::key_service_server::KeyService;
use mesh_api::wire::keys::{ReportUnknownKeyRequest, ReportUnknownKeyResponse};
use tonic::{Request, Response, Status};

use super::ads::{Access, access};
use super::answer;
use super::identity::caller;
use crate::plane::Plane;
use crate::registry::WorkloadKey;

/// The service.
#[derive(Debug)]
pub struct UnknownKeys {
    plane: Arc<Plane>,
}

impl UnknownKeys {
    /// A service of `plane`.
    #[must_use]
    pub fn new(plane: Arc<Plane>) -> Self {
        Self { plane }
    }

    fn uses(&self, workload: &WorkloadKey, source: &str) -> bool {
        let snapshot = self.plane.snapshot();
        let registry = snapshot.registry();
        registry.workload(workload).is_some_and(|workload| {
            let mut policies = registry.request_of(workload);
            policies.extend(registry.candidate_of(workload).into_iter().flat_map(|tried| tried.request));
            policies
                .iter()
                .flat_map(|policy| &policy.jwt_rules)
                .any(|rule| rule.key_source().url() == Some(source))
        })
    }
}

#[tonic::async_trait]
impl KeyService for UnknownKeys {
    async fn report_unknown_key(
        &self,
        request: Request<ReportUnknownKeyRequest>,
    ) -> Result<Response<ReportUnknownKeyResponse>, Status> {
        let caller = caller(&request)?;
        let ReportUnknownKeyRequest { node_id, source, key_id } = request.into_inner();
        let peer = caller.peer.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))?;
        let workload = WorkloadKey::from_node_id(&node_id)
            .ok_or_else(|| Status::invalid_argument("the node id must be NAME.NAMESPACE"))?;
        match access(&self.plane, &peer, &workload).map_err(|refusal| answer::to_stream(&refusal))? {
            Access::Granted if self.uses(&workload, &source) => {}
            Access::Granted | Access::Waiting(_) => {
                return Err(Status::permission_denied("no policy of the node uses the source"));
            }
        }
        if self.plane.keys.ask(&source, &key_id) {
            Ok(Response::new(ReportUnknownKeyResponse {}))
        } else {
            Err(Status::resource_exhausted("too many questions about keys at once"))
        }
    }
}
