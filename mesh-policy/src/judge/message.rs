//! A request as the proxy reads it: the target taken apart, the path in its one form, and the header lines
//! that a proxy removes, replaces or adds before anything is judged.

use mesh_api::model::MeshSettings;
use mesh_api::name::SpiffeId;
use mesh_api::policy_test::Request;

use super::headers;
use crate::authenticate::Effects;
use crate::normalize;

/// Why a request is answered 400 before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("the method {0:?} is not a word of upper-case letters")]
    Method(String),
    #[error("{0:?} is not the name of a header")]
    HeaderName(String),
    #[error("the header {0} holds a control character")]
    HeaderValue(String),
    #[error("{0:?} is not a host with an optional port")]
    Authority(String),
    #[error("the target holds a control character that ends a line or a text")]
    Target,
    #[error(transparent)]
    Path(#[from] normalize::Refusal),
}

/// A request that can be read in exactly one way.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) authority: String,
    /// Path and query as they are forwarded; empty when the request has none.
    pub(super) path: String,
    /// Length of the part before the query.
    policy_path_length: usize,
    /// In order, pseudo headers excepted.
    pub(super) headers: Vec<(String, String)>,
    pub(super) scheme: &'static str,
}

impl Message {
    /// Reads a request. `local` is the identity of the workload that is called.
    pub(super) fn read(mesh: &MeshSettings, local: &SpiffeId, request: &Request) -> Result<Self, BadRequest> {
        let http = &request.http;
        // A token in lower case is another method for some applications and the same for others
        // (SEMANTICS 5.4).
        if http.method.is_empty()
            || !http.method.bytes().all(|byte| is_token(byte) && !byte.is_ascii_lowercase())
        {
            return Err(BadRequest::Method(http.method.clone()));
        }
        for (name, value) in &http.headers {
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(BadRequest::HeaderName(name.clone()));
            }
            if value.bytes().any(|byte| byte == 0x7f || (byte < b' ' && byte != b'\t')) {
                return Err(BadRequest::HeaderValue(name.clone()));
            }
        }
        if http.path.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(BadRequest::Target);
        }
        let (authority, target) = match absolute(&http.path) {
            Some((authority, target)) => (authority, target),
            None => (http.host.as_str(), http.path.as_str().into()),
        };
        if !is_authority(authority) {
            return Err(BadRequest::Authority(authority.to_owned()));
        }
        let mut message = Self {
            authority: authority.to_owned(),
            path: String::new(),
            policy_path_length: 0,
            headers: http.headers.clone(),
            scheme: scheme(request),
        };
        if http.method != "CONNECT" {
            let path = normalize::path(&target, mesh.path_normalization)?;
            message.policy_path_length = path.policy_path().len();
            message.path = path.into_text().into_owned();
        }
        headers::finish(&mut message.headers, local, request.principal.as_ref(), message.scheme);
        Ok(message)
    }

    /// Makes the changes that follow from tokens. They leave the path before the query as it is.
    pub(super) fn apply(&mut self, effects: &Effects) {
        self.headers.retain(|(name, _)| !effects.removes(name));
        self.headers.extend(effects.added().map(|(name, value)| (name.to_owned(), value.to_owned())));
        if let Some(target) = effects.target().filter(|target| target.len() >= self.policy_path_length) {
            target.clone_into(&mut self.path);
        }
    }

    /// Whether there is a path to test: CONNECT has none.
    pub(super) fn has_path(&self) -> bool {
        !self.path.is_empty()
    }

    /// What path matchers see; empty when there is no path.
    pub(super) fn policy_path(&self) -> &str {
        &self.path[..self.policy_path_length]
    }

    /// The lines that conditions may ask for, pseudo headers among them.
    pub(super) fn lines(&self) -> Vec<(String, String)> {
        let mut lines = self.headers.clone();
        lines.push((":scheme".to_owned(), self.scheme.to_owned()));
        if self.has_path() {
            lines.push((":path".to_owned(), self.path.clone()));
        }
        lines
    }
}

/// The scheme that the caller's application wrote. Between proxies it is told in `x-forwarded-proto`; a caller
/// of the mesh wrote `http`, and its proxy made it mTLS.
fn scheme(request: &Request) -> &'static str {
    let told = request.http.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-forwarded-proto"));
    match told.map(|(_, value)| value.as_str()) {
        Some("https") => "https",
        Some("http") => "http",
        Some(_) | None if request.tls && request.principal.is_none() => "https",
        Some(_) | None => "http",
    }
}

/// Authority and the rest of a target in absolute form (SEMANTICS 5.2: the URL's authority replaces Host).
fn absolute(target: &str) -> Option<(&str, std::borrow::Cow<'_, str>)> {
    let rest = ["http://", "https://"]
        .iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|scheme| &target[scheme.len()..])?;
    // A backslash stays in the authority, which refuses it: readers do not agree on what it is there.
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
    Some((authority, path))
}

/// Whether `text` can be the authority of a request: nothing, or one host with an optional port. User
/// information is refused, and so is a comma, at which lists of hosts would be split.
fn is_authority(text: &str) -> bool {
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.contains(':') => host,
        _ => text,
    };
    match host.strip_prefix('[') {
        Some(address) => address.split_once(']').is_some_and(|(address, rest)| {
            let port = rest.strip_prefix(':').unwrap_or(rest);
            address.parse::<std::net::Ipv6Addr>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit())
        }),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&byte)),
    }
}

/// A byte of a method or of a header's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_is_cut_into_authority_and_path() {
        for (target, expected) in [
            ("http://h/admin", Some(("h", "/admin"))),
            ("HTTPS://h:8080?x=1", Some(("h:8080", "/?x=1"))),
            ("http://h", Some(("h", "/"))),
            ("http://h\\@x/a", Some(("h\\@x", "/a"))),
            ("/http://h", None),
            ("ftp://h/", None),
        ] {
            let found = absolute(target);
            assert_eq!(found.as_ref().map(|(host, path)| (*host, &**path)), expected, "{target}");
        }
    }

    #[test]
    fn an_authority_is_one_host_with_an_optional_port() {
        for good in ["", "a.com", "a.com:8080", "a.com.", "10.0.0.1:80", "[::1]", "[::1]:80", "x_y"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["a b", "a,b", "u@a", "a/b", "a\\b", "[::1", "[x]", "a:b", "::1", "a:1:2", "é"] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
