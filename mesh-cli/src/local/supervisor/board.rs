//! What everything is doing, for whoever asks.

use std::cell::{Cell, RefCell};
use std::fmt;

use crate::local::client::{MeshStatus, Phase, ProcessStatus, WorkloadStatus};
use crate::local::command_line;
use crate::local::plan::Workload;

/// The state of all processes.
#[derive(Debug, Default)]
pub(crate) struct Board {
    control: RefCell<ProcessStatus>,
    workloads: RefCell<Vec<WorkloadStatus>>,
    is_stopping: Cell<bool>,
}

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The control plane.
    Control,
    /// The application of a workload.
    App(String),
    /// The proxy of a workload.
    Proxy(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("the control plane"),
            Self::App(id) => write!(f, "{id}"),
            Self::Proxy(id) => write!(f, "the proxy of {id}"),
        }
    }
}

impl Board {
    /// Lists a workload.
    pub(crate) fn add(&self, workload: &Workload) {
        self.workloads.borrow_mut().push(WorkloadStatus {
            name: workload.name.clone(),
            namespace: workload.namespace.as_str().to_owned(),
            service_account: workload.service_account.as_str().to_owned(),
            address: workload.addresses.v4().to_string(),
            address_v6: workload.addresses.v6().to_string(),
            command: command_line::display(&workload.command),
            app: ProcessStatus::default(),
            proxy: workload.is_meshed.then(ProcessStatus::default),
        });
    }

    /// Takes a workload off the list.
    pub(crate) fn remove(&self, id: &str) {
        self.workloads.borrow_mut().retain(|workload| workload.id() != id);
    }

    /// Changes the state of one process. One that is not listed any more is passed over.
    pub(crate) fn update(&self, subject: &Subject, change: impl FnOnce(&mut ProcessStatus)) {
        let id = match subject {
            Subject::Control => return change(&mut self.control.borrow_mut()),
            Subject::App(id) | Subject::Proxy(id) => id,
        };
        let mut workloads = self.workloads.borrow_mut();
        let Some(workload) = workloads.iter_mut().find(|workload| workload.id() == *id) else { return };
        match (subject, &mut workload.proxy) {
            (Subject::Proxy(_), Some(proxy)) => change(proxy),
            (Subject::App(_), _) => change(&mut workload.app),
            (Subject::Proxy(_), None) | (Subject::Control, _) => {}
        }
    }

    /// A process waits for `what`. Why it failed before stays to be read, when it did.
    pub(crate) fn pending(&self, subject: &Subject, what: &str) {
        self.update(subject, |status| {
            if status.restarts == 0 || status.message.is_empty() {
                what.clone_into(&mut status.message);
            }
            status.phase = Phase::Pending;
        });
    }

    /// The number of a workload's application, while it runs.
    pub(crate) fn pid_of_app(&self, id: &str) -> Option<i32> {
        self.workloads.borrow().iter().find(|workload| workload.id() == id)?.app.pid
    }

    /// From now on the mesh is going down.
    pub(crate) fn stopping(&self) {
        self.is_stopping.set(true);
    }

    /// Everything.
    pub(crate) fn status(&self) -> MeshStatus {
        MeshStatus {
            control: self.control.borrow().clone(),
            workloads: self.workloads.borrow().clone(),
            is_stopping: self.is_stopping.get(),
        }
    }
}
