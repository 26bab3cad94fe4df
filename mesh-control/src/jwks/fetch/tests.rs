//! Fetches from small servers on loopback that answer as badly as they can.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use mesh_api::model::JwtRule;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::roots;
use super::*;

const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"1","y":"2","kid":"a"}]}"#;

/// What a server says, and what it goes on saying until nobody listens.
struct Reply {
    first: Vec<u8>,
    then: Then,
}

enum Then {
    Close,
    Repeat(Vec<u8>, Duration),
}

fn reply(status: &str, fields: &str, body: &str) -> Reply {
    let first =
        format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    Reply { first, then: Then::Close }
}

fn ok(body: &str) -> Reply {
    reply("200 OK", "", body)
}

fn redirect(location: &str) -> Reply {
    reply("302 Found", &format!("location: {location}\r\n"), "")
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Serves on loopback; `answer` is given the path. Tells the requests that it saw.
async fn serve(answer: impl Fn(&str, SocketAddr) -> Reply + Send + Sync + 'static) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("known");
    let seen = Seen::default();
    let (answer, log) = (Arc::new(answer), Arc::clone(&seen));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_gone) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().expect("unpoisoned").push(head);
                let Reply { first, then } = answer(&path, address);
                let mut alive = stream.write_all(&first).await.is_ok();
                while let (true, Then::Repeat(bytes, pause)) = (alive, &then) {
                    tokio::time::sleep(*pause).await;
                    alive = stream.write_all(bytes).await.is_ok();
                }
            });
        }
    });
    (address, seen)
}

fn fetcher() -> Fetcher {
    Fetcher::new(Guard::default(), roots::client_config(None).expect("TLS"))
}

/// A fetcher for which names have these addresses.
fn fetcher_with(names: &[(&str, &[&str])]) -> Fetcher {
    let list = names.iter().map(|(name, addresses)| {
        let addresses = addresses.iter().map(|address| address.parse().expect("an address"));
        ((*name).to_owned(), addresses.collect())
    });
    Fetcher { resolver: Resolver::Listed(list.collect::<BTreeMap<_, _>>()), ..fetcher() }
}

fn spec(url: &str) -> Spec {
    let rule = JwtRule { jwks_uri: url.to_owned(), timeout_ms: 2_000, ..JwtRule::default() };
    Spec::of(&rule).expect("a source").1
}

fn discovery(issuer: &str) -> Spec {
    let rule = JwtRule { issuer: issuer.to_owned(), timeout_ms: 2_000, ..JwtRule::default() };
    Spec::of(&rule).expect("a source").1
}

async fn fails(answer: impl Fn(&str, SocketAddr) -> Reply + Send + Sync + 'static) -> FetchError {
    let (address, _) = serve(answer).await;
    fetcher().fetch(&spec(&format!("http://{address}/keys"))).await.expect_err("it fails")
}

#[tokio::test]
async fn keys_are_asked_for_without_credentials_and_nothing_packed() {
    let (address, seen) = serve(|_, _| reply("200 OK", "cache-control: public, max-age=300\r\n", JWKS)).await;
    let fetched = fetcher().fetch(&spec(&format!("http://{address}/keys?x=1"))).await.expect("keys");
    assert_eq!((fetched.keys.number, fetched.fresh_for), (1, Some(Duration::from_secs(300))));
    let request = seen.lock().expect("unpoisoned")[0].to_ascii_lowercase();
    assert!(request.starts_with("get /keys?x=1 http/1.1\r\n"), "{request}");
    assert!(
        request.contains(&format!("host: {address}\r\n"))
            && request.contains("accept-encoding: identity\r\n")
    );
    assert!(!request.contains("authorization") && !request.contains("cookie"));
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let hops = |left: usize| {
        move |path: &str, _| match path.trim_start_matches("/keys").len() {
            done if done == left => ok(JWKS),
            done => redirect(&format!("/keys{}", "x".repeat(done + 1))),
        }
    };
    let (address, seen) = serve(hops(3)).await;
    assert!(fetcher().fetch(&spec(&format!("http://{address}/keys"))).await.is_ok());
    assert_eq!(seen.lock().expect("unpoisoned").len(), 4);
    let (address, seen) = serve(hops(10)).await;
    let error = fetcher().fetch(&spec(&format!("http://{address}/keys"))).await.expect_err("too many");
    assert!(matches!(error, FetchError::Redirects { .. }), "{error}");
    assert_eq!(seen.lock().expect("unpoisoned").len(), 4, "redirects are followed without end");
}

#[tokio::test]
async fn a_redirect_leads_neither_to_metadata_nor_anywhere_unreadable() {
    for to in [
        "http://169.254.169.254/latest/meta-data/",
        "//[fd00:ec2::254]/",
        "http://[::ffff:169.254.169.254]/",
        "http://0.0.0.0/",
    ] {
        let error = fails(move |_, _| redirect(to)).await;
        assert!(
            matches!(error, FetchError::Refused { source: Refusal::Reserved { .. }, .. }),
            "{to}: {error}"
        );
    }
    for to in ["ftp://idp.example/", "http://user@idp.example/", ""] {
        let error = fails(move |_, _| redirect(to)).await;
        assert!(matches!(error, FetchError::Target { .. }), "{to}: {error}");
    }
}

#[tokio::test]
async fn only_a_policy_on_loopback_is_led_to_loopback() {
    let (secret, seen) = serve(|_, _| ok(JWKS)).await;
    let (led, _) = serve(move |_, _| redirect(&format!("http://{secret}/"))).await;
    // The policy's own URL is on loopback: it is a developer's machine.
    assert!(fetcher().fetch(&spec(&format!("http://{led}/"))).await.is_ok());
    let by_name = |name: &str| format!("http://{name}:{}/", secret.port());
    assert!(fetcher_with(&[("localhost", &["127.0.0.1"])]).fetch(&spec(&by_name("localhost"))).await.is_ok());
    assert_eq!(seen.lock().expect("unpoisoned").len(), 2);
    // A name of somebody else's that resolves there is not followed, nor is another spelling.
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let error = fetcher_with(&[("idp.example", &[address])]).fetch(&spec(&by_name("idp.example"))).await;
        let error = error.expect_err("it is refused");
        assert!(matches!(error, FetchError::Refused { source: Refusal::Loopback { .. }, .. }), "{error}");
    }
    assert_eq!(seen.lock().expect("unpoisoned").len(), 2, "somebody was asked who should not be");
}

#[tokio::test]
async fn of_a_names_addresses_only_those_that_pass_are_dialled() {
    let (address, seen) = serve(|_, _| ok(JWKS)).await;
    let url = format!("http://localhost:{}/", address.port());
    let mixed = fetcher_with(&[("localhost", &["169.254.169.254", "127.0.0.1"])]);
    assert!(mixed.fetch(&spec(&url)).await.is_ok());
    let first_is_dead = fetcher_with(&[("localhost", &["127.0.0.2", "127.0.0.1"])]);
    assert!(first_is_dead.fetch(&spec(&url)).await.is_ok());
    assert_eq!(seen.lock().expect("unpoisoned").len(), 2);
    let none = fetcher_with(&[("localhost", &[])]).fetch(&spec(&url)).await.expect_err("no address");
    assert!(matches!(none, FetchError::NoAddress { .. }), "{none}");
    let unknown = fetcher_with(&[]).fetch(&spec("http://idp.example/")).await.expect_err("no such name");
    assert!(matches!(unknown, FetchError::Resolve { .. }), "{unknown}");
}

#[tokio::test]
async fn what_is_not_a_key_set_is_refused_and_never_repeated() {
    let html = "<html>ignore all previous words</html>";
    type Case = (fn() -> Reply, &'static str);
    let cases: [Case; 8] = [
        (|| ok("<html>ignore all previous words</html>"), "key_set"),
        (|| ok(r#"{"keys":[]}"#), "key_set"),
        (|| reply("404 Not Found", "", JWKS), "status"),
        (|| reply("503 Service Unavailable", "", "ignore all previous words"), "status"),
        (|| reply("304 Not Modified", "", ""), "status"),
        (|| reply("200 OK", "content-encoding: gzip\r\n", JWKS), "body"),
        (|| Reply { first: b"SSH-2.0-OpenSSH\r\n".to_vec(), then: Then::Close }, "http"),
        (|| Reply { first: Vec::new(), then: Then::Close }, "http"),
    ];
    for (answer, label) in cases {
        let error = fails(move |_, _| answer()).await;
        assert_eq!(error.label(), label, "{error}");
        let text = mesh_api::error_chain::chain(&error);
        assert!(!text.contains("ignore") && !text.contains(html), "{text}");
    }
}

#[tokio::test]
async fn bytes_and_time_of_an_answer_are_bounded() {
    let chunk = || {
        let data = " ".repeat(64 * 1024);
        format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
    };
    let head = || b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let endless =
        fails(move |_, _| Reply { first: head(), then: Then::Repeat(chunk(), Duration::ZERO) }).await;
    assert!(matches!(endless, FetchError::TooLarge { .. }), "{endless}");
    let heads = b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".to_vec();
    let first = b"HTTP/1.1 200 OK\r\n".to_vec();
    let fields =
        fails(move |_, _| Reply { first: first.clone(), then: Then::Repeat(heads.clone(), Duration::ZERO) })
            .await;
    assert!(matches!(fields, FetchError::Http { .. }), "{fields}");
    // A byte now and then is progress to whoever bounds only the pauses.
    let start = std::time::Instant::now();
    let (address, _) = serve(|_, _| Reply {
        first: b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{".to_vec(),
        then: Then::Repeat(b" ".to_vec(), Duration::from_millis(50)),
    })
    .await;
    let drip = Spec { timeout: Duration::from_millis(400), ..spec(&format!("http://{address}/")) };
    let drip = fetcher().fetch(&drip).await.expect_err("it takes too long");
    assert!(matches!(drip, FetchError::TimedOut { .. }), "{drip}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

fn configuration(issuer: &str, jwks_uri: &str) -> Reply {
    ok(&serde_json::json!({"issuer": issuer, "jwks_uri": jwks_uri}).to_string())
}

#[tokio::test]
async fn a_providers_configuration_leads_to_its_keys() {
    let (address, seen) = serve(|path, address| match path {
        "/realm/.well-known/openid-configuration" => {
            configuration(&format!("http://{address}/realm/"), &format!("http://{address}/realm/keys"))
        }
        "/realm/keys" => ok(JWKS),
        _ => reply("404 Not Found", "", ""),
    })
    .await;
    for issuer in [format!("http://{address}/realm"), format!("http://{address}/realm/")] {
        assert!(fetcher().fetch(&discovery(&issuer)).await.is_ok(), "{issuer}");
    }
    assert_eq!(seen.lock().expect("unpoisoned").len(), 4);
}

#[tokio::test]
async fn a_configuration_of_another_issuer_or_with_a_forbidden_jwks_uri_is_refused() {
    let cases: [(&str, Option<&str>, &str); 5] = [
        ("http://other.example", Some("/keys"), "discovery"),
        ("", None, "discovery"),
        ("", Some("http://169.254.169.254/keys"), "destination"),
        ("", Some("file:///etc/passwd"), "url"),
        ("", Some("keys"), "url"),
    ];
    for (issuer, keys, label) in cases {
        let (address, _) = serve(move |path, address| {
            if path == "/keys" {
                return ok(JWKS);
            }
            let own = format!("http://{address}");
            let issuer = if issuer.is_empty() { own.as_str() } else { issuer };
            match keys {
                Some(keys) => configuration(issuer, keys),
                None => ok(&serde_json::json!({"issuer": issuer}).to_string()),
            }
        })
        .await;
        let error = fetcher().fetch(&discovery(&format!("http://{address}"))).await.expect_err("refused");
        assert_eq!(error.label(), label, "{keys:?}: {error}");
    }
}

#[tokio::test]
async fn a_provider_elsewhere_does_not_lead_to_loopback_by_its_configuration() {
    let document = Document {
        target: Target::parse("https://idp.example/.well-known/openid-configuration").expect("valid"),
        head: HeaderMap::new(),
        body: br#"{"issuer":"https://idp.example","jwks_uri":"https://127.0.0.1:15014/"}"#.to_vec(),
    };
    let keys = jwks_uri(&document, "https://idp.example").expect("a URL");
    let error = fetcher().document(keys, stated_loopback(&document.target)).await;
    assert!(matches!(error, Err(FetchError::Refused { source: Refusal::Loopback { .. }, .. })));
    let plain = Document {
        body: br#"{"issuer":"https://idp.example","jwks_uri":"http://idp.example/"}"#.to_vec(),
        ..document
    };
    assert!(matches!(jwks_uri(&plain, "https://idp.example"), Err(FetchError::Downgrade { .. })));
}

#[test]
fn rules_with_one_url_are_one_source_with_the_patience_of_both() {
    let rule = |jwks_uri: &str, issuer: &str, timeout_ms| JwtRule {
        jwks_uri: jwks_uri.to_owned(),
        issuer: issuer.to_owned(),
        timeout_ms,
        ..JwtRule::default()
    };
    let (url, mut spec) =
        Spec::of(&rule("https://a/.well-known/openid-configuration", "x", 100)).expect("a source");
    let (other, found) = Spec::of(&rule("", "https://a/", 0)).expect("a source");
    assert_eq!((&url, found.timeout), (&other, TIMEOUT_DEFAULT));
    spec.merge(&found);
    assert_eq!(
        spec,
        Spec { issuer: "https://a".to_owned(), source: KeySource::Discovery(url), timeout: TIMEOUT_DEFAULT }
    );
    let (_, long) = Spec::of(&rule("https://a/", "", 3_600_000)).expect("a source");
    assert_eq!(long.timeout, TIMEOUT_MAX);
    assert!(Spec::of(&JwtRule { jwks: "{}".to_owned(), ..JwtRule::default() }).is_none());
}

#[test]
fn an_age_shortens_and_nothing_else_counts() {
    let fresh = |value: &str| {
        let mut head = HeaderMap::new();
        head.insert(CACHE_CONTROL, value.parse().expect("a value"));
        fresh_for(&head)
    };
    assert_eq!(fresh("public, max-age=90, must-revalidate"), Some(Duration::from_secs(90)));
    assert_eq!(fresh("Max-Age=\"5\""), Some(Duration::from_secs(5)));
    for nothing in ["no-store", "max-age=0", "max-age=-1", "max-age=x", "s-maxage=9"] {
        assert_eq!(fresh(nothing), None, "{nothing}");
    }
    assert_eq!(fresh_for(&HeaderMap::new()), None);
}
