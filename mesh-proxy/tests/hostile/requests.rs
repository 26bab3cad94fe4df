//! Requests that two readers would read differently, and that a proxy must therefore refuse or write anew.
//!
//! The table is `requests.txt`, which explains itself. Every request is followed at once by a canary, as a
//! request that was smuggled would be: whatever the first one was taken for, the application must see just
//! what the table says, and the attacker must get as many answers as the table says.

use super::mesh::{HTTP, Mesh};
use super::wire::{self, Seen};

const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary\r\nConnection: close\r\n\r\n";

struct Case {
    name: String,
    request: Vec<u8>,
    /// Statuses of all answers, those to the canary too.
    statuses: Vec<u16>,
    /// Starts of the requests that arrive behind the proxy.
    arrives: Vec<String>,
    /// Text that must be in the first of them, and text that must not.
    holds: Vec<String>,
    lacks: Vec<String>,
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in include_str!("requests.txt").lines().enumerate() {
        let Some((mark, text)) = line.split_once(' ') else {
            assert!(line.is_empty(), "line {}", number + 1);
            continue;
        };
        if mark == "#" {
            continue;
        }
        if mark == "==" {
            let (name, request) = (text.to_owned(), Vec::new());
            let (statuses, arrives, holds, lacks) = Default::default();
            cases.push(Case { name, request, statuses, arrives, holds, lacks });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        match mark {
            ">" => case.request.extend(unescape(text)),
            "<" => case.statuses = text.split(' ').map(|status| status.parse().expect("a status")).collect(),
            "@" => case.arrives.push(latin(&unescape(text))),
            "+" => case.holds.push(latin(&unescape(text))),
            "-" => case.lacks.push(latin(&unescape(text))),
            _ => panic!("line {}: {mark:?}", number + 1),
        }
    }
    cases
}

/// Text as bytes: `\r`, `\n`, `\t`, `\\`, `\xNN`, and `\{N TEXT}` for TEXT repeated N times.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let (kind, after) = escape.split_at(1);
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "\\" => bytes.push(b'\\'),
            "x" => {
                bytes.push(u8::from_str_radix(&after[..2], 16).expect("two hex digits"));
                rest = &after[2..];
            }
            "{" => {
                let (repeated, after) = after.split_at(closing(after));
                let after = &after[1..];
                let (times, piece) = repeated.split_once(' ').expect("a number and a text");
                bytes.extend(unescape(piece).repeat(times.parse().expect("a number")));
                rest = after;
            }
            _ => panic!("unknown escape in {text:?}"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// Where the brace that is already open closes.
fn closing(text: &str) -> usize {
    let mut depth = 1;
    let closes = |letter: char| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        depth == 0
    };
    text.find(closes).expect("closed")
}

/// Bytes as text, one letter each, as the record of the application has them.
fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// Says what is wrong with how a case went.
fn judge(case: &Case, answer: &[u8], arrived: &[String]) -> Result<(), String> {
    let statuses = wire::statuses(answer);
    let shown: String = String::from_utf8_lossy(answer).chars().take(400).collect();
    let is_as_told = statuses == case.statuses
        && arrived.len() == case.arrives.len()
        && arrived.iter().zip(&case.arrives).all(|(found, wanted)| found.starts_with(wanted.as_str()));
    if !is_as_told {
        let arrived: Vec<String> = arrived.iter().map(|text| text.chars().take(300).collect()).collect();
        return Err(format!("statuses {statuses:?}, arrived {arrived:#?}, answer {shown:?}"));
    }
    let first = arrived.first().map(|text| text.to_ascii_lowercase()).unwrap_or_default();
    for wanted in &case.holds {
        if !first.contains(&wanted.to_ascii_lowercase()) {
            return Err(format!("{wanted:?} is missing in {first:?}"));
        }
    }
    for unwanted in &case.lacks {
        if first.contains(&unwanted.to_ascii_lowercase()) {
            return Err(format!("{unwanted:?} is in {first:?}"));
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs root and nftables"]
fn what_two_readers_would_read_differently_is_refused_or_written_anew() {
    let mut mesh = Mesh::start(1);
    let seen: Seen = wire::record(mesh.listen(HTTP));
    let cases = cases();
    assert!(cases.len() >= 80, "{}", cases.len());
    let service = std::net::SocketAddr::new(mesh.service(), HTTP);
    let mut wrong = Vec::new();
    for case in &cases {
        for way in ["inbound", "outbound"] {
            let stream = match way {
                "inbound" => mesh.dial_inbound(HTTP),
                _ => mesh.dial_outbound_to(service),
            };
            seen.take();
            wire::send(&stream, &[case.request.as_slice(), CANARY].concat());
            let answer = wire::rest(&stream);
            if let Err(problem) = judge(case, &answer, &seen.take()) {
                wrong.push(format!("{} ({way}): {problem}", case.name));
            }
        }
    }
    mesh.assert_alive();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
