//! The gRPC form of a check: `envoy.service.auth.v3.Authorization/Check`, one message each way.

use std::collections::HashMap;
use std::time::SystemTime;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use mesh_api::model::{BodyPacking, ExternalAuthorizer};
use mesh_api::wire::authorizer::attribute_context::{
    HttpRequest, Peer, Request as RequestContext, TlsSession,
};
use mesh_api::wire::authorizer::check_response::HttpResponse;
use mesh_api::wire::authorizer::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    OkHttpResponse, SocketAddress, address, socket_address,
};
use prost::Message;

use super::client::Response;
use super::edit::{EditError, Edits, HeaderEdit, How, QueryEdits};
use super::{AskError, Asked, Changes, HttpAsked, PARTIAL_BODY, Refusal, Verdict};
use crate::connection::Connection;

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Bytes before a message: whether it is compressed, and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
const FRAME_HEAD: usize = 5;

/// What a check says about a request or connection.
pub(super) fn request(
    authorizer: &ExternalAuthorizer,
    asked: &Asked<'_>,
    local_principal: &str,
) -> Result<Request<Bytes>, AskError> {
    let packing = authorizer.body.map(|body| body.packing).unwrap_or_default();
    let attributes = AttributeContext {
        source: Some(peer(asked.connection, Side::Source, local_principal)),
        destination: Some(peer(asked.connection, Side::Destination, local_principal)),
        request: asked.http.as_ref().map(|http| request_context(http, packing)),
        context_extensions: HashMap::new(),
        tls_session: asked
            .connection
            .tls
            .as_ref()
            .and_then(|tls| tls.sni.as_deref())
            .map(|sni| TlsSession { sni: sni.to_owned() }),
    };
    let check = CheckRequest { attributes: Some(attributes) };
    let length = check.encoded_len();
    let mut body = BytesMut::with_capacity(FRAME_HEAD + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).map_err(|_| AskError::TooLarge)?);
    check.encode(&mut body).map_err(|_| AskError::TooLarge)?;
    let authority = format!("outbound_.{}_._.{}", authorizer.port, authorizer.host);
    let mut request = Request::new(body.freeze());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(PATH)
        .build()
        .map_err(|_| AskError::Unaddressable)?;
    let lines = request.headers_mut();
    lines.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    lines.insert(http::header::TE, HeaderValue::from_static("trailers"));
    // At most eight digits (gRPC over HTTP/2, "Timeout").
    let timeout = format!("{}m", authorizer.timeout_ms.min(99_999_999));
    if let Ok(value) = HeaderValue::try_from(timeout) {
        lines.insert(HeaderName::from_static("grpc-timeout"), value);
    }
    Ok(request)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

fn peer(connection: &Connection, side: Side, local_principal: &str) -> Peer {
    let at = match side {
        Side::Source => connection.peer,
        Side::Destination => connection.destination,
    };
    let principal = match (&connection.tls, side) {
        (None, _) => String::new(),
        (Some(tls), Side::Source) => tls.identity.as_str().to_owned(),
        (Some(_), Side::Destination) => local_principal.to_owned(),
    };
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(SocketAddress {
                protocol: 0,
                address: at.ip().to_canonical().to_string(),
                port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(at.port()))),
            })),
        }),
        principal,
        ..Peer::default()
    }
}

fn request_context(http: &HttpAsked<'_>, packing: BodyPacking) -> RequestContext {
    let mut headers: HashMap<String, String> = HashMap::with_capacity(24);
    let pseudo = [
        (":method", http.method),
        (":authority", http.authority),
        (":path", http.target),
        (":scheme", "http"),
    ];
    for (name, value) in pseudo {
        headers.insert(name.to_owned(), value.to_owned());
    }
    http.lines.each_line(&mut |name, value| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = sanitised(value);
        headers
            .entry(name)
            .and_modify(|present| {
                present.push(',');
                present.push_str(&value);
            })
            .or_insert(value);
    });
    let (body, raw_body) = match packing {
        BodyPacking::Text => (sanitised(http.body), Vec::new()),
        BodyPacking::Bytes => (String::new(), http.body.to_vec()),
    };
    if let Some(is_whole) = http.is_whole {
        headers.insert(PARTIAL_BODY.to_owned(), if is_whole { "false" } else { "true" }.to_owned());
    }
    RequestContext {
        time: Some(SystemTime::now().into()),
        http: Some(HttpRequest {
            id: http.request_id.to_owned(),
            method: http.method.to_owned(),
            headers,
            path: http.target.to_owned(),
            host: http.authority.to_owned(),
            scheme: "http".to_owned(),
            size: http.size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1),
            protocol: http.protocol.to_owned(),
            body,
            raw_body,
            ..HttpRequest::default()
        }),
    }
}

/// Text for a protobuf string. A byte that is none is shown as `!`, as Envoy does.
fn sanitised(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '!'));
    }
    text
}

/// What the answer means.
pub(super) fn verdict(authorizer: &ExternalAuthorizer, response: &Response) -> Result<Verdict, AskError> {
    if response.status != StatusCode::OK {
        return Err(AskError::Status(response.status));
    }
    let status = |lines: &http::HeaderMap| {
        lines
            .get("grpc-status")
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse::<u32>().ok())
    };
    match status(&response.trailers).or_else(|| status(&response.lines)) {
        Some(0) => {}
        Some(code) => return Err(AskError::GrpcStatus(code)),
        None => return Err(AskError::Malformed),
    }
    let (head, message) = response.body.split_at_checked(FRAME_HEAD).ok_or(AskError::Malformed)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 || usize::try_from(length).ok() != Some(message.len()) {
        return Err(AskError::Malformed);
    }
    let answer = CheckResponse::decode(message).map_err(|_| AskError::Malformed)?;
    let code = answer.status.map(|status| status.code).unwrap_or_default();
    match (code, answer.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => Ok(Verdict::Pass(Box::new(changes(ok)?))),
        (0, _) => Ok(Verdict::Pass(Box::default())),
        (_, Some(HttpResponse::ErrorResponse(error))) => {
            let refusal = denied(error, authorizer.status_on_error)?;
            Err(AskError::Stated(Box::new(refusal)))
        }
        (_, Some(HttpResponse::DeniedResponse(answer))) => {
            Ok(Verdict::Refuse(Box::new(denied(answer, StatusCode::FORBIDDEN.as_u16())?)))
        }
        (_, Some(HttpResponse::OkResponse(_)) | None) => Ok(Verdict::Refuse(Box::new(Refusal {
            status: StatusCode::FORBIDDEN,
            lines: Vec::new(),
            body: Bytes::new(),
        }))),
    }
}

fn changes(ok: OkHttpResponse) -> Result<Changes, EditError> {
    let mut request = Edits::default();
    for option in ok.headers {
        let how = request_edit(&option);
        push(&mut request, option, how)?;
    }
    for name in ok.headers_to_remove {
        // What cannot be removed is passed over, as the protocol says of it.
        let lower = name.to_ascii_lowercase();
        if !super::edit::is_ours(&lower) {
            request.push(HeaderEdit::new(&lower, b"", How::Remove)?)?;
        }
    }
    let mut response = Edits::default();
    for option in ok.response_headers_to_add {
        let how = match request_edit(&option) {
            How::Join => How::Add,
            how => how,
        };
        push(&mut response, option, how)?;
    }
    let set = ok.query_parameters_to_set.into_iter().map(|parameter| (parameter.key, parameter.value));
    let query = QueryEdits::new(set.collect(), ok.query_parameters_to_remove)?;
    Ok(Changes { request, response, query })
}

/// `append` decides where it is stated. Otherwise the action does, whose default cannot be told from an
/// unstated one; then the line replaces what a client may have written under the same name, as the protocol
/// says of an unstated `append`.
fn request_edit(option: &HeaderValueOption) -> How {
    match (option.append, option.append_action) {
        (Some(true), _) => How::Join,
        (Some(false), _) => How::Set,
        (None, 1) => How::AddIfAbsent,
        (None, 3) => How::SetIfPresent,
        (None, _) => How::Set,
    }
}

fn push(edits: &mut Edits, option: HeaderValueOption, how: How) -> Result<(), EditError> {
    let header = option.header.unwrap_or_default();
    let value = if header.value.is_empty() { &header.raw_value[..] } else { header.value.as_bytes() };
    edits.push(HeaderEdit::new(&header.key, value, how)?)
}

fn denied(answer: DeniedHttpResponse, default: u16) -> Result<Refusal, AskError> {
    let stated = answer.status.map(|status| status.code).filter(|code| *code > 0);
    let code = stated.map_or(Some(default), |code| u16::try_from(code).ok());
    let status = code
        .filter(|code| (200..600).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(AskError::Malformed)?;
    let mut lines = Vec::new();
    let mut edits = Edits::default();
    for option in answer.headers {
        push(&mut edits, option, How::Add)?;
    }
    lines.extend(edits.iter().map(|edit| (edit.name.clone(), edit.value.clone())));
    Ok(Refusal { status, lines, body: Bytes::from(answer.body) })
}
