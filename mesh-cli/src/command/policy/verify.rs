//! `meshctl policy verify`: whether policies keep what is asserted of them, for every request.
//!
//! An assertion that cannot be decided is no assertion that holds: it ends the command with status 2.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use mesh_api::manifest::policy_assertion::{self, PolicyAssertion};
use mesh_api::policy_assertion::{Assertion, StatedWorkload, WorkloadScope};
use mesh_api::policy_test::Verdict;
use mesh_api::problem::Severity;
use mesh_policy::symbolic::{self, Answer, CounterExample, Fate, Question, Workload};
use serde_json::{Value, json};

use super::example::{self, plain};
use super::files::{EXIT_NOT_RUN, Empty, PolicyFiles};
use super::test::sources::Sources;
use crate::command::objects::input;
use crate::command::{EXIT_FAILURE, Failure, Outcome, analyze};
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Files of PolicyAssertion documents, or - for standard input.
    #[arg(short = 'f', long = "filename", required = true, value_name = "ASSERTIONS")]
    assertions: Vec<PathBuf>,
    /// Files and folders with the policies, and with the workloads that they are about.
    #[arg(value_name = "FILE")]
    policies: Vec<PathBuf>,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    #[default]
    #[value(alias = "table")]
    Human,
    /// For programs.
    Json,
}

/// What became of an assertion.
struct Checked<'a> {
    assertion: &'a Assertion,
    /// One for each workload.
    answers: Vec<(Workload, Answer)>,
    files: &'a PolicyFiles,
}

/// Runs the command.
///
/// # Errors
/// When assertions or policies cannot be read.
pub(crate) fn run(args: &VerifyArgs) -> Outcome {
    let documents = assertions(&args.assertions)?;
    let mut read = Vec::new();
    let mut sources = Sources::default();
    for (folder, document) in &documents {
        let mut files = PolicyFiles::read(&args.policies, &document.mesh, Empty::Refused)?;
        let root = document.mesh.root_namespace.as_ref();
        let more = sources.policy_set(folder, &document.policies, root).map_err(|problems| {
            problems.iter().for_each(|problem| output::note(&analyze::painted(problem)));
            Failure::new("the policies of the assertions cannot be read").status(EXIT_NOT_RUN)
        })?;
        files.add(more);
        read.push((document, files));
    }
    let mut checked = Vec::new();
    for (document, files) in &read {
        for assertion in &document.assertions {
            let answers = workloads(&assertion.workloads, files)?.into_iter().map(|workload| {
                let question = Question {
                    verdict: assertion.verdict,
                    protocol: assertion.protocol,
                    requests: &assertion.requests,
                    except: &assertion.except,
                };
                let answer = symbolic::verify(&files.settings, &files.policies, &workload, question);
                (workload, answer)
            });
            checked.push(Checked { assertion, answers: answers.collect(), files });
        }
    }
    match args.output {
        Form::Human => people(&checked),
        Form::Json => output::value(&machine(&checked), output::Format::Json),
    }
    Ok(ExitCode::from(status(&checked)))
}

fn status(checked: &[Checked<'_>]) -> u8 {
    let mut answers = checked.iter().flat_map(|checked| &checked.answers);
    if answers.clone().any(|(_, answer)| matches!(answer, Answer::Broken(_))) {
        return EXIT_FAILURE;
    }
    match answers.any(|(_, answer)| matches!(answer, Answer::Undecided(_))) {
        true => EXIT_NOT_RUN,
        false => 0,
    }
}

/// Reads files of assertions, each with the folder that it stands in.
fn assertions(paths: &[PathBuf]) -> Result<Vec<(PathBuf, PolicyAssertion)>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        for file in input::read(std::slice::from_ref(path)).map_err(|failure| failure.status(EXIT_NOT_RUN))? {
            let read = policy_assertion::parse(&file.name, &file.text);
            read.problems.iter().for_each(|problem| output::note(&analyze::painted(problem)));
            if read.is_broken() {
                let errors =
                    read.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
                let count = output::count(errors, "mistake", "mistakes");
                return Err(Failure::new(format!("{count} in {}", file.name)).status(EXIT_NOT_RUN));
            }
            let folder = Path::new(&file.name).parent().map(Path::to_owned).unwrap_or_default();
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            documents.extend(read.documents.into_iter().map(|document| (folder.clone(), document)));
        }
    }
    if documents.is_empty() {
        return Err(Failure::new("there is no PolicyAssertion in the files")
            .hint("An assertion states apiVersion: mini-mesh.io/v1alpha1 and kind: PolicyAssertion.")
            .status(EXIT_NOT_RUN));
    }
    Ok(documents)
}

/// The workloads that an assertion is about. Where the files speak of none, those that policies tell apart.
fn workloads(scope: &WorkloadScope, files: &PolicyFiles) -> Result<Vec<Workload>, Failure> {
    let sets = [(&files.settings, &files.policies)];
    let undecided = |error: symbolic::Undecided| Failure::new(error.to_string()).status(EXIT_NOT_RUN);
    match scope {
        WorkloadScope::Stated(stated) => Ok(stated.iter().map(stated_workload).collect()),
        WorkloadScope::Selected { namespace, labels } => {
            let is_meant = |workload: &&Workload| {
                let has = |(key, value): (&String, &String)| workload.labels.get(key) == Some(value);
                workload.namespace == *namespace && labels.iter().all(has)
            };
            let found: Vec<Workload> = files.workloads.iter().filter(is_meant).cloned().collect();
            match found.is_empty() {
                true => symbolic::classes(&sets, namespace, labels).map_err(undecided),
                false => Ok(found),
            }
        }
        WorkloadScope::All if !files.workloads.is_empty() => Ok(files.workloads.clone()),
        WorkloadScope::All => {
            let mut all = Vec::new();
            for namespace in symbolic::namespaces(&sets) {
                let labels = Default::default();
                all.extend(symbolic::classes(&sets, &namespace, &labels).map_err(undecided)?);
            }
            if all.is_empty() {
                return Err(Failure::new("there is neither a policy nor a workload to reason about")
                    .hint("Name the files of the policies, or state the workloads in the assertion.")
                    .status(EXIT_NOT_RUN));
            }
            Ok(all)
        }
    }
}

fn stated_workload(stated: &StatedWorkload) -> Workload {
    let workload = &stated.workload;
    let labels: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let told = match labels.is_empty() {
        true => format!("a workload of namespace {}", workload.namespace),
        false => format!("a workload {} of namespace {}", labels.join(","), workload.namespace),
    };
    Workload {
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
        service_account: workload.service_account.clone(),
        only: stated.ports.clone(),
        declared: stated.declared.clone(),
        told,
    }
}

fn people(checked: &[Checked<'_>]) {
    let (mut held, mut broken, mut undecided) = (0, 0, 0);
    for one in checked {
        let place = &one.assertion.origin;
        let name = plain(&one.assertion.name);
        let count = output::count(one.answers.len(), "workload", "workloads");
        let examples = one.answers.iter().filter_map(|(workload, answer)| match answer {
            Answer::Broken(counter) => Some((workload, counter)),
            Answer::Holds | Answer::Undecided(_) => None,
        });
        let reasons = one.answers.iter().filter_map(|(workload, answer)| match answer {
            Answer::Undecided(why) => Some((workload, why)),
            Answer::Holds | Answer::Broken(_) => None,
        });
        let (examples, reasons): (Vec<_>, Vec<_>) = (examples.collect(), reasons.collect());
        if let Some((workload, counter)) = examples.first() {
            broken += 1;
            let others = examples.len() - 1;
            let others = match others {
                0 => String::new(),
                others => format!(" and {}", output::count(others, "other", "others")),
            };
            output::line(&format!("{} {place} {name}: {}{others}", output::bad("BROKEN"), workload.told));
            counter_example(one, counter);
        } else if let Some((workload, why)) = reasons.first() {
            undecided += 1;
            output::line(&format!("{} {place} {name}: {}", output::doubtful("UNDECIDED"), workload.told));
            output::line(&format!("    {why}"));
        } else {
            held += 1;
            output::line(&format!("{} {place} {name} ({count})", output::good("HOLDS")));
        }
    }
    let mut parts = vec![format!("{held} of {} assertions hold", checked.len())];
    parts.extend((broken > 0).then(|| format!("{broken} broken")));
    parts.extend((undecided > 0).then(|| format!("{undecided} undecided")));
    output::line(&parts.join(", "));
}

fn counter_example(checked: &Checked<'_>, counter: &CounterExample) {
    let asserted = match checked.assertion.verdict {
        Verdict::Allow => "asserted to be allowed",
        Verdict::Deny => "asserted to be denied",
    };
    let settled = &counter.settled;
    let fate = match settled.fate {
        Fate::Allowed => "is allowed",
        Fate::Denied => "is denied",
        Fate::Asked => "is left to an external authorizer",
    };
    output::line(&format!("    {asserted}, {fate}: {}", plain(&settled.reason)));
    if let Some(place) = checked.files.place(settled) {
        output::line(&format!("    decided at {place}"));
    }
    if !counter.example.class.is_empty() {
        output::line(&format!("    such as: {}", plain(&counter.example.class.join("; "))));
    }
    let request = &counter.example.request;
    output::line(&format!("    request: {}", plain(&example::of_policy_test(request).to_string())));
    output::line(&format!("    {}", plain(&example::command(request))));
}

fn machine(checked: &[Checked<'_>]) -> Value {
    let assertions: Vec<Value> = checked
        .iter()
        .map(|one| {
            let answers: Vec<Value> =
                one.answers.iter().map(|(workload, answer)| told(one.files, workload, answer)).collect();
            json!({
                "name": one.assertion.name,
                "origin": one.assertion.origin.to_string(),
                "verdict": one.assertion.verdict,
                "holds": one.answers.iter().all(|(_, answer)| *answer == Answer::Holds),
                "workloads": answers,
            })
        })
        .collect();
    let holding = assertions.iter().filter(|assertion| assertion["holds"] == true).count();
    json!({"assertions": assertions, "holding": holding, "total": checked.len()})
}

fn told(files: &PolicyFiles, workload: &Workload, answer: &Answer) -> Value {
    let mut value = json!({
        "workload": workload.told,
        "namespace": workload.namespace,
        "labels": workload.labels,
    });
    let (word, field) = match answer {
        Answer::Holds => ("holds", None),
        Answer::Broken(counter) => {
            let request = &counter.example.request;
            let example = json!({
                "request": example::of_policy_test(request),
                "command": example::command(request),
                "class": counter.example.class,
                "settled": settled(files, &counter.settled),
            });
            ("broken", Some(("counterExample", example)))
        }
        Answer::Undecided(why) => ("undecided", Some(("why", json!(why.to_string())))),
    };
    value["answer"] = json!(word);
    if let Some((name, field)) = field {
        value[name] = field;
    }
    value
}

/// How something was decided, for programs.
pub(super) fn settled(files: &PolicyFiles, settled: &symbolic::Settled) -> Value {
    json!({
        "fate": settled.fate,
        "reason": settled.reason,
        "policy": settled.policy.as_ref().map(ToString::to_string),
        "rule": settled.rule,
        "place": files.place(settled),
    })
}
