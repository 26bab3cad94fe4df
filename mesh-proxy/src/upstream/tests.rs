use std::cell::Cell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use mesh_api::error_chain::chain;
use mesh_api::model::MeshSettings;
use mesh_api::name::SpiffeId;
use mesh_identity::ca::{Authority, CaSettings, Issuer as _};
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;
use crate::connection::TlsFacts;
use crate::tls::TlsContext;

fn account(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://cluster.local/ns/web/sa/{name}")).expect("valid id")
}

struct Ca(Authority);

impl Ca {
    fn new() -> Self {
        let settings = CaSettings::new(MeshSettings::default().trust_domain);
        Self(Authority::create(settings, SystemTime::now()).expect("authority"))
    }

    fn svid(&self, name: &str, ttl: Option<Duration>) -> Svid {
        let key = WorkloadKey::generate().expect("key");
        let csr = mesh_identity::csr::build(&key).expect("request");
        let issued = self.0.issue(&csr, &account(name), ttl, SystemTime::now()).expect("issued");
        Svid::new(issued.chain, &key).expect("svid")
    }

    fn identity(&self, name: &str, ttl: Option<Duration>) -> Arc<IdentitySource> {
        let source = IdentitySource::new(self.0.trust_bundle(), [MeshSettings::default().trust_domain]);
        source.publish_svid(&self.svid(name, ttl));
        source
    }
}

/// A mesh peer that answers every byte with itself, and tells what its handshakes established.
#[derive(Default)]
struct Peer {
    accepted: Cell<usize>,
    facts: std::cell::RefCell<Vec<TlsFacts>>,
}

async fn serve(identity: Arc<IdentitySource>) -> (SocketAddr, Rc<Peer>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
    let address = listener.local_addr().expect("address");
    let peer = Rc::new(Peer::default());
    let seen = Rc::clone(&peer);
    tokio::task::spawn_local(async move {
        let tls = TlsContext::new(identity);
        while let Ok((socket, _)) = listener.accept().await {
            seen.accepted.set(seen.accepted.get() + 1);
            let Ok((mut stream, facts)) = tls.accept(socket).await else { continue };
            seen.facts.borrow_mut().push(facts);
            tokio::task::spawn_local(async move {
                let mut byte = [0; 1];
                while stream.read_exact(&mut byte).await.is_ok() && byte != *b"q" {
                    stream.write_all(&byte).await.expect("written");
                    stream.flush().await.expect("flushed");
                }
            });
        }
    });
    (address, peer)
}

fn target(address: SocketAddr, expected: &str) -> Target {
    Target {
        address,
        tls: PeerTls::Mutual { identity: account(expected) },
        alpn: UpstreamAlpn::Http1,
        sni: Arc::from("outbound_.80_._.server.web.svc.cluster.local"),
        connect_timeout: Duration::from_secs(5),
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    LocalSet::new().block_on(&runtime, test);
}

/// Uses a connection once.
async fn ping(lease: &mut Http1Lease) {
    lease.stream().write_all(b"x").await.expect("written");
    lease.stream().flush().await.expect("flushed");
    lease.stream().read_exact(&mut [0; 1]).await.expect("answered");
}

#[test]
fn a_kept_connection_is_used_again_and_says_so() {
    run(async {
        let ca = Ca::new();
        let (address, peer) = serve(ca.identity("server", None)).await;
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        let target = target(address, "server");
        for round in 0..3 {
            let mut lease = upstreams.http1(&target).await.expect("connected");
            assert_eq!(lease.is_reused(), round > 0);
            ping(&mut lease).await;
            assert_eq!(upstreams.idle_http1(), 0);
            lease.keep();
            assert_eq!(upstreams.idle_http1(), 1);
        }
        assert_eq!(peer.accepted.get(), 1);
        let facts = peer.facts.borrow();
        assert_eq!(facts[0].identity, account("client"));
        assert_eq!(facts[0].sni.as_deref(), Some("outbound_.80_._.server.web.svc.cluster.local"));
        assert_eq!(facts[0].alpn.as_deref(), Some(&b"istio-http/1.1"[..]));
    });
}

#[test]
fn alike_addresses_with_another_expected_identity_share_nothing() {
    run(async {
        let ca = Ca::new();
        let (address, peer) = serve(ca.identity("server", None)).await;
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        upstreams.http1(&target(address, "server")).await.expect("connected").keep();
        let refused = upstreams.http1(&target(address, "somebody-else")).await;
        let error = refused.expect_err("another workload answered");
        assert!(matches!(error, ConnectError::Peer(_)), "{error:?}");
        assert!(chain(&error).contains("somebody-else"), "{}", chain(&error));
        assert_eq!(peer.accepted.get(), 2);
    });
}

#[test]
fn each_protocol_offers_its_own_names() {
    run(async {
        let ca = Ca::new();
        let (address, peer) = serve(ca.identity("server", None)).await;
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        for (alpn, name) in [
            (UpstreamAlpn::Tcp, &b"istio"[..]),
            (UpstreamAlpn::Http1, b"istio-http/1.1"),
            (UpstreamAlpn::Http2, b"istio-h2"),
        ] {
            let mut stream =
                upstreams.fresh(&Target { alpn, ..target(address, "server") }).await.expect("connected");
            stream.write_all(b"x").await.expect("written");
            stream.read_exact(&mut [0; 1]).await.expect("the handshake is done on both sides");
            let facts = peer.facts.borrow();
            assert_eq!(facts.last().and_then(|facts| facts.alpn.as_deref()), Some(name));
        }
    });
}

#[test]
fn after_a_rotation_idle_connections_are_not_used_and_leased_ones_are_not_kept_for_use() {
    run(async {
        let ca = Ca::new();
        let (address, peer) = serve(ca.identity("server", None)).await;
        let own = ca.identity("client", None);
        let upstreams = Upstreams::new(Arc::clone(&own), None);
        let target = target(address, "server");
        let idle = upstreams.http1(&target).await.expect("connected");
        let mut leased = upstreams.http1(&target).await.expect("connected");
        idle.keep();
        own.publish_svid(&ca.svid("client", None));
        upstreams.epochs.look(Instant::now());
        ping(&mut leased).await;
        leased.keep();
        let fresh = upstreams.http1(&target).await.expect("connected");
        assert!(!fresh.is_reused(), "neither of the old two");
        assert_eq!((peer.accepted.get(), upstreams.idle_http1()), (3, 0));
    });
}

#[test]
fn a_connection_is_not_used_beyond_the_certificate_of_its_peer() {
    run(async {
        let ca = Ca::new();
        let (address, _peer) = serve(ca.identity("server", Some(Duration::from_secs(5)))).await;
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        let lease = upstreams.http1(&target(address, "server")).await.expect("connected");
        let slot = upstreams.http1.slot(&target(address, "server"));
        lease.keep();
        let epoch = upstreams.epochs.look(Instant::now());
        let later = Instant::now() + Duration::from_secs(6);
        assert!(slot.take(later, epoch).is_none(), "by the clock of timers");
        let lease = upstreams.http1(&target(address, "server")).await.expect("connected");
        lease.keep();
        let wall = SystemTime::now() + Duration::from_secs(6);
        upstreams.http1.prune(Instant::now(), wall, epoch);
        assert_eq!(upstreams.idle_http1(), 0, "by the wall clock");
    });
}

#[test]
fn what_ended_while_idle_is_given_up_without_a_request() {
    run(async {
        let ca = Ca::new();
        let (address, _peer) = serve(ca.identity("server", None)).await;
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        let target = target(address, "server");
        let mut lease = upstreams.http1(&target).await.expect("connected");
        lease.stream().write_all(b"q").await.expect("written");
        lease.stream().flush().await.expect("flushed");
        lease.stream().tcp().readable().await.expect("the peer ended it");
        assert!(!lease.stream().is_silent_in_kernel());
        lease.keep();
        upstreams.http1.prune(Instant::now(), SystemTime::now(), 0);
        assert_eq!(upstreams.idle_http1(), 0);
        let mut plain_idle = upstreams.http1(&target).await.expect("connected");
        ping(&mut plain_idle).await;
        assert!(plain_idle.stream().is_silent_in_kernel());
        plain_idle.keep();
        let late = Instant::now() + Duration::from_secs(61);
        upstreams.http1.prune(late, SystemTime::now(), 0);
        assert_eq!(upstreams.idle_http1(), 0, "unused for too long");
    });
}

#[test]
fn a_peer_that_does_not_answer_the_handshake_is_given_up_in_time() {
    run(async {
        let ca = Ca::new();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let upstreams = Upstreams::new(ca.identity("client", None), None);
        let hasty = Target { connect_timeout: Duration::from_millis(30), ..target(address, "server") };
        let error = upstreams.fresh(&hasty).await.expect_err("nobody accepts");
        assert!(matches!(error, ConnectError::HandshakeTimedOut) && error.is_timeout(), "{error:?}");
        drop(listener);
        let error = upstreams.fresh(&hasty).await.expect_err("nobody listens");
        assert!(matches!(error, ConnectError::Connect(_)) && !error.is_timeout(), "{error:?}");
    });
}

#[test]
fn without_an_own_certificate_nothing_is_sent_in_its_name() {
    run(async {
        let ca = Ca::new();
        let (address, peer) = serve(ca.identity("server", None)).await;
        let own = IdentitySource::new(ca.0.trust_bundle(), [MeshSettings::default().trust_domain]);
        let upstreams = Upstreams::new(own, None);
        assert!(upstreams.http1(&target(address, "server")).await.is_err());
        assert!(peer.facts.borrow().is_empty());
    });
}
