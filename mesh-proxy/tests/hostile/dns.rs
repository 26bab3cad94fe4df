//! The resolver, which every program of the workload may send what it likes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::mesh::{Mesh, PATIENCE, Side, within};

/// A question for the addresses of `name` (kind 1: IPv4), in wire form (RFC 1035 section 4.1).
pub(crate) fn question(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("short"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message
}

/// Head of a message with these numbers of records.
fn head(flags: u8, counts: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, flags, 0];
    message.extend(counts.into_iter().flat_map(|count| [0, count]));
    message
}

/// Messages that no resolver should fall over.
fn garbage() -> Vec<Vec<u8>> {
    let body = |head: Vec<u8>, body: &[u8]| [head.as_slice(), body].concat();
    let mut messages = vec![
        vec![],
        vec![0],
        vec![0xff; 11],
        vec![0xff; 12],
        vec![0; 512],
        vec![0xff; 4000],
        vec![0; 60_000],
        // A name that points at itself, and two that point at each other.
        body(head(1, [1, 0, 0, 0]), &[0xc0, 12, 0, 1, 0, 1]),
        body(head(1, [1, 0, 0, 0]), &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]),
        // A name that points behind the message, a label that is longer than the message, a reserved label.
        body(head(1, [1, 0, 0, 0]), &[0xff, 0xff, 0, 1, 0, 1]),
        body(head(1, [1, 0, 0, 0]), &[63, b'a', 0, 0, 1, 0, 1]),
        body(head(1, [1, 0, 0, 0]), &[0x80, b'a', 0, 0, 1, 0, 1]),
        // A name of more than 255 bytes.
        body(head(1, [1, 0, 0, 0]), &[[63].as_slice(), &[b'a'; 63]].concat().repeat(8)),
        // Counts without records, an answer, another operation.
        head(1, [0, 0, 0, 0]),
        head(1, [255, 255, 255, 255]),
        body(head(0x81, [1, 1, 0, 0]), &question("server.backend", 1)[12..]),
        body(head(0x29, [1, 0, 0, 0]), &question("server.backend", 1)[12..]),
    ];
    let whole = question("server.backend", 1);
    messages.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
    // Every byte of a question, broken in turn.
    messages.extend((0..whole.len()).map(|at| {
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        broken
    }));
    messages
}

/// Asks until there is an answer: datagrams may be lost where more come than a socket holds.
fn assert_answers(mesh: &Mesh, address: SocketAddr) {
    let socket = within(&mesh.space(Side::Client), || UdpSocket::bind("0.0.0.0:0").expect("bound"));
    socket.set_read_timeout(Some(Duration::from_millis(250))).expect("set");
    let begun = Instant::now();
    let mut answer = [0; 4096];
    while begun.elapsed() < PATIENCE {
        socket.send_to(&question("server.backend", 1), address).expect("sent");
        let length = socket.recv(&mut answer).unwrap_or(0);
        if length > 0 {
            assert_eq!((answer[3] & 0xf, answer[7]), (0, 1), "{:?}", &answer[..length]);
            return;
        }
    }
    panic!("no answer any more");
}

#[test]
#[ignore = "needs root and nftables"]
fn the_resolver_survives_what_is_no_question_and_more_than_it_can_answer() {
    let mut mesh = Mesh::start(6);
    let address: SocketAddr = "10.79.0.53:53".parse().expect("an address");
    let socket = within(&mesh.space(Side::Client), || UdpSocket::bind("0.0.0.0:0").expect("bound"));
    assert_answers(&mesh, address);
    for message in garbage() {
        socket.send_to(&message, address).expect("sent");
    }
    assert_answers(&mesh, address);

    // The same over TCP, where each message has its length in front, true or not.
    let dial = || {
        within(&mesh.space(Side::Client), || {
            let stream = TcpStream::connect(address).expect("connected");
            stream.set_read_timeout(Some(PATIENCE)).expect("set");
            stream
        })
    };
    for message in garbage() {
        let mut stream = dial();
        let length = u16::try_from(message.len()).expect("short").to_be_bytes();
        stream.write_all(&[length.as_slice(), &message].concat()).expect("written");
    }
    // Silent connections, as many as are served at a time, do not keep datagrams waiting.
    let silent: Vec<TcpStream> = (0..64).map(|_| dial()).collect();
    assert_answers(&mesh, address);
    drop(silent);
    let mut stream = dial();
    let message = question("server.backend", 1);
    let length = u16::try_from(message.len()).expect("short").to_be_bytes();
    stream.write_all(&[length.as_slice(), &message].concat()).expect("written");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer[2..], [0x12, 0x34]);

    // More questions that wait for a server outside (there is none) than are held at a time.
    let before = mesh.resident_kib(Side::Client);
    for number in 0..20_000 {
        let _full = socket.send_to(&question(&format!("host-{number}.example.org"), 1), address);
    }
    assert_answers(&mesh, address);
    let grown = mesh.resident_kib(Side::Client).saturating_sub(before);
    assert!(grown < 16 * 1024, "20,000 questions cost {grown} KiB");
    mesh.assert_alive();
}
