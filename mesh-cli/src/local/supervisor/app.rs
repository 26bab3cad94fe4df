//! The application of a workload: started once its proxy is ready, as an unprivileged user.

use std::rc::Rc;
use std::time::Duration;

use super::board::Subject;
use super::keeper::{Charge, Refusal};
use super::process::{Process, StartError, launch};
use super::site::Site;
use crate::local::client::Phase;
use crate::local::mesh_file::RestartPolicy;

/// Time that an application is given to end. With the proxy's it is below that of the whole mesh.
const GRACE: Duration = Duration::from_secs(4);

/// The application of a workload.
pub(crate) struct App(pub(crate) Rc<Site>);

impl Charge for App {
    fn subject(&self) -> Subject {
        Subject::App(self.0.workload.id())
    }

    fn restart(&self) -> RestartPolicy {
        self.0.workload.restart
    }

    fn refusal(&self) -> Refusal {
        Refusal::GiveUp
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    async fn start(&self) -> Result<Process, StartError> {
        let site = &self.0;
        let context = &site.context;
        let subject = self.subject();
        site.until_ready(&subject).await?;
        context.board.update(&subject, |status| status.phase = Phase::Starting);
        let id = site.workload.id();
        launch(context, &context.directory.app_spec(&id), &context.directory.log(&format!("{id}.app"))).await
    }

    async fn before_restart(&self) {
        self.0.handover.hand_over(&self.0.context, &self.0.workload).await;
    }

    async fn attend(&self) {
        let site = &self.0;
        site.handover
            .take_back(&site.context, &site.workload, site.context.board.pid_of_app(&site.workload.id()))
            .await;
        // What runs is ready as far as anybody can tell who does not know what it is.
        self.0.context.board.update(&self.subject(), |status| status.phase = Phase::Running);
    }

    fn ended(&self) {}
}
