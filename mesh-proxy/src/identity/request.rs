//! One request for a certificate, from the key to the checked answer.
//!
//! The answer is not believed as it comes: the certificate must belong to the key, its chain must be whole,
//! it must name this workload's namespace, and it must lead to a root that came with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::error_chain::chain;
use mesh_api::model::TrustBundleSet;
use mesh_api::name::SpiffeId;
use mesh_api::wire::identity::identity_service_client::IdentityServiceClient;
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::identity::{CurrentSvid, IssueRequest, IssueResponse};
use mesh_identity::bundle::{BundleError, TrustBundle};
use mesh_identity::csr;
use mesh_identity::key::{KeyError, WorkloadKey};
use mesh_identity::svid::{Svid, SvidError};
use mesh_identity::tls::{IdentitySource, bootstrap_client_config, client_config};
use mesh_identity::verify::{ExpectedPeer, PeerRole, VerifyError, verify_peer};
use rustls::ClientConfig;
use tokio::io::AsyncReadExt as _;
use tonic::Code;

use crate::control::channel::{self, ChannelError};
use crate::settings::{Proof, Settings};

/// Largest answer, in bytes: a chain of a few kilobytes, and at most 64 roots for each trust domain.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Largest file of roots, in bytes.
const ROOTS_BYTES_MAX: u64 = 1024 * 1024;
/// Largest token, in bytes.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

/// A certificate and whom to trust.
#[derive(Debug)]
pub struct Granted {
    /// The certificate with its key.
    pub svid: Svid,
    /// The roots.
    pub bundle: TrustBundle,
}

/// The key for which a first certificate is asked for, until there is one. The control plane binds a join token to
/// the first key that comes with it, so an answer that is lost must be asked for again with that key.
#[derive(Debug, Default)]
pub struct FirstKey(Option<WorkloadKey>);

impl FirstKey {
    fn get(&mut self) -> Result<&WorkloadKey, KeyError> {
        Ok(match &mut self.0 {
            Some(key) => key,
            none => none.insert(WorkloadKey::generate()?),
        })
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than anything that belongs there.
    #[error("{} is too large", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is no token.
    #[error("there is no token in {}", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
    /// The roots in the file cannot be used.
    #[error("the roots in {} cannot be used", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BundleError,
    },
    /// No key could be made.
    #[error("no key")]
    Key(#[from] KeyError),
    /// The request could not be signed.
    #[error("no request")]
    Build(#[from] csr::BuildError),
    /// No connection.
    #[error("no connection")]
    Channel(#[from] ChannelError),
    /// The control plane refuses.
    #[error("the control plane issues no certificate: {}", .0.message())]
    Refused(tonic::Status),
    /// No answer in time.
    #[error("the control plane gives no answer in time")]
    TimedOut,
    /// The answer's certificate is not whole.
    #[error("the certificate in the answer is not whole")]
    Svid(#[from] SvidError),
    /// The answer's roots cannot be used.
    #[error("the roots in the answer cannot be used")]
    Bundle(#[from] BundleError),
    /// The answer's certificate would be refused by every peer.
    #[error("the certificate in the answer is not valid under the roots in the answer")]
    Invalid(#[from] VerifyError),
    /// The certificate is somebody else's.
    #[error("the certificate in the answer is that of {found}, which is not of {expected}")]
    Foreign {
        /// Whose.
        found: SpiffeId,
        /// Trust domain and namespace expected.
        expected: String,
    },
}

impl RequestError {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::File { .. } | Self::TooLarge { .. } | Self::Roots { .. } => "file",
            Self::NoToken { .. } => "no_token",
            Self::Key(_) | Self::Build(_) => "key",
            Self::Channel(error) => error.label(),
            Self::Refused(status) => match status.code() {
                Code::Unauthenticated | Code::PermissionDenied => "unauthenticated",
                Code::InvalidArgument => "invalid_request",
                Code::ResourceExhausted => "too_many_requests",
                Code::Unavailable => "unavailable",
                _ => "refused",
            },
            Self::TimedOut => "timeout",
            Self::Svid(_) | Self::Bundle(_) | Self::Invalid(_) | Self::Foreign { .. } => "answer",
        }
    }
}

impl RequestError {
    /// Whether the other side does not accept who this is, or is not accepted itself: another proof, and roots
    /// that are read anew, may help. In TLS 1.3 a certificate is refused after the handshake, which is seen as
    /// a connection that broke and has the code UNKNOWN.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Channel(ChannelError::Peer { .. } | ChannelError::Handshake { .. }) => true,
            Self::Refused(status) => {
                matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::Unknown)
            }
            Self::Channel(
                ChannelError::Mark(_)
                | ChannelError::Lookup { .. }
                | ChannelError::Connect { .. }
                | ChannelError::TimedOut { .. }
                | ChannelError::Http(_),
            )
            | Self::File { .. }
            | Self::TooLarge { .. }
            | Self::NoToken { .. }
            | Self::Roots { .. }
            | Self::Key(_)
            | Self::Build(_)
            | Self::TimedOut
            | Self::Svid(_)
            | Self::Bundle(_)
            | Self::Invalid(_)
            | Self::Foreign { .. } => false,
        }
    }
}

/// Asks for a certificate: with the valid one, else with a token.
///
/// A certificate that is refused, though it is valid by itself, is asked for anew with a service-account token
/// if there is one. So a workload comes back by itself when the authority was replaced or has forgotten it. A
/// join token is good once, and so never tried beside a certificate.
///
/// Dropping the future gives the request up; a join token may have been spent then, on the key that is left in
/// `first_key`, with which it stays good.
///
/// # Errors
/// Why there is none.
pub async fn request(
    settings: &Settings,
    source: &Arc<IdentitySource>,
    first_key: &mut FirstKey,
) -> Result<Granted, RequestError> {
    if source.current().valid_svid(SystemTime::now()).is_none() {
        return first(settings, first_key).await;
    }
    let refused = match renewal(settings, source).await {
        Err(error) if error.is_refusal() => error,
        outcome => return outcome,
    };
    match settings.proof {
        Proof::JoinToken(_) => Err(refused),
        Proof::ServiceAccountToken(_) => {
            tracing::warn!(
                reason = chain(&refused),
                "renewal is refused; asking with the service-account token"
            );
            first(settings, first_key).await
        }
    }
}

/// Asks with the certificate in force.
async fn renewal(settings: &Settings, source: &Arc<IdentitySource>) -> Result<Granted, RequestError> {
    let config = client_config(source, &expected(settings), &[b"h2"]);
    let key = WorkloadKey::generate()?;
    ask(settings, config, Attestation::CurrentSvid(CurrentSvid {}), &key).await
}

/// Asks with the token. It and the roots are read anew: whoever supervises this process renews them.
async fn first(settings: &Settings, first_key: &mut FirstKey) -> Result<Granted, RequestError> {
    let attestation = match &settings.proof {
        Proof::JoinToken(file) => Attestation::JoinToken(token(file).await?),
        Proof::ServiceAccountToken(file) => Attestation::KubernetesToken(token(file).await?),
    };
    let config = bootstrap_client_config(roots(settings).await?, &expected(settings), &[b"h2"]);
    let granted = ask(settings, config, attestation, first_key.get()?).await?;
    first_key.0 = None;
    Ok(granted)
}

fn expected(settings: &Settings) -> ExpectedPeer {
    ExpectedPeer::one(settings.control_identity.clone())
}

async fn ask(
    settings: &Settings,
    config: Arc<ClientConfig>,
    attestation: Attestation,
    key: &WorkloadKey,
) -> Result<Granted, RequestError> {
    let csr = csr::build(key)?;
    let channel = channel::connect(&settings.args.control, settings.data_path.fwmark, config).await?;
    let node_id = settings.args.node_id.clone();
    let request = IssueRequest { csr, ttl_seconds: 0, attestation: Some(attestation), node_id };
    let mut client = IdentityServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = client.issue(request).await.map_err(RequestError::Refused)?;
    check(settings, answer.into_inner(), key)
}

fn check(settings: &Settings, answer: IssueResponse, key: &WorkloadKey) -> Result<Granted, RequestError> {
    let anchors = answer.bundles.into_iter().map(|bundle| (bundle.trust_domain, bundle.anchors)).collect();
    let bundle = TrustBundle::from_model(&TrustBundleSet { anchors })?;
    let svid = Svid::new(answer.chain, key)?;
    let id = svid.id();
    let is_own = id.trust_domain() == settings.trust_domain.as_str()
        && id.namespace() == Some(settings.namespace.as_str());
    if !is_own {
        let expected = format!("trust domain {}, namespace {}", settings.trust_domain, settings.namespace);
        return Err(RequestError::Foreign { found: id.clone(), expected });
    }
    let domains = std::slice::from_ref(&settings.trust_domain);
    // Judged at the start of its validity as our clock may see it: a clock that is behind does not make a
    // fresh certificate a wrong one, it makes it one that is not used yet.
    let now = SystemTime::now().clamp(svid.not_before(), svid.not_after());
    verify_peer(svid.chain(), &bundle, domains, PeerRole::Client, now)?;
    Ok(Granted { svid, bundle })
}

async fn token(path: &Path) -> Result<String, RequestError> {
    let text = read(path, TOKEN_BYTES_MAX).await?;
    match text.trim() {
        "" => Err(RequestError::NoToken { path: path.to_owned() }),
        token => Ok(token.to_owned()),
    }
}

async fn roots(settings: &Settings) -> Result<TrustBundle, RequestError> {
    let path = &settings.args.control_root_cert;
    let text = read(path, ROOTS_BYTES_MAX).await?;
    TrustBundle::from_pem(&settings.trust_domain, &text)
        .map_err(|source| RequestError::Roots { path: path.clone(), source })
}

async fn read(path: &Path, bytes_max: u64) -> Result<String, RequestError> {
    let failed = |source| RequestError::File { path: path.to_owned(), source };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    let bytes = file.take(bytes_max + 1).read_to_string(&mut text).await.map_err(failed)?;
    if bytes as u64 > bytes_max {
        return Err(RequestError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_first_certificate_stays_the_same_until_there_is_one() {
        let mut first = FirstKey::default();
        let asked = first.get().expect("a key").public_key_info();
        assert_eq!(first.get().expect("a key").public_key_info(), asked);
    }
}
