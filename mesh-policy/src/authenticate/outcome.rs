//! What the rules say about the tokens of one request, and which of their faults is told.

use std::sync::Arc;

use super::failure::Failure;
use super::key_set::KeySet;
use super::locate::Found;
use super::token::Token;

/// The signatures of one request that were checked already: rules of one provider share its keys, and the
/// answer.
#[derive(Debug, Default)]
pub(super) struct Signatures<'a> {
    pub(super) checked: Vec<CheckedSignature<'a>>,
}

/// Which token was checked, with which keys, and the answer.
pub(super) type CheckedSignature<'a> = (usize, &'a Arc<KeySet>, Result<(), Failure>);

impl<'a> Signatures<'a> {
    pub(super) fn verify(
        &mut self,
        (at, token): (usize, &Token),
        keys: &'a Arc<KeySet>,
    ) -> Result<(), Failure> {
        let known = self.checked.iter().find(|(known, with, _)| *known == at && Arc::ptr_eq(with, keys));
        if let Some((_, _, result)) = known {
            return *result;
        }
        let result = keys.verify(token);
        self.checked.push((at, keys, result));
        result
    }
}

/// What the rules say about the tokens of a request.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Rules that accepted all of their tokens, with these.
    pub(super) accepted: Vec<(usize, Vec<usize>)>,
    /// Tokens that a rule refused, in the order of rules.
    pub(super) faults: Vec<Fault>,
}

/// A token that a rule refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) rule: usize,
    pub(super) token: usize,
    pub(super) failure: Failure,
}

impl Outcome {
    /// The fault for which the request is refused, if it is.
    ///
    /// When some rule accepted, only what no rule verified counts. Of the rules' faults Envoy reports that
    /// of the first, unless it is that the issuer is another rule's: then the last that says more.
    pub(super) fn decisive(&self, found: &[Found]) -> Option<Fault> {
        let mut of_rules: Vec<Fault> = Vec::new();
        for fault in &self.faults {
            let counts = self.accepted.is_empty() || !found[fault.token].is_verified;
            if counts && of_rules.last().is_none_or(|last| last.rule != fault.rule) {
                of_rules.push(*fault);
            }
        }
        let first = *of_rules.first()?;
        if first.failure != Failure::UnknownIssuer {
            return Some(first);
        }
        of_rules.into_iter().rev().find(|fault| fault.failure != Failure::UnknownIssuer).or(Some(first))
    }
}
