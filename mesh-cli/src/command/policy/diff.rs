//! `meshctl policy diff`: what other policies would decide otherwise, of all requests or of recorded ones.
//!
//! Without a record the answer is about every request: one example for each pair of ways in which the old and
//! the new policies decide. With one it is about the requests that were recorded, which are judged by both.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::policy_test::{HttpRequest, MeshOverrides, Request, Traffic};
use mesh_api::traffic_record::{Recorded, TrafficRecord};
use mesh_policy::judge::{Judge, Judgement};
use mesh_policy::select::Subject;
use mesh_policy::symbolic::{self, Change, Differences, Policed, Undecided, Workload};
use serde_json::{Value, json};

use super::example::{self, plain};
use super::files::{EXIT_NOT_RUN, Empty, PolicyFiles};
use super::suggest::Reading;
use super::verify::{Form, settled};
use crate::command::{EXIT_FAILURE, Failure, Outcome};
use crate::output;

/// Recorded requests that are told; more are counted.
const RECORDS_TOLD: usize = 50;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// File or folder with the policies as they are; an empty folder for none.
    old: PathBuf,
    /// File or folder with the policies as they would be.
    new: PathBuf,
    /// Judge recorded requests instead of all: JSON access logs of proxies, or - for standard input.
    #[arg(short, long, value_name = "RECORD")]
    traffic: Vec<PathBuf>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Runs the command.
///
/// # Errors
/// When files cannot be read, or nothing can be compared.
pub(crate) fn run(args: &DiffArgs) -> Outcome {
    let read = |path: &PathBuf| {
        if !path.exists() {
            return Err(Failure::new(format!("there is no {}", path.display())).status(EXIT_NOT_RUN));
        }
        PolicyFiles::read(std::slice::from_ref(path), &MeshOverrides::default(), Empty::Taken)
    };
    let sides = Sides { old: read(&args.old)?, new: read(&args.new)? };
    match args.traffic.is_empty() {
        true => of_all(&sides, args.output),
        false => of_record(&sides, args),
    }
}

struct Sides {
    old: PolicyFiles,
    new: PolicyFiles,
}

impl Sides {
    /// The workloads of both; where the files speak of none, those that policies tell apart.
    fn workloads(&self) -> Result<Vec<Workload>, Undecided> {
        let mut all: Vec<Workload> = Vec::new();
        for workload in self.old.workloads.iter().chain(&self.new.workloads) {
            let is_known = |known: &Workload| {
                (&known.namespace, &known.labels, &known.declared)
                    == (&workload.namespace, &workload.labels, &workload.declared)
            };
            if !all.iter().any(is_known) {
                all.push(workload.clone());
            }
        }
        if !all.is_empty() {
            return Ok(all);
        }
        let sets = self.sets();
        for namespace in symbolic::namespaces(&sets) {
            all.extend(symbolic::classes(&sets, &namespace, &Default::default())?);
        }
        Ok(all)
    }

    fn sets(&self) -> [(&mesh_api::model::MeshSettings, &mesh_policy::judge::Policies); 2] {
        [(&self.old.settings, &self.old.policies), (&self.new.settings, &self.new.policies)]
    }
}

/// What was found about one workload, or several that are treated alike.
struct Compared {
    workloads: Vec<String>,
    found: Result<Differences, Undecided>,
}

fn of_all(sides: &Sides, form: Form) -> Outcome {
    let workloads = sides.workloads();
    let workloads = workloads.map_err(|error| Failure::new(error.to_string()).status(EXIT_NOT_RUN))?;
    let old = Policed { mesh: &sides.old.settings, policies: &sides.old.policies };
    let new = Policed { mesh: &sides.new.settings, policies: &sides.new.policies };
    let count = workloads.len();
    let mut compared: Vec<Compared> = Vec::new();
    for workload in workloads {
        let found = symbolic::differences(old, new, &workload);
        let alike = compared.iter_mut().find(|known| is_alike(&known.found, &found));
        match alike {
            Some(known) => known.workloads.push(workload.told),
            None => compared.push(Compared { workloads: vec![workload.told], found }),
        }
    }
    compared.retain(|compared| compared.found.as_ref().map_or(true, |found| !found.changes.is_empty()));
    match form {
        Form::Human => people(sides, &compared, count),
        Form::Json => output::value(&machine(sides, &compared), output::Format::Json),
    }
    let status = if compared.iter().any(|compared| compared.found.is_ok()) {
        EXIT_FAILURE
    } else if compared.is_empty() {
        0
    } else {
        EXIT_NOT_RUN
    };
    Ok(ExitCode::from(status))
}

/// Whether two workloads differ by the same rules, so that one example serves for both.
fn is_alike(left: &Result<Differences, Undecided>, right: &Result<Differences, Undecided>) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => {
            let ways = |found: &Differences| -> Vec<(symbolic::Settled, symbolic::Settled)> {
                found.changes.iter().map(|change| (change.old.clone(), change.new.clone())).collect()
            };
            ways(left) == ways(right) && left.is_cut == right.is_cut
        }
        (Err(left), Err(right)) => left == right,
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
    }
}

fn people(sides: &Sides, compared: &[Compared], count: usize) {
    for one in compared {
        output::line(&output::title(&one.workloads.join(", ")));
        match &one.found {
            Err(why) => output::line(&format!("  {}: {why}", output::doubtful("undecided"))),
            Ok(found) => {
                found.changes.iter().for_each(|change| change_lines(sides, change));
                if found.is_cut {
                    output::line("  there are more");
                }
            }
        }
    }
    let changes: usize =
        compared.iter().filter_map(|one| one.found.as_ref().ok()).map(|found| found.changes.len()).sum();
    let workloads = output::count(count, "workload", "workloads");
    output::line(&match changes {
        0 if compared.is_empty() => format!("no request is decided otherwise ({workloads})"),
        1 => format!("1 class of requests is decided otherwise ({workloads})"),
        changes => format!("{changes} classes of requests are decided otherwise ({workloads})"),
    });
}

fn change_lines(sides: &Sides, change: &Change) {
    let (old, new) = (change.old.fate.as_str(), change.new.fate.as_str());
    output::line(&format!("  {} -> {}", output::title(old), output::title(new)));
    for (word, files, settled) in [("was", &sides.old, &change.old), ("is", &sides.new, &change.new)] {
        let place = files.place(settled).map(|place| format!(" ({place})")).unwrap_or_default();
        output::line(&format!("    {word:<4}{}{place}", plain(&settled.reason)));
    }
    if !change.example.class.is_empty() {
        output::line(&format!("    such as: {}", plain(&change.example.class.join("; "))));
    }
    let request = &change.example.request;
    output::line(&format!("    request: {}", plain(&example::of_policy_test(request).to_string())));
    output::line(&format!("    {}", plain(&example::command(request))));
}

fn machine(sides: &Sides, compared: &[Compared]) -> Value {
    let of = |one: &Compared| match &one.found {
        Err(why) => json!({"workloads": one.workloads, "undecided": why.to_string()}),
        Ok(found) => {
            let changes = found.changes.iter().map(|change| {
                json!({
                    "old": settled(&sides.old, &change.old),
                    "new": settled(&sides.new, &change.new),
                    "class": change.example.class,
                    "request": example::of_policy_test(&change.example.request),
                    "command": example::command(&change.example.request),
                })
            });
            json!({"workloads": one.workloads, "changes": changes.collect::<Vec<_>>(), "isCut": found.is_cut})
        }
    };
    json!({"workloads": compared.iter().map(of).collect::<Vec<_>>()})
}

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

fn of_record(sides: &Sides, args: &DiffArgs) -> Outcome {
    let mut reading = Reading::default();
    for log in &args.traffic {
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
    match args.output {
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
            let was = if old.decision == mesh_api::policy_test::Verdict::Allow {
                Recorded::Allowed
            } else {
                Recorded::Denied
            };
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
