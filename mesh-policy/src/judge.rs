//! What becomes of one request at the proxy of a workload, from its first byte to the application.
//!
//! Every other module answers one question; this one asks them in the order of SEMANTICS 4.1 and says what the
//! client gets and what the application receives. It does so without a network: `meshctl policy test`, `why`
//! and `diff` judge by it what does not run yet. Nobody can be asked here, so what a CUSTOM policy matches is
//! refused, and keys that would be fetched are those that the caller gives.
//!
//! At the edges: a request that no proxy would read (a method in lower case, a path with `%00`) is answered
//! 400 before any policy; a connection that mutual TLS refuses has no answer at all.

mod answer;
mod headers;
mod message;
mod transport;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api::model::{
    AuthorizationPolicy, KeySets, MeshSettings, MtlsMode, ObjectRef, PeerAuthentication,
    RequestAuthentication,
};
use mesh_api::name::SpiffeId;
use mesh_api::policy_test::{Request, Traffic, Verdict};
use serde::Serialize;

use crate::authenticate::{Authenticator, Refused, TokenRequest};
use crate::authorize::{
    Attributes, Authorizer, Claims, Explanation, External, HeaderList, HttpAttributes, RuleId,
};
use crate::peer_authentication::{self, MtlsResolution};
use crate::select::{self, Subject};

pub use answer::Answer;

use message::Message;
use transport::Arrival;

/// Everything that may concern a workload; what does not is passed over.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// Who may do what.
    pub authorization: Vec<Arc<AuthorizationPolicy>>,
    /// Which transport security is demanded.
    pub peer_authentication: Vec<Arc<PeerAuthentication>>,
    /// Which tokens are accepted.
    pub request_authentication: Vec<Arc<RequestAuthentication>>,
    /// Keys by the URL that they are fetched from.
    pub key_sets: KeySets,
}

/// At which step it was settled what becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The connection was refused for its transport security.
    MutualTls,
    /// The request cannot be read in exactly one way.
    Codec,
    /// A CUSTOM policy applies, and nobody lets the request pass.
    External,
    /// A token was refused.
    Authentication,
    /// The policies decided.
    Authorization,
}

/// What becomes of a request, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Judgement {
    /// Whether it reaches the application.
    pub decision: Verdict,
    /// Where that was settled.
    pub stage: Stage,
    /// Why, in one sentence.
    pub reason: String,
    /// Mode of workload and port.
    pub mtls: MtlsMode,
    /// What the client of a refused HTTP request is answered; `None` when the connection is closed instead,
    /// and when the application answers.
    pub answer: Option<Answer>,
    /// The policy that decided, if one did.
    pub policy: Option<ObjectRef>,
    /// Policy id of the rule that decided, if one did.
    pub rule: Option<String>,
    /// `ISS/SUB` of the token that was accepted.
    pub request_principal: Option<String>,
    /// What path matchers saw; `None` for a request that has no path, and before it was read.
    pub policy_path: Option<String>,
    /// Path and query as they are forwarded if nothing refuses.
    pub path: Option<String>,
    /// Header lines that the application receives; empty when it receives nothing.
    pub headers: Vec<(String, String)>,
    /// Rules that matched, whether they decided or not.
    #[serde(skip)]
    pub matched: Vec<RuleId>,
    /// Every policy, rule and clause; only on demand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
    /// Rules that do not match and that the explanation leaves out.
    pub rules_omitted: usize,
}

impl Judgement {
    /// Status that the client of an HTTP request gets when the application answers 200; `None` for a
    /// connection that is closed or is not HTTP.
    #[must_use]
    pub fn status(&self, protocol: Traffic) -> Option<u16> {
        match (protocol, self.decision) {
            (Traffic::Tcp, _) => None,
            (Traffic::Http, Verdict::Allow) => Some(200),
            (Traffic::Http, Verdict::Deny) => self.answer.as_ref().map(|answer| answer.status),
        }
    }
}

impl Judgement {
    /// Keeps of the explanation the rules that match, the one that came closest, and at most `max` others, so
    /// that a report on many requests to a workload with many rules stays readable.
    #[must_use]
    pub fn abridged(mut self, max: usize) -> Self {
        if let Some(explanation) = &mut self.explanation {
            self.rules_omitted = explanation.abridge(max);
        }
        self
    }
}

/// Whether a judgement tells every clause of every rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Verdict,
    Explained,
}

/// The policies of one workload, ready to judge any number of requests.
#[derive(Debug, Clone)]
pub struct Judge {
    mesh: MeshSettings,
    /// Identity of the workload.
    identity: SpiffeId,
    mtls: MtlsResolution,
    authorizer: Authorizer,
    authenticator: Authenticator,
}

impl Judge {
    /// Compiles what concerns `subject`.
    #[must_use]
    pub fn compile(mesh: &MeshSettings, subject: &Subject<'_>, policies: &Policies) -> Self {
        let selected = select::authorization(mesh, subject, &policies.authorization);
        Self {
            identity: SpiffeId::for_workload(&mesh.trust_domain, subject.namespace, subject.service_account),
            mtls: peer_authentication::resolve(mesh, subject, &policies.peer_authentication),
            authorizer: Authorizer::compile(mesh, &selected),
            authenticator: Authenticator::compile(
                &select::request_authentication(mesh, subject, &policies.request_authentication),
                &policies.key_sets,
            ),
            mesh: mesh.clone(),
        }
    }

    /// Mode of a target port, or of the workload's other ports.
    #[must_use]
    pub fn mtls(&self, port: Option<u16>) -> MtlsMode {
        port.map_or(self.mtls.mode, |port| self.mtls.mode_for_port(port))
    }

    /// The compiled AuthorizationPolicies, to which [`Judgement::matched`] refers.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Judges one request. `now` is in seconds of the Unix epoch.
    #[must_use]
    pub fn judge(&self, request: &Request, now: i64) -> Judgement {
        self.settle(request, now, Detail::Verdict)
    }

    /// Judges one request and tells every policy, rule and clause.
    #[must_use]
    pub fn explain(&self, request: &Request, now: i64) -> Judgement {
        self.settle(request, now, Detail::Explained)
    }

    fn settle(&self, request: &Request, now: i64, detail: Detail) -> Judgement {
        let mut judgement = self.blank(request);
        let seen = match transport::arrive(&self.mtls, request) {
            Arrival::Closed(reason) => {
                judgement.stage = Stage::MutualTls;
                reason.clone_into(&mut judgement.reason);
                judgement.policy = self.mtls.decided_by(request.port).cloned();
                return judgement;
            }
            Arrival::Bytes => {
                Seen { peer: transport::peer_of_bytes(&self.mtls, request), message: None, claims: None }
            }
            Arrival::Requests { peer } => match Message::read(&self.mesh, &self.identity, request) {
                Ok(message) => Seen { peer, message: Some(message), claims: None },
                Err(refusal) => {
                    judgement.stage = Stage::Codec;
                    judgement.reason = format!("the request is answered 400: {refusal}");
                    judgement.answer = Some(Answer::bad_request(&request.http));
                    return judgement;
                }
            },
        };
        self.pass(request, seen, now, detail, judgement)
    }

    /// A refusal without a reason, to be filled in.
    fn blank(&self, request: &Request) -> Judgement {
        Judgement {
            decision: Verdict::Deny,
            stage: Stage::Authorization,
            reason: String::new(),
            mtls: self.mtls.mode_for_port(request.port),
            answer: None,
            policy: None,
            rule: None,
            request_principal: None,
            policy_path: None,
            path: None,
            headers: Vec::new(),
            matched: Vec::new(),
            explanation: None,
            rules_omitted: 0,
        }
    }

    /// What was let through by transport security and can be read: external authorizers, tokens, policies.
    fn pass(
        &self,
        request: &Request,
        mut seen: Seen<'_>,
        now: i64,
        detail: Detail,
        mut judgement: Judgement,
    ) -> Judgement {
        seen.tell(&mut judgement);
        let refused = seen.attributes(request, |attributes| match self.authorizer.external(attributes) {
            External::NotAsked => None,
            External::Ask { rule, .. } => Some((rule, OFFLINE.to_owned())),
            External::Refuse { rule, reason } => Some((rule, reason.to_string())),
        });
        if let Some((rule, reason)) = refused {
            self.note(&mut judgement, rule);
            judgement.stage = Stage::External;
            judgement.reason = format!("denied by {}: {reason}", self.authorizer.rule(rule));
            judgement.answer = seen.message.is_some().then(|| Answer::forbidden(&request.http));
            self.look_closer(request, &seen, detail, &mut judgement);
            return judgement;
        }
        if let Err(refused) = self.authenticate(request, &mut seen, now) {
            judgement.stage = Stage::Authentication;
            judgement.reason = format!("{} refuses a token: {refused}", refused.rule.policy);
            judgement.policy = Some(refused.rule.policy);
            let mut answer = Answer::refusal(&request.http, refused.status, &refused.message);
            if !refused.www_authenticate.is_empty() {
                answer.headers.push(("www-authenticate".to_owned(), refused.www_authenticate));
            }
            judgement.answer = Some(answer);
            return judgement;
        }
        seen.tell(&mut judgement);
        let decision = seen.attributes(request, |attributes| self.authorizer.authorize(attributes));
        judgement.reason = self.authorizer.describe(decision);
        if let Some(rule) = decision.by() {
            self.note(&mut judgement, rule);
        }
        self.look_closer(request, &seen, detail, &mut judgement);
        if decision.is_allowed() {
            judgement.decision = Verdict::Allow;
            judgement.headers = seen.message.map(|message| message.headers).unwrap_or_default();
        } else {
            judgement.answer = seen.message.is_some().then(|| Answer::forbidden(&request.http));
        }
        judgement
    }

    /// Verifies the tokens of a request and makes the changes that follow from them.
    fn authenticate(&self, request: &Request, seen: &mut Seen<'_>, now: i64) -> Result<(), Refused> {
        if let Some(claims) = &request.http.jwt_claims {
            seen.claims = Some(Claims::from_verified(claims.clone(), &[]));
            return Ok(());
        }
        let Some(message) = seen.message.as_mut().filter(|_| !self.authenticator.is_empty()) else {
            return Ok(());
        };
        let lines = message.lines();
        let authenticated = self.authenticator.authenticate(
            &TokenRequest {
                method: &request.http.method,
                scheme: message.scheme,
                authority: &message.authority,
                target: &message.path,
                headers: &HeaderList(&lines),
            },
            time(now),
        )?;
        message.apply(&authenticated.effects);
        seen.claims = authenticated.claims;
        Ok(())
    }

    /// Names the rule that decided.
    fn note(&self, judgement: &mut Judgement, rule: RuleId) {
        let rule = self.authorizer.rule(rule);
        judgement.policy = Some(rule.object().clone());
        judgement.rule = Some(rule.to_string());
    }

    /// Which rules match, and on demand why the others do not.
    fn look_closer(&self, request: &Request, seen: &Seen<'_>, detail: Detail, judgement: &mut Judgement) {
        judgement.matched = seen.attributes(request, |attributes| self.authorizer.matching(attributes));
        if detail == Detail::Explained {
            let explanation = seen.attributes(request, |attributes| self.authorizer.explain(attributes));
            if judgement.stage == Stage::Authorization {
                judgement.reason.clone_from(&explanation.verdict);
            }
            judgement.explanation = Some(explanation);
        }
    }
}

/// Why a CUSTOM policy refuses here.
const OFFLINE: &str = "a CUSTOM rule matched, and no external authorizer is asked offline";

/// What the policies get to see of a request.
#[derive(Debug)]
struct Seen<'r> {
    /// Verified identity of the client.
    peer: Option<&'r SpiffeId>,
    /// `None` for a connection of bytes.
    message: Option<Message>,
    /// Claims of a token that was accepted.
    claims: Option<Claims>,
}

impl Seen<'_> {
    /// Calls `ask` with the attributes of the request as it is now.
    fn attributes<R>(&self, request: &Request, ask: impl FnOnce(&Attributes<'_>) -> R) -> R {
        let lines = self.message.as_ref().map(Message::lines).unwrap_or_default();
        let headers = HeaderList(&lines);
        ask(&Attributes {
            peer: self.peer,
            source_ip: request.source_ip,
            remote_ip: request.remote_ip,
            destination_ip: request.destination_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            destination_port: request.port,
            sni: request.sni.as_deref(),
            http: self.message.as_ref().map(|message| HttpAttributes {
                method: &request.http.method,
                authority: &message.authority,
                path: message.policy_path(),
                headers: &headers,
                claims: self.claims.as_ref(),
            }),
        })
    }

    /// Notes what is known of the request by now.
    fn tell(&self, judgement: &mut Judgement) {
        judgement.request_principal = self.claims.as_ref().and_then(principal);
        if let Some(message) = self.message.as_ref().filter(|message| message.has_path()) {
            judgement.policy_path = Some(message.policy_path().to_owned());
            judgement.path = Some(message.path.clone());
        }
    }
}

/// Seconds of the Unix epoch as a time; one that cannot be represented is the epoch itself.
fn time(seconds: i64) -> SystemTime {
    let span = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) };
    time.unwrap_or(UNIX_EPOCH)
}

fn principal(claims: &Claims) -> Option<String> {
    Some(format!("{}/{}", claims.text("iss")?, claims.text("sub")?))
}

#[cfg(test)]
mod tests;
