//! Tokens on live traffic: what a request is answered, what is forwarded, and what open streams rest on.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_api::model::{JwtRule, KeySet, RequestAuthentication};
use rcgen::{KeyPair, SigningKey as _};

use super::custom::policy;
use super::*;

const ISSUER: &str = "https://issuer.example";
const JWKS_URI: &str = "https://issuer.example/keys";

/// A key that signs tokens.
struct Signer {
    key: KeyPair,
    key_id: &'static str,
}

impl Signer {
    fn new(key_id: &'static str) -> Self {
        Self { key: KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key"), key_id }
    }

    fn token(&self, payload: &str) -> String {
        let head = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, self.key_id);
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.key.sign(signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key_raw());
        let kid = self.key_id;
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"{kid}","x":"{x}"}}]}}"#)
    }
}

fn alice() -> String {
    let soon = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() + 600;
    format!(r#"{{"iss":"{ISSUER}","sub":"alice","aud":"web","exp":{soon},"groups":["staff"]}}"#)
}

fn rule() -> JwtRule {
    JwtRule { issuer: ISSUER.to_owned(), jwks_uri: JWKS_URI.to_owned(), ..JwtRule::default() }
}

/// Publishes the server's state with one rule, whose keys are `jwks`, and policies of the test's own.
fn publish(mesh: &Mesh, rule: JwtRule, jwks: Option<String>, policies: Vec<Arc<AuthorizationPolicy>>) {
    let state = mesh.server.load_full();
    let before = state.workload.as_ref().expect("published");
    let mut meta = policy("jwt", Action::Allow, Vec::new()).meta.clone();
    meta.object.kind = Kind::RequestAuthentication;
    let authentication = RequestAuthentication {
        meta,
        selector: mesh_api::model::Selector::default(),
        targets: Vec::new(),
        jwt_rules: vec![rule],
    };
    let keys = KeySet { jwks: jwks.map(Arc::from), problem: String::new() };
    let policies = WorkloadPolicies {
        authorization: policies,
        request: vec![Arc::new(authentication)],
        key_sets: BTreeMap::from([(JWKS_URI.to_owned(), keys)]),
        ..before.policies.clone()
    };
    let next = WorkloadState::compile(before.config.clone(), policies, "jwt".into(), Some(before));
    mesh.server.publish(ProxyState {
        revision: 0,
        workload: Some(Arc::new(next)),
        destinations: HashMap::new(),
    });
}

fn require_token() -> Vec<Arc<AuthorizationPolicy>> {
    let rules = vec![Rule {
        from: vec![Source { request_principals: vec!["*".to_owned()], ..Source::default() }],
        ..Rule::default()
    }];
    vec![policy("require", Action::Allow, rules)]
}

async fn with(stream: &mut TcpStream, target: &str, lines: &str) -> (String, String) {
    let head = format!("GET {target} HTTP/1.1\r\nHost: server\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    response(stream).await
}

#[test]
fn a_token_is_verified_before_policy_is_asked_and_refusals_are_envoys() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (signer, stranger) = (Signer::new("a"), Signer::new("a"));
        let rule = JwtRule { audiences: vec!["web".to_owned()], ..rule() };
        // A DENY of everything with a token: a bad token is refused before it.
        publish(&mesh, rule, Some(signer.jwks()), require_token());
        let mut stream = mesh.dial().await;
        let (head, body) = get(&mut stream, "/").await;
        assert!(head.starts_with("HTTP/1.1 403 ") && body == "RBAC: access denied", "{head}{body}");
        let good = format!("Authorization: Bearer {}\r\n", signer.token(&alice()));
        assert!(with(&mut stream, "/", &good).await.0.starts_with("HTTP/1.1 200 "));
        let expired = alice().replace("\"exp\":", "\"exp\":1,\"old\":");
        let others = alice().replace("\"web\"", "\"other\"");
        for (token, status, words) in [
            (stranger.token(&alice()), 401, "Jwt verification fails"),
            (signer.token(&expired), 401, "Jwt is expired"),
            (signer.token(&others), 403, "Audiences in Jwt are not allowed"),
            (
                "nonsense".to_owned(),
                401,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
            ),
        ] {
            let (head, body) =
                with(&mut stream, "/a/../b?c", &format!("Authorization: Bearer {token}\r\n")).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{words}: {head}");
            assert_eq!(body, words);
            assert!(head.contains("content-type: text/plain\r\n"), "{head}");
            let challenge = "www-authenticate: Bearer realm=\"http://server/b";
            assert!(head.contains(challenge) && head.contains("error=\"invalid_token\""), "{head}");
        }
        let denials = mesh.denials.list();
        assert!(denials.iter().any(
            |denial| denial.reason == "Jwt is expired" && denial.policy == "ns[web]-policy[jwt]-rule[0]"
        ));
        let state = mesh.server.load_full();
        let text = state.workload.as_ref().expect("published").decisions.render();
        assert!(text.contains("{policy=\"web/jwt\",action=\"JWT\",verdict=\"deny\"} 4\n"), "{text}");
    });
}

#[test]
fn what_is_forwarded_is_what_was_judged_after_the_token_was_taken_off() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let signer = Signer::new("a");
        let rule = JwtRule {
            output_payload_to_header: "x-payload".to_owned(),
            output_claim_to_headers: vec![("x-sub".to_owned(), "sub".to_owned())],
            ..rule()
        };
        publish(&mesh, rule, Some(signer.jwks()), Vec::new());
        let token = signer.token(&alice());
        let mut stream = mesh.dial().await;
        let spoofed = "X-Sub: admin\r\nx-payload: e30\r\n";
        let (_, body) = with(&mut stream, "/", spoofed).await;
        assert!(!body.contains("admin") && !body.to_ascii_lowercase().contains("x-payload"), "{body}");
        let (_, body) = with(&mut stream, "/", &format!("{spoofed}Authorization: Bearer {token}\r\n")).await;
        assert!(body.contains("x-sub: alice\r\n") && !body.contains("admin"), "{body}");
        let payload = token.split('.').nth(1).expect("a payload");
        assert!(body.contains(&format!("x-payload: {payload}\r\n")), "{body}");
        assert!(!body.to_ascii_lowercase().contains("authorization:"), "{body}");
        let (_, body) = with(&mut stream, &format!("/p?a=1&access_token={token}&b=2"), "").await;
        assert!(body.starts_with("GET /p?a=1&b=2 HTTP/1.1\r\n"), "{body}");
        assert!(body.contains("x-sub: alice\r\n"), "{body}");
    });
}

#[test]
fn a_key_that_is_not_known_is_reported_once() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (signer, new) = (Signer::new("a"), Signer::new("b"));
        publish(&mesh, rule(), Some(signer.jwks()), Vec::new());
        let line = format!("Authorization: Bearer {}\r\n", new.token(&alice()));
        let mut stream = mesh.dial().await;
        for _ in 0..3 {
            let (head, body) = with(&mut stream, "/", &line).await;
            assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
            assert_eq!(body, "Jwks doesn't have key to match kid or alg from Jwt");
        }
        let asked = mesh.server.unknown_keys().next().await;
        assert_eq!((&*asked.source, asked.key_id.as_str()), (JWKS_URI, "b"));
        let more = tokio::time::timeout(Duration::from_millis(50), mesh.server.unknown_keys().next()).await;
        assert!(more.is_err(), "asked again: {more:?}");
        publish(&mesh, rule(), Some(new.jwks()), Vec::new());
        assert!(with(&mut stream, "/", &line).await.0.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn a_workload_without_keys_lets_pass_what_has_no_token() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        publish(&mesh, rule(), None, Vec::new());
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 200 "));
        let line = format!("Authorization: Bearer {}\r\n", Signer::new("a").token(&alice()));
        let (head, body) = with(&mut stream, "/", &line).await;
        assert!(head.starts_with("HTTP/1.1 401 ") && body == "Jwks remote fetch is failed", "{head}{body}");
    });
}

/// An application that switches protocols and then echoes.
async fn switching(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            let mut buffer = Vec::new();
            while find(&buffer, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer).await.expect("written");
            let (mut read, mut write) = stream.split();
            let _either_way = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

/// A connection that was switched by a request with `token`.
async fn switched(mesh: &Mesh, token: &str) -> TcpStream {
    let mut stream = mesh.dial().await;
    let head = format!(
        "GET /chat HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut got = Vec::new();
    while find(&got, b"\r\n\r\n").is_none() {
        assert_ne!(stream.read_buf(&mut got).await.expect("read"), 0, "{:?}", String::from_utf8_lossy(&got));
    }
    assert!(got.starts_with(b"HTTP/1.1 101 "), "{:?}", String::from_utf8_lossy(&got));
    stream
}

async fn is_open(stream: &mut TcpStream) -> bool {
    if stream.write_all(b"ping").await.is_err() {
        return false;
    }
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.is_ok() && &echo == b"ping"
}

#[test]
fn an_open_stream_keeps_its_claims_and_ends_with_the_key_that_verified_it() {
    run_test(Protocol::Http, MtlsMode::Strict, switching, async |mesh| {
        let (old, new) = (Signer::new("a"), Signer::new("b"));
        let both = format!(
            r#"{{"keys":[{},{}]}}"#,
            &old.jwks()[9..old.jwks().len() - 2],
            &new.jwks()[9..new.jwks().len() - 2]
        );
        publish(&mesh, rule(), Some(old.jwks()), require_token());
        let mut stream = switched(&mesh, &old.token(&alice())).await;
        assert!(is_open(&mut stream).await);
        // Policy changes and still asks for a token: the claims are those that were verified.
        let staff = vec![Rule {
            when: vec![mesh_api::model::Condition {
                key: "request.auth.claims[groups]".to_owned(),
                values: vec!["staff".to_owned()],
                not_values: Vec::new(),
            }],
            ..Rule::default()
        }];
        publish(&mesh, rule(), Some(old.jwks()), vec![policy("staff", Action::Allow, staff.clone())]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(is_open(&mut stream).await);
        // Keys change and the old one stays: the token, which was taken off the request, is verified again.
        publish(&mesh, rule(), Some(both), vec![policy("staff", Action::Allow, staff.clone())]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(is_open(&mut stream).await);
        // Keys that are not at hand end nothing, whatever they were.
        publish(&mesh, rule(), None, vec![policy("staff", Action::Allow, staff.clone())]);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(is_open(&mut stream).await);
        publish(&mesh, rule(), Some(new.jwks()), vec![policy("staff", Action::Allow, staff)]);
        assert!(!matches!(stream.read(&mut [0; 4]).await, Ok(length) if length > 0), "its key was withdrawn");
    });
}

#[test]
fn an_open_stream_ends_when_policy_wants_other_claims() {
    run_test(Protocol::Http, MtlsMode::Strict, switching, async |mesh| {
        let signer = Signer::new("a");
        publish(&mesh, rule(), Some(signer.jwks()), require_token());
        let mut stream = switched(&mesh, &signer.token(&alice())).await;
        let bob = vec![Rule {
            from: vec![Source { request_principals: vec![format!("{ISSUER}/bob")], ..Source::default() }],
            ..Rule::default()
        }];
        publish(&mesh, rule(), Some(signer.jwks()), vec![policy("bob", Action::Allow, bob)]);
        assert!(!matches!(stream.read(&mut [0; 4]).await, Ok(length) if length > 0));
    });
}

#[test]
fn over_http2_tokens_are_verified_and_refused_alike_and_in_grpcs_own_words() {
    let seen = Rc::new(http2::Seen::default());
    let application = http2::application(&seen);
    run_test(Protocol::Grpc, MtlsMode::Strict, application, async move |mesh| {
        let signer = Signer::new("a");
        publish(&mesh, rule(), Some(signer.jwks()), require_token());
        let mut client = http2::connect(mesh.outbound).await;
        let mut call = async |path: &str, token: Option<&str>, content_type: &str| {
            let mut request = http::Request::builder().method("POST").uri(format!("http://server{path}"));
            request = request.header("content-type", content_type);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let (response, _) =
                client.send_request(request.body(()).expect("a request"), true).expect("sent");
            let (parts, mut stream) = response.await.expect("a response").into_parts();
            let mut body = Vec::new();
            while let Some(data) = stream.data().await {
                body.extend_from_slice(&data.expect("data"));
            }
            (parts, String::from_utf8(body).expect("text"))
        };
        let good = signer.token(&alice());
        assert_eq!(call("/", Some(&good), "text/plain").await.0.status, 200);
        let (parts, body) = call("/a", Some("x.y.z"), "text/plain").await;
        assert_eq!(parts.status, 401);
        assert!(body.starts_with("Jwt header is an invalid"), "{body}");
        assert_eq!(
            parts.headers["www-authenticate"],
            "Bearer realm=\"http://server/a\", error=\"invalid_token\""
        );
        let (parts, _) = call("/a.B/C", Some("x"), "application/grpc").await;
        assert_eq!(
            (parts.status.as_u16(), &parts.headers["grpc-status"]),
            (200, &"16".parse().expect("a value"))
        );
        let words = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
        assert_eq!(parts.headers["grpc-message"], words);
        let (parts, _) = call("/a.B/C", None, "application/grpc").await;
        assert_eq!(parts.headers["grpc-status"], "7");
        assert_eq!(parts.headers["grpc-message"], "RBAC: access denied");
        // A stream that is open ends when its key does.
        let request = http::Request::builder()
            .method("POST")
            .uri("http://server/echo")
            .header("authorization", format!("Bearer {good}"))
            .body(())
            .expect("a request");
        let (response, _sink) = client.send_request(request, false).expect("sent");
        let mut stream = response.await.expect("a response").into_body();
        publish(&mesh, rule(), Some(Signer::new("b").jwks()), require_token());
        assert!(matches!(stream.data().await, Some(Err(error)) if error.is_reset()), "it was cut");
    });
}
