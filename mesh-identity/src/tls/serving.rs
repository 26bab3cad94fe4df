//! A server for clients that know nothing of the mesh: it is told by its names, and asks nobody for a
//! certificate.
//!
//! As with workloads, the certificate is read at each handshake, so that renewal touches no connection, and a
//! server whose certificate has ended refuses handshakes.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::provider;
use crate::ca::ServingChain;
use crate::key::{KeyError, WorkloadKey};

/// Why a chain and a key do not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServingUseError {
    /// The key cannot be used.
    #[error("the private key of the serving certificate cannot be used")]
    Key(#[source] KeyError),
    /// The key is of another certificate.
    #[error("the private key does not belong to the serving certificate")]
    KeyMismatch,
}

/// A serving certificate with its key.
#[derive(Clone)]
pub struct Serving {
    certified: Arc<CertifiedKey>,
    issued: ServingChain,
}

impl Serving {
    /// Checks that chain and key belong together.
    ///
    /// # Errors
    /// When they do not.
    pub fn new(issued: ServingChain, key: &WorkloadKey) -> Result<Self, ServingUseError> {
        let signing = key.for_tls().map_err(ServingUseError::Key)?;
        let chain = issued.chain.iter().cloned().map(CertificateDer::from).collect();
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match().map_err(|_| ServingUseError::KeyMismatch)?;
        Ok(Self { certified: Arc::new(certified), issued })
    }

    /// The certificate.
    #[must_use]
    pub fn issued(&self) -> &ServingChain {
        &self.issued
    }

    /// Whether `now` lies within its validity.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.issued.not_before <= now && now <= self.issued.not_after
    }
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving")
            .field("serial", &self.issued.serial)
            .field("not_after", &self.issued.not_after)
            .finish_non_exhaustive()
    }
}

/// The serving certificate of a process, swapped whole. Reading takes no lock.
#[derive(Debug, Default)]
pub struct ServingSource {
    current: ArcSwapOption<Serving>,
}

impl ServingSource {
    /// A source without a certificate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Uses `serving` in every handshake from now on.
    pub fn publish(&self, serving: Serving) {
        self.current.store(Some(Arc::new(serving)));
    }

    /// The certificate that is used.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Serving>> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for ServingSource {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        let valid = current.as_ref().filter(|serving| serving.is_valid_at(SystemTime::now()));
        valid.map(|serving| Arc::clone(&serving.certified))
    }
}

/// A configuration that serves with the source's current certificate and asks clients for none. `alpn` is in
/// order of preference.
///
/// # Panics
/// Never: the provider supports TLS 1.3.
#[must_use]
pub fn serving_config(source: &Arc<ServingSource>, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider supports TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(source) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}
