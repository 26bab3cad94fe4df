//! `meshctl policy diff`: what other policies would decide otherwise, of all requests or of recorded ones.
//!
//! Without a record the answer is about every request: one example for each pair of ways in which the old and
//! the new policies decide. With one it is about the requests that were recorded, which are judged by both. And
//! with `--live` it is about what the proxies judged by both.

mod live;
mod record;

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_api::policy_test::MeshOverrides;
use mesh_policy::symbolic::{self, Change, Differences, Policed, Undecided, Workload};
use serde_json::{Value, json};

use super::example::{self, plain};
use super::files::{EXIT_NOT_RUN, Empty, PolicyFiles};
use super::verify::{Form, settled};
use crate::args::GlobalArgs;
use crate::command::{EXIT_FAILURE, Failure, Outcome};
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// File or folder with the policies as they are; an empty folder for none.
    #[arg(required_unless_present = "live")]
    old: Option<PathBuf>,
    /// File or folder with the policies as they would be.
    #[arg(required_unless_present = "live")]
    new: Option<PathBuf>,
    /// Show what the proxies of the running mesh counted for policies that are tried (mini-mesh.io/dry-run).
    #[arg(long, conflicts_with_all = ["old", "new", "traffic"])]
    live: bool,
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
pub(crate) fn run(global: &GlobalArgs, args: &DiffArgs) -> Outcome {
    if args.live {
        return live::run(global, args.output);
    }
    let (Some(old), Some(new)) = (&args.old, &args.new) else {
        return Err(Failure::new("two sets of policies are compared: OLD and NEW").status(EXIT_NOT_RUN));
    };
    let read = |path: &PathBuf| {
        if !path.exists() {
            return Err(Failure::new(format!("there is no {}", path.display())).status(EXIT_NOT_RUN));
        }
        PolicyFiles::read(std::slice::from_ref(path), &MeshOverrides::default(), Empty::Taken)
    };
    let sides = Sides { old: read(old)?, new: read(new)? };
    match args.traffic.is_empty() {
        true => of_all(&sides, args.output),
        false => record::run(&sides, &args.traffic, args.output),
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
