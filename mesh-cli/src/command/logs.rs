//! `meshctl logs`: what applications, proxies and the control plane wrote. In a cluster they are read through
//! the API server.

mod of_cluster;

pub(crate) use of_cluster::{access_logs, seconds};

use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;
use owo_colors::{AnsiColors, OwoColorize as _};
use serde::Serialize;

use crate::args::GlobalArgs;
use crate::command::mesh::{LocalMesh, Mesh};
use crate::command::{EXIT_USAGE, Failure, Outcome, block_on, target};
use crate::local::host_process::HostProcess;
use crate::local::state::StateDirectory;
use crate::local::tail::Tail;
use crate::output;

/// Between looks whether something was written.
const PAUSE: Duration = Duration::from_millis(100);
/// Colours of the names, in turn. Red is for errors.
const COLOURS: [AnsiColors; 6] = [
    AnsiColors::Cyan,
    AnsiColors::Green,
    AnsiColors::Yellow,
    AnsiColors::Magenta,
    AnsiColors::Blue,
    AnsiColors::BrightCyan,
];

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct LogsArgs {
    /// Of which workloads; default: all
    #[arg(value_name = "WORKLOAD[.NAMESPACE]")]
    workloads: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Begin with so many of the last lines of each
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// In a cluster: begin with what was written in this time, for instance 90s, 10m or 2h
    #[arg(long, value_name = "DURATION", value_parser = of_cluster::seconds)]
    since: Option<i64>,
    /// The proxies' logs instead of the applications'
    #[arg(long, group = "kind")]
    proxy: bool,
    /// The proxies' access logs
    #[arg(long, group = "kind")]
    access: bool,
    /// The control plane's log
    #[arg(long, group = "kind", conflicts_with = "workloads")]
    control: bool,
    /// The log of what starts and restarts everything
    #[arg(long, group = "kind", conflicts_with = "workloads")]
    supervisor: bool,
    /// In a cluster: the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Form of the output; json is one object for each line
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: LogForm,
}

/// Forms of a log. It has no end while it is followed, so that there is no form for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum LogForm {
    /// As it was written, below the names of those who wrote it.
    #[default]
    #[value(alias = "table")]
    Text,
    /// For programs: an object for each line.
    Json,
}

/// A log with what is printed in front of its lines.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Whose it is.
    workload: String,
    /// Name of the log.
    log: String,
    form: LogForm,
    prefix: String,
    tail: Tail,
}

/// A line of a log of this machine, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    workload: &'a str,
    /// `app`, `proxy`, `access`; or the name of a process that belongs to no workload.
    log: &'a str,
    text: &'a str,
}

impl Stream {
    fn print(&self, text: &str) {
        match self.form {
            LogForm::Text => output::line(&format!("{}{text}", self.prefix)),
            LogForm::Json => {
                // The log of a workload is called by it and its kind.
                let own = self.log.strip_prefix(&self.workload).and_then(|rest| rest.strip_prefix('.'));
                let log = own.unwrap_or(&self.log);
                output::json_line(&Line { workload: &self.workload, log, text });
            }
        }
    }
}

/// Logs with names of equal width, each in its colour.
pub(crate) fn streams(directory: &StateDirectory, logs: &[(String, String)]) -> Vec<Stream> {
    let width = logs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let colours = COLOURS.iter().cycle();
    logs.iter()
        .zip(colours)
        .map(|((name, log), colour)| Stream {
            workload: name.clone(),
            log: log.clone(),
            form: LogForm::Text,
            prefix: format!("{} ", format!("{name:width$} |").color(*colour)),
            tail: Tail::new(directory.log(log)),
        })
        .collect()
}

/// Prints what was appended to the logs; whether there was anything.
///
/// # Errors
/// When a log cannot be read.
pub(crate) fn print_new(streams: &mut [Stream]) -> std::io::Result<bool> {
    let mut is_any = false;
    for stream in streams {
        for line in stream.tail.lines()? {
            is_any = true;
            stream.print(&line);
        }
    }
    Ok(is_any)
}

/// Runs the command.
///
/// # Errors
/// When there is no such log.
pub(crate) fn run(global: &GlobalArgs, args: &LogsArgs) -> Outcome {
    let mesh = match Mesh::locate(global)? {
        Mesh::Local(mesh) => mesh,
        Mesh::Cluster(cluster) => return of_cluster::run(global, args, &cluster),
    };
    if args.since.is_some() || args.timestamps {
        return Err(Failure::new(
            "--since and --timestamps are for clusters: a log of this machine has no times that it could go by",
        )
        .hint("--tail LINES begins with the last lines.")
        .status(EXIT_USAGE));
    }
    let logs = wanted(global, &mesh, args)?;
    let mut streams = streams(&mesh.directory, &logs);
    if let [only] = streams.as_mut_slice() {
        only.prefix.clear();
    }
    for stream in &mut streams {
        stream.form = args.output;
        for line in stream.tail.all(args.tail)? {
            stream.print(&line);
        }
    }
    if args.follow {
        follow(&mut streams, mesh.state.supervisor)?;
    }
    for stream in &mut streams {
        if let Some(line) = stream.tail.rest() {
            stream.print(&line);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Until the mesh has ended. Ctrl-C ends this process, and nothing else.
fn follow(streams: &mut [Stream], supervisor: HostProcess) -> Result<(), Failure> {
    block_on(async {
        loop {
            let was_alive = supervisor.is_alive();
            if !print_new(streams)? && !was_alive {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// Names and logs.
fn wanted(global: &GlobalArgs, mesh: &LocalMesh, args: &LogsArgs) -> Result<Vec<(String, String)>, Failure> {
    if args.control {
        return Ok(vec![("control".to_owned(), "control".to_owned())]);
    }
    if args.supervisor {
        return Ok(vec![("supervisor".to_owned(), "supervisor".to_owned())]);
    }
    let kind = match (args.proxy, args.access) {
        (true, _) => "proxy",
        (false, true) => "access",
        (false, false) => "app",
    };
    let namespace = global.namespace.as_deref();
    let mut ids = Vec::new();
    for written in &args.workloads {
        ids.push(match kind {
            "app" => target::resolve_any(mesh, written, namespace)?,
            _ => target::resolve_local(mesh, written, namespace)?,
        });
    }
    if args.workloads.is_empty() {
        ids = target::workloads(mesh)?;
        ids.retain(|id| {
            namespace.is_none_or(|space| id.rsplit_once('.').is_some_and(|(_, own)| own == space))
        });
    }
    Ok(ids.into_iter().map(|id| (id.clone(), format!("{id}.{kind}"))).collect())
}
