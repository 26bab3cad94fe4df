//! Errors to answers: the one place that gives a refusal its status, its body, its response flag and its
//! details. The peer learns the class, in Istio's and Envoy's words; the log learns the cause.

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue, StatusCode};
use mesh_api::error_chain::chain;
use mesh_policy::authenticate::Refused;

use crate::connection::{Connection, Direction};
use crate::ext_authz;
use crate::telemetry::{FaultDomain, Flag, HttpRecord, Verdict};
use crate::upstream::ConnectError;

/// Status of a gRPC call.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Its message, percent-encoded.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Header that tells a peer of the mesh which decision refused its request, for `meshctl why`.
pub const DECISION_ID: HeaderName = HeaderName::from_static("x-mesh-decision");

/// Header that tells a peer of the mesh that a request has not reached the application, not even in part: it may
/// be sent elsewhere, whatever it asks for.
pub const UNPROCESSED: HeaderName = HeaderName::from_static("x-mesh-unprocessed");

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
    /// The request's token is not accepted.
    Token(Box<Refused>),
    /// An external authorizer refuses, or failed; the record names the rule already.
    External {
        /// What is answered.
        answer: Box<ext_authz::Refusal>,
        /// Whether it refused or failed.
        cause: ExternalCause,
    },
    /// The body is longer than an external authorizer is shown.
    BodyTooLarge,
    /// The client went away while its request was judged; there is nobody to answer.
    Abandoned,
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

/// Why an external authorizer has a request refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalCause {
    /// It says so.
    Denied,
    /// It gave no answer.
    Error,
}

impl ExternalCause {
    /// The word for `response_code_details`, Envoy's.
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::Denied => "ext_authz_denied",
            Self::Error => "ext_authz_error",
        }
    }
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
    pub(super) const UNAUTHENTICATED: u32 = 16;

    /// For a status that somebody else chose
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>, as Envoy does).
    pub(super) fn of(status: http::StatusCode) -> u32 {
        match status.as_u16() {
            400 => INTERNAL,
            401 => UNAUTHENTICATED,
            403 => PERMISSION_DENIED,
            404 => UNIMPLEMENTED,
            429 | 502..=504 => UNAVAILABLE,
            _ => UNKNOWN,
        }
    }
}

/// Longest `grpc-message`, in bytes before it is encoded: the header must fit into a client's limits.
const GRPC_MESSAGE_MAX: usize = 1024;

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
            Self::Token(refused) => StatusCode::from_u16(refused.status).unwrap_or(StatusCode::UNAUTHORIZED),
            Self::External { answer, .. } => answer.status,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // Nobody is answered; the number is the one that logs know for it (nginx's 499 is none).
            Self::Abandoned => StatusCode::REQUEST_TIMEOUT,
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
            Self::RequestTimeout | Self::BodyTimeout | Self::BodyTooLarge | Self::Abandoned => grpc::UNKNOWN,
            Self::Token(_) | Self::External { .. } => grpc::of(self.status()),
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

    /// Body of the answer, possibly empty. Plain text, unless [`Self::lines`] says otherwise.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self {
            Self::Token(refused) => Bytes::copy_from_slice(refused.message.as_bytes()),
            // These have no body, whatever was asked for (RFC 9110 sections 15.3.5, 15.4.5).
            Self::External { answer, .. } if matches!(answer.status.as_u16(), 204 | 304) => Bytes::new(),
            Self::External { answer, .. } => answer.body.clone(),
            other => Bytes::from_static(other.text().as_bytes()),
        }
    }

    /// The body as a `grpc-message`: percent-encoded, and bounded.
    #[must_use]
    pub fn grpc_message(&self) -> HeaderValue {
        let body = self.body();
        let mut message = Vec::with_capacity(body.len().min(GRPC_MESSAGE_MAX));
        for byte in body.iter().take(GRPC_MESSAGE_MAX) {
            match byte {
                b'%' | 0..=0x1f | 0x7f.. => message.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                byte => message.push(*byte),
            }
        }
        HeaderValue::from_bytes(&message).unwrap_or(HeaderValue::from_static(""))
    }

    /// Header lines of the answer beside those that every answer has. None of them frames it.
    #[must_use]
    pub fn lines(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::Token(refused) => HeaderValue::try_from(refused.www_authenticate.as_str())
                .map(|value| vec![(WWW_AUTHENTICATE, value)])
                .unwrap_or_default(),
            Self::External { answer, .. } => answer.lines.clone(),
            _ => Vec::new(),
        }
    }

    /// One line of printable ASCII.
    fn text(&self) -> &'static str {
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
            Self::BodyTooLarge => "Payload Too Large",
            Self::Token(_) | Self::External { .. } | Self::Abandoned => "",
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
            | Self::BodyTooLarge
            | Self::Abandoned
            | Self::NotReady => true,
            Self::Denied
            | Self::Token(_)
            | Self::External { .. }
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

    /// Whether the peer of `connection` is told that nothing was done for its request. Only proxies of the mesh
    /// are, because only they are believed; for anybody else it would be a header without a meaning.
    #[must_use]
    pub fn is_unprocessed(&self, connection: &Connection) -> bool {
        let is_of_mesh = connection.direction == Direction::Inbound && connection.tls.is_some();
        is_of_mesh && matches!(self, Self::ConnectFailed(_))
    }

    /// Whether `connection` is not used again after the answer. A client without a proxy whose application cannot
    /// be reached may find another replica with its next connection, and with this one never.
    #[must_use]
    pub fn closes_for(&self, connection: &Connection) -> bool {
        let is_stuck = connection.direction == Direction::Inbound && connection.tls.is_none();
        self.closes() || is_stuck && matches!(self, Self::ConnectFailed(_))
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
            Self::Token(refused) => note_token(refused, record),
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
            Self::Token(_) => (Flag::None, FaultDomain::Client, ""),
            Self::External { cause, .. } => {
                (Flag::UnauthorizedExternal, FaultDomain::Policy, cause.details())
            }
            Self::BodyTooLarge => (Flag::None, FaultDomain::Client, "request_payload_too_large"),
            Self::Abandoned => {
                (Flag::DownstreamConnectionTermination, FaultDomain::Client, "downstream_remote_disconnect")
            }
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

fn note_token(refused: &Refused, record: &mut HttpRecord) {
    record.verdict = Verdict::Denied;
    record.reason.clear();
    record.reason.push_str(&refused.message);
    record.details.push_str(&refused.details);
    let object = &refused.rule.policy;
    record.policy.clear();
    let policy = format!("ns[{}]-policy[{}]-rule[{}]", object.namespace, object.name, refused.rule.index);
    record.policy.push_str(&policy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_request_gets_istios_very_answer() {
        let denied = Refusal::Denied;
        assert_eq!(denied.status(), 403);
        assert_eq!((&denied.body()[..], denied.body().len()), (&b"RBAC: access denied"[..], 19));
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

    #[test]
    fn the_answer_of_an_authorizer_is_handed_on_and_fits_into_grpc() {
        let answer = ext_authz::Refusal {
            status: StatusCode::UNAUTHORIZED,
            lines: vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"))],
            body: Bytes::from("no\n100% \u{e4}".repeat(1000)),
        };
        let refusal = Refusal::External { answer: Box::new(answer.clone()), cause: ExternalCause::Denied };
        assert_eq!((refusal.status(), refusal.grpc_status()), (StatusCode::UNAUTHORIZED, 16));
        assert_eq!((refusal.body(), refusal.lines()), (answer.body.clone(), answer.lines.clone()));
        let message = refusal.grpc_message();
        assert!(message.as_bytes().starts_with(b"no%0A100%25 %C3%A4no"), "{message:?}");
        assert!(message.len() <= 3 * GRPC_MESSAGE_MAX);
        let empty = ext_authz::Refusal { status: StatusCode::NO_CONTENT, ..answer };
        let refusal = Refusal::External { answer: Box::new(empty), cause: ExternalCause::Error };
        assert!(refusal.body().is_empty());
    }

    #[test]
    fn statuses_of_others_become_those_of_grpc_as_envoy_has_it() {
        for (status, code) in
            [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (413, 2), (500, 2)]
        {
            assert_eq!(grpc::of(StatusCode::from_u16(status).expect("a status")), code, "{status}");
        }
    }
}
