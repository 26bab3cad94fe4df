//! One fetch: the URL, or the URL that an OpenID provider's configuration names, over HTTP/1.1.
//!
//! Every hop is resolved, judged by the [guard](super::guard) and dialled at exactly the address that was
//! judged; nothing is sent but a GET without credentials. What comes back is bounded in time, bytes and
//! hops, and none of it appears in an error. Dropping the future ends the fetch and its connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, HOST, LOCATION, USER_AGENT,
};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_api::model::KeySource;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::guard::{Guard, Loopback, Refusal};
use super::key_set::{KeySetError, PublicKeys};
use super::target::{HostName, Scheme, Target, TargetError};

/// Longest answer, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Redirects that are followed for one document.
pub const REDIRECTS_MAX: usize = 3;
/// Longest fetch, whatever a policy states.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Time for a fetch when a policy states none (Istio, RequestAuthentication `timeout`).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// Time for an address that is not the last of its name (RFC 8305 section 8 has 250 ms to 2 s).
const EARLIER_ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes and fields that the head of an answer may have.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEAD_FIELDS_MAX: usize = 64;
const AGENT: &str = concat!("mesh-control/", env!("CARGO_PKG_VERSION"));

/// What is fetched, as the policies that use it state together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Where from.
    pub source: KeySource,
    /// Whose configuration it must be, without a slash at its end; only looked at in a discovery.
    pub issuer: String,
    /// Time allowed.
    pub timeout: Duration,
}

impl Spec {
    /// What a rule needs fetched; `None` for one that states its keys.
    #[must_use]
    pub fn of(rule: &mesh_api::model::JwtRule) -> Option<(String, Self)> {
        let source = rule.key_source();
        let url = source.url()?.to_owned();
        let timeout = match rule.timeout_ms {
            0 => TIMEOUT_DEFAULT,
            stated => Duration::from_millis(stated).min(TIMEOUT_MAX),
        };
        let issuer = rule.issuer.strip_suffix('/').unwrap_or(&rule.issuer).to_owned();
        Some((url, Self { source, issuer, timeout }))
    }

    /// One specification for two rules with the same URL: the patience of the more patient one. A URL that
    /// one rule takes for a provider's configuration is asked as that.
    pub fn merge(&mut self, other: &Self) {
        self.timeout = self.timeout.max(other.timeout);
        if let (KeySource::Jwks(_), KeySource::Discovery(_)) = (&self.source, &other.source) {
            self.source = other.source.clone();
            self.issuer.clone_from(&other.issuer);
        }
    }
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The keys.
    pub keys: PublicKeys,
    /// How long the provider says that they are fresh.
    pub fresh_for: Option<Duration>,
}

/// Why nothing was fetched. No text of it comes from an answer, but for the URLs in it.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A URL.
    #[error("{what} cannot be asked")]
    Target {
        /// Which URL.
        what: &'static str,
        /// What is wrong with it.
        source: TargetError,
    },
    /// No such name.
    #[error("the name of {target} cannot be resolved")]
    Resolve {
        /// The URL.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// The name has no address.
    #[error("the name of {target} has no address")]
    NoAddress {
        /// The URL.
        target: Target,
    },
    /// It may not be asked.
    #[error("{target} is not asked")]
    Refused {
        /// The URL.
        target: Target,
        /// Why.
        source: Refusal,
    },
    /// Nobody answers.
    #[error("cannot connect to {target} at {address}")]
    Connect {
        /// The URL.
        target: Target,
        /// The address.
        address: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// The server could not prove who it is.
    #[error("no TLS with {target}")]
    Tls {
        /// The URL.
        target: Target,
        /// Why.
        source: io::Error,
    },
    /// The exchange broke.
    #[error("{target} does not answer in HTTP/1.1")]
    Http {
        /// The URL.
        target: Target,
        /// Why.
        source: hyper::Error,
    },
    /// Another status.
    #[error("{target} answers with status {}", status.as_u16())]
    Status {
        /// The URL.
        target: Target,
        /// The status.
        status: StatusCode,
    },
    /// It leads on and on.
    #[error("{target} is one redirect too many; {REDIRECTS_MAX} are followed")]
    Redirects {
        /// The URL.
        target: Target,
    },
    /// It leads out of TLS.
    #[error("{target} is not asked: https does not lead to http")]
    Downgrade {
        /// The URL.
        target: Target,
    },
    /// A body in a form that was not asked for.
    #[error("{target} answers with a content encoding that was not asked for")]
    Encoding {
        /// The URL.
        target: Target,
    },
    /// A body without end.
    #[error("{target} answers with more than {BODY_BYTES_MAX} bytes")]
    TooLarge {
        /// The URL.
        target: Target,
    },
    /// It took too long.
    #[error("the keys did not come within {} ms", timeout.as_millis())]
    TimedOut {
        /// Time allowed.
        timeout: Duration,
    },
    /// It is not a key set.
    #[error("{target} has no usable keys")]
    KeySet {
        /// The URL.
        target: Target,
        /// Why.
        source: KeySetError,
    },
    /// It is not a provider's configuration.
    #[error("{target} is not an OpenID provider's configuration with a `jwks_uri`")]
    Configuration {
        /// The URL.
        target: Target,
    },
    /// It is the configuration of another provider.
    #[error("{target} is the configuration of another issuer than the rule's (OpenID Connect Discovery 4.3)")]
    Issuer {
        /// The URL.
        target: Target,
    },
}

impl FetchError {
    /// A word for metrics.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Target { .. } => "url",
            Self::Resolve { .. } | Self::NoAddress { .. } => "resolve",
            Self::Refused { .. } => "destination",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } => "tls",
            Self::Http { .. } => "http",
            Self::Status { .. } => "status",
            Self::Redirects { .. } | Self::Downgrade { .. } => "redirect",
            Self::Encoding { .. } | Self::TooLarge { .. } => "body",
            Self::TimedOut { .. } => "timeout",
            Self::KeySet { .. } => "key_set",
            Self::Configuration { .. } | Self::Issuer { .. } => "discovery",
        }
    }
}

/// What the mesh itself knows of a name and a port; nothing when the name is not one of its services.
pub type Directory = Arc<dyn Fn(&str, u16) -> Vec<SocketAddr> + Send + Sync>;

/// Who finds addresses.
#[derive(Clone)]
pub(super) enum Resolver {
    /// The system.
    System,
    /// The mesh, and the system for what it does not know.
    Mesh(Directory),
    /// A list, for names that no test may look up.
    #[cfg(test)]
    Listed(std::collections::BTreeMap<String, Vec<IpAddr>>),
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

impl Resolver {
    async fn resolve(&self, host: &HostName, port: u16) -> io::Result<Vec<SocketAddr>> {
        match (host, self) {
            (HostName::Address(address), _) => Ok(vec![SocketAddr::new(*address, port)]),
            (HostName::Name(name), Self::System) => system(name, port).await,
            (HostName::Name(name), Self::Mesh(directory)) => {
                let known = directory(name, port);
                if known.is_empty() { system(name, port).await } else { Ok(known) }
            }
            #[cfg(test)]
            (HostName::Name(name), Self::Listed(list)) => {
                let found = list.get(name).ok_or(io::ErrorKind::NotFound)?;
                Ok(found.iter().map(|address| SocketAddr::new(*address, port)).collect())
            }
        }
    }
}

async fn system(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, port)).await?.collect())
}

/// Fetches keys. Shared by all fetches.
#[derive(Debug, Clone)]
pub struct Fetcher {
    guard: Guard,
    tls: Arc<ClientConfig>,
    resolver: Resolver,
}

/// A document.
struct Document {
    target: Target,
    head: HeaderMap,
    body: Vec<u8>,
}

impl Fetcher {
    /// A fetcher that dials what `guard` lets it and verifies servers by `tls`.
    #[must_use]
    pub fn new(guard: Guard, tls: Arc<ClientConfig>) -> Self {
        Self { guard, tls, resolver: Resolver::System }
    }

    /// The same, which finds the services of the mesh by itself: a provider in it needs no DNS server that
    /// the control plane can ask.
    #[must_use]
    pub fn with_directory(self, directory: Directory) -> Self {
        Self { resolver: Resolver::Mesh(directory), ..self }
    }

    /// Fetches the keys that `spec` names.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn fetch(&self, spec: &Spec) -> Result<Fetched, FetchError> {
        timeout(spec.timeout, self.keys(spec))
            .await
            .unwrap_or(Err(FetchError::TimedOut { timeout: spec.timeout }))
    }

    async fn keys(&self, spec: &Spec) -> Result<Fetched, FetchError> {
        let stated = |what| move |source| FetchError::Target { what, source };
        let (document, fresh_for) = match &spec.source {
            KeySource::Inline => return Err(stated("a rule with keys in line")(TargetError::Malformed)),
            KeySource::Jwks(url) => {
                let target = Target::parse(url).map_err(stated("jwksUri"))?;
                let loopback = stated_loopback(&target);
                let document = self.document(target, loopback).await?;
                let fresh_for = fresh_for(&document.head);
                (document, fresh_for)
            }
            KeySource::Discovery(url) => {
                let target = Target::parse(url).map_err(stated("the issuer"))?;
                let loopback = stated_loopback(&target);
                let configuration = self.document(target, loopback).await?;
                let keys = jwks_uri(&configuration, &spec.issuer)?;
                let document = self.document(keys, loopback).await?;
                let fresh_for = fresh_for(&document.head);
                (document, fresh_for)
            }
        };
        let Document { target, body, .. } = document;
        let keys = PublicKeys::parse(&body).map_err(|source| FetchError::KeySet { target, source })?;
        Ok(Fetched { keys, fresh_for })
    }

    /// Follows redirects to a document.
    async fn document(&self, mut target: Target, loopback: Loopback) -> Result<Document, FetchError> {
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.ask(&target, loopback).await?;
            match answer {
                Answer::Document(document) => return Ok(document),
                Answer::Redirect(next) => {
                    if target.scheme == Scheme::Https && next.scheme == Scheme::Http {
                        return Err(FetchError::Downgrade { target: next });
                    }
                    target = next;
                }
            }
        }
        Err(FetchError::Redirects { target })
    }

    async fn ask(&self, target: &Target, loopback: Loopback) -> Result<Answer, FetchError> {
        let stream = self.dial(target, loopback).await?;
        match target.scheme {
            Scheme::Http => exchange(target, stream).await,
            Scheme::Https => {
                let name = match &target.host {
                    HostName::Address(address) => ServerName::from(*address),
                    HostName::Name(name) => ServerName::try_from(name.clone())
                        .map_err(|_| FetchError::Target { what: "a URL", source: TargetError::Host })?,
                };
                let failed = |source| FetchError::Tls { target: target.clone(), source };
                let tls = TlsConnector::from(Arc::clone(&self.tls));
                exchange(target, tls.connect(name, stream).await.map_err(failed)?).await
            }
        }
    }

    /// Connects to an address that was judged: one after the other, each with its share of patience, so that
    /// one that swallows packets does not use up the time of the next.
    async fn dial(&self, target: &Target, loopback: Loopback) -> Result<TcpStream, FetchError> {
        let resolved = self.resolver.resolve(&target.host, target.port).await;
        let found = resolved.map_err(|source| FetchError::Resolve { target: target.clone(), source })?;
        let mut refusal = None;
        let mut judged = Vec::new();
        for address in found {
            match self.guard.check(&target.host, address.ip(), loopback) {
                Ok(()) => judged.push(address),
                Err(source) => drop(refusal.get_or_insert(source)),
            }
        }
        judged.truncate(ADDRESSES_MAX);
        let Some((last, earlier)) = judged.split_last() else {
            return Err(match refusal {
                Some(source) => FetchError::Refused { target: target.clone(), source },
                None => FetchError::NoAddress { target: target.clone() },
            });
        };
        for address in earlier {
            if let Ok(Ok(stream)) = timeout(EARLIER_ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
                return Ok(stream);
            }
        }
        TcpStream::connect(last).await.map_err(|source| FetchError::Connect {
            target: target.clone(),
            address: last.ip(),
            source,
        })
    }
}

enum Answer {
    Document(Document),
    Redirect(Target),
}

fn stated_loopback(target: &Target) -> Loopback {
    if target.host.is_loopback() { Loopback::Stated } else { Loopback::NotStated }
}

/// One request and its answer, on a connection of its own.
async fn exchange<S>(target: &Target, stream: S) -> Result<Answer, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |source| FetchError::Http { target: target.clone(), source };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let malformed = |_| FetchError::Target { what: "a URL", source: TargetError::Malformed };
    let request = Request::get(&target.path_and_query)
        .header(HOST, target.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        // What is packed can be small on the way and without end here.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(malformed)?;
    driven(connection, async {
        let response = sender.send_request(request).await.map_err(broken)?;
        answer(target, response).await
    })
    .await
}

/// Runs an exchange on the connection that carries it.
async fn driven<T>(connection: impl Future, exchange: impl Future<Output = T>) -> T {
    tokio::pin!(connection, exchange);
    let mut is_over = false;
    loop {
        tokio::select! {
            done = &mut exchange => return done,
            // Its error is the exchange's too, and what was read before it ended is still to be taken.
            _ = &mut connection, if !is_over => is_over = true,
        }
    }
}

async fn answer(target: &Target, response: Response<Incoming>) -> Result<Answer, FetchError> {
    let (head, mut body) = response.into_parts();
    if is_redirect(head.status) {
        let location = head.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        let next = target.join(location.unwrap_or_default());
        let next = next.map_err(|source| FetchError::Target { what: "where a redirect leads", source })?;
        return Ok(Answer::Redirect(next));
    }
    if head.status != StatusCode::OK {
        return Err(FetchError::Status { target: target.clone(), status: head.status });
    }
    let is_plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !head.headers.get_all(CONTENT_ENCODING).iter().all(is_plain) {
        return Err(FetchError::Encoding { target: target.clone() });
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| FetchError::Http { target: target.clone(), source })?;
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(FetchError::TooLarge { target: target.clone() });
        }
        bytes.extend_from_slice(data);
    }
    Ok(Answer::Document(Document { target: target.clone(), head: head.headers, body: bytes }))
}

/// The statuses whose `Location` a GET follows (RFC 9110 section 15.4); 300 and 304 are none of them.
fn is_redirect(status: StatusCode) -> bool {
    [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ]
    .contains(&status)
}

/// Where a provider's configuration says that its keys are.
fn jwks_uri(configuration: &Document, issuer: &str) -> Result<Target, FetchError> {
    let invalid = || FetchError::Configuration { target: configuration.target.clone() };
    let document: Value = serde_json::from_slice(&configuration.body).map_err(|_| invalid())?;
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let found = text("issuer").ok_or_else(invalid)?;
    // The slash at an issuer's end is no part of where its configuration is, so rules with and without it
    // share this source. Each still accepts tokens of exactly the issuer that it states.
    if found.strip_suffix('/').unwrap_or(found) != issuer {
        return Err(FetchError::Issuer { target: configuration.target.clone() });
    }
    let keys = Target::parse(text("jwks_uri").ok_or_else(invalid)?);
    let keys = keys.map_err(|source| FetchError::Target { what: "the provider's jwks_uri", source })?;
    if configuration.target.scheme == Scheme::Https && keys.scheme == Scheme::Http {
        return Err(FetchError::Downgrade { target: keys });
    }
    Ok(keys)
}

/// How long an answer is fresh: `max-age` (RFC 9111 section 5.2.2.1). Providers that forbid storing mean
/// browsers, and asking them every minute for that would be no kindness; so that is not looked at.
fn fresh_for(head: &HeaderMap) -> Option<Duration> {
    let values = head.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let ages = values.flat_map(|value| value.split(',')).filter_map(|directive| {
        let (name, age) = directive.split_once('=')?;
        let is_age = name.trim().eq_ignore_ascii_case("max-age");
        is_age.then(|| age.trim().trim_matches('"').parse::<u64>().ok()).flatten()
    });
    ages.min().filter(|age| *age > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
