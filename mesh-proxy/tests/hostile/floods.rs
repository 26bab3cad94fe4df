//! Frames that are legal in illegal numbers, and streams that come to no end.

use super::frames::{Answers, END_HEADERS, END_STREAM, block, frame, get, kind, open, read_until, serve};
use super::mesh::{HTTP2, Mesh, Side};
use super::wire;

const CLOSED: &str = "mesh_proxy_http2_connections_closed_on_peer_total";

/// Name, reason in the metric, and the flood. A connection stands before each.
fn floods() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let times = |count: usize, bytes: &[u8]| bytes.repeat(count);
    let streams =
        |count: u32, of: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(|n| of(2 * n + 1)).collect::<Vec<_>>();
    let reset = |id: u32| {
        let head = frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &get("/slow"));
        [head, frame(kind::RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat()
    };
    let request = frame(kind::HEADERS, END_HEADERS, 1, &get("/slow"));
    let endless = frame(kind::HEADERS, 0, 1, &get("/"));
    vec![
        ("rapid reset", "rapid_reset|codec_limit", streams(20_000, &reset)),
        (
            "settings",
            "control_frames",
            times(50_000, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff])),
        ),
        ("empty settings", "control_frames", times(50_000, &frame(kind::SETTINGS, 0, 0, &[]))),
        ("ping", "control_frames", times(50_000, &frame(kind::PING, 0, 0, &[7; 8]))),
        ("priority", "control_frames", times(50_000, &frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 9]))),
        ("window update", "control_frames", times(50_000, &frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("unknown frames", "control_frames", times(50_000, &frame(0xfa, 0, 0, &[1; 4]))),
        (
            "continuation",
            "codec_limit|protocol",
            [
                endless.clone(),
                times(20_000, &frame(kind::CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(100))]))),
            ]
            .concat(),
        ),
        (
            "empty continuation",
            "codec_limit|protocol",
            [endless, times(50_000, &frame(kind::CONTINUATION, 0, 1, &[]))].concat(),
        ),
        (
            "empty data",
            "codec_limit|control_frames",
            [request, times(100_000, &frame(kind::DATA, 0, 1, &[]))].concat(),
        ),
    ]
}

#[test]
#[ignore = "needs root and nftables"]
fn a_flood_ends_its_own_connection_is_counted_and_costs_little() {
    let mut mesh = Mesh::start(3);
    serve(mesh.listen(HTTP2));
    let before = mesh.resident_kib(Side::Server);
    for (name, reasons, flood) in floods() {
        let counted = |mesh: &Mesh| -> u64 {
            reasons.split('|').map(|reason| mesh.counter(Side::Server, CLOSED, reason)).sum()
        };
        let count = counted(&mesh);
        let stream = open(&mesh);
        let reader = stream.try_clone().expect("cloned");
        let reading = std::thread::spawn(move || read_until(&reader, |_| false));
        let begun = std::time::Instant::now();
        wire::send(&stream, &flood);
        let answers = reading.join().expect("no panic");
        assert!(answers.goaway.is_some() || begun.elapsed().as_secs() < 5, "{name}: {answers:?}");
        mesh.until(&format!("{name} is counted as {reasons}"), || counted(&mesh) > count);
        // Others are served as before.
        let stream = open(&mesh);
        wire::send(&stream, &frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &get("/fine")));
        let answers = read_until(&stream, |answers| answers.status(1).is_some());
        assert_eq!(answers.status(1), Some(200), "behind {name}");
    }
    let grown = mesh.resident_kib(Side::Server).saturating_sub(before);
    assert!(grown < 24 * 1024, "the floods cost {grown} KiB");
    mesh.assert_alive();
}

fn request(id: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, id, &get(path))
}

/// Waits until a PING sent behind everything else is answered.
fn ping(stream: &std::net::TcpStream) -> Answers {
    wire::send(stream, &frame(kind::PING, 0, 0, &[1; 8]));
    read_until(stream, |answers| answers.pongs > 0)
}

#[test]
#[ignore = "needs root and nftables"]
fn streams_that_come_to_no_end_are_bounded_and_leave_the_connection_usable() {
    let mut mesh = Mesh::start(5);
    serve(mesh.listen(HTTP2));
    let stream = open(&mesh);
    // One more than may be open, none of them answered: that one is refused, unprocessed (RFC 9113 5.1.2).
    let many: Vec<u8> = (0..=200).flat_map(|number| request(2 * number + 1, "/slow")).collect();
    wire::send(&stream, &many);
    let answers = read_until(&stream, |answers| !answers.resets.is_empty());
    assert_eq!((answers.resets, answers.goaway), (vec![(401, 7)], None));
    // Taken back slowly enough, they make room, and the connection serves on.
    let back: Vec<u8> = (0..200)
        .flat_map(|number| frame(kind::RST_STREAM, 0, 2 * number + 1, &8_u32.to_be_bytes()))
        .collect();
    wire::send(&stream, &[back, request(403, "/fine")].concat());
    let answers = read_until(&stream, |answers| answers.status(403).is_some());
    assert_eq!(answers.status(403), Some(200));
    // A reset behind the answer is too late to matter.
    wire::send(&stream, &frame(kind::RST_STREAM, 0, 403, &8_u32.to_be_bytes()));
    assert_eq!(ping(&stream).goaway, None);
    mesh.assert_alive();
}

#[test]
#[ignore = "needs root and nftables"]
fn a_peer_without_a_window_is_kept_waiting_and_costs_no_more_than_its_streams() {
    let mut mesh = Mesh::start(13);
    serve(mesh.listen(HTTP2));
    let before = mesh.resident_kib(Side::Server);
    let mut peers = Vec::new();
    for _ in 0..4 {
        let stream = open(&mesh);
        // SETTINGS_INITIAL_WINDOW_SIZE of 0: heads may come, bodies may not.
        wire::send(&stream, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
        let many: Vec<u8> = (0..100).flat_map(|number| request(2 * number + 1, "/large")).collect();
        wire::send(&stream, &many);
        let answers = read_until(&stream, |answers| answers.statuses.len() == 100);
        assert_eq!((answers.goaway, answers.resets.len()), (None, 0));
        peers.push(stream);
    }
    let grown = mesh.resident_kib(Side::Server).saturating_sub(before);
    // Each of the 400 answers has a megabyte to give; what is held of it is one window (128 KiB) and change.
    assert!(grown < 400 * 176, "400 answers without a window cost {grown} KiB");
    let stream = open(&mesh);
    wire::send(&stream, &request(1, "/fine"));
    assert_eq!(read_until(&stream, |answers| answers.status(1).is_some()).status(1), Some(200));
    mesh.assert_alive();
}
