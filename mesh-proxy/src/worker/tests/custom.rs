//! CUSTOM policies: an external authorizer before everything else, in both of its forms.

use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Response};
use mesh_api::model::{
    AuthorizerProtocol, BodyPacking, CheckBody, ExtensionProvider, ExternalAuthorizer, HttpCheck, LongerBody,
    OnAuthorizerError, ProviderKind,
};
use mesh_api::wire::authorizer::attribute_context::HttpRequest;
use mesh_api::wire::authorizer::check_response::HttpResponse;
use mesh_api::wire::authorizer::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValue as Line, HeaderValueOption, HttpStatus,
    OkHttpResponse, QueryParameter, Status,
};
use prost::Message as _;

use super::*;

const HOST: &str = "authz.web.svc.cluster.local";

/// A provider with Istio's defaults, but for a time that a test can wait for.
pub(super) fn authorizer(protocol: AuthorizerProtocol) -> ExternalAuthorizer {
    ExternalAuthorizer {
        host: Host::parse(HOST).expect("valid"),
        namespace: Some(Namespace::parse("web").expect("valid")),
        port: 9000,
        timeout_ms: 2_000,
        on_error: OnAuthorizerError::Refuse,
        status_on_error: 403,
        body: None,
        protocol,
    }
}

pub(super) fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Arc<AuthorizationPolicy> {
    let sample = workload("w", MtlsMode::Strict, port_of(1, Protocol::Http), Some(rules), 1);
    let mut policy = AuthorizationPolicy::clone(&sample.policies.authorization[0]);
    policy.meta.object.name = ObjectName::parse(name).expect("valid");
    policy.action = action;
    policy.provider = (action == Action::Custom).then(|| "ext".to_owned());
    Arc::new(policy)
}

fn port_of(port: u16, protocol: Protocol) -> InboundPort {
    InboundPort {
        port,
        protocol,
        service_host: String::new(),
        service_name: String::new(),
        service_namespace: String::new(),
    }
}

pub(super) fn on_paths(paths: &[&str]) -> Vec<Rule> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    vec![Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() }]
}

/// Publishes the server's state with policies of the test's own; `at` is where the authorizer listens.
pub(super) fn publish(
    mesh: &Mesh,
    authorizer: Option<(&ExternalAuthorizer, SocketAddr)>,
    policies: Vec<Arc<AuthorizationPolicy>>,
) {
    let before = mesh.server.load_full();
    let before = before.workload.as_ref().expect("published");
    let mut config = before.config.clone();
    let mut destinations = HashMap::new();
    config.mesh.extension_providers.clear();
    if let Some((authorizer, at)) = authorizer {
        config.mesh.extension_providers.push(ExtensionProvider {
            name: "ext".to_owned(),
            kind: ProviderKind::Authorizer(Box::new(authorizer.clone())),
        });
        let key = DestinationKey::Host(authorizer.host.clone());
        destinations.insert(key.clone(), Known::Present(Arc::new(destination(key, at))));
    }
    let policies = WorkloadPolicies { authorization: policies, ..before.policies.clone() };
    let next = WorkloadState::compile(config, policies, "custom".into(), Some(before));
    mesh.server.publish(ProxyState { revision: 0, workload: Some(Arc::new(next)), destinations });
}

fn destination(key: DestinationKey, at: SocketAddr) -> DestinationState {
    let namespace = Namespace::parse("web").expect("valid");
    let destination = Destination {
        host: HOST.to_owned(),
        object: ObjectRef {
            kind: Kind::Service,
            namespace: namespace.clone(),
            name: ObjectName::parse("authz").expect("valid"),
        },
        addresses: Vec::new(),
        headless: false,
        ports: vec![ServicePort {
            name: String::new(),
            port: 9000,
            target_port: at.port(),
            target_port_name: None,
            protocol: Protocol::Grpc,
        }],
        endpoints: vec![Endpoint {
            address: at.ip(),
            workload: "authz".to_owned(),
            namespace,
            labels: BTreeMap::new(),
            target_ports: vec![at.port()],
            tls: vec![PeerTls::Plaintext],
            weight: 1,
            draining: false,
            zones: Vec::new(),
        }],
        resolution: mesh_api::model::service::Resolution::Static,
        policy: mesh_api::model::traffic::TrafficPolicy::default(),
        port_level: Vec::new(),
        subsets: Vec::new(),
        destination_rule: None,
        routes: None,
        direct: None,
    };
    static NUMBER: AtomicU64 = AtomicU64::new(1000);
    DestinationState::new(key, destination, None, "1".into(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// An authorizer, and what it was asked.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) checks: RefCell<Vec<CheckRequest>>,
    connections: Cell<usize>,
    given_up: Cell<usize>,
}

impl Asked {
    fn http(&self) -> HttpRequest {
        let checks = self.checks.borrow();
        let attributes = checks.last().expect("asked").attributes.clone().expect("attributes");
        attributes.request.expect("a request").http.expect("http")
    }
}

/// What an authorizer answers, and after which time.
type Judge = fn(&CheckRequest) -> (Duration, CheckResponse);

/// Starts an authorizer that speaks gRPC.
pub(super) async fn grpc(judge: Judge) -> (SocketAddr, Rc<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (at, asked) = (listener.local_addr().expect("address"), Rc::new(Asked::default()));
    let seen = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            seen.connections.set(seen.connections.get() + 1);
            let seen = Rc::clone(&seen);
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.expect("preface");
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(answer(Rc::clone(&seen), judge, request, respond));
                }
            });
        }
    });
    (at, asked)
}

async fn answer(
    asked: Rc<Asked>,
    judge: Judge,
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert!(request.headers().contains_key("grpc-timeout"));
    let mut stream = request.into_body();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.expect("data");
        stream.flow_control().release_capacity(data.len()).expect("released");
        body.extend_from_slice(&data);
    }
    assert_eq!(body[0], 0, "not compressed");
    assert_eq!(body[1..5], u32::try_from(body.len() - 5).expect("small").to_be_bytes());
    let check = CheckRequest::decode(&body[5..]).expect("a check");
    let (pause, response) = judge(&check);
    asked.checks.borrow_mut().push(check);
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        _ = std::future::poll_fn(|context| respond.poll_reset(context)) => {
            asked.given_up.set(asked.given_up.get() + 1);
            return;
        }
    }
    let message = response.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("small"));
    frame.extend_from_slice(&message);
    let head = Response::builder().header("content-type", "application/grpc").body(()).expect("a head");
    let mut sending = respond.send_response(head, false).expect("sent");
    sending.send_data(frame.freeze(), false).expect("sent");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    sending.send_trailers(trailers).expect("sent");
}

fn passes(ok: OkHttpResponse) -> (Duration, CheckResponse) {
    let response =
        CheckResponse { status: Some(Status::default()), http_response: Some(HttpResponse::OkResponse(ok)) };
    (Duration::ZERO, response)
}

fn refuses(denied: Option<DeniedHttpResponse>) -> (Duration, CheckResponse) {
    let status = Some(Status { code: 7, message: "no".to_owned() });
    (Duration::ZERO, CheckResponse { status, http_response: denied.map(HttpResponse::DeniedResponse) })
}

fn line(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
    let header = Line { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
    HeaderValueOption { header: Some(header), append, append_action: 0 }
}

/// Passes what says that it may, with changes; `/late` never comes to an answer.
pub(super) fn by_header(check: &CheckRequest) -> (Duration, CheckResponse) {
    let http = check.attributes.as_ref().and_then(|all| all.request.as_ref()?.http.as_ref()).expect("http");
    if http.path == "/late" {
        return (Duration::from_secs(600), CheckResponse::default());
    }
    match http.headers.get("x-may").map(String::as_str) {
        Some("yes") => passes(OkHttpResponse {
            headers: vec![line("x-user", "alice", None), line("x-may", "indeed", Some(true))],
            headers_to_remove: vec!["x-secret".to_owned(), ":path".to_owned(), "host".to_owned()],
            response_headers_to_add: vec![line("x-checked", "1", None)],
            query_parameters_to_set: vec![QueryParameter { key: "u".to_owned(), value: "alice".to_owned() }],
            query_parameters_to_remove: vec!["token".to_owned()],
        }),
        Some("smuggle") => passes(OkHttpResponse {
            headers: vec![line("x-user", "alice\r\nx-admin: 1", None)],
            ..OkHttpResponse::default()
        }),
        Some("reframe") => passes(OkHttpResponse {
            headers: vec![line("transfer-encoding", "chunked", None)],
            ..OkHttpResponse::default()
        }),
        Some("teapot") => refuses(Some(DeniedHttpResponse {
            status: Some(HttpStatus { code: 418 }),
            headers: vec![line("x-why", "tea", None), line("content-type", "text/html", None)],
            body: "<p>tea</p>".to_owned(),
        })),
        _ => refuses(None),
    }
}

pub(super) async fn send(stream: &mut TcpStream, head: &str) -> (String, String) {
    stream.write_all(head.as_bytes()).await.expect("written");
    response(stream).await
}

#[test]
fn a_grpc_authorizer_decides_and_changes_what_it_lets_pass() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(by_header).await;
        let ext = authorizer(AuthorizerProtocol::Grpc);
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, on_paths(&["/a*"]))]);
        let mut stream = mesh.dial().await;
        // What no rule matches is nobody's business.
        assert!(get(&mut stream, "/b").await.0.starts_with("HTTP/1.1 200 "));
        assert!(asked.checks.borrow().is_empty());
        let (head, body) = get(&mut stream, "/a").await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert_eq!(body, "");
        let (head, body) = send(
            &mut stream,
            "GET /x/../a?token=t&k=v HTTP/1.1\r\nHost: server\r\nX-May: yes\r\nX-User: admin\r\nX-Secret: s\r\n\r\n",
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("x-checked: 1\r\n"), "{head}");
        assert!(body.starts_with("GET /a?k=v&u=alice HTTP/1.1\r\n"), "{body}");
        assert!(body.contains("x-user: alice\r\n") && !body.contains("admin"), "{body}");
        assert!(body.contains("x-may: yes,indeed\r\n") && !body.contains("X-Secret"), "{body}");
        let http = asked.http();
        assert_eq!(
            (http.method.as_str(), http.host.as_str(), http.scheme.as_str()),
            ("GET", "server", "http")
        );
        assert_eq!((http.path.as_str(), http.protocol.as_str()), ("/a?token=t&k=v", "HTTP/1.1"));
        assert_eq!(http.headers[":path"], "/a?token=t&k=v");
        assert_eq!(
            (http.headers["x-user"].as_str(), http.headers["x-request-id"].as_str()),
            ("admin", &*http.id)
        );
        assert_eq!((http.size, http.body.as_str()), (0, ""));
        let checks = asked.checks.borrow();
        let attributes = checks.last().and_then(|check| check.attributes.as_ref()).expect("attributes");
        let principal = |peer: &Option<mesh_api::wire::authorizer::attribute_context::Peer>| {
            peer.as_ref().expect("a peer").principal.clone()
        };
        assert_eq!(principal(&attributes.source), "spiffe://cluster.local/ns/web/sa/client");
        assert_eq!(principal(&attributes.destination), "spiffe://cluster.local/ns/web/sa/server");
        assert_eq!(asked.connections.get(), 1, "one connection for all checks");
    });
}

#[test]
fn a_refusal_of_a_grpc_authorizer_is_the_answer_and_the_connection_stays() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, _) = grpc(by_header).await;
        let ext = ExternalAuthorizer { status_on_error: 503, ..authorizer(AuthorizerProtocol::Grpc) };
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        let mut stream = mesh.dial().await;
        let ask = |may: &str| format!("GET / HTTP/1.1\r\nHost: server\r\nX-May: {may}\r\n\r\n");
        let (head, body) = send(&mut stream, &ask("teapot")).await;
        assert!(head.starts_with("HTTP/1.1 418 "), "{head}");
        assert!(head.contains("x-why: tea\r\n") && head.contains("content-type: text/html\r\n"), "{head}");
        assert!(!head.contains("text/plain") && body == "<p>tea</p>", "{head}{body}");
        // A change that cannot be made refuses: the line must not be passed on, and not be left out either.
        for may in ["smuggle", "reframe"] {
            let (head, body) = send(&mut stream, &ask(may)).await;
            assert!(head.starts_with("HTTP/1.1 503 "), "{may}: {head}");
            assert_eq!(body, "");
        }
        assert!(send(&mut stream, &ask("yes")).await.0.starts_with("HTTP/1.1 200 "));
        let denials = mesh.denials.list();
        assert!(denials.iter().any(|denial| denial.reason == "external authorizer ext refuses"
            && denial.policy == "istio-ext-authz-ext-ns[web]-policy[ask]-rule[0]"));
    });
}

#[test]
fn an_authorizer_that_cannot_be_asked_refuses_unless_it_fails_open() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(by_header).await;
        let nobody = {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            listener.local_addr().expect("address")
        };
        let ask = || vec![policy("ask", Action::Custom, vec![Rule::default()])];
        let strict = ExternalAuthorizer { timeout_ms: 100, ..authorizer(AuthorizerProtocol::Grpc) };
        let open = ExternalAuthorizer { on_error: OnAuthorizerError::Pass, ..strict.clone() };
        let elsewhere = ExternalAuthorizer {
            namespace: Some(Namespace::parse("other").expect("valid")),
            ..strict.clone()
        };
        let other_port = ExternalAuthorizer { port: 1, ..strict.clone() };
        for (name, ext, at, path, status) in [
            ("no connection", &strict, nobody, "/", "403"),
            ("no connection, open", &open, nobody, "/", "200"),
            ("no answer in time", &strict, at, "/late", "403"),
            ("no answer in time, open", &open, at, "/late", "200"),
            ("a service of another namespace", &elsewhere, at, "/", "403"),
            ("no such port", &other_port, at, "/", "403"),
        ] {
            publish(&mesh, Some((ext, at)), ask());
            let (head, _) = get(&mut mesh.dial().await, path).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {head}");
        }
        assert_eq!(asked.given_up.get(), 2, "a check whose time is up is given up");
        // No provider of that name.
        publish(&mesh, None, ask());
        let (head, body) = get(&mut mesh.dial().await, "/").await;
        assert!(head.starts_with("HTTP/1.1 403 ") && body == "RBAC: access denied", "{head}{body}");
    });
}

#[test]
fn a_client_that_leaves_ends_its_check() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(by_header).await;
        let ext = ExternalAuthorizer { timeout_ms: 600_000, ..authorizer(AuthorizerProtocol::Grpc) };
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET /late HTTP/1.1\r\nHost: server\r\n\r\n").await.expect("written");
        while asked.checks.borrow().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        while asked.given_up.get() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn the_other_policies_have_their_say_after_the_authorizer() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(|_| {
            passes(OkHttpResponse {
                headers: vec![line("x-role", "guest", None)],
                ..OkHttpResponse::default()
            })
        })
        .await;
        let ext = authorizer(AuthorizerProtocol::Grpc);
        let guests = vec![Rule {
            when: vec![mesh_api::model::Condition {
                key: "request.headers[x-role]".to_owned(),
                values: vec!["guest".to_owned()],
                not_values: Vec::new(),
            }],
            ..Rule::default()
        }];
        publish(
            &mesh,
            Some((&ext, at)),
            vec![
                policy("ask", Action::Custom, vec![Rule::default()]),
                policy("guests", Action::Deny, guests),
            ],
        );
        let (head, body) =
            send(&mut mesh.dial().await, "GET / HTTP/1.1\r\nHost: server\r\nX-Role: admin\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 403 ") && body == "RBAC: access denied", "{head}{body}");
        assert_eq!(asked.checks.borrow().len(), 1);
        let state = mesh.server.load_full();
        let text = state.workload.as_ref().expect("published").decisions.render();
        for series in [
            "{policy=\"web/ask\",action=\"CUSTOM\",verdict=\"allow\"} 1\n",
            "{policy=\"web/guests\",action=\"DENY\",verdict=\"deny\"} 1\n",
        ] {
            assert!(text.contains(series), "{text}");
        }
    });
}

#[test]
fn a_body_is_shown_as_far_as_the_provider_says_and_forwarded_whole() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(|_| passes(OkHttpResponse::default())).await;
        let with = |bytes_max, longer, packing| ExternalAuthorizer {
            body: Some(CheckBody { bytes_max, longer, packing }),
            ..authorizer(AuthorizerProtocol::Grpc)
        };
        let ask = || vec![policy("ask", Action::Custom, vec![Rule::default()])];
        let post = |body: &str| {
            format!("POST /p HTTP/1.1\r\nHost: server\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        publish(&mesh, Some((&with(8, LongerBody::Refused, BodyPacking::Bytes), at)), ask());
        let mut stream = mesh.dial().await;
        let (head, body) = send(&mut stream, &post("12345678")).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.ends_with("\r\n\r\n12345678"), "{head}{body}");
        let http = asked.http();
        assert_eq!((http.raw_body.as_slice(), http.body.as_str(), http.size), (&b"12345678"[..], "", 8));
        assert_eq!(http.headers["x-envoy-auth-partial-body"], "false");
        let (head, _) = send(&mut stream, &post("123456789")).await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert_eq!(asked.checks.borrow().len(), 1, "what is refused for its length is not asked about");
        // The same, when the length is seen only as the body comes.
        let chunked = "POST /p HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, _) =
            send(&mut mesh.dial().await, &format!("{chunked}5\r\n12345\r\n4\r\n6789\r\n0\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        publish(&mesh, Some((&with(4, LongerBody::Cut, BodyPacking::Text), at)), ask());
        let mut stream = mesh.dial().await;
        let long = "1234".repeat(60_000);
        let (head, body) = send(&mut stream, &post(&long)).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.ends_with(&long), "{head}");
        let http = asked.http();
        assert_eq!(
            (http.body.as_str(), http.headers["x-envoy-auth-partial-body"].as_str()),
            ("1234", "true")
        );
        // A request without a body shows none.
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 200 "));
        assert!(!asked.http().headers.contains_key("x-envoy-auth-partial-body"));
    });
}

#[test]
fn a_client_that_waits_for_continue_is_told_before_its_body_is_shown() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(|_| passes(OkHttpResponse::default())).await;
        let ext = ExternalAuthorizer {
            body: Some(CheckBody { bytes_max: 10, longer: LongerBody::Refused, packing: BodyPacking::Text }),
            ..authorizer(AuthorizerProtocol::Grpc)
        };
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        // Straight to the server's proxy: the client's would wait for the application's word.
        mesh.publish_mode(MtlsMode::Permissive);
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        let head = "POST / HTTP/1.1\r\nHost: server\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("written");
        let mut told = [0; 25];
        stream.read_exact(&mut told).await.expect("told");
        assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"body").await.expect("written");
        let (head, body) = response(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && body.ends_with("\r\n\r\nbody"), "{head}{body}");
        assert!(!body.to_ascii_lowercase().contains("expect:"), "{body}");
        assert_eq!(asked.http().body, "body");
    });
}

/// Starts an authorizer that speaks HTTP: it passes what carries `x-ext: yes` and keeps what it was asked.
async fn http(answers: fn(&str) -> String) -> (SocketAddr, Rc<RefCell<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let (at, asked) = (listener.local_addr().expect("address"), Rc::new(RefCell::new(Vec::new())));
    let seen = Rc::clone(&asked);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = Rc::clone(&seen);
            tokio::task::spawn_local(async move {
                let mut buffer = Vec::new();
                loop {
                    while find(&buffer, b"\r\n\r\n").is_none() {
                        if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let text = String::from_utf8(std::mem::take(&mut buffer)).expect("text");
                    let answer = answers(&text);
                    seen.borrow_mut().push(text);
                    stream.write_all(answer.as_bytes()).await.expect("written");
                }
            });
        }
    });
    (at, asked)
}

#[test]
fn an_http_authorizer_is_shown_the_head_in_part_and_answers_by_its_status() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = http(|head| {
            let head = head.to_ascii_lowercase();
            if head.contains("x-ext: yes") {
                "HTTP/1.1 200 OK\r\nX-User: alice\r\nX-User: ally\r\nX-Other: 1\r\nX-Resp: 1\r\n\
                 X-Envoy-Auth-Headers-To-Remove: x-secret, host\r\nContent-Length: 2\r\n\r\nok"
                    .to_owned()
            } else if head.contains("x-ext: fail") {
                "HTTP/1.1 500 Internal Server Error\r\nX-Resp: 1\r\nContent-Length: 4\r\n\r\nfail".to_owned()
            } else {
                "HTTP/1.1 302 Found\r\nLocation: /login\r\nSet-Cookie: a=1\r\nX-Resp: 1\r\n\
                 Transfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n"
                    .to_owned()
            }
        })
        .await;
        let check = HttpCheck {
            path_prefix: "/check".to_owned(),
            request_headers: vec!["x-ext*".to_owned()],
            additional_headers: vec![("x-mesh".to_owned(), "1".to_owned())],
            to_upstream: vec!["x-user".to_owned()],
            to_client_on_deny: vec!["set-*".to_owned()],
            to_client_on_allow: vec!["*-resp".to_owned()],
        };
        let ext = authorizer(AuthorizerProtocol::Http(Box::new(check)));
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        let mut stream = mesh.dial().await;
        let (head, body) = send(
            &mut stream,
            "PUT /a?q HTTP/1.1\r\nHost: server\r\nX-Ext: yes\r\nX-User: admin\r\nX-Secret: s\r\n\
             Authorization: Basic x\r\nContent-Length: 2\r\n\r\nhi",
        )
        .await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-resp: 1\r\n"), "{head}");
        assert!(body.contains("x-user: alice\r\n") && body.contains("x-user: ally\r\n"), "{body}");
        assert!(!body.contains("admin") && !body.contains("x-other") && !body.contains("X-Secret"), "{body}");
        let check = asked.borrow()[0].clone();
        assert!(check.starts_with("PUT /check/a?q HTTP/1.1\r\nHost: server\r\n"), "{check}");
        for part in ["x-ext: yes\r\n", "authorization: Basic x\r\n", "x-mesh: 1\r\n", "Content-Length: 0\r\n"]
        {
            assert!(check.contains(part), "{part}: {check}");
        }
        assert!(!check.contains("x-user") && !check.contains("x-request-id"), "{check}");
        let (head, body) = get(&mut stream, "/a").await;
        assert!(head.starts_with("HTTP/1.1 302 ") && body == "no!", "{head}{body}");
        assert!(head.contains("location: /login\r\n") && head.contains("set-cookie: a=1\r\n"), "{head}");
        assert!(!head.contains("x-resp") && !head.contains("chunked"), "{head}");
        let fail = "GET / HTTP/1.1\r\nHost: server\r\nX-Ext: fail\r\n\r\n";
        let (head, body) = send(&mut stream, fail).await;
        assert!(head.starts_with("HTTP/1.1 403 ") && body.is_empty(), "a failure is no answer: {head}{body}");
    });
}

#[test]
fn what_fits_into_no_check_is_no_way_round_it() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let (at, asked) = http(|_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned()).await;
        let ext = ExternalAuthorizer {
            on_error: OnAuthorizerError::Pass,
            ..authorizer(AuthorizerProtocol::Http(Box::default()))
        };
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        for target in ["/", "/?<", "/?a>b", "/?\"", "/?{|}^`", "/?\u{e4}", "/?\\"] {
            let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
            let head = format!("GET {target} HTTP/1.1\r\nHost: server\r\n\r\n");
            let (head, _) = send(&mut stream, &head).await;
            assert!(!head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
        }
        assert!(!asked.borrow().is_empty());
    });
}

#[test]
fn a_stream_is_asked_about_by_grpc_alone() {
    run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async |mesh| {
        let (at, asked) = grpc(|check| {
            let attributes = check.attributes.as_ref().expect("attributes");
            assert!(attributes.request.is_none());
            refuses(None)
        })
        .await;
        let ext = authorizer(AuthorizerProtocol::Grpc);
        let ask = || vec![policy("ask", Action::Custom, on_paths(&["/only-http"]))];
        publish(&mesh, Some((&ext, at)), ask());
        let mut stream = mesh.dial().await;
        let mut got = Vec::new();
        let _either_way = stream.read_to_end(&mut got).await;
        assert!(got.is_empty(), "the application was not reached");
        assert_eq!(asked.checks.borrow().len(), 1);
        let ext = authorizer(AuthorizerProtocol::Http(Box::default()));
        publish(&mesh, Some((&ext, at)), ask());
        let mut stream = mesh.dial().await;
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.expect("a provider that speaks HTTP is left out");
    });
}

#[test]
fn an_open_stream_ends_when_an_authorizer_would_have_to_be_asked() {
    run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async |mesh| {
        let (at, asked) = grpc(|_| passes(OkHttpResponse::default())).await;
        let ext = authorizer(AuthorizerProtocol::Grpc);
        let ask = || vec![policy("ask", Action::Custom, vec![Rule::default()])];
        let mut unasked = mesh.dial().await;
        let mut greeting = [0; 11];
        unasked.read_exact(&mut greeting).await.expect("read");
        publish(&mesh, Some((&ext, at)), ask());
        assert!(!matches!(unasked.read(&mut greeting).await, Ok(length) if length > 0), "it was not asked");
        let mut asked_before = mesh.dial().await;
        asked_before.read_exact(&mut greeting).await.expect("read");
        publish(&mesh, Some((&ext, at)), [ask(), vec![policy("more", Action::Audit, vec![])]].concat());
        asked_before.write_all(b"still here").await.expect("written");
        let mut echo = [0; 10];
        asked_before.read_exact(&mut echo).await.expect("it was asked, and passes still");
        assert_eq!((&echo, asked.checks.borrow().len()), (b"still here", 1));
    });
}

#[test]
fn a_client_of_a_stream_that_leaves_ends_its_check() {
    for (protocol, mode) in [(Protocol::Tcp, MtlsMode::Strict), (Protocol::Auto, MtlsMode::Permissive)] {
        run_test(protocol, mode, greeting, async move |mesh| {
            let (at, asked) = grpc(|_| (Duration::from_secs(600), CheckResponse::default())).await;
            let ext = ExternalAuthorizer { timeout_ms: 600_000, ..authorizer(AuthorizerProtocol::Grpc) };
            publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
            let to = if mode == MtlsMode::Strict { mesh.outbound } else { mesh.inbound };
            let until = async |number: usize, seen: &dyn Fn() -> usize| {
                while seen() < number {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let stream = TcpStream::connect(to).await.expect("connected");
            until(1, &|| asked.checks.borrow().len()).await;
            crate::accept::downstream::reset_on_drop(&stream);
            drop(stream);
            until(1, &|| asked.given_up.get()).await;
            // Who has said all still waits for the answer.
            let mut stream = TcpStream::connect(to).await.expect("connected");
            until(2, &|| asked.checks.borrow().len()).await;
            stream.shutdown().await.expect("ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(asked.given_up.get(), 1);
        });
    }
}

#[test]
fn an_upgrade_is_asked_about_by_its_head_alone() {
    let answers = &["HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let (at, asked) = grpc(by_header).await;
        let ext = ExternalAuthorizer {
            body: Some(CheckBody { bytes_max: 10, longer: LongerBody::Refused, packing: BodyPacking::Text }),
            ..authorizer(AuthorizerProtocol::Grpc)
        };
        publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
        let ask = |may: &str| {
            format!(
                "GET /chat HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-May: {may}\r\n\r\n"
            )
        };
        let mut stream = mesh.dial().await;
        assert!(send(&mut stream, &ask("no")).await.0.starts_with("HTTP/1.1 403 "));
        let mut stream = mesh.dial().await;
        stream.write_all(ask("yes").as_bytes()).await.expect("written");
        let mut got = Vec::new();
        while find(&got, b"\r\n\r\n").is_none() {
            assert_ne!(stream.read_buf(&mut got).await.expect("read"), 0);
        }
        let head = String::from_utf8(got).expect("text");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("x-checked: 1\r\n"), "{head}");
        assert_eq!(asked.checks.borrow().len(), 2);
        assert!(!asked.http().headers.contains_key("x-envoy-auth-partial-body"));
    });
}

#[test]
fn what_the_own_workload_sends_is_not_judged_by_its_proxy() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let (at, asked) = grpc(by_header).await;
        let ext = authorizer(AuthorizerProtocol::Grpc);
        let state = mesh.client.load_full();
        let before = state.workload.as_ref().expect("published");
        let mut config = before.config.clone();
        config.mesh.extension_providers.push(ExtensionProvider {
            name: "ext".to_owned(),
            kind: ProviderKind::Authorizer(Box::new(ext.clone())),
        });
        let authorization = vec![
            policy("ask", Action::Custom, vec![Rule::default()]),
            policy("no", Action::Deny, vec![Rule::default()]),
        ];
        let policies = WorkloadPolicies { authorization, ..before.policies.clone() };
        let next = WorkloadState::compile(config, policies, "custom".into(), None);
        let mut destinations = state.destinations.clone();
        let key = DestinationKey::Host(ext.host.clone());
        destinations.insert(key.clone(), Known::Present(Arc::new(destination(key, at))));
        mesh.client.publish(ProxyState { revision: 0, workload: Some(Arc::new(next)), destinations });
        assert!(get(&mut mesh.dial().await, "/").await.0.starts_with("HTTP/1.1 200 "));
        assert!(asked.checks.borrow().is_empty());
    });
}

#[test]
fn the_access_log_says_who_refused_and_what_was_audited() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let target = crate::telemetry::access_log::AccessLogTarget::File(path.clone());
    LOG.set(Some(AccessLog::open(&target).expect("opened")));
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async move |mesh| {
        let (at, _) = grpc(by_header).await;
        let ext = ExternalAuthorizer { timeout_ms: 50, ..authorizer(AuthorizerProtocol::Grpc) };
        let audit = policy("seen", Action::Audit, on_paths(&["/audited"]));
        publish(
            &mesh,
            Some((&ext, at)),
            vec![policy("ask", Action::Custom, on_paths(&["/ask", "/late"])), audit],
        );
        let mut stream = mesh.dial().await;
        for path in ["/ask", "/late", "/audited"] {
            get(&mut stream, path).await;
        }
        let lines = loop {
            let text = tokio::fs::read_to_string(&path).await.unwrap_or_default();
            let lines: Vec<serde_json::Value> = text
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .filter(|line| line["direction"] == "inbound")
                .collect();
            if lines.len() == 3 {
                break lines;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let rule = "istio-ext-authz-ext-ns[web]-policy[ask]-rule[0]";
        for (line, details) in lines.iter().zip(["ext_authz_denied", "ext_authz_error"]) {
            assert_eq!(line["response_code_details"], details, "{line}");
            assert_eq!((&line["response_flags"], &line["policy"]), (&"UAEX".into(), &rule.into()), "{line}");
            assert_eq!(
                (&line["decision"], &line["fault_domain"]),
                (&"deny".into(), &"policy".into()),
                "{line}"
            );
        }
        assert_eq!(lines[2]["audit"], "ns[web]-policy[seen]-rule[0]", "{}", lines[2]);
        assert_eq!(lines[2]["decision"], "allow");
        drop(folder);
    });
}

mod over_http2 {
    use super::*;

    async fn call(
        client: &mut h2::client::SendRequest<Bytes>,
        request: http::Request<()>,
        body: &[u8],
    ) -> (http::response::Parts, Vec<u8>) {
        let (response, mut sink) = client.send_request(request, body.is_empty()).expect("sent");
        if !body.is_empty() {
            sink.send_data(Bytes::copy_from_slice(body), true).expect("sent");
        }
        let (parts, mut stream) = response.await.expect("a response").into_parts();
        let mut got = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data.expect("data");
            stream.flow_control().release_capacity(data.len()).expect("released");
            got.extend_from_slice(&data);
        }
        (parts, got)
    }

    fn request(path: &str, lines: &[(&str, &str)]) -> http::Request<()> {
        let mut request = http::Request::builder().method("POST").uri(format!("http://server{path}"));
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request")
    }

    #[test]
    fn requests_are_held_shown_changed_and_refused_as_over_http1() {
        let seen = Rc::new(http2::Seen::default());
        let application = http2::application(&seen);
        run_test(Protocol::Grpc, MtlsMode::Strict, application, async move |mesh| {
            let (at, asked) = grpc(by_header).await;
            let ext = ExternalAuthorizer {
                body: Some(CheckBody {
                    bytes_max: 300_000,
                    longer: LongerBody::Refused,
                    packing: BodyPacking::Bytes,
                }),
                ..authorizer(AuthorizerProtocol::Grpc)
            };
            publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
            let mut client = http2::connect(mesh.outbound).await;
            let body = vec![b'b'; 250_000];
            let (parts, got) = call(&mut client, request("/echo", &[("x-may", "yes")]), &body).await;
            assert_eq!(
                (parts.status.as_u16(), &parts.headers["x-checked"]),
                (200, &HeaderValue::from_static("1"))
            );
            assert_eq!(got, body, "what was shown is forwarded whole");
            assert_eq!(asked.http().raw_body, body);
            assert_eq!(asked.http().protocol, "HTTP/2");
            let (parts, _) =
                call(&mut client, request("/echo", &[("x-may", "yes")]), &vec![b'b'; 300_001]).await;
            assert_eq!(parts.status, 413);
            let (parts, got) = call(&mut client, request("/", &[("x-may", "teapot")]), b"").await;
            assert_eq!((parts.status.as_u16(), got.as_slice()), (418, &b"<p>tea</p>"[..]));
            assert_eq!(parts.headers["content-type"], "text/html");
            let grpc = [("x-may", "teapot"), ("content-type", "application/grpc")];
            let (parts, got) = call(&mut client, request("/a.B/C", &grpc), b"").await;
            assert_eq!((parts.status.as_u16(), got.len()), (200, 0));
            assert_eq!(parts.headers["content-type"], "application/grpc");
            assert_eq!(parts.headers["grpc-status"], "2");
            assert_eq!(parts.headers["grpc-message"], "<p>tea</p>");
            assert_eq!(parts.headers["x-why"], "tea");
            let grpc = [("content-type", "application/grpc")];
            let (parts, _) = call(&mut client, request("/a.B/C", &grpc), b"").await;
            assert_eq!(parts.headers["grpc-status"], "7");
        });
    }

    #[test]
    fn a_stream_that_is_taken_back_ends_its_check() {
        let seen = Rc::new(http2::Seen::default());
        let application = http2::application(&seen);
        run_test(Protocol::Grpc, MtlsMode::Strict, application, async move |mesh| {
            let (at, asked) = grpc(by_header).await;
            let ext = ExternalAuthorizer { timeout_ms: 600_000, ..authorizer(AuthorizerProtocol::Grpc) };
            publish(&mesh, Some((&ext, at)), vec![policy("ask", Action::Custom, vec![Rule::default()])]);
            let mut client = http2::connect(mesh.outbound).await;
            let (response, mut sink) = client.send_request(request("/late", &[]), true).expect("sent");
            while asked.checks.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sink.send_reset(h2::Reason::CANCEL);
            drop(response);
            while asked.given_up.get() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(seen.requests.get(), 0);
        });
    }
}
