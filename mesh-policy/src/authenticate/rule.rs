//! One entry of `jwtRules`, compiled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::model::{JwtRule, KeySets, RequestAuthentication};

use super::failure::Failure;
use super::key_set::KeySet;
use super::locate::Location;
use super::output::Outputs;
use super::token::{Token, bare};
use super::{KeyProblem, RuleRef, UnknownKey};

/// Seconds by which clocks may differ (SEMANTICS 7.4).
const LEEWAY: u64 = 60;
/// Longest `kid` that is asked for, in bytes; a key set that has a longer one does not exist.
const KEY_ID_BYTES_MAX: usize = 256;

/// A compiled rule.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    policy: Arc<RequestAuthentication>,
    index: usize,
    /// Audiences in the form in which they are compared; empty accepts any.
    audiences: BTreeSet<Box<str>>,
    keys: Keys,
    /// Where its tokens stand, in the order of extraction.
    pub(super) locations: Vec<Location>,
    pub(super) outputs: Outputs,
}

#[derive(Debug, Clone)]
struct Keys {
    /// Where they are fetched from; `None` for keys in line.
    url: Option<String>,
    /// `None` when nothing was fetched yet.
    set: Option<Arc<KeySet>>,
}

/// Key sets that were parsed already, by their text: many rules share one provider.
pub(super) type Parsed = BTreeMap<String, Arc<KeySet>>;

impl Rule {
    pub(super) fn compile(
        (policy, index): (&Arc<RequestAuthentication>, usize),
        outputs: Outputs,
        locations: Vec<Location>,
        key_sets: &KeySets,
        parsed: &mut Parsed,
    ) -> Self {
        let stated = &policy.jwt_rules[index];
        Self {
            policy: Arc::clone(policy),
            index,
            audiences: stated.audiences.iter().map(|audience| bare(audience).into()).collect(),
            keys: keys(stated, key_sets, parsed),
            locations,
            outputs,
        }
    }

    pub(super) fn stated(&self) -> &JwtRule {
        &self.policy.jwt_rules[self.index]
    }

    pub(super) fn name(&self) -> RuleRef {
        RuleRef { policy: self.policy.meta.object.clone(), index: self.index }
    }

    /// Checks the claims of a token of good form, in the order of SEMANTICS 7.4, and gives the keys that its
    /// signature is then checked with.
    pub(super) fn check(&self, token: &Token, now: u64) -> Result<&Arc<KeySet>, Failure> {
        let issuer = &self.stated().issuer;
        if !issuer.is_empty() && issuer != token.issuer() {
            return Err(Failure::UnknownIssuer);
        }
        if token.not_before.is_some_and(|start| now.saturating_add(LEEWAY) < start) {
            return Err(Failure::NotYetValid);
        }
        if token.expires.is_some_and(|end| now > end.saturating_add(LEEWAY)) {
            return Err(Failure::Expired);
        }
        let mut audiences = self.audiences.iter();
        if !self.audiences.is_empty() && !audiences.any(|audience| token.audiences.contains(&**audience)) {
            return Err(Failure::Audience);
        }
        self.keys.set.as_ref().ok_or(Failure::KeysNotFetched)
    }

    /// The key that a refused token asks for, when fetching the set anew may find it.
    pub(super) fn unknown_key(&self, token: &Token, failure: Failure) -> Option<UnknownKey> {
        let source = self.keys.url.clone()?;
        match failure {
            Failure::KeysNotFetched => Some(UnknownKey { source, kid: String::new() }),
            Failure::NoMatchingKey if token.key_id.len() <= KEY_ID_BYTES_MAX => {
                Some(UnknownKey { source, kid: token.key_id.clone() })
            }
            _ => None,
        }
    }

    /// What is unusable about the keys.
    pub(super) fn problems(&self, key_sets: &KeySets) -> Vec<KeyProblem> {
        let fetched = self.keys.url.as_ref().map(|url| (url, key_sets.get(url)));
        let mut messages = Vec::new();
        if let Some((url, state)) = fetched {
            let reason = state.map(|state| state.problem.as_str()).unwrap_or_default();
            match (&self.keys.set, reason) {
                (None, "") => messages.push(format!("the keys of {url} have not been fetched yet")),
                (None, reason) => messages.push(format!("the keys of {url} could not be fetched: {reason}")),
                (Some(_), "") => {}
                (Some(_), reason) => {
                    messages.push(format!("the keys of {url} are old, fetching them anew failed: {reason}"));
                }
            }
        }
        let set = self.keys.set.as_deref();
        messages.extend(set.into_iter().flat_map(|set| set.problems.iter().cloned()));
        let verifies_nothing = set.is_none_or(KeySet::is_empty);
        if verifies_nothing && messages.is_empty() {
            messages.push("the key set has no keys".to_owned());
        }
        let problem = |message| KeyProblem { rule: self.name(), message, verifies_nothing };
        messages.into_iter().map(problem).collect()
    }
}

fn keys(stated: &JwtRule, key_sets: &KeySets, parsed: &mut Parsed) -> Keys {
    let source = stated.key_source();
    let url = source.url().map(str::to_owned);
    let text = match &url {
        None => Some(stated.jwks.as_str()),
        Some(url) => key_sets.get(url).and_then(|state| state.jwks.as_deref()),
    };
    let set = text.map(|text| match parsed.get(text) {
        Some(set) => Arc::clone(set),
        None => {
            let set = Arc::new(KeySet::parse(text));
            parsed.insert(text.to_owned(), Arc::clone(&set));
            set
        }
    });
    Keys { url, set }
}
