//! The HTTP form of a check: the head of the request, in part, as a request of its own. Status 200 lets it
//! pass, 5xx is a failure of the authorizer, anything else refuses and is the answer to the client.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use mesh_api::model::HttpCheck;

use super::client::Response;
use super::edit::{Edits, HeaderEdit, How, QueryEdits, is_ours};
use super::{AskError, Changes, HttpAsked, PARTIAL_BODY, Refusal, Verdict};

/// Header in which an authorizer names lines to take off the request.
const HEADERS_TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";
/// Headers of a refusal that the client gets besides those that are listed.
const ALWAYS_TO_CLIENT: [&str; 2] = ["www-authenticate", "location"];

/// What is sent.
pub(super) fn request(check: &HttpCheck, asked: &HttpAsked<'_>) -> Result<Request<Bytes>, AskError> {
    let mut request = Request::new(Bytes::copy_from_slice(asked.body));
    *request.method_mut() =
        Method::from_bytes(asked.method.as_bytes()).map_err(|_| AskError::Unaddressable)?;
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(asked.authority)
        .path_and_query(format!("{}{}", check.path_prefix, asked.target))
        .build()
        .map_err(|_| AskError::Unaddressable)?;
    let lines = request.headers_mut();
    asked.lines.each_line(&mut |name, value| {
        let name = name.to_ascii_lowercase();
        let Ok(text) = std::str::from_utf8(&name) else { return };
        let is_sent = text == "authorization" || matches_any(&check.request_headers, text);
        if !is_sent || is_ours(text) {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&name), HeaderValue::from_bytes(value)) {
            lines.append(name, value);
        }
    });
    if let Some(is_whole) = asked.is_whole
        && matches_any(&check.request_headers, PARTIAL_BODY)
    {
        let value = HeaderValue::from_static(if is_whole { "false" } else { "true" });
        lines.insert(HeaderName::from_static(PARTIAL_BODY), value);
    }
    for (name, value) in &check.additional_headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| AskError::Unaddressable)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| AskError::Unaddressable)?;
        lines.insert(name, value);
    }
    Ok(request)
}

/// What the answer means.
pub(super) fn verdict(check: &HttpCheck, response: Response) -> Result<Verdict, AskError> {
    if response.status.is_server_error() {
        return Err(AskError::Status(response.status));
    }
    if !(200..600).contains(&response.status.as_u16()) {
        return Err(AskError::Malformed);
    }
    if response.status == StatusCode::OK {
        return Ok(Verdict::Pass(Box::new(changes(check, &response)?)));
    }
    let lines = response
        .lines
        .iter()
        .filter(|(name, _)| !is_ours(name.as_str()) && *name != HEADERS_TO_REMOVE)
        .filter(|(name, _)| {
            check.to_client_on_deny.is_empty()
                || ALWAYS_TO_CLIENT.contains(&name.as_str())
                || matches_any(&check.to_client_on_deny, name.as_str())
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Ok(Verdict::Refuse(Box::new(Refusal { status: response.status, lines, body: response.body })))
}

fn changes(check: &HttpCheck, response: &Response) -> Result<Changes, AskError> {
    let mut request = Edits::default();
    let mut set: Vec<&HeaderName> = Vec::new();
    let named = |patterns: &[String]| {
        let patterns = patterns.to_vec();
        response.lines.iter().filter(move |(name, _)| {
            matches_any(&patterns, name.as_str()) && !is_ours(name.as_str()) && *name != HEADERS_TO_REMOVE
        })
    };
    for (name, value) in named(&check.to_upstream) {
        // The first line of a name replaces what the client wrote, the next ones stand beside it.
        let how = if set.contains(&name) { How::Add } else { How::Set };
        set.push(name);
        request.push(HeaderEdit { name: name.clone(), value: value.clone(), how })?;
    }
    for value in response.lines.get_all(HEADERS_TO_REMOVE) {
        for name in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            if !name.is_empty() && !is_ours(&name) {
                request.push(HeaderEdit::new(&name, b"", How::Remove)?)?;
            }
        }
    }
    let mut response_edits = Edits::default();
    for (name, value) in named(&check.to_client_on_allow) {
        response_edits.push(HeaderEdit { name: name.clone(), value: value.clone(), how: How::Add })?;
    }
    Ok(Changes { request, response: response_edits, query: QueryEdits::default() })
}

/// Whether a lower-case name is one of `name`, `prefix*` or `*suffix`.
fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| {
        if let Some(suffix) = pattern.strip_prefix('*') {
            name.ends_with(suffix)
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            name.starts_with(prefix)
        } else {
            pattern == name
        }
    })
}
