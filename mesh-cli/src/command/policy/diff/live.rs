//! `meshctl policy diff --live`: what policies that are tried on live traffic would have decided otherwise, as
//! the proxies counted it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use jiff::Timestamp;
use mesh_api::admin::{PolicyDifference, PolicyDifferences, TriedObject};

use crate::args::GlobalArgs;
use crate::command::mesh::Mesh;
use crate::command::policy::files::EXIT_NOT_RUN;
use crate::command::policy::verify::Form;
use crate::command::{EXIT_FAILURE, Failure, Outcome, block_on, target};
use crate::output;

/// Runs the command.
///
/// # Errors
/// When there is no mesh, or a proxy does not answer: what is not known is not "no difference".
pub(super) fn run(global: &GlobalArgs, form: Form) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let workloads = block_on(target::with_proxies(&mesh, global.namespace.as_deref()))?;
    let answers = block_on(async {
        let mut answers = Vec::new();
        for id in &workloads {
            answers.push((id, mesh.proxy::<PolicyDifferences>(id, "/policy/differences").await));
        }
        Ok(answers)
    })?;
    let mut found = BTreeMap::new();
    let mut silent = Vec::new();
    for (id, answer) in answers {
        match answer {
            Ok(differences) if differences.tried.is_empty() => {}
            Ok(differences) => drop(found.insert(id.clone(), differences)),
            Err(error) => silent.push(format!("{id} ({})", output::chain(&error))),
        }
    }
    match form {
        Form::Human => people(&found),
        Form::Json => output::value(&found, output::Format::Json),
    }
    if !silent.is_empty() {
        let message = format!("proxies that did not answer: {}", silent.join(", "));
        return Err(Failure::new(message)
            .hint("What they counted is missing above; `meshctl proxy-status` says how they are.")
            .status(EXIT_NOT_RUN));
    }
    let differs = found.values().any(|found| found.differing > 0);
    Ok(ExitCode::from(if differs { EXIT_FAILURE } else { 0 }))
}

fn people(found: &BTreeMap<String, PolicyDifferences>) {
    if found.is_empty() {
        output::line("Nothing is tried on live traffic.");
        output::note(
            "Annotate a policy with mini-mesh.io/dry-run: \"true\" (or \"delete\", to try its deletion), and \
             apply it.",
        );
        return;
    }
    let mut tried: Vec<&TriedObject> = found.values().flat_map(|found| &found.tried).collect();
    tried.sort();
    tried.dedup();
    for TriedObject { object, change } in tried {
        output::line(&format!("tried: {object}, {}", change.as_str()));
    }
    output::line("");
    let rows: Vec<Vec<String>> = found.iter().flat_map(|(id, found)| rows(id, found)).collect();
    if !rows.is_empty() {
        output::table(&["WORKLOAD", "CALLER", "REQUEST", "COUNT", "NOW", "THEN", "LAST (UTC)"], &rows);
        output::line("");
    }
    for (id, found) in found {
        let judged = output::count(count(found.judged), "request", "requests");
        let differing = match found.differing {
            0 => "no difference".to_owned(),
            number => format!("{number} would end otherwise"),
        };
        output::line(&format!("{id}: {judged} judged since {}, {differing}", told(&found.since)));
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn rows(id: &str, found: &PolicyDifferences) -> Vec<Vec<String>> {
    let row = |difference: &PolicyDifference| {
        let PolicyDifference { caller, method, path, port, count, now, then, last, .. } = difference;
        let request = match method.as_str() {
            "" => format!("connection to port {port}"),
            method => format!("{method} {path} on port {port}"),
        };
        let caller = caller.strip_prefix("spiffe://").unwrap_or(caller);
        vec![
            id.to_owned(),
            caller.to_owned(),
            request,
            count.to_string(),
            now.to_string(),
            then.to_string(),
            told(last),
        ]
    };
    let mut rows: Vec<Vec<String>> = found.differences.iter().map(row).collect();
    let listed: u64 = found.differences.iter().map(|difference| difference.count).sum();
    let others = found.differing.saturating_sub(listed);
    if others > 0 {
        let mut other = vec![id.to_owned(), "other".to_owned(), "other".to_owned(), others.to_string()];
        other.resize(7, String::new());
        rows.push(other);
    }
    rows
}

/// A time in the words of people; as it came when it is none.
fn told(time: &str) -> String {
    let parsed: Result<Timestamp, _> = time.parse();
    parsed.map_or_else(|_| time.to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
