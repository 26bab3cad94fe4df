//! The certificate that each replica of the control plane shows to the API server: verified as the API server
//! does it, with the time that is left of it.
//!
//! A replica is reached by port-forward, not by the Service, so that one of several with a bad certificate is
//! found although most calls go well.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_kube::name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::catalogue::WEBHOOK_CERTIFICATE;
use super::identity::roots;
use super::report::{Mark, Report};
use crate::cluster::Cluster;
use crate::cluster::pod::PodView;
use crate::command::mesh::Mesh;
use crate::output;

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A certificate is renewed at half of its life, which is far more than this: with less nobody renews it.
const LEFT_MIN: i64 = 3600;

/// Why the certificate of a replica is not known, or no good.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    /// The roots.
    #[error("the authority's roots cannot be used")]
    Roots(#[source] rustls::Error),
    /// The name of the Service.
    #[error("the Service has no name that can be verified")]
    Name(#[source] InvalidDnsNameError),
    /// Bytes.
    #[error("the handshake did not come to an end")]
    Connection(#[source] std::io::Error),
    /// Nothing.
    #[error("the handshake did not come to an end in {} s", HANDSHAKE.as_secs())]
    Timeout,
    /// An API server would refuse it, too.
    #[error("its certificate is refused")]
    Refused(#[source] rustls::Error),
    /// It shows none, or one that cannot be read.
    #[error("its certificate cannot be read")]
    Unreadable,
}

impl ServingError {
    /// How bad it is: what was not seen is not known to be wrong.
    fn mark(&self) -> Mark {
        match self {
            Self::Refused(_) | Self::Unreadable => Mark::Bad,
            Self::Roots(_) | Self::Name(_) | Self::Connection(_) | Self::Timeout => Mark::Doubtful,
        }
    }
}

/// Makes the check.
pub(super) async fn look(mesh: &Mesh, cluster: &Cluster, report: &mut Report) {
    let anchors: Vec<String> = match mesh.ca().await {
        Ok(ca) => roots(&ca).iter().map(|root| root.pem.clone()).collect(),
        Err(error) => return report.unanswered(WEBHOOK_CERTIFICATE, &error),
    };
    let replicas = match cluster.replicas().await {
        Ok(replicas) => replicas,
        Err(error) => return report.unanswered(WEBHOOK_CERTIFICATE, &error),
    };
    let mut worst = Mark::Good;
    let mut lines = Vec::new();
    // One that is starting or ending is not called by the API server.
    for replica in replicas.iter().filter(|replica| replica.is_ready && !replica.is_ending) {
        let forward = match cluster.forward(&replica.namespace, &replica.name, name::PORT_WEBHOOK).await {
            Ok(forward) => forward,
            Err(error) => return report.unanswered(WEBHOOK_CERTIFICATE, &error),
        };
        let (mark, line) = match seconds_left(forward.stream, &service(replica), &anchors).await {
            Ok(seconds) => judge(seconds),
            Err(error) => (error.mark(), output::chain(&error)),
        };
        if mark != Mark::Good {
            lines.push(format!("{}: {line}", replica.name));
            worst = if worst == Mark::Bad { worst } else { mark };
        }
    }
    report.judge(WEBHOOK_CERTIFICATE, worst, lines);
}

/// The name by which an API server calls the webhooks of a replica's revision.
fn service(replica: &PodView) -> String {
    let revision = replica.revision.as_deref().unwrap_or(name::DEFAULT_REVISION);
    format!("{}.{}.svc", name::of_revision(name::CONTROL, revision), replica.namespace)
}

fn judge(seconds: i64) -> (Mark, String) {
    let words = u64::try_from(seconds).map(output::duration).unwrap_or_default();
    match seconds {
        ..=0 => (Mark::Bad, "its certificate has ended".to_owned()),
        1..LEFT_MIN => (Mark::Doubtful, format!("its certificate has {words} left, and was not renewed")),
        LEFT_MIN.. => (Mark::Good, words),
    }
}

/// Shakes hands, and says how long the certificate is valid still.
async fn seconds_left<S>(stream: S, service: &str, anchors: &[String]) -> Result<i64, ServingError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut store = RootCertStore::empty();
    for root in anchors.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem.as_bytes())).flatten() {
        store.add(root).map_err(ServingError::Roots)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ServingError::Roots)?
        .with_root_certificates(store)
        .with_no_client_auth();
    let name = ServerName::try_from(service.to_owned()).map_err(ServingError::Name)?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failure(error)),
        Err(_) => return Err(ServingError::Timeout),
    };
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or(ServingError::Unreadable)?;
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| ServingError::Unreadable)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs().cast_signed());
    Ok(certificate.validity().not_after.timestamp().saturating_sub(now))
}

/// What ended a handshake: a verdict on the certificate, or the connection.
fn failure(error: std::io::Error) -> ServingError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
    match inner {
        Some(verdict @ rustls::Error::InvalidCertificate(_)) => ServingError::Refused(verdict),
        Some(_) | None => ServingError::Connection(error),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use time::OffsetDateTime;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    const SERVICE: &str = "mesh-control.istio-system.svc";

    fn root() -> (String, Issuer<'static, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a root");
        (certificate.pem(), Issuer::new(params, key))
    }

    /// What is found of a certificate that ends in so many seconds.
    async fn found(issuer: &Issuer<'_, KeyPair>, trusted: &str, ends_in: i64) -> Result<i64, ServingError> {
        let mut params = CertificateParams::new(vec![SERVICE.to_owned()]).expect("a name");
        let now = OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::days(1);
        params.not_after = now + time::Duration::seconds(ends_in);
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], key)
                .expect("a configuration");
        let (client, server) = tokio::io::duplex(1 << 16);
        let anchors = [trusted.to_owned()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (_, answer) = tokio::join!(
            async move {
                // A refused handshake is the client's verdict.
                let _ended = acceptor.accept(server).await;
            },
            seconds_left(client, SERVICE, &anchors)
        );
        answer
    }

    #[tokio::test]
    async fn what_is_left_of_a_certificate_is_read_and_what_is_refused_is_bad() {
        let (trusted, issuer) = root();
        let day = found(&issuer, &trusted, 86_400).await.expect("verified");
        assert!((86_300..=86_400).contains(&day), "{day}");
        let ended = found(&issuer, &trusted, -60).await.expect_err("it has ended");
        assert_eq!(ended.mark(), Mark::Bad, "{ended:?}");
        let (other, _) = root();
        let foreign = found(&issuer, &other, 86_400).await.expect_err("another root");
        assert_eq!(foreign.mark(), Mark::Bad, "{foreign:?}");
    }

    #[tokio::test]
    async fn a_connection_that_breaks_says_nothing_of_the_certificate() {
        let (client, server) = tokio::io::duplex(64);
        drop(server);
        let (trusted, _) = root();
        let broken = seconds_left(client, SERVICE, &[trusted]).await.expect_err("nobody is there");
        assert_eq!(broken.mark(), Mark::Doubtful, "{broken:?}");
    }

    #[test]
    fn less_than_an_hour_is_told() {
        assert_eq!(
            [judge(0), judge(1), judge(LEFT_MIN - 1), judge(LEFT_MIN)].map(|(mark, _)| mark),
            [Mark::Bad, Mark::Doubtful, Mark::Doubtful, Mark::Good]
        );
    }

    #[test]
    fn each_revision_is_called_by_its_own_service() {
        let replica = |revision: Option<&str>| PodView {
            namespace: "istio-system".to_owned(),
            revision: revision.map(str::to_owned),
            ..PodView::default()
        };
        assert_eq!(service(&replica(None)), SERVICE);
        assert_eq!(service(&replica(Some("canary"))), "mesh-control-canary.istio-system.svc");
    }
}
