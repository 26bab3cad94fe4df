//! A GET as the kubelet makes it: one connection, certificates not looked at, redirects of the same host
//! followed (<https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#http-probes>).

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, LazyLock};

use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::{Failure, connect};

/// Redirects that are followed for one probe.
const REDIRECTS_MAX: usize = 10;
/// Part of a body that is read before the connection is closed, as the kubelet does, in bytes.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Get {
    /// Port of the application.
    pub(super) port: u16,
    /// Whether TLS is spoken.
    pub(super) is_tls: bool,
    /// Path and query.
    pub(super) target: PathAndQuery,
    /// `Host`, when it is not the address.
    pub(super) host: Option<HeaderValue>,
    /// Other header lines.
    pub(super) lines: HeaderMap,
}

/// Asks, and follows redirects as long as they stay at this host; one that leads elsewhere is an answer.
pub(super) async fn get(
    question: &Get,
    address: IpAddr,
    user_agent: Option<HeaderValue>,
) -> Result<StatusCode, Failure> {
    let mut question = question.clone();
    if let Some(user_agent) = user_agent {
        question.lines.entry(USER_AGENT).or_insert(user_agent);
    }
    for _ in 0..=REDIRECTS_MAX {
        let (status, location) = once(&question, address).await?;
        match location.filter(|_| is_redirect(status)).and_then(|to| next(&question, address, &to)) {
            Some(next) => question = next,
            None => return Ok(status),
        }
    }
    Err(Failure(format!("more than {REDIRECTS_MAX} redirects")))
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads, if that is this host again.
fn next(question: &Get, address: IpAddr, location: &HeaderValue) -> Option<Get> {
    let to: Uri = location.to_str().ok()?.parse().ok()?;
    let target = to.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let Some(host) = to.host() else { return Some(Get { target, ..question.clone() }) };
    let host: IpAddr = host.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
    let is_tls = match to.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return None,
    };
    let port = to.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    (host.to_canonical() == address).then(|| Get { port, is_tls, target, ..question.clone() })
}

async fn once(question: &Get, address: IpAddr) -> Result<(StatusCode, Option<HeaderValue>), Failure> {
    let at = SocketAddr::new(address, question.port);
    let tcp = connect(at).await?;
    if !question.is_tls {
        return exchange(question, at, tcp).await;
    }
    let tls = TlsConnector::from(Arc::clone(&UNVERIFIED)).connect(ServerName::IpAddress(address.into()), tcp);
    let tls = tls.await.map_err(|error| Failure(format!("no TLS with {at}: {error}")))?;
    exchange(question, at, tls).await
}

async fn exchange<S>(
    question: &Get,
    at: SocketAddr,
    stream: S,
) -> Result<(StatusCode, Option<HeaderValue>), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = Uri::from(question.target.clone());
    let authority = HeaderValue::try_from(authority(question, at))?;
    let lines = request.headers_mut();
    lines.insert(HOST, question.host.clone().unwrap_or(authority));
    lines.extend(question.lines.iter().map(|(name, value)| (name.clone(), value.clone())));
    lines.insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut asking = pin!(async move {
        let response = sender.send_request(request).await?;
        let location = response.headers().get(LOCATION).cloned();
        let status = response.status();
        discard(response.into_body()).await;
        Ok::<_, hyper::Error>((status, location))
    });
    let answered = tokio::select! {
        biased;
        answered = &mut asking => answered,
        // What came before the end is still to be taken.
        _ended = &mut connection => asking.await,
    };
    answered.map_err(Failure::from)
}

/// The default port of a scheme is not stated (RFC 9110 section 4.2).
fn authority(question: &Get, at: SocketAddr) -> String {
    let usual = if question.is_tls { 443 } else { 80 };
    match at {
        SocketAddr::V4(at) if at.port() == usual => at.ip().to_string(),
        SocketAddr::V6(at) if at.port() == usual => format!("[{}]", at.ip()),
        at => at.to_string(),
    }
}

/// Reads the begin of a body. What breaks after the head changes nothing: the head has the status.
async fn discard(mut body: Incoming) {
    let mut left = BODY_BYTES_MAX;
    while left > 0 {
        match body.frame().await {
            Some(Ok(frame)) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(_)) | None => return,
        }
    }
}

static UNVERIFIED: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Unverified { provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for both versions");
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
});

/// Takes any certificate, as the kubelet does: the connection does not leave the pod, and nothing secret is
/// said on it. Signatures are checked all the same, since a handshake that is broken is a probe that failed.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
