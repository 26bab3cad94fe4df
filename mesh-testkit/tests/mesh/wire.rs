//! What can be seen between the workloads, and that nothing of it can be seen anywhere else.

use std::process::Stdio;

use mesh_testkit::{Recording, Segment};
use serde_json::Value;

use crate::layout::{CACHE, CLIENTS, WEB, layout, mesh_of};

/// A word that must not be readable on the way.
const SECRET: &str = "a-word-that-nobody-may-read";

/// Whether the first segment of a direction of a connection begins as a TLS handshake does: type 22, version
/// 3.x (RFC 8446, section 5.1).
fn is_handshake(payload: &[u8]) -> bool {
    matches!(payload, [22, 3, ..])
}

fn holds(segment: &Segment, word: &str) -> bool {
    segment.payload.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn only_tls_leaves_a_workload_and_nothing_leaves_the_mesh() {
    let mesh = layout().up(&mesh_of(&[WEB, CACHE, CLIENTS]));
    let machine =
        Recording::of_machine(&mesh, "net 10.77.0.0/16 or net 240.240.0.0/16 or net fd77:6d6d::/32");
    let recordings = ["client", "web", "cache"].map(|name| Recording::of_workload(&mesh, name));
    let url = format!("http://web.shop:8080/{SECRET}");
    let answer = mesh.curl("client.edge", &["-H", &format!("x-secret: {SECRET}"), &url]);
    assert!(answer.status == 200 && answer.body.contains(SECRET), "{answer:?}");
    mesh.exec_must("client.edge", &["redis-cli", "-h", "cache.shop", "set", SECRET, SECRET]);
    let on_the_way = recordings.map(Recording::segments);
    for (segments, ports) in on_the_way.iter().zip([&[8080, 6379][..], &[8080], &[6379]]) {
        for port in ports {
            let requests: Vec<&Segment> =
                segments.iter().filter(|segment| segment.destination_port == *port).collect();
            let answers: Vec<&Segment> =
                segments.iter().filter(|segment| segment.source_port == *port).collect();
            for first in [requests.first(), answers.first()] {
                let first = first.expect("something was sent on this port");
                assert!(
                    is_handshake(&first.payload),
                    "{port}: {:?}",
                    &first.payload[..first.payload.len().min(16)]
                );
            }
        }
        assert!(!segments.iter().any(|segment| holds(segment, SECRET)), "the word was seen");
    }
    // The same request without a proxy is seen: the recording would have shown it.
    let recording = Recording::of_workload(&mesh, "web");
    let address = mesh.address("web");
    let answer = mesh.curl("outsider.out", &[&format!("http://{address}:8080/{SECRET}")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(recording.segments().iter().any(|segment| holds(segment, SECRET)), "plaintext is seen as such");
    // Attempts to get out, which must end inside.
    for target in ["http://192.0.2.1/", "http://10.77.255.254:8080/", "http://[fd77:6d6d:1::ffff]:8080/"] {
        for workload in ["client.edge", "outsider.out"] {
            let answer = mesh.exec(workload, &["curl", "-sS", "--max-time", "1", target]);
            assert!(
                !answer.is_success() || answer.out.is_empty() || answer.out.contains("upstream"),
                "{answer:?}"
            );
        }
    }
    assert_eq!(Recording::count(&machine.end()), 0, "packets of the mesh on the machine's links");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn meshctl_tells_tls_from_plaintext() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    let looking = mesh.command(&["x", "wire", "--seconds", "4", "-o", "json"]).stdout(Stdio::piped()).spawn();
    let mut looking = looking.expect("meshctl runs");
    // When it began to look cannot be seen from here; what goes on until it has ended will be seen.
    let address = mesh.address("web");
    while looking.try_wait().expect("a state").is_none() {
        assert_eq!(mesh.curl("client.edge", &["http://web.shop:8080/"]).status, 200);
        assert_eq!(mesh.curl("outsider.out", &[&format!("http://{address}:8080/")]).status, 200);
    }
    let said = looking.wait_with_output().expect("an end").stdout;
    let rows: Vec<Value> = serde_json::from_slice(&said).expect("JSON");
    let security = |source: &str| {
        let of = rows.iter().filter(|row| row["source"] == source && row["destination"] == "web.shop:8080");
        of.map(|row| row["security"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let from_client = security("client.edge");
    assert!(!from_client.is_empty() && from_client.iter().all(|it| it == "tls"), "{rows:?}");
    let from_outsider = security("outsider.out");
    assert!(!from_outsider.is_empty() && from_outsider.iter().all(|it| it == "plaintext"), "{rows:?}");
}
