//! Peers that take their time, and many of them: each wait has an end, and each connection a small price.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::mesh::{HTTP, HTTP2, Mesh, STRICT, Side, run};
use super::wire;

/// Time that the proxy allows for a head, and the same once more for telling what a connection carries.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// Idle connections at once.
const IDLE: u64 = 10_000;
/// Most resident memory for one of them that has said nothing, in KiB. Measured: 7.4 in a debug build.
const SILENT_KIB_MAX: f64 = 10.0;
/// Most for one that waits between two requests. Measured: 10.3 in a debug build.
const KEPT_KIB_MAX: f64 = 14.0;

/// Descriptors for both ends of many connections.
fn raise_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("asked");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("set");
}

fn assert_serves(mesh: &Mesh) {
    let stream = mesh.dial_inbound(HTTP);
    wire::send(&stream, b"GET /fine HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(wire::statuses(&wire::rest(&stream)), [200]);
}

#[test]
#[ignore = "needs root and nftables"]
fn what_begins_and_does_not_go_on_is_ended_in_time() {
    let mut mesh = Mesh::start(9);
    let seen = wire::record(mesh.listen(HTTP));
    super::frames::serve(mesh.listen(HTTP2));
    // A hello that says it has 512 bytes, for the mesh and for nobody in particular.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0];
    let starts: [(u16, &[u8], &str); 7] = [
        (HTTP, b"G", "a letter"),
        (HTTP, b"GET /x HTTP/1.1\r\n", "a request line"),
        (HTTP, b"GET /x HTTP/1.1\r\nHost: a\r\nX: ", "half a head"),
        (HTTP, &hello, "half a hello"),
        (STRICT, &hello, "half a hello where nothing else will do"),
        (STRICT, b"", "nothing where a hello is due"),
        (HTTP2, b"PRI * HTTP/2.0\r\n", "half a preface"),
    ];
    std::thread::scope(|scope| {
        for (port, start, name) in starts {
            let stream = mesh.dial_inbound(port);
            stream.set_read_timeout(Some(HEAD_TIME + Duration::from_secs(5))).expect("set");
            scope.spawn(move || {
                wire::send(&stream, start);
                let answer = wire::rest(&stream);
                let statuses = wire::statuses(&answer);
                assert!(
                    statuses.is_empty() || statuses == [408] || statuses == [400],
                    "{name}: {statuses:?}"
                );
            });
        }
        // A letter now and then does not buy more time.
        let stream = mesh.dial_inbound(HTTP);
        scope.spawn(move || {
            let mut writer = &stream;
            let begun = Instant::now();
            stream.set_read_timeout(Some(Duration::from_millis(250))).expect("set");
            while begun.elapsed() < HEAD_TIME {
                wire::send(&stream, b"a");
                match (&stream).read(&mut [0; 512]) {
                    Ok(_) => return,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
                let _either_way = writer.flush();
            }
            panic!("one letter at a time held a connection for {HEAD_TIME:?}");
        });
    });
    assert!(seen.take().is_empty());
    assert_serves(&mesh);
    mesh.assert_alive();
}

/// Connects `count` times.
fn crowd(address: SocketAddr, count: u64) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).expect("connected")).collect()
}

#[test]
#[ignore = "needs root and nftables"]
fn ten_thousand_idle_connections_cost_little_and_stop_nobody() {
    raise_limit();
    let mut mesh = Mesh::start(10);
    let _seen = wire::record(mesh.listen(HTTP));
    assert_serves(&mesh);
    let before = mesh.resident_kib(Side::Server);
    let idle = crowd(mesh.server(HTTP), IDLE);
    assert_serves(&mesh);
    let silent = mesh.resident_kib(Side::Server).saturating_sub(before);
    // The same connections, each with a request behind it.
    for stream in &idle {
        stream.set_read_timeout(Some(super::mesh::PATIENCE)).expect("set");
        wire::send(stream, b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for mut stream in &idle {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 403");
    }
    let kept = mesh.resident_kib(Side::Server).saturating_sub(before);
    assert_serves(&mesh);
    drop(idle);
    assert_serves(&mesh);
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let each = |kib: u64| kib as f64 / IDLE as f64;
    println!(
        "idle connection: {:.2} KiB before its first byte, {:.2} KiB behind a request",
        each(silent),
        each(kept)
    );
    assert!(each(silent) < SILENT_KIB_MAX, "{:.2} KiB before the first byte", each(silent));
    assert!(each(kept) < KEPT_KIB_MAX, "{:.2} KiB behind a request", each(kept));
    mesh.assert_alive();
}

/// An application that writes for ever; counts what it got rid of.
fn pour(listener: TcpListener) -> Arc<AtomicU64> {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), count) = (stream, Arc::clone(&count)) else { return };
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let length = stream.read(&mut head).unwrap_or(0);
                if !head[..length].starts_with(b"GET /pour ") {
                    wire::send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    return;
                }
                wire::send(&stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
                let part = [b'a'; 64 * 1024];
                while let Ok(length) = stream.write(&part) {
                    count.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
    });
    written
}

#[test]
#[ignore = "needs root and nftables"]
fn a_client_that_never_reads_stops_its_own_answer_only() {
    let mut mesh = Mesh::start(11);
    let written = pour(mesh.listen(HTTP));
    assert_serves(&mesh);
    let before = mesh.resident_kib(Side::Server) + mesh.resident_kib(Side::Client);
    let service = SocketAddr::new(mesh.service(), HTTP);
    let mut deaf = Vec::new();
    for number in 0..40 {
        let stream = if number % 2 == 0 { mesh.dial_inbound(HTTP) } else { mesh.dial_outbound_to(service) };
        wire::send(&stream, b"GET /pour HTTP/1.1\r\nHost: a\r\n\r\n");
        deaf.push(stream);
    }
    // Until every buffer on the way is full and nothing moves any more.
    let last = AtomicU64::new(0);
    mesh.until("backpressure", || {
        std::thread::park_timeout(Duration::from_millis(300));
        let now = written.load(Ordering::Relaxed);
        now > 0 && last.swap(now, Ordering::Relaxed) == now
    });
    let after = mesh.resident_kib(Side::Server) + mesh.resident_kib(Side::Client);
    let grown = after.saturating_sub(before);
    assert!(grown < 8 * 1024, "40 clients that do not read cost {grown} KiB");
    assert_serves(&mesh);
    drop(deaf);
    assert_serves(&mesh);
    mesh.assert_alive();
}

#[test]
#[ignore = "needs root and nftables"]
fn a_flood_of_connections_does_not_hold_up_the_drain() {
    raise_limit();
    let mut mesh = Mesh::start(12);
    let _seen = wire::record(mesh.listen(HTTP));
    assert_serves(&mesh);
    let address = mesh.server(HTTP);
    // Some that were there before, among them one in the middle of a head.
    let old = crowd(address, 500);
    wire::send(&old[0], b"GET /x HTT");
    let id = mesh.process(Side::Server).id().to_string();
    let begun = Instant::now();
    run("kill", &["-TERM", &id]);
    let flooding = std::thread::spawn(move || {
        let mut crowd = Vec::new();
        while begun.elapsed() < Duration::from_secs(3) && crowd.len() < 5000 {
            let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) else { break };
            crowd.push(stream);
        }
        crowd
    });
    let status = mesh.process(Side::Server).wait().expect("waited");
    let took = begun.elapsed();
    drop(flooding.join().expect("no panic"));
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(7), "the deadline is 4 s, the drain took {took:?}");
}
