//! `meshctl version`: this program, the control plane and the proxies.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::mesh::{Mesh, merged};
use super::{Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct VersionArgs {
    /// Only the version of this program.
    #[arg(long, visible_alias = "client")]
    short: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// What is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    control_plane_version: Option<String>,
    /// Replicas of the control plane by version.
    #[serde(rename = "controlPlaneReplicas", skip_serializing_if = "BTreeMap::is_empty")]
    replicas: BTreeMap<String, usize>,
    /// Proxies by version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data_plane_version: BTreeMap<String, usize>,
}

/// Runs the command. A mesh that is not up, or does not answer, is no failure here.
///
/// # Errors
/// Never for want of a mesh.
pub(crate) fn run(global: &GlobalArgs, args: &VersionArgs) -> Outcome {
    let mut versions = Versions {
        client_version: VERSION.to_owned(),
        control_plane_version: None,
        replicas: BTreeMap::new(),
        data_plane_version: BTreeMap::new(),
    };
    if !args.short
        && let Ok(mesh) = Mesh::locate(global)
    {
        let statuses = block_on(async { Ok(mesh.control_statuses().await.unwrap_or_default()) })?;
        for status in &statuses {
            *versions.replicas.entry(status.version.clone()).or_default() += 1;
        }
        if !statuses.is_empty() {
            let all: Vec<&str> = versions.replicas.keys().map(String::as_str).collect();
            versions.control_plane_version = Some(all.join(", "));
        }
        if let Some(status) = merged(statuses) {
            for proxy in status.proxies.iter().filter(|proxy| proxy.connected) {
                *versions.data_plane_version.entry(proxy.version.clone()).or_default() += 1;
            }
        }
    }
    if args.output != Format::Table {
        output::value(&versions, args.output);
        return Ok(ExitCode::SUCCESS);
    }
    if args.short {
        output::line(VERSION);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("client version: {VERSION}"));
    if let Some(version) = &versions.control_plane_version {
        output::line(&format!("control plane version: {version}"));
    }
    if !versions.data_plane_version.is_empty() {
        let all = versions.data_plane_version.iter();
        let all: Vec<String> = all
            .map(|(version, number)| format!("{version} ({})", output::count(*number, "proxy", "proxies")))
            .collect();
        output::line(&format!("data plane version: {}", all.join(", ")));
    }
    Ok(ExitCode::SUCCESS)
}
