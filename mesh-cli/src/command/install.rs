//! `meshctl install`: the control plane into a cluster.

use std::io::{BufRead as _, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mesh_kube::name;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::cluster::Cluster;
use crate::install::apply::{self, Done, InstallError, Manner, ObjectChange};
use crate::install::installed;
use crate::install::plan::{self, Plan};
use crate::install::server::{Conflicts, Mode};
use crate::install::values::{self, ValueArgs};
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// Values.
    #[command(flatten)]
    pub(super) values: ValueArgs,
    /// Print the definitions of resources and nothing else, for `kubectl apply -f -`.
    #[arg(long, conflicts_with_all = ["dry_run", "output"])]
    crds: bool,
    /// Print everything and apply nothing, for `kubectl apply -f -`.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Text>,
    /// Form of what is said of an installation: a document tells of each object what became of it.
    #[arg(long, value_enum, default_value_t, value_name = "FORM", conflicts_with = "output")]
    report: Format,
    /// How to apply.
    #[command(flatten)]
    pub(super) manner: MannerArgs,
}

/// Form of what is said of a change. Install has it as `--report`, since its `-o` applies nothing.
#[derive(Debug, clap::Args)]
pub(super) struct ReportArgs {
    /// Form of the output: a document tells of each object what became of it.
    #[arg(short, long, visible_alias = "report", value_enum, default_value_t, value_name = "FORM")]
    pub(super) output: Format,
}

/// What became of the objects of a revision, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The version that is applied.
    version: String,
    /// The revision.
    revision: String,
    /// Whether nothing was changed, and it is only what would be.
    dry_run: bool,
    /// Objects.
    objects: Vec<ObjectChange>,
}

impl Report {
    /// Of an installation that is done.
    pub(super) fn of(plan: &Plan, done: &Done, args: &MannerArgs) -> Self {
        Self {
            version: plan.version.clone(),
            revision: plan.revision().to_owned(),
            dry_run: args.dry_run,
            objects: done.objects(),
        }
    }

    /// Prints it, unless people were told already.
    pub(super) fn print(&self, form: Format) {
        if form != Format::Table {
            output::value(self, form);
        }
    }
}

/// Form of what is printed instead of being applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Text {
    /// One document after the other.
    #[default]
    Yaml,
    /// One list of all.
    Json,
}

/// How to apply.
#[derive(Debug, clap::Args)]
pub(crate) struct MannerArgs {
    /// Say what would change, as the API server sees it, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Take over fields that somebody else applied, and skip the check of versions.
    #[arg(long)]
    pub(super) force: bool,
    /// Ask nothing.
    #[arg(short = 'y', long = "skip-confirmation", visible_alias = "yes")]
    pub(super) yes: bool,
    /// Wait until the control plane is ready and its webhooks are trusted.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(super) wait: bool,
    /// How long to wait for each of them, as 90s or 5m.
    #[arg(long, visible_alias = "readiness-timeout", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub(super) timeout: Duration,
}

impl MannerArgs {
    /// As the installation wants it.
    pub(super) fn manner(&self, form: Format) -> Manner {
        Manner {
            conflicts: if self.force { Conflicts::Take } else { Conflicts::Refuse },
            mode: if self.dry_run { Mode::DryRun } else { Mode::Real },
            timeout: if self.wait { self.timeout } else { Duration::ZERO },
            form,
        }
    }
}

/// A time of at least a second and at most a day.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as 90s, 5m or 1h".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let seconds = match &text[digits..] {
        "" | "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    match seconds {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(wrong()),
    }
}

/// Runs the command.
///
/// # Errors
/// When values are not known, the API server refuses something, or the control plane does not come up.
pub(crate) fn run(global: &GlobalArgs, args: &InstallArgs) -> Outcome {
    if args.crds {
        output::line(plan::definitions().trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let stated = values::stated(&args.values, global.revision.as_deref())?;
    if let Some(form) = args.output {
        text(&Plan::new(stated)?, form);
        return Ok(ExitCode::SUCCESS);
    }
    // What is wrong with the values is said before a cluster is asked for.
    Plan::new(stated.clone())?;
    block_on(async {
        let cluster = connect(global).await?;
        let tags = installed::tags(&cluster).await?;
        let stated = installed::with_tags(stated, &tags);
        let plan = Plan::new(stated)?;
        no_tag_is_a_revision(&cluster, &plan).await?;
        for tag in plan.tags() {
            if let Some(other) = tags.get(tag).filter(|other| *other != plan.revision()) {
                output::note(&format!("tag {tag} moves from revision {other} to {}", plan.revision()));
            }
        }
        let question = format!(
            "Install Mini-Mesh {} (revision {}) into the cluster at {}?",
            plan.version,
            plan.revision(),
            cluster.server
        );
        if !args.manner.dry_run && !args.manner.yes && !confirmed(&question, WhenAlone::GoOn)? {
            return Err(Failure::new("nothing was changed"));
        }
        let done = apply(&cluster, &plan, &args.manner, args.report).await?;
        take_tags_from_others(&cluster, &plan, &args.manner).await?;
        Report::of(&plan, &done, &args.manner).print(args.report);
        Ok(ExitCode::SUCCESS)
    })
}

/// Prints everything of a plan and applies nothing. Both forms are what `kubectl apply -f -` takes.
pub(super) fn text(plan: &Plan, form: Text) {
    match form {
        Text::Yaml => output::line(plan.text().trim_end()),
        Text::Json => {
            let items = plan.objects();
            output::value(&json!({"apiVersion": "v1", "kind": "List", "items": items}), Format::Json);
        }
    }
}

/// The cluster. The control plane lives in one namespace, whatever the flags say.
///
/// # Errors
/// When there is none, or another namespace is asked for.
pub(super) async fn connect(global: &GlobalArgs) -> Result<Cluster, Failure> {
    if global.istio_namespace != name::SYSTEM_NAMESPACE {
        return Err(Failure::new(format!(
            "the control plane is installed in namespace {}, not in {}",
            name::SYSTEM_NAMESPACE,
            global.istio_namespace
        )));
    }
    Ok(Cluster::connect(global).await?)
}

/// Applies a plan and says how it ended.
///
/// # Errors
/// When the API server refuses something, or the control plane does not come up.
pub(super) async fn apply(
    cluster: &Cluster,
    plan: &Plan,
    args: &MannerArgs,
    form: Format,
) -> Result<Done, Failure> {
    let started = Instant::now();
    let done = apply::install(cluster, plan, args.manner(form)).await.map_err(failure)?;
    let seconds = started.elapsed().as_secs_f64();
    let what = format!("Mini-Mesh {} (revision {})", plan.version, plan.revision());
    let end = match (args.dry_run, done.is_unchanged()) {
        (true, _) => format!("{what}: nothing was changed (dry run, {seconds:.1} s)"),
        (false, true) => format!("{what} is installed; nothing had to change ({seconds:.1} s)"),
        (false, false) => format!("{what} is installed ({seconds:.1} s)"),
    };
    output::told(&format!("{} {end}", output::good("✔")), form);
    Ok(done)
}

/// A failure with what to do about it.
pub(super) fn failure(error: InstallError) -> Failure {
    let hint = error.hint();
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Refuses a tag that is the name of a revision that is there, and a revision that is the name of a tag.
async fn no_tag_is_a_revision(cluster: &Cluster, plan: &Plan) -> Result<(), Failure> {
    let records = installed::records(cluster).await?;
    let both =
        plan.tags().into_iter().find(|tag| *tag != name::DEFAULT_REVISION && records.contains_key(*tag));
    if let Some(tag) = both {
        return Err(Failure::new(format!(
            "{tag:?} is the name of a revision that is installed, and cannot be a tag"
        ))
        .hint("Choose another name for the tag."));
    }
    let tags = installed::tags(cluster).await?;
    if plan.revision() != name::DEFAULT_REVISION && tags.contains_key(plan.revision()) {
        return Err(Failure::new(format!(
            "{:?} is the name of a tag, and cannot be a revision",
            plan.revision()
        ))
        .hint("`meshctl tag list` shows the tags."));
    }
    Ok(())
}

/// Other revisions forget the tags that this one has now.
///
/// # Errors
/// When the API server refuses it.
pub(super) async fn take_tags_from_others(
    cluster: &Cluster,
    plan: &Plan,
    args: &MannerArgs,
) -> Result<(), Failure> {
    if args.dry_run {
        return Ok(());
    }
    let mut own: Vec<&str> = plan.tags();
    if plan.revision() == name::DEFAULT_REVISION && plan.values["defaultTag"] == true {
        own.push(name::DEFAULT_REVISION);
    }
    for record in installed::records(cluster).await?.into_values() {
        if record.revision == plan.revision() {
            continue;
        }
        let mut stated = record.stated.clone();
        for tag in &own {
            stated = installed::without_tag(stated, &record.revision, tag);
        }
        if stated != record.stated && has_any(&record.stated, &record.revision, &own) {
            settings_only(cluster, stated, args).await?;
        }
    }
    Ok(())
}

/// Whether a revision that was recorded has one of the tags.
fn has_any(stated: &Value, revision: &str, tags: &[&str]) -> bool {
    let listed = stated["tags"].as_array().into_iter().flatten().any(|tag| tags.iter().any(|own| tag == own));
    let by_name = revision == name::DEFAULT_REVISION
        && tags.contains(&name::DEFAULT_REVISION)
        && stated["defaultTag"] != false;
    listed || by_name
}

/// Writes settings and record of a revision, and nothing else of it.
///
/// # Errors
/// When the API server refuses it.
pub(super) async fn settings_only(
    cluster: &Cluster,
    stated: Value,
    args: &MannerArgs,
) -> Result<(), Failure> {
    let plan = Plan::new(stated)?;
    let manner = args.manner(Format::Table);
    for wanted in apply::wanted(&plan).iter().filter(|wanted| wanted.kind.kind == "ConfigMap") {
        crate::install::server::apply(cluster, wanted, (manner.mode, manner.conflicts)).await?;
    }
    Ok(())
}

/// What a question means when nobody is there to answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenAlone {
    /// Yes: nothing is lost by it.
    GoOn,
    /// It is an error: something would be lost.
    Refuse,
}

/// Asks.
///
/// # Errors
/// When nobody is there and the answer matters.
pub(super) fn confirmed(question: &str, alone: WhenAlone) -> Result<bool, Failure> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return match alone {
            WhenAlone::GoOn => Ok(true),
            WhenAlone::Refuse => Err(Failure::new("this needs an answer, and nobody is there to give it")
                .hint("Say --yes to confirm.")),
        };
    }
    output::note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    input
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::new(format!("no answer can be read: {error}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_and_a_bound() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for text in ["", "0", "5x", "-1s", "25h", "99999999999999999999h", "m"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
