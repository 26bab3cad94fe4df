//! Which refusals are explained while they happen.
//!
//! An explanation evaluates every rule and is as long as the policies are, so it is neither made for each
//! refusal of a flood nor kept whole: alike refusals are explained once, a worker explains a few in a second,
//! and of many rules those are told that matched or came close.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

use mesh_policy::authorize::Explanation;

use super::denials::kind_of;
use super::record::HttpFields;
use crate::connection::Connection;

/// Explanations of one worker in a second.
const EXPLAINED_MAX: u32 = 8;
/// Kinds of refusals that are remembered as explained.
const KINDS_MAX: usize = 256;
/// Rules told beside those that matched or came closest.
const RULES_MAX: usize = 12;
/// Longest explanation that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What a worker has explained lately.
#[derive(Debug, Default)]
pub(super) struct Explaining {
    second: Cell<Option<Instant>>,
    explained: Cell<u32>,
    kinds: RefCell<HashSet<u64>>,
}

impl Explaining {
    /// Whether this refusal is one to explain. It counts as explained then.
    pub(super) fn may_explain_http(&self, connection: &Connection, fields: &HttpFields) -> bool {
        let path = fields.path.split('?').next().unwrap_or("");
        self.may_explain(kind(connection, &[&fields.method, &fields.authority, path]))
    }

    /// The same for a refused connection.
    pub(super) fn may_explain_tcp(&self, connection: &Connection) -> bool {
        self.may_explain(kind(connection, &[]))
    }

    /// Policies changed: what was explained may have another explanation now.
    pub(super) fn forget(&self) {
        self.kinds.borrow_mut().clear();
    }

    fn may_explain(&self, kind: u64) -> bool {
        let now = Instant::now();
        if self.second.get().is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            self.second.set(Some(now));
            self.explained.set(0);
        }
        let mut kinds = self.kinds.borrow_mut();
        if self.explained.get() >= EXPLAINED_MAX || kinds.contains(&kind) {
            return false;
        }
        if kinds.len() >= KINDS_MAX {
            kinds.clear();
        }
        kinds.insert(kind);
        self.explained.set(self.explained.get() + 1);
        true
    }
}

fn kind(connection: &Connection, asked: &[&str]) -> u64 {
    let peer = connection.peer_identity().map_or("", |identity| identity.as_str());
    let texts: Vec<&str> = std::iter::once(peer).chain(asked.iter().copied()).collect();
    kind_of((connection.peer.ip(), connection.destination.port()), &texts)
}

/// An explanation as it is kept.
pub(super) fn text(mut explanation: Explanation) -> Option<Box<str>> {
    explanation.abridge(RULES_MAX);
    let text = serde_json::to_string(&explanation).ok()?;
    (text.len() <= TEXT_BYTES_MAX).then(|| text.into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_refusals_are_explained_once_until_policies_change() {
        let explaining = Explaining::default();
        assert!(explaining.may_explain(1));
        assert!(!explaining.may_explain(1));
        explaining.forget();
        assert!(explaining.may_explain(1));
    }

    #[test]
    fn a_flood_is_explained_in_part() {
        let explaining = Explaining::default();
        let explained = (0..1000).filter(|kind| explaining.may_explain(*kind)).count();
        assert!((8..=16).contains(&explained), "{explained}");
    }
}
