//! The header lines that a proxy removes, replaces or adds before anything is judged (SEMANTICS 8).
//!
//! What policies test is what the application receives, so the lines of the hop, and those that `Connection`
//! names, are gone before a policy could be satisfied by one of them.

use mesh_api::name::SpiffeId;

/// Line by which proxies say who called them.
const CLIENT_CERTIFICATE: &str = "x-forwarded-client-cert";
/// Start of the names that only a proxy of the mesh may set (CVE-2024-45806).
const RESERVED: &str = "x-envoy-";
/// Lines by which Istio's proxies speak among themselves.
const BETWEEN_PROXIES: [&str; 3] =
    ["x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "x-envoy-decorator-operation"];
const FORWARDED_PROTO: &str = "x-forwarded-proto";
const REQUEST_ID: &str = "x-request-id";
const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";
/// Stands for the random id that a proxy gives a request without one.
const SOME_REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";
/// Lines of one connection (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings"];
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
    CLIENT_CERTIFICATE,
];

type Lines = Vec<(String, String)>;

/// Finishes the lines of a request from `peer` to the workload `local`. A caller without a verified certificate
/// cannot say who called it (TRAP 36), nor set what only proxies set.
pub(super) fn finish(lines: &mut Lines, local: &SpiffeId, peer: Option<&SpiffeId>, scheme: &str) {
    strip_hop_by_hop(lines);
    match peer {
        Some(peer) => {
            lines.retain(|(name, _)| !is_one_of(name, &BETWEEN_PROXIES));
            let mut chain: Vec<&str> = values(lines, CLIENT_CERTIFICATE).collect();
            // The hash of the certificate is left out: there is no certificate.
            let element = format!("By={};Subject=\"\";URI={}", local.as_str(), peer.as_str());
            chain.push(&element);
            let chain = chain.join(",");
            set(lines, CLIENT_CERTIFICATE, &chain);
        }
        None => lines.retain(|(name, _)| {
            let name = name.to_ascii_lowercase();
            name != CLIENT_CERTIFICATE && !name.starts_with(RESERVED)
        }),
    }
    set(lines, ATTEMPT_COUNT, "1");
    let proto = values(lines, FORWARDED_PROTO).next();
    if !proto.is_some_and(|proto| matches!(proto, "http" | "https")) {
        set(lines, FORWARDED_PROTO, scheme);
    }
    if values(lines, REQUEST_ID).next().is_none_or(str::is_empty) {
        set(lines, REQUEST_ID, SOME_REQUEST_ID);
    }
}

fn strip_hop_by_hop(lines: &mut Lines) {
    let named: Vec<String> = values(lines, "connection")
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !is_one_of(token, &NOT_HOP_BY_HOP))
        .collect();
    lines.retain(|(name, _)| {
        !is_one_of(name, &HOP_BY_HOP) && !named.iter().any(|token| name.eq_ignore_ascii_case(token))
    });
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn values<'l>(lines: &'l Lines, name: &'l str) -> impl Iterator<Item = &'l str> {
    lines.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn set(lines: &mut Lines, name: &str, value: &str) {
    lines.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    lines.push((name.to_owned(), value.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(lines: &[(&str, &str)], peer: Option<&str>) -> Lines {
        let mut lines: Lines =
            lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let id = |text: &str| SpiffeId::parse(text).expect("an id");
        let peer = peer.map(id);
        finish(&mut lines, &id("spiffe://td/ns/a/sa/b"), peer.as_ref(), "http");
        lines
    }

    #[test]
    fn lines_of_the_hop_are_gone() {
        let lines = finished(
            &[
                ("Connection", "keep-alive, X-Role, Authorization"),
                ("x-role", "admin"),
                ("authorization", "a"),
                ("te", "trailers"),
            ],
            None,
        );
        let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["authorization", ATTEMPT_COUNT, FORWARDED_PROTO, REQUEST_ID]);
    }

    #[test]
    fn the_chain_of_callers_grows_behind_a_certificate_only() {
        let claimed = [(CLIENT_CERTIFICATE, "URI=spiffe://td/ns/x/sa/y"), ("X-Envoy-Original-Path", "/")];
        let chain = |peer| values(&finished(&claimed, peer), CLIENT_CERTIFICATE).next().map(str::to_owned);
        assert_eq!(chain(None), None);
        let expected =
            "URI=spiffe://td/ns/x/sa/y,By=spiffe://td/ns/a/sa/b;Subject=\"\";URI=spiffe://td/ns/c/sa/d";
        assert_eq!(chain(Some("spiffe://td/ns/c/sa/d")).as_deref(), Some(expected));
        assert_eq!(values(&finished(&claimed, None), "x-envoy-original-path").count(), 0);
    }
}
