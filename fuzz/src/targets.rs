//! What is tried: each reader of foreign bytes, with what must hold for every input.

use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::{Buf, BytesMut};
use clap::Parser as _;
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::model::{AuthorizationPolicy, JwtRule, MeshSettings, PathNormalization, RequestAuthentication};
use mesh_api::name::SpiffeId;
use mesh_api::wire::discovery::Resource;
use mesh_api::wire::{SELF, TypeUrl};
use mesh_identity::key::WorkloadKey;
use mesh_policy::authenticate::{Authenticator, TokenRequest};
use mesh_policy::authorize::{Attributes, Authorizer, HeaderList, HttpAttributes};
use mesh_policy::normalize;
use mesh_proxy::accept::detect::{self, FirstBytes};
use mesh_proxy::control::apply::Model;
use mesh_proxy::control::session::Change;
use mesh_proxy::forward::http1::framing::{BodyDecoder, Framing, Piece};
use mesh_proxy::forward::http1::head::{HeadScanner, RequestHead, ResponseHead};

use crate::seeds;

/// A reader of foreign bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Real inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Reads an input, holds what must hold, and says what it came to.
    pub read: fn(&[u8]) -> u64,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "manifest", seeds: manifests, read: manifest },
    Target { name: "path", seeds: paths, read: path },
    Target { name: "template", seeds: templates, read: template },
    Target { name: "token", seeds: tokens, read: token },
    Target { name: "jwks", seeds: key_sets, read: jwks },
    Target { name: "http1-request", seeds: requests, read: http1_request },
    Target { name: "http1-response", seeds: responses, read: http1_response },
    Target { name: "http1-chunks", seeds: chunks, read: http1_chunks },
    Target { name: "dns", seeds: questions, read: dns },
    Target { name: "first-bytes", seeds: first_bytes_seeds, read: first_bytes },
    Target { name: "spiffe-id", seeds: spiffe_ids, read: spiffe_id },
    Target { name: "csr", seeds: signing_requests, read: csr },
    Target { name: "discovery", seeds: resources, read: discovery },
    Target { name: "policy-test", seeds: policy_tests, read: policy_test },
    Target { name: "policy-assertion", seeds: policy_assertions, read: policy_assertion },
    Target { name: "access-log", seeds: access_logs, read: access_log },
];

/// A short form of what an input came to.
fn shape(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The name of an enum's variant, without what it carries.
fn variant(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

fn manifests() -> Vec<Vec<u8>> {
    let root = seeds::workspace();
    let folders = ["mesh-api/tests/manifest_cases", "mesh-api/tests/admission_cases", "examples"];
    folders.iter().flat_map(|folder| seeds::below(&root.join(Path::new(folder)))).collect()
}

/// What is admitted can be compiled, and judges a request.
fn manifest(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let parsed = manifest::parse("input.yaml", &text, &LowerContext::default());
    let mut problems: Vec<_> = parsed
        .problems()
        .map(|problem| format!("{problem:?}").chars().take(60).collect::<String>())
        .collect();
    problems.sort();
    problems.dedup();
    let mut kinds = Vec::new();
    for document in parsed.documents {
        match document.outcome {
            Ok(Object::AuthorizationPolicy(policy)) => {
                kinds.push(judge(policy, "/api/v1"));
            }
            Ok(Object::RequestAuthentication(policy)) => {
                let authenticator = Authenticator::compile(&[Arc::new(policy)], &BTreeMap::new());
                kinds.push(authenticator.is_empty());
            }
            Ok(object) => {
                let _reference = object.object_ref();
            }
            Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
        }
    }
    shape(&(problems.first().cloned(), problems.len().min(8), kinds.len().min(8)))
}

fn judge(policy: AuthorizationPolicy, path: &str) -> bool {
    let authorizer = Authorizer::compile(&MeshSettings::default(), &[Arc::new(policy)]);
    let address = IpAddr::from([10, 0, 0, 1]);
    let http =
        HttpAttributes { method: "GET", authority: "a", path, headers: &HeaderList(&[]), claims: None };
    let attributes = Attributes {
        peer: None,
        source_ip: address,
        remote_ip: address,
        destination_ip: address,
        destination_port: 80,
        sni: None,
        http: Some(http),
    };
    let decision = authorizer.authorize(&attributes);
    let asked = matches!(authorizer.external(&attributes), mesh_policy::authorize::External::Refuse { .. });
    let explanation = authorizer.explain(&attributes);
    assert_eq!(explanation.allowed, decision.is_allowed() && !asked, "explain differs from decide");
    decision.is_allowed()
}

const MODES: [PathNormalization; 4] = [
    PathNormalization::None,
    PathNormalization::Base,
    PathNormalization::MergeSlashes,
    PathNormalization::DecodeAndMergeSlashes,
];

fn paths() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "/",
        "/a/b?c=d",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a//b///c",
        "/%2f%5C/x",
        "/a\\b",
        "/%41%zz",
        "/a%00b",
        "/a#b",
        "/..",
        "/a/./b/.",
        "*",
        "/%252e%252e/",
        "/api/v1/items/7?x=/../",
    ])
}

/// A normal form is its own, has no dot segments, and its path holds neither query nor fragment.
fn path(bytes: &[u8]) -> u64 {
    let mut outcomes = Vec::new();
    for mode in MODES {
        let Ok(normal) = normalize::path_bytes(bytes, mode) else {
            outcomes.push(0);
            continue;
        };
        let text = normal.as_str().to_owned();
        let path = normal.policy_path().to_owned();
        assert!(!path.contains(['?', '#']), "{mode:?}: {path:?}");
        assert!(text.starts_with(&path), "{mode:?}: {text:?} does not start with {path:?}");
        if mode != PathNormalization::None {
            let dots = path.split('/').any(|segment| segment == "." || segment == "..");
            assert!(!dots, "{mode:?}: {path:?} has a dot segment");
        }
        if matches!(mode, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes) {
            assert!(!path.contains("//"), "{mode:?}: {path:?} has an empty segment");
        }
        // An encoded dot before a `;` becomes a plain one and stays, as in Istio (SEMANTICS C4).
        if !text.contains(';') {
            let again = normalize::path(&text, mode).expect("a normal form is accepted");
            assert_eq!(again.as_str(), text, "{mode:?}: not stable");
        }
        outcomes.push(1 + u8::from(normal.is_rewritten()) + 2 * u8::from(normal.query().is_some()));
    }
    shape(&outcomes)
}

fn templates() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "/a/{*}/b\n/a/x/b",
        "/{**}\n/x/y",
        "/a/{**}/z\n/a/b/c/z",
        "/{*}\n/",
        "/a*\n/ab",
        "*/z\n/y/z",
        "/{**}/{*}\n/a",
    ])
}

/// A pattern and a path, by lines. What the engine decides, its explanation says too.
fn template(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, path) = text.split_once('\n').unwrap_or((&text, "/"));
    let quoted = serde_json::Value::from(pattern).to_string();
    let yaml = format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: a}}\n\
         spec:\n  rules:\n  - to:\n    - operation:\n        paths: [{quoted}]\n"
    );
    let parsed = manifest::parse("p.yaml", &yaml, &LowerContext::default());
    let outcomes: Vec<_> = parsed
        .documents
        .into_iter()
        .map(|document| match document.outcome {
            Ok(Object::AuthorizationPolicy(policy)) => 1 + u8::from(judge(policy, path)),
            Ok(_) | Err(_) => 0,
        })
        .collect();
    shape(&(outcomes, pattern.matches(['{', '*']).count().min(4), path.len().min(6)))
}

/// A key set of each accepted kind, with which the tokens below are not signed.
const KEYS: &str = r#"{"keys":[
  {"kty":"EC","kid":"e","alg":"ES256","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
  {"kty":"OKP","kid":"d","alg":"EdDSA","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
  {"kty":"oct","kid":"o","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
]}"#;

fn authentication(jwks: &str) -> RequestAuthentication {
    let yaml = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
                metadata: {name: r, namespace: a}\nspec: {}\n";
    let parsed = manifest::parse("r.yaml", yaml, &LowerContext::default());
    let mut objects = parsed.documents.into_iter().filter_map(|document| document.outcome.ok());
    let Some(Object::RequestAuthentication(mut policy)) = objects.next() else {
        unreachable!("a valid document");
    };
    policy.jwt_rules = vec![JwtRule {
        issuer: "https://issuer.example".to_owned(),
        jwks: jwks.to_owned(),
        from_params: vec!["token".to_owned()],
        from_cookies: vec!["session".to_owned()],
        from_headers: vec![("authorization".to_owned(), "Bearer ".to_owned())],
        output_payload_to_header: "x-payload".to_owned(),
        output_claim_to_headers: vec![("x-sub".to_owned(), "sub".to_owned())],
        ..JwtRule::default()
    }];
    policy
}

fn tokens() -> Vec<Vec<u8>> {
    // {"alg":"ES256","kid":"e"} . {"iss":"https://issuer.example","sub":"a","exp":4102444800} . 64 bytes
    let head = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImUifQ";
    let claims = "eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYSIsImV4cCI6NDEwMjQ0NDgwMH0";
    let signature = "A".repeat(86);
    let none = "eyJhbGciOiJub25lIn0";
    let symmetric = "eyJhbGciOiJIUzI1NiIsImtpZCI6Im8ifQ";
    [head, none, symmetric]
        .iter()
        .map(|head| format!("{head}.{claims}.{signature}").into_bytes())
        .chain([b"a.b.c".to_vec(), format!("{head}..").into_bytes()])
        .collect()
}

/// No token is accepted: nobody has signed one with these keys.
fn token(bytes: &[u8]) -> u64 {
    static AUTHENTICATOR: LazyLock<Authenticator> =
        LazyLock::new(|| Authenticator::compile(&[Arc::new(authentication(KEYS))], &BTreeMap::new()));
    let text = String::from_utf8_lossy(bytes).into_owned();
    let target = format!("/x?token={text}");
    let lines = [
        vec![("authorization".to_owned(), format!("Bearer {text}"))],
        vec![("cookie".to_owned(), format!("a=b; session={text}"))],
        Vec::new(),
    ];
    let mut outcomes = Vec::new();
    for lines in &lines {
        let request = TokenRequest {
            method: "GET",
            scheme: "http",
            authority: "a",
            target: if lines.is_empty() { &target } else { "/x" },
            headers: &HeaderList(lines),
        };
        match AUTHENTICATOR
            .authenticate(&request, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
        {
            Ok(authenticated) => {
                assert!(authenticated.claims.is_none(), "an unsigned token is accepted: {text:?}");
                outcomes.push(String::new());
            }
            Err(refused) => {
                let is_line = |text: &str| !text.contains(['\r', '\n', '\0']);
                assert!(matches!(refused.status, 401 | 403), "{refused:?}");
                assert!(is_line(&refused.www_authenticate), "{refused:?}");
                outcomes.push(refused.message);
            }
        }
    }
    shape(&outcomes)
}

fn key_sets() -> Vec<Vec<u8>> {
    seeds::texts(&[
        KEYS,
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
        r#"{"e":"x"}"#,
    ])
}

fn jwks(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let authenticator = Authenticator::compile(&[Arc::new(authentication(&text))], &BTreeMap::new());
    let problems: Vec<_> = authenticator.problems().map(variant).collect();
    shape(&(problems.len().min(8), problems.first().cloned(), text.len().min(64)))
}

fn requests() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /x?y HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        "GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x-y\r\nUpgrade: websocket\r\nX-Y: 1\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: [::1]:8080\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ])
}

/// A head that is accepted is written, and read back as itself; and it is the same in whatever pieces it comes.
fn http1_request(bytes: &[u8]) -> u64 {
    let whole = HeadScanner::default().scan(bytes);
    let mut pieces = HeadScanner::default();
    let mut in_pieces = Ok(None);
    for end in (0..=bytes.len()).step_by(bytes.len() / 16 + 1).chain([bytes.len()]) {
        in_pieces = pieces.scan(&bytes[..end]);
        if !matches!(in_pieces, Ok(None)) {
            break;
        }
    }
    assert_eq!(in_pieces, whole, "pieces are read differently");
    let end = match whole {
        Ok(Some(end)) => end,
        Ok(None) => return 1,
        Err(error) => return shape(&variant(&error)),
    };
    let mut head = RequestHead::default();
    if let Err(error) = head.parse(&bytes[..end]) {
        assert!((400..500).contains(&error.status()), "{error:?}");
        return shape(&error.details());
    }
    let mut written = Vec::new();
    let authority = if head.authority.is_empty() { "a" } else { &head.authority };
    head.write_to(&mut written, &head.target, authority);
    let mut again = RequestHead::default();
    again.parse(&written).expect("what is written can be read");
    let lines = |head: &RequestHead| {
        head.headers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect::<Vec<_>>()
    };
    assert_eq!((&again.method, &again.target), (&head.method, &head.target));
    assert_eq!(again.framing, head.framing);
    assert_eq!(lines(&again), lines(&head));
    shape(&(variant(&head.framing), head.headers.len().min(16), head.upgrade.is_some(), head.is_keep_alive))
}

fn responses() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n",
        "HTTP/1.0 200\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n",
    ])
}

fn http1_response(bytes: &[u8]) -> u64 {
    let end = match HeadScanner::default().scan(bytes) {
        Ok(Some(end)) => end,
        Ok(None) => return 1,
        Err(error) => return shape(&variant(&error)),
    };
    let mut head = ResponseHead::default();
    match head.parse(&bytes[..end]) {
        Ok(()) => {
            assert!((100..1000).contains(&head.status), "{}", head.status);
            shape(&(head.status / 100, variant(&head.framing_for("GET")), head.headers.len().min(16)))
        }
        Err(error) => shape(&error.details()),
    }
}

fn chunks() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "5\r\nhello\r\n0\r\n\r\n",
        "3;x=y\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n",
        "0\r\n\r\n",
        "ffffffffffffffff\r\nx",
    ])
}

/// A decoder comes to the same end in whatever pieces the bytes come.
fn http1_chunks(bytes: &[u8]) -> u64 {
    let decode = |step: usize| {
        let (mut decoder, mut buffer, mut body) =
            (BodyDecoder::new(Framing::Chunked), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.advance(&mut buffer) {
                    Ok(Piece::NeedMore) => break,
                    Ok(Piece::Data(length)) => {
                        body.extend_from_slice(&buffer[..length]);
                        buffer.advance(length);
                    }
                    Ok(Piece::End) => return (body, "end"),
                    Err(error) => return (body, error.details()),
                }
            }
        }
        (body, "more")
    };
    let whole = decode(bytes.len());
    assert_eq!(decode(1), whole, "pieces are read differently");
    shape(&(whole.1, whole.0.len().min(16)))
}

fn questions() -> Vec<Vec<u8>> {
    let question = |name: &str, kind: u8, extra: &[u8]| {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!extra.is_empty())];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap_or(63));
            message.extend_from_slice(label.as_bytes());
        }
        message.extend([0, 0, kind, 0, 1]);
        message.extend_from_slice(extra);
        message
    };
    vec![
        question("catalog.shop.svc.cluster.local", 1, &[]),
        question("example.com", 28, &[0, 0, 41, 16, 0, 0, 0, 128, 0, 0, 0]),
        question("_http._tcp.x", 33, &[]),
    ]
}

fn dns(bytes: &[u8]) -> u64 {
    let outcome = mesh_proxy::dns::look_at(bytes);
    shape(&(variant(&outcome), bytes.len().min(32)))
}

fn first_bytes_seeds() -> Vec<Vec<u8>> {
    let hello = [
        &[0x16, 3, 1, 0, 60, 1, 0, 0, 56, 3, 3][..],
        &[7; 32],
        &[0, 0, 2, 0x13, 1, 1, 0, 0, 13, 0, 16, 0, 9, 0, 7, 5, b'i', b's', b't', b'i', b'o'],
    ]
    .concat();
    vec![
        hello,
        b"GET / HTTP/1.1\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01".to_vec(),
        b"220 ready\r\n".to_vec(),
    ]
}

/// What is decided on a start is never decided otherwise with more of it.
fn first_bytes(bytes: &[u8]) -> u64 {
    let whole = detect::look(bytes);
    for end in 0..bytes.len().min(600) {
        let early = detect::look(&bytes[..end]);
        assert!(early == FirstBytes::NeedMore || early == whole, "{early:?} at {end}, then {whole:?}");
    }
    shape(&(variant(&whole), variant(&detect::look_at_http(bytes)), bytes.len().min(32)))
}

fn spiffe_ids() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "spiffe://cluster.local/ns/web/sa/frontend",
        "spiffe://a.b-c_d/x/y.z",
        "spiffe://a",
        "SPIFFE://a/ns/b/sa/c",
        "spiffe://a:1/b",
        "spiffe://a/../b",
        "spiffe://a/b?c#d",
    ])
}

/// An id that is accepted prints as it was written, which is how certificates carry it.
fn spiffe_id(bytes: &[u8]) -> u64 {
    let Ok(text) = std::str::from_utf8(bytes) else { return 0 };
    match SpiffeId::parse(text) {
        Ok(id) => {
            assert_eq!(SpiffeId::parse(id.as_str()).as_ref(), Ok(&id));
            let path = id.as_str().splitn(4, '/').nth(3).unwrap_or_default();
            let mut segments = path.split('/');
            assert!(path.is_empty() || !segments.any(|segment| matches!(segment, "" | "." | "..")), "{text}");
            shape(&(id.workload_parts().is_some(), text.split('/').count().min(8)))
        }
        Err(error) => shape(&variant(&error)),
    }
}

fn signing_requests() -> Vec<Vec<u8>> {
    let key = WorkloadKey::generate().expect("a key");
    vec![mesh_identity::csr::build(&key).expect("a request")]
}

/// A request that is accepted is one of which no bit was changed: it is signed.
fn csr(bytes: &[u8]) -> u64 {
    match mesh_identity::csr::check(bytes) {
        Ok(request) => shape(&request.public_key_info().len()),
        Err(error) => shape(&(variant(&error), bytes.len().min(16))),
    }
}

fn resources() -> Vec<Vec<u8>> {
    let model = MeshSettings::default();
    let config = serde_json::json!({
        "mesh": model, "workload": "frontend-0", "namespace": "web", "service_account": "frontend",
        "labels": {}, "addresses": [], "inbound": [],
    });
    let policies = serde_json::to_vec(&mesh_api::model::WorkloadPolicies::default()).unwrap_or_default();
    let destination =
        br#"{"host":"a.b.svc.cluster.local","addresses":["240.240.0.1"],"ports":[],"endpoints":[]}"#;
    let config = config.to_string();
    let kinds: [(u8, &[u8]); 4] =
        [(0, br#"{"anchors":{}}"#), (1, config.as_bytes()), (2, &policies), (3, destination)];
    kinds.iter().map(|(kind, body)| [&[*kind][..], body].concat()).collect()
}

/// A response that is refused changes nothing.
fn discovery(bytes: &[u8]) -> u64 {
    let Some((kind, body)) = bytes.split_first() else { return 0 };
    let kind = TypeUrl::ALL[usize::from(*kind) % TypeUrl::ALL.len()];
    let settings = settings();
    let mut model = Model::new(&settings);
    let name = if kind == TypeUrl::Destination { "host/a.b.svc.cluster.local" } else { SELF };
    let mut envelope = mesh_api::wire::encode(kind, &());
    envelope.value = body.to_vec();
    let resource = Resource { name: name.to_owned(), version: "1".to_owned(), resource: Some(envelope) };
    match model.apply(kind, &[Change::Set(resource)]) {
        Ok(applied) => shape(&(kind.as_str(), applied.is_changed, model.missing())),
        Err(error) => {
            assert_eq!(model.missing(), Model::new(&settings).missing(), "a refused response was taken in");
            let text = mesh_api::error_chain::chain(&error);
            shape(&(kind.as_str(), text.chars().filter(|c| !c.is_ascii_digit()).take(80).collect::<String>()))
        }
    }
}

fn settings() -> mesh_proxy::settings::Settings {
    let words = [
        "mesh-proxy",
        "run",
        "--node-id",
        "frontend-0.web",
        "--control",
        "10.0.0.1:15012",
        "--control-root-cert",
        "r",
        "--join-token-file",
        "t",
        "--admin-socket",
        "s",
    ];
    let arguments = mesh_proxy::args::Args::try_parse_from(words).expect("valid arguments");
    let mesh_proxy::args::Command::Run(arguments) = arguments.command else {
        unreachable!("the command is run")
    };
    mesh_proxy::settings::Settings::new(*arguments).expect("valid settings")
}

fn policy_tests() -> Vec<Vec<u8>> {
    let root = seeds::workspace();
    let folders = ["mesh-policy/tests/policy", "examples/shop/policy-tests"];
    folders.iter().flat_map(|folder| seeds::below(&root.join(Path::new(folder)))).collect()
}

/// A file is broken or has tests that can be told apart.
fn policy_test(bytes: &[u8]) -> u64 {
    let read = manifest::policy_test::parse("input.yaml", &String::from_utf8_lossy(bytes));
    assert!(!read.is_broken() || !read.problems.is_empty(), "refused without a reason");
    shape(&(read.is_broken(), read.tests.len().min(8), read.problems.len().min(8)))
}

fn policy_assertions() -> Vec<Vec<u8>> {
    let text = "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyAssertion\nmetadata: {name: isolated}\nspec:\n  \
                assertions:\n  - name: outside\n    workloads: {namespace: payments}\n    verdict: deny\n    \
                requests: {from: [{source: {notNamespaces: [payments]}}]}\n    except:\n    - to: \
                [{operation: {methods: [POST], paths: [/api/*]}}]\n";
    vec![text.as_bytes().to_vec()]
}

fn policy_assertion(bytes: &[u8]) -> u64 {
    let read = manifest::policy_assertion::parse("input.yaml", &String::from_utf8_lossy(bytes));
    assert!(!read.is_broken() || !read.problems.is_empty(), "refused without a reason");
    shape(&(read.is_broken(), read.documents.len().min(8), read.problems.len().min(8)))
}

fn access_logs() -> Vec<Vec<u8>> {
    let line = r#"{"direction":"inbound","method":"GET","path":"/a?b","authority":"c","downstream_remote_address":"10.0.0.7:4000","downstream_local_address":"[::1]:8080","connection_security_policy":"none","source_principal":"spiffe://td/ns/a/sa/b","destination_principal":"spiffe://td/ns/c/sa/d","destination_workload":"d-1","requested_server_name":"s","decision":"deny","policy":"ns[a]-policy[b]-rule[0]"}"#;
    vec![line.as_bytes().to_vec()]
}

/// What is read of a line names whom it was for.
fn access_log(bytes: &[u8]) -> u64 {
    match mesh_api::traffic_record::parse_line(&String::from_utf8_lossy(bytes)) {
        Ok(Some(record)) => shape(&(record.decision, record.http.is_some(), record.principal.is_some())),
        Ok(None) => 0,
        Err(error) => shape(&variant(&error)),
    }
}
