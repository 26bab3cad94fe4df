use proptest::prelude::*;

use super::*;

fn request(text: &str) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    let mut scanner = HeadScanner::default();
    let end = scanner.scan(text.as_bytes())?.ok_or(HeadError::Malformed)?;
    head.parse(&text.as_bytes()[..end])?;
    Ok(head)
}

#[test]
fn an_ordinary_request_is_read() {
    let head =
        request("GET /a?b=c HTTP/1.1\r\nHost: shop:80\r\nAccept: */*\r\nX-A: 1\r\n\r\n").expect("valid");
    assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "/a?b=c"));
    assert_eq!(head.authority, "shop:80");
    assert!(head.is_keep_alive);
    assert_eq!(head.framing, Framing::Empty);
    assert_eq!(head.headers.len(), 2);
}

#[test]
fn smuggling_shapes_are_refused_with_their_status() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\u{1}b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:+80\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET http://a@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a\\@b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a\\x/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    ];
    for (text, status) in cases {
        match request(text) {
            Err(error) => assert_eq!(error.status(), status, "{text:?}: {error}"),
            Ok(head) => panic!("{text:?} was read as {head:?}"),
        }
    }
}

#[test]
fn bounds_are_answered_with_431() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(HEADERS_MAX));
    assert_eq!(request(&many).expect_err("too many").status(), 431);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
    assert_eq!(request(&large).expect_err("too large").status(), 431);
}

#[test]
fn the_authority_of_an_absolute_target_takes_the_place_of_host() {
    let head = request("GET http://real.shop:81/x HTTP/1.1\r\nHost: other\r\n\r\n").expect("valid");
    assert_eq!((head.authority.as_str(), head.target.as_str()), ("real.shop:81", "/x"));
    let mut out = Vec::new();
    head.write_to(&mut out, "/x", &head.authority);
    assert_eq!(out, b"GET /x HTTP/1.1\r\nHost: real.shop:81\r\n\r\n");
}

#[test]
fn lines_that_connection_names_are_dropped_but_never_those_that_matter() {
    let head = request(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, authorization\r\nX-Hop: 1\r\n\
         Authorization: b\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n",
    )
    .expect("valid");
    let names: Vec<_> = head.headers.iter().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(names, [b"Authorization".to_vec()]);
    assert!(!head.is_keep_alive);
}

#[test]
fn only_websocket_is_an_upgrade() {
    let ask = |protocol: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        request(&text).expect("valid").upgrade
    };
    assert_eq!(ask("websocket"), Some(Upgrade::WebSocket));
    assert_eq!(ask("h2c"), None);
    assert_eq!(ask("websocket, h2c"), None);
}

#[test]
fn http_1_0_closes_unless_asked() {
    assert!(!request("GET / HTTP/1.0\r\n\r\n").expect("valid").is_keep_alive);
    assert!(request("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").expect("valid").is_keep_alive);
}

#[test]
fn a_response_states_the_end_of_its_body() {
    let read = |text: &str| {
        let mut head = ResponseHead::default();
        head.parse(text.as_bytes()).map(|()| head)
    };
    let head = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").expect("valid");
    assert_eq!(head.framing_for("GET"), Framing::Length(3));
    assert_eq!(head.framing_for("HEAD"), Framing::Empty);
    let head = read("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n").expect("valid");
    assert_eq!(head.framing_for("GET"), Framing::Empty);
    assert!(head.headers.is_empty());
    assert_eq!(read("HTTP/1.0 200 OK\r\n\r\n").expect("valid").framing_for("GET"), Framing::UntilClose);
    assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
    assert!(read("HTTP/1.1 99 No\r\n\r\n").is_err());
}

#[test]
fn authorities_are_hosts_with_a_port() {
    for good in ["a", "a.b:80", "[::1]", "[fd77::1]:8080", "10.0.0.1:1", "a_b"] {
        assert!(is_authority(good), "{good}");
    }
    for bad in ["", ":80", "a:", "a:b", "a:99999", "[::1", "[x]", "[::1]x", "a b", "a@b", "a#b", "a?b"] {
        assert!(!is_authority(bad), "{bad}");
    }
}

fn scan_in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, HeadError> {
    let mut scanner = HeadScanner::default();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.push(bytes.len());
    cuts.sort_unstable();
    for cut in cuts {
        if let Some(end) = scanner.scan(&bytes[..cut])? {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn what_is_looked_at_in_one_go_is_found_as_byte_by_byte(
        bytes in prop::collection::vec(prop::sample::select(&b"abcdefgh:  \t\r\n\n\0\x01\x7f\xff"[..]), 0..70),
        plain in 0..40_usize,
    ) {
        let bytes = [vec![b'a'; plain], bytes].concat();
        prop_assert_eq!(line_end(&bytes), bytes.iter().position(|&byte| byte == b'\n' || byte == 0));
        prop_assert_eq!(check_lines(&bytes), look_closely(&bytes));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_every_split_agrees(
        bytes in prop::collection::vec(prop::sample::select(&b"GET /HTP1.\r\n\r\n:a \0"[..]), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        prop_assert_eq!(scan_in_pieces(&bytes, &[]), scan_in_pieces(&bytes, &cuts));
        let _ = RequestHead::default().parse(&bytes);
        let _ = ResponseHead::default().parse(&bytes);
    }

    #[test]
    fn what_is_forwarded_reads_as_exactly_the_same_request(
        path in "/[a-z0-9/?=&%.]{0,20}",
        names in prop::collection::vec(("[A-Za-z][A-Za-z0-9-]{0,10}", "[ -~]{0,12}"), 0..8),
    ) {
        let lines: String = names.iter().map(|(name, value)| format!("X-{name}: {value}\r\n")).collect();
        let text = format!("POST {path} HTTP/1.1\r\nHost: shop\r\n{lines}Content-Length: 4\r\n\r\n");
        let first = request(&text).expect("valid");
        let mut out = Vec::new();
        first.write_to(&mut out, &first.target, &first.authority);
        let forwarded = String::from_utf8(out).expect("text");
        let second = request(&forwarded).expect("forwarded head is valid");
        prop_assert_eq!(forwarded.matches("\r\n\r\n").count(), 1);
        prop_assert_eq!(&first.target, &second.target);
        prop_assert_eq!(second.framing, Framing::Length(4));
        let pairs = |head: &RequestHead| -> Vec<(Vec<u8>, Vec<u8>)> {
            head.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
        };
        prop_assert_eq!(pairs(&first), pairs(&second));
    }
}
