//! `meshctl upgrade`: an installation in place, with the values that it was made with.

use std::process::ExitCode;

use mesh_kube::name;

use super::install::{self, MannerArgs, Report, ReportArgs, WhenAlone};
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::install::installed;
use crate::install::plan::Plan;
use crate::install::values::{self, ValueArgs};
use crate::output;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct UpgradeArgs {
    /// Values, over those of the installation.
    #[command(flatten)]
    values: ValueArgs,
    /// How to apply.
    #[command(flatten)]
    manner: MannerArgs,
    /// What to say.
    #[command(flatten)]
    report: ReportArgs,
}

/// Runs the command.
///
/// # Errors
/// When nothing is installed, versions are too far apart, or as `install`.
pub(crate) fn run(global: &GlobalArgs, args: &UpgradeArgs) -> Outcome {
    block_on(async {
        let cluster = install::connect(global).await?;
        let revision = global.revision.as_deref().unwrap_or(name::DEFAULT_REVISION);
        let record = installed::record(&cluster, revision)
            .await
            .map_err(|error| Failure::from(error).hint("`meshctl install` installs it."))?;
        let own_revision = (revision != name::DEFAULT_REVISION).then_some(revision);
        let stated = values::stated_over(record.stated, &args.values, own_revision)?;
        let stated = installed::with_tags(stated, &installed::tags(&cluster).await?);
        let plan = Plan::new(stated)?;
        if let Some(reason) = skew(&record.version, &plan.version)
            && !args.manner.force
        {
            return Err(Failure::new(reason)
                .hint("Go by way of the versions between, or say --force if you know that it works."));
        }
        let question = format!("Upgrade revision {revision} from {} to {}?", record.version, plan.version);
        if !args.manner.dry_run && !args.manner.yes && !install::confirmed(&question, WhenAlone::GoOn)? {
            return Err(Failure::new("nothing was changed"));
        }
        let done = install::apply(&cluster, &plan, &args.manner, args.report.output).await?;
        if !args.manner.dry_run && !done.is_unchanged() {
            output::note(
                "Proxies keep their version until their pods are restarted; `meshctl version` counts them.",
            );
        }
        Report::of(&plan, &done, &args.manner).print(args.report.output);
        Ok(ExitCode::SUCCESS)
    })
}

/// Why one version does not follow the other: what lies between was tested by nobody (pure).
fn skew(from: &str, to: &str) -> Option<String> {
    let parts = |version: &str| {
        let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let (Some((from_major, from_minor)), Some((to_major, to_minor))) = (parts(from), parts(to)) else {
        return Some(format!("version {from:?} or {to:?} is not understood"));
    };
    let is_near = from_major == to_major && from_minor.abs_diff(to_minor) <= 1;
    (!is_near).then(|| format!("{from} is installed and this is {to}: more than one minor version apart"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_may_lie_between_and_no_more() {
        for (from, to) in
            [("0.1.0", "0.1.5"), ("0.1.9", "0.2.0"), ("1.4.0", "1.3.0"), ("0.1.0-rc.1", "0.1.0")]
        {
            assert_eq!(skew(from, to), None, "{from} {to}");
        }
        for (from, to) in [("0.1.0", "0.3.0"), ("0.9.0", "1.0.0"), ("x", "0.1.0"), ("1", "1.0.0")] {
            assert!(skew(from, to).is_some(), "{from} {to}");
        }
    }
}
