//! Stock servers and clients that know nothing of the mesh, through both proxies.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use mesh_testkit::{LocalMesh, eventually};

use crate::layout::{CACHE, CLIENT, CLIENTS, WEB, document, layout, mesh_of};

/// A file server that speaks HTTP/1.0, a gRPC server, a WebSocket server, an HTTP/2 server, and a database
/// that speaks first on a port without a protocol.
const SERVERS: &str = r#"
- name: files
  namespace: shop
  command: [/usr/bin/python3, -u, -m, http.server, "8000", --directory, "@FOLDER@/scratch"]
  ports: [{port: 8000, name: http}]
- name: grpc
  namespace: shop
  command: [/usr/bin/python3, -u, "@FOLDER@/grpc_server.py"]
  ports: [{port: 50051, name: grpc}]
- name: chat
  namespace: shop
  command: [/usr/bin/python3, -u, "@FOLDER@/websocket_server.py"]
  ports: [{port: 8765, name: http}]
- name: h2
  namespace: shop
  command: [nghttpd, --no-tls, --htdocs=@FOLDER@/scratch, --trailer, "x-end: reached", "8082"]
  ports: [{port: 8082, name: http2}]
- name: secure
  namespace: shop
  command: [openssl, s_server, -quiet, -www, -accept, "8443", -key, "@FOLDER@/scratch/key.pem", -cert, "@FOLDER@/scratch/certificate.pem"]
  ports: [{port: 8443, name: https}]
- name: counter
  namespace: shop
  command: [/usr/bin/python3, -u, "@FOLDER@/counting_server.py"]
  ports: [7777]
- name: database
  namespace: shop
  command:
  - sh
  - -c
  - >-
    mariadb-install-db --no-defaults --skip-test-db --datadir=@FOLDER@/scratch/db >&2 &&
    exec mariadbd --no-defaults --datadir=@FOLDER@/scratch/db --socket=@FOLDER@/scratch/db.sock
    --skip-grant-tables --skip-networking=0 --port=3306
  ports: [3306]
"#;

/// Bytes that no compression or default buffer holds in one piece.
fn large_file(mesh: &LocalMesh) -> Vec<u8> {
    let bytes: Vec<u8> =
        (0..5_000_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(mesh.path("scratch/large.bin"), &bytes).expect("a file");
    bytes
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn stock_programs_work_unchanged_and_know_who_calls() {
    // Only what is authenticated gets through, from the start.
    let strict = document("PeerAuthentication", "istio-system", "default", "mtls: {mode: STRICT}");
    let layout = layout().file("config/strict.yaml", &strict);
    let certificate = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            "/CN=x",
        ])
        .args(["-addext", "subjectAltName=DNS:secure.shop", "-keyout", "scratch/key.pem"])
        .args(["-out", "scratch/certificate.pem"])
        .current_dir(layout.path(""))
        .output()
        .expect("openssl runs");
    assert!(certificate.status.success(), "{certificate:?}");
    fs::set_permissions(layout.path("scratch/key.pem"), fs::Permissions::from_mode(0o644)).expect("a mode");
    let mesh = layout.up(&mesh_of(&[WEB, CACHE, SERVERS, CLIENTS]));
    let address = mesh.address("web");
    let answer = mesh.curl("outsider.out", &[&format!("http://{address}:8080/")]);
    assert_eq!(answer.status, 0, "{answer:?}");
    nginx_answers(&mesh);
    files_arrive_whole(&mesh);
    redis_stores(&mesh);
    grpc_calls_of_every_kind(&mesh);
    websockets_stay_open(&mesh);
    http2_with_trailers(&mesh);
    the_applications_own_tls_passes(&mesh);
    a_stream_ends_in_one_direction_first(&mesh);
    a_database_that_speaks_first(&mesh);
    every_server_was_called_by_the_client_over_mutual_tls(&mesh);
    a_denied_call_is_told_in_the_words_of_grpc(&mesh);
}

fn nginx_answers(mesh: &LocalMesh) {
    for name in ["web.shop", "web.shop.svc", "web.shop.svc.cluster.local"] {
        let url = format!("http://{name}:8080/a/b?c=d");
        let answer = mesh.curl("client.edge", &["-H", "x-forwarded-client-cert: URI=forged", &url]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let expected = format!("web|GET|/a/b?c=d|{name}:8080|");
        assert!(answer.body.starts_with(&expected), "{answer:?}");
        assert!(answer.body.ends_with(CLIENT) && !answer.body.contains("forged"), "{answer:?}");
    }
    let both = mesh.curl("client.edge", &["-XPUT", "-d", "x", "http://web.shop:8081/"]);
    assert!(both.status == 200 && both.body.starts_with("web|PUT|/|"), "{both:?}");
    let head = mesh.curl("client.edge", &["--head", "http://web.shop:8080/"]);
    assert_eq!(head.status, 200, "{head:?}");
    let address = mesh.address("web");
    let by_address = mesh.curl("client.edge", &[&format!("http://{address}:8080/")]);
    assert!(by_address.body.ends_with(CLIENT), "{by_address:?}");
}

fn files_arrive_whole(mesh: &LocalMesh) {
    let bytes = large_file(mesh);
    let target = mesh.path("scratch/received.bin");
    let target = target.to_str().expect("a path");
    for url in ["http://files.shop:8000/large.bin", "http://files.shop.svc.cluster.local:8000/large.bin"] {
        mesh.exec_must("client.edge", &["curl", "-sSf", "-o", target, url]);
        assert!(fs::read(target).expect("a file") == bytes, "{url} arrived otherwise");
        fs::remove_file(target).expect("a file");
    }
    let absent = mesh.curl("client.edge", &["http://files.shop:8000/absent"]);
    assert_eq!(absent.status, 404, "{absent:?}");
    let refused = mesh.curl("client.edge", &["-d", "x", "http://files.shop:8000/"]);
    assert_eq!(refused.status, 501, "{refused:?}");
}

fn redis_stores(mesh: &LocalMesh) {
    let redis =
        |words: &[&str]| mesh.exec_must("client.edge", &[&["redis-cli", "-h", "cache.shop"], words].concat());
    let large = "x".repeat(100_000);
    assert_eq!(redis(&["set", "key", &large]).trim(), "OK");
    assert_eq!(redis(&["get", "key"]).trim(), large);
    let script = "for i in $(seq 1000); do echo \"incr counter\"; done | redis-cli -h cache.shop | tail -1";
    assert_eq!(mesh.exec_must("client.edge", &["sh", "-c", script]).trim(), "1000");
}

fn grpc_calls_of_every_kind(mesh: &LocalMesh) {
    let client = mesh.path("grpc_client.py");
    let client = client.to_str().expect("a path");
    let said = mesh.exec_must("client.edge", &["/usr/bin/python3", client, "grpc.shop:50051"]);
    let mut lines = said.lines();
    let unary = lines.next().expect("a line");
    assert!(unary.starts_with("unary hello|") && unary.ends_with(&format!("{CLIENT} 5")), "{said}");
    let rest: Vec<&str> = lines.collect();
    let expected = [
        "failed NOT_FOUND no such thing",
        "absent UNIMPLEMENTED",
        "count 1000",
        "collect 1000000",
        "chat ['you said one', 'you said two'] 0",
    ];
    assert_eq!(rest, expected);
}

fn websockets_stay_open(mesh: &LocalMesh) {
    let client = mesh.path("websocket_client.py");
    let client = client.to_str().expect("a path");
    let said = mesh.exec_must("client.edge", &["/usr/bin/python3", client, "ws://chat.shop:8765/"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("caller By=") && lines[0].ends_with(CLIENT), "{said}");
    assert_eq!(lines[1..], ["text hello", "bytes 1000000"]);
}

fn http2_with_trailers(mesh: &LocalMesh) {
    let said = mesh.exec_must("client.edge", &["nghttp", "-v", "http://h2.shop:8082/large.bin"]);
    assert!(said.contains(":status: 200") && said.contains("x-end: reached"), "{said}");
    let size =
        ["-o", "/dev/null", "-w", "\n%{size_download} %{http_version}", "http://h2.shop:8082/large.bin"];
    let curl = ["curl", "-sS", "--http2-prior-knowledge"];
    let said = mesh.exec_must("client.edge", &[&curl[..], &size[..]].concat());
    assert_eq!(said.trim(), "5000000 2");
}

fn the_applications_own_tls_passes(mesh: &LocalMesh) {
    let certificate = mesh.path("scratch/certificate.pem");
    let certificate = certificate.to_str().expect("a path");
    let answer = mesh.curl("client.edge", &["--cacert", certificate, "https://secure.shop:8443/"]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn a_stream_ends_in_one_direction_first(mesh: &LocalMesh) {
    let client = mesh.path("counting_client.py");
    let client = client.to_str().expect("a path");
    for silence in ["0", "1.5"] {
        let said = mesh.exec_must(
            "client.edge",
            &["/usr/bin/python3", client, "counter.shop.svc.cluster.local", silence],
        );
        assert_eq!(said.trim(), "1000000 bytes");
    }
}

fn a_database_that_speaks_first(mesh: &LocalMesh) {
    let ask = |query: &str| {
        let words =
            ["mariadb", "--skip-ssl", "-h", "database.shop", "-P", "3306", "-u", "nobody", "-N", "-e", query];
        mesh.exec("client.edge", &words)
    };
    // Making the files of a database takes seconds.
    eventually("the database answers", || {
        let answer = ask("select 6 * 7");
        if answer.out.trim() == "42" { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let answer = ask("select repeat('x', 3000000)");
    assert_eq!(answer.out.trim().len(), 3_000_000, "{}", answer.err);
}

fn every_server_was_called_by_the_client_over_mutual_tls(mesh: &LocalMesh) {
    for server in ["web", "files", "cache", "grpc", "chat", "h2", "secure", "counter", "database"] {
        let id = format!("{server}.shop");
        let records = eventually("the connections are on record", || {
            let records = mesh.access_log(&id);
            let inbound: Vec<_> =
                records.into_iter().filter(|record| record["direction"] == "inbound").collect();
            let by_client = |record: &&serde_json::Value| record["decision"] == "allow";
            let allowed: Vec<_> = inbound.iter().filter(by_client).cloned().collect();
            if allowed.is_empty() { Err(format!("{id}: {inbound:?}")) } else { Ok(allowed) }
        });
        for record in records {
            assert_eq!(record["source_principal"], "spiffe://cluster.local/ns/edge/sa/client", "{record}");
            assert_eq!(record["connection_security_policy"], "mutual_tls", "{record}");
        }
    }
}

fn a_denied_call_is_told_in_the_words_of_grpc(mesh: &LocalMesh) {
    let spec = "selector: {matchLabels: {app: grpc}}\naction: DENY\nrules: [{to: [{operation: {paths: [/test.Echo/Unary]}}]}]";
    mesh.configure("grpc.yaml", &document("AuthorizationPolicy", "shop", "grpc", spec));
    let client = mesh.path("grpc_client.py");
    let client = client.to_str().expect("a path");
    eventually("the call is denied", || {
        let answer = mesh.exec("client.edge", &["/usr/bin/python3", client, "grpc.shop:50051"]);
        let is_told = answer.err.contains("StatusCode.PERMISSION_DENIED")
            && answer.err.contains("details = \"RBAC: access denied\"");
        if is_told { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}
