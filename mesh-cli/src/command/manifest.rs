//! `meshctl manifest`: what an installation is made of, as text.

use std::process::ExitCode;

use super::{EXIT_FAILURE, Outcome, block_on, install, verify_install};
use crate::args::GlobalArgs;
use crate::install::chart;
use crate::install::installed;
use crate::install::plan::Plan;
use crate::install::values::{self, ValueArgs};
use crate::output::{self, Format};

/// `meshctl manifest …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ManifestCommand {
    /// Print what `install` would apply, as Helm prints the chart
    Generate(GenerateArgs),
    /// Say where the cluster differs from what `install` would apply
    Diff(DiffArgs),
    /// List the profiles, or print one with the values of the chart
    #[command(visible_alias = "profile")]
    Profiles(ProfilesArgs),
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct GenerateArgs {
    /// Values.
    #[command(flatten)]
    values: ValueArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: install::Text,
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct DiffArgs {
    /// Values.
    #[command(flatten)]
    values: ValueArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ProfilesArgs {
    /// Profile to print.
    name: Option<String>,
    /// Form of the list.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When values or names are not known.
pub(crate) fn run(global: &GlobalArgs, command: &ManifestCommand) -> Outcome {
    match command {
        ManifestCommand::Generate(args) => generate(global, args),
        ManifestCommand::Diff(args) => diff(global, args),
        ManifestCommand::Profiles(args) => profiles(args),
    }
}

fn generate(global: &GlobalArgs, args: &GenerateArgs) -> Outcome {
    let plan = Plan::new(values::stated(&args.values, global.revision.as_deref())?)?;
    install::text(&plan, args.output);
    Ok(ExitCode::SUCCESS)
}

/// Status 1 when there are differences, as diff and kubectl have it.
fn diff(global: &GlobalArgs, args: &DiffArgs) -> Outcome {
    let stated = values::stated(&args.values, global.revision.as_deref())?;
    Plan::new(stated.clone())?;
    let findings = block_on(async {
        let cluster = install::connect(global).await?;
        let tags = installed::tags(&cluster).await?;
        let plan = Plan::new(installed::with_tags(stated, &tags))?;
        Ok(verify_install::findings(&cluster, &plan).await?)
    })?;
    let findings: Vec<_> = findings.into_iter().filter(|finding| !finding.is_well()).collect();
    let status = if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) };
    if args.output != Format::Table {
        output::value(&findings, args.output);
        return Ok(status);
    }
    for finding in &findings {
        if !finding.is_there {
            output::line(&format!("+ {}", finding.object));
        }
        for difference in &finding.differences {
            output::line(&format!("~ {}: {difference}", finding.object));
        }
    }
    Ok(status)
}

fn profiles(args: &ProfilesArgs) -> Outcome {
    if let Some(name) = &args.name {
        // Also what is not known is refused by the reading of values.
        let profile = ValueArgs { profile: Some(name.clone()), ..ValueArgs::default() };
        values::stated(&profile, None)?;
        let text = chart::profiles().iter().find(|(known, _)| known == name).map(|(_, text)| *text);
        output::line(&format!(
            "{}\n---\n# What the chart says where the profile says nothing:\n{}",
            text.unwrap_or_default().trim_end(),
            chart::values_text().trim_end()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let about = |text: &str| text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
    let rows: Vec<Vec<String>> =
        chart::profiles().iter().map(|(name, text)| vec![(*name).to_owned(), about(text)]).collect();
    if args.output == Format::Table {
        output::table(&["PROFILE", "WHAT IT IS"], &rows);
    } else {
        let all: Vec<serde_json::Value> =
            rows.iter().map(|row| serde_json::json!({"name": row[0], "about": row[1]})).collect();
        output::value(&all, args.output);
    }
    Ok(ExitCode::SUCCESS)
}
