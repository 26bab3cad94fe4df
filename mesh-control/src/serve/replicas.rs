//! What this replica tells the others: how far objects have come at its proxies.
//!
//! Each proxy is on one replica, and only that one knows what it has acknowledged; who writes conditions of
//! objects asks all of them. The question is answered to the control plane's own identity and to nobody else.

use std::sync::{Arc, LazyLock};

use mesh_api::wire::replicas::replica_service_server::ReplicaService;
use mesh_api::wire::replicas::{ReportRequest, ReportResponse};
use tonic::{Request, Response, Status};

use super::identity::caller;
use crate::plane::Plane;
use crate::status::ObjectFilter;
use crate::status::enforcement::object_statuses;

/// Tells this process from other replicas. An address does not: a Service may lead back to oneself.
static INSTANCE: LazyLock<u64> = LazyLock::new(|| fastrand::u64(1..));

/// This process.
#[must_use]
pub fn instance() -> u64 {
    *INSTANCE
}

/// The service.
#[derive(Debug)]
pub struct Reports {
    plane: Arc<Plane>,
}

impl Reports {
    /// A service of `plane`.
    #[must_use]
    pub fn new(plane: Arc<Plane>) -> Self {
        Self { plane }
    }
}

#[tonic::async_trait]
impl ReplicaService for Reports {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let caller = caller(&request)?;
        let own = self.plane.identity.current().svid.as_ref().map(|svid| svid.id().clone());
        let peer = caller.peer.map(|peer| peer.id);
        if own.is_none() || peer != own {
            return Err(Status::permission_denied("only replicas of the control plane are told"));
        }
        // Read first: what happens meanwhile is told again.
        let activity = self.plane.activity();
        if request.get_ref().activity == activity {
            return Ok(Response::new(ReportResponse { instance: instance(), activity, objects: Vec::new() }));
        }
        let plane = Arc::clone(&self.plane);
        let work = tokio::task::spawn_blocking(move || {
            serde_json::to_vec(&object_statuses(&plane, &ObjectFilter::default()))
        });
        let objects = work.await.map_err(|_| Status::internal("the report was not finished"))?;
        let objects = objects.map_err(|_| Status::internal("the report could not be written"))?;
        Ok(Response::new(ReportResponse { instance: instance(), activity, objects }))
    }
}
