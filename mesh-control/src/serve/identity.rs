//! The identity service: certificates for workloads.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_api::error_chain::chain;
use mesh_api::wire::identity::identity_service_server::IdentityService;
use mesh_api::wire::identity::issue_request::Attestation as WireAttestation;
use mesh_api::wire::identity::{IssueRequest, IssueResponse, TrustDomainBundle};
use mesh_identity::attest::{Attestation, KubernetesIdentity};
use mesh_identity::certificate::timestamp;
use tonic::{Request, Response, Status};

use super::answer;
use super::tls::Caller;
use crate::cluster::token_review::{ReviewError, TokenReviewer};
use crate::issue::{Ask, IssueRefusal, IssueService, Issued};
use crate::telemetry::metrics;

/// The service.
#[derive(Debug)]
pub struct Identity {
    issue: Arc<IssueService>,
    reviewer: Option<TokenReviewer>,
}

impl Identity {
    /// A service of `issue`.
    #[must_use]
    pub fn new(issue: Arc<IssueService>) -> Self {
        Self { issue, reviewer: None }
    }

    /// Takes service-account tokens too, which `reviewer` asks about.
    #[must_use]
    pub fn with_reviewer(self, reviewer: TokenReviewer) -> Self {
        Self { reviewer: Some(reviewer), ..self }
    }

    /// The identity of a service-account token, if the request has one and they are taken here.
    async fn review(
        &self,
        message: &IssueRequest,
        caller: &Caller,
    ) -> Result<Option<KubernetesIdentity>, IssueRefusal> {
        let (Some(reviewer), Some(WireAttestation::KubernetesToken(token))) =
            (&self.reviewer, &message.attestation)
        else {
            return Ok(None);
        };
        let address = caller.address.ip();
        self.issue.admit(address, Instant::now())?;
        reviewer.attest(token, &message.node_id).await.map(Some).map_err(|error| {
            let is_fault = !matches!(error, ReviewError::Silent | ReviewError::Api(_));
            self.issue.count_refusal(address, Instant::now(), is_fault);
            IssueRefusal::Review(error)
        })
    }
}

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn issue(&self, request: Request<IssueRequest>) -> Result<Response<IssueResponse>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        let issue = Arc::clone(&self.issue);
        let address = caller.address;
        let outcome = match self.review(&message, &caller).await {
            Err(refusal) => Err(Refused::Issue(refusal)),
            // Signing computes and redeeming a token waits for the disk.
            Ok(reviewed) => {
                tokio::task::spawn_blocking(move || serve(&issue, &caller, &message, reviewed.as_ref()))
                    .await
                    .map_err(|_| Status::internal("the request was not finished"))?
            }
        };
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

fn serve(
    issue: &IssueService,
    caller: &Caller,
    message: &IssueRequest,
    reviewed: Option<&KubernetesIdentity>,
) -> Result<Issued, Refused> {
    let attestation = match (&message.attestation, reviewed) {
        (Some(WireAttestation::KubernetesToken(_)), Some(identity)) => Attestation::Reviewed(identity),
        (attestation, _) => unreviewed(attestation.as_ref(), caller)?,
    };
    let ttl = (message.ttl_seconds > 0).then(|| Duration::from_secs(message.ttl_seconds));
    let ask = Ask { csr: &message.csr, ttl, attestation, address: caller.address.ip() };
    issue.issue(ask, SystemTime::now(), Instant::now()).map_err(Refused::Issue)
}

fn unreviewed<'a>(
    attestation: Option<&'a WireAttestation>,
    caller: &'a Caller,
) -> Result<Attestation<'a>, Refused> {
    Ok(match attestation {
        Some(WireAttestation::JoinToken(token)) => Attestation::JoinToken(token),
        Some(WireAttestation::KubernetesToken(token)) => Attestation::KubernetesToken(token),
        Some(WireAttestation::CurrentSvid(_)) => {
            Attestation::CurrentSvid(caller.peer.as_ref().map(|peer| &peer.id))
        }
        None => return Err(Refused::Incomplete("the request has no attestation")),
    })
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
