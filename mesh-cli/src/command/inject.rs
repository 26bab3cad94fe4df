//! `meshctl inject` and `meshctl uninject`: what the webhook does, on files.
//!
//! Documents that hold no pod pass as they are written, byte for byte. Nothing is printed unless everything
//! could be done: a file that was half injected would be applied.

pub(crate) mod document;
pub(crate) mod namespaces;
pub(crate) mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::objects::input;
use super::{EXIT_DATA, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output;
use document::{Document, Done};
use namespaces::Namespaces;
use source::{SettingsArgs, Source};

/// Files.
#[derive(Debug, clap::Args)]
pub(crate) struct FileArgs {
    /// File, folder, or - for standard input.
    #[arg(
        short,
        long = "filename",
        visible_alias = "file",
        value_name = "FILE",
        required_unless_present = "files"
    )]
    filename: Vec<PathBuf>,
    /// The same, without a flag.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Form of what is printed; JSON has all documents as one List.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// Form of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// As written, but for what was injected.
    #[default]
    Yaml,
    /// One object.
    Json,
}

/// Flags of `inject`.
#[derive(Debug, clap::Args)]
pub(crate) struct InjectArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Flags of `uninject`.
#[derive(Debug, clap::Args)]
pub(crate) struct UninjectArgs {
    #[command(flatten)]
    files: FileArgs,
}

/// Runs `meshctl inject`.
///
/// # Errors
/// When files or settings are not valid, or a pod must not be created as it is (status 65).
pub(crate) fn run(global: &GlobalArgs, args: &InjectArgs) -> Outcome {
    let documents = args.files.read()?;
    let mut namespaces = Namespaces::of(&documents);
    let source = block_on(async {
        let source = Source::find(global, &args.settings).await?;
        if let Some(cluster) = &source.cluster {
            let names = document::namespaces(&documents, global.namespace.as_deref());
            namespaces.ask(cluster, &names).await?;
        }
        Ok(source)
    })?;
    // Whoever names a file asks for it to be injected; a namespace that says no, or names another revision, is
    // still heard.
    namespaces.ask_for(&source.settings.revision);
    let mut refused = Vec::new();
    let mut all = Vec::new();
    for document in documents {
        match document.inject(&namespaces, &source, global.namespace.as_deref()) {
            Ok(done) => all.push(done),
            Err(reasons) => refused.extend(reasons),
        }
    }
    finish(&all, &refused, args.files.output)
}

/// Runs `meshctl uninject`.
///
/// # Errors
/// When files are not valid.
pub(crate) fn run_uninject(args: &UninjectArgs) -> Outcome {
    let documents = args.files.read()?;
    let all: Vec<Done> = documents.into_iter().map(Document::uninject).collect();
    finish(&all, &[], args.files.output)
}

fn finish(all: &[Done], refused: &[String], form: Form) -> Outcome {
    if !refused.is_empty() {
        return Err(Failure::new(refused.join("\n"))
            .hint("Nothing was injected. `meshctl x check-inject -f FILE` explains single pods.")
            .status(EXIT_DATA));
    }
    let text = match form {
        Form::Yaml => document::stream(all).map_err(|message| Failure::new(message).status(EXIT_DATA))?,
        Form::Json => {
            let mut objects: Vec<&Value> = all.iter().filter_map(|done| done.object.as_ref()).collect();
            let one = if objects.len() == 1 { objects.pop().cloned() } else { None };
            let value = one.unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "List", "items": objects}));
            format!("{value:#}\n")
        }
    };
    for remark in all.iter().flat_map(|done| &done.remarks) {
        output::note(remark);
    }
    output::line(text.strip_suffix('\n').unwrap_or(&text));
    Ok(ExitCode::SUCCESS)
}

impl FileArgs {
    /// The documents of all files.
    fn read(&self) -> Result<Vec<Document>, Failure> {
        let paths: Vec<PathBuf> = self.filename.iter().chain(&self.files).cloned().collect();
        let mut documents = Vec::new();
        for input in input::read(&paths)? {
            documents.extend(document::read(&input)?);
        }
        Ok(documents)
    }
}
