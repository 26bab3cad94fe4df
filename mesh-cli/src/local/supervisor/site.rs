//! What proxy and application of a workload share: its network and its files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::{OnceCell, watch};

use super::board::Subject;
use super::context::Context;
use super::handover::Handover;
use super::network;
use super::process::StartError;
use crate::local::launch::{LaunchSpec, Mount, Role};
use crate::local::plan::Workload;
use crate::local::state;

/// Sockets over which the C library's name service asks the machine's own resolvers: these would answer with
/// the machine's names, past the mesh (nss-resolve(8), nscd(8), nss-mdns, D-Bus for older resolved).
const RESOLVERS: [&str; 4] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/run/avahi-daemon/socket",
    "/run/dbus/system_bus_socket",
];

/// What proxy and application of a workload share.
#[derive(Debug)]
pub(crate) struct Site {
    /// What every task needs.
    pub(crate) context: Rc<Context>,
    /// What was planned.
    pub(crate) workload: Workload,
    /// Whether the proxy is ready.
    pub(crate) ready: watch::Sender<bool>,
    /// Where its traffic is while the application is restarted.
    pub(crate) handover: Handover,
    network: OnceCell<()>,
}

impl Site {
    /// The site of a workload, with nothing made yet.
    pub(crate) fn new(context: Rc<Context>, workload: Workload) -> Self {
        Self {
            context,
            workload,
            ready: watch::Sender::new(false),
            handover: Handover::default(),
            network: OnceCell::new(),
        }
    }

    /// Whether there is a network to take away.
    pub(crate) fn has_network(&self) -> bool {
        self.network.initialized()
    }

    /// Makes the network and the files, once.
    pub(crate) async fn make_network(&self) -> Result<(), StartError> {
        let made = self.network.get_or_try_init(|| async {
            self.lay_out().map_err(|error| StartError::prepare("lay out its files", &error))?;
            network::make(&self.context, &self.workload).await
        });
        made.await.map(|_made| ())
    }

    /// Waits until an application may start: its proxy is ready, or it has none and its network is there.
    pub(crate) async fn until_ready(&self, subject: &Subject) -> Result<(), StartError> {
        if !self.workload.is_meshed {
            return self.make_network().await;
        }
        self.context.board.pending(subject, "waits for its proxy");
        let mut ready = self.ready.subscribe();
        let is_ready = ready.wait_for(|is_ready| *is_ready).await.is_ok();
        if is_ready {
            return Ok(());
        }
        Err(StartError::Prepare { step: "wait for its proxy", reason: "the mesh goes down".to_owned() })
    }

    fn lay_out(&self) -> Result<(), state::StateError> {
        let folder = self.context.directory.run(&self.workload.id());
        let made = fs::create_dir_all(&folder);
        made.map_err(|source| state::StateError::File { action: "create", path: folder.clone(), source })?;
        let hub = self.workload.is_meshed.then(|| self.context.plan().network.hub().v4());
        let resolver = resolver(hub, self.workload.namespace.as_str());
        state::write_file(&folder.join("resolv.conf"), resolver.as_bytes(), 0o644)?;
        let own = "# Names outside of the mesh are asked of nobody: there is no way to them.\n";
        state::write_file(&folder.join("proxy-resolv.conf"), own.as_bytes(), 0o644)?;
        state::write_file(&folder.join("hosts"), hosts(&self.workload).as_bytes(), 0o644)?;
        state::write_json(&self.context.directory.app_spec(&self.workload.id()), &self.app_spec(&folder))
    }

    fn app_spec(&self, folder: &Path) -> LaunchSpec {
        let workload = &self.workload;
        let mut mounts = vec![Mount::Release { target: self.context.directory.networks() }];
        mounts.extend(resolver_mounts(&folder.join("resolv.conf")));
        mounts.extend(seen_at(&folder.join("hosts"), "/etc/hosts"));
        // Without root the application is the same user as everything else, and could read it all.
        mounts.push(Mount::Empty { target: self.context.directory.path().to_owned() });
        LaunchSpec {
            role: Role::App(workload.user.clone()),
            privilege: self.context.plan().privilege,
            network: Some(self.context.directory.network(&workload.id())),
            hostname: Some(workload.name.clone()),
            mounts,
            directory: workload.directory.clone(),
            is_directory_required: workload.is_directory_required,
            environment: workload.environment.clone(),
            command: workload.command.clone(),
        }
    }
}

/// What a program's view of the file system is changed by, so that it asks names where `file` says.
pub(crate) fn resolver_mounts(file: &Path) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = seen_at(file, "/etc/resolv.conf").into_iter().collect();
    mounts.extend(RESOLVERS.iter().map(|socket| Mount::Mask { target: PathBuf::from(socket) }));
    mounts
}

/// `file` in the place of a file of the machine, which may not have it.
fn seen_at(file: &Path, target: &str) -> Option<Mount> {
    let target = PathBuf::from(target);
    target.exists().then(|| Mount::Bind { source: file.to_owned(), target })
}

/// `/etc/resolv.conf`. The address is the hub's, where nobody listens: the rules lead every query to the
/// workload's own proxy, and without them it is refused. Search domains are those of Kubernetes.
fn resolver(hub: Option<IpAddr>, namespace: &str) -> String {
    match hub {
        Some(hub) => format!(
            "nameserver {hub}\nsearch {namespace}.svc.cluster.local svc.cluster.local cluster.local\n\
             options timeout:2 attempts:2\n"
        ),
        None => "# Outside of the mesh there is nobody to ask.\n".to_owned(),
    }
}

/// `/etc/hosts`, with the host's own name as Kubernetes has it.
fn hosts(workload: &Workload) -> String {
    let name = &workload.name;
    let addresses = workload.addresses;
    format!(
        "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{} {name}\n{} {name}\n",
        addresses.v4(),
        addresses.v6()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_asks_the_hub_and_a_stranger_nobody() {
        let member = resolver(Some(IpAddr::from([10, 77, 0, 1])), "web");
        assert!(member.starts_with(
            "nameserver 10.77.0.1\nsearch web.svc.cluster.local svc.cluster.local cluster.local\n"
        ));
        assert!(!resolver(None, "web").contains("nameserver"));
    }
}
