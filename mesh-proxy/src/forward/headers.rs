//! Header lines that the proxy itself sets, replaces or takes away, whichever codec carries them.
//!
//! A request is finished *before* it is judged, so that policy sees what the application will see: a line
//! that is removed here cannot have let anybody in. Identity is never read from a header; what a caller
//! claims in `x-forwarded-client-cert` is kept only behind a verified certificate, with the element of that
//! caller appended (SEMANTICS 8.1).

use std::fmt::Write as _;

use super::http1::block::HeaderBlock;
use crate::connection::{Connection, Direction};
use crate::telemetry::HttpRecord;
use crate::worker::Worker;

const CLIENT_CERTIFICATE: &str = "x-forwarded-client-cert";
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const REQUEST_ID: &str = "x-request-id";
const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";
const SERVER: &str = "server";

/// Lines by which proxies of the mesh, and Istio's, speak among themselves; no application sends or gets them.
const BETWEEN_PROXIES: [&str; 4] = [
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
    "x-envoy-decorator-operation",
    "x-mesh-unprocessed",
];
/// Start of the names that only a proxy of the mesh may set (CVE-2024-45806).
const RESERVED: &[u8] = b"x-envoy-";
/// Longest chain of callers that is handed on; a longer one begins anew with the direct caller.
const CLIENT_CERTIFICATE_BYTES_MAX: usize = 8 * 1024;

/// Header lines that can be changed.
pub trait HeaderLines {
    /// Value of the first line of that lower-case name.
    fn first(&self, name: &str) -> Option<&[u8]>;
    /// Hands the value of every line of that lower-case name to `each`, in order.
    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8]));
    /// Replaces every line of that lower-case name by one. The value holds no control character.
    fn set(&mut self, name: &'static str, value: &[u8]);
    /// Removes every line of that lower-case name.
    fn remove(&mut self, name: &'static str);
    /// Removes every line whose name begins so.
    fn remove_prefix(&mut self, lower_case: &[u8]);
}

impl HeaderLines for HeaderBlock {
    fn first(&self, name: &str) -> Option<&[u8]> {
        Self::first(self, name)
    }

    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.values(name).for_each(each);
    }

    fn set(&mut self, name: &'static str, value: &[u8]) {
        Self::set(self, name, value);
    }

    fn remove(&mut self, name: &'static str) {
        Self::remove(self, name);
    }

    fn remove_prefix(&mut self, lower_case: &[u8]) {
        self.retain(|name, _| {
            !name.get(..lower_case.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower_case))
        });
    }
}

impl HeaderLines for http::HeaderMap {
    fn first(&self, name: &str) -> Option<&[u8]> {
        self.get(name).map(http::HeaderValue::as_bytes)
    }

    fn each(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes).for_each(each);
    }

    fn set(&mut self, name: &'static str, value: &[u8]) {
        match http::HeaderValue::from_bytes(value) {
            Ok(value) => {
                self.insert(http::HeaderName::from_static(name), value);
            }
            // A value that is none must not leave the old one standing.
            Err(_) => {
                Self::remove(self, name);
            }
        }
    }

    fn remove(&mut self, name: &'static str) {
        Self::remove(self, name);
    }

    fn remove_prefix(&mut self, lower_case: &[u8]) {
        while let Some(name) =
            self.keys().find(|name| name.as_str().as_bytes().starts_with(lower_case)).cloned()
        {
            Self::remove(self, name);
        }
    }
}

/// Where a request is on its way.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The connection that it came on.
    pub connection: &'a Connection,
    /// The worker that serves it.
    pub worker: &'a Worker,
}

/// Finishes the lines of a request, before it is judged.
pub fn finish_request<L: HeaderLines>(lines: &mut L, hop: &Hop<'_>, record: &mut HttpRecord) {
    match hop.connection.direction {
        Direction::Inbound => {
            if hop.connection.tls.is_some() {
                BETWEEN_PROXIES.iter().for_each(|name| lines.remove(name));
            } else {
                lines.remove_prefix(RESERVED);
                BETWEEN_PROXIES.iter().for_each(|name| lines.remove(name));
            }
            set_client_certificate(lines, hop);
            lines.set(ATTEMPT_COUNT, b"1");
        }
        Direction::Outbound => {
            BETWEEN_PROXIES.iter().for_each(|name| lines.remove(name));
            lines.remove(CLIENT_CERTIFICATE);
        }
    }
    if !matches!(lines.first(FORWARDED_PROTO), Some(b"http" | b"https")) {
        lines.set(FORWARDED_PROTO, b"http");
    }
    record.request_id.clear();
    match lines.first(REQUEST_ID).and_then(|id| std::str::from_utf8(id).ok()) {
        Some(id) if !id.is_empty() => record.request_id.push_str(id),
        _ => {
            write_request_id(&mut record.request_id, &mut hop.worker.rng.borrow_mut());
            lines.set(REQUEST_ID, record.request_id.as_bytes());
        }
    }
}

/// Appends the direct caller to the chain of callers, or removes the chain when the caller proved nothing.
fn set_client_certificate<L: HeaderLines>(lines: &mut L, hop: &Hop<'_>) {
    let Some(tls) = &hop.connection.tls else { return lines.remove(CLIENT_CERTIFICATE) };
    let mut chain = Vec::with_capacity(256);
    lines.each(CLIENT_CERTIFICATE, &mut |value| {
        if !value.is_empty() {
            chain.extend_from_slice(value);
            chain.push(b',');
        }
    });
    if chain.len() > CLIENT_CERTIFICATE_BYTES_MAX {
        chain.clear();
    }
    let own = hop.worker.local_labels.borrow();
    let parts = ["By=", &own.principal, ";Hash=", &tls.certificate_hash, ";Subject=\"\";URI="];
    parts.iter().for_each(|part| chain.extend_from_slice(part.as_bytes()));
    chain.extend_from_slice(tls.identity.as_str().as_bytes());
    lines.set(CLIENT_CERTIFICATE, &chain);
}

/// A random UUID (RFC 9562 section 5.4).
fn write_request_id(out: &mut String, rng: &mut fastrand::Rng) {
    let random = rng.u128(..);
    let versioned = random & !(0xf << 76) | 0x4 << 76;
    let bits = versioned & !(0x3 << 62) | 0x2 << 62;
    let part = |from: u32, width: u32| bits >> from & ((1 << width) - 1);
    let _infallible = write!(
        out,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 32),
        part(80, 16),
        part(64, 16),
        part(48, 16),
        part(0, 48)
    );
}

/// Finishes the lines of a response.
pub fn finish_response<L: HeaderLines>(lines: &mut L, connection: &Connection, record: &HttpRecord) {
    BETWEEN_PROXIES.iter().for_each(|name| lines.remove(name));
    lines.set(SERVER, server(connection.direction).as_bytes());
    if let Some(micros) = record.upstream_service_micros {
        let mut digits = [0; 20];
        lines.set(SERVICE_TIME, decimal(micros / 1000, &mut digits));
    }
}

/// The `server` of every response: whose proxy it was (SEMANTICS 8.2).
#[must_use]
pub fn server(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "istio-envoy",
        Direction::Outbound => "envoy",
    }
}

/// Writes a number from the end of `digits`.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 || at == 0 {
            return &digits[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids_of_version_four() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let mut id = String::new();
            write_request_id(&mut id, &mut rng);
            let parts: Vec<_> = id.split('-').map(str::len).collect();
            assert_eq!(parts, [8, 4, 4, 4, 12], "{id}");
            assert_eq!(&id[14..15], "4", "{id}");
            assert!("89ab".contains(&id[19..20]), "{id}");
        }
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 1234, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; 20]), number.to_string().as_bytes());
        }
    }

    #[test]
    fn reserved_names_go_whatever_their_case_and_number() {
        let mut block = HeaderBlock::default();
        let mut map = http::HeaderMap::new();
        for name in ["X-Envoy-Internal", "x-envoy-retry-on", "x-envoy-retry-on", "x-envoyage"] {
            block.push(name.as_bytes(), b"1");
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.append(name, http::HeaderValue::from_static("1"));
        }
        HeaderLines::remove_prefix(&mut block, RESERVED);
        HeaderLines::remove_prefix(&mut map, RESERVED);
        assert_eq!((block.len(), map.len()), (1, 1));
        assert!(block.first("x-envoyage").is_some() && map.contains_key("x-envoyage"));
    }
}
