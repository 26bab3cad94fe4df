//! The control plane of the mesh: on the hub's address, reached by its socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use mesh_api::admin::ControlStatus;
use mesh_api::name::TrustDomain;

use super::board::Subject;
use super::context::Context;
use super::keeper::{Charge, Keeper, Refusal};
use super::process::{Process, StartError, launch};
use crate::admin_client;
use crate::local::address::{VIP_NETWORK, VIP_NETWORK_V6};
use crate::local::client::Phase;
use crate::local::launch::{LaunchSpec, Mount, Role};
use crate::local::mesh_file::RestartPolicy;
use crate::local::state;
use crate::output;

/// Port of discovery and certificates, as Istio has it.
pub(crate) const PORT: u16 = 15012;
/// Port of metrics, on the hub's loopback.
const METRICS: &str = "127.0.0.1:15014";
/// Its socket, seen from the state directory.
pub(crate) const SOCKET: &str = "control/admin.sock";
/// Between questions whether it is ready.
const UNTIL_READY: Duration = Duration::from_millis(20);
/// Between looks once it is.
const BETWEEN_LOOKS: Duration = Duration::from_secs(5);

struct ControlPlane(Rc<Context>);

/// Starts it and keeps it running.
pub(crate) fn start(context: &Rc<Context>) -> Keeper {
    Keeper::new(Rc::clone(context), ControlPlane(Rc::clone(context)))
}

impl ControlPlane {
    fn spec(&self) -> LaunchSpec {
        let context = &self.0;
        let plan = context.plan();
        let mut command = vec![context.programs.control.to_string_lossy().into_owned(), "run".to_owned()];
        let mut flag = |name: &str, value: String| command.extend([format!("--{name}"), value]);
        for folder in [context.directory.local_config(), plan.config.clone()] {
            flag("config-dir", folder.to_string_lossy().into_owned());
        }
        flag("state-dir", "control/state".to_owned());
        flag("listen", format!("{}:{PORT}", plan.network.hub().v4()));
        flag("metrics-listen", METRICS.to_owned());
        flag("admin-socket", SOCKET.to_owned());
        flag("workload-ttl", plan.workload_ttl.clone());
        flag("mesh-name", plan.name.clone());
        flag("vip-cidr", VIP_NETWORK.to_owned());
        flag("vip-cidr-v6", VIP_NETWORK_V6.to_owned());
        LaunchSpec {
            role: Role::Control,
            privilege: plan.privilege,
            network: None,
            hostname: None,
            mounts: vec![Mount::Release { target: context.directory.networks() }],
            // Its socket has a name relative to this folder, whose own path may be too long for the kernel.
            directory: context.directory.path().to_owned(),
            is_directory_required: false,
            environment: BTreeMap::new(),
            command,
        }
    }

    async fn trust_domain(&self) -> Result<TrustDomain, String> {
        let status: ControlStatus =
            admin_client::get(Path::new(SOCKET), "/status").await.map_err(|error| output::chain(&error))?;
        TrustDomain::parse(&status.trust_domain).map_err(|error| error.to_string())
    }
}

impl Charge for ControlPlane {
    fn subject(&self) -> Subject {
        Subject::Control
    }

    fn restart(&self) -> RestartPolicy {
        RestartPolicy::Always
    }

    fn refusal(&self) -> Refusal {
        Refusal::TryAgain
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(3)
    }

    async fn start(&self) -> Result<Process, StartError> {
        let file = PathBuf::from("run/.control.json");
        state::write_json(&file, &self.spec()).map_err(|error| StartError::prepare("describe it", &error))?;
        launch(&self.0, &file, &self.0.directory.log("control")).await
    }

    async fn attend(&self) {
        let mut pause = UNTIL_READY;
        loop {
            match self.trust_domain().await {
                Ok(trust_domain) => {
                    self.0.board.update(&Subject::Control, |status| {
                        status.phase = Phase::Running;
                        status.message.clear();
                    });
                    self.0.control.send_if_modified(|known| {
                        let is_new = known.as_ref() != Some(&trust_domain);
                        *known = Some(trust_domain);
                        is_new
                    });
                    pause = BETWEEN_LOOKS;
                }
                Err(message) => self.0.board.update(&Subject::Control, |status| status.message = message),
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn ended(&self) {
        self.0.control.send_replace(None);
    }
}
