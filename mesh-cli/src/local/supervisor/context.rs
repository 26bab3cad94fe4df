//! What every task of the supervisor needs.

use std::cell::{Ref, RefCell};
use std::path::Path;

use mesh_api::name::TrustDomain;
use tokio::sync::{Notify, watch};

use super::board::Board;
use super::process::Children;
use crate::local::documents;
use crate::local::plan::{Plan, Service, Workload};
use crate::local::program::Programs;
use crate::local::state::{self, StateDirectory, StateError};

/// What every task needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// Where everything lies.
    pub(crate) directory: StateDirectory,
    /// What is run.
    pub(crate) programs: Programs,
    /// Processes that somebody waits for.
    pub(crate) children: Children,
    /// What everything is doing.
    pub(crate) board: Board,
    /// Whether this kernel has IPv6.
    pub(crate) has_ipv6: bool,
    /// Set while the control plane is ready, to the trust domain that it says.
    pub(crate) control: watch::Sender<Option<TrustDomain>>,
    plan: RefCell<Plan>,
    stop: Notify,
}

impl Context {
    /// The context of a plan.
    pub(crate) fn new(directory: StateDirectory, plan: Plan, programs: Programs) -> Self {
        Self {
            directory,
            programs,
            children: Children::default(),
            board: Board::default(),
            has_ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            control: watch::Sender::new(None),
            plan: RefCell::new(plan),
            stop: Notify::new(),
        }
    }

    /// The plan, with the workloads that joined. Not to be held over a pause.
    pub(crate) fn plan(&self) -> Ref<'_, Plan> {
        self.plan.borrow()
    }

    /// Asks for the end of the mesh.
    pub(crate) fn request_stop(&self) {
        self.stop.notify_one();
    }

    /// Waits until the end of the mesh is asked for.
    pub(crate) async fn stop_requested(&self) {
        self.stop.notified().await;
    }

    /// Writes what the control plane is told of the plan.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write_documents(&self) -> Result<(), StateError> {
        let plan = self.plan();
        self.write_document("mesh", &documents::mesh(&plan))?;
        for workload in &plan.workloads {
            self.write_document(&workload.id(), &documents::workload(workload))?;
        }
        Ok(())
    }

    /// Whether a workload's file says nothing else: one that joined may have brought its service with it.
    pub(crate) fn is_told_alone(&self, workload: &Workload) -> bool {
        std::fs::read_to_string(self.document(&workload.id()))
            .is_ok_and(|text| text == documents::workload(workload))
    }

    /// Tells the control plane about a workload again, with its share of traffic when one is stated.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn write_workload(&self, workload: &Workload, weight: Option<u32>) -> Result<(), StateError> {
        self.write_document(&workload.id(), &documents::weighted(workload, weight))
    }

    /// Adds a workload to the plan and tells the control plane.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn join(&self, workload: &Workload, implied: Option<&Service>) -> Result<(), StateError> {
        let text = documents::joining(workload, &self.plan(), implied);
        self.write_document(&workload.id(), &text)?;
        let mut plan = self.plan.borrow_mut();
        plan.workloads.push(workload.clone());
        plan.services.extend(implied.cloned());
        Ok(())
    }

    /// Takes a workload that joined out of the plan, with the service that came with it.
    pub(crate) fn leave(&self, workload: &Workload) {
        let mut plan = self.plan.borrow_mut();
        plan.workloads.retain(|other| other.id() != workload.id());
        let remaining = plan.workloads.clone();
        plan.services.retain(|service| {
            !service.selects(workload) || remaining.iter().any(|other| service.selects(other))
        });
    }

    /// Takes a workload away from the control plane: nothing is sent to it any more.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn withdraw_document(&self, id: &str) -> std::io::Result<()> {
        match std::fs::remove_file(self.document(id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn write_document(&self, name: &str, text: &str) -> Result<(), StateError> {
        state::write_file(&self.document(name), text.as_bytes(), 0o600)
    }

    fn document(&self, name: &str) -> std::path::PathBuf {
        self.directory.local_config().join(format!("{name}.yaml"))
    }
}
