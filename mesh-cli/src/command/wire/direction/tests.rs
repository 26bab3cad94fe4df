//! What counts as TLS, and what does not.

use super::*;

fn record(kind: u8, body: usize) -> Vec<u8> {
    let length = u16::try_from(body).expect("short").to_be_bytes();
    let mut bytes = vec![kind, 3, 3, length[0], length[1]];
    // Looks like nothing in particular, and holds no header.
    bytes.extend((0..body).map(|at| u8::try_from((at * 151 + 200) % 251).unwrap_or(0) | 0x80));
    bytes
}

fn seen(is_opened: bool, packets: &[&[u8]]) -> Direction {
    let mut direction = Direction::default();
    let mut at = 100;
    if is_opened {
        direction.open(at);
    }
    for packet in packets {
        direction.take(at, packet);
        at = at.wrapping_add(u32::try_from(packet.len()).expect("short"));
    }
    direction
}

#[test]
fn records_from_the_start_are_tls_however_they_are_cut() {
    let stream: Vec<u8> = [record(22, 300), record(20, 1), record(23, 5000), record(23, 40)].concat();
    for size in [1, 2, 3, 7, 100, 1448, 6000] {
        let packets: Vec<&[u8]> = stream.chunks(size).collect();
        let direction = seen(true, &packets);
        assert_eq!(direction.verdict, Verdict::Tls, "{size}");
        assert_eq!(direction.bytes, u64::try_from(stream.len()).expect("short"));
    }
}

#[test]
fn a_connection_that_begins_with_anything_else_is_plaintext() {
    for payload in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"\x00\x00\x12\x04",
        b"\x16\x02\x00\x00\x05",
        b"store ready\n",
    ] {
        assert_eq!(seen(true, &[payload]).verdict, Verdict::Plaintext, "{payload:?}");
    }
    assert_eq!(seen(true, &[b"\x16"]).verdict, Verdict::Open, "one byte tells nothing yet");
}

#[test]
fn plaintext_behind_records_is_found() {
    let handshake = record(22, 200);
    assert_eq!(seen(true, &[&handshake, b"GET / HTTP/1.1\r\n"]).verdict, Verdict::Plaintext);
    assert_eq!(seen(false, &[&handshake, b"GET / HTTP/1.1\r\n"]).verdict, Verdict::Plaintext);
}

#[test]
fn a_connection_that_was_open_before_is_joined_at_a_record() {
    let (tail, small) = (record(23, 900)[400..].to_vec(), record(23, 90));
    assert_eq!(seen(false, &[&tail]).verdict, Verdict::Open);
    assert_eq!(seen(false, &[&tail, &small]).verdict, Verdict::Tls);
    let bulk: Vec<u8> = [tail, record(23, 700), record(23, 16_000)].concat();
    assert_eq!(seen(false, &[&bulk]).verdict, Verdict::Tls, "two headers in a row agree");
}

#[test]
fn plaintext_on_a_connection_that_was_open_before_is_found() {
    assert_eq!(seen(false, &[b"GET /api/products HTTP/1.1\r\n"]).verdict, Verdict::Plaintext);
    let frame: &[u8] = &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0xff];
    assert_eq!(seen(false, &vec![frame; 40]).verdict, Verdict::Plaintext, "many packets, none a record");
    let bulk = &record(23, 16_000)[5..];
    assert_eq!(seen(false, &[bulk, bulk, bulk]).verdict, Verdict::Plaintext, "longer than any record");
    assert_eq!(seen(false, &[bulk]).verdict, Verdict::Open);
}

#[test]
fn what_is_seen_twice_counts_once() {
    let stream = record(22, 300);
    let mut direction = Direction::default();
    direction.open(u32::MAX - 10);
    for _ in 0..3 {
        direction.take(u32::MAX - 10, &stream);
    }
    direction.take((u32::MAX - 10).wrapping_add(200), &[&stream[200..], &record(23, 50)[..]].concat());
    assert_eq!(direction.bytes, 305 + 55);
    assert_eq!(direction.verdict, Verdict::Tls);
}

#[test]
fn a_gap_is_no_proof_of_plaintext() {
    let mut direction = Direction::default();
    direction.open(0);
    direction.take(0, &record(22, 300));
    direction.take(5000, &record(23, 900)[300..]);
    assert_eq!(direction.verdict, Verdict::Tls);
}
