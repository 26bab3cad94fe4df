//! `meshctl verify-install`: whether everything of an installation is there and as it was rendered.
//!
//! The API server is asked what each object would be after another apply (a dry run): where that differs from
//! what it is, somebody has changed it. Its own defaults and forms of numbers are therefore no difference.

use std::process::ExitCode;

use mesh_kube::name;
use serde::Serialize;

use super::install;
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::cluster::{Cluster, ClusterError};
use crate::install::apply;
use crate::install::compare::{Difference, differences};
use crate::install::installed;
use crate::install::object::{Step, Wanted, is_ours};
use crate::install::plan::Plan;
use crate::install::server::{self, Conflicts, Mode};
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// What was found about an object.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// Which.
    pub(super) object: String,
    /// Whether it is there.
    pub(super) is_there: bool,
    /// Whether it is somebody else's and used as it is.
    pub(super) is_foreign: bool,
    /// Where it is otherwise.
    pub(super) differences: Vec<Difference>,
}

impl Finding {
    /// Whether all is well.
    pub(super) fn is_well(&self) -> bool {
        self.is_there && self.differences.is_empty()
    }
}

/// Runs the command: status 0 when everything is as it was rendered, 1 when something is not.
///
/// # Errors
/// When nothing is installed, or the API server does not say.
pub(crate) fn run(global: &GlobalArgs, args: &VerifyArgs) -> Outcome {
    let (plan, findings) = block_on(async {
        let cluster = install::connect(global).await?;
        let revision = global.revision.as_deref().unwrap_or(name::DEFAULT_REVISION);
        let record = installed::record(&cluster, revision)
            .await
            .map_err(|error| Failure::from(error).hint("`meshctl install` installs it."))?;
        let plan = Plan::new(record.stated)?;
        if record.version != plan.version {
            output::note(&format!(
                "{} {} is installed and this is {}: what differs may come from that",
                output::doubtful("‼"),
                record.version,
                plan.version
            ));
        }
        let findings = findings(&cluster, &plan).await?;
        Ok((plan, findings))
    })?;
    if args.output == Format::Table {
        for finding in &findings {
            print(finding);
        }
    } else {
        output::value(&findings, args.output);
    }
    let wrong = findings.iter().filter(|finding| !finding.is_well()).count();
    if wrong > 0 {
        return Err(Failure::new(format!(
            "{} of revision {} not as installed",
            output::count(wrong, "object is", "objects are"),
            plan.revision()
        ))
        .hint("`meshctl upgrade` makes them so again."));
    }
    if args.output == Format::Table {
        let number = output::count(findings.len(), "object is", "objects are");
        output::line(&format!("{} {number} there and as installed", output::good("✔")));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(finding: &Finding) {
    let mark = if finding.is_well() { output::good("✔") } else { output::bad("✘") };
    let words = match (finding.is_there, finding.is_foreign) {
        (false, _) => " is missing",
        (true, true) => " is somebody else's, and used as it is",
        (true, false) => "",
    };
    output::line(&format!("{mark} {}{words}", finding.object));
    for difference in &finding.differences {
        output::line(&format!("    {difference}"));
    }
}

/// What there is to say of each object of a plan.
///
/// # Errors
/// When the API server does not say.
pub(super) async fn findings(cluster: &Cluster, plan: &Plan) -> Result<Vec<Finding>, ClusterError> {
    let mut findings = Vec::new();
    for wanted in apply::wanted(plan) {
        findings.push(finding(cluster, &wanted).await?);
    }
    Ok(findings)
}

async fn finding(cluster: &Cluster, wanted: &Wanted) -> Result<Finding, ClusterError> {
    let live = server::get(cluster, wanted.kind, wanted.namespace.as_deref(), &wanted.name).await?;
    let is_foreign =
        wanted.kind.step == Step::Definitions && live.as_ref().is_some_and(|live| !is_ours(live));
    let differences = match &live {
        Some(live) if !is_foreign => {
            let after = server::apply(cluster, wanted, (Mode::DryRun, Conflicts::Take)).await?;
            differences(live, &after)
        }
        Some(_) | None => Vec::new(),
    };
    Ok(Finding { object: wanted.to_string(), is_there: live.is_some(), is_foreign, differences })
}
