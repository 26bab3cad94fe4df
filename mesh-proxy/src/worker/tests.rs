//! Two workers in one process, one for each side, between a client and an application on loopback.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;

use mesh_api::model::authorization::{Operation, Rule, Source};
use mesh_api::model::destination::{HttpRoute, Retries, RouteSet, WeightedTarget};
use mesh_api::model::{
    Action, AuthorizationPolicy, Destination, DestinationKey, Endpoint, InboundPort, Kind, MeshSettings,
    MtlsMode, ObjectMeta, ObjectRef, PeerTls, Protocol, ProxyConfig, ServicePort, WorkloadPolicies,
};
use mesh_api::name::{Host, Namespace, ObjectName, ServiceAccount, SpiffeId};
use mesh_identity::ca::{Authority, CaSettings, Issuer as _};
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use mesh_policy::route::RouteTable;
use mesh_policy::select::Subject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

mod custom;
mod dry_run;
mod edges;
mod hostile;
mod http2;
mod jwt;
mod replay;
mod restarts;
mod retries;

use super::*;
use crate::runtime::drain::{self, Drain};
use crate::state::{DestinationState, Known, ProxyState, WorkloadState};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::denials::Denials;

thread_local! {
    static APPLICATION: Cell<Option<SocketAddr>> = const { Cell::new(None) };
    static SERVICE: Cell<Option<SocketAddr>> = const { Cell::new(None) };
    /// Where the next mesh of this thread logs to; nowhere when it is empty.
    static LOG: RefCell<Option<AccessLog>> = const { RefCell::new(None) };
}

fn dialled_inbound(_: &TcpStream) -> Option<SocketAddr> {
    APPLICATION.get()
}

fn dialled_outbound(_: &TcpStream) -> Option<SocketAddr> {
    SERVICE.get()
}

fn never(_: &TcpStream) -> Option<SocketAddr> {
    None
}

/// The mesh of one test.
struct Mesh {
    client: State,
    server: State,
    /// Where the application of the client connects to.
    outbound: SocketAddr,
    /// Where plaintext from outside arrives at the server's proxy.
    inbound: SocketAddr,
    denials: Arc<Denials>,
    drain: Drain,
    mode: MtlsMode,
    protocol: Protocol,
    application: SocketAddr,
    authority: Authority,
    /// Identities of the client's proxy and of the server's.
    identities: [Arc<IdentitySource>; 2],
    workers: Vec<tokio::task::JoinHandle<io::Result<()>>>,
}

fn account(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/web/sa/{name}")).expect("valid id")
}

fn identity(authority: &Authority, name: &str) -> Arc<IdentitySource> {
    let domain = MeshSettings::default().trust_domain;
    let source = IdentitySource::new(authority.trust_bundle(), [domain]);
    source.publish_svid(&svid(authority, name));
    source
}

fn svid(authority: &Authority, name: &str) -> Svid {
    let key = WorkloadKey::generate().expect("key");
    let csr = mesh_identity::csr::build(&key).expect("request");
    let issued = authority.issue(&csr, &account(name), None, SystemTime::now()).expect("issued");
    Svid::new(issued.chain, &key).expect("svid")
}

fn workload(
    name: &str,
    mode: MtlsMode,
    port: InboundPort,
    rules: Option<Vec<Rule>>,
    version: u32,
) -> Arc<WorkloadState> {
    let mesh = MeshSettings::default();
    let namespace = Namespace::parse("web").expect("valid");
    let policies: Vec<_> = rules
        .into_iter()
        .map(|rules| {
            Arc::new(AuthorizationPolicy {
                meta: ObjectMeta {
                    object: ObjectRef {
                        kind: Kind::AuthorizationPolicy,
                        namespace: namespace.clone(),
                        name: ObjectName::parse("allow").expect("valid"),
                    },
                    labels: BTreeMap::new(),
                    annotations: BTreeMap::new(),
                    created: 0,
                    origin: mesh_api::model::Origin::default(),
                },
                selector: mesh_api::model::Selector::default(),
                targets: Vec::new(),
                action: Action::Allow,
                provider: None,
                rules,
                dry_run: false,
            })
        })
        .collect();
    let policies = WorkloadPolicies { mtls: mode, authorization: policies, ..WorkloadPolicies::default() };
    let config = ProxyConfig {
        mesh,
        workload: name.to_owned(),
        namespace,
        service_account: ServiceAccount::parse(name).expect("valid"),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        inbound: vec![port],
        locality: String::new(),
        completed: false,
    };
    Arc::new(WorkloadState::compile(config, policies, version.to_string().into(), None))
}

impl Mesh {
    /// Starts both proxies before an application at `application`.
    async fn start(application: SocketAddr, protocol: Protocol, mode: MtlsMode) -> Self {
        let authority =
            Authority::create(CaSettings::new(MeshSettings::default().trust_domain), SystemTime::now())
                .expect("authority");
        APPLICATION.set(Some(application));
        SERVICE.set(Some("240.240.0.1:80".parse().expect("address")));
        let (drain, draining) = drain::channel();
        let denials = Arc::new(Denials::default());
        let loopback = || listener::bind_address("127.0.0.1:0".parse().expect("address")).expect("bound");
        let (inbound, outbound) = (loopback(), loopback());
        let addresses = [&inbound, &outbound].map(|socket| socket.local_addr().expect("address"));
        let (client, server) = (State::new().0, State::new().0);
        let settings = Arc::new(DataPathSettings {
            fwmark: None,
            drain_deadline: Duration::from_secs(4),
            detect_wait: Duration::from_millis(20),
            request_head_timeout: Duration::from_secs(2),
            request_body_timeout: Duration::from_secs(2),
            ..DataPathSettings::default()
        });
        let identities = ["client", "server"].map(|name| identity(&authority, name));
        let log = LOG.take().unwrap_or_else(AccessLog::off);
        let setup = |number: usize, state: &State, inbound, outbound| WorkerSetup {
            id: 0,
            state: state.clone(),
            telemetry: Telemetry::new(log.clone(), Arc::clone(&denials)),
            identity: Arc::clone(&identities[number]),
            drain: draining.clone(),
            settings: Arc::clone(&settings),
            inbound,
            outbound,
            dialled: never,
        };
        let client_setup =
            WorkerSetup { dialled: dialled_outbound, ..setup(0, &client, loopback(), outbound) };
        let server_setup = WorkerSetup { dialled: dialled_inbound, ..setup(1, &server, inbound, loopback()) };
        let workers = [client_setup, server_setup]
            .map(|setup| tokio::task::spawn_local(run(setup)))
            .into_iter()
            .collect();
        let mesh = Self {
            client,
            server,
            inbound: addresses[0],
            outbound: addresses[1],
            denials,
            drain,
            mode,
            protocol,
            application,
            authority,
            identities,
            workers,
        };
        mesh.publish_client("server");
        mesh.publish_server(None, 1);
        mesh
    }

    /// The client's state: one service, whose endpoint is expected to be `expected`.
    fn publish_client(&self, expected: &str) {
        self.publish_destination(expected, None);
    }

    /// As [`Self::publish_client`], with a route that allows `timeout_ms` and states `retries`.
    fn publish_route(&self, timeout_ms: Option<u64>, retries: Option<Retries>) {
        let object = ObjectRef {
            kind: Kind::VirtualService,
            namespace: Namespace::parse("web").expect("valid"),
            name: ObjectName::parse("server").expect("valid"),
        };
        let target = WeightedTarget {
            host: Host::parse("server.web.svc.cluster.local").expect("valid"),
            port: None,
            subset: None,
            weight: 1,
        };
        let route = HttpRoute { targets: vec![target], timeout_ms, retries, ..HttpRoute::default() };
        let namespace = Namespace::parse("web").expect("valid");
        let account = ServiceAccount::parse("client").expect("valid");
        let caller = Subject { namespace: &namespace, labels: &BTreeMap::new(), service_account: &account };
        let set = RouteSet { object, http: vec![route] };
        let (table, problems) = RouteTable::compile(&set, &caller);
        assert!(problems.is_empty(), "{problems:?}");
        self.publish_destination("server", Some(table));
    }

    fn publish_destination(&self, expected: &str, routes: Option<RouteTable>) {
        let destination = Destination {
            host: "server.web.svc.cluster.local".to_owned(),
            object: ObjectRef {
                kind: Kind::Service,
                namespace: Namespace::parse("web").expect("valid"),
                name: ObjectName::parse("server").expect("valid"),
            },
            addresses: vec!["240.240.0.1".parse().expect("address")],
            headless: false,
            ports: vec![ServicePort {
                name: String::new(),
                port: 80,
                target_port: self.application.port(),
                target_port_name: None,
                protocol: self.protocol,
            }],
            endpoints: vec![Endpoint {
                address: self.inbound.ip(),
                workload: "server".to_owned(),
                namespace: Namespace::parse("web").expect("valid"),
                labels: BTreeMap::new(),
                target_ports: vec![self.inbound.port()],
                tls: vec![PeerTls::Mutual { identity: account(expected) }],
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
        let key = DestinationKey::Address("240.240.0.1".parse().expect("address"));
        let state = DestinationState::new(key.clone(), destination, routes, "1".into(), 1);
        let port = InboundPort {
            port: 1,
            protocol: Protocol::Auto,
            service_host: String::new(),
            service_name: String::new(),
            service_namespace: String::new(),
        };
        self.client.publish(ProxyState {
            revision: 0,
            workload: Some(workload("client", MtlsMode::Permissive, port, None, 1)),
            destinations: HashMap::from([(key, Known::Present(Arc::new(state)))]),
        });
    }

    /// The server's state: `rules` are those of one ALLOW policy.
    fn publish_server(&self, rules: Option<Vec<Rule>>, version: u32) {
        let port = InboundPort {
            port: self.application.port(),
            protocol: self.protocol,
            service_host: "server.web.svc.cluster.local".to_owned(),
            service_name: "server".to_owned(),
            service_namespace: "web".to_owned(),
        };
        self.server.publish(ProxyState {
            revision: 0,
            workload: Some(workload("server", self.mode, port, rules, version)),
            destinations: HashMap::new(),
        });
    }

    /// Sets the server's mode of mutual TLS and leaves the rest of its state as it is.
    fn publish_mode(&self, mode: MtlsMode) {
        let state = self.server.load_full();
        let before = state.workload.as_ref().expect("published");
        let policies = WorkloadPolicies { mtls: mode, ..before.policies.clone() };
        let next = WorkloadState::compile(before.config.clone(), policies, "mode".into(), Some(before));
        self.server.publish(ProxyState {
            revision: 0,
            workload: Some(Arc::new(next)),
            destinations: state.destinations.clone(),
        });
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.outbound).await.expect("connected")
    }
}

/// Runs a test that starts a mesh before the application that `application` makes of a listener.
fn run_test<A, T>(
    protocol: Protocol,
    mode: MtlsMode,
    application: impl FnOnce(TcpListener) -> A + 'static,
    test: impl FnOnce(Mesh) -> T + 'static,
) where
    A: Future<Output = ()> + 'static,
    T: Future<Output = ()> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        tokio::task::spawn_local(application(listener));
        let mesh = Mesh::start(address, protocol, mode).await;
        tokio::time::timeout(Duration::from_secs(60), test(mesh)).await.expect("in time");
    });
}

/// An application that answers every request with its head as the body.
async fn reflecting(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        tokio::task::spawn_local(async move {
            let mut buffer = Vec::new();
            loop {
                let Some(end) = find(&buffer, b"\r\n\r\n") else {
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    continue;
                };
                let head: Vec<u8> = buffer.drain(..end + 4).collect();
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse::<usize>().expect("a number"));
                while buffer.len() < length {
                    if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let body: Vec<u8> = buffer.drain(..length).collect();
                let answer = [
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len() + body.len())
                        .into_bytes(),
                    head,
                    body,
                ]
                .concat();
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Reads one response with a Content-Length; gives its head and body.
async fn response(stream: &mut TcpStream) -> (String, String) {
    let mut buffer = Vec::new();
    let end = loop {
        if let Some(end) = find(&buffer, b"\r\n\r\n") {
            break end + 4;
        }
        let length = stream.read_buf(&mut buffer).await.expect("read");
        assert_ne!(length, 0, "closed early: {:?}", String::from_utf8_lossy(&buffer));
    };
    let head = String::from_utf8(buffer[..end].to_vec()).expect("text");
    let length: usize = head
        .to_ascii_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned))
        .expect("a length")
        .parse()
        .expect("a number");
    while buffer.len() < end + length {
        assert_ne!(stream.read_buf(&mut buffer).await.expect("read"), 0, "closed early");
    }
    assert_eq!(buffer.len(), end + length, "nothing follows the response");
    (head, String::from_utf8(buffer[end..].to_vec()).expect("text"))
}

async fn get(stream: &mut TcpStream, path: &str) -> (String, String) {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: server\r\n\r\n").as_bytes())
        .await
        .expect("written");
    response(stream).await
}

fn allow_get_of(paths: &[&str], account: &str) -> Vec<Rule> {
    vec![Rule {
        from: vec![Source {
            principals: vec![format!("cluster.local/ns/web/sa/{account}")],
            ..Source::default()
        }],
        to: vec![Operation {
            methods: vec!["GET".to_owned()],
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Operation::default()
        }],
        when: Vec::new(),
    }]
}

#[test]
fn requests_pass_both_proxies_on_one_kept_connection() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        for path in ["/a", "/b/../c?d"] {
            let (head, body) = get(&mut stream, path).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
            assert!(body.to_ascii_lowercase().contains("host: server\r\n"), "{body}");
        }
        let (_, body) = get(&mut stream, "/x/../y").await;
        assert!(body.starts_with("GET /y HTTP/1.1\r\n"), "{body}");
    });
}

#[test]
fn strict_serves_no_plaintext() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        let _either_way = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("200"), "{answer:?}");
    });
}

#[test]
fn permissive_serves_plaintext_and_strict_ends_it_at_the_next_request() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mut mesh| {
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 200"));
        mesh.mode = MtlsMode::Strict;
        mesh.publish_server(None, 2);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        let _either_way = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    });
}

#[test]
fn a_denied_request_is_answered_403_and_the_connection_stays() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/ok"], "client")), 2);
        let mut stream = mesh.dial().await;
        let (head, body) = get(&mut stream, "/no").await;
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: text/plain\r\n"), "{head}");
        assert_eq!(body, "RBAC: access denied");
        assert!(get(&mut stream, "/ok").await.0.starts_with("HTTP/1.1 200"));
        assert!(get(&mut stream, "/ok/../no").await.0.starts_with("HTTP/1.1 403"));
        stream
            .write_all(b"POST /ok HTTP/1.1\r\nHost: server\r\nContent-Length: 5\r\n\r\nhello")
            .await
            .expect("written");
        assert!(response(&mut stream).await.0.starts_with("HTTP/1.1 403"));
        assert!(get(&mut stream, "/ok").await.0.starts_with("HTTP/1.1 200"));
        assert_eq!(mesh.denials.list().len(), 2, "alike refusals share an entry");
    });
}

#[test]
fn a_refusal_names_its_decision_to_a_peer_of_the_mesh_and_not_to_a_stranger() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/ok"], "client")), 2);
        let (head, _) = get(&mut mesh.dial().await, "/no").await;
        let id = head.lines().find_map(|line| line.strip_prefix("x-mesh-decision: ")).expect("an id").trim();
        let id = u64::from_str_radix(id, 16).expect("hexadecimal");
        let denial = mesh.denials.find(id).expect("remembered");
        assert_eq!((denial.path.as_str(), denial.id), ("/no", format!("{id:016x}")));
        assert_eq!(denial.explanation["nearestMiss"]["unmet"][0]["field"], "paths", "{}", denial.explanation);
        let mut stranger = TcpStream::connect(mesh.inbound).await.expect("connected");
        let (head, _) = get(&mut stranger, "/no").await;
        assert!(head.starts_with("HTTP/1.1 403 ") && !head.contains("x-mesh-decision"), "{head}");
    });
}

#[test]
fn a_policy_change_holds_for_the_next_request_of_an_open_connection() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        mesh.publish_server(Some(allow_get_of(&["/b"], "client")), 2);
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 403"));
        mesh.publish_server(Some(allow_get_of(&["/a"], "somebody-else")), 3);
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 403"));
        mesh.publish_server(Some(allow_get_of(&["/a"], "client")), 4);
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
    });
}

#[test]
fn an_endpoint_with_another_identity_is_not_spoken_to() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        mesh.publish_client("somebody-else");
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 503"));
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        let requests: String = (0..20)
            .map(|n| format!("POST /{n} HTTP/1.1\r\nHost: server\r\nContent-Length: 2\r\n\r\n{n:02}"))
            .collect();
        stream.write_all(requests.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n19") {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "closed early");
        }
        let answer = String::from_utf8_lossy(&answer);
        let places: Vec<_> = (0..20).filter_map(|n| answer.find(&format!("POST /{n} HTTP/1.1"))).collect();
        assert!(places.len() == 20 && places.is_sorted(), "{places:?}");
    });
}

#[test]
fn a_large_body_streams_through_in_chunks() {
    async fn counting(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut total = Vec::new();
            while find(&total, b"\r\n0\r\n\r\n").is_none() {
                if stream.read_buf(&mut total).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let bytes = total.iter().filter(|&&byte| byte == b'z').count().to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{bytes}", bytes.len());
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, counting, async |mesh| {
        let mut stream = mesh.dial().await;
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: server\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .expect("written");
        for _ in 0..40 {
            stream.write_all(b"2000\r\n").await.expect("written");
            stream.write_all(&[b'z'; 0x2000]).await.expect("written");
            stream.write_all(b"\r\n").await.expect("written");
        }
        stream.write_all(b"0\r\n\r\n").await.expect("written");
        assert_eq!(response(&mut stream).await.1, (40 * 0x2000).to_string());
    });
}

#[test]
fn a_stale_kept_connection_costs_no_error() {
    async fn once_each(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = Vec::new();
            while find(&buffer, b"\r\n\r\nhello").is_none() {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            // Says that it would keep the connection, and does not.
            let _either_way = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, once_each, async |mesh| {
        let mut stream = mesh.dial().await;
        for _ in 0..10 {
            stream
                .write_all(b"POST / HTTP/1.1\r\nHost: server\r\nContent-Length: 5\r\n\r\nhello")
                .await
                .expect("written");
            let (head, body) = response(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(body, "ok");
        }
    });
}

#[test]
fn a_websocket_is_cut_when_policy_no_longer_allows_it() {
    async fn echo_after_switch(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while find(&head, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let answer =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
            stream.write_all(answer).await.expect("written");
            let (mut read, mut write) = stream.split();
            let _either_way = tokio::io::copy(&mut read, &mut write).await;
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, echo_after_switch, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/chat"], "client")), 2);
        let mut stream = mesh.dial().await;
        stream
            .write_all(
                b"GET /chat HTTP/1.1\r\nHost: server\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await
            .expect("written");
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\nhi") {
            assert_ne!(stream.read_buf(&mut got).await.expect("read"), 0, "closed early");
        }
        stream.write_all(b"ping").await.expect("written");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).await.expect("read");
        assert_eq!(&echo, b"ping");
        mesh.publish_server(Some(allow_get_of(&["/other"], "client")), 3);
        assert!(!matches!(stream.read(&mut echo).await, Ok(length) if length > 0));
    });
}

async fn greeting(listener: TcpListener) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        tokio::task::spawn_local(async move {
            stream.write_all(b"220 ready\r\n").await.ok();
            let (mut read, mut write) = stream.split();
            let _either_way = tokio::io::copy(&mut read, &mut write).await;
        });
    }
}

#[test]
fn an_application_that_speaks_first_works_without_declaration() {
    run_test(Protocol::Auto, MtlsMode::Strict, greeting, async |mesh| {
        let mut stream = mesh.dial().await;
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.expect("read");
        assert_eq!(&greeting, b"220 ready\r\n");
        stream.write_all(b"QUIT now\r\n").await.expect("written");
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).await.expect("read");
        assert_eq!(&echo, b"QUIT now\r\n");
    });
}

#[test]
fn an_application_that_speaks_first_works_in_plaintext_too() {
    run_test(Protocol::Auto, MtlsMode::Permissive, greeting, async |mesh| {
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.expect("read");
        assert_eq!(&greeting, b"220 ready\r\n");
    });
}

/// An application that waits before it greets each connection, and then ends it.
async fn late_greeting(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.write_all(b"220 ready\r\n").await.expect("written");
        });
    }
}

#[test]
fn a_client_that_only_listens_is_served_on_an_undeclared_port() {
    run_test(Protocol::Auto, MtlsMode::Strict, late_greeting, async |mesh| {
        // At once, within the time that detection waits, and while the application is asked.
        for pause in [0, 5, 60] {
            let mut stream = mesh.dial().await;
            tokio::time::sleep(Duration::from_millis(pause)).await;
            stream.shutdown().await.expect("ended");
            assert_eq!(all(&mut stream).await, "220 ready\r\n", "ended after {pause} ms");
        }
    });
}

#[test]
fn a_client_that_only_listens_is_served_in_plaintext_too() {
    for protocol in [Protocol::Auto, Protocol::Tcp] {
        for mode in [MtlsMode::Permissive, MtlsMode::Disable] {
            run_test(protocol, mode, late_greeting, async |mesh| {
                for pause in [0, 5, 60] {
                    let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    stream.shutdown().await.expect("ended");
                    assert_eq!(all(&mut stream).await, "220 ready\r\n", "ended after {pause} ms");
                }
            });
        }
    }
}

#[test]
fn a_client_that_only_listens_is_not_served_by_what_policy_or_strict_keeps_from_it() {
    run_test(Protocol::Auto, MtlsMode::Permissive, late_greeting, async |mesh| {
        mesh.publish_server(Some(Vec::new()), 2);
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        stream.shutdown().await.expect("ended");
        let mut answer = Vec::new();
        let _either_way = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    });
    run_test(Protocol::Auto, MtlsMode::Strict, late_greeting, async |mesh| {
        let mut stream = TcpStream::connect(mesh.inbound).await.expect("connected");
        stream.shutdown().await.expect("ended");
        let mut answer = Vec::new();
        let _either_way = stream.read_to_end(&mut answer).await;
        // The handshake's own alert is all that a stranger may see.
        assert!(find(&answer, b"220").is_none());
    });
}

#[test]
fn a_client_that_hesitates_still_gets_http_on_an_undeclared_port() {
    run_test(Protocol::Auto, MtlsMode::Strict, reflecting, async |mesh| {
        mesh.publish_server(Some(allow_get_of(&["/ok"], "client")), 2);
        let mut stream = mesh.dial().await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert!(get(&mut stream, "/ok").await.0.starts_with("HTTP/1.1 200"));
        assert!(get(&mut stream, "/no").await.0.starts_with("HTTP/1.1 403"));
    });
}

#[test]
fn a_policy_change_cuts_an_open_stream() {
    run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async |mesh| {
        let mut stream = mesh.dial().await;
        let mut greeting = [0; 11];
        stream.read_exact(&mut greeting).await.expect("read");
        let allow_client = vec![Rule {
            from: vec![Source { namespaces: vec!["web".to_owned()], ..Source::default() }],
            ..Rule::default()
        }];
        mesh.publish_server(Some(allow_client), 2);
        stream.write_all(b"still here!").await.expect("written");
        stream.read_exact(&mut greeting).await.expect("a policy that allows it changes nothing");
        mesh.publish_server(Some(Vec::new()), 3);
        assert!(!matches!(stream.read(&mut greeting).await, Ok(length) if length > 0));
        assert_eq!(mesh.denials.list().len(), 1);
    });
}

#[test]
fn a_denied_stream_reaches_nothing() {
    run_test(Protocol::Tcp, MtlsMode::Strict, greeting, async |mesh| {
        mesh.publish_server(Some(Vec::new()), 2);
        let mut stream = mesh.dial().await;
        let mut answer = Vec::new();
        let _either_way = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{answer:?}");
    });
}

#[test]
fn smuggling_shapes_are_answered_by_the_first_proxy() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let cases = [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", "400"),
            ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400"),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ];
        for (request, status) in cases {
            let mut stream = mesh.dial().await;
            stream.write_all(request.as_bytes()).await.expect("written");
            let (head, _) = response(&mut stream).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
        }
    });
}

#[test]
fn a_response_that_is_cut_is_cut_for_the_client_too() {
    async fn cutting(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while find(&head, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _either_way = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, cutting, async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        assert!(ended.is_err() || answer.len() < 100, "{ended:?}");
    });
}

#[test]
fn draining_ends_a_kept_connection_after_its_response_and_then_the_worker() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/a").await.0.starts_with("HTTP/1.1 200"));
        mesh.drain.begin();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.expect("closed in order");
        for worker in mesh.workers {
            worker.await.expect("joined").expect("ended well");
        }
    });
}

#[test]
fn ten_thousand_requests_need_one_connection_to_the_application() {
    let accepted = Rc::new(Cell::new(0));
    let counted = Rc::clone(&accepted);
    let application = move |listener: TcpListener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            let mut buffer = Vec::new();
            while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
                if buffer.ends_with(b"\r\n\r\n") {
                    buffer.clear();
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    stream.write_all(answer).await.expect("written");
                }
            }
        }
    };
    run_test(Protocol::Http, MtlsMode::Strict, application, async move |mesh| {
        let mut stream = mesh.dial().await;
        for _ in 0..10_000 {
            assert_eq!(get(&mut stream, "/a").await.1, "ok");
        }
        assert_eq!(accepted.get(), 1);
    });
}

/// An application that answers each connection's requests with fixed bytes, one by one, and then closes.
fn scripted(answers: &'static [&'static str]) -> impl FnOnce(TcpListener) -> Scripted {
    move |listener| {
        Box::pin(async move {
            let mut answers = answers.iter();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = Vec::new();
                while let Ok(length) = stream.read_buf(&mut buffer).await
                    && length > 0
                {
                    while let Some(end) = find(&buffer, b"\r\n\r\n") {
                        buffer.drain(..end + 4);
                        let Some(answer) = answers.next() else { return };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                }
            }
        })
    }
}

type Scripted = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Everything until the connection ends.
async fn all(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("closed in order");
    String::from_utf8(answer).expect("text")
}

#[test]
fn interim_responses_and_trailers_pass() {
    let answers =
        &["HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\
          Connection: close\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("written");
        let answer = all(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n"), "{answer}");
    });
}

#[test]
fn an_old_client_gets_a_body_without_chunks_and_the_end_of_the_connection() {
    let answers = &["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("written");
        let answer = all(&mut stream).await;
        assert!(!answer.to_ascii_lowercase().contains("transfer-encoding"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
    });
}

#[test]
fn a_response_that_ends_with_its_connection_is_chunked_for_the_client() {
    async fn until_close(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while find(&head, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _either_way = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, until_close, async |mesh| {
        let mut stream = mesh.dial().await;
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n0\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "stays open");
            }
            assert!(find(&answer, b"until the end").is_some());
        }
    });
}

#[test]
fn an_answer_to_head_has_no_body_and_the_connection_stays() {
    let answers = &[
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        for method in ["HEAD", "GET"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("written");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut head).await.expect("read"), 0, "stays open");
            }
            assert!(find(&head, b"500").is_some(), "the length that a GET would have had is told");
        }
        assert_eq!(get(&mut stream, "/").await.1, "ok");
    });
}

#[test]
fn a_response_that_can_be_read_in_two_ways_is_not_handed_on() {
    let answers = &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 502"));
    });
}

#[test]
fn a_client_that_waits_for_continue_is_told_by_the_application() {
    async fn continuing(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = Vec::new();
            while find(&buffer, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.expect("written");
            while find(&buffer, b"\r\n\r\nhello").is_none() {
                if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.expect("written");
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, continuing, async |mesh| {
        let mut stream = mesh.dial().await;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(head).await.expect("written");
        let mut interim = [0; 25];
        stream.read_exact(&mut interim).await.expect("read");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream.write_all(b"hello").await.expect("written");
        assert_eq!(response(&mut stream).await.1, "ok");
    });
}

#[test]
fn an_early_response_arrives_while_the_request_is_still_sent() {
    let answers = &["HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nonly a beginning";
        stream.write_all(head).await.expect("written");
        let answer = all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"), "{answer}");
    });
}

#[test]
fn events_are_handed_on_as_they_come() {
    async fn events(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while find(&head, b"\r\n\r\n").is_none() {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";
            stream.write_all(start).await.expect("written");
            // Holds the second event back until the client has gone.
            while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {}
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, events, async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        let mut answer = Vec::new();
        while find(&answer, b"3\r\none\r\n").is_none() {
            assert_ne!(stream.read_buf(&mut answer).await.expect("read"), 0, "stays open");
        }
    });
}

#[test]
fn a_client_that_goes_away_ends_the_request_upstream() {
    let (gone, told) = tokio::sync::oneshot::channel();
    let waiting = move |listener: TcpListener| async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        let mut bytes = Vec::new();
        while stream.read_buf(&mut bytes).await.unwrap_or(0) > 0 {}
        gone.send(()).expect("awaited");
    };
    run_test(Protocol::Http, MtlsMode::Strict, waiting, async move |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
        drop(stream);
        told.await.expect("the application saw the end");
        drop(mesh);
    });
}

#[test]
fn a_slow_head_is_answered_408_and_an_oversized_one_431() {
    run_test(Protocol::Http, MtlsMode::Strict, reflecting, async |mesh| {
        let mut large = mesh.dial().await;
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(70_000));
        large.write_all(head.as_bytes()).await.expect("written");
        assert!(all(&mut large).await.starts_with("HTTP/1.1 431"));
        let mut slow = mesh.dial().await;
        slow.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.expect("written");
        assert!(all(&mut slow).await.starts_with("HTTP/1.1 408"));
    });
}

#[test]
fn a_failure_is_retried_only_when_the_route_says_so() {
    let answers = &[
        "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 503"));
        let retries = Retries { attempts: 2, per_try_timeout_ms: None, retry_on: vec!["5xx".to_owned()] };
        mesh.publish_route(None, Some(retries));
        assert_eq!(get(&mut stream, "/").await.1, "ok");
    });
}

#[test]
fn a_route_that_takes_too_long_is_answered_504() {
    async fn silent(listener: TcpListener) {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    }
    run_test(Protocol::Http, MtlsMode::Strict, silent, async |mesh| {
        mesh.publish_route(Some(50), None);
        let mut stream = mesh.dial().await;
        let (head, body) = get(&mut stream, "/").await;
        assert!(head.starts_with("HTTP/1.1 504"), "{head}");
        assert_eq!(body, "upstream request timeout");
    });
}

#[test]
fn a_reset_of_the_application_is_a_reset_for_the_client() {
    async fn resetting(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut byte = [0; 1];
            if stream.read_exact(&mut byte).await.is_ok() {
                crate::accept::downstream::reset_on_drop(&stream);
            }
        }
    }
    run_test(Protocol::Tcp, MtlsMode::Strict, resetting, async |mesh| {
        let mut stream = mesh.dial().await;
        stream.write_all(b"x").await.expect("written");
        let ended = stream.read(&mut [0; 8]).await;
        let error = ended.expect_err("not an orderly end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn an_unknown_destination_passes_as_it_is_and_one_that_could_not_be_asked_for_does_not() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let key = DestinationKey::Address(mesh.application.ip());
        SERVICE.set(Some(mesh.application));
        let mut unanswered = mesh.dial().await;
        let (head, _) = get(&mut unanswered, "/").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        let workload = mesh.client.load().workload.clone();
        mesh.client.publish(ProxyState {
            revision: 0,
            workload,
            destinations: HashMap::from([(key, Known::Absent)]),
        });
        let mut absent = mesh.dial().await;
        assert!(get(&mut absent, "/").await.0.starts_with("HTTP/1.1 200"));
    });
}
