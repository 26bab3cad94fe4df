//! A stock HTTP/2 conformance suite, h2spec, against the proxy from outside of the mesh, and through both
//! proxies from a workload.
//!
//! The suite is a program in Go. Its module and everything that it needs are pinned by `h2spec/go.sum`.

use std::path::Path;
use std::process::Command;

use super::mesh::{HTTP2, Mesh, Side, output};
use super::wire;

/// Failures that are the suite's, with the reason. Every other test passes, and these fail: one that begins
/// to pass does not belong here any more.
const EXPECTED: [(&str, &str); 1] = [(
    "Sends invalid connection preface",
    "the port serves HTTP/1.1 too, so what is no preface is a malformed HTTP/1.1 request: it is answered 400 in \
     HTTP/1.1 and the connection is closed. The suite reads that answer as a frame and reports the end inside \
     of it, though the end is what it asks for",
)];

/// Builds the suite in a folder of the target directory.
fn build() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/h2spec");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("h2spec");
    let program = program.to_str().expect("text").to_owned();
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-o", &program, "github.com/summerwind/h2spec/cmd/h2spec"]);
    let built = go.current_dir(folder).env("GOFLAGS", "").output().expect("Go is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// Titles of failed tests, and the suite's summary.
fn failures(program: &str, through: Option<&str>, host: &str) -> (Vec<String>, String) {
    let port = HTTP2.to_string();
    let suite =
        [program, "generic", "http2", "hpack", "--strict", "-h", host, "-p", &port, "-P", "/file", "-o", "2"];
    let answer = match through {
        None => output(program, &suite[1..]),
        Some(space) => output("ip", &[["netns", "exec", space].as_slice(), &suite].concat()),
    };
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let summary = text.lines().find(|line| line.contains(" tests, ")).unwrap_or_default().to_owned();
    // What failed is listed once more at the end.
    let listed = text.split("Failures:").nth(1).unwrap_or_default();
    let title =
        |line: &str| line.trim().strip_prefix("× ")?.split_once(": ").map(|(_, title)| title.to_owned());
    (listed.lines().filter_map(title).collect(), summary)
}

#[test]
#[ignore = "needs root, nftables and Go"]
fn a_stock_conformance_suite_finds_nothing_but_what_is_its_own() {
    let program = build();
    let mut mesh = Mesh::start(8);
    super::frames::serve(mesh.listen(HTTP2));
    let (outside, service) = (mesh.server(HTTP2).ip().to_string(), mesh.service().to_string());
    let space = mesh.space(Side::Client);
    for (way, through, host) in [("inbound", None, outside), ("outbound", Some(space.as_str()), service)] {
        let (failed, summary) = failures(&program, through, &host);
        assert!(summary.starts_with("147 tests, "), "{way}: {summary:?}");
        let expected: Vec<&str> = EXPECTED.iter().map(|(title, _)| *title).collect();
        assert_eq!(failed, expected, "{way}: {summary}");
    }
    // What the exception rests on.
    let stream = mesh.dial_inbound(HTTP2);
    wire::send(&stream, b"INVALID CONNECTION PREFACE\r\n\r\n");
    let answer = String::from_utf8_lossy(&wire::rest(&stream)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close\r\n"), "{answer}");
    mesh.assert_alive();
}
