//! Whose token does this request carry, and is it genuine? (SEMANTICS section 7)
//!
//! The RequestAuthentications of a workload are compiled once into an [`Authenticator`], which any number of
//! threads share: keys are parsed then, and a request without a token costs a look at the few headers that
//! may hold one. Sections, claims and signatures are checked in Envoy's order with Envoy's words, because
//! clients and tests compare them; where Envoy is lax and a stricter reading cannot be told from it by an
//! honest client, the stricter one is taken, and the place says so.
//!
//! A token is refused or verified, never ignored: whatever a configured location holds must be valid for a
//! rule with that location (SEMANTICS C3), so that no application reads a token that nobody checked. A rule
//! whose keys are missing or unusable verifies nothing (TRAP 30). No token is no matter: to require one is
//! the task of policies (TRAP 35).

mod algorithm;
mod base64url;
mod effects;
mod failure;
mod json;
mod key_set;
mod locate;
mod outcome;
mod output;
mod rule;
mod token;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_api::model::{KeySets, ObjectRef, RequestAuthentication};

use crate::authorize::{Claims, HeaderValues};

pub use effects::{EffectiveHeaders, Effects};

use failure::Failure;
use locate::{Found, Locations, Source, TOKENS_MAX};
use outcome::{Fault, Outcome, Signatures};
use output::Outputs;
use rule::{Parsed, Rule};
use token::Token;

/// Longest realm of a challenge, in characters (SEMANTICS 7.4).
const REALM_MAX: usize = 256;

/// A request, as far as tokens are concerned.
#[derive(Debug, Clone, Copy)]
pub struct TokenRequest<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Scheme of the request, for the challenge: `http` or `https`.
    pub scheme: &'a str,
    /// Authority with its port, as sent.
    pub authority: &'a str,
    /// Normalised path and query.
    pub target: &'a str,
    /// Header lines, as sent.
    pub headers: &'a dyn HeaderValues,
}

/// A request that may go on to authorization.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Authenticated {
    /// Claims of the verified token; `None` without a token.
    pub claims: Option<Claims>,
    /// Changes to the request, to be made before policies judge it.
    pub effects: Effects,
}

/// A request that is answered at once, before any policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// 401, or 403 when the token is meant for others.
    pub status: u16,
    /// Body of the answer.
    pub message: String,
    /// Value of `www-authenticate`.
    pub www_authenticate: String,
    /// `response_code_details` of the access log.
    pub details: String,
    /// The rule that refused the token.
    pub rule: Box<RuleRef>,
    /// A key that the rule's fetched key set lacks, or the set itself: reason to fetch it anew.
    pub unknown_key: Option<Box<UnknownKey>>,
}

/// Names a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleRef {
    /// The RequestAuthentication.
    pub policy: ObjectRef,
    /// Position in its `jwtRules`.
    pub index: usize,
}

/// A key that a token asks for and a fetched key set lacks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnknownKey {
    /// Source of the key set ([`mesh_api::model::KeySource::url`]).
    pub source: String,
    /// `kid` of the token, at most 256 bytes; empty when it names none, or when nothing was fetched yet.
    pub kid: String,
}

/// What is unusable about the keys of a rule, so that some or all of its tokens are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyProblem {
    /// The rule.
    pub rule: RuleRef,
    /// What is wrong: one clause.
    pub message: String,
    /// Whether the rule verifies no token at all.
    pub verifies_nothing: bool,
}

/// The RequestAuthentications of one workload, compiled. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Authenticator {
    /// Sorted by issuer (SEMANTICS 7.1), those of one issuer oldest first.
    rules: Vec<Rule>,
    locations: Locations,
    /// Headers that some rule fills, and that no client may.
    reserved: Vec<Arc<str>>,
    problems: Vec<KeyProblem>,
}

impl Authenticator {
    /// Compiles the policies that apply to a workload ([`crate::select::request_authentication`]), with the
    /// keys that were fetched for them. Never fails: a rule whose keys cannot be used verifies nothing.
    #[must_use]
    pub fn compile(policies: &[Arc<RequestAuthentication>], key_sets: &KeySets) -> Self {
        let mut policies: Vec<_> = policies.iter().collect();
        policies.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
        let mut stated: Vec<(&Arc<RequestAuthentication>, usize)> = policies
            .into_iter()
            .flat_map(|policy| (0..policy.jwt_rules.len()).map(move |at| (policy, at)))
            .collect();
        stated.sort_by(|(a, at), (b, bt)| a.jwt_rules[*at].issuer.cmp(&b.jwt_rules[*bt].issuer));
        let mut compiled = Self::default();
        let mut reserved = BTreeSet::new();
        let mut parsed = Parsed::new();
        for (policy, index) in stated {
            let outputs = Outputs::of_rule(&policy.jwt_rules[index]);
            reserved.extend(outputs.names().map(Arc::clone));
            // A rule sees the request without the headers that it and the rules before it fill.
            let hidden = |name: &str| reserved.contains(name);
            let locations = compiled.locations.of_rule(&policy.jwt_rules[index], hidden);
            let rule = Rule::compile((policy, index), outputs, locations, key_sets, &mut parsed);
            compiled.problems.extend(rule.problems(key_sets));
            compiled.rules.push(rule);
        }
        compiled.reserved = reserved.into_iter().collect();
        compiled
    }

    /// Whether there is no rule, so that requests are not looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What is unusable about the keys of the rules.
    pub fn problems(&self) -> impl Iterator<Item = &KeyProblem> {
        self.problems.iter()
    }

    /// Checks the tokens of a request; called once for each, after CUSTOM and before all other policies
    /// (SEMANTICS 4.1).
    ///
    /// # Errors
    /// [`Refused`] is the answer to send.
    pub fn authenticate(
        &self,
        request: &TokenRequest<'_>,
        now: SystemTime,
    ) -> Result<Authenticated, Refused> {
        let Some(first) = self.rules.first() else { return Ok(Authenticated::default()) };
        let effects = self.without_reserved(request.headers);
        if is_preflight(request) {
            return Ok(Authenticated { claims: None, effects });
        }
        let mut found = self.locations.tokens(request.target, request.headers);
        if found.is_empty() {
            return Ok(Authenticated { claims: None, effects });
        }
        if found.len() > TOKENS_MAX {
            return Err(refused(request, first, None, Failure::TooManyTokens));
        }
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let outcome = self.evaluate(&mut found, now);
        if let Some(faulty) = outcome.decisive(&found) {
            let token = found[faulty.token].token.as_ref().ok();
            return Err(refused(request, &self.rules[faulty.rule], token, faulty.failure));
        }
        Ok(self.accept(request, effects, found, &outcome.accepted))
    }

    /// The removal of the headers that rules fill, as far as the client wrote them.
    fn without_reserved(&self, headers: &dyn HeaderValues) -> Effects {
        let mut effects = Effects::default();
        for name in &self.reserved {
            let mut is_present = false;
            headers.visit(name, &mut |_| {
                is_present = true;
                false
            });
            if is_present {
                effects.remove(name);
            }
        }
        effects
    }

    /// Asks every rule about the tokens at its locations. Once a rule has accepted all of its tokens, the
    /// others are asked only about what is not verified yet: that must not pass unseen (SEMANTICS C3).
    fn evaluate(&self, found: &mut [Found], now: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let mut signatures = Signatures::default();
        for (index, rule) in self.rules.iter().enumerate() {
            let is_settled = !outcome.accepted.is_empty();
            let concerns = |token: &Found| {
                rule.locations.contains(&token.location) && !(is_settled && token.is_verified)
            };
            if !found.iter().any(concerns) {
                continue;
            }
            let own = tokens_of(rule, found);
            let faults_before = outcome.faults.len();
            // Envoy takes the last token first, and its message is the one that counts.
            for &at in own.iter().rev() {
                let checked = match &found[at].token {
                    Ok(token) => rule.check(token, now).and_then(|keys| signatures.verify((at, token), keys)),
                    Err(failure) => Err(*failure),
                };
                match checked {
                    Ok(()) => mark_verified(found, at),
                    Err(failure) => outcome.faults.push(Fault { rule: index, token: at, failure }),
                }
            }
            if outcome.faults.len() == faults_before {
                outcome.accepted.push((index, own));
            }
        }
        outcome
    }

    /// What becomes of a request whose tokens are genuine: the first rule that accepted says who it is.
    fn accept(
        &self,
        request: &TokenRequest<'_>,
        mut effects: Effects,
        mut found: Vec<Found>,
        accepted: &[(usize, Vec<usize>)],
    ) -> Authenticated {
        let mut parameters = Vec::new();
        let is_removed = |rule: &usize| !self.rules[*rule].stated().forward_original_token;
        for (_, own) in accepted.iter().filter(|(rule, _)| is_removed(rule)) {
            for at in own {
                match self.locations.source(found[*at].location) {
                    Source::Header(name) => effects.remove(name),
                    Source::Parameter(name) => parameters.push(name.as_bytes()),
                    // Cookies stay, as in Envoy: what else they hold belongs to the application.
                    Source::Cookie(_) => {}
                }
            }
        }
        if !parameters.is_empty() {
            effects.target = locate::without_parameters(request.target, |name| parameters.contains(&name));
        }
        let principal = accepted.first().and_then(|(rule, own)| Some((&self.rules[*rule], *own.first()?)));
        let claims = principal.and_then(|(rule, at)| {
            let token = found.swap_remove(at).token.ok()?;
            effects.added = rule.outputs.lines(&token);
            Some(Claims::from_verified(token.payload, &rule.stated().space_delimited_claims))
        });
        Authenticated { claims, effects }
    }
}

/// The tokens at a rule's locations, in the order of extraction.
fn tokens_of(rule: &Rule, found: &[Found]) -> Vec<usize> {
    let at = |location| (0..found.len()).filter(move |at| found[*at].location == location);
    rule.locations.iter().flat_map(|location| at(*location)).collect()
}

/// What stands in one line, parameter or cookie is verified, whichever prefix showed the token.
fn mark_verified(found: &mut [Found], at: usize) {
    let (source, occurrence) = (found[at].location.source, found[at].occurrence);
    for token in found {
        token.is_verified |= token.location.source == source && token.occurrence == occurrence;
    }
}

/// A CORS preflight carries no credentials and is not checked (SEMANTICS 7.6, TRAP 34).
fn is_preflight(request: &TokenRequest<'_>) -> bool {
    let has = |name: &str| {
        let mut first_is_filled = None;
        request.headers.visit(name, &mut |value| {
            first_is_filled = Some(!value.is_empty());
            false
        });
        first_is_filled == Some(true)
    };
    request.method == "OPTIONS" && has("origin") && has("access-control-request-method")
}

fn refused(request: &TokenRequest<'_>, rule: &Rule, token: Option<&Token>, failure: Failure) -> Refused {
    Refused {
        status: failure.status(),
        message: failure.to_string(),
        www_authenticate: format!("Bearer realm=\"{}\", error=\"invalid_token\"", realm(request)),
        details: failure.details(),
        rule: Box::new(rule.name()),
        unknown_key: token.and_then(|token| rule.unknown_key(token, failure)).map(Box::new),
    }
}

/// The address of the request, cut to its bound. What would end the quoted string, or is not ASCII, is
/// percent-encoded: the client chose it.
fn realm(request: &TokenRequest<'_>) -> String {
    let mut realm = String::new();
    for part in [request.scheme, "://", request.authority, request.target] {
        for byte in part.bytes() {
            match byte {
                b'"' | b'\\' => realm.push_str(&format!("%{byte:02X}")),
                b' '..=b'~' => realm.push(char::from(byte)),
                _ => realm.push_str(&format!("%{byte:02X}")),
            }
            if realm.len() >= REALM_MAX {
                realm.truncate(REALM_MAX);
                return realm;
            }
        }
    }
    realm
}

#[cfg(test)]
mod tests;
