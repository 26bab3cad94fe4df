//! The last refusals of policy, for `meshctl`: who was denied, by which rule.
//!
//! Alike refusals share an entry and a count, so that a flood of one kind does not push the others out. The
//! lock is taken only when policy refused, and never waited for: under contention the entry is skipped and
//! the refusal still stands in the access log and the metrics.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Mutex;

use jiff::Timestamp;
use mesh_api::admin::Denial;
use serde_json::Value;

use super::record::{HttpFields, TcpRecord};
use crate::connection::Connection;

/// Entries kept.
const DENIALS_MAX: usize = 256;
/// Ids of refusals that lead to their entry.
const IDS_MAX: usize = 8192;
/// Longest text kept of what a client sent, in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// The list of refusals.
#[derive(Debug, Default)]
pub struct Denials {
    entries: Mutex<VecDeque<(u64, Denial)>>,
    /// Ids of single refusals, and the kind of entry that each is counted in.
    ids: Mutex<VecDeque<(u64, u64)>>,
}

impl Denials {
    /// Notes a refused request.
    pub fn note_http(&self, connection: &Connection, fields: &HttpFields) {
        let path = fields.path.split('?').next().unwrap_or("");
        let asked = Asked { method: &fields.method, authority: &fields.authority, path };
        let why = Why {
            id: fields.decision_id,
            policy: &fields.policy,
            reason: &fields.reason,
            explanation: fields.explanation.as_deref(),
        };
        self.note(connection, asked, why);
    }

    /// Notes a refused connection.
    pub fn note_tcp(&self, connection: &Connection, record: &TcpRecord) {
        let why = Why {
            id: record.decision_id,
            policy: &record.policy,
            reason: &record.reason,
            explanation: record.explanation.as_deref(),
        };
        self.note(connection, Asked::default(), why);
    }

    /// The entry that the refusal of this id is counted in, with its explanation.
    ///
    /// # Panics
    /// Never in practice: only if a holder of the lock panicked.
    #[must_use]
    pub fn find(&self, id: u64) -> Option<Denial> {
        let kind = {
            let ids = self.ids.lock().expect("no holder panics");
            ids.iter().rev().find(|(known, _)| *known == id).map(|(_, kind)| *kind)?
        };
        let entries = self.entries.lock().expect("no holder panics");
        entries.iter().find(|(known, _)| *known == kind).map(|(_, denial)| denial.clone())
    }

    /// The entries, newest first, without their explanations.
    ///
    /// # Panics
    /// Never in practice: only if a holder of the lock panicked.
    #[must_use]
    pub fn list(&self) -> Vec<Denial> {
        let entries = self.entries.lock().expect("no holder panics");
        let without = |denial: &Denial| Denial { explanation: Value::Null, ..denial.clone() };
        entries.iter().rev().map(|(_, denial)| without(denial)).collect()
    }

    fn note(&self, connection: &Connection, asked: Asked<'_>, why: Why<'_>) {
        let Why { id, policy, reason, explanation } = why;
        let Asked { method, authority, path } = asked;
        let peer = connection.peer_identity().map_or("", |identity| identity.as_str());
        let kind = kind_of(
            (connection.peer.ip(), connection.destination.port()),
            &[peer, method, authority, path, policy, reason],
        );
        let Ok(mut entries) = self.entries.try_lock() else { return };
        if let Ok(mut ids) = self.ids.try_lock() {
            if ids.len() == IDS_MAX {
                ids.pop_front();
            }
            ids.push_back((id, kind));
        }
        let id = format!("{id:016x}");
        let explanation = explanation.and_then(|text| serde_json::from_str(text).ok());
        let time = Timestamp::now().to_string();
        if let Some(at) = entries.iter().position(|(other, _)| *other == kind)
            && let Some((_, mut denial)) = entries.remove(at)
        {
            denial.count += 1;
            denial.time = time;
            denial.id = id;
            if let Some(explanation) = explanation {
                denial.explanation = explanation;
            }
            entries.push_back((kind, denial));
            return;
        }
        if entries.len() == DENIALS_MAX {
            entries.pop_front();
        }
        let denial = Denial {
            id,
            time,
            peer: peer.to_owned(),
            source: connection.peer.to_string(),
            port: connection.destination.port(),
            method: bounded(method),
            authority: bounded(authority),
            path: bounded(path),
            policy: if policy.is_empty() { "none".to_owned() } else { policy.to_owned() },
            reason: reason.to_owned(),
            count: 1,
            explanation: explanation.unwrap_or_default(),
        };
        entries.push_back((kind, denial));
    }
}

/// Why it was refused.
#[derive(Debug, Clone, Copy)]
struct Why<'a> {
    id: u64,
    policy: &'a str,
    reason: &'a str,
    explanation: Option<&'a str>,
}

/// What was asked for; empty for a byte stream.
#[derive(Debug, Clone, Copy, Default)]
struct Asked<'a> {
    method: &'a str,
    authority: &'a str,
    path: &'a str,
}

/// Names what alike refusals have in common.
pub(super) fn kind_of(place: (IpAddr, u16), texts: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    place.hash(&mut hasher);
    texts.hash(&mut hasher);
    hasher.finish()
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Direction;
    use std::time::Instant;

    fn connection() -> Connection {
        Connection {
            id: 1,
            direction: Direction::Inbound,
            peer: "10.0.0.1:4000".parse().expect("address"),
            destination: "10.0.0.2:8080".parse().expect("address"),
            tls: None,
            accepted: Instant::now(),
        }
    }

    fn refused(path: &str) -> HttpFields {
        HttpFields { method: "GET".into(), path: path.into(), ..HttpFields::default() }
    }

    #[test]
    fn alike_refusals_are_counted_in_one_entry() {
        let denials = Denials::default();
        for _ in 0..3 {
            denials.note_http(&connection(), &refused("/a?secret=1"));
        }
        denials.note_http(&connection(), &refused("/b"));
        let list = denials.list();
        assert_eq!(list.len(), 2);
        assert_eq!((list[0].path.as_str(), list[0].count), ("/b", 1));
        assert_eq!((list[1].path.as_str(), list[1].count), ("/a", 3));
    }

    #[test]
    fn each_of_alike_refusals_leads_to_their_entry_and_its_explanation() {
        let denials = Denials::default();
        let explained =
            HttpFields { explanation: Some(r#"{"a":1}"#.into()), decision_id: 1, ..refused("/a") };
        denials.note_http(&connection(), &explained);
        denials.note_http(&connection(), &HttpFields { decision_id: 2, ..refused("/a") });
        for id in [1, 2] {
            let denial = denials.find(id).expect("remembered");
            assert_eq!((denial.count, denial.id.as_str()), (2, "0000000000000002"));
            assert_eq!(denial.explanation["a"], 1);
        }
        assert_eq!(denials.find(3), None);
        assert!(denials.list()[0].explanation.is_null());
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_newest() {
        let denials = Denials::default();
        for number in 0..DENIALS_MAX + 10 {
            denials.note_http(&connection(), &refused(&format!("/{number}")));
        }
        let list = denials.list();
        assert_eq!(list.len(), DENIALS_MAX);
        assert_eq!(list[0].path, format!("/{}", DENIALS_MAX + 9));
    }
}
