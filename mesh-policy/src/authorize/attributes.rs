//! What is known about a request or connection when it is judged.
//!
//! Everything is borrowed, because a decision allocates nothing. What is absent is absent: a test on it is
//! false and its negation true (SEMANTICS 6.5, TRAP 23), never an error.

use std::net::IpAddr;

use mesh_api::name::SpiffeId;
use serde_json::{Map, Value};

/// One request, or one connection whose protocol is not HTTP.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Identity from the verified client certificate; `None` for plaintext.
    pub peer: Option<&'a SpiffeId>,
    /// Address of the TCP peer.
    pub source_ip: IpAddr,
    /// Address of the original client, as far as it is trusted; otherwise that of the TCP peer.
    pub remote_ip: IpAddr,
    /// Local address of the connection, before interception.
    pub destination_ip: IpAddr,
    /// Local (target) port of the connection, before interception.
    pub destination_port: u16,
    /// Server name of the TLS handshake.
    pub sni: Option<&'a str>,
    /// The request; `None` for a connection that is not HTTP.
    pub http: Option<HttpAttributes<'a>>,
}

/// The HTTP part of [`Attributes`].
#[derive(Debug, Clone, Copy)]
pub struct HttpAttributes<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Authority with its port, as sent.
    pub authority: &'a str,
    /// Normalised path without query ([`crate::normalize::NormalizedPath::policy_path`]); empty when the
    /// request has none (CONNECT), and then no path rule matches.
    pub path: &'a str,
    /// Header lines.
    pub headers: &'a dyn HeaderValues,
    /// Claims of a token that RequestAuthentication verified; never those of an unverified one.
    pub claims: Option<&'a Claims>,
}

/// Header lines, as the engine reads them.
pub trait HeaderValues: std::fmt::Debug {
    /// Calls `each` with the bytes of every line named `name` (lower case), one by one and in order, until
    /// it returns `false`. Repeated lines are never joined: each is judged on its own (CVE-2026-26308).
    /// `:path` (with its query) and `:scheme` may be asked for too; `:method`, `:authority` and `host` are
    /// answered from [`HttpAttributes`] and never asked for.
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool);
}

/// Header lines as name and value pairs; for tests, `explain` from the command line, and small requests.
#[derive(Debug, Clone, Copy)]
pub struct HeaderList<'a>(pub &'a [(String, String)]);

impl HeaderValues for HeaderList<'_> {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        for (_, value) in self.0.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)) {
            if !each(value.as_bytes()) {
                return;
            }
        }
    }
}

/// Claims that are always split at spaces (SEMANTICS 6.7).
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// The claims of a verified token.
///
/// Only the verifier of tokens makes one. `scope`, `permission` and the claims that the rule names are split
/// at spaces here, once, so that a decision need not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Claims {
    values: Map<String, Value>,
}

impl Claims {
    /// Takes over the payload of a token whose signature, issuer, audience and times have been verified.
    #[must_use]
    pub fn from_verified(mut payload: Map<String, Value>, space_delimited: &[String]) -> Self {
        let names = SPACE_DELIMITED.into_iter().chain(space_delimited.iter().map(String::as_str));
        for name in names {
            if let Some(value) = payload.get_mut(name)
                && let Value::String(text) = value
            {
                let words = text.split(' ').filter(|word| !word.is_empty());
                *value = Value::Array(words.map(|word| Value::String(word.to_owned())).collect());
            }
        }
        Self { values: payload }
    }

    /// The claim at a path of names.
    #[must_use]
    pub fn at<'s, 'n>(&'s self, path: impl IntoIterator<Item = &'n str>) -> Option<&'s Value> {
        let mut names = path.into_iter();
        let mut value = self.values.get(names.next()?)?;
        for name in names {
            value = value.as_object()?.get(name)?;
        }
        Some(value)
    }

    /// A claim that is a non-empty string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }
}

/// [`Attributes`] taken apart once for each decision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) all: &'a Attributes<'a>,
    /// Namespace and service account of a peer whose id has the workload form.
    pub(crate) workload: Option<(&'a str, &'a str)>,
    pub(crate) source_ip: IpAddr,
    pub(crate) remote_ip: IpAddr,
    pub(crate) destination_ip: IpAddr,
    pub(crate) destination_port: [u8; 2],
}

impl<'a> Facts<'a> {
    pub(crate) fn of(all: &'a Attributes<'a>) -> Self {
        Self {
            all,
            workload: all.peer.and_then(SpiffeId::workload_parts),
            source_ip: all.source_ip.to_canonical(),
            remote_ip: all.remote_ip.to_canonical(),
            destination_ip: all.destination_ip.to_canonical(),
            destination_port: all.destination_port.to_be_bytes(),
        }
    }

    /// `NAMESPACE/sa/ACCOUNT`, borrowed from the peer's id: the key of service accounts in the index.
    pub(crate) fn account_key(&self) -> Option<&'a str> {
        self.workload?;
        self.all.peer?.path().strip_prefix("/ns/")
    }
}
