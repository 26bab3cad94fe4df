//! The supervisor: starts everything of a mesh, keeps it running, and ends it.
//!
//! Two hidden commands make it. `local-supervisor` ([`found`]) makes the namespaces and starts the second in
//! them; it records that process' number before anything else may happen, so that there is no moment at
//! which something runs that `meshctl down` does not know. `local-init` ([`init`]) is process 1 of the PID
//! namespace: it runs one event loop on one thread, in which every process of the mesh has a task that
//! starts it, waits for its end and starts it again.
//!
//! The namespaces need no cleaning up: they are held by processes of the PID namespace only, and all of
//! those end with process 1.

mod api;
mod app;
mod board;
mod context;
mod control_plane;
mod founding;
mod handover;
mod keeper;
mod logs;
mod network;
mod process;
mod proxy;
mod roster;
mod site;
mod workload;

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use founding::{FoundingArgs, found, init_namespaces};
pub(crate) use network::{NetworkArgs, make_network};

use super::launch::LaunchError;
use super::program::{ProgramMissing, Programs};
use super::state::{self, StateDirectory, StateError};
use crate::output;
use context::Context;
use roster::Roster;

/// Time for the whole mesh to end in an orderly way.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Why the mesh could not be founded or ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SuperviseError {
    /// The plan or another file of the state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A program that is needed is not there.
    #[error(transparent)]
    Program(#[from] ProgramMissing),
    /// Namespaces and mounts.
    #[error(transparent)]
    Confine(#[from] LaunchError),
    /// The kernel does not allow it.
    #[error(transparent)]
    Privilege(#[from] super::privilege::PrivilegeError),
    /// The network of the hub.
    #[error("cannot make the mesh's network")]
    Network(#[from] network::NetworkError),
    /// Something of this process itself.
    #[error("cannot {step}")]
    Own {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl SuperviseError {
    fn own(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Own { step, source }
    }

    fn kernel(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Own { step, source: errno.into() }
    }
}

/// Runs the mesh of a state directory until it is told to stop. This process is process 1 of its namespace.
///
/// # Errors
/// When the mesh cannot be set up at all; a workload that fails is a matter of its own.
pub(crate) fn init(directory: PathBuf) -> Result<(), SuperviseError> {
    init_namespaces()?;
    let directory = StateDirectory::new(directory);
    // Sockets are bound by names relative to this folder, whose own path may be too long for the kernel.
    std::env::set_current_dir(directory.path()).map_err(SuperviseError::own("enter the state directory"))?;
    let plan = state::read_plan(&directory)?;
    let programs = Programs::find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(SuperviseError::own("make an event loop"))?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, supervise(Rc::new(Context::new(directory, plan, programs))))
}

async fn supervise(context: Rc<Context>) -> Result<(), SuperviseError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(SuperviseError::own("watch for SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(SuperviseError::own("watch for SIGINT"))?;
    let children = signal(SignalKind::child()).map_err(SuperviseError::own("watch for ended processes"))?;
    tokio::task::spawn_local(process::reap(Rc::clone(&context), children));
    let roster = Rc::new(Roster::new(Rc::clone(&context)));
    let listener = api::bind().map_err(SuperviseError::own("listen on supervisor.sock"))?;
    tokio::task::spawn_local(api::serve(listener, Rc::clone(&context), Rc::clone(&roster)));
    network::make_hub(&context).await?;
    context.write_documents()?;
    tokio::task::spawn_local(logs::bound(Rc::clone(&context)));
    roster.start_control();
    let workloads = context.plan().workloads.clone();
    for workload in workloads {
        roster.start(workload, workload::Mode::Supervised);
    }
    tokio::select! {
        _ = terminate.recv() => output::note("SIGTERM: the mesh goes down"),
        _ = interrupt.recv() => output::note("SIGINT: the mesh goes down"),
        () = context.stop_requested() => output::note("the mesh goes down"),
    }
    context.board.stopping();
    if tokio::time::timeout(STOP_DEADLINE, roster.stop_all()).await.is_err() {
        output::note("not everything ended in time; the kernel ends the rest with this process");
    }
    Ok(())
}
