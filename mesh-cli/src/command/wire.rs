//! `meshctl x wire`: looks at the packets between the workloads and says, connection by connection, whether
//! they are TLS or plaintext.
//!
//! It reads a packet socket (packet(7)) in the network that joins the workloads, where everything passes
//! that leaves a workload. Only lengths and the first bytes of records are looked at; nothing is kept.
//! Joining that network must happen before this process has a second thread, so there is no event loop here.

mod direction;
mod flow;
mod packet;

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike as _};
use serde::Serialize;

use super::mesh::LocalMesh;
use super::{Failure, Outcome};
use crate::args::GlobalArgs;
use crate::local::enter::{self, Reach};
use crate::local::plan::Plan;
use crate::local::state;
use crate::output::{self, Format};
use flow::{Flow, Flows, Security};

/// Largest packet that is read whole: larger than any that the kernel merges by default (64 KiB).
const PACKET_BYTES_MAX: usize = 256 << 10;
/// Room for packets that arrive while others are looked at, in bytes.
const QUEUE_BYTES: usize = 32 << 20;
/// How often to look at the clock when nothing arrives.
const PAUSE_MS: i64 = 100;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct WireArgs {
    /// How long to look.
    #[arg(long, default_value_t = 5, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// One connection, as it is printed.
#[derive(Debug, Serialize)]
struct Row {
    /// Workload, or address, of the side that connected.
    source: String,
    /// Workload, or address, of the other side.
    destination: String,
    source_address: String,
    destination_address: String,
    /// `tcp` or `udp`.
    protocol: &'static str,
    security: Security,
    /// Payload in both directions, without what was sent again.
    bytes: u64,
    packets: u64,
}

/// Runs the command.
///
/// # Errors
/// When there is no mesh, or this user may not look at its packets.
pub(crate) fn run(global: &GlobalArgs, args: &WireArgs) -> Outcome {
    let mesh = LocalMesh::only(
        global,
        "On a cluster, `tcpdump` on a node shows its packets; `meshctl x authz check` the mode of a workload.",
    )?;
    let plan = state::read_plan(&mesh.directory)?;
    enter::enter(mesh.state.supervisor, mesh.state.privilege, Reach::HubNetwork)?;
    let socket = open().map_err(|errno| {
        Failure::new(format!("cannot look at the packets of the mesh: {}", errno.desc()))
            .hint("It takes the user that started the mesh, or root.")
    })?;
    if args.output == Format::Table {
        output::note(&format!("looking for {} s", args.seconds));
    }
    let flows = look(&socket, Duration::from_secs(args.seconds))
        .map_err(|errno| Failure::new(format!("cannot read packets: {}", errno.desc())))?;
    let rows: Vec<Row> = flows.into_list().iter().map(|flow| row(flow, &plan)).collect();
    match args.output {
        Format::Table => table(&rows),
        format => output::value(&rows, format),
    }
    Ok(ExitCode::SUCCESS)
}

/// A socket that is given every packet of this network from its IP header on.
fn open() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::milliseconds(PAUSE_MS))?;
    match setsockopt(&socket, RcvBufForce, &QUEUE_BYTES) {
        // Without it a burst may lose packets, which the flows bear.
        Ok(()) | Err(Errno::EPERM) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

fn look(socket: &OwnedFd, time: Duration) -> Result<Flows, Errno> {
    let end = Instant::now() + time;
    let mut flows = Flows::default();
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while Instant::now() < end {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                if let Some(packet) = buffer.get(..length).and_then(packet::parse) {
                    flows.add(&packet);
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(flows)
}

fn row(flow: &Flow, plan: &Plan) -> Row {
    Row {
        source: name(flow.client.ip(), plan),
        destination: format!("{}:{}", name(flow.server.ip(), plan), flow.server.port()),
        source_address: flow.client.to_string(),
        destination_address: flow.server.to_string(),
        protocol: flow.protocol.as_str(),
        security: flow.security(),
        bytes: flow.bytes(),
        packets: flow.packets,
    }
}

fn name(address: IpAddr, plan: &Plan) -> String {
    let has = |workload: &&crate::local::plan::Workload| {
        workload.addresses.v4() == address || workload.addresses.v6() == address
    };
    plan.workloads.iter().find(has).map_or_else(|| address.to_string(), crate::local::plan::Workload::id)
}

fn table(rows: &[Row]) {
    if rows.is_empty() {
        output::note("no payload was seen; `meshctl exec` makes some");
        return;
    }
    let cells = |row: &Row| {
        let security = match row.security {
            Security::Tls => output::good("tls"),
            Security::Plaintext => output::bad("plaintext"),
            Security::Unknown => output::doubtful("unknown"),
        };
        vec![
            row.source.clone(),
            row.destination.clone(),
            row.protocol.to_owned(),
            security,
            row.bytes.to_string(),
        ]
    };
    let all: Vec<Vec<String>> = rows.iter().map(cells).collect();
    output::table(&["SOURCE", "DESTINATION", "PROTOCOL", "SECURITY", "BYTES"], &all);
    let of = |security: Security| rows.iter().filter(|row| row.security == security).count();
    let (tls, plaintext, unknown) = (of(Security::Tls), of(Security::Plaintext), of(Security::Unknown));
    let mut text = format!("{} TLS, {plaintext} plaintext", output::count(tls, "connection", "connections"));
    if unknown > 0 {
        text.push_str(&format!(", {unknown} of which too little was seen to tell"));
    }
    output::note(&text);
}
