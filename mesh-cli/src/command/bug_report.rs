//! `meshctl bug-report`: one archive with what somebody else needs in order to help.
//!
//! Versions, what is installed, the objects of the mesh, states and logs of control plane and proxies. Secrets
//! are not read at all; of the pods' environment and arguments only those of our own containers stay, and what
//! looks like a token, key or password in any text is blacked out. Everything is bounded, and what could not be
//! had is listed with the reason in place of ending the report.

mod archive;
mod gather;
mod redact;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::install;
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct BugReportArgs {
    /// File to write; default: mini-mesh-report-TIME.tar.gz here.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only namespaces with these names; default: all with proxies. May be given several times.
    #[arg(long = "include", value_name = "NAMESPACE")]
    include: Vec<String>,
    /// Not the namespaces with these names. May be given several times.
    #[arg(long = "exclude", value_name = "NAMESPACE")]
    exclude: Vec<String>,
    /// Logs of this last time, as 90s, 10m or 2h.
    #[arg(long = "duration", visible_alias = "since", default_value = "1h", value_parser = install::duration, value_name = "TIME")]
    since: std::time::Duration,
    /// Proxies that are asked at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(0..=1000), value_name = "NUMBER")]
    proxies: u16,
}

/// Runs the command.
///
/// # Errors
/// When the cluster cannot be reached, or the file cannot be written.
pub(crate) fn run(global: &GlobalArgs, args: &BugReportArgs) -> Outcome {
    let started = Instant::now();
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let path =
        args.output.clone().unwrap_or_else(|| PathBuf::from(format!("mini-mesh-report-{time}.tar.gz")));
    // The file first: an hour's logs are not read for a folder that cannot be written to.
    let file = std::fs::File::create_new(&path)
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", path.display())))?;
    let wanted = gather::Wanted {
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        since: args.since,
        proxies: usize::from(args.proxies),
    };
    let gathered = block_on(async {
        let cluster = install::connect(global).await?;
        // Whether anybody answers at all is asked once, so that a report about nothing is none.
        cluster.list_global::<k8s_openapi::api::core::v1::Node>(&kube::api::ListParams::default()).await?;
        Ok(gather::gather(&cluster, &wanted).await)
    });
    let report = match gathered {
        Ok(report) => report,
        Err(failure) => {
            let _nothing_was_written = std::fs::remove_file(&path);
            return Err(failure);
        }
    };
    let bytes = archive::write(file, &format!("mini-mesh-report-{time}"), &report)
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", path.display())))?;
    output::line(&format!(
        "{} {}: {}, {} KiB, {:.1} s",
        output::good("✔"),
        path.display(),
        output::count(report.files.len(), "file", "files"),
        bytes / 1024,
        started.elapsed().as_secs_f64()
    ));
    if !report.missing.is_empty() {
        output::note(&format!(
            "{} {} could not be had; missing.txt in the report says why",
            output::doubtful("‼"),
            output::count(report.missing.len(), "part", "parts")
        ));
    }
    output::note(
        "Secrets are left out. Read the report before you hand it on: names and addresses are in it.",
    );
    Ok(ExitCode::SUCCESS)
}
