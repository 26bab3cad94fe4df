//! A URL that keys are fetched from, parsed once: who is dialled, who must answer, and what is asked for.
//!
//! Less is accepted than a browser takes: http and https, a host that is an address or a plain DNS name, no
//! user information. Where a redirect leads is read by the same rules.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// Longest URL, in bytes; validation of `jwksUri` has the same limit.
const URL_BYTES_MAX: usize = 2_048;
/// Longest DNS name, in bytes (RFC 1035 section 2.3.4, without the root's dot).
const NAME_BYTES_MAX: usize = 253;

/// Why a URL is not fetched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is longer than any that is needed.
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("the URL cannot be read")]
    Malformed,
    /// Another scheme.
    #[error("the URL is neither http nor https")]
    Scheme,
    /// It names a user.
    #[error("the URL has user information, which is not sent anywhere")]
    UserInformation,
    /// The host is neither an address nor a DNS name.
    #[error("the URL's host is neither an address nor a DNS name")]
    Host,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostName {
    /// An address.
    Address(IpAddr),
    /// A DNS name in lower case, without a dot at its end.
    Name(String),
}

impl HostName {
    /// Whether it says by itself, before any look-up, that it is this machine (RFC 6761 section 6.3).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.to_canonical().is_loopback(),
            Self::Name(name) => name == "localhost" || name.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub scheme: Scheme,
    /// Who.
    pub host: HostName,
    /// Port.
    pub port: u16,
    /// Path and query, as they are sent.
    pub path_and_query: String,
}

/// Without the query, which may hold a secret: this goes to logs and to operators.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{}://{}{path}", self.scheme.as_str(), self.authority())
    }
}

impl Target {
    /// Parses an absolute URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        if url.len() > URL_BYTES_MAX {
            return Err(TargetError::TooLong);
        }
        let uri: Uri = url.parse().map_err(|_| TargetError::Malformed)?;
        let scheme = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            Some(_) | None => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInformation);
        }
        let host = host(authority.host())?;
        let port = match authority.as_str().rsplit_once(':') {
            // The colons of an address in brackets are its own.
            Some((_, digits)) if !digits.ends_with(']') && !digits.is_empty() => {
                authority.port_u16().filter(|port| *port != 0).ok_or(TargetError::Malformed)?
            }
            Some(_) | None => scheme.default_port(),
        };
        let path_and_query = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("") => "/".to_owned(),
            Some(query) if query.starts_with('?') => format!("/{query}"),
            Some(path) => path.to_owned(),
        };
        Ok(Self { scheme, host, port, path_and_query })
    }

    /// Where a redirect leads that this URL answered with (RFC 9110 section 10.2.2: a URI reference).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn join(&self, location: &str) -> Result<Self, TargetError> {
        let (scheme, authority) = (self.scheme.as_str(), self.authority());
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        if location.is_empty() {
            Err(TargetError::Malformed)
        } else if has_scheme(location) {
            Self::parse(location)
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{authority}{location}"))
        } else if location.starts_with('?') {
            Self::parse(&format!("{scheme}://{authority}{path}{location}"))
        } else {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Self::parse(&format!("{scheme}://{authority}{folder}/{location}"))
        }
    }

    /// Host and, where it is not the scheme's own, port: the value of `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn host(text: &str) -> Result<HostName, TargetError> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner
            .parse()
            .map(|address| HostName::Address(IpAddr::V6(address)))
            .map_err(|_| TargetError::Host);
    }
    if let Ok(address) = text.parse() {
        return Ok(HostName::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label) {
        Ok(HostName::Name(name))
    } else {
        Err(TargetError::Host)
    }
}

/// Whether a URI reference begins with a scheme (RFC 3986 section 3.1).
fn has_scheme(location: &str) -> bool {
    let Some((scheme, _)) = location.split_once(':') else { return false };
    scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_its_query_is_not_shown() {
        let target = Target::parse("HTTPS://IdP.Example.:8443/a/b?key=secret#part").expect("valid");
        assert_eq!((target.scheme, target.port), (Scheme::Https, 8443));
        assert_eq!(target.host, HostName::Name("idp.example".to_owned()));
        assert_eq!(target.path_and_query, "/a/b?key=secret");
        assert_eq!(target.to_string(), "https://idp.example:8443/a/b");
        let plain = Target::parse("http://[::1]").expect("valid");
        assert_eq!((plain.port, plain.path_and_query.as_str()), (80, "/"));
        assert_eq!(plain.authority(), "[::1]");
        assert_eq!(Target::parse("https://a?x=1").expect("valid").path_and_query, "/?x=1");
    }

    #[test]
    fn what_is_not_a_plain_url_is_refused() {
        let long = format!("https://a/{}", "x".repeat(URL_BYTES_MAX));
        let cases = [
            ("ftp://a/", TargetError::Scheme),
            ("file:///etc/passwd", TargetError::Malformed),
            ("/jwks", TargetError::Scheme),
            ("https://user:secret@a/", TargetError::UserInformation),
            ("https://a@169.254.169.254/", TargetError::UserInformation),
            ("https://a:0/", TargetError::Malformed),
            ("https://a:99999/", TargetError::Malformed),
            ("https://a b/", TargetError::Malformed),
            ("https://[fe80::1%25eth0]/", TargetError::Host),
            ("https://a..b/", TargetError::Host),
            ("https://a!b/", TargetError::Host),
            (long.as_str(), TargetError::TooLong),
        ];
        for (url, error) in cases {
            assert_eq!(Target::parse(url), Err(error), "{url}");
        }
    }

    #[test]
    fn a_redirect_is_resolved_against_where_it_came_from() {
        let from = Target::parse("https://idp.example/realms/a/keys?x=1").expect("valid");
        let cases = [
            ("https://b.example/k", "https://b.example/k"),
            ("http://b.example/k", "http://b.example/k"),
            ("//c.example:444/k", "https://c.example:444/k"),
            ("/k", "https://idp.example/k"),
            ("k2", "https://idp.example/realms/a/k2"),
            ("?y=2", "https://idp.example/realms/a/keys"),
        ];
        for (location, expected) in cases {
            assert_eq!(from.join(location).expect(location).to_string(), expected);
        }
        assert_eq!(from.join("javascript:alert(1)"), Err(TargetError::Scheme));
        assert_eq!(from.join("ftp://b/k"), Err(TargetError::Scheme));
        assert_eq!(from.join(""), Err(TargetError::Malformed));
    }

    #[test]
    fn only_a_host_that_says_so_is_loopback_by_itself() {
        let is_loopback = |url: &str| Target::parse(url).expect(url).host.is_loopback();
        for url in [
            "http://127.0.0.1/",
            "http://127.9.9.9/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://localhost:1/",
            "http://idp.LOCALHOST/",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://localhost.example/", "http://10.0.0.1/", "http://idp/"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
