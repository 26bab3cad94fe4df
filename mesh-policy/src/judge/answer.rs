//! What the client of a refused request is answered (SEMANTICS 6.11, 7.4).

use mesh_api::policy_test::HttpRequest;
use serde::Serialize;

/// Body of a refusal by policy.
const ACCESS_DENIED: &str = "RBAC: access denied";

/// gRPC status codes (<https://grpc.github.io/grpc/core/md_doc_statuscodes.html>), as Envoy maps HTTP status
/// codes to them.
const GRPC_PERMISSION_DENIED: u8 = 7;
const GRPC_INTERNAL: u8 = 13;
const GRPC_UNAUTHENTICATED: u8 = 16;
const GRPC_UNKNOWN: u8 = 2;

/// An answer of the proxy itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// HTTP status: 200 for gRPC, which says more in `grpc-status`.
    pub status: u16,
    /// Header lines, by lower-case names.
    pub headers: Vec<(String, String)>,
    /// Body; empty for gRPC and HEAD.
    pub body: String,
}

impl Answer {
    /// The refusal of a policy.
    pub(super) fn forbidden(request: &HttpRequest) -> Self {
        Self::refusal(request, 403, ACCESS_DENIED)
    }

    /// The refusal of a request that cannot be read.
    pub(super) fn bad_request(request: &HttpRequest) -> Self {
        Self::refusal(request, 400, "")
    }

    /// An answer with a text, in the form that the client understands.
    pub(super) fn refusal(request: &HttpRequest, status: u16, text: &str) -> Self {
        let line = |name: &str, value: String| (name.to_owned(), value);
        let server = line("server", "istio-envoy".to_owned());
        if is_grpc(request) {
            let mut headers = vec![
                line("content-type", "application/grpc".to_owned()),
                line("grpc-status", grpc_status(status).to_string()),
                server,
            ];
            if !text.is_empty() {
                headers.push(line("grpc-message", text.to_owned()));
            }
            return Self { status: 200, headers, body: String::new() };
        }
        let mut headers = vec![line("content-length", text.len().to_string()), server];
        if !text.is_empty() {
            headers.push(line("content-type", "text/plain".to_owned()));
        }
        let body = if request.method == "HEAD" { String::new() } else { text.to_owned() };
        Self { status, headers, body }
    }
}

fn grpc_status(status: u16) -> u8 {
    match status {
        400 => GRPC_INTERNAL,
        401 => GRPC_UNAUTHENTICATED,
        403 => GRPC_PERMISSION_DENIED,
        _ => GRPC_UNKNOWN,
    }
}

/// Whether the client speaks gRPC: `application/grpc`, alone or with the name of an encoding. gRPC-Web is
/// HTTP with bodies.
fn is_grpc(request: &HttpRequest) -> bool {
    let content_type = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    content_type
        .and_then(|(_, value)| value.strip_prefix("application/grpc"))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(content_type: &str) -> HttpRequest {
        HttpRequest {
            method: "POST".to_owned(),
            host: String::new(),
            path: "/p.S/M".to_owned(),
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            jwt_claims: None,
        }
    }

    #[test]
    fn a_grpc_client_is_told_in_its_own_words() {
        for content_type in ["application/grpc", "application/grpc+proto", "application/grpc;x=1"] {
            let answer = Answer::forbidden(&request(content_type));
            assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{content_type}");
            assert!(answer.headers.contains(&("grpc-status".to_owned(), "7".to_owned())));
            assert!(answer.headers.contains(&("grpc-message".to_owned(), ACCESS_DENIED.to_owned())));
        }
        for content_type in ["application/grpc-web", "application/json"] {
            assert_eq!(Answer::forbidden(&request(content_type)).status, 403, "{content_type}");
        }
    }
}
