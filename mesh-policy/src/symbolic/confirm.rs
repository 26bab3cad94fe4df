//! The evaluator's word about an example.

use std::net::{IpAddr, Ipv4Addr};

use mesh_api::model::MeshSettings;
use mesh_api::policy_test::{Request, Traffic, Verdict};

use super::scenario::Sight;
use super::side::{Outcome, Side};
use super::{Fate, Settled, Undecided};
use crate::authorize::rule::RuleForm;
use crate::authorize::{Attributes, Claims, HeaderList, HttpAttributes};
use crate::judge::{Judgement, Stage};
use crate::normalize;

/// Whom examples are judged as of. Their tokens are taken as verified, so the time does not matter.
const NOW: i64 = 0;

/// Says what becomes of a request, when the evaluator says the same.
pub(super) fn settled(
    side: &Side,
    sight: &Sight,
    outcome: Outcome,
    request: &Request,
) -> Result<Settled, Undecided> {
    if let Sight::Refused(_) = sight {
        return Ok(told(
            Fate::Denied,
            "its token is of no issuer that is accepted, which is answered 401",
            None,
        ));
    }
    let mut seen = request.clone();
    let claims = sight.view().is_some_and(|view| view.claims);
    if !claims {
        seen.http.jwt_claims = None;
    }
    if let (Sight::Seen { audience: Some(_), .. }, Outcome::Deny) = (sight, outcome)
        && !has_audience(side, request)
    {
        return Ok(told(Fate::Denied, "its token is meant for none of the accepted audiences", None));
    }
    let judgement = side.judge.explain(&seen, NOW);
    let fate = match (judgement.decision, judgement.stage) {
        (Verdict::Allow, _) => Fate::Allowed,
        (Verdict::Deny, Stage::External) if outcome == Outcome::Ask => Fate::Asked,
        (Verdict::Deny, _) => Fate::Denied,
    };
    let expected = match outcome {
        Outcome::Allow => Fate::Allowed,
        Outcome::Deny => Fate::Denied,
        Outcome::Ask => Fate::Asked,
    };
    let is_of_policy = matches!(judgement.stage, Stage::MutualTls | Stage::Authorization | Stage::External);
    if fate != expected || !is_of_policy {
        return Err(Undecided::Untold(format!(
            "the evaluator does not confirm an example ({} {}: {}), so no answer is given",
            seen.http.method, seen.http.path, judgement.reason
        )));
    }
    Ok(of_judgement(side, fate, &judgement))
}

/// Whether a token is meant for somebody that a rule of the side names.
fn has_audience(side: &Side, request: &Request) -> bool {
    let claims = request.http.jwt_claims.clone().map(|claims| Claims::from_verified(claims, &[]));
    let strings: Vec<String> = match claims.as_ref().and_then(|claims| claims.at(["aud"])) {
        Some(serde_json::Value::String(text)) => vec![text.clone()],
        Some(serde_json::Value::Array(list)) => {
            list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    side.jwt.iter().any(|rule| {
        rule.audiences.is_empty() || rule.audiences.iter().any(|audience| strings.contains(audience))
    })
}

fn told(fate: Fate, reason: &str, policy: Option<mesh_api::model::ObjectRef>) -> Settled {
    Settled { fate, reason: reason.to_owned(), policy, rule: None, origin: None }
}

fn of_judgement(side: &Side, fate: Fate, judgement: &Judgement) -> Settled {
    let authorizer = side.judge.authorizer();
    let rule = judgement.matched.iter().map(|id| authorizer.rule(*id));
    let rule = judgement.rule.as_ref().and_then(|id| rule.into_iter().find(|rule| rule.to_string() == *id));
    let policy = judgement.policy.clone().or_else(|| rule.map(|rule| rule.object().clone()));
    Settled {
        fate,
        reason: judgement.reason.clone(),
        policy,
        rule: rule.map(|rule| rule.index()),
        origin: rule.map(|rule| rule.origin().clone()),
    }
}

/// Whether a rule matches a request as it is, whatever a proxy gets to see of it.
pub(super) fn matches(mesh: &MeshSettings, form: &RuleForm, request: &Request) -> bool {
    let target = normalize::path(&request.http.path, mesh.path_normalization);
    let has_path = request.http.method != "CONNECT";
    let (target, path) = match target.as_ref().ok().filter(|_| has_path) {
        Some(target) => (target.as_str(), target.policy_path()),
        None => ("", ""),
    };
    let mut lines = request.http.headers.clone();
    lines.push((":scheme".to_owned(), if request.tls { "https" } else { "http" }.to_owned()));
    if has_path {
        lines.push((":path".to_owned(), target.to_owned()));
    }
    let headers = HeaderList(&lines);
    let claims = request.http.jwt_claims.clone().map(|claims| Claims::from_verified(claims, &[]));
    let attributes = Attributes {
        peer: request.principal.as_ref(),
        source_ip: request.source_ip,
        remote_ip: request.remote_ip,
        destination_ip: request.destination_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        destination_port: request.port,
        sni: request.sni.as_deref(),
        http: (request.protocol == Traffic::Http).then_some(HttpAttributes {
            method: &request.http.method,
            authority: &request.http.host,
            path,
            headers: &headers,
            claims: claims.as_ref(),
        }),
    };
    form.matches(&attributes)
}
