//! What of the checks has a meaning on one machine: control plane and authority.

use mesh_api::admin::ControlStatus;

use super::catalogue::{CONTROL_ANSWERS, CONTROL_READY};
use super::report::Report;
use super::{control, identity};
use crate::command::mesh::{LocalMesh, Mesh, Replica};
use crate::output;

/// Makes the checks.
pub(super) async fn look(mesh: &Mesh, local: &LocalMesh, report: &mut Report) {
    if local.has_ended() {
        report.bad(CONTROL_READY, vec![format!("mesh {} has ended", local.state.name)]);
        return;
    }
    let answers = match mesh.each_replica::<ControlStatus>("/status").await {
        Ok(answers) => answers,
        Err(error) => return report.bad(CONTROL_ANSWERS, vec![output::chain(&error)]),
    };
    let mut statuses = Vec::new();
    for Replica { name, answer } in answers {
        match answer {
            Ok(status) => statuses.push((name, status)),
            Err(error) => return report.bad(CONTROL_ANSWERS, vec![output::chain(&error)]),
        }
    }
    report.good(CONTROL_ANSWERS);
    control::of_statuses(&statuses, report);
    control::policies(mesh, report).await;
    identity::look(mesh, None, report).await;
}
