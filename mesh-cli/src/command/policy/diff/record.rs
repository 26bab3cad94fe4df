//! Recorded requests, judged by the old and the new policies.
//!
//! A record tells who called whom and for what, and nothing of headers and tokens. Where the old policies do
//! not decide as was recorded, that is counted and said.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::policy_test::{HttpRequest, Request, Traffic, Verdict};
use mesh_api::traffic_record::{Recorded, TrafficRecord};
use mesh_policy::judge::{Judge, Judgement};
use mesh_policy::select::Subject;
use mesh_policy::symbolic::{self, Workload};
use serde_json::{Value, json};

use super::Sides;
use crate::command::policy::example::{self, plain};
use crate::command::policy::files::EXIT_NOT_RUN;
use crate::command::policy::traffic_log::Reading;
use crate::command::policy::verify::Form;
use crate::command::{EXIT_FAILURE, Failure, Outcome};
use crate::output;

/// Recorded requests that are told; more are counted.
const RECORDS_TOLD: usize = 50;

/// A recorded request that would be decided otherwise.
struct Replayed {
    record: TrafficRecord,
    times: u64,
    workload: String,
    old: Judgement,
    new: Judgement,
}

/// What became of a record.
#[derive(Debug, Default)]
struct Counts {
    judged: u64,
    otherwise: u64,
    /// Decided by what a record does not say, such as a header, or by other policies than the old ones.
    unexplained: u64,
    bad_lines: usize,
}

/// Judges recorded requests by both.
///
/// # Errors
/// When a record cannot be read, or holds nothing.
pub(super) fn run(sides: &Sides, logs: &[PathBuf], form: Form) -> Outcome {
    let mut reading = Reading::default();
    for log in logs {
        reading.read(log).map_err(|failure| failure.status(EXIT_NOT_RUN))?;
    }
    let mut counts = Counts { bad_lines: reading.bad_lines, ..Counts::default() };
    let records = reading.traffic.records();
    if records.is_empty() {
        return Err(
            Failure::new("no request was recorded by the proxy that received it").status(EXIT_NOT_RUN)
        );
    }
    let mut replay = Replay { sides, judges: BTreeMap::new() };
    let mut replayed = Vec::new();
    for (record, times) in records {
        replay.record(&record, times, &mut replayed, &mut counts);
    }
    match form {
        Form::Human => people_of_record(&replayed, &counts),
        Form::Json => output::value(&machine_of_record(&replayed, &counts), output::Format::Json),
    }
    Ok(ExitCode::from(if counts.otherwise > 0 { EXIT_FAILURE } else { 0 }))
}

struct Replay<'s> {
    sides: &'s Sides,
    /// By namespace and labels.
    judges: BTreeMap<(String, BTreeMap<String, String>), [Judge; 2]>,
}

impl Replay<'_> {
    fn record(
        &mut self,
        record: &TrafficRecord,
        times: u64,
        replayed: &mut Vec<Replayed>,
        counts: &mut Counts,
    ) {
        counts.judged += times;
        let request = request_of(record);
        let mut is_explained = false;
        for workload in self.called(record) {
            let [old, new] = self.judges(&workload);
            let (old, new) = (old.judge(&request, 0), new.judge(&request, 0));
            let was = if old.decision == Verdict::Allow { Recorded::Allowed } else { Recorded::Denied };
            is_explained |= was == record.decision;
            if old.decision != new.decision {
                counts.otherwise += times;
                let record = record.clone();
                replayed.push(Replayed { record, times, workload: workload.told, old, new });
                break;
            }
        }
        if !is_explained {
            counts.unexplained += times;
        }
    }

    /// The workloads that a record may be about: those of its name or account, else every class of its
    /// namespace.
    fn called(&self, record: &TrafficRecord) -> Vec<Workload> {
        let Some((namespace, account)) = record.destination.workload_parts() else { return Vec::new() };
        for files in [&self.sides.new, &self.sides.old] {
            let called = files.called(namespace, &record.workload, account);
            if !called.is_empty() {
                return called.into_iter().cloned().collect();
            }
        }
        let Ok(namespace) = mesh_api::name::Namespace::parse(namespace) else { return Vec::new() };
        symbolic::classes(&self.sides.sets(), &namespace, &Default::default()).unwrap_or_default()
    }

    fn judges(&mut self, workload: &Workload) -> &[Judge; 2] {
        let key = (workload.namespace.to_string(), workload.labels.clone());
        let sides = self.sides;
        self.judges.entry(key).or_insert_with(|| {
            let subject = Subject {
                namespace: &workload.namespace,
                labels: &workload.labels,
                service_account: &workload.service_account,
            };
            sides.sets().map(|(mesh, policies)| Judge::compile(mesh, &subject, policies))
        })
    }
}

/// A recorded request, as far as the record tells it.
fn request_of(record: &TrafficRecord) -> Request {
    let address: IpAddr = record.address.ip();
    let http = record.http.as_ref();
    Request {
        protocol: if http.is_some() { Traffic::Http } else { Traffic::Tcp },
        principal: record.principal.clone(),
        tls: record.principal.is_some() || record.sni.is_some(),
        source_ip: record.source_ip,
        remote_ip: record.source_ip,
        destination_ip: Some(address.to_canonical()),
        sni: record.sni.clone(),
        port: record.address.port(),
        http: HttpRequest {
            method: http.map(|http| http.method.clone()).unwrap_or_default(),
            host: http.map(|http| http.authority.clone()).unwrap_or_default(),
            path: http.map(|http| http.target.clone()).unwrap_or_default(),
            headers: Vec::new(),
            jwt_claims: None,
        },
    }
}

fn told(record: &TrafficRecord) -> String {
    let caller =
        record.principal.as_ref().map_or("a caller without identity", |principal| principal.as_str());
    let what = match &record.http {
        Some(http) => format!("{} {}", http.method, http.path()),
        None => "a connection".to_owned(),
    };
    format!("{what} by {caller} to port {}", record.address.port())
}

fn people_of_record(replayed: &[Replayed], counts: &Counts) {
    for one in replayed.iter().take(RECORDS_TOLD) {
        let times = if one.times == 1 { String::new() } else { format!(" ({} times)", one.times) };
        let (old, new) = (one.old.decision.as_str(), one.new.decision.as_str());
        output::line(&format!("{old} -> {new}: {}{times}", plain(&told(&one.record))));
        output::line(&format!("    {}", one.workload));
        output::line(&format!("    was {}", plain(&one.old.reason)));
        output::line(&format!("    is  {}", plain(&one.new.reason)));
    }
    if replayed.len() > RECORDS_TOLD {
        output::line(&format!("and {} more", replayed.len() - RECORDS_TOLD));
    }
    output::line(&format!(
        "{} of {} recorded requests would be decided otherwise",
        counts.otherwise, counts.judged
    ));
    if counts.unexplained > 0 {
        output::note(&format!(
            "{} were decided otherwise when they were recorded than the old policies decide what the record \
             tells: by headers or tokens, which no record holds, or by other policies",
            counts.unexplained
        ));
    }
}

fn machine_of_record(replayed: &[Replayed], counts: &Counts) -> Value {
    let changes: Vec<Value> = replayed
        .iter()
        .map(|one| {
            json!({
                "request": example::of_policy_test(&request_of(&one.record)),
                "workload": one.workload,
                "times": one.times,
                "old": {"decision": one.old.decision, "reason": one.old.reason, "rule": one.old.rule},
                "new": {"decision": one.new.decision, "reason": one.new.reason, "rule": one.new.rule},
            })
        })
        .collect();
    json!({
        "changes": changes,
        "judged": counts.judged,
        "otherwise": counts.otherwise,
        "unexplained": counts.unexplained,
        "badLines": counts.bad_lines,
    })
}
