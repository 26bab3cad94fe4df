//! Errors to answers: the one place that gives a refusal its status, its body, its response flag and its
//! details. The peer learns the class, in Istio's and Envoy's words; the log learns the cause.

use http::StatusCode;
use mesh_api::error_chain::chain;

use crate::connection::Direction;
use crate::telemetry::{FaultDomain, Flag, HttpRecord, Verdict};
use crate::upstream::ConnectError;

/// Why a request gets no answer from the application.
#[derive(Debug)]
pub enum Refusal {
    /// There is no configuration to judge by.
    NotReady,
    /// The request cannot be read in exactly one way.
    BadRequest {
        /// The word for `response_code_details`.
        details: &'static str,
    },
    /// The head is larger than what is served.
    HeadersTooLarge,
    /// The head did not come in time.
    RequestTimeout,
    /// The client did not go on with its body.
    BodyTimeout,
    /// The method is not served.
    MethodNotServed,
    /// The peer's certificate has ended since the handshake.
    PeerExpired,
    /// Policy refuses; the record says why already.
    Denied,
    /// The mesh has no such destination, and only what it has may be called.
    UnknownDestination,
    /// No route matches.
    NoRoute,
    /// The control plane did not say in time what the destination is.
    Unanswered,
    /// There is no endpoint to send it to.
    NoHealthyUpstream,
    /// No connection to the upstream could be made.
    ConnectFailed(ConnectError),
    /// The upstream ended the connection before its response.
    UpstreamReset {
        /// By a reset, and not in order.
        is_reset: bool,
    },
    /// The upstream broke the protocol.
    UpstreamProtocol {
        /// The word for `response_code_details`.
        details: &'static str,
    },
    /// The time for the exchange is up.
    UpstreamTimeout,
}

/// gRPC status codes (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>), as far as refusals use
/// them. Which one stands for which status is Envoy's mapping.
mod grpc {
    pub(super) const UNKNOWN: u32 = 2;
    pub(super) const PERMISSION_DENIED: u32 = 7;
    pub(super) const UNIMPLEMENTED: u32 = 12;
    pub(super) const INTERNAL: u32 = 13;
    pub(super) const UNAVAILABLE: u32 = 14;
    pub(super) const DEADLINE_EXCEEDED: u32 = 4;
}

const RESET: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
const PROTOCOL: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: protocol error";
const CONNECT: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
const CONNECT_TIMEOUT: &str =
    "upstream connect error or disconnect/reset before headers. reset reason: connection timeout";

impl Refusal {
    /// Status of the answer to a request that is not gRPC.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::MethodNotServed => StatusCode::METHOD_NOT_ALLOWED,
            Self::PeerExpired | Self::Denied => StatusCode::FORBIDDEN,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::UnknownDestination | Self::UpstreamProtocol { .. } => StatusCode::BAD_GATEWAY,
            Self::NotReady
            | Self::Unanswered
            | Self::NoHealthyUpstream
            | Self::ConnectFailed(_)
            | Self::UpstreamReset { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Status of the answer to a gRPC request: sent as `grpc-status` of a response that consists of its
    /// trailers alone, with HTTP status 200 and [`Self::body`] as `grpc-message`.
    #[must_use]
    pub fn grpc_status(&self) -> u32 {
        match self {
            Self::PeerExpired | Self::Denied => grpc::PERMISSION_DENIED,
            Self::NoRoute | Self::MethodNotServed => grpc::UNIMPLEMENTED,
            Self::BadRequest { .. } | Self::HeadersTooLarge => grpc::INTERNAL,
            Self::RequestTimeout | Self::BodyTimeout => grpc::UNKNOWN,
            Self::UpstreamTimeout => grpc::DEADLINE_EXCEEDED,
            Self::NotReady
            | Self::Unanswered
            | Self::UnknownDestination
            | Self::NoHealthyUpstream
            | Self::ConnectFailed(_)
            | Self::UpstreamReset { .. }
            | Self::UpstreamProtocol { .. } => grpc::UNAVAILABLE,
        }
    }

    /// Body of the answer, plain text, possibly empty. One line of printable ASCII.
    #[must_use]
    pub fn body(&self) -> &'static str {
        match self {
            Self::NotReady => "proxy has no configuration yet",
            Self::BadRequest { details } => details,
            Self::HeadersTooLarge => "request headers too large",
            Self::RequestTimeout | Self::BodyTimeout => "request timeout",
            Self::MethodNotServed => "method not served",
            Self::PeerExpired | Self::Denied => "RBAC: access denied",
            Self::UnknownDestination | Self::NoRoute => "",
            Self::Unanswered => "destination not resolved in time",
            Self::NoHealthyUpstream => "no healthy upstream",
            Self::ConnectFailed(error) if error.is_timeout() => CONNECT_TIMEOUT,
            Self::ConnectFailed(_) => CONNECT,
            Self::UpstreamReset { .. } => RESET,
            Self::UpstreamProtocol { .. } => PROTOCOL,
            Self::UpstreamTimeout => "upstream request timeout",
        }
    }

    /// Whether the connection is not used again after the answer.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self {
            Self::BadRequest { .. }
            | Self::HeadersTooLarge
            | Self::RequestTimeout
            | Self::BodyTimeout
            | Self::MethodNotServed
            | Self::PeerExpired
            | Self::NotReady => true,
            Self::Denied
            | Self::UnknownDestination
            | Self::NoRoute
            | Self::Unanswered
            | Self::NoHealthyUpstream
            | Self::ConnectFailed(_)
            | Self::UpstreamReset { .. }
            | Self::UpstreamProtocol { .. }
            | Self::UpstreamTimeout => false,
        }
    }

    /// Writes the refusal into the record. The status is the one of HTTP unless one was sent already; a codec
    /// that answers in gRPC's form sets its own after this.
    pub fn note(&self, record: &mut HttpRecord) {
        let direction = record.connection().direction;
        if record.status == 0 {
            record.status = self.status().as_u16();
        }
        let (flag, fault, details) = self.facts(direction);
        record.flag = flag;
        record.fault = fault;
        if !matches!(self, Self::Denied) {
            record.details.clear();
            record.details.push_str(details);
        }
        match self {
            Self::ConnectFailed(error) => {
                record.transport_failure.clear();
                record.transport_failure.push_str(&chain(error));
            }
            Self::PeerExpired => {
                record.verdict = Verdict::Denied;
                record.reason.clear();
                record.reason.push_str("certificate of the peer has expired");
            }
            Self::UnknownDestination => {
                record.route.clear();
                record.route.push_str("block_all");
            }
            _ => {}
        }
    }

    /// Flag, fault and details. The hop behind an inbound request is the own application; behind an outbound
    /// one lies the network and another proxy.
    fn facts(&self, direction: Direction) -> (Flag, FaultDomain, &'static str) {
        let behind = |outbound| match direction {
            Direction::Inbound => FaultDomain::App,
            Direction::Outbound => outbound,
        };
        match self {
            Self::NotReady => (Flag::NoCluster, FaultDomain::ControlPlane, "no_configuration"),
            Self::BadRequest { details } => (Flag::DownstreamProtocolError, FaultDomain::Client, details),
            Self::HeadersTooLarge => {
                (Flag::DownstreamProtocolError, FaultDomain::Client, "request_headers_too_large")
            }
            Self::RequestTimeout => (Flag::DurationTimeout, FaultDomain::Client, "request_header_timeout"),
            Self::BodyTimeout => (Flag::DurationTimeout, FaultDomain::Client, "request_body_timeout"),
            Self::MethodNotServed => {
                (Flag::DownstreamProtocolError, FaultDomain::Client, "method_not_served")
            }
            Self::PeerExpired => (Flag::None, FaultDomain::ClientProxy, "peer_certificate_expired"),
            Self::Denied => (Flag::None, FaultDomain::Policy, ""),
            Self::UnknownDestination => (Flag::None, FaultDomain::Policy, "direct_response"),
            Self::NoRoute => (Flag::NoRoute, FaultDomain::Client, "route_not_found"),
            Self::Unanswered => {
                (Flag::NoCluster, FaultDomain::ControlPlane, "destination_not_resolved_in_time")
            }
            Self::NoHealthyUpstream => {
                (Flag::NoHealthyUpstream, FaultDomain::ControlPlane, "no_healthy_upstream")
            }
            Self::ConnectFailed(_) => (
                Flag::UpstreamConnectionFailure,
                behind(FaultDomain::Network),
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            Self::UpstreamReset { is_reset } => (
                Flag::UpstreamConnectionTermination,
                behind(FaultDomain::ServerProxy),
                if *is_reset {
                    "upstream_reset_before_response_started{connection_reset}"
                } else {
                    "upstream_reset_before_response_started{connection_termination}"
                },
            ),
            Self::UpstreamProtocol { details } => {
                (Flag::UpstreamProtocolError, behind(FaultDomain::ServerProxy), details)
            }
            Self::UpstreamTimeout => {
                (Flag::UpstreamTimeout, behind(FaultDomain::ServerProxy), "response_timeout")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_request_gets_istios_very_answer() {
        let denied = Refusal::Denied;
        assert_eq!(denied.status(), 403);
        assert_eq!((denied.body(), denied.body().len()), ("RBAC: access denied", 19));
        assert_eq!(denied.grpc_status(), 7);
        assert!(!denied.closes());
    }

    #[test]
    fn what_cannot_be_read_ends_its_connection() {
        for refusal in [
            Refusal::BadRequest { details: "http1.obs_fold" },
            Refusal::HeadersTooLarge,
            Refusal::RequestTimeout,
            Refusal::MethodNotServed,
        ] {
            assert!(refusal.closes() && refusal.status().is_client_error(), "{refusal:?}");
        }
    }
}
