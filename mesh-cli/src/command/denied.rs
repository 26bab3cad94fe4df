//! `meshctl x denied`: whom a workload refused, what was asked for, and by which rule.

use std::process::ExitCode;

use jiff::Timestamp;
use mesh_api::admin::Denial;

use super::mesh::Mesh;
use super::target;
use super::{Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DeniedArgs {
    /// The workload that refused: NAME.NAMESPACE.
    workload: String,
    /// Only refusals of the last SECONDS.
    #[arg(long, value_name = "SECONDS")]
    since: Option<u32>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When there is no such workload or its proxy does not answer.
pub(crate) fn run(global: &GlobalArgs, args: &DeniedArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let id = target::resolve(&mesh, &args.workload, global.namespace.as_deref())?;
    let mut denials: Vec<Denial> = block_on(async { Ok(mesh.proxy(&id, "/denials").await?) })?;
    denials.sort_by_key(time);
    if let Some(seconds) = args.since {
        let now = Timestamp::now();
        denials.retain(|denial| {
            time(denial).is_none_or(|time| now.duration_since(time).as_secs() <= i64::from(seconds))
        });
    }
    match args.output {
        Format::Table if denials.is_empty() => output::note(&format!("{id} has refused nobody")),
        Format::Table => table(&denials),
        format => output::value(&denials, format),
    }
    Ok(ExitCode::SUCCESS)
}

fn time(denial: &Denial) -> Option<Timestamp> {
    denial.time.parse().ok()
}

fn table(denials: &[Denial]) {
    let row = |denial: &Denial| {
        let who = if denial.peer.is_empty() {
            format!("no identity ({})", denial.source)
        } else {
            denial.peer.clone()
        };
        let request = match denial.method.as_str() {
            "" => format!("TCP to port {}", denial.port),
            method => format!("{method} {}{}", denial.authority, denial.path),
        };
        let time =
            time(denial).map_or_else(|| denial.time.clone(), |time| time.strftime("%H:%M:%S").to_string());
        let Denial { id, policy, reason, .. } = denial;
        vec![time, denial.count.to_string(), who, request, policy.clone(), reason.clone(), id.clone()]
    };
    let rows: Vec<Vec<String>> = denials.iter().map(row).collect();
    output::table(&["LAST (UTC)", "COUNT", "WHO", "REQUEST", "RULE", "REASON", "DECISION"], &rows);
}
