//! The connecting side: the own certificate from the source, and a server that must be the expected one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{IdentitySource, provider, refuse, signature};
use crate::bundle::TrustBundle;
use crate::verify::{ExpectedPeer, PeerRole, VerifyError};

/// A configuration that presents the source's current certificate and accepts no server but the expected.
/// The server name given to rustls is sent as SNI and decides nothing.
///
/// Costs a few allocations; [`ClientConfigs`] keeps them per destination.
#[must_use]
pub fn client_config(
    source: &Arc<IdentitySource>,
    expected: &ExpectedPeer,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    configure(source, expected, alpn, OwnCertificate::Required)
}

/// A configuration for a workload without a certificate: the server must be the expected one by the anchors
/// in `bundle`; the client presents nothing. For the request for the first certificate.
#[must_use]
pub fn bootstrap_client_config(
    bundle: TrustBundle,
    expected: &ExpectedPeer,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let domains: Vec<_> = bundle.trust_domains().cloned().collect();
    configure(&IdentitySource::new(bundle, domains), expected, alpn, OwnCertificate::None)
}

/// Client configurations by destination, for one worker: no lock, and bounded.
#[derive(Debug)]
pub struct ClientConfigs {
    source: Arc<IdentitySource>,
    capacity: usize,
    known: HashMap<(ExpectedPeer, Vec<Vec<u8>>), Arc<ClientConfig>>,
}

impl ClientConfigs {
    /// An empty cache of at most `capacity` configurations (each well under 2 kB).
    #[must_use]
    pub fn new(source: Arc<IdentitySource>, capacity: usize) -> Self {
        Self { source, capacity: capacity.max(1), known: HashMap::new() }
    }

    /// The configuration for these expected identities and ALPN names. Called once per connection. A full
    /// cache is emptied: configurations are cheap, and connections hold on to theirs.
    pub fn config(&mut self, expected: &ExpectedPeer, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let key = (expected.clone(), alpn.iter().map(|name| name.to_vec()).collect::<Vec<_>>());
        if let Some(config) = self.known.get(&key) {
            return Arc::clone(config);
        }
        if self.known.len() >= self.capacity {
            self.known.clear();
        }
        let config = client_config(&self.source, expected, alpn);
        self.known.insert(key, Arc::clone(&config));
        config
    }

    /// Number of configurations held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn configure(
    source: &Arc<IdentitySource>,
    expected: &ExpectedPeer,
    alpn: &[&[u8]],
    own: OwnCertificate,
) -> Arc<ClientConfig> {
    let verifier = ServerVerifier { source: Arc::clone(source), expected: expected.clone(), own };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider supports TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        OwnCertificate::Required => {
            builder.with_client_cert_resolver(Arc::new(ClientCertificate { source: Arc::clone(source) }))
        }
        OwnCertificate::None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

/// Whether the client presents a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnCertificate {
    Required,
    None,
}

#[derive(Debug)]
struct ClientCertificate {
    source: Arc<IdentitySource>,
}

impl ResolvesClientCert for ClientCertificate {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.source.certified()
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct ServerVerifier {
    source: Arc<IdentitySource>,
    expected: ExpectedPeer,
    own: OwnCertificate,
}

impl ServerVerifier {
    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        let current = self.source.current();
        // Without a certificate the server would refuse us a moment later, for a reason that reads as its
        // fault. This one names ours.
        if self.own == OwnCertificate::Required && current.valid_svid(SystemTime::now()).is_none() {
            return Err(VerifyError::NoOwnIdentity);
        }
        let peer = current.verify(PeerRole::Server, leaf, intermediates, now)?;
        if self.expected.accepts(&peer.id, &current.trust_domains) {
            Ok(())
        } else {
            Err(VerifyError::Unexpected { expected: self.expected.clone(), found: peer.id })
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, intermediates, now).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(signature::refuse_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        signature::verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature::schemes()
    }
}
