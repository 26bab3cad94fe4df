use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use mesh_api::model::{
    Destination, DestinationKey, Endpoint, Kind, MeshSettings, ObjectRef, PeerTls, ProxyConfig,
    WorkloadPolicies,
};
use mesh_api::name::{Host, Namespace, ObjectName, ServiceAccount};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::question::Transport;
use super::question::tests::ask;
use super::resolver::Resolver;
use super::upstream::{Upstream, framed};
use super::*;
use crate::state::{DestinationState, Known, ProxyState, WorkloadState};

const CATALOG: &str = "catalog.backend.svc.cluster.local";

pub(super) fn destination(host: &str, addresses: &[&str]) -> Destination {
    Destination {
        host: host.to_owned(),
        object: ObjectRef {
            kind: Kind::Service,
            namespace: Namespace::parse("backend").expect("valid"),
            name: ObjectName::parse("catalog").expect("valid"),
        },
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        headless: false,
        ports: Vec::new(),
        endpoints: Vec::new(),
        resolution: mesh_api::model::service::Resolution::Static,
        policy: mesh_api::model::traffic::TrafficPolicy::default(),
        port_level: Vec::new(),
        subsets: Vec::new(),
        destination_rule: None,
        routes: None,
        direct: None,
    }
}

pub(super) fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: address.parse().expect("an address"),
        workload: "store".to_owned(),
        namespace: Namespace::parse("backend").expect("valid"),
        labels: BTreeMap::new(),
        target_ports: Vec::new(),
        tls: vec![PeerTls::Plaintext],
        weight: 1,
        draining: false,
        zones: Vec::new(),
    }
}

fn workload() -> Arc<WorkloadState> {
    let mesh = MeshSettings::default();
    let config = ProxyConfig {
        mesh,
        workload: "frontend".to_owned(),
        namespace: Namespace::parse("web").expect("valid"),
        service_account: ServiceAccount::parse("frontend").expect("valid"),
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        inbound: Vec::new(),
        locality: String::new(),
        completed: false,
    };
    Arc::new(WorkloadState::compile(config, WorkloadPolicies::default(), "1".into(), None))
}

/// A state whose workload is configured, and the questions to its control plane.
fn configured() -> (State, mpsc::Receiver<DestinationKey>) {
    let (state, questions) = State::new();
    state.publish(ProxyState { workload: Some(workload()), ..ProxyState::default() });
    (state, questions)
}

/// A state with a control plane that knows these hosts and no others. It lives as long as the set of tasks.
fn mesh(tasks: &mut JoinSet<()>, known: Vec<Destination>) -> State {
    let (state, mut questions) = configured();
    let control = state.clone();
    tasks.spawn(async move {
        while let Some(key) = questions.recv().await {
            let found = known.iter().find(|one| key == host_key(&one.host));
            let answer = found.map_or(Known::Absent, |destination| {
                let state = DestinationState::new(key.clone(), destination.clone(), None, "1".into(), 1);
                Known::Present(Arc::new(state))
            });
            let current = control.load();
            let mut destinations: HashMap<_, _> = current.destinations.clone();
            destinations.insert(key, answer);
            let workload = current.workload.clone();
            drop(current);
            control.publish(ProxyState { revision: 0, workload, destinations });
        }
    });
    state
}

fn host_key(host: &str) -> DestinationKey {
    DestinationKey::Host(Host::parse(host).expect("a host"))
}

fn catalog() -> Destination {
    destination(CATALOG, &["240.240.0.1", "fd00::1"])
}

fn read(bytes: &[u8]) -> Message {
    Message::from_vec(bytes).expect("readable")
}

fn data(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

fn code(bytes: &[u8]) -> ResponseCode {
    read(bytes).metadata.response_code
}

/// Listens on a free port of the loopback and serves for as long as the set of tasks lives.
fn start(tasks: &mut JoinSet<()>, state: State, upstreams: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let listeners =
        Listeners::bind(DnsSettings { listen, upstreams, is_cluster: false, fwmark: None }).expect("bound");
    let addresses = listeners.addresses();
    tasks.spawn(listeners.serve(state, std::future::pending()));
    addresses
}

async fn over_udp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let local: SocketAddr =
        if server.is_ipv4() { ([127, 0, 0, 1], 0).into() } else { (Ipv6Addr::LOCALHOST, 0).into() };
    let socket = UdpSocket::bind(local).await.expect("bound");
    socket.connect(server).await.expect("connected");
    socket.send(message).await.expect("sent");
    let mut buffer = vec![0; 65_535];
    let length = socket.recv(&mut buffer).await.expect("an answer from the address that was asked");
    buffer.truncate(length);
    buffer
}

async fn exchange(stream: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(&framed(message)).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// What a resolver of the world says to a question: `addresses` of them, and nothing it has cut.
fn worldly(question: &[u8], addresses: u8) -> Vec<u8> {
    let mut message = read(question).into_response();
    let name = message.queries[0].name().clone();
    for number in 0..addresses {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, number)));
        message.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    message.to_vec().expect("encodes")
}

fn with_code(question: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut message = read(question).into_response();
    message.metadata.response_code = code;
    message.to_vec().expect("encodes")
}

/// A resolver outside: sends what `reply` makes of each datagram, and tells what it was asked.
async fn outside(
    tasks: &mut JoinSet<()>,
    reply: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static,
) -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    let address = socket.local_addr().expect("bound");
    let (asked, heard) = mpsc::channel(16);
    tasks.spawn(async move {
        let mut buffer = vec![0; 65_535];
        let mut count = 0;
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            for answer in reply(count, &buffer[..length]) {
                socket.send_to(&answer, client).await.expect("sent");
            }
            count += 1;
            // Tests that do not look drop the receiver, or leave it to fill up.
            drop(asked.try_send(buffer[..length].to_vec()));
        }
    });
    (address, heard)
}

#[tokio::test]
async fn every_form_of_a_mesh_name_is_answered_over_both_transports() {
    let mut tasks = JoinSet::new();
    let state =
        mesh(&mut tasks, vec![catalog(), destination("frontend.web.svc.cluster.local", &["240.240.0.2"])]);
    for server in start(&mut tasks, state, vec![]) {
        for name in ["catalog.backend.", "catalog.backend.svc.", "Catalog.Backend.svc.cluster.local."] {
            let answer = read(&over_udp(server, &ask(42, name, RecordType::A, None)).await);
            assert_eq!((answer.metadata.id, data(&answer)), (42, vec!["240.240.0.1".to_owned()]), "{name}");
            let mut stream = TcpStream::connect(server).await.expect("connected");
            for (kind, wanted) in [(RecordType::A, "240.240.0.1"), (RecordType::AAAA, "fd00::1")] {
                let answer =
                    exchange(&mut stream, &ask(43, name, kind, Some(1232))).await.expect("an answer");
                assert_eq!(data(&read(&answer)), [wanted], "{name}");
            }
        }
        let answer = read(&over_udp(server, &ask(1, "frontend.", RecordType::A, None)).await);
        assert_eq!(data(&answer), ["240.240.0.2"]);
        let answer = read(&over_udp(server, &ask(1, "frontend.", RecordType::AAAA, None)).await);
        assert_eq!((answer.metadata.response_code, data(&answer)), (ResponseCode::NoError, vec![]));
        let answer = read(&over_udp(server, &ask(1, "catalog.backend.", RecordType::TXT, None)).await);
        assert_eq!((answer.metadata.response_code, data(&answer)), (ResponseCode::NoError, vec![]));
    }
}

#[tokio::test]
async fn names_of_the_world_are_relayed_unchanged_but_for_their_number() {
    let mut tasks = JoinSet::new();
    let (resolver, mut asked) = outside(&mut tasks, |_, question| vec![worldly(question, 2)]).await;
    let state = mesh(&mut tasks, vec![catalog()]);
    let server = start(&mut tasks, state, vec![resolver])[0];
    for (name, kind) in [
        ("foo.com.", RecordType::A),
        ("api.example.com.", RecordType::HTTPS),
        ("4.3.2.1.in-addr.arpa.", RecordType::PTR),
        (".", RecordType::NS),
    ] {
        let question = ask(42, name, kind, Some(1232));
        let answer = over_udp(server, &question).await;
        let heard = asked.recv().await.expect("relayed");
        assert_eq!(heard[2..], question[2..], "{name}");
        assert_eq!(answer[..2], question[..2]);
        assert_eq!(answer[2..], worldly(&heard, 2)[2..]);
    }
}

#[tokio::test]
async fn a_registered_name_of_the_world_is_the_meshs_with_an_address_and_the_worlds_without() {
    let mut tasks = JoinSet::new();
    let (resolver, _asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let mut plain = destination("plain.example.com", &[]);
    plain.resolution = mesh_api::model::service::Resolution::Dns;
    let state = mesh(&mut tasks, vec![destination("api.example.com", &["240.240.0.7"]), plain]);
    let server = start(&mut tasks, state, vec![resolver])[0];
    let answer = over_udp(server, &ask(1, "api.example.com.", RecordType::A, None)).await;
    assert_eq!(data(&read(&answer)), ["240.240.0.7"]);
    // With an address of the world, IPv6 would go past the mesh.
    let answer = over_udp(server, &ask(1, "api.example.com.", RecordType::AAAA, None)).await;
    assert_eq!((code(&answer), data(&read(&answer))), (ResponseCode::NoError, vec![]));
    let answer = over_udp(server, &ask(1, "plain.example.com.", RecordType::A, None)).await;
    assert_eq!(data(&read(&answer)), ["192.0.2.0"]);
}

#[tokio::test]
async fn forged_answers_are_passed_over() {
    let mut tasks = JoinSet::new();
    let (resolver, _asked) = outside(&mut tasks, |_, question| {
        let right = worldly(question, 1);
        let mut number = worldly(question, 9);
        number[0] ^= 1;
        let mut no_answer = worldly(question, 9);
        no_answer[2] &= 0x7f;
        let other = worldly(
            &ask(u16::from_be_bytes([question[0], question[1]]), "evil.com.", RecordType::A, None),
            9,
        );
        vec![number, no_answer, other, question[..5].to_vec(), vec![], right]
    })
    .await;
    let state = mesh(&mut tasks, vec![]);
    let server = start(&mut tasks, state, vec![resolver])[0];
    let answer = over_udp(server, &ask(5, "foo.com.", RecordType::A, None)).await;
    assert_eq!(data(&read(&answer)), ["192.0.2.0"]);
}

#[tokio::test]
async fn a_cut_answer_is_fetched_over_tcp_and_passed_on_if_the_client_takes_it() {
    let mut tasks = JoinSet::new();
    let (resolver, _asked) = outside(&mut tasks, |_, question| {
        let mut cut = worldly(question, 0);
        cut[2] |= 2;
        vec![cut]
    })
    .await;
    let listener = TcpListener::bind(resolver).await.expect("the same port");
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut length = [0; 2];
            stream.read_exact(&mut length).await.expect("a question");
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).await.expect("a question");
            stream.write_all(&framed(&worldly(&question, 60))).await.expect("sent");
        }
    });
    let state = mesh(&mut tasks, vec![]);
    let server = start(&mut tasks, state, vec![resolver])[0];
    let whole = read(&over_udp(server, &ask(5, "foo.com.", RecordType::A, Some(4096))).await);
    assert_eq!((whole.answers.len(), whole.metadata.truncation, whole.metadata.id), (60, false, 5));
    let cut = read(&over_udp(server, &ask(6, "foo.com.", RecordType::A, None)).await);
    assert_eq!((cut.answers.len(), cut.metadata.truncation, cut.metadata.id), (0, true, 6));
    let mut stream = TcpStream::connect(server).await.expect("connected");
    let whole = exchange(&mut stream, &ask(7, "foo.com.", RecordType::A, None)).await.expect("an answer");
    assert_eq!((read(&whole).answers.len(), read(&whole).metadata.id), (60, 7));
}

#[tokio::test]
async fn a_resolver_that_refuses_leaves_the_question_to_the_next() {
    let mut tasks = JoinSet::new();
    let (sulking, mut first) =
        outside(&mut tasks, |_, question| vec![with_code(question, ResponseCode::Refused)]).await;
    let (willing, _second) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let state = mesh(&mut tasks, vec![]);
    let server = start(&mut tasks, state.clone(), vec![sulking, willing])[0];
    let answer = over_udp(server, &ask(5, "foo.com.", RecordType::A, None)).await;
    assert_eq!(data(&read(&answer)), ["192.0.2.0"]);
    assert!(first.recv().await.is_some(), "the first was not asked");
    // With nobody left, the refusal is the answer.
    let server = start(&mut tasks, state, vec![sulking])[0];
    assert_eq!(
        code(&over_udp(server, &ask(5, "foo.com.", RecordType::A, None)).await),
        ResponseCode::Refused
    );
}

#[tokio::test]
async fn that_a_name_does_not_exist_is_an_answer_like_any_other() {
    let mut tasks = JoinSet::new();
    let (resolver, _first) =
        outside(&mut tasks, |_, question| vec![with_code(question, ResponseCode::NXDomain)]).await;
    let (never, mut asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let state = mesh(&mut tasks, vec![]);
    let server = start(&mut tasks, state, vec![resolver, never])[0];
    assert_eq!(
        code(&over_udp(server, &ask(5, "foo.com.", RecordType::A, None)).await),
        ResponseCode::NXDomain
    );
    assert!(asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_question_is_sent_again_and_a_silent_resolver_left() {
    let mut tasks = JoinSet::new();
    let (lossy, mut asked) =
        outside(&mut tasks, |count, question| if count == 0 { vec![] } else { vec![worldly(question, 1)] })
            .await;
    let state = mesh(&mut tasks, vec![]);
    let resolver = Resolver::new(state.clone(), Upstream::new(vec![lossy], None));
    let question = ask(5, "foo.com.", RecordType::A, None);
    let answer = resolver.answer(&question, Transport::Udp).await.expect("an answer");
    assert_eq!(data(&read(&answer)), ["192.0.2.0"]);
    assert_eq!(asked.recv().await, asked.recv().await, "the same question twice");

    let (silent, _asked) = outside(&mut tasks, |_, _| vec![]).await;
    let resolver = Resolver::new(state, Upstream::new(vec![silent], None));
    let begin = Instant::now();
    let answer = resolver.answer(&question, Transport::Udp).await.expect("an answer");
    assert_eq!(code(&answer), ResponseCode::ServFail);
    assert!(begin.elapsed() < Duration::from_secs(5), "the client has asked again by then");
}

#[tokio::test]
async fn without_an_upstream_the_world_fails_and_what_only_the_mesh_could_have_does_not_exist() {
    let mut tasks = JoinSet::new();
    let resolver = Resolver::new(mesh(&mut tasks, vec![catalog()]), Upstream::new(vec![], None));
    for (name, wanted) in [
        ("foo.com.", ResponseCode::ServFail),
        ("api.example.com.", ResponseCode::ServFail),
        ("nobody.backend.svc.cluster.local.", ResponseCode::NXDomain),
        // As a resolver with a search list asks.
        ("catalog.backend.web.svc.cluster.local.", ResponseCode::NXDomain),
        ("nobody.backend.svc.", ResponseCode::NXDomain),
        ("nobody.", ResponseCode::NXDomain),
        ("catalog.backend.", ResponseCode::NoError),
    ] {
        let answer = resolver.answer(&ask(5, name, RecordType::A, None), Transport::Udp).await;
        assert_eq!(code(&answer.expect("an answer")), wanted, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_control_plane_is_silent_mesh_names_fail_and_do_not_leave() {
    let mut tasks = JoinSet::new();
    let (outside, mut asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let (state, _questions) = configured();
    let resolver = Resolver::new(state, Upstream::new(vec![outside], None));
    for name in ["catalog.backend.svc.cluster.local.", "catalog.backend.svc.", "catalog."] {
        let begin = Instant::now();
        let answer = resolver.answer(&ask(5, name, RecordType::A, None), Transport::Udp).await;
        assert_eq!(code(&answer.expect("an answer")), ResponseCode::ServFail, "{name}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{name}");
    }
    assert!(asked.try_recv().is_err(), "a name of the mesh left");
}

#[tokio::test(start_paused = true)]
async fn in_a_cluster_its_resolver_answers_while_the_control_plane_is_silent() {
    let mut tasks = JoinSet::new();
    let (outside, mut asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let (state, _questions) = configured();
    let resolver = Resolver::new(state, Upstream::new(vec![outside], None).of_cluster());
    for (name, longest) in
        [("catalog.backend.svc.cluster.local.", 1_500), ("other.web.svc.cluster.local.", 100)]
    {
        let begin = Instant::now();
        let answer = resolver.answer(&ask(5, name, RecordType::A, None), Transport::Udp).await;
        assert_eq!(data(&read(&answer.expect("an answer"))), ["192.0.2.0"], "{name}");
        assert!(begin.elapsed() < Duration::from_millis(longest), "{name}");
        assert!(asked.recv().await.is_some());
    }
}

#[tokio::test]
async fn in_a_cluster_records_that_the_mesh_does_not_keep_are_its_resolvers() {
    let mut tasks = JoinSet::new();
    let (outside, _asked) = outside(&mut tasks, |_, question| vec![worldly(question, 2)]).await;
    let state = mesh(&mut tasks, vec![catalog()]);
    let name = "catalog.backend.svc.cluster.local.";
    for (kind, answers) in [(RecordType::SRV, 2), (RecordType::A, 1)] {
        let upstream = Upstream::new(vec![outside], None);
        let resolver = Resolver::new(state.clone(), upstream.of_cluster());
        let answer = resolver.answer(&ask(5, name, kind, None), Transport::Udp).await;
        assert_eq!(data(&read(&answer.expect("an answer"))).len(), answers, "{kind}");
        let resolver = Resolver::new(state.clone(), Upstream::new(vec![outside], None));
        let answer = resolver.answer(&ask(5, name, kind, None), Transport::Udp).await;
        let own = if kind == RecordType::A { 1 } else { 0 };
        assert_eq!(data(&read(&answer.expect("an answer"))).len(), own, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_control_plane_is_silent_names_of_the_world_wait_once() {
    let mut tasks = JoinSet::new();
    let (outside, _asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let (state, _questions) = configured();
    let resolver = Resolver::new(state, Upstream::new(vec![outside], None));
    let time = async |name: &str| {
        let begin = Instant::now();
        let answer = resolver.answer(&ask(5, name, RecordType::A, None), Transport::Udp).await;
        assert_eq!(data(&read(&answer.expect("an answer"))), ["192.0.2.0"]);
        begin.elapsed()
    };
    assert!(time("foo.com.").await >= Duration::from_secs(1));
    assert!(time("bar.com.").await < Duration::from_millis(100));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(time("baz.com.").await >= Duration::from_secs(1), "the control plane may be back");
}

#[tokio::test]
async fn before_the_first_configuration_every_name_fails() {
    let mut tasks = JoinSet::new();
    let (outside, mut asked) = outside(&mut tasks, |_, question| vec![worldly(question, 1)]).await;
    let (state, _questions) = State::new();
    let resolver = Resolver::new(state, Upstream::new(vec![outside], None));
    for name in ["catalog.backend.", "foo.com."] {
        let answer = resolver.answer(&ask(5, name, RecordType::A, None), Transport::Udp).await;
        assert_eq!(code(&answer.expect("an answer")), ResponseCode::ServFail);
    }
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn garbage_does_not_stop_the_service() {
    let mut tasks = JoinSet::new();
    let state = mesh(&mut tasks, vec![catalog()]);
    let server = start(&mut tasks, state, vec![])[0];
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
    for length in [0, 1, 11, 12, 40, 4096, 4097, 60_000] {
        socket.send_to(&vec![0xff; length], server).await.expect("sent");
        socket.send_to(&vec![0; length], server).await.expect("sent");
    }
    for frame in
        [&[0, 3, 1, 2, 3][..], &[0xff, 0xff][..], &[0, 12, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]]
    {
        let mut stream = TcpStream::connect(server).await.expect("connected");
        stream.write_all(frame).await.expect("sent");
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "a connection with {frame:?} is closed");
    }
    let answer = over_udp(server, &ask(1, "catalog.backend.", RecordType::A, None)).await;
    assert_eq!(data(&read(&answer)), ["240.240.0.1"]);
}

#[tokio::test]
async fn what_there_is_no_room_for_is_told_so() {
    let (state, _questions) = configured();
    let resolver = Resolver::new(state, Upstream::new(vec![], None));
    let answer = resolver.overloaded(&ask(3, "catalog.backend.", RecordType::A, None), Transport::Udp);
    assert_eq!(code(&answer.expect("an answer")), ResponseCode::ServFail);
    assert_eq!(resolver.overloaded(&[0; 5], Transport::Udp), None);
}
