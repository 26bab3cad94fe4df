//! The policy tests of the engine, sent over the wire: callers with an identity through both proxies, those
//! without one straight to the server's.
//!
//! What comes back is compared with what the engine says offline about the same request at the same time, so
//! that the proxies enforce what `meshctl policy test` and `why` promise. Each case listens on the port that it
//! states, on a loopback address of its own, because policies see the port.

use std::fmt::Write as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

use mesh_api::manifest::Object;
use mesh_api::manifest::policy_test::{self, PolicySource, PolicyTest, TestCase};
use mesh_api::policy_test::{Request, Traffic, Verdict};
use mesh_policy::judge::{Judge, Judgement, Policies};
use mesh_policy::{peer_authentication, select};

use super::*;

/// Server name of what the client's proxy opens.
const SNI: &str = "outbound_.80_._.server.web.svc.cluster.local";
/// Where the applications of the cases listen.
const APPLICATION_IP: &str = "127.91.7.1";

/// What a client got.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// The connection ended without a byte.
    Closed,
    /// Bytes that the application of a byte stream sent back.
    Bytes,
    /// A response: status, head in lower case, body.
    Response(u16, String, String),
}

fn policies_of(sources: &[PolicySource], test: &PolicyTest) -> Policies {
    let mut policies = Policies { key_sets: test.key_sets.clone(), ..Policies::default() };
    for source in sources {
        let PolicySource::Inline(sourced) = source else { panic!("{source:?}: cases are of one file") };
        match sourced.object.clone() {
            Object::AuthorizationPolicy(policy) => policies.authorization.push(Arc::new(policy)),
            Object::PeerAuthentication(policy) => policies.peer_authentication.push(Arc::new(policy)),
            Object::RequestAuthentication(policy) => policies.request_authentication.push(Arc::new(policy)),
            other => panic!("{} is no policy", other.object_ref()),
        }
    }
    policies
}

/// The request as it can be sent from here; `None` when it cannot.
fn sendable(request: &Request, through_both: bool) -> Option<Request> {
    let mut request = request.clone();
    let is_plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > 0x20 && byte < 0x7f);
    let http = &request.http;
    let is_written = request.protocol == Traffic::Tcp
        || (is_plain(&http.method) && is_plain(&http.path) && (http.host.is_empty() || is_plain(&http.host)));
    // What a client cannot send: control characters, and blanks around a value, which a reader takes off.
    let is_clean =
        |value: &str| value.trim() == value && !value.bytes().any(|byte| byte < 0x20 || byte == 0x7f);
    let is_sent = http.headers.iter().all(|(_, value)| is_clean(value)) && !http.host.is_empty();
    // HTTP/1 has no target that begins otherwise (RFC 9112 section 3.2).
    let is_target = http.path.starts_with('/') || http.path.starts_with("http");
    if request.protocol == Traffic::Http && !(is_sent && is_target) {
        return None;
    }
    let is_head = http.method == "HEAD" || http.method == "CONNECT";
    let own =
        ["content-length", "transfer-encoding", "connection", "host", "expect", "upgrade", "te", "trailer"];
    let is_framed =
        http.headers.iter().any(|(name, _)| own.contains(&name.as_str()) || name.starts_with(':'));
    // A certificate states one identity of the mesh's own trust domain, and claims come from a token.
    let is_ours = request.principal.as_ref().is_none_or(|id| id.trust_domain() == "cluster.local");
    if !is_written || is_head || is_framed || !is_ours || http.jwt_claims.is_some() || request.port < 1024 {
        return None;
    }
    if request.tls != request.principal.is_some() {
        return None;
    }
    request.source_ip = "127.0.0.1".parse().expect("an address");
    request.remote_ip = request.source_ip;
    request.destination_ip = Some(APPLICATION_IP.parse().expect("an address"));
    request.sni = through_both.then(|| SNI.to_owned());
    Some(request)
}

/// Sends everything of the policies to the server's proxy.
fn publish(mesh: &Mesh, case: &TestCase, policies: &Policies, request: &Request) -> Judge {
    let mut settings = MeshSettings::default();
    case.case.mesh.apply_to(&mut settings);
    let workload = &case.case.workload;
    let subject = Subject {
        namespace: &workload.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    };
    let modes = peer_authentication::resolve(&settings, &subject, &policies.peer_authentication);
    let sent = WorkloadPolicies {
        authorization: select::authorization(&settings, &subject, &policies.authorization),
        request: select::request_authentication(&settings, &subject, &policies.request_authentication),
        key_sets: policies.key_sets.clone(),
        mtls: modes.mode,
        mtls_ports: BTreeMap::from([(request.port, modes.mode_for_port(request.port))]),
        ..WorkloadPolicies::default()
    };
    let port = InboundPort {
        port: request.port,
        protocol: if request.protocol == Traffic::Tcp { Protocol::Tcp } else { Protocol::Http },
        service_host: "server.web.svc.cluster.local".to_owned(),
        service_name: "server".to_owned(),
        service_namespace: "web".to_owned(),
    };
    let config = ProxyConfig {
        mesh: settings.clone(),
        workload: "server".to_owned(),
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
        labels: workload.labels.clone(),
        addresses: Vec::new(),
        inbound: vec![port],
        locality: String::new(),
        completed: false,
    };
    let state = WorkloadState::compile(config, sent, "replay".into(), None);
    mesh.server.publish(ProxyState {
        revision: 0,
        workload: Some(Arc::new(state)),
        destinations: HashMap::new(),
    });
    publish_client_settings(mesh, &settings);
    Judge::compile(&settings, &subject, policies)
}

/// Normalisation is a setting of the whole mesh, so the client's proxy has it too.
fn publish_client_settings(mesh: &Mesh, settings: &MeshSettings) {
    let before = mesh.client.load_full();
    let workload = before.workload.as_ref().expect("published");
    let config = ProxyConfig {
        mesh: MeshSettings { path_normalization: settings.path_normalization, ..MeshSettings::default() },
        ..workload.config.clone()
    };
    let next = WorkloadState::compile(config, workload.policies.clone(), "replay".into(), None);
    mesh.client.publish(ProxyState {
        revision: 0,
        workload: Some(Arc::new(next)),
        destinations: before.destinations.clone(),
    });
}

fn text_of(request: &Request) -> String {
    let http = &request.http;
    let mut text = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", http.method, http.path, http.host);
    for (name, value) in &http.headers {
        let _infallible = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("Connection: close\r\n\r\n");
    text
}

async fn send(address: SocketAddr, request: &Request) -> Got {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let text = match request.protocol {
        Traffic::Tcp => "GET bytes\r\n\r\n".to_owned(),
        Traffic::Http => text_of(request),
    };
    let _either_way = stream.write_all(text.as_bytes()).await;
    let mut answer = Vec::new();
    if request.protocol == Traffic::Tcp {
        let _shut = stream.shutdown().await;
    }
    let _either_way = stream.read_to_end(&mut answer).await;
    // Plaintext on a STRICT port is met by the alert of a handshake that cannot be (RFC 8446 section 6).
    if answer.is_empty() || answer.starts_with(&[0x15, 3]) {
        return Got::Closed;
    }
    if request.protocol == Traffic::Tcp {
        return Got::Bytes;
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { panic!("{text:?}: {answer:?}") };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Got::Response(status, head.to_ascii_lowercase(), body.to_owned())
}

/// What the wire says otherwise than the engine.
fn mismatch(request: &Request, judgement: &Judgement, got: &Got) -> Option<String> {
    let told = || format!("the engine says {judgement:?}, the wire {got:?}");
    let is_same = match (request.protocol, judgement.decision, got) {
        (Traffic::Tcp, Verdict::Allow, Got::Bytes) | (Traffic::Tcp, Verdict::Deny, Got::Closed) => true,
        (Traffic::Http, Verdict::Deny, Got::Closed) => judgement.answer.is_none(),
        (Traffic::Http, Verdict::Deny, Got::Response(status, head, body)) => {
            judgement.answer.as_ref().is_some_and(|answer| {
                let challenge = answer.headers.iter().find(|(name, _)| name == "www-authenticate");
                // A codec's own refusal is a 400 in either case, in words of the proxy that met it first.
                *status == answer.status
                    && (*status == 400 || *body == answer.body)
                    && challenge.is_none_or(|(_, value)| head.contains(&value.to_ascii_lowercase()))
            })
        }
        (Traffic::Http, Verdict::Allow, Got::Response(200, _, body)) => {
            let path = body.split(' ').nth(1).unwrap_or_default();
            judgement.path.as_deref().is_none_or(|judged| judged == path) && headers_are_same(judgement, body)
        }
        _ => false,
    };
    (!is_same).then(told)
}

/// Whether the application was handed the lines that the engine says it is, as far as a client sends them.
fn headers_are_same(judgement: &Judgement, received: &str) -> bool {
    let lines: Vec<(String, &str)> = received
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let made_on_the_way = |name: &str| name.starts_with("x-") && !name.starts_with("x-forwarded");
    judgement
        .headers
        .iter()
        .filter(|(name, value)| (made_on_the_way(name) || name == "authorization") && !value.is_empty())
        .all(|(name, value)| {
            name == "x-request-id" || lines.iter().any(|(had, line)| had == name && line == value)
        })
        && !(judgement.headers.iter().all(|(name, _)| name != "authorization")
            && lines.iter().any(|(name, _)| name == "authorization"))
}

async fn replay(mesh: &Mesh, test: &PolicyTest, case: &TestCase) -> Option<Result<(), String>> {
    let stated = case.case.request.as_ref()?;
    let through_both = stated.principal.is_some();
    let request = sendable(stated, through_both)?;
    let policies = policies_of(case.policies.as_ref().unwrap_or(&test.policies), test);
    let judge = publish(mesh, case, &policies, &request);
    if through_both && judge.mtls(Some(request.port)) == MtlsMode::Disable {
        // The client's proxy would not open TLS to it.
        return None;
    }
    if let Some(principal) = &request.principal {
        let key = WorkloadKey::generate().expect("a key");
        let csr = mesh_identity::csr::build(&key).expect("a request");
        let issued = mesh.authority.issue(&csr, principal, None, SystemTime::now()).ok()?;
        mesh.identities[0].publish_svid(&Svid::new(issued.chain, &key).expect("an svid"));
    }
    let listener = TcpListener::bind((APPLICATION_IP, request.port)).await.ok()?;
    APPLICATION.set(listener.local_addr().ok());
    let application = tokio::task::spawn_local(reflecting(listener));
    // The client's proxy opens a connection of its own for each identity; an older one is of another caller.
    let address = if through_both { mesh.outbound } else { mesh.inbound };
    let got = send(address, &request).await;
    application.abort();
    let _aborted = application.await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs().cast_signed();
    let judgement = judge.judge(&request, now);
    Some(match mismatch(&request, &judgement, &got) {
        None => Ok(()),
        Some(told) => Err(format!("{} {}: {told}", case.case.origin, case.case.name)),
    })
}

#[test]
fn the_wire_says_what_the_engine_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh-policy/tests/policy");
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let (mut failures, mut sent) = (Vec::new(), 0);
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let read = policy_test::parse(&name, &std::fs::read_to_string(&file).expect("a file"));
        for test in read.tests {
            for case in test.cases.clone() {
                let outcome = Rc::new(RefCell::new(None));
                let (seen, test) = (Rc::clone(&outcome), test.clone());
                run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async move |mesh| {
                    *seen.borrow_mut() = replay(&mesh, &test, &case).await;
                });
                match outcome.take() {
                    None => {}
                    Some(Ok(())) => sent += 1,
                    Some(Err(told)) => failures.push(told),
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(sent > 400, "only {sent} cases could be sent");
}
