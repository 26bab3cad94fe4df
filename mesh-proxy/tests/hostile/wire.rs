//! Bytes in and out, and the application that keeps what it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Everything up to the end of the connection, however it ends.
pub(crate) fn rest(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return bytes,
            Ok(length) => bytes.extend_from_slice(&part[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither answered nor closed; so far {:?}", String::from_utf8_lossy(&bytes));
            }
            Err(_) => return bytes,
        }
    }
}

/// Sends what the peer takes; one that is refused may be closed meanwhile.
pub(crate) fn send(mut stream: &TcpStream, bytes: &[u8]) {
    let _either_way = stream.write_all(bytes);
}

/// Status codes of the responses in `answer`, in order. Bodies of this suite hold no status line.
pub(crate) fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    text.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// What reached the application: whole requests, and bytes that are none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Takes what was seen so far.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }

    fn push(&self, request: &[u8]) {
        let text = request.iter().map(|&byte| char::from(byte)).collect();
        self.0.lock().expect("no panic").push(text);
    }
}

/// Serves `listener` in threads of its own; each request is kept before it is answered with 200.
pub(crate) fn record(listener: TcpListener) -> Seen {
    let seen = Seen::default();
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), kept) = (stream, kept.clone()) else { return };
            std::thread::spawn(move || answer_all(&stream, &kept));
        }
    });
    seen
}

fn answer_all(mut stream: &TcpStream, seen: &Seen) {
    let mut buffer = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        if let Some(end) = message_end(&buffer) {
            let request: Vec<u8> = buffer.drain(..end).collect();
            seen.push(&request);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
            continue;
        }
        match stream.read(&mut part) {
            Ok(length) if length > 0 => buffer.extend_from_slice(&part[..length]),
            _ => break,
        }
    }
    if !buffer.is_empty() {
        seen.push(&buffer);
    }
    let _gone = stream.shutdown(Shutdown::Both);
}

/// Where a request ends, for a reader that knows only what a proxy in good order writes.
fn message_end(bytes: &[u8]) -> Option<usize> {
    let head_end = find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked\r\n") {
        let mut at = head_end;
        loop {
            let line = find(&bytes[at..], b"\r\n")?;
            let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
            at += line + 2;
            if size == 0 {
                break;
            }
            at += size + 2;
            bytes.get(at..)?;
        }
        loop {
            let line = find(&bytes[at..], b"\r\n")?;
            at += line + 2;
            if line == 0 {
                return Some(at);
            }
        }
    }
    let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let end = head_end + length.map_or(0, |length| length.parse::<usize>().expect("a number"));
    (bytes.len() >= end).then_some(end)
}

pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
