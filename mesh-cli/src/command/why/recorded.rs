//! `meshctl why DECISION-ID`: a refusal as the proxy that refused remembers it.
//!
//! The account was made at the time of the refusal. For the smallest edit the request is put together again from
//! it: an account names every attribute that any rule tests, so policies cannot tell the two apart.

use std::process::ExitCode;

use mesh_api::admin::{Denial, ProxyDump};
use mesh_api::name::SpiffeId;
use mesh_api::policy_test::{HttpRequest, Request, Traffic, Verdict};
use mesh_policy::authorize::{ClauseExplanation, Explanation};
use mesh_policy::judge::Judge;
use mesh_policy::remedy::{Case, Remedy, remedy};
use serde_json::{Map, Value, json};

use super::{Called, remedies};
use crate::admin_client::AskError;
use crate::args::GlobalArgs;
use crate::command::mesh::Mesh;
use crate::command::policy::test::tree;
use crate::command::{EXIT_USAGE, Failure, Outcome, block_on, target};
use crate::output::{self, Format};

/// Prints what is known of a refusal.
///
/// # Errors
/// When no proxy of the mesh remembers it.
pub(super) fn run(global: &GlobalArgs, id: &str, form: Format) -> Outcome {
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::new(format!("{id:?} is no id of a decision"))
            .hint(
                "It has 16 hexadecimal digits: decision_id in the access log, or the header x-mesh-decision.",
            )
            .status(EXIT_USAGE));
    }
    let mesh = Mesh::locate(global)?;
    let (workload, denial) = find(&mesh, id)?;
    let explanation: Option<Explanation> = serde_json::from_value(denial.explanation.clone()).ok();
    let remedy =
        explanation.as_ref().and_then(|explanation| remedy_of(&mesh, &workload, &denial, explanation));
    if form != Format::Table {
        let edits = remedy.iter().flat_map(|remedy| &remedy.edits).map(ToString::to_string);
        let value = json!({
            "workload": workload,
            "denial": denial,
            "edits": edits.collect::<Vec<_>>(),
            "advice": remedy.as_ref().map(|remedy| remedy.advice.clone()).unwrap_or_default(),
        });
        output::value(&value, form);
        return Ok(ExitCode::SUCCESS);
    }
    people(&workload, &denial, explanation.as_ref());
    if let Some(remedy) = remedy {
        remedies(Verdict::Deny, &remedy);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks each proxy, since an id does not say whose it is.
fn find(mesh: &Mesh, id: &str) -> Result<(String, Denial), Failure> {
    let mut silent = Vec::new();
    for workload in block_on(target::with_proxies(mesh, None))? {
        let path = format!("/decision?id={id}");
        match block_on(async { Ok(mesh.proxy::<Denial>(&workload, &path).await) })? {
            Ok(denial) => return Ok((workload, denial)),
            Err(AskError::Refused { .. }) => {}
            Err(_) => silent.push(workload),
        }
    }
    let failure = Failure::new(format!("no proxy of the mesh remembers the refusal {id}"));
    Err(match silent.is_empty() {
        true => failure.hint(
            "A proxy remembers its last 8,192 refusals, until it restarts; the access log keeps them all.",
        ),
        false => failure.hint(format!("These did not answer: {}.", silent.join(", "))),
    })
}

fn people(workload: &str, denial: &Denial, explanation: Option<&Explanation>) {
    let caller = match denial.peer.is_empty() {
        true => format!("a caller without identity ({})", denial.source),
        false => denial.peer.clone(),
    };
    let asked = match denial.method.is_empty() {
        true => "(bytes)".to_owned(),
        false => format!("{} {}", denial.method, denial.path),
    };
    output::line(&format!("{}  {caller} -> {workload}:{} {asked}", output::bad("REFUSED"), denial.port));
    let times = output::count(usize::try_from(denial.count).unwrap_or(usize::MAX), "time", "times");
    output::line(&format!("  {times}, last at {}", denial.time));
    output::line(&format!("  {} ({})", denial.reason, denial.policy));
    match explanation {
        Some(explanation) => {
            output::line("");
            for line in tree::lines(explanation, 0) {
                output::line(&format!("  {line}"));
            }
        }
        None => {
            output::line("  There is no account of its rules: it was refused before them, or in a flood.")
        }
    }
}

/// The smallest edit, by the policies that are in force now.
fn remedy_of(mesh: &Mesh, workload: &str, denial: &Denial, explanation: &Explanation) -> Option<Remedy> {
    let dump: ProxyDump = block_on(async { Ok(mesh.proxy(workload, "/config_dump").await?) }).ok()?;
    let called = Called::of_dump(workload.to_owned(), dump)?;
    let request = request_of(denial, explanation)?;
    // The token was verified then; it is not verified again.
    let now = 0;
    let judgement = Judge::compile(&called.mesh, &called.subject(), &called.policies).explain(&request, now);
    let case = Case {
        mesh: &called.mesh,
        subject: called.subject(),
        policies: &called.policies,
        request: &request,
        now,
    };
    if judgement.decision == Verdict::Allow {
        return Some(Remedy {
            edits: Vec::new(),
            advice: vec!["Today's policies allow it: nothing is left to change.".to_owned()],
        });
    }
    Some(remedy(&case, &judgement))
}

/// The request that an account is about.
fn request_of(denial: &Denial, explanation: &Explanation) -> Option<Request> {
    let principal = match denial.peer.is_empty() {
        true => None,
        false => Some(SpiffeId::parse(&denial.peer).ok()?),
    };
    let source: std::net::SocketAddr = denial.source.parse().ok()?;
    let mut http = HttpRequest {
        method: denial.method.clone(),
        host: denial.authority.clone(),
        path: denial.path.clone(),
        headers: Vec::new(),
        jwt_claims: None,
    };
    let mut claims = Map::new();
    let mut seen = std::collections::BTreeSet::new();
    for clause in clauses(explanation) {
        if !seen.insert(clause.attribute.as_str()) {
            continue;
        }
        if let Some(name) = inside(&clause.attribute, "request.headers") {
            http.headers.extend(clause.found.iter().map(|value| (name.to_owned(), value.clone())));
        } else {
            claim(clause, &mut claims);
        }
    }
    http.jwt_claims = (!claims.is_empty()).then_some(claims);
    Some(Request {
        protocol: if explanation.http { Traffic::Http } else { Traffic::Tcp },
        tls: principal.is_some(),
        principal,
        source_ip: source.ip().to_canonical(),
        remote_ip: source.ip().to_canonical(),
        destination_ip: None,
        sni: None,
        port: denial.port,
        http,
    })
}

fn clauses(explanation: &Explanation) -> impl Iterator<Item = &ClauseExplanation> {
    let rules = explanation.policies.iter().flat_map(|policy| &policy.rules);
    rules.flat_map(|rule| {
        let entries = rule.from.iter().chain(&rule.to).flat_map(|entry| &entry.clauses);
        entries.chain(&rule.when)
    })
}

/// `x` of `NAME[x]`.
fn inside<'a>(attribute: &'a str, name: &str) -> Option<&'a str> {
    attribute.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']')
}

/// Puts a claim that was tested back where it was.
fn claim(clause: &ClauseExplanation, claims: &mut Map<String, Value>) {
    let Some(first) = clause.found.first() else { return };
    match clause.attribute.as_str() {
        "request.auth.principal" => {
            if let Some((issuer, subject)) = first.rsplit_once('/') {
                claims.insert("iss".to_owned(), json!(issuer));
                claims.insert("sub".to_owned(), json!(subject));
            }
        }
        "request.auth.audiences" => {
            claims.insert("aud".to_owned(), json!(clause.found));
        }
        "request.auth.presenter" => {
            claims.insert("azp".to_owned(), json!(first));
        }
        attribute => {
            let Some(path) = inside(attribute, "request.auth.claims") else { return };
            let mut names = path.split("][").peekable();
            let mut level = claims;
            while let Some(name) = names.next() {
                if names.peek().is_none() {
                    level.insert(name.to_owned(), json!(clause.found));
                    return;
                }
                let next = level.entry(name.to_owned()).or_insert_with(|| json!({}));
                let Value::Object(next) = next else { return };
                level = next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(attribute: &str, found: &[&str]) -> ClauseExplanation {
        ClauseExplanation {
            field: String::new(),
            attribute: attribute.to_owned(),
            excludes: false,
            expected: Vec::new(),
            found: found.iter().map(|value| (*value).to_owned()).collect(),
            holds: false,
        }
    }

    #[test]
    fn claims_are_put_back_where_they_were() {
        let mut claims = Map::new();
        for clause in [
            clause("request.auth.principal", &["https://issuer/alice"]),
            clause("request.auth.claims[a][b]", &["x", "y"]),
            clause("request.auth.claims[a][c]", &["z"]),
            clause("request.auth.claims[missing]", &[]),
            clause("source.principal", &["td/ns/a/sa/b"]),
        ] {
            claim(&clause, &mut claims);
        }
        let expected = json!({"iss": "https://issuer", "sub": "alice", "a": {"b": ["x", "y"], "c": ["z"]}});
        assert_eq!(Value::Object(claims), expected);
    }

    #[test]
    fn the_name_of_a_header_stands_in_brackets() {
        assert_eq!(inside("request.headers[x-tenant]", "request.headers"), Some("x-tenant"));
        assert_eq!(inside("request.path", "request.headers"), None);
    }
}
