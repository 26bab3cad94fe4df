//! `meshctl up`: starts a mesh on this machine.
//!
//! Everything that can be wrong with the file is said before anything starts. Then the supervisor is
//! founded; it does the rest, and this command watches it: until all is ready with `-d`, else until Ctrl-C,
//! which takes the mesh down again.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::args::GlobalArgs;
use crate::command::down::take_down;
use crate::command::logs::{Stream, print_new, streams};
use crate::command::mesh::LocalMesh;
use crate::command::{EXIT_DATA, Failure, Outcome, block_on};
use crate::local::client::{MeshStatus, Phase, ProcessStatus};
use crate::local::ending;
use crate::local::mesh_file::{self, MeshFile, MeshFileError};
use crate::local::plan::{Plan, Surroundings, resolve};
use crate::local::privilege::Privilege;
use crate::local::program::{self, Programs};
use crate::local::state::{self, Keep, LocateError, StateDirectory};
use crate::local::tail::Tail;
use crate::output;

/// Between looks at the mesh.
const PAUSE: Duration = Duration::from_millis(30);
/// What runs must have been seen running for so long: an application that fails at once should be told of.
const SETTLED_FOR: Duration = Duration::from_millis(300);
/// A process that was started so often and does not run is told of as failed.
const RESTARTS_MAX: u32 = 3;
/// Lines of a log that are shown for what failed.
const LINES_SHOWN: usize = 5;
/// Variables of the caller that applications get: where programs are, and how to write texts and times.
const INHERITED: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// The file that says what the mesh consists of
    #[arg(short, long, default_value = mesh_file::DEFAULT_NAME, value_name = "FILE")]
    file: PathBuf,
    /// Return when everything is ready, and leave it running
    #[arg(short, long)]
    detach: bool,
    /// How many seconds everything may take to be ready
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

/// Runs the command.
///
/// # Errors
/// When the file is not valid, the machine does not allow it, or something does not get ready.
pub(crate) fn run(global: &GlobalArgs, args: &UpArgs) -> Outcome {
    let begun = Instant::now();
    let privilege = Privilege::of_this_process();
    let plan = plan(&args.file, global, privilege)?;
    Programs::find()?;
    let directory = global.selection().directory_for(&plan.name, privilege)?;
    let mesh = found(&directory, plan)?;
    let timeout = Duration::from_secs(args.timeout);
    if args.detach {
        return block_on(async {
            let status = until_ready(&mesh, begun + timeout).await?;
            report(&mesh, &status, begun)
        });
    }
    let mut streams = app_streams(&mesh)?;
    let end = block_on(foreground(&mesh, &mut streams, begun + timeout, begun));
    output::note("the mesh goes down");
    block_on(async { Ok(ending::end(&mesh.directory, mesh.state.supervisor).await?) })?;
    // What was written last, also about the end, before the logs go.
    while print_new(&mut streams)? {}
    take_down(&mesh, Keep::Nothing)?;
    end.map(|()| ExitCode::SUCCESS)
}

/// What applications inherit of this command's environment.
pub(crate) fn inherited_environment() -> BTreeMap<String, String> {
    let given = INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)));
    let mut environment: BTreeMap<String, String> = given.collect();
    environment.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
    environment
}

fn plan(file: &Path, global: &GlobalArgs, privilege: Privilege) -> Result<Plan, Failure> {
    let refused = |error: MeshFileError| {
        let status = match &error {
            MeshFileError::Absent { .. } | MeshFileError::Read { .. } => crate::command::EXIT_FAILURE,
            MeshFileError::TooLarge { .. } | MeshFileError::Invalid { .. } => EXIT_DATA,
        };
        Failure::from(error).status(status)
    };
    let written = MeshFile::read(file).map_err(refused)?;
    let surroundings = Surroundings {
        file: std::path::absolute(file)?,
        name: global.mesh.clone(),
        privilege,
        environment: inherited_environment(),
    };
    let plan = resolve(&written, &surroundings).map_err(|error| refused(as_typed(error, file)))?;
    if written.config.is_some() && !plan.config.is_dir() {
        let text = format!("{}: config: there is no folder {}", file.display(), plan.config.display());
        return Err(Failure::new(text).status(EXIT_DATA));
    }
    Ok(plan)
}

/// The error with the file as the user called it.
fn as_typed(error: MeshFileError, file: &Path) -> MeshFileError {
    match error {
        MeshFileError::Invalid { mut place, message } => {
            file.clone_into(&mut place.path);
            MeshFileError::Invalid { place, message }
        }
        other @ (MeshFileError::Absent { .. }
        | MeshFileError::Read { .. }
        | MeshFileError::TooLarge { .. }) => other,
    }
}

/// Starts the supervisor; returns once it is on record.
fn found(directory: &StateDirectory, mut plan: Plan) -> Result<LocalMesh, Failure> {
    let is_first = !directory.path().join("control").exists();
    directory.create()?;
    let folder = File::open(directory.path())?;
    let _lock = Flock::lock(folder, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Failure::new(format!("cannot lock {}: {errno}", directory.path().display())))?;
    match directory.load() {
        Ok(state) if state.supervisor.is_alive() => {
            let text = format!("the mesh {} is up already, in {}", state.name, directory.path().display());
            return Err(Failure::new(text).hint("`meshctl down` ends it; `meshctl run` adds to it."));
        }
        Ok(_) => {
            output::note("cleaning up after a mesh that ended without `meshctl down`");
            directory.remove(Keep::AuthorityAndLogs)?;
        }
        Err(LocateError::NotUp(_)) => {}
        Err(other) => return Err(other.into()),
    }
    directory.create()?;
    if !plan.config.is_dir() {
        // None was asked for: what `meshctl apply` writes has a place, which goes with the mesh.
        plan.config = directory.user_config();
        std::fs::create_dir_all(&plan.config)?;
    }
    state::write_json(&directory.plan(), &plan)?;
    let launcher =
        program::this_program().ok_or_else(|| Failure::new("cannot find the file of this program"))?;
    let done = Command::new(launcher)
        .arg("local-supervisor")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if !done.status.success() {
        directory.remove(if is_first { Keep::Nothing } else { Keep::AuthorityAndLogs })?;
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.trim();
        return Err(Failure::new(said.strip_prefix("error: ").unwrap_or(said)));
    }
    let state = directory.load()?;
    Ok(LocalMesh { directory: directory.clone(), state })
}

/// The logs of the applications, and of what starts them.
fn app_streams(mesh: &LocalMesh) -> Result<Vec<Stream>, Failure> {
    let plan = state::read_plan(&mesh.directory)?;
    let mut logs: Vec<(String, String)> =
        plan.workloads.iter().map(|workload| (workload.id(), format!("{}.app", workload.id()))).collect();
    logs.push(("mesh".to_owned(), "supervisor".to_owned()));
    Ok(streams(&mesh.directory, &logs))
}

/// Follows the logs until Ctrl-C, or until the mesh ends by itself.
async fn foreground(
    mesh: &LocalMesh,
    streams: &mut [Stream],
    deadline: Instant,
    begun: Instant,
) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let follow = async {
        while mesh.state.supervisor.is_alive() {
            print_new(streams)?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        print_new(streams)?;
        Err::<(), Failure>(Failure::new("the mesh has ended"))
    };
    let watch = async {
        // What fails is told, and what runs goes on running: the user looks at it.
        let told = match until_ready(mesh, deadline).await {
            Ok(status) => report(mesh, &status, begun).map(|_| ()),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = told {
            failure.print();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = follow => ended,
        () = watch => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

/// What is not well, or not yet.
#[derive(Debug, PartialEq, Eq)]
struct Trouble {
    /// Whose.
    subject: String,
    /// Its log.
    log: String,
    /// What it is doing.
    phase: Phase,
    /// Why.
    message: String,
}

/// Every process with its name and its log.
fn processes(status: &MeshStatus) -> Vec<(String, String, &ProcessStatus)> {
    let mut all = vec![("control plane".to_owned(), "control".to_owned(), &status.control)];
    for workload in &status.workloads {
        let id = workload.id();
        if let Some(proxy) = &workload.proxy {
            all.push((format!("proxy of {id}"), format!("{id}.proxy"), proxy));
        }
        all.push((id.clone(), format!("{id}.app"), &workload.app));
    }
    all
}

fn is_failed(process: &ProcessStatus) -> bool {
    match process.phase {
        Phase::Failed | Phase::Stopped => true,
        Phase::Pending | Phase::Starting | Phase::Waiting => process.restarts >= RESTARTS_MAX,
        Phase::Running | Phase::Completed => false,
    }
}

fn troubles(status: &MeshStatus, is_trouble: impl Fn(&ProcessStatus) -> bool) -> Vec<Trouble> {
    let found = processes(status).into_iter().filter(|(_, _, process)| is_trouble(process));
    found
        .map(|(subject, log, process)| Trouble {
            subject,
            log,
            phase: process.phase,
            message: process.message.clone(),
        })
        .collect()
}

/// Waits until everything has settled, something has failed, or time is over.
async fn until_ready(mesh: &LocalMesh, deadline: Instant) -> Result<MeshStatus, Failure> {
    let mut settled_since: Option<Instant> = None;
    loop {
        if !mesh.state.supervisor.is_alive() {
            let said = last_lines(&mesh.directory, "supervisor");
            return Err(Failure::new(format!("the mesh ended while it started{said}"))
                .hint("`meshctl down` removes what is left."));
        }
        // The supervisor's socket is not there in the first moment.
        let status = mesh.processes().await;
        let now = Instant::now();
        if let Ok(status) = status {
            let is_settled = processes(&status).iter().all(|(_, _, process)| process.phase.is_settled());
            let has_failed = processes(&status).iter().any(|(_, _, process)| is_failed(process));
            let since = if is_settled { *settled_since.get_or_insert(now) } else { now };
            if !is_settled {
                settled_since = None;
            }
            if (is_settled && now - since >= SETTLED_FOR)
                || (has_failed && is_hopeless(&status))
                || now >= deadline
            {
                return Ok(status);
            }
        } else if now >= deadline {
            return Err(Failure::new("the supervisor does not answer")
                .hint("`meshctl logs --supervisor` may say why."));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Nothing that is not ready can get ready by waiting: it has failed, or waits for something that has.
fn is_hopeless(status: &MeshStatus) -> bool {
    is_failed(&status.control)
        || status.workloads.iter().all(|workload| {
            let proxy_failed = workload.proxy.as_ref().is_some_and(is_failed);
            let is_settled = |process: &ProcessStatus| process.phase.is_settled() || is_failed(process);
            proxy_failed || (workload.proxy.as_ref().is_none_or(is_settled) && is_settled(&workload.app))
        })
}

/// Says how the start went.
fn report(mesh: &LocalMesh, status: &MeshStatus, begun: Instant) -> Outcome {
    let failed = troubles(status, is_failed);
    let late = troubles(status, |process| !process.phase.is_settled() && !is_failed(process));
    if failed.is_empty() && late.is_empty() {
        let count = status.workloads.len();
        let noun = if count == 1 { "workload" } else { "workloads" };
        let took = begun.elapsed().as_secs_f64();
        output::note(&format!("the mesh {} is up: {count} {noun} in {took:.1} s", mesh.state.name));
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = "not everything is ready".to_owned();
    for trouble in failed.iter().chain(&late) {
        let why = if trouble.message.is_empty() { trouble.phase.as_str() } else { &trouble.message };
        text.push_str(&format!("\n  {}: {why}", trouble.subject));
        text.push_str(&last_lines(&mesh.directory, &trouble.log));
    }
    Err(Failure::new(text).hint(
        "What is ready goes on running. `meshctl ps` and `meshctl logs` show it, `meshctl down` ends it.",
    ))
}

fn last_lines(directory: &StateDirectory, log: &str) -> String {
    let lines = Tail::new(directory.log(log)).all(Some(LINES_SHOWN)).unwrap_or_default();
    lines.iter().map(|line| format!("\n    | {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::client::WorkloadStatus;

    fn process(phase: Phase, restarts: u32) -> ProcessStatus {
        ProcessStatus { phase, restarts, ..ProcessStatus::default() }
    }

    fn status(control: Phase, proxy: ProcessStatus, app: ProcessStatus) -> MeshStatus {
        let workload = WorkloadStatus {
            name: "a".to_owned(),
            namespace: "b".to_owned(),
            service_account: String::new(),
            address: String::new(),
            address_v6: String::new(),
            command: String::new(),
            app,
            proxy: Some(proxy),
        };
        MeshStatus { control: process(control, 0), workloads: vec![workload], is_stopping: false }
    }

    #[test]
    fn waiting_ends_when_nothing_can_get_better() {
        let pending = || process(Phase::Pending, 0);
        assert!(!is_hopeless(&status(Phase::Running, process(Phase::Starting, 0), pending())));
        assert!(!is_hopeless(&status(Phase::Running, process(Phase::Waiting, 1), pending())));
        assert!(is_hopeless(&status(Phase::Running, process(Phase::Waiting, RESTARTS_MAX), pending())));
        assert!(is_hopeless(&status(Phase::Running, process(Phase::Running, 0), process(Phase::Failed, 0))));
    }

    #[test]
    fn troubles_name_the_process_and_its_log() {
        let found = troubles(
            &status(Phase::Running, process(Phase::Running, 0), process(Phase::Failed, 0)),
            is_failed,
        );
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].subject.as_str(), found[0].log.as_str()), ("a.b", "a.b.app"));
    }

    #[test]
    fn a_job_that_has_done_its_work_has_not_failed() {
        assert!(!is_failed(&process(Phase::Completed, 0)));
        assert!(!is_failed(&process(Phase::Running, 9)));
    }
}
