//! The request of a case, with the defaults of what it does not state. Null is not stated.

use std::net::{IpAddr, Ipv4Addr};

use super::super::fields::Fields;
use super::super::report::Report;
use super::super::tree::{Found, Place};
use super::{header_lines, without_effect};
use crate::name::SpiffeId;
use crate::policy_test::{HttpRequest, PORT_DEFAULT, Request, Traffic, Workload};

const KNOWN: [&str; 13] = [
    "protocol",
    "principal",
    "tls",
    "sourceIp",
    "remoteIp",
    "destinationIp",
    "sni",
    "port",
    "method",
    "host",
    "path",
    "headers",
    "jwtClaims",
];
/// What only HTTP has.
const OF_HTTP: [&str; 5] = ["method", "host", "path", "headers", "jwtClaims"];
/// Address of a TCP peer that a test does not state.
const SOURCE_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

pub(super) fn read(place: Place<'_>, workload: &Workload, report: &mut Report) -> Option<Request> {
    let fields = place.fields(&KNOWN, report);
    let protocols = [("http", Traffic::Http), ("tcp", Traffic::Tcp)];
    let protocol = fields.optional("protocol").map(|place| place.choice(&protocols, report));
    let principal = fields.optional("principal").map(|place| principal(place, report));
    let tls = fields.optional("tls").map(|place| place.boolean(report));
    let source_ip = fields.optional("sourceIp").map(|place| address(place, report));
    let remote_ip = fields.optional("remoteIp").map(|place| address(place, report));
    let destination_ip = fields.optional("destinationIp").map(|place| address(place, report));
    let sni = fields.optional("sni").map(|place| place.text(report));
    let port = fields.optional("port").map(|place| place.port(report));
    let http = http(fields, workload, report);
    let protocol = protocol.unwrap_or(Some(Traffic::Http))?;
    if protocol == Traffic::Tcp {
        for place in OF_HTTP.iter().filter_map(|name| fields.optional(name)) {
            without_effect(place, "has no effect on a connection that is not HTTP", report);
        }
    }
    let principal = principal.unwrap_or(Some(None))?;
    let tls = tls.unwrap_or(Some(principal.is_some()))?;
    if let Some(place) = fields.optional("principal")
        && principal.is_some()
        && !tls
    {
        without_effect(place, "has no effect without TLS: there is no certificate to read it from", report);
    }
    let source_ip = source_ip.unwrap_or(Some(SOURCE_DEFAULT))?;
    Some(Request {
        protocol,
        principal: principal.filter(|_| tls),
        tls,
        source_ip,
        remote_ip: remote_ip.unwrap_or(Some(source_ip))?,
        destination_ip: destination_ip.unwrap_or_default(),
        sni: sni.unwrap_or(Some("")).map(|sni| (!sni.is_empty()).then(|| sni.to_owned()))?,
        port: port.unwrap_or(Some(PORT_DEFAULT))?,
        http: http?,
    })
}

/// An identity; empty is none.
fn principal(place: Place<'_>, report: &mut Report) -> Option<Option<SpiffeId>> {
    if place.text(report)?.is_empty() {
        return Some(None);
    }
    place.parsed(SpiffeId::parse, report).map(Some)
}

fn address(place: Place<'_>, report: &mut Report) -> Option<IpAddr> {
    place.parsed(|text| text.parse().map_err(|_| "is not an IP address"), report)
}

/// A time in seconds of the Unix epoch.
pub(super) fn time(place: Place<'_>, report: &mut Report) -> Option<i64> {
    let parse = |text: &str| {
        text.parse::<jiff::Timestamp>()
            .map(jiff::Timestamp::as_second)
            .map_err(|_| "is not a time such as 2026-01-31T12:00:00Z")
    };
    place.parsed(parse, report)
}

fn http(fields: Fields<'_>, workload: &Workload, report: &mut Report) -> Option<HttpRequest> {
    let method = fields.optional("method").map(|place| place.text(report));
    let host = fields.optional("host").map(|place| place.text(report));
    let path = fields.optional("path").map(|place| place.text(report));
    let headers = fields.optional("headers").map(|place| header_lines(place, report)).unwrap_or_default();
    let mut headers: Vec<(String, String)> = headers
        .into_iter()
        .flat_map(|(name, lines)| lines.into_iter().map(move |line| (name.clone(), line)))
        .collect();
    let is_host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
    let in_headers = headers.iter().find(|(name, _)| is_host(name)).map(|(_, value)| value.clone());
    headers.retain(|(name, _)| !is_host(name));
    let default_host = || format!("{}.{}.svc.cluster.local", workload.service_account, workload.namespace);
    let claims = fields.optional("jwtClaims").map(|place| claims(place, report));
    Some(HttpRequest {
        method: method.unwrap_or(Some("GET"))?.to_owned(),
        host: match host {
            Some(host) => host?.to_owned(),
            None => in_headers.unwrap_or_else(default_host),
        },
        path: path.unwrap_or(Some("/"))?.to_owned(),
        headers,
        jwt_claims: claims.unwrap_or_default(),
    })
}

fn claims(place: Place<'_>, report: &mut Report) -> Option<serde_json::Map<String, serde_json::Value>> {
    match (place.found(), place.to_json()) {
        (Found::Map, serde_json::Value::Object(claims)) => Some(claims),
        _ => {
            // Says what was found in its place.
            let _ = place.entries(report);
            None
        }
    }
}
