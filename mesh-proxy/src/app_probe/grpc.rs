//! The health service of gRPC (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>), asked as the
//! kubelet does: without TLS, and only SERVING is well.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use prost::Message as _;

use super::{Failure, connect};

/// Longest answer that is read, in bytes: it holds one number.
const ANSWER_BYTES_MAX: usize = 4 * 1024;
/// Bytes before a message: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;
/// `SERVING`.
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks whether `service`, or the server as a whole, is served.
pub(super) async fn check(
    address: SocketAddr,
    service: &str,
    user_agent: Option<HeaderValue>,
) -> Result<(), Failure> {
    let tcp = connect(address).await?;
    let (sender, connection) = h2::client::handshake(tcp).await?;
    let mut connection = pin!(connection);
    let mut asking = pin!(ask(sender, address, service, user_agent));
    tokio::select! {
        biased;
        answered = &mut asking => answered,
        // What came before the end is still to be taken.
        _ended = &mut connection => asking.await,
    }
}

async fn ask(
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    service: &str,
    user_agent: Option<HeaderValue>,
) -> Result<(), Failure> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = format!("http://{address}/grpc.health.v1.Health/Check").parse()?;
    let lines = request.headers_mut();
    lines.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    lines.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(user_agent) = user_agent {
        lines.insert(USER_AGENT, user_agent);
    }
    let mut sender = sender.ready().await?;
    let (response, mut body) = sender.send_request(request, false)?;
    body.send_data(framed(service)?, true)?;
    read(response).await
}

fn framed(service: &str) -> Result<Bytes, Failure> {
    let message = HealthCheckRequest { service: service.to_owned() };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

async fn read(response: ResponseFuture) -> Result<(), Failure> {
    let response = response.await?;
    if response.status() != http::StatusCode::OK {
        return Err(Failure(format!("the health service answers with HTTP status {}", response.status())));
    }
    // An answer without a message has its outcome in its only block of header lines.
    outcome(response.headers())?;
    let mut body = response.into_body();
    let mut bytes = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        if bytes.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(Failure("the answer of the health service is too large".to_owned()));
        }
        bytes.extend_from_slice(&piece);
    }
    outcome(&body.trailers().await?.unwrap_or_default())?;
    let message = bytes.get(FRAME_HEAD..).filter(|_| bytes[0] == 0);
    let message = message.ok_or_else(|| Failure("the health service gives no answer".to_owned()))?;
    match HealthCheckResponse::decode(message)?.status {
        SERVING => Ok(()),
        0 => Err(Failure("the health service says UNKNOWN".to_owned())),
        2 => Err(Failure("the health service says NOT_SERVING".to_owned())),
        3 => Err(Failure("the health service says SERVICE_UNKNOWN".to_owned())),
        other => Err(Failure(format!("the health service says {other}"))),
    }
}

/// Whether the call went well, as far as these lines say.
fn outcome(lines: &HeaderMap) -> Result<(), Failure> {
    match lines.get("grpc-status") {
        None => Ok(()),
        Some(status) if status == "0" => Ok(()),
        Some(status) => {
            let status = String::from_utf8_lossy(status.as_bytes());
            Err(Failure(format!("the health service fails with gRPC status {status}")))
        }
    }
}
