use super::*;
use crate::ca::{Authority, Issuer as _};
use crate::fixture::{HOUR, authority, domain, id, workload};
use crate::key::WorkloadKey;
use crate::svid::Svid;
use crate::verify::ExpectedPeer;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConfig, ServerConnection, SignatureScheme,
};
use rustls_pki_types::{ServerName, UnixTime};

const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
const CATALOG: &str = "spiffe://cluster.local/ns/backend/sa/catalog";
const HTTP: &[&[u8]] = &[b"istio-http/1.1", b"istio"];

/// An authority, a client and a server, as of the real clock: rustls reads it.
struct Mesh {
    authority: Authority,
    client: Arc<IdentitySource>,
    server: Arc<IdentitySource>,
}

impl Mesh {
    fn new() -> Self {
        let authority = authority("cluster.local", SystemTime::now());
        let source = |name: &str| {
            let source = IdentitySource::new(authority.trust_bundle(), vec![domain("cluster.local")]);
            source.publish_svid(&workload(&authority, &id(name), HOUR, SystemTime::now()));
            source
        };
        let (client, server) = (source(FRONTEND), source(CATALOG));
        Self { client, server, authority }
    }

    /// An authority whose intermediate was valid at `time` too.
    fn authority_as_of(&self, time: SystemTime) -> Authority {
        authority(self.authority.settings().trust_domain.as_str(), time)
    }

    fn connect(&self, expected: &str) -> Result<Pair, Refused> {
        let client = client_config(&self.client, &ExpectedPeer::one(id(expected)), HTTP);
        handshake(client, server_config(&self.server, ClientAuth::Required, HTTP))
    }
}

#[derive(Debug)]
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

#[derive(Debug)]
enum Refused {
    ByClient(rustls::Error),
    ByServer(rustls::Error),
}

impl Refused {
    /// Our reason, and which side gave it.
    fn reason(&self) -> (&'static str, Option<&VerifyError>) {
        match self {
            Self::ByClient(error) => ("client", refusal(error)),
            Self::ByServer(error) => ("server", refusal(error)),
        }
    }
}

/// A handshake in memory, to the end: also the server has judged its client.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Pair, Refused> {
    let name = "outbound_.80_._.catalog.backend".try_into().expect("a name");
    let mut client = ClientConnection::new(client, name).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    loop {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory");
        }
        let mut quiet = wire.is_empty();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory");
            server.process_new_packets().map_err(Refused::ByServer)?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory");
        }
        quiet &= wire.is_empty();
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory");
            client.process_new_packets().map_err(Refused::ByClient)?;
        }
        if quiet {
            assert!(!client.is_handshaking() && !server.is_handshaking(), "the handshake stands still");
            return Ok(Pair { client, server });
        }
    }
}

#[test]
fn both_sides_know_each_other_over_tls_1_3_and_a_hybrid_key_exchange() {
    let Pair { client, server } = Mesh::new().connect(CATALOG).expect("connected");
    assert_eq!(peer(client.peer_certificates()).map(|peer| peer.id), Some(id(CATALOG)));
    assert_eq!(peer(server.peer_certificates()).map(|peer| peer.id), Some(id(FRONTEND)));
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = server.negotiated_key_exchange_group().expect("negotiated");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
    // No second round trip for the key exchange.
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    let facts = peer(server.peer_certificates()).expect("a peer");
    assert_eq!(facts.certificate_sha256.len(), 64);
    assert!(facts.not_after > SystemTime::now() && facts.not_after <= SystemTime::now() + HOUR);
}

/// A client of somebody else, which believes any server.
#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A stranger's configuration: any provider and version, with a certificate or without.
fn stranger(
    provider: CryptoProvider,
    version: &'static rustls::SupportedProtocolVersion,
    svid: Option<&Svid>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version of the provider")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let certified = SingleCertAndKey::from(CertifiedKey::clone(svid.certified()));
            builder.with_client_cert_resolver(Arc::new(certified))
        }
    }
}

#[test]
fn a_client_without_post_quantum_key_exchange_is_served_by_x25519() {
    let mesh = Mesh::new();
    let classic = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..(*provider()).clone() };
    let svid = mesh.client.current().svid.clone().expect("a certificate");
    let client = stranger(classic, &TLS13, Some(&svid));
    let pair = handshake(Arc::new(client), server_config(&mesh.server, ClientAuth::Required, &[]));
    let pair = pair.expect("connected");
    let group = pair.server.negotiated_key_exchange_group().expect("negotiated");
    assert_eq!(group.name(), NamedGroup::X25519);
}

#[test]
fn tls_1_2_is_refused_on_both_sides() {
    let mesh = Mesh::new();
    let svid = mesh.client.current().svid.clone().expect("a certificate");
    let client = Arc::new(stranger(aws_lc_rs::default_provider(), &TLS12, Some(&svid)));
    let refused = handshake(client, server_config(&mesh.server, ClientAuth::Required, &[]));
    assert!(matches!(refused, Err(Refused::ByServer(rustls::Error::PeerIncompatible(_)))), "{refused:?}");
    let old = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .expect("TLS 1.2")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(svid.certified()))));
    let client = client_config(&mesh.client, &ExpectedPeer::one(id(FRONTEND)), &[]);
    let refused = handshake(client, Arc::new(old));
    assert!(
        matches!(refused, Err(Refused::ByServer(rustls::Error::PeerIncompatible(_)))),
        "a hello of TLS 1.3 alone was answered: {refused:?}"
    );
}

#[test]
fn nothing_is_resumed() {
    let mesh = Mesh::new();
    let server = server_config(&mesh.server, ClientAuth::Required, &[]);
    // A stranger with rustls's defaults would resume if it were given anything to resume with.
    let svid = mesh.client.current().svid.clone().expect("a certificate");
    let client = Arc::new(stranger((*provider()).clone(), &TLS13, Some(&svid)));
    for _ in 0..3 {
        let mut pair = handshake(Arc::clone(&client), Arc::clone(&server)).expect("connected");
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(pair.client.tls13_tickets_received(), 0);
        assert!(pair.client.early_data().is_none());
    }
    // Our client does not, also where a server would.
    let mut generous = ServerConfig::clone(&server);
    generous.send_tls13_tickets = 2;
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
    let (client, generous) =
        (client_config(&mesh.client, &ExpectedPeer::one(id(CATALOG)), &[]), Arc::new(generous));
    for _ in 0..3 {
        let pair = handshake(Arc::clone(&client), Arc::clone(&generous)).expect("connected");
        assert_eq!(pair.client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_server_that_is_somebody_else_is_refused_by_name() {
    let refused = Mesh::new().connect("spiffe://cluster.local/ns/backend/sa/payments").expect_err("refused");
    let (side, reason) = refused.reason();
    assert_eq!(side, "client");
    assert!(
        matches!(reason, Some(VerifyError::Unexpected { found, .. }) if *found == id(CATALOG)),
        "{reason:?}"
    );
    // As tokio-rustls hands it over.
    let Refused::ByClient(error) = refused else { unreachable!("asserted above") };
    assert!(refusal(&std::io::Error::new(std::io::ErrorKind::InvalidData, error)).is_some());
}

#[test]
fn a_client_without_a_certificate_is_let_in_only_where_none_is_needed() {
    let mesh = Mesh::new();
    let expected = ExpectedPeer::one(id(CATALOG));
    let bootstrap = || bootstrap_client_config(mesh.authority.trust_bundle(), &expected, &[b"h2"]);
    let open = handshake(bootstrap(), server_config(&mesh.server, ClientAuth::Optional, &[b"h2"]));
    let open = open.expect("connected");
    assert_eq!(peer(open.server.peer_certificates()), None);
    let closed = handshake(bootstrap(), server_config(&mesh.server, ClientAuth::Required, &[b"h2"]));
    assert!(matches!(closed, Err(Refused::ByServer(rustls::Error::NoCertificatesPresented))), "{closed:?}");
}

#[test]
fn a_bootstrapping_client_still_verifies_its_server() {
    let mesh = Mesh::new();
    let server = || server_config(&mesh.server, ClientAuth::Optional, &[]);
    let other = ExpectedPeer::one(id("spiffe://cluster.local/ns/istio-system/sa/mesh-control"));
    let refused = handshake(bootstrap_client_config(mesh.authority.trust_bundle(), &other, &[]), server());
    assert!(matches!(
        refused.expect_err("refused").reason(),
        ("client", Some(VerifyError::Unexpected { .. }))
    ));
    let foreign = authority("cluster.local", SystemTime::now()).trust_bundle();
    let expected = ExpectedPeer::one(id(CATALOG));
    let refused = handshake(bootstrap_client_config(foreign, &expected, &[]), server());
    assert!(matches!(
        refused.expect_err("refused").reason(),
        ("client", Some(VerifyError::UnknownIssuer { .. }))
    ));
}

#[test]
fn a_bad_certificate_is_refused_even_where_none_is_needed() {
    let mesh = Mesh::new();
    let foreign = authority("cluster.local", SystemTime::now());
    let forged = workload(&foreign, &id(FRONTEND), HOUR, SystemTime::now());
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let client = Arc::new(stranger((*provider()).clone(), &TLS13, Some(&forged)));
        let refused = handshake(client, server_config(&mesh.server, client_auth, &[])).expect_err("refused");
        assert!(
            matches!(refused.reason(), ("server", Some(VerifyError::UnknownIssuer { .. }))),
            "{refused:?}"
        );
    }
}

#[test]
fn an_expired_workload_neither_serves_nor_connects() {
    let long_ago = SystemTime::now() - 2 * HOUR;
    let expire = |source: &IdentitySource, mesh: &Mesh, name: &str| {
        source.publish_svid(&workload(&mesh.authority_as_of(long_ago), &id(name), HOUR, long_ago));
    };
    let mesh = Mesh::new();
    expire(&mesh.server, &mesh, CATALOG);
    let refused = mesh.connect(CATALOG).expect_err("refused");
    assert!(matches!(refused, Refused::ByServer(rustls::Error::General(_))), "{refused:?}");
    let mesh = Mesh::new();
    expire(&mesh.client, &mesh, FRONTEND);
    let refused = mesh.connect(CATALOG).expect_err("refused");
    assert!(matches!(refused.reason(), ("client", Some(VerifyError::NoOwnIdentity))), "{refused:?}");
}

#[test]
fn a_peer_whose_certificate_has_ended_is_refused() {
    let long_ago = SystemTime::now() - 2 * HOUR;
    let mesh = Mesh::new();
    let authority = mesh.authority_as_of(long_ago);
    let ended = workload(&authority, &id(FRONTEND), HOUR, long_ago);
    mesh.server.publish_bundle(authority.trust_bundle());
    let client = Arc::new(stranger((*provider()).clone(), &TLS13, Some(&ended)));
    let refused = handshake(client, server_config(&mesh.server, ClientAuth::Required, &[]));
    let refused = refused.expect_err("refused");
    assert!(matches!(refused.reason(), ("server", Some(VerifyError::Expired { .. }))), "{refused:?}");
}

#[test]
fn a_rotated_certificate_is_used_by_configurations_that_exist() {
    let mesh = Mesh::new();
    let client = client_config(&mesh.client, &ExpectedPeer::one(id(CATALOG)), HTTP);
    let server = server_config(&mesh.server, ClientAuth::Required, HTTP);
    let leaf = |pair: &Pair| pair.client.peer_certificates().expect("a chain")[0].to_vec();
    let before = leaf(&handshake(Arc::clone(&client), Arc::clone(&server)).expect("connected"));
    let next = workload(&mesh.authority, &id(CATALOG), HOUR, SystemTime::now());
    mesh.server.publish_svid(&next);
    let after = leaf(&handshake(client, server).expect("connected"));
    assert_ne!(before, after);
    assert_eq!(after, next.chain()[0].to_vec());
}

#[test]
fn two_roots_are_trusted_side_by_side_and_a_dropped_one_no_longer() {
    let mesh = Mesh::new();
    let next = authority("cluster.local", SystemTime::now());
    mesh.server.publish_svid(&workload(&next, &id(CATALOG), HOUR, SystemTime::now()));
    let refused = mesh.connect(CATALOG).expect_err("the next root is not trusted yet");
    assert!(matches!(refused.reason(), ("client", Some(VerifyError::UnknownIssuer { .. }))));
    let (old, new) = (mesh.authority.trust_bundle(), next.trust_bundle());
    mesh.client.publish_bundle(old.union(&new).expect("both"));
    mesh.server.publish_bundle(old.union(&new).expect("both"));
    mesh.connect(CATALOG).expect("an old client and a new server");
    mesh.server.publish_bundle(new);
    let refused = mesh.connect(CATALOG).expect_err("the old root is gone");
    assert!(matches!(refused.reason(), ("server", Some(VerifyError::UnknownIssuer { .. }))));
}

#[test]
fn an_equal_trust_domain_is_accepted_only_while_it_counts_as_equal() {
    let mesh = Mesh::new();
    let old = authority("old.example", SystemTime::now());
    let name = "spiffe://old.example/ns/web/sa/frontend";
    let guest = IdentitySource::new(mesh.authority.trust_bundle(), vec![domain("cluster.local")]);
    guest.publish_svid(&workload(&old, &id(name), HOUR, SystemTime::now()));
    mesh.server.publish_bundle(old.trust_bundle().union(&mesh.authority.trust_bundle()).expect("both"));
    let connect = || {
        let client = client_config(&guest, &ExpectedPeer::one(id(CATALOG)), HTTP);
        handshake(client, server_config(&mesh.server, ClientAuth::Required, HTTP))
    };
    let refused = connect().expect_err("another domain");
    assert!(matches!(refused.reason(), ("server", Some(VerifyError::TrustDomain { .. }))));
    mesh.server.publish_trust_domains(vec![domain("cluster.local"), domain("old.example")]);
    let connected = connect().expect("equal");
    assert_eq!(peer(connected.server.peer_certificates()).map(|peer| peer.id), Some(id(name)));
}

#[test]
fn the_server_prefers_its_own_order_of_alpn_and_refuses_strangers_to_it() {
    const SERVER: &[&[u8]] = &[b"istio-http/1.1", b"istio-h2", b"istio"];
    let mesh = Mesh::new();
    let connect = |offered: &[&[u8]]| {
        let client = client_config(&mesh.client, &ExpectedPeer::one(id(CATALOG)), offered);
        handshake(client, server_config(&mesh.server, ClientAuth::Required, SERVER))
    };
    for (offered, agreed) in [
        (&[&b"istio"[..]][..], Some(&b"istio"[..])),
        (&[b"istio", b"istio-h2"], Some(b"istio-h2")),
        (&[b"h2", b"istio-http/1.1"], Some(b"istio-http/1.1")),
        (&[], None),
    ] {
        let pair = connect(offered).expect("connected");
        assert_eq!(pair.server.alpn_protocol(), agreed);
        assert_eq!(pair.client.alpn_protocol(), agreed);
    }
    let refused = connect(&[b"h2", b"http/1.1"]);
    assert!(matches!(refused, Err(Refused::ByServer(rustls::Error::NoApplicationProtocol))), "{refused:?}");
}

#[test]
fn client_configurations_are_kept_per_destination_and_bounded() {
    let mesh = Mesh::new();
    let mut configs = ClientConfigs::new(Arc::clone(&mesh.client), 2);
    let expected = |name: &str| ExpectedPeer::one(id(name));
    let first = configs.config(&expected(CATALOG), HTTP);
    assert!(Arc::ptr_eq(&first, &configs.config(&expected(CATALOG), HTTP)));
    assert!(!Arc::ptr_eq(&first, &configs.config(&expected(CATALOG), &[b"istio"])));
    assert!(!Arc::ptr_eq(&first, &configs.config(&expected(FRONTEND), HTTP)));
    assert!(configs.len() <= 2);
}

#[test]
fn no_debug_output_shows_a_private_key() {
    let mesh = Mesh::new();
    let key = WorkloadKey::generate().expect("key");
    let request = crate::csr::build(&key).expect("request");
    let issued = mesh.authority.issue(&request, &id(CATALOG), None, SystemTime::now()).expect("issued");
    let svid = Svid::new(issued.chain, &key).expect("an SVID");
    mesh.server.publish_svid(&svid);
    let mut shown = format!("{key:?} {key:#?} {svid:?} {:?} {:?}", mesh.server, mesh.server.current());
    shown += &format!("{:?} {:?}", svid.certified(), mesh.authority);
    shown += &format!("{:?}", server_config(&mesh.server, ClientAuth::Required, HTTP));
    shown += &format!("{:?}", client_config(&mesh.server, &ExpectedPeer::one(id(FRONTEND)), HTTP));
    shown += &format!("{:?}", ClientConfigs::new(Arc::clone(&mesh.server), 1));
    let pair = handshake(
        client_config(&mesh.client, &ExpectedPeer::one(id(CATALOG)), HTTP),
        server_config(&mesh.server, ClientAuth::Required, HTTP),
    );
    shown += &format!("{pair:?}");
    for form in forms(secret_scalar(&key)) {
        assert!(!shown.contains(&form), "{form} is in the output");
    }
    // The same search finds a key where one is.
    let leak = format!("{:?}", key.pkcs8());
    assert!(forms(secret_scalar(&key)).iter().any(|form| leak.contains(form)));
}

/// The private number in a PKCS#8 key: the first OCTET STRING of 32 octets (RFC 5915 section 3).
fn secret_scalar(key: &WorkloadKey) -> &[u8] {
    let der = key.pkcs8();
    let at = der.windows(2).position(|pair| pair == [4, 32]).expect("an ECPrivateKey") + 2;
    &der[at..at + 32]
}

/// How eight octets of a secret look in the usual forms.
fn forms(secret: &[u8]) -> Vec<String> {
    let part = &secret[..8];
    let decimal: Vec<_> = part.iter().map(u8::to_string).collect();
    let hex = crate::certificate::hex(part);
    let spaced: Vec<_> = part.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![decimal.join(", "), hex.to_uppercase(), hex, spaced.join(":"), spaced.join(", ")];
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    forms.extend((0..3).map(|shift| encode(&secret[shift..shift + 9])));
    forms
}
