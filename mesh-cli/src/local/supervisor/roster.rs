//! Who belongs to the mesh: the control plane, the workloads of the plan, and those that joined later.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use tokio::task::JoinSet;

use super::context::Context;
use super::control_plane;
use super::keeper::Keeper;
use super::workload::{Member, Mode};
use crate::local::client::{Part, RunMode, RunRequest};
use crate::local::mesh_file::{CommandWords, Port, Text, WorkloadEntry};
use crate::local::plan::{self, Plan, Service, Surroundings, Workload};
use crate::local::state::StateError;

/// Names that are tried for a workload that states none.
const NAMES_TRIED_MAX: usize = 100;
/// Letters of the random end of such a name.
const RANDOM_LETTERS: usize = 5;

/// Everything that is kept running.
#[derive(Debug)]
pub(crate) struct Roster {
    context: Rc<Context>,
    control: OnceCell<Keeper>,
    members: RefCell<BTreeMap<String, Member>>,
}

/// Why a workload may not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// What was asked for cannot be.
    #[error("{field}: {message}")]
    Invalid {
        /// Which part of it.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The name is taken.
    #[error("another workload is called {0} already")]
    Taken(String),
    /// The name of the service that its ports imply is taken.
    #[error(
        "there is a service {0} already that does not lead to this workload; give it another --name, or labels that the service selects"
    )]
    ServiceTaken(String),
    /// It cannot be written down.
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a command is about is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// There is no such workload.
    #[error("there is no workload {0} in this mesh")]
    Unknown(String),
    /// It has no proxy.
    #[error("{0} has no proxy: it is outside of the mesh")]
    NoProxy(String),
    /// Its application is attached to a terminal.
    #[error("the application of {0} is attached to a terminal; end it there")]
    Attached(String),
    /// The control plane was not started yet.
    #[error("the mesh is only just starting")]
    TooEarly,
}

impl Roster {
    /// A roster with nobody on it.
    pub(crate) fn new(context: Rc<Context>) -> Self {
        Self { context, control: OnceCell::new(), members: RefCell::default() }
    }

    /// Starts the control plane.
    pub(crate) fn start_control(&self) {
        self.control.get_or_init(|| control_plane::start(&self.context));
    }

    /// Starts a workload.
    pub(crate) fn start(&self, workload: Workload, mode: Mode) {
        self.context.board.add(&workload);
        let id = workload.id();
        let member = Member::start(&self.context, workload, mode);
        self.members.borrow_mut().insert(id, member);
    }

    /// Plans and starts one more workload.
    ///
    /// # Errors
    /// When it may not be.
    pub(crate) fn join(&self, request: RunRequest) -> Result<Workload, JoinError> {
        let mode = match request.mode {
            RunMode::Supervised => Mode::Supervised,
            RunMode::Attached => Mode::Attached,
        };
        let (workload, implied) = planned(request, &self.context.plan(), &random_letters)?;
        self.context.join(&workload, implied.as_ref())?;
        self.start(workload.clone(), mode);
        Ok(workload)
    }

    /// Takes a workload out of the mesh, with everything that is its own.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), OrderError> {
        let member = self.members.borrow_mut().remove(id);
        member.ok_or_else(|| OrderError::Unknown(id.to_owned()))?.remove().await;
        Ok(())
    }

    /// Ends a process and starts it again.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn restart(&self, id: &str, part: Part) -> Result<(), OrderError> {
        if part == Part::Control {
            return self.control.get().map(Keeper::restart).ok_or(OrderError::TooEarly);
        }
        let members = self.members.borrow();
        let member = members.get(id).ok_or_else(|| OrderError::Unknown(id.to_owned()))?;
        let keeper = match part {
            Part::App => member.app.as_ref().ok_or_else(|| OrderError::Attached(id.to_owned())),
            Part::Proxy | Part::Control => {
                member.proxy.as_ref().ok_or_else(|| OrderError::NoProxy(id.to_owned()))
            }
        };
        keeper.map(Keeper::restart)
    }

    /// Waits until a workload's application may start.
    pub(crate) async fn until_ready(&self, id: &str) -> Result<(), OrderError> {
        let site = self.members.borrow().get(id).map(|member| Rc::clone(&member.site));
        let site = site.ok_or_else(|| OrderError::Unknown(id.to_owned()))?;
        let subject = super::board::Subject::App(id.to_owned());
        match site.until_ready(&subject).await {
            Ok(()) => Ok(()),
            Err(_) => Err(OrderError::Unknown(id.to_owned())),
        }
    }

    /// Ends everything: all workloads at the same time, then the control plane.
    pub(crate) async fn stop_all(&self) {
        let members = std::mem::take(&mut *self.members.borrow_mut());
        let mut ends = JoinSet::new();
        for member in members.into_values() {
            ends.spawn_local(member.stop());
        }
        ends.join_all().await;
        if let Some(control) = self.control.get() {
            control.stop().await;
        }
    }
}

fn random_letters() -> String {
    std::iter::repeat_with(fastrand::lowercase).take(RANDOM_LETTERS).collect()
}

/// The workload that a request means, and the service that its ports imply. `letters` makes random names.
fn planned(
    request: RunRequest,
    plan: &Plan,
    letters: &dyn Fn() -> String,
) -> Result<(Workload, Option<Service>), JoinError> {
    let is_taken = |name: &str| {
        plan.workloads.iter().any(|w| w.name == name && w.namespace.as_str() == request.namespace)
    };
    let name = match &request.name {
        Some(name) if is_taken(name) => {
            return Err(JoinError::Taken(format!("{name}.{}", request.namespace)));
        }
        Some(name) => name.clone(),
        None => (0..NAMES_TRIED_MAX)
            .map(|_| format!("{}-{}", request.service_account, letters()))
            .find(|name| !is_taken(name))
            .ok_or_else(|| JoinError::Taken(request.service_account.clone()))?,
    };
    let invalid = |(field, message)| JoinError::Invalid { field, message };
    let ports: Vec<Port> = request
        .ports
        .iter()
        .map(|port| Port {
            port: *port,
            target_port: None,
            name: String::new(),
            protocol: None,
            app_protocol: None,
        })
        .collect();
    let entry = WorkloadEntry {
        name,
        namespace: Some(request.namespace),
        service_account: Some(request.service_account),
        labels: request.labels.into_iter().map(|(key, value)| (key, Text(value))).collect(),
        command: CommandWords(request.command),
        env: BTreeMap::new(),
        working_directory: Some(PathBuf::from(request.directory)),
        ports: ports.clone(),
        replicas: None,
        mesh: Some(request.is_meshed),
        user: request.user.map(Text),
        restart: request.restart,
    };
    let surroundings = Surroundings {
        file: plan.file.clone(),
        name: None,
        privilege: plan.privilege,
        environment: request.environment,
    };
    let mut workloads =
        plan::workloads(&entry, &surroundings, plan.network, free_index(plan)).map_err(invalid)?;
    let mut workload = workloads.pop().ok_or_else(|| invalid(("replicas".to_owned(), "none".to_owned())))?;
    // The directory is where the command was typed, which nobody promised the application could enter.
    workload.is_directory_required = false;
    let needs_service = workload.is_meshed && !ports.is_empty();
    if !needs_service || plan.services.iter().any(|service| service.selects(&workload)) {
        return Ok((workload, None));
    }
    let implied = plan::implied(&workload.name, &workload, &ports).map_err(invalid)?;
    if plan.services.iter().any(|s| s.name == implied.name && s.namespace == implied.namespace) {
        return Err(JoinError::ServiceTaken(format!("{}.{}", implied.name, implied.namespace)));
    }
    Ok((workload, Some(implied)))
}

/// The number behind the highest that is in use; the lowest free one once the network is full.
fn free_index(plan: &Plan) -> u32 {
    let used: Vec<u32> = plan.workloads.iter().map(|workload| workload.index).collect();
    let behind = used.iter().max().map_or(0, |highest| highest.saturating_add(1));
    if plan.network.workload(behind).is_some() {
        return behind;
    }
    (0..behind).find(|index| !used.contains(index)).unwrap_or(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::mesh_file::RestartPolicy;

    fn plan(text: &str) -> Plan {
        plan::planned("/srv/mesh.yaml", text)
    }

    fn request(name: Option<&str>, ports: &[u16]) -> RunRequest {
        RunRequest {
            name: name.map(str::to_owned),
            namespace: "web".to_owned(),
            service_account: "tester".to_owned(),
            labels: BTreeMap::new(),
            ports: ports.to_vec(),
            command: vec!["true".to_owned()],
            environment: BTreeMap::new(),
            directory: "/".to_owned(),
            user: None,
            is_meshed: true,
            mode: RunMode::Supervised,
            restart: RestartPolicy::No,
        }
    }

    const MESH: &str =
        "workloads: [{name: a, namespace: web, command: x, ports: [80]}, {name: b, command: x}]";

    #[test]
    fn who_joins_gets_the_next_number_and_a_name_that_is_free() {
        let letters = || "abcde".to_owned();
        let (workload, implied) = planned(request(None, &[]), &plan(MESH), &letters).expect("it may join");
        assert_eq!((workload.id().as_str(), workload.index), ("tester-abcde.web", 2));
        assert!(implied.is_none(), "no ports, no service");
        let taken = planned(request(Some("a"), &[]), &plan(MESH), &letters);
        assert!(matches!(taken, Err(JoinError::Taken(id)) if id == "a.web"));
    }

    #[test]
    fn ports_imply_a_service_unless_one_leads_there_already() {
        let letters = || "abcde".to_owned();
        let (workload, implied) =
            planned(request(Some("new"), &[80]), &plan(MESH), &letters).expect("it may join");
        assert!(implied.expect("a service").selects(&workload));
        let mut as_a = request(Some("a2"), &[80]);
        as_a.labels.insert("app".to_owned(), "a".to_owned());
        let (_, implied) = planned(as_a, &plan(MESH), &letters).expect("it may join");
        assert!(implied.is_none(), "the service of a leads to it");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let letters = || "abcde".to_owned();
        let refused = planned(request(Some("Not A Name"), &[]), &plan(MESH), &letters);
        assert!(matches!(refused, Err(JoinError::Invalid { field, .. }) if field == "name"));
    }

    #[test]
    fn numbers_are_used_again_only_when_the_network_is_full() {
        let mut plan =
            plan("network: 10.0.0.0/24\nworkloads: [{name: a, command: x}, {name: b, command: x}]");
        plan.workloads.remove(0);
        assert_eq!(free_index(&plan), 2);
        plan.workloads[0].index = 244;
        assert_eq!(free_index(&plan), 0);
    }
}
