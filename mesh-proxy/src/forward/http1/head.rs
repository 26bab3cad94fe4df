//! Heads of requests and responses: bytes in, one unambiguous reading out, or a refusal with its reason.
//!
//! The line structure is checked here before `httparse` sees a byte, because `httparse` takes what a lenient
//! server takes (bare LF, several blank lines in front), and what one reader takes and the next does not is
//! how requests are smuggled. Hop-by-hop lines are taken out at once, those that `Connection` names too, so
//! policy and application see the same head. Reading resumes where it stopped: the same bytes in any split
//! give the same result.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};

use super::block::{HeaderBlock, tokens};
use super::framing::{self, Framing, FramingError, Version};

/// Most header lines of one message, as Envoy has it.
pub const HEADERS_MAX: usize = 100;
/// Largest head in bytes. Envoy's default is 60 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Lines that concern one hop only (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "http2-settings"];
/// Lines that `Connection` cannot take away: the message would change its meaning, or lose its credentials.
const NOT_HOP_BY_HOP: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "expect",
    "authorization",
    "cookie",
    "origin",
    "x-forwarded-for",
    "x-forwarded-client-cert",
];

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head is longer than [`HEAD_BYTES_MAX`].
    #[error("head is too large")]
    TooLarge,
    /// More lines than [`HEADERS_MAX`].
    #[error("too many header lines")]
    TooManyHeaders,
    /// A line feed without a carriage return before it, or the other way round.
    #[error("line does not end with CR LF")]
    LineBreak,
    /// A header line is continued on the next line.
    #[error("header line is folded")]
    Folded,
    /// A NUL or another control character.
    #[error("control character in the head")]
    ControlCharacter,
    /// The first line or a header line cannot be read.
    #[error("malformed head")]
    Malformed,
    /// White space in or behind a header's name.
    #[error("invalid header name")]
    HeaderName,
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("unknown version")]
    Version,
    /// The method is not an upper-case token.
    #[error("invalid method")]
    Method,
    /// CONNECT, which this proxy does not serve.
    #[error("CONNECT is not served")]
    Connect,
    /// The request target has none of the forms that are served.
    #[error("invalid request target")]
    Target,
    /// HTTP/1.1 without Host.
    #[error("host is missing")]
    HostMissing,
    /// More than one Host.
    #[error("more than one host")]
    HostRepeated,
    /// The authority is not a host with an optional port.
    #[error("invalid authority")]
    Authority,
    /// The framing is broken.
    #[error("invalid framing")]
    Framing(#[from] FramingError),
}

impl HeadError {
    /// Status of the answer.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyHeaders => 431,
            Self::Connect => 405,
            _ => 400,
        }
    }

    /// The word for `response_code_details`.
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::TooLarge => "request_headers_too_large",
            Self::TooManyHeaders => "http1.too_many_headers",
            Self::LineBreak => "http1.invalid_line_break",
            Self::Folded => "http1.obs_fold",
            Self::ControlCharacter => "http1.invalid_characters",
            Self::Malformed => "http1.codec_error",
            Self::HeaderName => "http1.invalid_header_name",
            Self::Version => "http1.unsupported_version",
            Self::Method => "http1.invalid_method",
            Self::Connect => "connect_not_served",
            Self::Target => "http1.invalid_url",
            Self::HostMissing => "missing_host_header",
            Self::HostRepeated => "http1.multiple_host",
            Self::Authority => "http1.invalid_authority",
            Self::Framing(error) => error.details(),
        }
    }
}

/// A request's head. Refilled for each request of a connection.
#[derive(Debug)]
pub struct RequestHead {
    /// Method.
    pub method: String,
    /// Path and query as received, in origin form; `*` for a request about the server itself.
    pub target: String,
    /// Authority as sent; empty only for HTTP/1.0 without Host.
    pub authority: String,
    /// Version.
    pub version: Version,
    /// End of the body.
    pub framing: Framing,
    /// Whether the connection may carry another request.
    pub is_keep_alive: bool,
    /// Whether the client waits for `100 Continue`.
    pub expects_continue: bool,
    /// Protocol that the client wants to switch to, when it is one that is served.
    pub upgrade: Option<Upgrade>,
    /// The other lines: neither hop-by-hop, nor Host, nor framing.
    pub headers: HeaderBlock,
}

/// A protocol that a connection can switch to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    /// RFC 6455.
    WebSocket,
}

/// A response's head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status.
    pub status: u16,
    /// Reason phrase as sent.
    pub reason: String,
    /// Version.
    pub version: Version,
    /// What the lines state about the body; [`ResponseHead::framing_for`] knows the rest.
    stated: Option<Framing>,
    /// Whether the connection may carry another request.
    pub is_keep_alive: bool,
    /// Whether it names the protocol of a switch.
    pub has_upgrade: bool,
    /// The other lines.
    pub headers: HeaderBlock,
}

/// Finds the end of a head in bytes that arrive piece by piece, and checks its lines on the way.
#[derive(Debug, Default)]
pub struct HeadScanner {
    /// Bytes already looked at.
    scanned: usize,
}

impl HeadScanner {
    /// Length of the head with its empty line, once it is all there.
    ///
    /// # Errors
    /// As soon as a line is seen that no head may hold.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadError> {
        while let Some(offset) = line_end(&bytes[self.scanned..]) {
            let at = self.scanned + offset;
            if bytes[at] == 0 {
                return Err(HeadError::ControlCharacter);
            }
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(HeadError::LineBreak);
            }
            self.scanned = at + 1;
            if at >= 3 && bytes[at - 2] == b'\n' {
                return if self.scanned > HEAD_BYTES_MAX {
                    Err(HeadError::TooLarge)
                } else {
                    Ok(Some(self.scanned))
                };
            }
            if at > HEAD_BYTES_MAX {
                break;
            }
        }
        self.scanned = bytes.len();
        if bytes.len() > HEAD_BYTES_MAX { Err(HeadError::TooLarge) } else { Ok(None) }
    }

    /// Starts over.
    pub fn reset(&mut self) {
        self.scanned = 0;
    }
}

/// Place of the first line feed or NUL. Runs of bytes without either are passed over whole.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const RUN: usize = 16;
    let is_end = |byte: u8| (byte == b'\n') | (byte == 0);
    let runs = bytes.chunks_exact(RUN);
    let plain =
        runs.take_while(|run| !run.iter().fold(false, |is_found, &byte| is_found | is_end(byte))).count();
    let from = plain * RUN;
    bytes[from..].iter().position(|&byte| is_end(byte)).map(|offset| from + offset)
}

/// Takes one empty line from the front: RFC 9112 section 2.2 asks servers to ignore it before a request.
pub fn skip_empty_line(buffer: &mut BytesMut) {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
    }
}

/// Checks what `httparse` does not: carriage returns inside lines, folding, control characters.
fn check_lines(head: &[u8]) -> Result<(), HeadError> {
    if is_clean(head) { Ok(()) } else { look_closely(head) }
}

fn look_closely(head: &[u8]) -> Result<(), HeadError> {
    for (at, &byte) in head.iter().enumerate() {
        match byte {
            b'\r' if head.get(at + 1) != Some(&b'\n') => return Err(HeadError::LineBreak),
            b'\n' if matches!(head.get(at + 1), Some(b' ' | b'\t')) => return Err(HeadError::Folded),
            b'\r' | b'\n' | b'\t' => {}
            byte if byte < b' ' || byte == 0x7f => return Err(HeadError::ControlCharacter),
            _ => {}
        }
    }
    Ok(())
}

/// Whether nothing can be wrong with the lines. Looks at every byte with no branch in between, which is done
/// for many bytes at a time; what is not clean is looked at again to say why.
fn is_clean(head: &[u8]) -> bool {
    let Some((_, next)) = head.split_first() else { return true };
    let pairs = head.iter().zip(next).fold(false, |is_bad, (&byte, &next)| {
        let is_control = (byte < b' ' && byte != b'\t' && byte != b'\r' && byte != b'\n') | (byte == 0x7f);
        let is_bare = (byte == b'\r') & (next != b'\n');
        let is_folded = (byte == b'\n') & ((next == b' ') | (next == b'\t'));
        is_bad | is_control | is_bare | is_folded
    });
    !pairs && head.last() == Some(&b'\n')
}

fn from_httparse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::HeaderName,
        httparse::Error::TooManyHeaders => HeadError::TooManyHeaders,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => HeadError::Malformed,
    }
}

fn version_of(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(0) => Ok(Version::Http10),
        Some(1) => Ok(Version::Http11),
        _ => Err(HeadError::Version),
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        Self {
            method: String::new(),
            target: String::new(),
            authority: String::new(),
            version: Version::Http11,
            framing: Framing::Empty,
            is_keep_alive: false,
            expects_continue: false,
            upgrade: None,
            headers: HeaderBlock::default(),
        }
    }
}

impl RequestHead {
    /// Reads a complete head (with its empty line) into `self`.
    ///
    /// # Errors
    /// [`HeadError`] when the head cannot be read in exactly one way.
    pub fn parse(&mut self, head: &[u8]) -> Result<(), HeadError> {
        check_lines(head)?;
        let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(head, &mut lines).map_err(from_httparse)? {
            httparse::Status::Complete(length) if length == head.len() => {}
            _ => return Err(HeadError::Malformed),
        }
        self.version = version_of(request.version)?;
        let method = request.method.ok_or(HeadError::Malformed)?;
        if method.is_empty() || method.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(HeadError::Method);
        }
        if method == "CONNECT" {
            return Err(HeadError::Connect);
        }
        self.method.clear();
        self.method.push_str(method);
        self.headers.clear();
        for line in request.headers.iter() {
            self.headers.push(line.name.as_bytes(), line.value.trim_ascii());
        }
        self.framing = framing::stated(&self.headers, self.version)?.unwrap_or(Framing::Empty);
        self.take_target(request.path.ok_or(HeadError::Malformed)?)?;
        self.expects_continue =
            self.version == Version::Http11 && self.headers.lists("expect", "100-continue");
        self.upgrade = self.wanted_upgrade();
        self.is_keep_alive = keeps_alive(&self.headers, self.version);
        strip_hop_by_hop(&mut self.headers);
        self.headers.retain(|name, _| {
            !(name.eq_ignore_ascii_case(b"host")
                || name.eq_ignore_ascii_case(b"content-length")
                || name.eq_ignore_ascii_case(b"upgrade"))
        });
        Ok(())
    }

    /// Sets target and authority from the request line and Host.
    fn take_target(&mut self, target: &str) -> Result<(), HeadError> {
        self.target.clear();
        self.authority.clear();
        let mut hosts = self.headers.values("host");
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(HeadError::HostRepeated);
        }
        if host.is_none() && self.version == Version::Http11 {
            return Err(HeadError::HostMissing);
        }
        let host =
            host.map(|host| std::str::from_utf8(host).map_err(|_| HeadError::Authority)).transpose()?;
        if let Some(host) = host
            && !is_authority(host)
        {
            return Err(HeadError::Authority);
        }
        if target.starts_with('/') {
            self.target.push_str(target);
            self.authority.push_str(host.unwrap_or_default());
            return Ok(());
        }
        if target == "*" && self.method == "OPTIONS" {
            self.target.push('*');
            self.authority.push_str(host.unwrap_or_default());
            return Ok(());
        }
        // Absolute form: its authority takes the place of Host, for policy as for the next hop (RFC 9112
        // section 3.2.2), so that nobody further on sees another request than the one judged here.
        let rest = ["http://", "https://"]
            .iter()
            .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
            .map(|scheme| &target[scheme.len()..])
            .ok_or(HeadError::Target)?;
        // A backslash stays in the authority, which refuses it: some readers take it for a slash, and others
        // for a letter of user information, so that the host would come behind it.
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if !is_authority(authority) {
            return Err(HeadError::Authority);
        }
        self.authority.push_str(authority);
        if !path.starts_with('/') {
            self.target.push('/');
        }
        self.target.push_str(path);
        Ok(())
    }

    /// The switch that the client asks for: only with HTTP/1.1, GET, no body, and named in Connection.
    fn wanted_upgrade(&self) -> Option<Upgrade> {
        let asked = self.version == Version::Http11
            && self.method == "GET"
            && self.framing == Framing::Empty
            && self.headers.lists("connection", "upgrade");
        let mut protocols = self.headers.values("upgrade");
        let protocol = protocols.next()?;
        (asked && protocols.next().is_none() && protocol.eq_ignore_ascii_case(b"websocket"))
            .then_some(Upgrade::WebSocket)
    }

    /// Writes the head for the next hop, with the path given.
    pub fn write_to(&self, out: &mut Vec<u8>, path: &str, authority: &str) {
        for part in [self.method.as_str(), " ", path, " HTTP/1.1\r\nHost: ", authority, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        self.headers.write_to(out);
        if self.upgrade.is_some() {
            out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        write_framing(out, self.framing);
        out.extend_from_slice(b"\r\n");
    }
}

impl Default for ResponseHead {
    fn default() -> Self {
        Self {
            status: 0,
            reason: String::new(),
            version: Version::Http11,
            stated: None,
            is_keep_alive: false,
            has_upgrade: false,
            headers: HeaderBlock::default(),
        }
    }
}

impl ResponseHead {
    /// Reads a complete head (with its empty line) into `self`.
    ///
    /// # Errors
    /// [`HeadError`] when the head cannot be read in exactly one way.
    pub fn parse(&mut self, head: &[u8]) -> Result<(), HeadError> {
        check_lines(head)?;
        let mut lines = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut response, head, &mut lines)
            .map_err(from_httparse)?;
        match parsed {
            httparse::Status::Complete(length) if length == head.len() => {}
            _ => return Err(HeadError::Malformed),
        }
        self.version = version_of(response.version)?;
        self.status = response.code.ok_or(HeadError::Malformed)?;
        if !(100..1000).contains(&self.status) {
            return Err(HeadError::Malformed);
        }
        self.reason.clear();
        self.reason.push_str(response.reason.unwrap_or_default());
        self.headers.clear();
        for line in response.headers.iter() {
            self.headers.push(line.name.as_bytes(), line.value.trim_ascii());
        }
        self.stated = framing::stated(&self.headers, self.version)?;
        self.is_keep_alive = keeps_alive(&self.headers, self.version);
        self.has_upgrade =
            self.headers.lists("connection", "upgrade") && self.headers.first("upgrade").is_some();
        strip_hop_by_hop(&mut self.headers);
        // `upgrade` on anything but 101 is an advertisement for this hop only.
        if self.status != 101 {
            self.headers.remove("upgrade");
        }
        // RFC 9110 section 8.6: these have no length, and a reader that believed one would wait for a body.
        if self.status < 200 || self.status == 204 {
            self.headers.remove("content-length");
        }
        Ok(())
    }

    /// Whether the status announces that another head follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// How the body ends, given the method that was asked with (RFC 9112 section 6.3).
    #[must_use]
    pub fn framing_for(&self, method: &str) -> Framing {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Framing::Empty;
        }
        self.stated.unwrap_or(Framing::UntilClose)
    }

    /// Writes the head for the downstream. `framing` is that of the body as it is sent on; `close` says that
    /// the connection ends behind it. For a bodyless answer to HEAD, and 304, a Content-Length that the
    /// upstream stated stays, because it describes the body that a GET would get.
    pub fn write_to(&self, out: &mut Vec<u8>, framing: Framing, keeping: Keeping) {
        out.extend_from_slice(b"HTTP/1.1 ");
        let digits = [self.status / 100, self.status / 10 % 10, self.status % 10];
        out.extend(digits.map(|digit| b"0123456789"[usize::from(digit % 10)]));
        out.push(b' ');
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.headers.write_to(out);
        match framing {
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::Empty | Framing::Length(_) | Framing::UntilClose => {}
        }
        match keeping {
            Keeping::Close => out.extend_from_slice(b"Connection: close\r\n"),
            Keeping::OldKeepAlive => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            Keeping::Upgrade => out.extend_from_slice(b"Connection: Upgrade\r\n"),
            Keeping::Default => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// What a response says about its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// Nothing: HTTP/1.1 keeps it.
    Default,
    /// An HTTP/1.0 client asked to keep it.
    OldKeepAlive,
    /// It ends behind this response.
    Close,
    /// It switches protocols.
    Upgrade,
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Empty | Framing::UntilClose => {}
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn keeps_alive(headers: &HeaderBlock, version: Version) -> bool {
    if headers.lists("connection", "close") {
        return false;
    }
    version == Version::Http11 || headers.lists("connection", "keep-alive")
}

/// Takes out the lines of this hop, and those that `Connection` names.
fn strip_hop_by_hop(headers: &mut HeaderBlock) {
    let mut named: Vec<Vec<u8>> = Vec::new();
    for value in headers.values("connection") {
        for token in tokens(value) {
            let known = [&b"close"[..], b"keep-alive", b"upgrade"];
            let is_known = known.iter().any(|word| token.eq_ignore_ascii_case(word));
            let is_kept = NOT_HOP_BY_HOP.iter().any(|name| token.eq_ignore_ascii_case(name.as_bytes()));
            if !is_known && !is_kept {
                named.push(token.to_vec());
            }
        }
    }
    headers.retain(|name, _| {
        !HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop.as_bytes()))
            && !named.iter().any(|token| name.eq_ignore_ascii_case(token))
    });
}

/// Whether `text` is a host with an optional port: a registered name, an IPv4 address, or an IPv6 address in
/// brackets. User information is refused, and so is a comma, at which lists of hosts would be split.
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, rest)) = rest.split_once(']') else { return false };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        match rest.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if rest.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let is_host = host.is_none_or(|host| {
        !host.is_empty()
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&byte))
    });
    is_host
        && port
            .is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests;
