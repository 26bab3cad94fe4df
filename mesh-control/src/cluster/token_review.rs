//! Whose a service-account token is: the API server is asked, and nothing else in the token is believed.
//!
//! The token must be for the mesh's audience, so that one which was stolen from another purpose is worth
//! nothing here, and the answer must name that audience, which API servers that know of audiences do. The
//! identity is namespace and service account of the answer. Questions are bounded in number and time; a token
//! that was refused is refused for a while without asking, for a proxy with a wrong one tries again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use mesh_api::name::{NameError, Namespace, ServiceAccount};
use mesh_identity::attest::{KubernetesIdentity, KubernetesToken};
use mesh_kube::name;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::telemetry::metrics;

/// Time for one review, with the wait for its turn.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// Reviews at once. A restart of a thousand proxies is over in seconds, and the API server has other work.
const REVIEWS_MAX: usize = 32;
/// How long a refusal is remembered. Short, for a service account may be made a moment after its pod.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Refusals that are remembered.
const REFUSED_MAX: usize = 1_000;
/// Longest token, in bytes; a real one has about 1 kB.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// What user names of service accounts begin with.
const USER_PREFIX: &str = "system:serviceaccount:";
/// Where a review says which pod a token was made for (Kubernetes 1.22 and later).
const EXTRA_POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const EXTRA_POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Why a review gave no identity.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server does not know the token; the caller's fault.
    #[error("the service-account token is refused: {reason}")]
    Refused {
        /// What the API server says.
        reason: String,
    },
    /// The token is somebody's who is not a service account.
    #[error("the token is not a service account's")]
    NotServiceAccount,
    /// The name of the service account is not one that an identity can have.
    #[error("the token's service account has a name that no identity can have")]
    Name(#[source] NameError),
    /// The token was made for another pod than the one that asks.
    #[error("the token was made for pod {bound} and not for {node}")]
    OtherPod {
        /// The pod of the token, `NAME.NAMESPACE`.
        bound: String,
        /// Who asks.
        node: String,
    },
    /// The API server did not answer in time.
    #[error("the API server did not review the token within {REVIEW_TIMEOUT:?}")]
    Silent,
    /// The API server could not be asked.
    #[error("the API server does not review tokens")]
    Api(#[source] Box<kube::Error>),
}

/// Asks the API server.
pub struct TokenReviewer {
    api: Api<TokenReview>,
    turns: Semaphore,
    /// When the refusal of a token ends and what it was, by SHA-256 of the token.
    refused: Mutex<HashMap<[u8; 32], (Instant, String)>>,
}

impl std::fmt::Debug for TokenReviewer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenReviewer").finish_non_exhaustive()
    }
}

impl TokenReviewer {
    /// A reviewer that asks by `client`.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            api: Api::all(client),
            turns: Semaphore::new(REVIEWS_MAX),
            refused: Mutex::new(HashMap::new()),
        }
    }

    /// Asks whose this token is, which `node` sends if it says who it is.
    ///
    /// # Errors
    /// Why there is no identity; see [`ReviewError`].
    pub async fn attest(&self, token: &str, node: &str) -> Result<KubernetesIdentity, ReviewError> {
        let found = self.review(token).await.and_then(|identity| {
            let bound = identity.pod.as_ref().map(|pod| format!("{pod}.{}", identity.namespace));
            match bound.filter(|bound| !node.is_empty() && bound != node) {
                None => Ok(identity),
                Some(bound) => Err(ReviewError::OtherPod { bound, node: node.to_owned() }),
            }
        });
        metrics::token_review(match &found {
            Ok(_) => "accepted",
            Err(ReviewError::Refused { .. } | ReviewError::NotServiceAccount | ReviewError::Name(_)) => {
                "refused"
            }
            Err(ReviewError::OtherPod { .. }) => "other_pod",
            Err(ReviewError::Silent) => "timeout",
            Err(ReviewError::Api(_)) => "unavailable",
        });
        found
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, ReviewError> {
        // Closed never: the semaphore lives as long as this.
        let _turn = self.turns.acquire().await.map_err(|_| ReviewError::Silent)?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![name::TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = self.api.create(&PostParams::default(), &review).await;
        Ok(answer.map_err(|error| ReviewError::Api(Box::new(error)))?.status.unwrap_or_default())
    }

    fn known_refusal(&self, digest: &[u8; 32]) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get(digest).filter(|(until, _)| Instant::now() < *until).map(|(_, reason)| reason.clone())
    }

    fn remember(&self, digest: [u8; 32], reason: &str) {
        let now = Instant::now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= REFUSED_MAX {
            refused.retain(|_, (until, _)| now < *until);
        }
        if refused.len() < REFUSED_MAX {
            refused.insert(digest, (now + REFUSED_FOR, reason.to_owned()));
        }
    }
}

impl KubernetesToken for TokenReviewer {
    type Error = ReviewError;

    async fn review(&self, token: &str) -> Result<KubernetesIdentity, ReviewError> {
        let token = token.trim();
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
            return Err(ReviewError::Refused { reason: "it is empty or too long to be one".to_owned() });
        }
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(reason) = self.known_refusal(&digest) {
            return Err(ReviewError::Refused { reason });
        }
        let status = timeout(REVIEW_TIMEOUT, self.ask(token)).await.map_err(|_| ReviewError::Silent)??;
        identity(status).inspect_err(|error| {
            if let ReviewError::Refused { reason } = error {
                self.remember(digest, reason);
            }
        })
    }
}

/// The identity in an answer.
fn identity(status: TokenReviewStatus) -> Result<KubernetesIdentity, ReviewError> {
    if status.authenticated != Some(true) {
        let reason = status.error.filter(|error| !error.is_empty());
        let reason = reason.unwrap_or_else(|| "it is not known, or not for this audience".to_owned());
        return Err(ReviewError::Refused { reason });
    }
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|audience| audience == name::TOKEN_AUDIENCE) {
        let reason = format!("the API server does not say that it is for {}", name::TOKEN_AUDIENCE);
        return Err(ReviewError::Refused { reason });
    }
    let user = status.user.unwrap_or_default();
    let name = user.username.unwrap_or_default();
    let account = name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
    let Some((namespace, account)) = account else { return Err(ReviewError::NotServiceAccount) };
    let extra = user.extra.unwrap_or_default();
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) => Some(value.clone()),
        Some(_) | None => None,
    };
    Ok(KubernetesIdentity {
        namespace: Namespace::parse(namespace).map_err(ReviewError::Name)?,
        service_account: ServiceAccount::parse(account).map_err(ReviewError::Name)?,
        pod: one(EXTRA_POD_NAME),
        pod_uid: one(EXTRA_POD_UID),
    })
}

#[cfg(test)]
mod tests;
