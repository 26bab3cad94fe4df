//! HTTP/2 and gRPC through both proxies.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::*;

/// What the application of a test has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    connections: Cell<u32>,
    pub(super) requests: Cell<u32>,
    /// Body bytes that it has taken.
    taken: Cell<u64>,
    /// How the last stream was reset on it.
    reset: Cell<Option<Reason>>,
}

/// An application that does what the path says.
pub(super) fn application(seen: &Rc<Seen>) -> impl FnOnce(TcpListener) -> Scripted + 'static {
    let seen = Rc::clone(seen);
    move |listener| {
        Box::pin(async move {
            while let Ok((stream, _)) = listener.accept().await {
                seen.connections.set(seen.connections.get() + 1);
                let seen = Rc::clone(&seen);
                tokio::task::spawn_local(async move {
                    let mut connection = h2::server::handshake(stream).await.expect("preface");
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        seen.requests.set(seen.requests.get() + 1);
                        if request.uri().path() == "/goodbye" {
                            connection.graceful_shutdown();
                        }
                        tokio::task::spawn_local(answer(Rc::clone(&seen), request, respond));
                    }
                });
            }
        })
    }
}

async fn answer(seen: Rc<Seen>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let path = request.uri().path().to_owned();
    let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let cookies = request.headers().get_all("cookie").iter().count();
    let te = request.headers().contains_key("te");
    let mut body = request.into_body();
    let head = || {
        Response::builder()
            .header("x-authority", &authority)
            .header("x-cookies", cookies)
            .header("x-te", te.to_string())
    };
    match path.as_str() {
        "/echo" => {
            let mut sending = respond.send_response(head().body(()).expect("head"), false).expect("sent");
            while let Some(data) = body.data().await {
                let Ok(data) = data else {
                    return seen.reset.set(data.err().and_then(|error| error.reason()));
                };
                body.flow_control().release_capacity(data.len()).expect("released");
                // An end without data arrives as data of no length, which is nothing to send on.
                if !data.is_empty() {
                    sending.send_data(data, false).expect("sent");
                }
            }
            let mut trailers = body.trailers().await.expect("end").unwrap_or_default();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            sending.send_trailers(trailers).expect("sent");
        }
        "/whole" => {
            let mut sending = respond.send_response(head().body(()).expect("head"), false).expect("sent");
            sending.send_data(Bytes::from_static(b"done"), true).expect("sent");
        }
        "/cut" => {
            let mut sending = respond.send_response(head().body(()).expect("head"), false).expect("sent");
            sending.send_data(Bytes::from_static(b"half"), false).expect("sent");
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.send_reset(Reason::CANCEL);
        }
        "/refuse-once" if seen.requests.get() == 1 => respond.send_reset(Reason::REFUSED_STREAM),
        "/break" => respond.send_reset(Reason::INTERNAL_ERROR),
        "/swallow" => {
            let mut sending = respond.send_response(head().body(()).expect("head"), false).expect("sent");
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).expect("released");
                seen.taken.set(seen.taken.get() + data.len() as u64);
            }
            sending.send_data(Bytes::from(seen.taken.get().to_string()), true).expect("sent");
        }
        "/download" => {
            let sending = respond.send_response(head().body(()).expect("head"), false).expect("sent");
            send_all(sending, 8 * 1024 * 1024, &seen.taken).await;
        }
        // Takes nothing and says nothing until it is reset.
        "/still" => {
            let reset = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            seen.reset.set(reset.ok());
        }
        _ => {
            let response = head().header("content-length", 2).body(()).expect("head");
            let mut sending = respond.send_response(response, false).expect("sent");
            sending.send_data(Bytes::from_static(b"ok"), true).expect("sent");
        }
    }
}

/// Sends that many bytes as the other side takes them; `sent` counts.
async fn send_all(mut sending: SendStream<Bytes>, length: u64, sent: &Cell<u64>) {
    let mut left = length;
    while left > 0 {
        sending.reserve_capacity(16 * 1024);
        let Some(Ok(room)) = std::future::poll_fn(|context| sending.poll_capacity(context)).await else {
            return;
        };
        let part = (room as u64).min(left);
        left -= part;
        let data = vec![b'd'; usize::try_from(part).expect("small")];
        if sending.send_data(Bytes::from(data), left == 0).is_err() {
            return;
        }
        sent.set(sent.get() + part);
    }
}

/// An HTTP/2 connection from the client's application to its proxy.
pub(super) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("connected");
    // Room for several streams that stand still.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1024 * 1024);
    let (client, connection) = builder.handshake(stream).await.expect("handshake");
    tokio::task::spawn_local(async move {
        let _end = connection.await;
    });
    client
}

fn grpc(path: &str) -> Request<()> {
    Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request")
}

async fn open(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    is_whole: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    client.clone().ready().await.expect("ready").send_request(request, is_whole).expect("sent")
}

/// A request without a body and its whole answer.
async fn whole(
    client: &SendRequest<Bytes>,
    request: Request<()>,
) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let (response, _) = open(client, request, true).await;
    finish(response.await.expect("a response")).await
}

async fn finish(response: Response<RecvStream>) -> (Response<()>, Vec<u8>, Option<HeaderMap>) {
    let (parts, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("data");
        body.flow_control().release_capacity(data.len()).expect("released");
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await.expect("an end");
    (Response::from_parts(parts, ()), bytes, trailers)
}

fn run_http2<T>(mode: MtlsMode, test: impl FnOnce(Mesh, Rc<Seen>) -> T + 'static)
where
    T: Future<Output = ()> + 'static,
{
    let seen = Rc::new(Seen::default());
    let application = application(&seen);
    run_test(Protocol::Grpc, mode, application, move |mesh| test(mesh, seen));
}

fn allow(paths: &[&str]) -> Vec<Rule> {
    let mut rules = allow_get_of(paths, "client");
    for operation in rules.iter_mut().flat_map(|rule| &mut rule.to) {
        operation.methods.clear();
    }
    rules
}

#[test]
fn a_unary_call_passes_with_its_trailers() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        for _ in 0..3 {
            let (response, mut sending) = open(&client, grpc("/echo"), false).await;
            sending.send_data(Bytes::from_static(b"hello"), true).expect("sent");
            let (response, body, trailers) = finish(response.await.expect("a response")).await;
            assert_eq!((response.status().as_u16(), body.as_slice()), (200, &b"hello"[..]));
            assert_eq!(trailers.expect("trailers").get("grpc-status").expect("a status"), "0");
            assert_eq!(response.headers()["x-authority"], "server");
            assert_eq!(response.headers()["x-te"], "true");
        }
        assert_eq!((seen.connections.get(), seen.requests.get()), (1, 3));
    });
}

#[test]
fn both_directions_stream_at_the_same_time() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let (response, mut sending) = open(&client, grpc("/echo"), false).await;
        let mut body = response.await.expect("a response before the request's end").into_body();
        for number in 0..50 {
            let message = Bytes::from(number.to_string());
            sending.send_data(message.clone(), false).expect("sent");
            let echo = body.data().await.expect("open").expect("data");
            body.flow_control().release_capacity(echo.len()).expect("released");
            assert_eq!(echo, message);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        sending.send_trailers(trailers).expect("sent");
        assert!(body.data().await.is_none());
        let trailers = body.trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers["x-sum"], "7");
        assert_eq!(trailers["grpc-status"], "0");
    });
}

#[test]
fn large_bodies_arrive_whole_in_both_directions() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let (response, sending) = open(&client, grpc("/swallow"), false).await;
        send_all(sending, 8 * 1024 * 1024, &Cell::new(0)).await;
        assert_eq!(finish(response.await.expect("a response")).await.1, b"8388608");
        let (_, body, _) = whole(&client, grpc("/download")).await;
        assert_eq!(body.len(), 8 * 1024 * 1024);
    });
}

#[test]
fn a_reader_that_stands_still_stops_its_writer_and_nobody_else() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        let (response, _) = open(&client, grpc("/download"), true).await;
        let mut body = response.await.expect("a response").into_body();
        let first = body.data().await.expect("open").expect("data");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let sent = seen.taken.get();
        assert!(sent < 1024 * 1024, "{sent} bytes are under way to a reader that takes none");
        assert_eq!(whole(&client, grpc("/other")).await.1, b"ok");
        body.flow_control().release_capacity(first.len()).expect("released");
        let mut length = first.len();
        while let Some(data) = body.data().await {
            let data = data.expect("data");
            body.flow_control().release_capacity(data.len()).expect("released");
            length += data.len();
        }
        assert_eq!(length, 8 * 1024 * 1024);
    });
}

#[test]
fn a_writer_is_held_back_by_an_application_that_takes_nothing() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        let (response, sending) = open(&client, grpc("/still"), false).await;
        let sent = Rc::new(Cell::new(0));
        let counted = Rc::clone(&sent);
        let writing =
            tokio::task::spawn_local(async move { send_all(sending, 8 * 1024 * 1024, &counted).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(sent.get() < 1024 * 1024, "{} bytes are under way", sent.get());
        writing.abort();
        assert!(writing.await.is_err());
        drop(response);
        while seen.reset.get().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(seen.reset.get(), Some(Reason::CANCEL), "the end of the writer reaches the application");
    });
}

#[test]
fn what_the_client_takes_back_is_taken_back_from_the_application() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        let (_response, mut sending) = open(&client, grpc("/still"), false).await;
        while seen.requests.get() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sending.send_reset(Reason::CANCEL);
        while seen.reset.get().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(seen.reset.get(), Some(Reason::CANCEL));
    });
}

#[test]
fn a_response_that_the_application_cuts_is_cut_for_the_client() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let (response, _) = open(&client, grpc("/cut"), true).await;
        let mut body = response.await.expect("a response").into_body();
        assert_eq!(body.data().await.expect("open").expect("data"), "half");
        let error = body.data().await.expect("an error").expect_err("cut");
        assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::CANCEL)));
        assert_eq!(whole(&client, grpc("/other")).await.1, b"ok");
    });
}

#[test]
fn an_application_that_resets_before_it_answers_is_unavailable() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let (response, body, _) = whole(&client, grpc("/break")).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["grpc-status"]),
            (200, &HeaderValue::from(14))
        );
        assert!(body.is_empty());
        let plain = Request::get("http://server/break").body(()).expect("a request");
        assert_eq!(whole(&client, plain).await.0.status().as_u16(), 503);
    });
}

#[test]
fn a_refused_stream_is_sent_again_whatever_the_method() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        let (response, mut sending) = open(&client, grpc("/refuse-once"), false).await;
        sending.send_data(Bytes::from_static(b"hello"), true).expect("sent");
        assert_eq!(finish(response.await.expect("a response")).await.1, b"ok");
        assert_eq!(seen.requests.get(), 2);
    });
}

#[test]
fn an_application_that_says_goodbye_gets_the_next_request_on_another_connection() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        for _ in 0..5 {
            assert_eq!(whole(&client, grpc("/goodbye")).await.1, b"ok");
        }
        assert!(seen.connections.get() >= 2, "{seen:?}");
    });
}

/// Long enough that many of them at a time are no flood of tiny frames to the application's `h2`.
const MESSAGE: [u8; 300] = [b'm'; 300];

#[test]
fn many_streams_at_a_time_share_few_connections() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let clients = [connect(mesh.outbound).await, connect(mesh.outbound).await];
        let mut calls = Vec::new();
        for number in 0..300 {
            let (response, mut sending) = open(&clients[number % 2], grpc("/echo"), false).await;
            sending.send_data(Bytes::from_static(&MESSAGE), false).expect("sent");
            calls.push((response, sending));
        }
        let mut open = Vec::new();
        for (response, sending) in calls {
            let response = response.await.expect("a response");
            assert_eq!(response.status().as_u16(), 200, "{response:?}");
            assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
            open.push((response, sending));
        }
        for (response, mut sending) in open {
            sending.send_data(Bytes::new(), true).expect("sent");
            assert_eq!(finish(response).await.1, MESSAGE);
        }
        assert!((2..=4).contains(&seen.connections.get()), "{seen:?}");
    });
}

#[test]
fn a_denied_call_gets_istios_answer_in_its_own_form() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        mesh.publish_server(Some(allow(&["/ok"])), 2);
        let client = connect(mesh.outbound).await;
        let (response, body, _) = whole(&client, grpc("/shop.Catalog/List")).await;
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "RBAC: access denied");
        assert!(body.is_empty());
        let plain = Request::get("http://server/no").body(()).expect("a request");
        let (response, body, _) = whole(&client, plain).await;
        assert_eq!((response.status().as_u16(), body.as_slice()), (403, &b"RBAC: access denied"[..]));
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
        assert_eq!(seen.requests.get(), 1, "what is denied reaches nothing");
        assert_eq!(mesh.denials.list().len(), 2);
    });
}

#[test]
fn a_policy_change_cuts_an_open_call_and_leaves_the_others() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        mesh.publish_server(Some(allow(&["/echo", "/still"])), 2);
        let client = connect(mesh.outbound).await;
        let (response, mut sending) = open(&client, grpc("/echo"), false).await;
        let mut echo = response.await.expect("a response").into_body();
        let (waiting, _waiting_body) = open(&client, grpc("/still"), false).await;
        sending.send_data(Bytes::from_static(b"1"), false).expect("sent");
        assert_eq!(echo.data().await.expect("open").expect("data"), "1");
        mesh.publish_server(Some(allow(&["/echo"])), 3);
        let refused = waiting.await.expect("an answer");
        assert_eq!(refused.headers()["grpc-status"], "7", "not answered yet: it is refused");
        sending.send_data(Bytes::from_static(b"2"), false).expect("sent");
        assert_eq!(echo.data().await.expect("open").expect("data"), "2");
        mesh.publish_server(Some(Vec::new()), 4);
        assert!(echo.data().await.is_none(), "answered in part: the call ends");
        let trailers = echo.trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers["grpc-status"], "7");
        assert_eq!(mesh.denials.list().len(), 2);
    });
}

#[test]
fn a_policy_change_resets_what_is_not_grpc() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let client = connect(mesh.outbound).await;
        let plain = Request::post("http://server/echo").body(()).expect("a request");
        let (response, _sending) = open(&client, plain, false).await;
        let mut body = response.await.expect("a response").into_body();
        mesh.publish_server(Some(Vec::new()), 2);
        let error = body.data().await.expect("an error").expect_err("cut");
        assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::CANCEL)));
        while seen.reset.get().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_port_that_turns_strict_ends_plaintext_connections() {
    run_http2(MtlsMode::Permissive, async |mut mesh, _| {
        let client = connect(mesh.inbound).await;
        assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
        let (waiting, _body) = open(&client, grpc("/still"), false).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        mesh.mode = MtlsMode::Strict;
        mesh.publish_server(None, 2);
        assert_eq!(waiting.await.expect("an answer").headers()["grpc-status"], "7");
        let ended = async {
            loop {
                match client.clone().ready().await {
                    Err(_) => return,
                    Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), ended).await.expect("no further stream is served");
    });
}

#[test]
fn draining_lets_open_calls_finish_and_takes_no_more() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let (response, mut sending) = open(&client, grpc("/echo"), false).await;
        let mut body = response.await.expect("a response").into_body();
        mesh.drain.begin();
        let refused = async {
            while client.clone().ready().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
        };
        tokio::time::timeout(Duration::from_secs(2), refused).await.expect("told to go");
        sending.send_data(Bytes::from_static(b"last"), true).expect("sent");
        assert_eq!(body.data().await.expect("open").expect("data"), "last");
        drop((body, sending, client));
        for worker in mesh.workers {
            worker.await.expect("joined").expect("ended well");
        }
    });
}

#[test]
fn host_is_no_second_opinion_and_cookie_crumbs_are_kept() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let client = connect(mesh.outbound).await;
        let request = Request::get("http://server/ok")
            .header("host", "elsewhere")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .expect("a request");
        let (response, _, _) = whole(&client, request).await;
        assert_eq!(response.headers()["x-authority"], "server");
        assert_eq!(response.headers()["x-cookies"], "2");
        let connect = Request::connect("server:80").body(()).expect("a request");
        assert_eq!(whole(&client, connect).await.0.status().as_u16(), 405);
    });
}

#[test]
fn a_route_that_allows_less_time_ends_the_call() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        mesh.publish_route(Some(100), None);
        let client = connect(mesh.outbound).await;
        assert_eq!(whole(&client, grpc("/still")).await.0.headers()["grpc-status"], "4");
        let plain = Request::get("http://server/still").body(()).expect("a request");
        assert_eq!(whole(&client, plain).await.0.status().as_u16(), 504);
    });
}

#[test]
fn an_application_that_is_gone_is_unavailable() {
    async fn gone(listener: TcpListener) {
        drop(listener);
    }
    run_test(Protocol::Grpc, MtlsMode::Strict, gone, async |mesh| {
        let client = connect(mesh.outbound).await;
        let (response, ..) = whole(&client, grpc("/ok")).await;
        assert_eq!(response.headers()["grpc-status"], "14");
    });
}

/// Everything until the end of a connection to which `frames` were sent after the preface.
async fn attacked(address: SocketAddr, frames: &[u8], times: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let (mut read, mut write) = stream.split();
    let writing = async {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut ended =
            write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.and(write.write_all(&settings).await);
        for _ in 0..times {
            if ended.is_ok() {
                ended = write.write_all(frames).await;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut answer = Vec::new();
    let reading = async {
        // However it ends: what had come by then counts.
        while matches!(read.read_buf(&mut answer).await, Ok(length) if length > 0) {}
    };
    let ended = async {
        tokio::select! { () = reading => {}, () = writing => {} }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the connection is closed on the peer");
    answer
}

/// Frame types in what a connection said, with the error code of a GOAWAY.
fn goaway_code(mut bytes: &[u8]) -> Option<u32> {
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at_checked(length)?;
        if head[3] == 7 {
            return payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes")));
        }
        bytes = rest;
    }
    None
}

#[test]
fn floods_end_their_connection_and_nothing_else() {
    let ping: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let priority: &[u8] = &[0, 0, 5, 2, 0, 0, 0, 0, 1, 0, 0, 0, 3, 1];
    run_http2(MtlsMode::Strict, async move |mesh, _| {
        let client = connect(mesh.outbound).await;
        assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
        for flood in [ping, settings, priority] {
            let answer = attacked(mesh.outbound, flood, 5000).await;
            if let Some(code) = goaway_code(&answer) {
                assert_eq!(code, 0xb, "ENHANCE_YOUR_CALM");
            }
            assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
        }
    });
}

#[test]
fn continuations_without_end_are_refused() {
    run_http2(MtlsMode::Strict, async |mesh, _| {
        let mut stream = TcpStream::connect(mesh.outbound).await.expect("connected");
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]);
        for _ in 0..20_000 {
            bytes.extend([0, 0, 1, 9, 0, 0, 0, 0, 1, 0x84]);
        }
        let (mut read, mut write) = stream.split();
        let mut answer = Vec::new();
        let reading = async { while matches!(read.read_buf(&mut answer).await, Ok(length) if length > 0) {} };
        let writing = async {
            let _either_way = write.write_all(&bytes).await;
        };
        let both = async { tokio::join!(reading, writing) };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("the connection is closed on the peer");
        let code = goaway_code(&answer);
        assert!(matches!(code, None | Some(0xb | 1)), "{code:?}");
        let client = connect(mesh.outbound).await;
        assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
    });
}

#[test]
fn requests_that_are_taken_back_at_once_end_the_connection() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let mut stream = TcpStream::connect(mesh.outbound).await.expect("connected");
        let (mut read, mut write) = stream.split();
        let writing = async {
            let mut ended = write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
            for number in 0..20_000_u32 {
                let [a, b, c, d] = (2 * number + 1).to_be_bytes();
                // GET http://x/ with END_STREAM and END_HEADERS, and its RST_STREAM.
                let mut frames = vec![0, 0, 6, 1, 5, a, b, c, d, 0x82, 0x86, 0x84, 0x41, 1, b'x'];
                frames.extend([0, 0, 4, 3, 0, a, b, c, d, 0, 0, 0, 8]);
                if ended.is_ok() {
                    ended = write.write_all(&frames).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let mut answer = Vec::new();
        let reading = async { while matches!(read.read_buf(&mut answer).await, Ok(length) if length > 0) {} };
        let ended = async {
            tokio::select! { () = reading => {}, () = writing => {} }
        };
        tokio::time::timeout(Duration::from_secs(20), ended)
            .await
            .expect("the connection is closed on the peer");
        assert!(seen.requests.get() < 2000, "{seen:?}");
        let client = connect(mesh.outbound).await;
        assert_eq!(whole(&client, grpc("/ok")).await.1, b"ok");
    });
}

/// Opens streams, waits until the application has them, and takes them back, `rounds` times.
async fn take_back(address: SocketAddr, seen: &Seen, rounds: u32) {
    const AT_A_TIME: u32 = 50;
    let client = connect(address).await;
    for _ in 0..rounds {
        let before = seen.requests.get();
        let mut streams = Vec::new();
        for _ in 0..AT_A_TIME {
            streams.push(open(&client, grpc("/still"), false).await);
        }
        while seen.requests.get() < before + AT_A_TIME {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for (_, sending) in &mut streams {
            sending.send_reset(Reason::CANCEL);
        }
    }
}

#[test]
fn callers_that_take_back_what_they_ask_do_not_cost_others_their_connection() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let innocent = connect(mesh.outbound).await;
        let (response, mut sending) = open(&innocent, grpc("/echo"), false).await;
        let mut body = response.await.expect("a response").into_body();
        // Each stays below what closes its own connection; together they are above it.
        for _ in 0..3 {
            take_back(mesh.outbound, &seen, 8).await;
        }
        assert!(seen.requests.get() > 1200, "{seen:?}");
        sending.send_data(Bytes::from_static(b"still here"), true).expect("sent");
        let echo = body.data().await.expect("open").expect("not cut");
        assert_eq!(echo, "still here");
        assert_eq!(whole(&innocent, grpc("/ok")).await.1, b"ok");
    });
}

#[test]
fn a_call_that_an_application_that_is_gone_has_not_seen_is_made_to_another() {
    run_http2(MtlsMode::Strict, async |mesh, seen| {
        let dead = restarts::dead_server(&mesh).await;
        restarts::publish_endpoints(&mesh, &[dead, mesh.inbound]);
        let client = connect(mesh.outbound).await;
        for number in 1..=10 {
            let (response, body, _) = whole(&client, grpc("/whole")).await;
            assert_eq!((response.status(), &body[..]), (http::StatusCode::OK, &b"done"[..]), "{number}");
            assert!(!response.headers().contains_key("x-mesh-unprocessed"));
            assert_eq!(seen.requests.get(), number, "each is made once");
        }
    });
}

/// An application that knows HTTP/1.1 alone: answers with what it got, and anything else with 505.
fn old_fashioned(listener: TcpListener) -> Scripted {
    Box::pin(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut buffer = Vec::new();
                loop {
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let text = String::from_utf8_lossy(&buffer).into_owned();
                    if !text.starts_with("PRI") && !text.ends_with("\r\n\r\n") && !text.ends_with("body") {
                        continue;
                    }
                    buffer.clear();
                    let (status, end) =
                        if text.starts_with("PRI") { ("505 No", true) } else { ("200 OK", false) };
                    let head = format!(
                        "HTTP/1.1 {status}\r\nKeep-Alive: 5\r\nContent-Length: {}\r\n\r\n",
                        text.len()
                    );
                    stream.write_all((head + &text).as_bytes()).await.expect("written");
                    if end {
                        return;
                    }
                }
            });
        }
    })
}

#[test]
fn an_application_that_knows_no_http2_is_spoken_to_in_its_own_protocol() {
    run_test(Protocol::Http, MtlsMode::Strict, old_fashioned, async |mesh| {
        let client = connect(mesh.outbound).await;
        for _ in 0..3 {
            let request = Request::get("http://server:81/ok?x=1")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(())
                .expect("a request");
            let (response, body, _) = whole(&client, request).await;
            let text = String::from_utf8(body).expect("text");
            assert_eq!(response.status(), 200, "{text}");
            assert!(text.starts_with("GET /ok?x=1 HTTP/1.1\r\n"), "{text}");
            for line in ["host: server:81", "cookie: a=1; b=2", "x-forwarded-proto: http"] {
                assert_eq!(text.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {text}");
            }
            assert!(!response.headers().contains_key("keep-alive"));
        }
        let post = Request::post("http://server/").header("content-length", "4").body(()).expect("a request");
        let (response, mut sending) = open(&client, post, false).await;
        sending.send_data(Bytes::from_static(b"body"), true).expect("sent");
        let response = response.await.expect("a response");
        assert_eq!(response.status(), 200);
    });
}
