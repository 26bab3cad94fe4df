//! The serving side: a certificate from the source, and clients judged by it.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::{IdentitySource, provider, refuse, signature};
use crate::verify::PeerRole;

/// What is asked of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A valid workload certificate, or no connection: between workloads.
    Required,
    /// None is needed, but one that is presented must be valid: the port of the control plane, where a
    /// workload asks for its first certificate.
    Optional,
}

/// A configuration that serves with the source's current certificate. `alpn` is in order of preference;
/// with one, a client that offers ALPN and shares none of it is refused.
///
/// Built once per listener and kept.
///
/// # Panics
/// Never: the provider supports TLS 1.3.
#[must_use]
pub fn server_config(
    source: &Arc<IdentitySource>,
    client_auth: ClientAuth,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let verifier = ClientVerifier { source: Arc::clone(source), client_auth };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider supports TLS 1.3")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(ServerCertificate { source: Arc::clone(source) }));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

#[derive(Debug)]
struct ServerCertificate {
    source: Arc<IdentitySource>,
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.source.certified()
    }
}

#[derive(Debug)]
struct ClientVerifier {
    source: Arc<IdentitySource>,
    client_auth: ClientAuth,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        match self.client_auth {
            ClientAuth::Required => true,
            ClientAuth::Optional => false,
        }
    }

    /// No hints: the set of roots changes while this lives, and clients of the mesh have one certificate.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.source.current().verify(PeerRole::Client, leaf, intermediates, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
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
