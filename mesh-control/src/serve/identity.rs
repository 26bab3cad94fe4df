//! The identity service: certificates for workloads.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::error_chain::chain;
use mesh_api::wire::identity::identity_service_server::IdentityService;
use mesh_api::wire::identity::issue_request::Attestation as WireAttestation;
use mesh_api::wire::identity::{IssueRequest, IssueResponse, TrustDomainBundle};
use mesh_identity::attest::Attestation;
use mesh_identity::certificate::timestamp;
use tonic::{Request, Response, Status};

use super::answer;
use super::tls::Caller;
use crate::issue::{Ask, IssueRefusal, IssueService, Issued};
use crate::telemetry::metrics;

/// The service.
#[derive(Debug)]
pub struct Identity {
    issue: Arc<IssueService>,
}

impl Identity {
    /// A service of `issue`.
    #[must_use]
    pub fn new(issue: Arc<IssueService>) -> Self {
        Self { issue }
    }
}

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let issue = Arc::clone(&self.issue);
        let address = caller.address;
        // Signing computes and redeeming a token waits for the disk.
        let outcome = tokio::task::spawn_blocking(move || serve(&issue, &caller, &message))
            .await
            .map_err(|_| Status::internal("the request was not finished"))?;
        match outcome {
            Ok(issued) => {
                metrics::certificate("issued");
                tracing::info!(
                    id = %issued.chain.id,
                    serial = issued.chain.serial,
                    not_after = timestamp(issued.chain.not_after),
                    %address,
                    "certificate issued"
                );
                Ok(Response::new(response(issued)))
            }
            Err(Refused::Incomplete(text)) => {
                metrics::certificate("request");
                Err(Status::invalid_argument(text))
            }
            Err(Refused::Issue(refusal)) => {
                let (status, label) = answer::to_issue(&refusal);
                metrics::certificate(label);
                tracing::warn!(%address, reason = chain(&refusal), "no certificate issued");
                Err(status)
            }
        }
    }
}

enum Refused {
    Incomplete(&'static str),
    Issue(IssueRefusal),
}

fn serve(issue: &IssueService, caller: &Caller, message: &IssueRequest) -> Result<Issued, Refused> {
    let attestation = match &message.attestation {
        Some(WireAttestation::JoinToken(token)) => Attestation::JoinToken(token),
        Some(WireAttestation::KubernetesToken(token)) => Attestation::KubernetesToken(token),
        Some(WireAttestation::CurrentSvid(_)) => {
            Attestation::CurrentSvid(caller.peer.as_ref().map(|peer| &peer.id))
        }
        None => return Err(Refused::Incomplete("the request has no attestation")),
    };
    let ttl = (message.ttl_seconds > 0).then(|| Duration::from_secs(message.ttl_seconds));
    let ask = Ask { csr: &message.csr, ttl, attestation, address: caller.address.ip() };
    issue.issue(ask, SystemTime::now(), Instant::now()).map_err(Refused::Issue)
}

fn response(issued: Issued) -> IssueResponse {
    let bundles = issued
        .bundle
        .anchors
        .into_iter()
        .map(|(trust_domain, anchors)| TrustDomainBundle { trust_domain, anchors })
        .collect();
    IssueResponse { chain: issued.chain.chain, bundles }
}

/// Who is on the connection of a request.
pub(super) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Status::internal("the connection has no facts about its caller"))
}
