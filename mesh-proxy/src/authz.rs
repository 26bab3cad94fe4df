//! May this pass? The one place where a [`Permit`] is made.
//!
//! Forwarding towards the workload takes a permit, so nothing is forwarded that was not judged. The order is
//! SEMANTICS 4.1's: an external authorizer where a CUSTOM policy wants one, then the request's token, then
//! AUDIT, DENY and ALLOW; [`crate::exchange`] walks it for requests, [`stream`] for byte streams. A permit
//! for a request is used up with it; a permit for a byte stream is a standing one, and [`revoked`] says when
//! the policies of the day would no longer give it. Policy is enforced inbound only.

mod standing;

use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use mesh_policy::authenticate::{Authenticator, Effects, Refused};
use mesh_policy::authorize::{
    Attributes, Claims, Decision, DenyReason, DryRunAllow, External, HttpAttributes, RuleId,
};

pub use standing::{Revocation, Standing, expiry, is_peer_expired, judge_again, peer_expiry, revoked};

use crate::connection::{Connection, Direction};
use crate::ext_authz::{self, Asked, Outcome};
use crate::respond::ExternalCause;
use crate::state::WorkloadState;
use crate::telemetry::decisions::{By, Decided};
use crate::telemetry::{FaultDomain, Flag, HttpRecord, TcpRecord, Verdict};
use crate::worker::Worker;

/// Leave to forward; only this module makes one.
#[derive(Debug)]
#[must_use = "a permit is what forwarding takes"]
pub struct Permit(Option<Box<Grounds>>);

impl Permit {
    /// Leave for what the own workload sends: policy is the business of who receives it.
    ///
    /// Gives `None` for a connection that came in, which has to be judged.
    pub fn for_outbound(connection: &Connection) -> Option<Self> {
        (connection.direction == Direction::Outbound).then_some(Self(None))
    }

    /// Provider whose external authorizer let it pass.
    #[must_use]
    pub fn asked(&self) -> Option<&str> {
        self.0.as_ref()?.asked()
    }
}

/// What a permit rests on beside policies and the request as it is forwarded.
#[derive(Debug, Default)]
pub struct Grounds {
    /// Provider whose authorizer let it pass.
    asked: Option<Arc<str>>,
    /// What was looked at for a token, and what was found.
    token: Option<Token>,
}

impl Grounds {
    /// The authorizer of that provider let it pass.
    pub fn note_asked(&mut self, provider: &str) {
        self.asked = Some(Arc::from(provider));
    }

    /// Provider whose authorizer let it pass.
    #[must_use]
    pub fn asked(&self) -> Option<&str> {
        self.asked.as_deref()
    }

    /// Tokens were looked for.
    pub fn note_token(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// Claims of the verified token.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.token.as_ref()?.claims.as_ref()
    }
}

/// A request's token as it was verified, and what is needed to do it again.
#[derive(Debug)]
pub struct Token {
    /// Rules and keys that verified it.
    pub verified_by: Arc<Authenticator>,
    /// When.
    pub verified_at: SystemTime,
    /// What it claims; `None` when the request had none.
    pub claims: Option<Claims>,
    /// Lines that were taken off the request, which may have held it.
    pub taken: Vec<(String, Vec<u8>)>,
    /// Changes that were made to the request.
    pub effects: Effects,
    /// Path and query before the changes.
    pub target: String,
}

/// Policy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("access denied: {0}")]
pub struct Denied(pub DenyReason);

/// What is known about a connection; `http` is that of one request on it.
///
/// The original client is taken to be the TCP peer: any direct caller can write X-Forwarded-For, so it is
/// never believed here (SEMANTICS 6.5, TRAP 20).
#[must_use]
pub fn attributes<'a>(connection: &'a Connection, http: Option<HttpAttributes<'a>>) -> Attributes<'a> {
    let source: IpAddr = connection.peer.ip();
    Attributes {
        peer: connection.peer_identity(),
        source_ip: source,
        remote_ip: source,
        destination_ip: connection.destination.ip(),
        destination_port: connection.destination.port(),
        sni: connection.tls.as_ref().and_then(|tls| tls.sni.as_deref()),
        http,
    }
}

/// Counts a decision and what was recorded beside it. A workload without policies has nothing to count.
fn count(workload: &WorkloadState, decision: &Decision) {
    if workload.authorizer.is_empty() {
        return;
    }
    let (decisions, authorizer) = (&workload.decisions, &workload.authorizer);
    let policy = |rule: RuleId| By::Policy(authorizer.policy_position(rule));
    let aside = decision.aside();
    if let Some(rule) = aside.audit {
        decisions.note(policy(rule), Decided::Audit);
    }
    if let Some(rule) = aside.dry_run_deny {
        decisions.note(policy(rule), Decided::DryRunDeny);
    }
    if let DryRunAllow::WouldAllow(rule) = aside.dry_run_allow {
        decisions.note(policy(rule), Decided::DryRunAllow);
    }
    let decided = if decision.is_allowed() { Decided::Allow } else { Decided::Deny };
    decisions.note(decision.by().map_or(By::Nobody, policy), decided);
}

/// Judges one request by AUDIT, DENY and ALLOW. `grounds` say what came before.
///
/// # Errors
/// When policy refuses; the record then says which rule did.
pub fn request(
    workload: &WorkloadState,
    connection: &Connection,
    http: HttpAttributes<'_>,
    grounds: Option<Box<Grounds>>,
    record: &mut HttpRecord,
) -> Result<Permit, Denied> {
    use std::fmt::Write as _;
    let claims = grounds.as_ref().and_then(|grounds| grounds.claims());
    let decision =
        workload.authorizer.authorize(&attributes(connection, Some(HttpAttributes { claims, ..http })));
    count(workload, &decision);
    if let Some(rule) = decision.aside().audit {
        let _infallible = write!(record.audit, "{}", workload.authorizer.rule(rule));
    }
    match decision {
        Decision::Allowed { by, .. } => {
            record.verdict = Verdict::Allowed;
            if let Some(rule) = by {
                record.policy.clear();
                let _infallible = write!(record.policy, "{}", workload.authorizer.rule(rule));
            }
            Ok(Permit(grounds))
        }
        Decision::Denied { by, reason, .. } => {
            let judged = attributes(connection, Some(HttpAttributes { claims, ..http }));
            record.explain(|| workload.authorizer.explain(&judged));
            deny(workload, by, reason, record);
            Err(Denied(reason))
        }
    }
}

/// Refuses what a CUSTOM policy matched while nobody can be asked.
pub fn refuse_unasked(workload: &WorkloadState, rule: RuleId, reason: DenyReason, record: &mut HttpRecord) {
    workload.decisions.note(By::Policy(workload.authorizer.policy_position(rule)), Decided::Deny);
    deny(workload, Some(rule), reason, record);
}

fn deny(workload: &WorkloadState, by: Option<RuleId>, reason: DenyReason, record: &mut HttpRecord) {
    let rule = by.map(|id| workload.authorizer.rule(id));
    record.policy.clear();
    record.deny(rule.as_ref().map(|rule| rule as &dyn std::fmt::Display), &reason.to_string());
}

/// Notes what an authorizer said about a request.
pub fn note_external(
    workload: &WorkloadState,
    (provider, rule): (&str, RuleId),
    outcome: &Outcome,
    record: &mut HttpRecord,
) {
    use std::fmt::Write as _;
    count_external(workload, rule, outcome);
    let Some(cause) = refusal_cause(outcome) else { return };
    record.verdict = Verdict::Denied;
    record.policy.clear();
    let _infallible = write!(record.policy, "{}", workload.authorizer.rule(rule));
    record.reason.clear();
    record.reason.push_str(&external_reason(provider, cause));
}

fn count_external(workload: &WorkloadState, rule: RuleId, outcome: &Outcome) {
    let decided = match outcome {
        Outcome::Pass(_) => Decided::Allow,
        Outcome::Refused(_) => Decided::Deny,
        Outcome::PassUnasked | Outcome::Failed(_) => Decided::Error,
        Outcome::Gone => return,
    };
    workload.decisions.note(By::Policy(workload.authorizer.policy_position(rule)), decided);
}

/// Counts a request that was refused for its token.
pub fn count_token_refusal(workload: &WorkloadState, refused: &Refused) {
    let policies = &workload.policies.request;
    if let Some(at) = policies.iter().position(|policy| policy.meta.object == refused.rule.policy) {
        workload.decisions.note(By::Authentication(at), Decided::Deny);
    }
}

fn refusal_cause(outcome: &Outcome) -> Option<ExternalCause> {
    match outcome {
        Outcome::Refused(_) => Some(ExternalCause::Denied),
        Outcome::Failed(_) => Some(ExternalCause::Error),
        Outcome::Pass(_) | Outcome::PassUnasked | Outcome::Gone => None,
    }
}

fn external_reason(provider: &str, cause: ExternalCause) -> String {
    match cause {
        ExternalCause::Denied => format!("external authorizer {provider} refuses"),
        ExternalCause::Error => format!("external authorizer {provider} could not be asked"),
    }
}

/// Judges a byte stream; `None` when it is refused, and the record then says by which rule.
///
/// Waits only when a CUSTOM policy matches, for as long as its provider allows and `gone` is not ready; dropping
/// the future gives the check up.
pub async fn stream(
    worker: &Worker,
    connection: &Connection,
    record: &mut TcpRecord,
    gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<Permit> {
    let (workload, provider, rule) = {
        let state = worker.state.load();
        let workload = state.workload.as_ref()?;
        match workload.authorizer.external(&attributes(connection, None)) {
            External::NotAsked => return judge_stream(workload, connection, None, record),
            External::Refuse { rule, reason } => {
                let rule_ref = workload.authorizer.rule(rule);
                workload.decisions.note(By::Policy(workload.authorizer.policy_position(rule)), Decided::Deny);
                record.deny(Some(&rule_ref), &reason.to_string());
                return None;
            }
            External::Ask { provider, rule } => (Arc::clone(workload), provider.to_owned(), rule),
        }
    };
    let authorizer = workload.config.mesh.authorizer(&provider)?;
    let asked = Asked { connection, http: None };
    let outcome = ext_authz::check(worker, (&provider, authorizer), &asked, gone).await;
    count_external(&workload, rule, &outcome);
    if matches!(outcome, Outcome::Gone) {
        record.flag = Flag::DownstreamConnectionTermination;
        record.fault = FaultDomain::Client;
        return None;
    }
    if let Some(cause) = refusal_cause(&outcome) {
        record.verdict = Verdict::Denied;
        record.fault = FaultDomain::Policy;
        record.flag = Flag::UnauthorizedExternal;
        record.policy = workload.authorizer.rule(rule).to_string();
        record.reason = external_reason(&provider, cause);
        cause.details().clone_into(&mut record.details);
        return None;
    }
    let mut grounds = Box::<Grounds>::default();
    grounds.note_asked(&provider);
    judge_stream(&workload, connection, Some(grounds), record)
}

fn judge_stream(
    workload: &WorkloadState,
    connection: &Connection,
    grounds: Option<Box<Grounds>>,
    record: &mut TcpRecord,
) -> Option<Permit> {
    let decision = workload.authorizer.authorize(&attributes(connection, None));
    count(workload, &decision);
    if let Some(rule) = decision.aside().audit {
        record.audit = workload.authorizer.rule(rule).to_string();
    }
    match decision {
        Decision::Allowed { by, .. } => {
            record.verdict = Verdict::Allowed;
            if let Some(rule) = by {
                record.policy = workload.authorizer.rule(rule).to_string();
            }
            Some(Permit(grounds))
        }
        Decision::Denied { by, reason, .. } => {
            let rule = by.map(|id| workload.authorizer.rule(id));
            record.explain(|| workload.authorizer.explain(&attributes(connection, None)));
            record.deny(rule.as_ref().map(|rule| rule as &dyn std::fmt::Display), &reason.to_string());
            None
        }
    }
}
