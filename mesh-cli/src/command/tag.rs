//! `meshctl tag`: names that point to a revision, so that namespaces need not be labelled anew when it changes.

use std::process::ExitCode;

use mesh_kube::name;
use serde::Serialize;

use super::install::{self, MannerArgs, ReportArgs};
use super::{Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::install::apply::ObjectChange;
use crate::install::installed;
use crate::install::object::Kind;
use crate::install::plan::Plan;
use crate::install::server::{self, Change};
use crate::output::{self, Format};

/// `meshctl tag …`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum TagCommand {
    /// Point a tag to the revision that --revision names
    Set(SetArgs),
    /// List tags with their revisions
    List(ListArgs),
    /// Remove a tag
    Remove(RemoveArgs),
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    /// Name of the tag; `default` has the namespaces labelled istio-injection=enabled.
    tag: String,
    /// How to apply.
    #[command(flatten)]
    manner: MannerArgs,
    /// What to say.
    #[command(flatten)]
    report: ReportArgs,
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    /// Name of the tag.
    tag: String,
    /// How to apply.
    #[command(flatten)]
    manner: MannerArgs,
    /// What to say.
    #[command(flatten)]
    report: ReportArgs,
}

#[derive(Debug, Serialize)]
struct Tag {
    tag: String,
    revision: String,
    namespaces: Vec<String>,
}

/// A tag that was moved or removed, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved<'a> {
    tag: &'a str,
    /// Where it points now; empty when it is gone.
    #[serde(skip_serializing_if = "str::is_empty")]
    revision: &'a str,
    /// Where it pointed.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a str>,
    dry_run: bool,
    objects: Vec<ObjectChange>,
}

impl Moved<'_> {
    fn print(&self, form: Format) {
        if form != Format::Table {
            output::value(self, form);
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When there is no such revision or tag, or the API server refuses something.
pub(crate) fn run(global: &GlobalArgs, command: &TagCommand) -> Outcome {
    match command {
        TagCommand::Set(args) => set(global, args),
        TagCommand::List(args) => list(global, args),
        TagCommand::Remove(args) => remove(global, args),
    }
}

fn set(global: &GlobalArgs, args: &SetArgs) -> Outcome {
    let Some(revision) = global.revision.as_deref() else {
        return Err(Failure::new("which revision shall the tag point to?")
            .hint(format!("`meshctl tag set {} --revision NAME`.", args.tag))
            .status(super::EXIT_USAGE));
    };
    block_on(async {
        let cluster = install::connect(global).await?;
        let tags = installed::tags(&cluster).await?;
        let record = installed::record(&cluster, revision).await?;
        let stated = installed::with_tag(installed::with_tags(record.stated, &tags), revision, &args.tag);
        let plan = Plan::new(stated)?;
        if args.tag != name::DEFAULT_REVISION && installed::records(&cluster).await?.contains_key(&args.tag) {
            return Err(Failure::new(format!(
                "{:?} is the name of a revision, and cannot be a tag",
                args.tag
            )));
        }
        let form = args.report.output;
        let done = install::apply(&cluster, &plan, &args.manner, form).await?;
        install::take_tags_from_others(&cluster, &plan, &args.manner).await?;
        let from = tags.get(&args.tag).filter(|other| *other != revision);
        let words = from.map(|other| format!(" (before: {other})")).unwrap_or_default();
        output::told(&format!("tag {} points to revision {revision}{words}", args.tag), form);
        let told = Moved {
            tag: &args.tag,
            revision,
            before: from.map(String::as_str),
            dry_run: args.manner.dry_run,
            objects: done.objects(),
        };
        told.print(form);
        output::note("Pods get the proxies of that revision when they are restarted.");
        Ok(ExitCode::SUCCESS)
    })
}

fn list(global: &GlobalArgs, args: &ListArgs) -> Outcome {
    let all: Vec<Tag> = block_on(async {
        let cluster = install::connect(global).await?;
        let namespaces: Vec<k8s_openapi::api::core::v1::Namespace> =
            cluster.list_global(&kube::api::ListParams::default()).await?;
        let tags = installed::tags(&cluster).await?;
        Ok(tags
            .into_iter()
            .map(|(tag, revision)| {
                let named = namespaces.iter().filter(|namespace| is_called(namespace, &tag));
                let namespaces = named.filter_map(|namespace| namespace.metadata.name.clone()).collect();
                Tag { tag, revision, namespaces }
            })
            .collect())
    })?;
    if args.output == Format::Table {
        let rows: Vec<Vec<String>> = all
            .iter()
            .map(|tag| vec![tag.tag.clone(), tag.revision.clone(), tag.namespaces.join(",")])
            .collect();
        output::table(&["TAG", "REVISION", "NAMESPACES"], &rows);
    } else {
        output::value(&all, args.output);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a namespace asks for the proxies of a tag.
fn is_called(namespace: &k8s_openapi::api::core::v1::Namespace, tag: &str) -> bool {
    let Some(labels) = &namespace.metadata.labels else { return false };
    let injection = labels.get(name::LABEL_INJECTION).map(String::as_str);
    let by_name =
        injection.is_none() && labels.get(name::LABEL_REVISION).is_some_and(|revision| revision == tag);
    by_name || injection == Some("enabled") && tag == name::DEFAULT_REVISION
}

fn remove(global: &GlobalArgs, args: &RemoveArgs) -> Outcome {
    block_on(async {
        let cluster = install::connect(global).await?;
        let tags = installed::tags(&cluster).await?;
        let Some(revision) = tags.get(&args.tag) else {
            return Err(Failure::new(format!("there is no tag {:?}", args.tag))
                .hint("`meshctl tag list` shows the tags."));
        };
        let namespaces: Vec<k8s_openapi::api::core::v1::Namespace> =
            cluster.list_global(&kube::api::ListParams::default()).await?;
        let named: Vec<&str> = namespaces
            .iter()
            .filter(|namespace| is_called(namespace, &args.tag))
            .filter_map(|namespace| namespace.metadata.name.as_deref())
            .collect();
        if !named.is_empty() && !args.manner.yes {
            let question = format!(
                "Pods that start in {} get no proxies any more without the tag. Remove it?",
                named.join(", ")
            );
            if !install::confirmed(&question, install::WhenAlone::Refuse)? {
                return Err(Failure::new("nothing was changed"));
            }
        }
        let injector = name::of_revision(name::INJECTOR, &args.tag);
        let form = args.report.output;
        let told = |is_there, dry_run| Moved {
            tag: &args.tag,
            revision: "",
            before: Some(revision),
            dry_run,
            objects: match is_there {
                true => vec![ObjectChange {
                    object: format!("MutatingWebhookConfiguration {injector}"),
                    change: Change::Deleted,
                }],
                false => Vec::new(),
            },
        };
        if args.manner.dry_run {
            output::told(
                &format!("tag {} of revision {revision} would be removed (dry run)", args.tag),
                form,
            );
            told(true, true).print(form);
            return Ok(ExitCode::SUCCESS);
        }
        let is_gone = match Kind::named("MutatingWebhookConfiguration") {
            Some(kind) => server::delete(&cluster, kind, None, &injector).await?,
            None => false,
        };
        if let Ok(record) = installed::record(&cluster, revision).await {
            let stated = installed::without_tag(record.stated, revision, &args.tag);
            install::settings_only(&cluster, stated, &args.manner).await?;
        }
        output::told(&format!("tag {} of revision {revision} is removed", args.tag), form);
        told(is_gone, false).print(form);
        Ok(ExitCode::SUCCESS)
    })
}
