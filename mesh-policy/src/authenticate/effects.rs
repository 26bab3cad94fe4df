//! What authentication does to the request that is forwarded (SEMANTICS 7.6).
//!
//! The headers that a rule fills from a token are taken off every request, with a token or without and even
//! on a preflight that is not checked: an application may read them as verified, so none that a client wrote
//! may reach it (TRAP 33). Policies judge the request with these changes made, because that request is the
//! one that is forwarded (TRAP 9).

use std::sync::Arc;

use crate::authorize::HeaderValues;

/// Changes to the request, in the order in which they apply: lines removed, then lines added, then the
/// target. Making and cloning one without changes allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effects {
    pub(super) removed: Vec<Arc<str>>,
    pub(super) added: Vec<(Arc<str>, String)>,
    pub(super) target: Option<String>,
}

impl Effects {
    /// Whether the request is forwarded as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty() && self.target.is_none()
    }

    /// Names, in lower case, of the headers of which every line is removed; only such as the request has.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.removed.iter().map(|name| &**name)
    }

    /// Whether every line of this header, whatever its case, is removed.
    #[must_use]
    pub fn removes(&self, name: &str) -> bool {
        self.removed.iter().any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// Header lines that are added, as name in lower case and value. No value holds a control character.
    pub fn added(&self) -> impl Iterator<Item = (&str, &str)> {
        self.added.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// Path and query to forward, when a query parameter that held a token is removed; the path is the same.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    pub(super) fn remove(&mut self, name: &Arc<str>) {
        if !self.removed.contains(name) {
            self.removed.push(Arc::clone(name));
        }
    }
}

/// The header lines of a request with [`Effects`] made: what policies judge and what is forwarded.
#[derive(Debug, Clone, Copy)]
pub struct EffectiveHeaders<'a> {
    lines: &'a dyn HeaderValues,
    effects: &'a Effects,
}

impl<'a> EffectiveHeaders<'a> {
    /// Those of a request whose lines are `lines`.
    #[must_use]
    pub fn new(lines: &'a dyn HeaderValues, effects: &'a Effects) -> Self {
        Self { lines, effects }
    }
}

impl HeaderValues for EffectiveHeaders<'_> {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        if name == ":path"
            && let Some(target) = self.effects.target()
        {
            each(target.as_bytes());
            return;
        }
        let mut goes_on = true;
        if !self.effects.removes(name) {
            self.lines.visit(name, &mut |value| {
                goes_on = each(value);
                goes_on
            });
        }
        for (_, value) in self.effects.added().filter(|(added, _)| *added == name) {
            if !goes_on {
                return;
            }
            goes_on = each(value.as_bytes());
        }
    }
}
