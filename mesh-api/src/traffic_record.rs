//! A request or connection as the access log of the proxy that judged it tells it: one JSON object a line.
//!
//! Read here is what policy can be asked about again: who called whom, and for what. Whatever else a line
//! holds is passed over, because logs travel through collectors that add fields of their own.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::name::SpiffeId;

/// What policy said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Recorded {
    /// It may pass.
    Allowed,
    /// It was refused.
    Denied,
}

/// The HTTP part of a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpRequest {
    /// Method.
    pub method: String,
    /// Authority with its port, as sent.
    pub authority: String,
    /// Path and query, normalised.
    pub target: String,
}

impl HttpRequest {
    /// The path that policy sees.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }
}

/// One decided request, or one decided connection that is not HTTP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrafficRecord {
    /// Identity of the workload that was called.
    pub destination: SpiffeId,
    /// Name of the workload that was called; empty when the line does not say.
    pub workload: String,
    /// Identity of the caller; `None` when it had none.
    pub principal: Option<SpiffeId>,
    /// Address of the caller.
    pub source_ip: IpAddr,
    /// Address and port that were called.
    pub address: SocketAddr,
    /// Server name of the TLS handshake.
    pub sni: Option<String>,
    /// The request; `None` for a connection that is not HTTP.
    pub http: Option<HttpRequest>,
    /// What policy said.
    pub decision: Recorded,
    /// `ns[NAMESPACE]-policy[NAME]-rule[INDEX]` of the rule that decided; empty for none.
    pub policy: String,
}

/// Why a line is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There are too many others already.
    #[error("there are more than {DISTINCT_MAX} records that differ; give fewer lines at once")]
    TooMany,
    /// It is not a JSON object with fields of the right types.
    #[error("not a line of a JSON access log: {0}")]
    Form(String),
    /// A field that policy needs is not there, or is not what it should be.
    #[error("`{field}` {problem}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    direction: Option<String>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    authority: Option<String>,
    #[serde(default)]
    downstream_remote_address: Option<String>,
    #[serde(default)]
    downstream_local_address: Option<String>,
    #[serde(default)]
    connection_security_policy: Option<String>,
    #[serde(default)]
    source_principal: Option<String>,
    #[serde(default)]
    destination_principal: Option<String>,
    #[serde(default)]
    destination_workload: Option<String>,
    #[serde(default)]
    requested_server_name: Option<String>,
    #[serde(default)]
    decision: Option<String>,
    #[serde(default)]
    policy: Option<String>,
}

/// Reads one line. `None` for what policy was not asked about: what a workload sent itself (the record of
/// who received it counts), and what ended before.
///
/// # Errors
/// When the line is no record, or does not say what a decision needs.
pub fn parse_line(line: &str) -> Result<Option<TrafficRecord>, RecordError> {
    let line: Line = serde_json::from_str(line).map_err(|error| RecordError::Form(error.to_string()))?;
    let direction = line.direction.ok_or_else(|| missing("direction"))?;
    if direction != "inbound" {
        return Ok(None);
    }
    let decision = match line.decision.as_deref() {
        Some("allow") => Recorded::Allowed,
        Some("deny") => Recorded::Denied,
        None => return Ok(None),
        Some(other) => return Err(wrong("decision", format!("is {other:?}, not \"allow\" or \"deny\""))),
    };
    let address: SocketAddr = address("downstream_local_address", line.downstream_local_address)?;
    let source: SocketAddr = self::address("downstream_remote_address", line.downstream_remote_address)?;
    let destination = line.destination_principal.ok_or_else(|| missing("destination_principal"))?;
    let principal = match (line.source_principal, line.connection_security_policy.as_deref()) {
        (Some(principal), _) => Some(identity("source_principal", &principal)?),
        (None, Some("none")) => None,
        (None, _) => return Err(missing("source_principal")),
    };
    let http = match line.method {
        None => None,
        Some(method) => Some(HttpRequest {
            method,
            authority: line.authority.unwrap_or_default(),
            target: line.path.ok_or_else(|| missing("path"))?,
        }),
    };
    Ok(Some(TrafficRecord {
        destination: identity("destination_principal", &destination)?,
        workload: line.destination_workload.unwrap_or_default(),
        principal,
        source_ip: source.ip().to_canonical(),
        address,
        sni: line.requested_server_name,
        http,
        decision,
        policy: line.policy.unwrap_or_default(),
    }))
}

/// Most records that differ; more than that are no sample of what a mesh does but a test of its memory.
const DISTINCT_MAX: usize = 500_000;

/// Records that differ, each with how often it was seen.
#[derive(Debug, Default)]
pub struct Traffic {
    seen: HashMap<TrafficRecord, u64>,
}

impl Traffic {
    /// Reads a line and counts its record; blank lines, and those of what policy was not asked about, are
    /// passed over.
    ///
    /// # Errors
    /// As [`parse_line`], and when there are too many records that differ.
    pub fn add_line(&mut self, line: &str) -> Result<(), RecordError> {
        if line.trim().is_empty() {
            return Ok(());
        }
        let Some(record) = parse_line(line)? else { return Ok(()) };
        if self.seen.len() >= DISTINCT_MAX && !self.seen.contains_key(&record) {
            return Err(RecordError::TooMany);
        }
        *self.seen.entry(record).or_default() += 1;
        Ok(())
    }

    /// The records with how often each was seen, in an order that depends on nothing but them.
    #[must_use]
    pub fn records(self) -> Vec<(TrafficRecord, u64)> {
        let mut records: Vec<_> = self.seen.into_iter().collect();
        records.sort();
        records
    }
}

fn missing(field: &'static str) -> RecordError {
    wrong(field, "is missing".to_owned())
}

fn wrong(field: &'static str, problem: String) -> RecordError {
    RecordError::Field { field, problem }
}

fn address(field: &'static str, value: Option<String>) -> Result<SocketAddr, RecordError> {
    let value = value.ok_or_else(|| missing(field))?;
    value.parse().map_err(|_| wrong(field, format!("is {value:?}, not ADDRESS:PORT")))
}

fn identity(field: &'static str, value: &str) -> Result<SpiffeId, RecordError> {
    SpiffeId::parse(value).map_err(|error| wrong(field, format!("is {value:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"start_time":"2026-01-01T00:00:00.000Z","direction":"inbound","method":"GET","path":"/a?b=1","authority":"catalog.backend","downstream_remote_address":"[::ffff:10.0.0.7]:4000","downstream_local_address":"10.0.0.9:8080","connection_security_policy":"mutual_tls","source_principal":"spiffe://cluster.local/ns/web/sa/shop","destination_principal":"spiffe://cluster.local/ns/backend/sa/catalog","destination_workload":"catalog","decision":"allow","policy":"ns[backend]-policy[p]-rule[0]","added_by_a_collector":{"x":1}}"#;

    #[test]
    fn a_line_is_read_and_what_others_added_is_passed_over() {
        let record = parse_line(LINE).expect("a record").expect("inbound");
        assert_eq!(record.source_ip.to_string(), "10.0.0.7");
        assert_eq!(record.http.as_ref().map(HttpRequest::path), Some("/a"));
        assert_eq!((record.decision, record.address.port()), (Recorded::Allowed, 8080));
    }

    #[test]
    fn what_was_sent_and_what_was_not_judged_is_no_record() {
        assert_eq!(parse_line(&LINE.replace("inbound", "outbound")), Ok(None));
        assert_eq!(parse_line(&LINE.replace("\"allow\"", "null")), Ok(None));
    }

    #[test]
    fn a_caller_who_is_not_named_is_not_taken_for_one_without_identity() {
        let silent = LINE.replace(r#""source_principal":"spiffe://cluster.local/ns/web/sa/shop","#, "");
        assert_eq!(parse_line(&silent), Err(missing("source_principal")));
        let plain = silent.replace("mutual_tls", "none");
        assert_eq!(parse_line(&plain).expect("a record").expect("inbound").principal, None);
    }

    #[test]
    fn records_that_say_the_same_are_one_with_a_count() {
        let mut traffic = Traffic::default();
        for line in [LINE, "", LINE, &LINE.replace("/a?b=1", "/b"), &LINE.replace(":4000", ":4001")] {
            traffic.add_line(line).expect("a record");
        }
        let counts: Vec<u64> = traffic.records().into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, [3, 1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "not a line of a JSON access log"),
            ("[2026] \"GET / HTTP/1.1\" 200", "not a line of a JSON access log"),
            ("{}", "`direction` is missing"),
        ];
        for (line, expected) in cases {
            let error = parse_line(line).expect_err(line).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let error = parse_line(&LINE.replace("10.0.0.9:8080", "here")).expect_err("no address").to_string();
        assert_eq!(error, "`downstream_local_address` is \"here\", not ADDRESS:PORT");
    }
}
