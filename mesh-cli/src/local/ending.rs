//! Ends a running mesh, whatever state it is in.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::host_process::HostProcess;
use super::state::StateDirectory;
use crate::admin_client::Connection;

/// Time for an orderly end. The supervisor takes 10 s at most.
const ORDERLY: Duration = Duration::from_secs(13);
/// Time for the kernel to end everything.
const FORCED: Duration = Duration::from_secs(10);
/// Between looks whether it has ended.
const PAUSE: Duration = Duration::from_millis(15);

/// Why a mesh did not end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    /// This user may not end it.
    #[error("the mesh belongs to another user; end it as that one, or as root")]
    Forbidden(#[source] Errno),
    /// It does not even end by force: a process hangs in the kernel.
    #[error("process {pid} does not end, although the kernel was told to end it")]
    Hangs {
        /// Its number.
        pid: i32,
    },
}

/// Ends the mesh and waits until the last of its processes has ended.
///
/// # Errors
/// When it does not end.
pub(crate) async fn end(directory: &StateDirectory, supervisor: HostProcess) -> Result<(), EndError> {
    if !supervisor.is_alive() {
        return Ok(());
    }
    if !asked(directory).await {
        supervisor.signal(Signal::SIGTERM).map_err(EndError::Forbidden)?;
    }
    if has_ended(supervisor, ORDERLY).await {
        return Ok(());
    }
    // It is process 1 of its namespace: the kernel ends all others with it, and it last.
    supervisor.signal(Signal::SIGKILL).map_err(EndError::Forbidden)?;
    if has_ended(supervisor, FORCED).await { Ok(()) } else { Err(EndError::Hangs { pid: supervisor.pid }) }
}

async fn asked(directory: &StateDirectory) -> bool {
    let Ok(connection) = Connection::open(&directory.supervisor_socket()).await else { return false };
    let answer =
        connection.waiting(Duration::from_secs(2)).ask(Method::POST, "/stop", Bytes::from("null")).await;
    answer.is_ok_and(|answer| answer.status.is_success())
}

async fn has_ended(supervisor: HostProcess, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while supervisor.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(PAUSE).await;
    }
    true
}
