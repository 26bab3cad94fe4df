//! One workload of the mesh: its proxy and its application, started, stopped and taken away together.

use std::fs;
use std::rc::Rc;

use super::app::App;
use super::context::Context;
use super::keeper::Keeper;
use super::network;
use super::proxy::Proxy;
use super::site::Site;
use crate::local::plan::Workload;
use crate::output;

/// Who starts the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The supervisor, which also keeps it running.
    Supervised,
    /// A command that is attached to a terminal.
    Attached,
}

/// A workload that was started.
#[derive(Debug)]
pub(crate) struct Member {
    /// What its processes share.
    pub(crate) site: Rc<Site>,
    /// Its application, unless somebody else starts it.
    pub(crate) app: Option<Keeper>,
    /// Its proxy, if it has one.
    pub(crate) proxy: Option<Keeper>,
}

impl Member {
    /// Starts a workload that is on the board already.
    pub(crate) fn start(context: &Rc<Context>, workload: Workload, mode: Mode) -> Self {
        let site = Rc::new(Site::new(Rc::clone(context), workload));
        let proxy = site.workload.is_meshed.then(|| Keeper::new(Rc::clone(context), Proxy(Rc::clone(&site))));
        let app = match mode {
            Mode::Supervised => Some(Keeper::new(Rc::clone(context), App(Rc::clone(&site)))),
            Mode::Attached => None,
        };
        Self { site, app, proxy }
    }

    /// Ends it: the application first, for which the proxy is the network.
    pub(crate) async fn stop(self) {
        if let Some(app) = self.app {
            app.stop().await;
        }
        if let Some(proxy) = self.proxy {
            proxy.stop().await;
        }
    }

    /// Ends it and takes away everything that is its own.
    pub(crate) async fn remove(self) {
        let site = Rc::clone(&self.site);
        let context = &site.context;
        let id = site.workload.id();
        self.stop().await;
        let mut failures = Vec::new();
        if site.has_network()
            && let Err(error) = network::unmake(context, &site.workload).await
        {
            failures.push(output::chain(&error));
        }
        failures.extend(context.withdraw_document(&id).err().map(|error| error.to_string()));
        match fs::remove_dir_all(context.directory.run(&id)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => failures.push(error.to_string()),
            Ok(()) | Err(_) => {}
        }
        context.leave(&site.workload);
        context.board.remove(&id);
        if !failures.is_empty() {
            output::note(&format!("{id} left something behind until the mesh ends: {}", failures.join("; ")));
        }
    }
}
