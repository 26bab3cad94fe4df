//! Errors as answers: the class goes to the client, the cause to the log.

use mesh_identity::attest::AttestError;
use mesh_identity::ca;
use tonic::{Code, Status};

use crate::cluster::token_review::ReviewError;
use crate::issue::IssueRefusal;
use crate::push::session::SessionError;

/// Why a discovery stream is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamRefusal {
    /// The connection has no client certificate.
    #[error("discovery needs a client certificate; ask the identity service for one first")]
    NoCertificate,
    /// The certificate's identity is not that of a workload.
    #[error("{identity} is not the identity of a workload")]
    NotWorkload {
        /// The identity.
        identity: String,
    },
    /// No request came in time.
    #[error("no request came in time")]
    Silent,
    /// The first request names no node.
    #[error("the first request names no node; it must be NAME.NAMESPACE")]
    NoNode,
    /// The node is somebody else.
    #[error("{identity} may not act as {node}: {reason}")]
    Foreign {
        /// The identity on the stream.
        identity: String,
        /// The node that it claims to be.
        node: String,
        /// Why not.
        reason: String,
    },
    /// The type is not served.
    #[error("resource type {url:?} is not served here")]
    UnknownType {
        /// The type.
        url: String,
    },
    /// The stream asks for too much.
    #[error("the stream asks for too much")]
    Session(#[source] SessionError),
}

impl StreamRefusal {
    /// The reason as a metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::NotWorkload { .. } => "not_workload",
            Self::Silent => "silent",
            Self::NoNode => "no_node",
            Self::Foreign { .. } => "foreign",
            Self::UnknownType { .. } => "unknown_type",
            Self::Session(_) => "too_many_subscriptions",
        }
    }
}

/// The answer to a stream that is not served.
#[must_use]
pub fn to_stream(refusal: &StreamRefusal) -> Status {
    let code = match refusal {
        StreamRefusal::NoCertificate => Code::Unauthenticated,
        StreamRefusal::NotWorkload { .. } | StreamRefusal::Foreign { .. } => Code::PermissionDenied,
        StreamRefusal::Silent => Code::DeadlineExceeded,
        StreamRefusal::NoNode | StreamRefusal::UnknownType { .. } => Code::InvalidArgument,
        StreamRefusal::Session(_) => Code::ResourceExhausted,
    };
    Status::new(code, refusal.to_string())
}

/// The answer to a request for a certificate that is refused, and the label of its metric.
#[must_use]
pub fn to_issue(refusal: &IssueRefusal) -> (Status, &'static str) {
    let (code, text, label) = match refusal {
        IssueRefusal::Attestation(AttestError::NotConfigured { .. }) => {
            (Code::Unimplemented, cause(refusal), "not_configured")
        }
        IssueRefusal::Attestation(AttestError::JoinToken(reason)) => {
            (Code::Unauthenticated, format!("the join token is refused: {reason}"), "join_token")
        }
        IssueRefusal::Attestation(AttestError::NoCertificate | AttestError::ForeignTrustDomain { .. }) => {
            (Code::Unauthenticated, cause(refusal), "attestation")
        }
        IssueRefusal::Issue(
            ca::IssueError::Request(_)
            | ca::IssueError::TtlTooLong { .. }
            | ca::IssueError::TtlTooShort { .. }
            | ca::IssueError::ForeignTrustDomain { .. },
        ) => (Code::InvalidArgument, cause(refusal), "request"),
        IssueRefusal::Issue(
            ca::IssueError::SignerNotValid { .. }
            | ca::IssueError::Time
            | ca::IssueError::Random
            | ca::IssueError::Sign(_),
        ) => (Code::Unavailable, "the authority cannot sign now".to_owned(), "authority"),
        IssueRefusal::Review(ReviewError::Silent | ReviewError::Api(_)) => {
            (Code::Unavailable, "the API server cannot review the token now".to_owned(), "review")
        }
        IssueRefusal::Review(
            ReviewError::Refused { .. }
            | ReviewError::NotServiceAccount
            | ReviewError::Name(_)
            | ReviewError::OtherPod { .. },
        ) => (Code::Unauthenticated, cause(refusal), "kubernetes_token"),
        IssueRefusal::TooMany { .. } => (Code::ResourceExhausted, refusal.to_string(), "rate_limit"),
        IssueRefusal::Record(_) => (Code::Unavailable, refusal.to_string(), "state"),
    };
    (Status::new(code, text), label)
}

/// The refusal's own cause: it concerns what the caller sent and holds nothing of ours.
fn cause(refusal: &IssueRefusal) -> String {
    std::error::Error::source(refusal).map_or_else(|| refusal.to_string(), ToString::to_string)
}
