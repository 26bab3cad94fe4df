//! `meshctl ps`: the workloads of the mesh and what their processes are doing.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use crate::args::GlobalArgs;
use crate::command::mesh::LocalMesh;
use crate::command::{Outcome, block_on};
use crate::local::client::{MeshStatus, ProcessStatus, WorkloadStatus};
use crate::local::enter::EnterError;
use crate::output::{self, Format};

/// Most letters of a message in the table.
const MESSAGE_LETTERS_MAX: usize = 60;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct PsArgs {
    /// Also list the control plane and the supervisor
    #[arg(short, long)]
    all: bool,
    /// Form of the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One workload, as programs read it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    name: String,
    namespace: String,
    service_account: String,
    address: String,
    address_v6: String,
    status: String,
    message: String,
    restarts: u32,
    /// Number of the process on this machine.
    pid: Option<i32>,
    proxy_status: Option<String>,
    proxy_message: Option<String>,
    proxy_restarts: Option<u32>,
    proxy_pid: Option<i32>,
    command: String,
}

/// Runs the command.
///
/// # Errors
/// When no mesh is up, or it does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &PsArgs) -> Outcome {
    let mesh = LocalMesh::only(
        global,
        "On a cluster, `kubectl get pods -A` lists pods, and `meshctl proxy-status` their proxies.",
    )?;
    if !mesh.state.supervisor.is_alive() {
        return Err(EnterError::Ended.into());
    }
    let status = block_on(async { Ok(mesh.processes().await?) })?;
    // The supervisor counts processes from 1; people want the numbers that `kill` takes.
    let numbers = mesh.state.supervisor.namespace_members();
    let wanted = |workload: &&WorkloadStatus| {
        global.namespace.as_ref().is_none_or(|namespace| workload.namespace == *namespace)
    };
    let mut rows: Vec<Row> = status.workloads.iter().filter(wanted).map(|w| row(w, &numbers)).collect();
    if args.all {
        rows.extend(own(&status, &numbers, mesh.state.supervisor.pid));
    }
    match args.output {
        Format::Json | Format::Yaml => output::value(&rows, args.output),
        Format::Table => print(&rows, &status),
    }
    Ok(ExitCode::SUCCESS)
}

fn outer(process: &ProcessStatus, numbers: &BTreeMap<i32, i32>) -> Option<i32> {
    process.pid.and_then(|pid| numbers.get(&pid).copied())
}

fn row(workload: &WorkloadStatus, numbers: &BTreeMap<i32, i32>) -> Row {
    let proxy = workload.proxy.as_ref();
    Row {
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        service_account: workload.service_account.clone(),
        address: workload.address.clone(),
        address_v6: workload.address_v6.clone(),
        status: workload.app.phase.as_str().to_owned(),
        message: workload.app.message.clone(),
        restarts: workload.app.restarts,
        pid: outer(&workload.app, numbers),
        proxy_status: proxy.map(|proxy| proxy.phase.as_str().to_owned()),
        proxy_message: proxy.map(|proxy| proxy.message.clone()),
        proxy_restarts: proxy.map(|proxy| proxy.restarts),
        proxy_pid: proxy.and_then(|proxy| outer(proxy, numbers)),
        command: workload.command.clone(),
    }
}

/// Control plane and supervisor, which are no workloads and have no namespace of the mesh.
fn own(status: &MeshStatus, numbers: &BTreeMap<i32, i32>, supervisor: i32) -> [Row; 2] {
    let blank = |name: &str, process: &ProcessStatus, pid| Row {
        name: name.to_owned(),
        namespace: String::new(),
        service_account: String::new(),
        address: String::new(),
        address_v6: String::new(),
        status: process.phase.as_str().to_owned(),
        message: process.message.clone(),
        restarts: process.restarts,
        pid,
        proxy_status: None,
        proxy_message: None,
        proxy_restarts: None,
        proxy_pid: None,
        command: String::new(),
    };
    let running = ProcessStatus { phase: crate::local::client::Phase::Running, ..ProcessStatus::default() };
    [
        blank("mesh-control", &status.control, outer(&status.control, numbers)),
        blank("supervisor", &running, Some(supervisor)),
    ]
}

fn print(rows: &[Row], status: &MeshStatus) {
    let header =
        ["NAME", "NAMESPACE", "ADDRESS", "STATUS", "PROXY", "RESTARTS", "PID", "PROXY PID", "COMMAND"];
    let dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
    let said = |state: &str, message: &str| {
        if message.is_empty() { state.to_owned() } else { format!("{state} ({})", shortened(message)) }
    };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let proxy = row.proxy_status.as_ref();
            vec![
                row.name.clone(),
                dash(Some(row.namespace.clone())),
                dash(Some(row.address.clone())),
                said(&row.status, &row.message),
                dash(proxy.map(|proxy| said(proxy, row.proxy_message.as_deref().unwrap_or_default()))),
                format!("{}", row.restarts + row.proxy_restarts.unwrap_or(0)),
                dash(row.pid.map(|pid| pid.to_string())),
                dash(row.proxy_pid.map(|pid| pid.to_string())),
                dash(Some(row.command.clone())),
            ]
        })
        .collect();
    output::table(&header, &cells);
    if status.control.phase != crate::local::client::Phase::Running {
        let control = said(status.control.phase.as_str(), &status.control.message);
        output::note(&format!("control plane: {control}"));
    }
}

/// What fits into a cell; `-o json` has all of it.
fn shortened(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    match line.char_indices().nth(MESSAGE_LETTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::client::Phase;

    #[test]
    fn numbers_are_those_of_the_machine_and_absent_when_not_known() {
        let process = |pid| ProcessStatus { phase: Phase::Running, pid, ..ProcessStatus::default() };
        let workload = WorkloadStatus {
            name: "a".to_owned(),
            namespace: "b".to_owned(),
            service_account: "c".to_owned(),
            address: "10.77.0.10".to_owned(),
            address_v6: String::new(),
            command: "x".to_owned(),
            app: process(Some(7)),
            proxy: Some(process(Some(8))),
        };
        let row = row(&workload, &BTreeMap::from([(7, 4711)]));
        assert_eq!((row.pid, row.proxy_pid), (Some(4711), None));
        let json = serde_json::to_value(&row).expect("a row");
        for field in ["name", "namespace", "address", "pid", "proxy_pid", "status", "proxy_status"] {
            assert!(json.get(field).is_some(), "{field}");
        }
    }
}
