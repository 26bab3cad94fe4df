//! One request head: what `h2` read, held to what this proxy forwards.
//!
//! `h2` already refuses connection lines, repeated or late pseudo headers and contradicting lengths. Here
//! `:authority` is made the only statement of who is called (SEMANTICS 5.4), and the number and size of lines
//! are bounded.

use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use mesh_policy::authorize::HeaderValues;

use crate::exchange::RequestHead;
use crate::ext_authz::edit::EditableLines;
use crate::forward::http1::head::{HEAD_BYTES_MAX, HEADERS_MAX};
use crate::respond::Refusal;
use crate::telemetry::HttpRecord;

/// What a header line costs beyond its text (RFC 9113 section 6.5.2).
const LINE_OVERHEAD: usize = 32;

/// Header lines, as policy reads them.
#[derive(Debug, Clone)]
pub struct Lines(pub HeaderMap);

impl HeaderValues for Lines {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        for value in self.0.get_all(name) {
            if !each(value.as_bytes()) {
                return;
            }
        }
    }
}

/// A request head.
#[derive(Debug, Clone)]
pub struct Head {
    /// Method.
    pub method: Method,
    /// Authority with its port, as sent.
    pub authority: Authority,
    /// Path and query, as sent.
    pub target: PathAndQuery,
    /// Header lines.
    pub lines: Lines,
}

/// Puts what a head says into the record, before it is known whether it can be served.
pub fn describe(parts: &Parts, record: &mut HttpRecord) {
    record.protocol = "HTTP/2";
    record.method.push_str(parts.method.as_str());
    record.original_path.push_str(parts.uri.path_and_query().map_or("", PathAndQuery::as_str));
    if let Some(authority) = parts.uri.authority() {
        record.authority.push_str(authority.as_str());
    }
    let text = |name| parts.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    record.user_agent.push_str(text(USER_AGENT.as_str()).unwrap_or_default());
    record.forwarded_for.push_str(text("x-forwarded-for").unwrap_or_default());
    if record.keeps_headers() {
        for (name, value) in &parts.headers {
            record.keep_header(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    record.is_grpc = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
}

impl Head {
    /// Takes a head over.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub fn read(parts: Parts) -> Result<Self, Refusal> {
        let Parts { method, uri, headers: mut lines, .. } = parts;
        if method == Method::CONNECT {
            return Err(Refusal::MethodNotServed);
        }
        let uri = uri.into_parts();
        let Some(target) = uri.path_and_query else {
            return Err(Refusal::BadRequest { details: "http2.missing_path" });
        };
        let authority = match uri.authority {
            Some(authority) => authority,
            None => host(&lines)?,
        };
        if authority.as_str().contains('@') {
            return Err(Refusal::BadRequest { details: "http2.invalid_authority" });
        }
        lines.remove(HOST);
        if lines.len() > HEADERS_MAX || size(&lines, &authority, &target) > HEAD_BYTES_MAX {
            return Err(Refusal::HeadersTooLarge);
        }
        Ok(Self { method, authority, target, lines: Lines(lines) })
    }

    /// Length of the body, when the head states it.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.lines.0.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// The head to send, with the path that was judged. The scheme is the one that was judged, too.
    ///
    /// # Errors
    /// When the judged path cannot be written as one.
    pub fn to_request(&self, path: Option<&str>) -> Result<Request<()>, Refusal> {
        let target = match path {
            None => self.target.clone(),
            Some(path) => PathAndQuery::try_from(path)
                .map_err(|_| Refusal::BadRequest { details: "path_normalization_failed" })?,
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(target);
        let uri =
            Uri::from_parts(uri).map_err(|_| Refusal::BadRequest { details: "http2.invalid_authority" })?;
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.lines.0.clone();
        Ok(request)
    }
}

impl RequestHead for Head {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn authority(&self) -> &str {
        self.authority.as_str()
    }

    fn target(&self) -> &str {
        self.target.as_str()
    }

    fn headers(&self) -> &dyn HeaderValues {
        &self.lines
    }

    fn lines_mut(&mut self) -> &mut dyn EditableLines {
        &mut self.lines.0
    }
}

impl crate::ext_authz::Lines for Head {
    fn each_line(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        self.lines.0.iter().for_each(|(name, value)| each(name.as_str().as_bytes(), value.as_bytes()));
    }
}

/// The authority of a request that states it as HTTP/1.1 does.
fn host(lines: &HeaderMap) -> Result<Authority, Refusal> {
    let mut hosts = lines.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return Err(Refusal::BadRequest { details: "missing_host_header" });
    };
    if hosts.next().is_some() {
        return Err(Refusal::BadRequest { details: "http2.multiple_host" });
    }
    Authority::try_from(host.as_bytes())
        .map_err(|_| Refusal::BadRequest { details: "http2.invalid_authority" })
}

fn size(lines: &HeaderMap, authority: &Authority, target: &PathAndQuery) -> usize {
    let lines: usize =
        lines.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_OVERHEAD).sum();
    lines + authority.as_str().len() + target.as_str().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri).version(Version::HTTP_2);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn host_next_to_an_authority_is_discarded() {
        let head = Head::read(parts("http://a:80/x?y", &[("host", "b")])).expect("served");
        assert_eq!((head.authority(), head.target()), ("a:80", "/x?y"));
        assert!(!head.lines.0.contains_key("host"));
    }

    #[test]
    fn host_without_an_authority_becomes_the_authority() {
        let head = Head::read(parts("/x", &[("host", "b:1")])).expect("served");
        let request = head.to_request(Some("/z")).expect("a request");
        assert_eq!(request.uri().to_string(), "http://b:1/z");
        assert!(request.headers().is_empty());
    }

    #[test]
    fn nobody_and_two_hosts_are_refused() {
        for lines in [&[][..], &[("host", "a"), ("host", "b")], &[("host", "a@b")], &[("host", "a/b")]] {
            assert!(matches!(Head::read(parts("/x", lines)), Err(Refusal::BadRequest { .. })), "{lines:?}");
        }
    }

    #[test]
    fn lines_are_bounded_in_number_and_size() {
        let long = "v".repeat(HEAD_BYTES_MAX);
        let names: Vec<_> = (0..=HEADERS_MAX).map(|number| format!("x-{number}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        for lines in [&[("x", long.as_str())][..], &many] {
            let refused = Head::read(parts("http://a/", lines));
            assert!(matches!(refused, Err(Refusal::HeadersTooLarge)), "{refused:?}");
        }
        assert!(Head::read(parts("http://a/", &many[..HEADERS_MAX])).is_ok());
    }
}
