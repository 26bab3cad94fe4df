//! `meshctl proxy-status`: whether each proxy has taken what the control plane wants it to have.
//!
//! Columns are istioctl's. A proxy that is behind, has refused something or has lost the control plane is
//! named below the table with the reason, since the columns have no room for one.

use std::collections::BTreeMap;
use std::process::ExitCode;

use mesh_api::admin::{ControlStatus, ProxyStatus, SyncStatus};

use super::mesh::{Mesh, is_newer, merged};
use super::target;
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

/// The state of a type that is as it should be.
const SYNCED: &str = "SYNCED";

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ProxyStatusArgs {
    /// Only this proxy, type by type: NAME.NAMESPACE, or deploy/NAME.NAMESPACE.
    workload: Option<String>,
    /// 1 shows the state of each resource type.
    #[arg(short, long, default_value_t = 0, value_name = "LEVEL")]
    verbosity: u8,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When there is no mesh or the control plane does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &ProxyStatusArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let statuses = block_on(async { Ok(mesh.control_statuses().await?) })?;
    let replicas = replicas(&statuses);
    let mut status = merged(statuses).ok_or_else(|| Failure::new("the control plane does not answer"))?;
    status.proxies.sort_by(|left, right| left.name.cmp(&right.name));
    if let Some(namespace) = &global.namespace
        && args.workload.is_none()
    {
        status
            .proxies
            .retain(|proxy| proxy.name.rsplit_once('.').is_some_and(|(_, other)| other == namespace));
    }
    if let Some(workload) = &args.workload {
        let id = target::resolve(&mesh, workload, global.namespace.as_deref())?;
        status.proxies.retain(|proxy| proxy.name == id);
        let proxy = status.proxies.first().ok_or_else(|| {
            Failure::new(format!("the control plane has never heard of the proxy of {id}"))
                .hint(format!("`meshctl logs --proxy {id}` says why it does not connect."))
        })?;
        match args.output {
            Format::Table => details(proxy),
            format => output::value(proxy, format),
        }
        return Ok(ExitCode::SUCCESS);
    }
    match args.output {
        Format::Table => table(mesh.name(), &status, &replicas, args.verbosity),
        format => output::value(&status.proxies, format),
    }
    Ok(ExitCode::SUCCESS)
}

/// The replica of the control plane that each proxy is connected to, or was last.
fn replicas(statuses: &[ControlStatus]) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, (&ProxyStatus, &str)> = BTreeMap::new();
    for status in statuses {
        for proxy in &status.proxies {
            match found.get(&proxy.name) {
                Some((known, _)) if !is_newer(proxy, known) => {}
                Some(_) | None => drop(found.insert(proxy.name.clone(), (proxy, &status.name))),
            }
        }
    }
    found.into_iter().map(|(name, (_, replica))| (name, replica.to_owned())).collect()
}

fn table(mesh: &str, status: &ControlStatus, replicas: &BTreeMap<String, String>, verbosity: u8) {
    if status.proxies.is_empty() {
        output::note("no proxy is connected");
        return;
    }
    let types = types_of(&status.proxies);
    let row = |proxy: &ProxyStatus| {
        let replica = replicas.get(&proxy.name).unwrap_or(&status.name);
        let ends = [replica.clone(), proxy.version.clone()];
        let mut row = vec![proxy.name.clone(), mesh.to_owned()];
        if verbosity == 0 {
            row.extend(ends);
            row.push(subscribed(proxy));
        } else {
            row.extend(
                types.iter().map(|kind| proxy.types.get(*kind).map_or_else(|| "IGNORED".to_owned(), state)),
            );
            row.extend(ends);
        }
        row
    };
    let rows: Vec<Vec<String>> = status.proxies.iter().map(row).collect();
    if verbosity == 0 {
        output::table(&["NAME", "CLUSTER", "ISTIOD", "VERSION", "SUBSCRIBED TYPES"], &rows);
    } else {
        let header: Vec<&str> = ["NAME", "CLUSTER"]
            .into_iter()
            .chain(types.iter().copied())
            .chain(["ISTIOD", "VERSION"])
            .collect();
        output::table(&header, &rows);
    }
    for text in status.proxies.iter().flat_map(remarks) {
        output::note(&text);
    }
}

fn types_of(proxies: &[ProxyStatus]) -> Vec<&str> {
    let mut types: Vec<&str> =
        proxies.iter().flat_map(|proxy| proxy.types.keys().map(String::as_str)).collect();
    types.sort_unstable();
    types.dedup();
    types
}

fn subscribed(proxy: &ProxyStatus) -> String {
    if !proxy.connected {
        return "0 (disconnected)".to_owned();
    }
    let types: Vec<&str> = proxy.types.keys().map(String::as_str).collect();
    if types.is_empty() { "0".to_owned() } else { format!("{} ({})", types.len(), types.join(",")) }
}

fn state(sync: &SyncStatus) -> String {
    match sync.age_seconds {
        Some(age) => format!("{} ({})", sync.state, output::duration(age)),
        None => sync.state.clone(),
    }
}

/// What is not as it should be with a proxy.
pub(super) fn remarks(proxy: &ProxyStatus) -> Vec<String> {
    let name = &proxy.name;
    let mut remarks: Vec<String> = proxy
        .types
        .iter()
        .filter(|(_, sync)| sync.state != SYNCED)
        .map(|(kind, sync)| match &sync.error {
            Some(error) => format!("{name}: {kind} is {}: {error}", sync.state),
            None => format!("{name}: {kind} is {}", sync.state),
        })
        .collect();
    if !proxy.connected {
        remarks.push(format!("{name}: not connected; it keeps serving with what it has"));
    }
    remarks
}

fn details(proxy: &ProxyStatus) {
    let address = proxy.address.map(|address| format!(" from {address}")).unwrap_or_default();
    let connection = match proxy.connected {
        true => format!("connected since {}{address}", proxy.connected_at),
        false => "not connected".to_owned(),
    };
    output::line(&format!("{}: {}, version {}, {connection}", proxy.name, proxy.identity, proxy.version));
    if let Some(skew) = proxy.clock_skew_ms {
        output::line(&format!("clock: {skew:+} ms against the control plane"));
    }
    let row = |(kind, sync): (&String, &SyncStatus)| {
        vec![
            kind.clone(),
            sync.state.clone(),
            sync.resources.to_string(),
            sync.age_seconds.map_or_else(|| "-".to_owned(), output::duration),
            sync.error.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<Vec<String>> = proxy.types.iter().map(row).collect();
    output::table(&["TYPE", "STATE", "RESOURCES", "ACKNOWLEDGED AGO", "ERROR"], &rows);
}
