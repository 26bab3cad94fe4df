//! What commands and the supervisor say to each other over `supervisor.sock` (HTTP/1.1 with JSON bodies).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::mesh_file::RestartPolicy;
use super::plan::Workload;

/// `GET /ps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeshStatus {
    /// State of the control plane.
    pub(crate) control: ProcessStatus,
    /// Workloads, in order of their start.
    pub(crate) workloads: Vec<WorkloadStatus>,
    /// The mesh is going down.
    pub(crate) is_stopping: bool,
}

/// One workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkloadStatus {
    /// Name.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Service account.
    pub(crate) service_account: String,
    /// IPv4 address.
    pub(crate) address: String,
    /// IPv6 address.
    pub(crate) address_v6: String,
    /// What it runs.
    pub(crate) command: String,
    /// The application.
    pub(crate) app: ProcessStatus,
    /// The proxy; `None` outside of the mesh.
    pub(crate) proxy: Option<ProcessStatus>,
}

/// One process of the mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessStatus {
    /// What it is doing.
    pub(crate) phase: Phase,
    /// Its number in the mesh's PID namespace.
    pub(crate) pid: Option<i32>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Why it is not running, or what it waits for; empty when there is nothing to say.
    pub(crate) message: String,
}

/// What a process is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Something that it needs is not there yet.
    #[default]
    Pending,
    /// It runs and is not ready.
    Starting,
    /// It runs and, for proxy and control plane, is ready.
    Running,
    /// It ended and will be started again after a pause.
    Waiting,
    /// It ended with status 0 and stays so.
    Completed,
    /// It ended otherwise, or could not be started, and stays so.
    Failed,
    /// It was stopped.
    Stopped,
}

impl Phase {
    /// Whether a start has come to its end, good or bad.
    pub(crate) fn is_settled(self) -> bool {
        match self {
            Self::Running | Self::Completed | Self::Failed | Self::Stopped => true,
            Self::Pending | Self::Starting | Self::Waiting => false,
        }
    }

    /// The phase as tables print it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Waiting => "Waiting",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Stopped => "Stopped",
        }
    }
}

impl WorkloadStatus {
    /// `NAME.NAMESPACE`.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// `POST /run`: one more workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRequest {
    /// Name; default: the service account's with a random end.
    pub(crate) name: Option<String>,
    /// Namespace.
    pub(crate) namespace: String,
    /// Service account.
    pub(crate) service_account: String,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Ports that it serves.
    pub(crate) ports: Vec<u16>,
    /// What to run.
    pub(crate) command: Vec<String>,
    /// Environment besides that of the mesh.
    pub(crate) environment: BTreeMap<String, String>,
    /// Working directory, absolute.
    pub(crate) directory: String,
    /// User, as in `mesh.yaml`.
    pub(crate) user: Option<String>,
    /// Whether it has a proxy.
    pub(crate) is_meshed: bool,
    /// Who starts the application.
    pub(crate) mode: RunMode,
    /// When to start it again; only for [`RunMode::Supervised`].
    pub(crate) restart: RestartPolicy,
}

/// Who starts the application of a workload that joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunMode {
    /// The supervisor.
    Supervised,
    /// The command that asks, once the proxy is ready; the workload goes when the command's connection does.
    Attached,
}

/// Answer to [`RunRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResponse {
    /// The workload as it was planned.
    pub(crate) workload: Workload,
}

/// Which process of a workload `POST /restart` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// The application.
    App,
    /// The proxy.
    Proxy,
    /// The control plane of the mesh.
    Control,
}

/// `POST /restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestartRequest {
    /// `NAME.NAMESPACE`; not needed for the control plane.
    pub(crate) workload: Option<String>,
    /// Which process.
    pub(crate) part: Part,
}

/// `POST /leave`: a workload is taken out of the running mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaveRequest {
    /// `NAME.NAMESPACE`.
    pub(crate) workload: String,
}
