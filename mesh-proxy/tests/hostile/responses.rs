//! An application that answers what no client should get: the client is told that the answer was bad or cut,
//! and what comes behind a bad answer is never taken for the answer to somebody else's request.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::mesh::{HTTP, Mesh};
use super::wire;

/// What the client is entitled to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// A refusal of the proxy's own.
    Status(u16),
    /// The application's answer with this status, whole; what comes behind it is thrown away.
    Whole(u16),
    /// The start of the answer and then the end of the connection, with nothing that ends the body; or a
    /// refusal, where the end overtook the start on its way between the proxies.
    Cut,
}

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nX-Poison: 1\r\n\r\npoison";

/// Name, what the application writes, and what becomes of it.
fn cases() -> Vec<(&'static str, String, Outcome)> {
    use Outcome::{Cut, Status, Whole};
    let long = "a".repeat(70_000);
    let table: [(&str, &str, Outcome); 30] = [
        ("no answer", "", Status(503)),
        ("not HTTP", "SSH-2.0-OpenSSH_9.6\r\n\r\n", Status(502)),
        ("HTTP/0.9", "hello\r\n\r\n", Status(502)),
        ("another version", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("status of letters", "HTTP/1.1 OK 200\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("status 000", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", Status(502)),
        (
            "length and coding",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Status(502),
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", Status(502)),
        ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", Status(502)),
        ("negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab", Status(502)),
        (
            "length beyond 63 bits",
            "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n",
            Status(502),
        ),
        ("unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", Status(502)),
        ("coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Status(502)),
        ("folded line", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("LF alone", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", Status(502)),
        ("CR alone", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("NUL", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n", Status(502)),
        ("white space before a colon", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", Status(502)),
        ("line without a colon", "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n", Status(502)),
        ("head that ends early", "HTTP/1.1 200 OK\r\nContent-Le", Status(503)),
        ("body that ends early", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Cut),
        ("chunks that end early", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", Cut),
        (
            "bad chunk size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
            Cut,
        ),
        (
            "chunk too long",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            Cut,
        ),
        ("bad trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n", Cut),
        (
            "switch that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            Status(502),
        ),
        ("second answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Whole(200)),
        ("body of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nabcde", Whole(204)),
        ("body of 304", "HTTP/1.1 304 Not Modified\r\n\r\nabcde", Whole(304)),
    ];
    let mut cases: Vec<_> =
        table.into_iter().map(|(name, bytes, outcome)| (name, bytes.to_owned(), outcome)).collect();
    cases.push((
        "long line",
        format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 0\r\n\r\n"),
        Status(502),
    ));
    let many = "X: a\r\n".repeat(101);
    cases.push(("many lines", format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"), Status(502)));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
    cases.push((
        "1000 interim answers",
        format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Status(502),
    ));
    cases
}

/// Answers `/bad` with what is scripted and everything else with `fresh`. Each connection is closed behind a
/// bad answer only when that answer is one that ends early.
fn misbehave(listener: TcpListener, script: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let script = Arc::clone(&script);
            std::thread::spawn(move || answer(&stream, &script));
        }
    });
}

fn answer(mut stream: &TcpStream, script: &Mutex<String>) {
    let mut buffer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length) = stream.read(&mut part) {
        buffer.extend_from_slice(&part[..length]);
        let Some(end) = wire::find(&buffer, b"\r\n\r\n") else {
            if length == 0 {
                return;
            }
            continue;
        };
        let request: Vec<u8> = buffer.drain(..end + 4).collect();
        if !request.starts_with(b"GET /bad ") {
            wire::send(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh");
            continue;
        }
        let bytes = script.lock().expect("no panic").clone();
        wire::send(stream, bytes.as_bytes());
        // Closing is what an application does that fails; the bytes before it still arrive.
        let _gone = stream.shutdown(std::net::Shutdown::Write);
        return;
    }
}

fn judge(answer: &[u8], outcome: Outcome) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let statuses: Vec<u16> = wire::statuses(answer).into_iter().filter(|status| *status != 100).collect();
    let is_right = match outcome {
        Outcome::Status(status) => statuses.first() == Some(&status) && !text.contains("X-Poison"),
        Outcome::Whole(status) => statuses == [status, 200] && text.ends_with("fresh"),
        Outcome::Cut if statuses.first() == Some(&503) => !text.contains("abc"),
        Outcome::Cut => statuses.len() <= 1 && !text.contains("\r\n0\r\n\r\n") && !text.contains("fresh"),
    };
    if is_right && !text.contains("poison") {
        return Ok(());
    }
    Err(format!("{statuses:?} {:?}", text.chars().take(300).collect::<String>()))
}

#[test]
#[ignore = "needs root and nftables"]
fn a_bad_answer_is_a_502_or_a_cut_and_never_the_answer_to_another_request() {
    let mut mesh = Mesh::start(2);
    let script = Arc::new(Mutex::new(String::new()));
    misbehave(mesh.listen(HTTP), Arc::clone(&script));
    let service = std::net::SocketAddr::new(mesh.service(), HTTP);
    let mut wrong = Vec::new();
    for (name, bytes, outcome) in cases() {
        // What an answer that is not cut leaves behind is a whole answer of the attacker's.
        let poison =
            if outcome == Outcome::Cut || name.contains("early") || bytes.is_empty() { "" } else { POISON };
        *script.lock().expect("no panic") = format!("{bytes}{poison}");
        for way in ["inbound", "outbound"] {
            let stream =
                if way == "inbound" { mesh.dial_inbound(HTTP) } else { mesh.dial_outbound_to(service) };
            let mut writer = &stream;
            writer
                .write_all(
                    b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\nGET /fresh HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                )
                .expect("written");
            if let Err(problem) = judge(&wire::rest(&stream), outcome) {
                wrong.push(format!("{name} ({way}), not {outcome:?}: {problem}"));
            }
            // Whoever comes next gets an answer of their own.
            let stream =
                if way == "inbound" { mesh.dial_inbound(HTTP) } else { mesh.dial_outbound_to(service) };
            wire::send(&stream, b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let answer = wire::rest(&stream);
            if !answer.ends_with(b"\r\n\r\nfresh") {
                wrong.push(format!("behind {name} ({way}): {:?}", String::from_utf8_lossy(&answer)));
            }
        }
    }
    mesh.assert_alive();
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
