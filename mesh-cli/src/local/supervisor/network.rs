//! The network of a mesh: a bridge in the supervisor's namespace, and one namespace for each workload.
//!
//! The bridge is the whole of it. It has no uplink, nothing forwards, and no namespace has a default route:
//! there are routes to the mesh's own ranges only, so that a packet to anywhere else has no way from the
//! first moment to the last. A workload's namespace is kept by a bind mount, in a file system that exists in
//! the supervisor's mount namespace only and goes with it.
//!
//! The order in which a workload's network comes to be is fixed: interception before the cable. Until the
//! rules are in place the namespace hangs on nothing.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::{Ipv4Net, Ipv6Net};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::context::Context;
use super::process::{StartError, complete};
use crate::local::address::{VIP_NETWORK, VIP_NETWORK_V6};
use crate::local::plan::Workload;
use crate::local::program;

/// Name of the bridge, in the supervisor's namespace.
const BRIDGE: &str = "mesh0";
/// Name of a workload's only link.
const LINK: &str = "eth0";

/// What `local-network` is told.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct NetworkArgs {
    /// File that is to keep the namespace.
    #[arg(long)]
    keep: PathBuf,
    /// Number of the workload.
    #[arg(long)]
    index: u32,
    /// IPv4 address with the length of its prefix.
    #[arg(long)]
    v4: Ipv4Net,
    /// IPv6 address; none where the kernel has no IPv6.
    #[arg(long)]
    v6: Option<Ipv6Net>,
    /// The program `ip`.
    #[arg(long)]
    ip: PathBuf,
    /// The proxy, whose rules are to intercept; none for a workload outside of the mesh.
    #[arg(long)]
    proxy: Option<PathBuf>,
}

/// Why a network was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The kernel or a file refuses.
    #[error("cannot {step}")]
    Own {
        /// What was tried.
        step: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program that was to do a part of it failed.
    #[error("{program} failed: {reason}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        reason: String,
    },
    /// A program could not be run.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl NetworkError {
    fn own(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Own { step, source }
    }

    fn kernel(step: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let step = step.into();
        move |errno| Self::Own { step, source: errno.into() }
    }
}

/// Makes the bridge, and the place where the workloads' namespaces are kept.
///
/// # Errors
/// When the kernel refuses, or `ip` fails.
pub(crate) async fn make_hub(context: &Context) -> Result<(), NetworkError> {
    let kept = context.directory.networks();
    fs::create_dir_all(&kept).map_err(NetworkError::own(format!("create {}", kept.display())))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &kept, Some("tmpfs"), flags, Some("mode=0700,size=1m"))
        .map_err(NetworkError::kernel("make a place for the workloads' networks"))?;
    // A new namespace starts with the machine's IPv4 settings, which may forward.
    write_setting("/proc/sys/net/ipv4/ip_forward", "0");
    let hub = context.plan().network.hub();
    let mut batch = format!(
        "link set lo up\nlink add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0\n\
         address add {} dev {BRIDGE}\n",
        hub.v4
    );
    if context.has_ipv6 {
        batch.push_str(&format!("address add {} dev {BRIDGE} nodad\n", hub.v6));
    }
    batch.push_str(&format!("link set {BRIDGE} up\n"));
    let file = kept.join("hub.batch");
    fs::write(&file, batch).map_err(NetworkError::own(format!("write {}", file.display())))?;
    Ok(complete(context, Command::new(&context.programs.ip).arg("-batch").arg(&file)).await?)
}

/// Makes the network of a workload, by a process of its own: `meshctl local-network`.
///
/// # Errors
/// When that fails; the reason is the process's.
pub(crate) async fn make(context: &Context, workload: &Workload) -> Result<(), StartError> {
    let mut command = Command::new(&context.programs.meshctl);
    command.arg("local-network").arg("--keep").arg(context.directory.network(&workload.id()));
    command.arg("--index").arg(workload.index.to_string());
    command.arg("--v4").arg(workload.addresses.v4.to_string());
    if context.has_ipv6 {
        command.arg("--v6").arg(workload.addresses.v6.to_string());
    }
    command.arg("--ip").arg(&context.programs.ip);
    if workload.is_meshed {
        command.arg("--proxy").arg(&context.programs.proxy);
    }
    complete(context, &mut command).await.map_err(|error| match error {
        StartError::Refused(text) => {
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            StartError::Refused(format!("cannot make its network: {text}"))
        }
        other @ (StartError::Spawn(_) | StartError::Timeout | StartError::Prepare { .. }) => other,
    })
}

/// Takes a workload's network away.
pub(crate) async fn unmake(context: &Context, workload: &Workload) -> Result<(), StartError> {
    let link = hub_link(workload.index);
    let removed = complete(context, Command::new(&context.programs.ip).args(["link", "delete", &link])).await;
    let kept = context.directory.network(&workload.id());
    let let_go =
        umount2(&kept, MntFlags::MNT_DETACH).map_err(io::Error::from).and_then(|()| fs::remove_file(&kept));
    removed?;
    let_go.map_err(StartError::Spawn)
}

/// Makes the network of a workload: what `meshctl local-network` does.
///
/// # Errors
/// When the kernel refuses, or a program fails.
pub(crate) fn make_network(args: &NetworkArgs) -> Result<(), NetworkError> {
    let hub = fs::File::open("/proc/self/ns/net").map_err(NetworkError::own("open the hub's network"))?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(NetworkError::kernel("make a network namespace"))?;
    // An application without any privilege may listen on port 80, as in any container.
    write_setting("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    write_setting("/proc/sys/net/ipv4/ip_forward", "0");
    if let Some(proxy) = &args.proxy {
        let path = program::system_path(&std::env::var_os("PATH").unwrap_or_default());
        feed(
            "mesh-proxy intercept",
            Command::new(proxy).args(["intercept", "install"]).env("PATH", path),
            "",
        )?;
    }
    // The other end of the cable goes to the supervisor, which is process 1.
    feed("ip", Command::new(&args.ip).args(["-batch", "-"]), &workload_batch(args))?;
    let kept = &args.keep;
    fs::write(kept, "").map_err(NetworkError::own(format!("create {}", kept.display())))?;
    mount(Some("/proc/self/ns/net"), kept, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(NetworkError::kernel("keep the network namespace"))?;
    setns(hub.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(NetworkError::kernel("return to the hub's network"))?;
    feed("ip", Command::new(&args.ip).args(["-batch", "-"]), &hub_batch(args.index))
}

/// What `ip` does in the workload's namespace. The hardware address follows from the number, so that
/// neighbours need not learn a new one when an address is used again.
fn workload_batch(args: &NetworkArgs) -> String {
    let [a, b, c, d] = args.index.to_be_bytes();
    let peer = hub_link(args.index);
    let mut batch = format!(
        "link set lo up\n\
         link add {LINK} address 02:6d:{a:02x}:{b:02x}:{c:02x}:{d:02x} type veth peer name {peer} netns 1\n\
         address add {} dev {LINK}\n",
        args.v4
    );
    if let Some(v6) = args.v6 {
        batch.push_str(&format!("address add {v6} dev {LINK} nodad\n"));
    }
    batch.push_str(&format!("link set {LINK} up\nroute add {VIP_NETWORK} dev {LINK}\n"));
    if args.v6.is_some() {
        batch.push_str(&format!("route add {VIP_NETWORK_V6} dev {LINK}\n"));
    }
    batch
}

/// What `ip` does in the hub's: the cable is plugged in.
fn hub_batch(index: u32) -> String {
    let link = hub_link(index);
    format!("link set {link} master {BRIDGE}\nlink set {link} up\n")
}

/// Name of the hub's end of a workload's cable.
fn hub_link(index: u32) -> String {
    format!("w{index}")
}

/// Runs a program with a text on its standard input.
fn feed(program: &'static str, command: &mut Command, text: &str) -> Result<(), NetworkError> {
    let failed = |source| NetworkError::Own { step: format!("run {program}"), source };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says why.
        let _said_below = stdin.write_all(text.as_bytes());
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let reason = if said.trim().is_empty() { done.status.to_string() } else { said.trim().to_owned() };
    Err(NetworkError::Program { program, reason })
}

/// Sets what the kernel may not have, or what may be read-only here. Nothing that keeps packets inside
/// depends on it: there is no way out to forward to.
fn write_setting(path: &'static str, value: &str) {
    if let Err(error) = fs::write(Path::new(path), value) {
        crate::output::note(&format!("{path} stays as it is: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(v6: Option<&str>) -> NetworkArgs {
        NetworkArgs {
            keep: PathBuf::from("n"),
            index: 258,
            v4: "10.77.1.12/16".parse().expect("an address"),
            v6: v6.map(|v6| v6.parse().expect("an address")),
            ip: PathBuf::from("ip"),
            proxy: None,
        }
    }

    #[test]
    fn there_are_routes_to_the_mesh_and_nowhere_else() {
        let batch = workload_batch(&args(Some("fd77:6d6d:1::10c/64")));
        let routes: Vec<&str> = batch.lines().filter(|line| line.contains("route")).collect();
        assert_eq!(routes, ["route add 240.240.0.0/16 dev eth0", "route add fd77:6d6d::/64 dev eth0"]);
        assert!(!batch.contains("default") && !batch.contains(" via "), "{batch}");
    }

    #[test]
    fn a_kernel_without_ipv6_is_asked_for_none() {
        let batch = workload_batch(&args(None));
        assert!(!batch.contains("fd77"), "{batch}");
    }

    #[test]
    fn hardware_addresses_are_local_unicast_and_follow_from_the_number() {
        assert!(
            workload_batch(&args(None))
                .contains("address 02:6d:00:00:01:02 type veth peer name w258 netns 1")
        );
    }
}
