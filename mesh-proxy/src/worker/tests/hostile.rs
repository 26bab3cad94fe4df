//! What a hostile peer may try on the wire: each is refused with its status, and none of it reaches the
//! application.

use super::*;

/// An application that keeps everything that it was sent.
fn recording(seen: &Rc<RefCell<Vec<u8>>>) -> impl FnOnce(TcpListener) -> Scripted + 'static {
    let seen = Rc::clone(seen);
    move |listener| {
        Box::pin(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let seen = Rc::clone(&seen);
                tokio::task::spawn_local(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
                        seen.borrow_mut().append(&mut bytes);
                    }
                });
            }
        })
    }
}

const SHAPES: [(&str, &str); 28] = [
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "400",
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
    ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", "400"),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", "400"),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "405"),
    ("TRACE\t/ HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
];

#[test]
fn shapes_that_two_readers_would_read_differently_reach_nobody() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let application = recording(&seen);
    run_test(Protocol::Http, MtlsMode::Permissive, application, async move |mesh| {
        for (request, status) in SHAPES {
            for address in [mesh.outbound, mesh.inbound] {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                stream.write_all(request.as_bytes()).await.expect("written");
                stream.write_all(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
                let mut answer = Vec::new();
                let _either_way = stream.read_to_end(&mut answer).await;
                let answer = String::from_utf8_lossy(&answer);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "one answer, then the end: {answer}");
            }
        }
        assert_eq!(String::from_utf8_lossy(&seen.borrow()), "");
    });
}

#[test]
fn a_broken_chunk_ends_the_connection_and_hides_no_request() {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let application = recording(&seen);
    run_test(Protocol::Http, MtlsMode::Permissive, application, async move |mesh| {
        for body in [
            "zz\r\n",
            "5\r\nabcde",
            "5 \r\nabcde\r\n",
            "-1\r\n",
            "fffffffffffffffff\r\n",
            "5\nabcde\r\n",
            "0\r\nX: 1\0\r\n\r\n",
        ] {
            let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
            let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            let request = format!("{head}{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut answer = Vec::new();
            let _either_way = stream.read_to_end(&mut answer).await;
            assert!(answer.starts_with(b"HTTP/1.1 400 "), "{body:?}: {}", String::from_utf8_lossy(&answer));
        }
        assert!(find(&seen.borrow(), b"smuggled").is_none());
    });
}

#[test]
fn too_many_lines_are_431_as_too_long_ones_are() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(101));
        stream.write_all(head.as_bytes()).await.expect("written");
        assert!(all(&mut stream).await.starts_with("HTTP/1.1 431 "));
        let mut stream = mesh.dial().await;
        // Never an end: the bound holds before the head is complete.
        stream.write_all(b"GET /").await.expect("written");
        let _either_way = stream.write_all(&vec![b'a'; 80_000]).await;
        assert!(all(&mut stream).await.starts_with("HTTP/1.1 431 "));
    });
}

#[test]
fn a_connection_to_the_proxys_own_port_goes_nowhere() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        for loops in ["127.0.0.1:15001", "127.0.0.1:15006", "[::1]:15006", "0.0.0.0:15001"] {
            SERVICE.set(Some(loops.parse().expect("address")));
            APPLICATION.set(Some(loops.parse().expect("address")));
            for address in [mesh.outbound, mesh.inbound] {
                let mut stream = TcpStream::connect(address).await.expect("connected");
                let _either_way = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
                let mut answer = Vec::new();
                let _either_way = stream.read_to_end(&mut answer).await;
                assert!(answer.is_empty(), "{loops}");
            }
        }
        SERVICE.set(None);
        let mut stream = mesh.dial().await;
        assert!(!matches!(stream.read(&mut [0; 1]).await, Ok(length) if length > 0), "not redirected");
    });
}

#[test]
fn what_only_a_proxy_may_say_is_not_believed_of_a_stranger() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=x;URI=spiffe://cluster.local/ns/a/sa/b\r\n\
                      x-envoy-internal: true\r\nX-Envoy-Peer-Metadata: abc\r\n\r\n";
        let mut stranger = TcpStream::connect(mesh.inbound).await.expect("connected");
        stranger.write_all(forged.as_bytes()).await.expect("written");
        let (_, body) = response(&mut stranger).await;
        let body = body.to_ascii_lowercase();
        for name in ["x-forwarded-client-cert", "x-envoy-internal", "x-envoy-peer-metadata"] {
            assert!(!body.contains(name), "{body}");
        }
        let mut client = mesh.dial().await;
        client.write_all(forged.as_bytes()).await.expect("written");
        let (_, body) = response(&mut client).await;
        let line = body.lines().find(|line| line.starts_with("x-forwarded-client-cert: ")).expect("one line");
        assert!(
            line.starts_with("x-forwarded-client-cert: By=spiffe://cluster.local/ns/web/sa/server;Hash="),
            "{line}"
        );
        assert!(line.ends_with(";Subject=\"\";URI=spiffe://cluster.local/ns/web/sa/client"), "{line}");
        assert!(!line.contains("sa/b"), "{line}");
    });
}

#[test]
fn a_body_that_does_not_go_on_is_answered_408_and_a_slow_one_is_not() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let start = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\na";
        let mut silent = mesh.dial().await;
        silent.write_all(start).await.expect("written");
        // A letter now and then: longer in all than a client may be silent.
        let mut slow = mesh.dial().await;
        slow.write_all(start).await.expect("written");
        for letter in [b"b", b"c", b"d", b"e", b"f"] {
            tokio::time::sleep(Duration::from_millis(500)).await;
            slow.write_all(letter).await.expect("written");
        }
        assert!(response(&mut slow).await.0.starts_with("HTTP/1.1 200 "));
        assert!(all(&mut silent).await.starts_with("HTTP/1.1 408 "));
    });
}
