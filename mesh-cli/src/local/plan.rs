//! What follows from `mesh.yaml`: instances, addresses, users, services (pure, given the folder and the user).
//!
//! The plan is resolved completely before anything starts, so that every mistake is told at once, with its
//! line, and while nothing runs yet. It is written to the state directory, and the supervisor knows nothing
//! else: it never reads `mesh.yaml`.

mod resolve;
mod service;

use std::collections::BTreeMap;
use std::path::PathBuf;

use mesh_api::name::{Namespace, ObjectName, ServiceAccount, TrustDomain};
use serde::{Deserialize, Serialize};

pub(crate) use resolve::{Surroundings, resolve, workloads};
pub(crate) use service::implied;

use super::address::{Addresses, Network};
use super::mesh_file::RestartPolicy;
use super::privilege::{Credentials, Privilege};

/// A field, and a clause that says what is wrong with it.
pub(crate) type Mistake = (String, String);

/// A local mesh, ready to be started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Name of the mesh.
    pub(crate) name: String,
    /// The file that it comes from.
    pub(crate) file: PathBuf,
    /// Folder of the user's configuration.
    pub(crate) config: PathBuf,
    /// Trust domain, when the file states one.
    pub(crate) trust_domain: Option<TrustDomain>,
    /// Network of the workloads.
    pub(crate) network: Network,
    /// Life of workload certificates, as the control plane is told.
    pub(crate) workload_ttl: String,
    /// With what privilege everything runs.
    pub(crate) privilege: Privilege,
    /// What runs.
    pub(crate) workloads: Vec<Workload>,
    /// Names that they are called by.
    pub(crate) services: Vec<Service>,
}

/// One instance of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// Name, unique in its namespace: a DNS label.
    pub(crate) name: String,
    /// Namespace.
    pub(crate) namespace: Namespace,
    /// Service account.
    pub(crate) service_account: ServiceAccount,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What to run.
    pub(crate) command: Vec<String>,
    /// Its whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Working directory.
    pub(crate) directory: PathBuf,
    /// Whether the user asked for that directory; else `/` will do when the application may not enter it.
    pub(crate) is_directory_required: bool,
    /// Ports that it serves.
    pub(crate) ports: Vec<WorkloadPort>,
    /// Whether it has a proxy.
    pub(crate) is_meshed: bool,
    /// As whom it runs.
    pub(crate) user: Credentials,
    /// When to start it again.
    pub(crate) restart: RestartPolicy,
    /// Its number in the network.
    pub(crate) index: u32,
    /// Its addresses.
    pub(crate) addresses: Addresses,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WorkloadPort {
    /// Number.
    pub(crate) port: u16,
    /// Name, possibly empty.
    pub(crate) name: String,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Name.
    pub(crate) name: ObjectName,
    /// Namespace.
    pub(crate) namespace: Namespace,
    /// Labels of the workloads behind it.
    pub(crate) selector: BTreeMap<String, String>,
    /// Ports.
    pub(crate) ports: Vec<ServicePort>,
    /// Whether names resolve to the workloads' own addresses.
    pub(crate) is_headless: bool,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServicePort {
    /// Number that is dialled.
    pub(crate) port: u16,
    /// Port of the workload.
    pub(crate) target: super::mesh_file::TargetPort,
    /// Name, unique in the service; empty only for a single port.
    pub(crate) name: String,
    /// `TCP` or `UDP`.
    pub(crate) transport: String,
    /// Protocol of the application, when declared.
    pub(crate) app_protocol: Option<String>,
}

impl Workload {
    /// `NAME.NAMESPACE`: how commands, files and the control plane call it.
    pub(crate) fn id(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

impl Service {
    /// Whether a workload is behind this service.
    pub(crate) fn selects(&self, workload: &Workload) -> bool {
        self.namespace == workload.namespace
            && self.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
    }
}

/// The plan of a `mesh.yaml` at `file`, by root and with nothing inherited.
#[cfg(test)]
pub(crate) fn planned(file: &str, text: &str) -> Plan {
    let surroundings = Surroundings {
        file: PathBuf::from(file),
        name: None,
        privilege: Privilege::Root,
        environment: BTreeMap::new(),
    };
    let written = super::mesh_file::MeshFile::parse(&surroundings.file, text).expect("a mesh");
    resolve(&written, &surroundings).expect("a plan")
}
