//! Policies that are tried on live traffic: every request is judged by them too, and nothing comes of it but a
//! count of what they would have decided otherwise (`mini-mesh.io/dry-run`).
//!
//! A workload without anything to try has no [`Trial`] and pays for none. With one, a request is judged as
//! SEMANTICS 4.1 orders it, from the form in which it came: tokens and headers are looked at before the live
//! policies change them. What cannot be known is not guessed:
//! - An external authorizer is not asked a second time. Where both sets ask the same one, its answer stands for
//!   both; where only the tried set asks one, the outcome is that it decides, unless the rest refuses anyway.
//! - In STRICT, nobody reads what came in plaintext. A set that admits it is told to do that, and no more.
//! - Were a port in DISABLE, callers of the mesh would send plaintext, so they are judged as nobody. Were it in
//!   STRICT, a caller that sends plaintext today is taken to go on with that.

mod differences;

use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::admin::{PolicyDifferences, TrialOutcome, TrialStage, TrialVerdict, TriedChange, TriedObject};
use mesh_api::model::{CandidatePolicies, MtlsMode, ObjectRef, ProxyConfig, WorkloadPolicies};
use mesh_policy::authenticate::{Authenticator, EffectiveHeaders, Refused, TokenRequest};
use mesh_policy::authorize::{Attributes, Authorizer, Decision, External, HeaderValues, HttpAttributes};
use mesh_policy::peer_authentication;
use mesh_policy::select::Subject;

use crate::authz::{self, Permit};
use crate::connection::Connection;
use crate::control::unknown_keys::UnknownKeys;
use crate::exchange::{JudgedHeaders, policy_path};
use crate::respond::Refusal;
use crate::state::WorkloadState;
use crate::telemetry::{Flag, HttpRecord, TcpRecord, Verdict};

use differences::{Differences, Outcomes};

/// What decided when nothing did.
const NOBODY: &str = "none";
/// Status of what policies refuse.
const FORBIDDEN: u16 = 403;

/// The policies that are tried, compiled, and what was found.
#[derive(Debug)]
pub struct Trial {
    tried: Vec<TriedObject>,
    authorizer: Authorizer,
    authenticator: Arc<Authenticator>,
    mtls: peer_authentication::MtlsResolution,
    differences: Arc<Differences>,
}

impl Trial {
    /// Compiles what is tried beside `live`, if anything is. The count goes on for as long as what is compared
    /// stays the same; other keys of tokens do not begin it anew.
    #[must_use]
    pub fn compile(live: &WorkloadState, before: Option<&WorkloadState>) -> Option<Box<Self>> {
        let candidate = live.policies.candidate.as_deref()?;
        let applied = candidate.applied_to(&live.policies);
        let uses_same_tokens =
            applied.request == live.policies.request && applied.key_sets == live.policies.key_sets;
        let authenticator = match uses_same_tokens {
            true => Arc::clone(&live.authenticator),
            false => Arc::new(Authenticator::compile(&applied.request, &applied.key_sets)),
        };
        let goes_on = before.filter(|before| is_same(&before.policies, &live.policies));
        let differences = goes_on.and_then(|before| before.trial.as_ref());
        Some(Box::new(Self {
            tried: tried(candidate),
            authorizer: live.authorizer.recompile(&live.config.mesh, &applied.authorization),
            authenticator,
            mtls: peer_authentication::resolve(&live.config.mesh, &subject(&live.config), &applied.peer),
            differences: differences.map_or_else(Arc::default, |trial| Arc::clone(&trial.differences)),
        }))
    }

    /// What operators are told.
    #[must_use]
    pub fn report(&self) -> PolicyDifferences {
        let (judged, differing) = self.differences.numbers();
        PolicyDifferences {
            tried: self.tried.clone(),
            since: self.differences.since().to_string(),
            judged,
            differing,
            differences: self.differences.list(),
        }
    }

    /// Why a connection would not come past mutual TLS.
    fn refused_by_mode(&self, connection: &Connection) -> Option<TrialOutcome> {
        let port = connection.destination.port();
        (connection.tls.is_none() && self.mtls.mode_for_port(port) == MtlsMode::Strict)
            .then(|| TrialOutcome { stage: TrialStage::Mtls, ..refused(self.mode_by(port), 0) })
    }

    fn mode_by(&self, port: u16) -> String {
        self.mtls.decided_by(port).map_or_else(|| NOBODY.to_owned(), ObjectRef::to_string)
    }

    fn attributes<'a>(&self, connection: &'a Connection, http: Option<HttpAttributes<'a>>) -> Attributes<'a> {
        let known = authz::attributes(connection, http);
        match self.mtls.mode_for_port(connection.destination.port()) {
            MtlsMode::Disable => Attributes { peer: None, sni: None, ..known },
            MtlsMode::Permissive | MtlsMode::Strict => known,
        }
    }

    /// Tokens, then AUDIT, DENY and ALLOW.
    fn rest(&self, connection: &Connection, seen: &Seen<'_>, unknown_keys: &UnknownKeys) -> TrialOutcome {
        let lines = JudgedHeaders::new(seen.lines, seen.target);
        if self.authenticator.is_empty() {
            return self.decide(connection, Some(seen.http(&lines, seen.target)));
        }
        let asked = TokenRequest {
            method: seen.method,
            scheme: "http",
            authority: seen.authority,
            target: seen.target,
            headers: &lines,
        };
        match self.authenticator.authenticate(&asked, SystemTime::now()) {
            Ok(authenticated) => {
                let target = authenticated.effects.target().unwrap_or(seen.target);
                let headers = EffectiveHeaders::new(&lines, &authenticated.effects);
                let claims = authenticated.claims.as_ref();
                self.decide(connection, Some(HttpAttributes { claims, ..seen.http(&headers, target) }))
            }
            Err(refused) => {
                if let Some(key) = &refused.unknown_key {
                    unknown_keys.report(&key.source, &key.kid);
                }
                refused_token(&refused)
            }
        }
    }

    fn decide(&self, connection: &Connection, http: Option<HttpAttributes<'_>>) -> TrialOutcome {
        let status = if http.is_some() { FORBIDDEN } else { 0 };
        let by = |rule: Option<_>| {
            rule.map_or_else(|| NOBODY.to_owned(), |rule| self.authorizer.rule(rule).to_string())
        };
        match self.authorizer.authorize(&self.attributes(connection, http)) {
            Decision::Allowed { by: rule, .. } => allowed(by(rule)),
            Decision::Denied { by: rule, .. } => refused(by(rule), status),
        }
    }
}

fn allowed(by: String) -> TrialOutcome {
    TrialOutcome { verdict: TrialVerdict::Allowed, stage: TrialStage::Policy, status: 0, by }
}

fn refused(by: String, status: u16) -> TrialOutcome {
    TrialOutcome { verdict: TrialVerdict::Refused, stage: TrialStage::Policy, status, by }
}

fn refused_token(token: &Refused) -> TrialOutcome {
    let object = &token.rule.policy;
    let by = format!("ns[{}]-policy[{}]-rule[{}]", object.namespace, object.name, token.rule.index);
    TrialOutcome { stage: TrialStage::Token, ..refused(by, token.status) }
}

/// Whether the same is compared.
fn is_same(before: &WorkloadPolicies, now: &WorkloadPolicies) -> bool {
    let live = |policies: &WorkloadPolicies| (policies.mtls, policies.mtls_ports.clone());
    let keyless = |policies: &WorkloadPolicies| {
        policies
            .candidate
            .as_deref()
            .map(|candidate| CandidatePolicies { key_sets: Default::default(), ..candidate.clone() })
    };
    before.authorization == now.authorization
        && before.peer == now.peer
        && before.request == now.request
        && live(before) == live(now)
        && keyless(before) == keyless(now)
}

fn tried(candidate: &CandidatePolicies) -> Vec<TriedObject> {
    let CandidatePolicies { authorization, peer, request, without, .. } = candidate;
    let added = authorization.iter().map(|policy| &policy.meta.object);
    let added = added.chain(peer.iter().map(|policy| &policy.meta.object));
    let added: Vec<&ObjectRef> = added.chain(request.iter().map(|policy| &policy.meta.object)).collect();
    let changed = added.iter().map(|object| {
        let change = match without.contains(object) {
            true => TriedChange::Edited,
            false => TriedChange::Added,
        };
        TriedObject { object: (*object).clone(), change }
    });
    let deleted = without.iter().filter(|object| !added.contains(object));
    let deleted = deleted.map(|object| TriedObject { object: object.clone(), change: TriedChange::Deleted });
    let mut tried: Vec<TriedObject> = changed.chain(deleted).collect();
    tried.sort();
    tried
}

fn subject(config: &ProxyConfig) -> Subject<'_> {
    Subject { namespace: &config.namespace, labels: &config.labels, service_account: &config.service_account }
}

/// A request as it is before tokens are looked for.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Method.
    pub method: &'a str,
    /// Authority with its port.
    pub authority: &'a str,
    /// Normalised path and query.
    pub target: &'a str,
    /// Header lines.
    pub lines: &'a dyn HeaderValues,
}

impl<'a> Seen<'a> {
    fn http(&self, headers: &'a dyn HeaderValues, target: &'a str) -> HttpAttributes<'a>
    where
        Self: 'a,
    {
        HttpAttributes {
            method: self.method,
            authority: self.authority,
            path: policy_path(target),
            headers,
            claims: None,
        }
    }
}

/// How far the judging of a request beside the live policies is.
#[derive(Debug)]
enum Then {
    /// It was not begun.
    Open,
    /// An external authorizer comes before the rest.
    Asks { provider: String, rule: String },
    /// It is known.
    Known(TrialOutcome),
}

/// One request, judged beside the live policies.
#[derive(Debug)]
pub struct Beside<'a> {
    trial: &'a Trial,
    connection: &'a Connection,
    unknown_keys: &'a UnknownKeys,
    then: Then,
    /// Provider that the live policies ask.
    asked: Option<String>,
}

impl<'a> Beside<'a> {
    /// Begins with a request, if anything is tried.
    #[must_use]
    pub fn of(
        workload: &'a WorkloadState,
        connection: &'a Connection,
        unknown_keys: &'a UnknownKeys,
    ) -> Option<Self> {
        let trial = workload.trial.as_deref()?;
        Some(Self { trial, connection, unknown_keys, then: Then::Open, asked: None })
    }

    /// Judges a request as it came, up to where an external authorizer is asked.
    pub fn judge(&mut self, seen: &Seen<'_>) {
        let trial = self.trial;
        if let Some(outcome) = trial.refused_by_mode(self.connection) {
            self.then = Then::Known(outcome);
            return;
        }
        let lines = JudgedHeaders::new(seen.lines, seen.target);
        let attributes = trial.attributes(self.connection, Some(seen.http(&lines, seen.target)));
        self.then = match trial.authorizer.external(&attributes) {
            External::NotAsked => Then::Known(trial.rest(self.connection, seen, self.unknown_keys)),
            External::Refuse { rule, .. } => {
                Then::Known(refused(trial.authorizer.rule(rule).to_string(), FORBIDDEN))
            }
            External::Ask { provider, rule } => {
                Then::Asks { provider: provider.to_owned(), rule: trial.authorizer.rule(rule).to_string() }
            }
        };
    }

    /// The live policies ask an external authorizer.
    pub fn note_asked(&mut self, provider: &str) {
        self.asked = Some(provider.to_owned());
    }

    /// Judges the rest of a request that came past the live policies' external authorizer, or met none.
    pub fn judge_rest(&mut self, seen: &Seen<'_>) {
        let Then::Asks { provider, rule } = &self.then else { return };
        let rest = self.trial.rest(self.connection, seen, self.unknown_keys);
        let is_known = self.asked.as_ref() == Some(provider) || rest.verdict == TrialVerdict::Refused;
        self.then = Then::Known(if is_known { rest } else { asks(rule.clone()) });
    }

    /// Counts what became of the request, and what would have.
    pub fn settle(self, live: Result<(), &Refusal>, record: &HttpRecord) {
        let Some(now) = request_outcome(live, record) else { return };
        let then = match self.then {
            Then::Open => return,
            Then::Known(then) => then,
            // The live policies ended before the rest was judged: by the same authorizer's answer, or otherwise.
            Then::Asks { provider, .. } if self.asked.as_ref() == Some(&provider) => now.clone(),
            Then::Asks { rule, .. } => asks(rule),
        };
        let request = (record.method.as_str(), policy_path(&record.path));
        self.trial.differences.note(self.connection, request, Outcomes { now, then });
    }
}

fn asks(by: String) -> TrialOutcome {
    TrialOutcome { verdict: TrialVerdict::Asked, stage: TrialStage::External, status: 0, by }
}

/// What the live policies made of a request; `None` when they did not come to it.
fn request_outcome(live: Result<(), &Refusal>, record: &HttpRecord) -> Option<TrialOutcome> {
    match live {
        Ok(()) => Some(allowed(named(&record.policy))),
        Err(Refusal::Denied) => Some(refused(named(&record.policy), FORBIDDEN)),
        Err(Refusal::Token(token)) => Some(refused_token(token)),
        Err(Refusal::External { answer, .. }) => Some(TrialOutcome {
            stage: TrialStage::External,
            ..refused(named(&record.policy), answer.status.as_u16())
        }),
        Err(_) => None,
    }
}

fn named(policy: &str) -> String {
    if policy.is_empty() { NOBODY.to_owned() } else { policy.to_owned() }
}

/// A byte stream, judged beside the live policies.
#[derive(Debug)]
#[must_use = "it is not counted yet"]
pub struct TriedStream {
    differences: Arc<Differences>,
    outcomes: Outcomes,
}

impl TriedStream {
    /// Counts it.
    pub fn note(self, connection: &Connection) {
        self.differences.note(connection, ("", ""), self.outcomes);
    }
}

/// Judges a byte stream beside the live policies, which have given `permit` or refused; `None` when nothing is
/// tried, or the stream ended before it was judged.
pub fn stream(
    workload: &WorkloadState,
    connection: &Connection,
    permit: Option<&Permit>,
    record: &TcpRecord,
) -> Option<TriedStream> {
    let trial = workload.trial.as_deref()?;
    let is_refused_by = |provider: &str| record.policy.starts_with(&format!("istio-ext-authz-{provider}-"));
    let now = match (permit, record.flag, record.verdict) {
        (Some(_), ..) => allowed(named(&record.policy)),
        (None, Flag::UnauthorizedExternal, _) => {
            TrialOutcome { stage: TrialStage::External, ..refused(named(&record.policy), 0) }
        }
        (None, _, Verdict::Denied) => refused(named(&record.policy), 0),
        (None, ..) => return None,
    };
    let judge = || {
        if let Some(outcome) = trial.refused_by_mode(connection) {
            return outcome;
        }
        let (provider, rule) = match trial.authorizer.external(&trial.attributes(connection, None)) {
            External::NotAsked => return trial.decide(connection, None),
            External::Refuse { rule, .. } => return refused(trial.authorizer.rule(rule).to_string(), 0),
            External::Ask { provider, rule } => (provider, rule),
        };
        if now.stage == TrialStage::External && is_refused_by(provider) {
            return now.clone();
        }
        let rest = trial.decide(connection, None);
        let is_passed = permit.and_then(Permit::asked) == Some(provider);
        if is_passed || rest.verdict == TrialVerdict::Refused {
            rest
        } else {
            asks(trial.authorizer.rule(rule).to_string())
        }
    };
    let then = judge();
    Some(TriedStream { differences: Arc::clone(&trial.differences), outcomes: Outcomes { now, then } })
}

/// Notes a connection in plaintext that STRICT refused.
pub fn plaintext_refused(workload: &WorkloadState, connection: &Connection) {
    let Some(trial) = workload.trial.as_deref() else { return };
    let port = connection.destination.port();
    let (config, peer) = (&workload.config, &workload.policies.peer);
    let live = peer_authentication::resolve(&config.mesh, &subject(config), peer);
    let by = live.decided_by(port).map_or_else(|| NOBODY.to_owned(), ObjectRef::to_string);
    let now = TrialOutcome { stage: TrialStage::Mtls, ..refused(by, 0) };
    let then = trial
        .refused_by_mode(connection)
        .unwrap_or_else(|| TrialOutcome { stage: TrialStage::Mtls, ..allowed(trial.mode_by(port)) });
    trial.differences.note(connection, ("", ""), Outcomes { now, then });
}

impl std::fmt::Debug for Seen<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seen")
            .field("method", &self.method)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}
