//! Restarts of the called side: what was not begun there is done elsewhere, and nothing is done twice.

use mesh_api::model::destination::Balance;

use super::*;

/// Counts the requests of each method that reach it, and answers them.
fn counting(
    served: &Rc<Cell<usize>>,
) -> impl FnOnce(TcpListener) -> std::pin::Pin<Box<dyn Future<Output = ()>>> + use<> {
    let served = Rc::clone(served);
    move |listener| {
        Box::pin(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let served = Rc::clone(&served);
                tokio::task::spawn_local(async move {
                    let mut buffer = Vec::new();
                    while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
                        if buffer.ends_with(b"\r\n\r\n") || buffer.ends_with(b"body") {
                            buffer.clear();
                            served.set(served.get() + 1);
                            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                            stream.write_all(answer).await.expect("written");
                        }
                    }
                });
            }
        })
    }
}

/// A second server behind a proxy of its own, whose application does not listen.
pub(super) async fn dead_server(mesh: &Mesh) -> SocketAddr {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    DEAD.set(Some(closed.local_addr().expect("address")));
    drop(closed);
    let loopback = || listener::bind_address("127.0.0.1:0".parse().expect("address")).expect("bound");
    let inbound = loopback();
    let address = inbound.local_addr().expect("address");
    let setup = WorkerSetup {
        id: 0,
        state: mesh.server.clone(),
        telemetry: Telemetry::new(AccessLog::off(), Arc::clone(&mesh.denials)),
        identity: Arc::clone(&mesh.identities[1]),
        drain: mesh.drain.watch(),
        settings: Arc::new(DataPathSettings { fwmark: None, ..DataPathSettings::default() }),
        inbound,
        outbound: loopback(),
        dialled: |_| DEAD.get(),
    };
    tokio::task::spawn_local(run(setup));
    address
}

thread_local! {
    static DEAD: Cell<Option<SocketAddr>> = const { Cell::new(None) };
}

/// Gives the client's destination these endpoints, in turn.
pub(super) fn publish_endpoints(mesh: &Mesh, addresses: &[SocketAddr]) {
    let before = mesh.client.load_full();
    let (key, known) = before.destinations.iter().next().expect("one");
    let Known::Present(known) = known else { panic!("it is known") };
    let mut destination = known.destination.clone();
    let template = destination.endpoints[0].clone();
    destination.policy.balance = Some(Balance::RoundRobin);
    destination.endpoints = addresses
        .iter()
        .map(|address| Endpoint {
            address: address.ip(),
            target_ports: vec![address.port()],
            ..template.clone()
        })
        .collect();
    let state = DestinationState::new(key.clone(), destination, None, "2".into(), 2);
    mesh.client.publish(ProxyState {
        revision: 0,
        workload: before.workload.clone(),
        destinations: HashMap::from([(key.clone(), Known::Present(Arc::new(state)))]),
    });
}

#[test]
fn what_an_application_that_is_gone_has_not_seen_is_done_by_another_whatever_the_method() {
    let served = Rc::new(Cell::new(0));
    run_test(Protocol::Http, MtlsMode::Strict, counting(&served), async move |mesh| {
        let dead = dead_server(&mesh).await;
        publish_endpoints(&mesh, &[dead, mesh.inbound]);
        let mut stream = mesh.dial().await;
        for number in 1..=20 {
            let post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
            stream.write_all(post).await.expect("written");
            let (head, body) = response(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{number}: {head}");
            assert!(!head.to_ascii_lowercase().contains("x-mesh-"), "{head}");
            assert_eq!(served.get(), number, "each is done once");
        }
    });
}

#[test]
fn when_nobody_has_seen_it_the_client_is_told_and_not_how() {
    run_test(Protocol::Http, MtlsMode::Permissive, reflecting, async |mesh| {
        let dead = dead_server(&mesh).await;
        publish_endpoints(&mesh, &[dead]);
        let mut stream = mesh.dial().await;
        stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.expect("written");
        let (head, _) = response(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(!head.to_ascii_lowercase().contains("x-mesh-unprocessed"), "{head}");
        let mut outside = TcpStream::connect(dead).await.expect("connected");
        let (head, _) = get(&mut outside, "/").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        let head = head.to_ascii_lowercase();
        assert!(!head.contains("x-mesh-unprocessed"), "a client without a proxy: {head}");
        assert!(head.contains("\r\nconnection: close\r\n"), "its next one may lead elsewhere: {head}");
    });
}

#[test]
fn an_application_cannot_say_that_it_has_not_seen_a_request() {
    const LIE: &str = "HTTP/1.1 503 No\r\nX-Mesh-Unprocessed: 1\r\nContent-Length: 0\r\n\r\n";
    let answers = &[LIE, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async |mesh| {
        let mut stream = mesh.dial().await;
        let (head, _) = get(&mut stream, "/").await;
        assert!(head.starts_with("HTTP/1.1 503"), "it is not sent again: {head}");
        assert!(!head.to_ascii_lowercase().contains("x-mesh-unprocessed"), "{head}");
    });
}

#[test]
fn while_callers_learn_of_the_drain_kept_connections_still_serve_and_say_that_they_end() {
    let served = Rc::new(Cell::new(0));
    run_test(Protocol::Http, MtlsMode::Permissive, counting(&served), async move |mesh| {
        let mut kept = TcpStream::connect(mesh.inbound).await.expect("connected");
        assert!(get(&mut kept, "/").await.0.starts_with("HTTP/1.1 200"));
        mesh.drain.begin();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (head, _) = get(&mut kept, "/").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{head}");
        let mut late = TcpStream::connect(mesh.inbound).await.expect("connected");
        assert!(get(&mut late, "/").await.0.starts_with("HTTP/1.1 200"));
        for worker in mesh.workers {
            worker.await.expect("joined").expect("ended well");
        }
        TcpStream::connect(mesh.inbound).await.expect_err("nobody listens any more");
        assert_eq!(served.get(), 3);
    });
}
