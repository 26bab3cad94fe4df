//! Whom a provider's certificate must come from: the system's authorities, and those of
//! `--jwks-ca-certificates`.
//!
//! The system's are read from where distributions keep them, so that an operator who trusts an authority on
//! the machine need not say so twice. `SSL_CERT_FILE` goes before, as with OpenSSL.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// Where distributions keep the system's authorities: Debian, Fedora, openSUSE, Alpine and the BSDs.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why no connection to a provider can be verified as asked.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read as certificates.
    #[error("cannot read certificates from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// None in it is of an authority.
    #[error("{} has no certificate of an authority", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The client's side of TLS towards providers.
///
/// # Errors
/// When `own` cannot be used. The system's file missing is no error: then only `own` counts.
pub fn client_config(own: Option<&Path>) -> Result<Arc<ClientConfig>, RootsError> {
    let mut roots = RootCertStore::empty();
    match system_file() {
        Some(path) => match add(&mut roots, &path) {
            Ok(number) => tracing::debug!(path = %path.display(), number, "authorities of the system"),
            Err(error) => tracing::warn!(%error, "the system's authorities are not used to fetch keys"),
        },
        None => tracing::warn!(
            "the system has no file of authorities; keys are fetched over TLS only from providers that \
             --jwks-ca-certificates verifies"
        ),
    }
    if let Some(path) = own {
        add(&mut roots, path)?;
    }
    // Providers are anybody's servers: unlike in the mesh, TLS 1.2 is spoken with them.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RootsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn system_file() -> Option<PathBuf> {
    let stated = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    stated.or_else(|| SYSTEM_FILES.iter().map(PathBuf::from).find(|path| path.is_file()))
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<usize, RootsError> {
    let failed = |source| RootsError::Read { path: path.to_owned(), source };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(failed)?.collect();
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(failed)?);
    if added == 0 { Err(RootsError::Empty { path: path.to_owned() }) } else { Ok(added) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_that_has_none_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        assert!(matches!(client_config(Some(&path)), Err(RootsError::Read { .. })));
        std::fs::write(&path, "no certificates here").expect("written");
        assert!(matches!(client_config(Some(&path)), Err(RootsError::Empty { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        std::fs::write(&path, broken).expect("written");
        assert!(matches!(client_config(Some(&path)), Err(RootsError::Read { .. })));
    }
}
