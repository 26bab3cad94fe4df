//! HTTP/2 by hand: frames as bytes, what comes back, and an application that speaks it.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use super::mesh::{HTTP2, Mesh};
use super::wire;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals that enter no table (RFC 7541 section 6.2.2).
pub(crate) fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut text = |text: &str| {
        let length = u8::try_from(text.len()).expect("short");
        assert!(length < 127, "one byte of length");
        bytes.push(length);
        bytes.extend_from_slice(text.as_bytes());
    };
    let mut whole = Vec::new();
    for (name, value) in lines {
        text(name);
        text(value);
    }
    let mut rest = bytes.as_slice();
    while let [length, ..] = rest {
        let name = 1 + usize::from(*length);
        let value = 1 + usize::from(rest[name]);
        whole.push(0);
        whole.extend_from_slice(&rest[..name + value]);
        rest = &rest[name + value..];
    }
    whole
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    block(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)])
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Status by stream.
    pub(crate) statuses: Vec<(u32, u16)>,
    /// Error code by stream.
    pub(crate) resets: Vec<(u32, u32)>,
    /// Error code of the connection.
    pub(crate) goaway: Option<u32>,
    /// Acknowledged PINGs.
    pub(crate) pongs: usize,
}

impl Answers {
    pub(crate) fn status(&self, stream: u32) -> Option<u16> {
        self.statuses.iter().find(|(of, _)| *of == stream).map(|(_, status)| *status)
    }

    fn take(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four"));
        match kind {
            kind::HEADERS => self.statuses.extend(status(payload).map(|status| (stream, status))),
            kind::RST_STREAM => self.resets.push((stream, number(0))),
            kind::GOAWAY => self.goaway = Some(number(4)),
            kind::PING if flags & 1 == 1 => self.pongs += 1,
            _ => {}
        }
    }
}

/// The status in a header block, which is its first line: of the static table, or digits by their Huffman
/// codes or as they are (RFC 7541 appendices A and B).
fn status(block: &[u8]) -> Option<u16> {
    let start = block.iter().position(|byte| byte & 0xe0 != 0x20)?;
    let block = &block[start..];
    let indexed = [200, 204, 206, 304, 400, 404, 500];
    match block[0] {
        byte @ 0x88..=0x8e => Some(indexed[usize::from(byte - 0x88)]),
        0x08 | 0x48 | 0x18 => {
            let length = usize::from(block[1] & 0x7f);
            let text = &block[2..2 + length];
            if block[1] & 0x80 == 0 {
                return std::str::from_utf8(text).ok()?.parse().ok();
            }
            let bits: String = text.iter().map(|byte| format!("{byte:08b}")).collect();
            let (mut rest, mut status) = (bits.as_str(), 0);
            for _ in 0..3 {
                let short = u16::from_str_radix(rest.get(..5)?, 2).ok()?;
                let (digit, length) = if short < 3 {
                    (short, 5)
                } else {
                    (u16::from_str_radix(rest.get(..6)?, 2).ok()? - 0x19 + 3, 6)
                };
                status = status * 10 + digit;
                rest = &rest[length..];
            }
            Some(status)
        }
        _ => None,
    }
}

/// Reads frames until `enough`, or the end of the connection.
pub(crate) fn read_until(mut stream: &TcpStream, enough: impl Fn(&Answers) -> bool) -> Answers {
    let (mut answers, mut buffer, mut part) = (Answers::default(), Vec::new(), [0; 16 * 1024]);
    loop {
        while buffer.len() >= 9 {
            let length = usize::from(buffer[0]) << 16 | usize::from(buffer[1]) << 8 | usize::from(buffer[2]);
            if buffer.len() < 9 + length {
                break;
            }
            let whole: Vec<u8> = buffer.drain(..9 + length).collect();
            let id = u32::from_be_bytes(whole[5..9].try_into().expect("four"));
            answers.take(whole[3], whole[4], id, &whole[9..]);
        }
        if enough(&answers) {
            return answers;
        }
        match stream.read(&mut part) {
            Ok(0) => return answers,
            Ok(length) => buffer.extend_from_slice(&part[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no end: {answers:?}");
            }
            Err(_) => return answers,
        }
    }
}

pub(crate) fn open(mesh: &Mesh) -> TcpStream {
    let stream = mesh.dial_inbound(HTTP2);
    wire::send(&stream, &[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat());
    stream
}

/// An application that speaks HTTP/2 and answers each request with 200 and its path. `/slow` is not answered.
pub(crate) fn serve(listener: std::net::TcpListener) -> std::sync::Arc<std::sync::Mutex<Vec<String>>> {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = std::sync::Arc::clone(&seen);
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("registered");
            while let Ok((stream, _)) = listener.accept().await {
                let seen = std::sync::Arc::clone(&kept);
                tokio::spawn(async move {
                    // Attackers are the proxy's to fend off here: this application would bear more than it lets by.
                    let mut builder = h2::server::Builder::new();
                    builder.max_pending_accept_reset_streams(10_000);
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let path = request.uri().path().to_owned();
                        seen.lock().expect("no panic").push(format!(
                            "{} {}",
                            request.method(),
                            request.uri()
                        ));
                        tokio::spawn(answer(path, request, respond));
                    }
                });
            }
        });
    });
    seen
}

async fn answer(
    path: String,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<bytes::Bytes>,
) {
    if path == "/slow" {
        std::future::poll_fn(|context| respond.poll_reset(context).map(|_| ())).await;
        return;
    }
    let is_head = request.method() == http::Method::HEAD;
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _gone = body.flow_control().release_capacity(data.len());
    }
    let _gone = body.trailers().await;
    let Ok(mut sending) = respond.send_response(http::Response::new(()), is_head) else { return };
    if path == "/large" {
        let _gone = sending.send_data(bytes::Bytes::from(vec![b'a'; 1 << 20]), true);
    } else if !is_head {
        let _gone = sending.send_data(bytes::Bytes::from(path), true);
    }
}
