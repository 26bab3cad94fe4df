use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn table(entries: &[(&str, String)]) -> AppProbeTable {
    let text: Vec<_> = entries.iter().map(|(path, probe)| format!("{path:?}:{probe}")).collect();
    AppProbeTable::parse(&format!("{{{}}}", text.join(","))).expect("a table")
}

fn get(port: u16, more: &str) -> AppProbeTable {
    table(&[("/app-health/web/readyz", format!(r#"{{"httpGet":{{"port":{port}{more}}}}}"#))])
}

async fn ask(table: &AppProbeTable) -> Answered {
    let mut asker = HeaderMap::new();
    asker.insert(USER_AGENT, HeaderValue::from_static("kube-probe/1.34"));
    let (_, probe) = table.probes.first_key_value().expect("one");
    probe.ask(HERE, &asker).await
}

/// An application that gives each of `answers` to one connection, and tells the requests that it got.
fn application(answers: Vec<String>) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind((HERE, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let (sender, requests) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("accepted");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("read");
                request.extend_from_slice(&byte);
            }
            stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).expect("written");
            sender.send(String::from_utf8(request).expect("text")).expect("wanted");
        }
    });
    (port, requests)
}

fn answer(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")
}

#[test]
fn a_table_that_cannot_be_used_says_which_part() {
    let error = |text: &str| AppProbeTable::parse(text).expect_err(text);
    assert!(matches!(error("[]"), AppProbesError::Malformed { .. }));
    assert!(matches!(error(r#"{"/app-health/a/livez":{"exec":{}}}"#), AppProbesError::Malformed { .. }));
    assert!(matches!(error(r#"{"/healthz/ready":{"tcpSocket":{"port":1}}}"#), AppProbesError::Path { .. }));
    let path = r#"{"/app-health/a/livez":{"httpGet":{"port":1,"path":"/a b"}}}"#;
    assert!(matches!(error(path), AppProbesError::Target { .. }));
    let header =
        r#"{"/app-health/a/livez":{"httpGet":{"port":1,"httpHeaders":[{"name":"X","value":"a\nb"}]}}}"#;
    assert!(matches!(error(header), AppProbesError::Header { .. }));
    assert_eq!(AppProbeTable::parse(""), Ok(AppProbeTable::default()));
}

#[tokio::test]
async fn the_application_sees_the_request_that_the_kubelet_would_have_sent() {
    let (port, requests) = application(vec![answer("204 No Content"), answer("503 Busy")]);
    let headers = r#","path":"/ready?deep=1","httpHeaders":[{"name":"Host","value":"shop.example"},{"name":"X-Key","value":"v"}]"#;
    assert_eq!(ask(&get(port, headers)).await, Answered::Status(StatusCode::NO_CONTENT));
    let request = requests.recv().expect("a request");
    assert!(request.starts_with("GET /ready?deep=1 HTTP/1.1\r\n"), "{request}");
    for line in
        ["host: shop.example", "x-key: v", "user-agent: kube-probe/1.34", "accept: */*", "connection: close"]
    {
        assert_eq!(request.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {request}");
    }
    assert_eq!(ask(&get(port, "")).await, Answered::Status(StatusCode::SERVICE_UNAVAILABLE));
    let request = requests.recv().expect("a request");
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{request}");
}

#[tokio::test]
async fn redirects_are_followed_at_the_same_host_and_are_an_answer_elsewhere() {
    let moved = |to: &str| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    let (port, requests) =
        application(vec![moved("/a"), moved("http://127.0.0.1:PORT/b"), answer("500 Broken")]);
    assert_eq!(ask(&get(port, "")).await, Answered::Status(StatusCode::INTERNAL_SERVER_ERROR));
    assert!(requests.iter().take(3).any(|request| request.starts_with("GET /b ")));
    let (port, _requests) = application(vec![moved("https://login.example/")]);
    assert_eq!(ask(&get(port, "")).await, Answered::Status(StatusCode::FOUND));
    let (port, _requests) = application(vec![moved("/again"); 11]);
    assert!(matches!(ask(&get(port, "")).await, Answered::Failed(_)));
}

#[tokio::test]
async fn certificates_are_not_looked_at() {
    let key = rcgen::generate_simple_self_signed(vec!["somebody.else".to_owned()]).expect("a certificate");
    let private = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private.into())
        .expect("a configuration");
    let listener = tokio::net::TcpListener::bind((HERE, 0)).await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let serve = async {
        let (tcp, _) = listener.accept().await.expect("accepted");
        let mut tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.expect("a handshake");
        let mut request = [0; 1024];
        let _length = tls.read(&mut request).await.expect("read");
        tls.write_all(b"HTTP/1.1 200 OK\r\n\r\nwell").await.expect("written");
        tls.shutdown().await.expect("ended");
    };
    let probe = get(port, r#","scheme":"HTTPS""#);
    let (answered, ()) = tokio::join!(ask(&probe), serve);
    assert_eq!(answered, Answered::Status(StatusCode::OK));
}

#[tokio::test]
async fn a_port_that_takes_connections_is_well_and_a_closed_one_is_not() {
    let listener = TcpListener::bind((HERE, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let probe = table(&[("/app-health/db/livez", format!(r#"{{"tcpSocket":{{"port":{port}}}}}"#))]);
    assert_eq!(ask(&probe).await, Answered::Status(StatusCode::OK));
    drop(listener);
    assert!(matches!(ask(&probe).await, Answered::Failed(reason) if reason.contains("refused")));
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_failure_in_the_time_that_the_probe_allows() {
    let listener = TcpListener::bind((HERE, 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let text = format!(r#"{{"httpGet":{{"port":{port}}},"timeoutSeconds":7}}"#);
    let begin = tokio::time::Instant::now();
    assert!(matches!(ask(&table(&[("/app-health/a/livez", text)])).await, Answered::Failed(_)));
    assert_eq!(begin.elapsed().as_secs(), 7);
}

/// A health service that says `status` and ends the call with `code`.
async fn health(listener: tokio::net::TcpListener, status: u8, code: &'static str) {
    let (tcp, _) = listener.accept().await.expect("accepted");
    let mut connection = h2::server::handshake(tcp).await.expect("a handshake");
    let (request, mut respond) = connection.accept().await.expect("a request").expect("whole");
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    let answer = async {
        let mut body = request.into_body();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            bytes.extend_from_slice(&piece.expect("data"));
        }
        let head =
            ::http::Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
        let mut stream = respond.send_response(head, false).expect("sent");
        stream.send_data(vec![0, 0, 0, 0, 2, 8, status].into(), false).expect("sent");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        stream.send_trailers(trailers).expect("sent");
        // After the head of the frame: the field, its length, the name.
        assert_eq!(bytes.get(7..), Some(&b"shop"[..]));
    };
    let ((), ()) = tokio::join!(answer, async { while connection.accept().await.is_some() {} });
}

#[tokio::test]
async fn a_grpc_service_is_well_when_it_says_serving_and_only_then() {
    for (status, code, is_well) in [(1, "0", true), (2, "0", false), (0, "0", false), (1, "12", false)] {
        let listener = tokio::net::TcpListener::bind((HERE, 0)).await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let probe = format!(r#"{{"grpc":{{"port":{port},"service":"shop"}}}}"#);
        let probe = table(&[("/app-health/g/livez", probe)]);
        let (answered, ()) = tokio::join!(ask(&probe), health(listener, status, code));
        assert_eq!(answered == Answered::Status(StatusCode::OK), is_well, "{status} {code}: {answered:?}");
    }
}

#[test]
fn handlers_of_a_containers_life_may_take_their_time() {
    let table =
        table(&[("/app-lifecycle/web/prestop", r#"{"httpGet":{"port":1},"timeoutSeconds":1}"#.to_owned())]);
    assert_eq!(table.limit(), LIFECYCLE_TIMEOUT);
    assert_eq!(table.find("/app-lifecycle/web/prestop").map(Prepared::purpose), Some(Purpose::Lifecycle));
    assert_eq!(table.find("/app-lifecycle/web/poststart"), None);
}
