//! Peers that are not who they should be: at a port that demands mutual TLS only a certificate of the mesh,
//! in order in every respect, brings a request to the application.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion, version};

use super::mesh::{AUTO, HTTP, Mesh, STRICT};
use super::wire;

const HOUR: Duration = Duration::from_secs(3600);
const CLIENT: &str = "spiffe://cluster.local/ns/web/sa/client";

/// An attacker trusts everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An authority that signs whatever is asked of it.
struct Forge {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

impl Forge {
    /// The mesh's own intermediate, as if its key had leaked.
    fn of_the_mesh(mesh: &Mesh) -> Self {
        let state = std::fs::read_to_string(mesh.path("state/ca/authority.json")).expect("read");
        let state: serde_json::Value = serde_json::from_str(&state).expect("JSON");
        let text = |name: &str| state["intermediate"][name].as_str().expect("text").to_owned();
        let key = KeyPair::from_pem(&text("private_key")).expect("a key");
        let pem = text("certificate");
        let issuer = Issuer::from_ca_cert_pem(&pem, key).expect("an issuer");
        use rustls::pki_types::pem::PemObject as _;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec();
        Self { issuer, certificate }
    }

    /// Somebody else's.
    fn foreign() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed").der().to_vec();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, params: &CertificateParams) -> Credential {
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("signed").der().to_vec();
        Credential { chain: vec![leaf, self.certificate.clone()], key: key.serialize_der() }
    }
}

/// What a peer presents.
struct Credential {
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

/// A leaf in good order with these names.
fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - HOUR).into(), (now + HOUR).into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn config(
    credential: Option<&Credential>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some(Credential { chain, key }) => builder
            .with_client_auth_cert(
                chain.iter().map(|der| CertificateDer::from(der.clone())).collect(),
                PrivateKeyDer::try_from(key.clone()).expect("a key"),
            )
            .expect("they fit"),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What a peer gets that shakes hands so and sends `bytes`.
fn speak(mesh: &Mesh, port: u16, config: ClientConfig, bytes: &[u8]) -> Vec<u8> {
    let name = ServerName::try_from("server.backend").expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let mut stream = rustls::StreamOwned::new(session, mesh.dial_inbound(port));
    if stream.write_all(bytes).is_err() {
        return Vec::new();
    }
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(length) = stream.read(&mut part) {
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&part[..length]);
    }
    answer
}

/// Credentials that are refused, each for one reason.
fn refused(mesh: &Mesh) -> Vec<(&'static str, Option<Credential>)> {
    let (forge, foreign) = (Forge::of_the_mesh(mesh), Forge::foreign());
    let with = |uris: &[&str], change: &dyn Fn(&mut CertificateParams)| {
        let mut params = leaf(uris);
        change(&mut params);
        Some(forge.sign(&params))
    };
    let plain = |uris: &[&str]| with(uris, &|_| {});
    let now = SystemTime::now();
    let mut alone = forge.sign(&leaf(&[CLIENT]));
    alone.chain.truncate(1);
    let mut others_key = forge.sign(&leaf(&[CLIENT]));
    others_key.chain = foreign.sign(&leaf(&[CLIENT])).chain;
    vec![
        ("nothing", None),
        ("another authority", Some(foreign.sign(&leaf(&[CLIENT])))),
        ("a foreign trust domain", plain(&["spiffe://other.example/ns/web/sa/client"])),
        ("two names", plain(&[CLIENT, "spiffe://cluster.local/ns/backend/sa/server"])),
        ("the same name twice", plain(&[CLIENT, CLIENT])),
        ("a SPIFFE id beside another URI", plain(&[CLIENT, "https://example.org/"])),
        ("no name", plain(&[])),
        ("a name of another scheme", plain(&["https://cluster.local/ns/web/sa/client"])),
        ("an id with a query", plain(&["spiffe://cluster.local/ns/web/sa/client?x"])),
        ("an id with dots", plain(&["spiffe://cluster.local/ns/web/../web/sa/client"])),
        ("an id with an escape", plain(&["spiffe://cluster.local/ns/web/sa/%63lient"])),
        ("an id with a port", plain(&["spiffe://cluster.local:1/ns/web/sa/client"])),
        (
            "a name for DNS only",
            with(&[], &|params| {
                let name = "client.web.svc.cluster.local".try_into().expect("ASCII");
                params.subject_alt_names = vec![SanType::DnsName(name)];
            }),
        ),
        ("one that has expired", with(&[CLIENT], &|params| params.not_after = (now - HOUR / 2).into())),
        ("one that is not valid yet", with(&[CLIENT], &|params| params.not_before = (now + HOUR / 2).into())),
        (
            "an authority's",
            with(&[CLIENT], &|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
        ),
        (
            "one for servers only",
            with(&[CLIENT], &|params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        ("no intermediate", Some(alone)),
    ]
}

const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
#[ignore = "needs root and nftables"]
fn nobody_comes_in_without_a_certificate_of_the_mesh_that_is_in_order() {
    let mut mesh = Mesh::start(7);
    let seen = wire::record(mesh.listen(STRICT));
    let modern = [&version::TLS13];
    let good = Forge::of_the_mesh(&mesh).sign(&leaf(&[CLIENT]));
    let answer = speak(&mesh, STRICT, config(Some(&good), &["istio-http/1.1"], &modern), REQUEST);
    assert_eq!(wire::statuses(&answer), [200], "the forge's certificates are good where they are in order");
    assert_eq!(seen.take().len(), 1);

    let mut wrong = Vec::new();
    let mut judge = |name: &str, answer: &[u8]| {
        let arrived = seen.take();
        if !answer.is_empty() || !arrived.is_empty() {
            wrong.push(format!("{name}: {:?}, arrived {arrived:?}", String::from_utf8_lossy(answer)));
        }
    };
    for (name, credential) in refused(&mesh) {
        for port in [STRICT, HTTP] {
            let config = config(credential.as_ref(), &["istio-http/1.1", "istio"], &modern);
            judge(name, &speak(&mesh, port, config, REQUEST));
        }
    }
    judge(
        "TLS 1.2",
        &speak(&mesh, STRICT, config(Some(&good), &["istio-http/1.1"], &[&version::TLS12]), REQUEST),
    );
    judge("ALPN nonsense", &speak(&mesh, STRICT, config(Some(&good), &["nonsense"], &modern), REQUEST));
    judge("TLS of one's own", &speak(&mesh, HTTP, config(None, &["h2", "http/1.1"], &modern), REQUEST));

    // What is no handshake: nothing is served, and nothing but an alert comes back.
    let hello = [&[0x16, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3][..], &[0; 0x3ff0]].concat();
    let pieces: [(&str, &[u8]); 7] = [
        ("plaintext", REQUEST),
        ("a preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("zeros", &[0; 600]),
        ("a record of 64 KiB", &[&[0x16, 3, 1, 0xff, 0xff][..], &[1; 70_000]].concat()),
        ("a hello full of zeros", &hello),
        ("application data first", &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
        ("an alert first", &[0x15, 3, 3, 0, 2, 2, 40]),
    ];
    for (name, bytes) in pieces {
        let stream = mesh.dial_inbound(STRICT);
        wire::send(&stream, bytes);
        let _either_way = stream.shutdown(std::net::Shutdown::Write);
        let answer = wire::rest(&stream);
        // An alert is a record of its own type, and holds two bytes.
        judge(name, if answer.first() == Some(&0x15) && answer.len() == 7 { &[] } else { &answer });
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));

    // A protocol other than the one that was agreed on.
    let seen = wire::record(mesh.listen(AUTO));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = speak(&mesh, AUTO, config(Some(&good), &["istio-http/1.1"], &modern), preface);
    assert_eq!((wire::statuses(&answer), seen.take().len()), (vec![400], 0));
    mesh.assert_alive();
}
