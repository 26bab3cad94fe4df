//! Interception: the nftables rules that lead a workload's traffic through its proxy.
//!
//! The rules live in one table, `inet mini_mesh`, in the network namespace of the workload, and are fed to
//! `nft` as one transaction: there is no moment with half of them. They hold for IPv4 and IPv6 alike. They
//! stay when the proxy dies, so that what they lead to a closed port is refused: a workload without its
//! proxy has no network, never a plaintext one.
//!
//! The proxy's own packets are told apart by a mark and not by a user id, so that it matters to nobody as
//! whom proxy and application run; setting the mark needs `CAP_NET_ADMIN`, which applications do not have.

mod ruleset;

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, ExitStatus, Stdio};

use ipnet::IpNet;

pub use ruleset::render;

/// Name of the table.
pub const TABLE: &str = "inet mini_mesh";

/// Ports of the proxy that its operators reach from outside: metrics and readiness.
pub const EXCLUDED_INBOUND_PORTS: [u16; 2] = [15020, 15021];

/// Where `nft` may be when `PATH` does not say: it is a program of system administration.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// What is led where, and what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Port that outbound TCP is led to.
    pub outbound_port: u16,
    /// Port that inbound TCP is led to.
    pub inbound_port: u16,
    /// Port that queries to port 53 (UDP and TCP) are led to; `None` leaves them alone.
    pub dns_port: Option<u16>,
    /// Mark of the proxy's own packets. 0 marks nothing, and then `exclude_uids` must name the proxy's user.
    pub fwmark: u32,
    /// Users whose packets are left alone, by number.
    pub exclude_uids: Vec<u32>,
    /// Inbound ports that are left alone, besides [`EXCLUDED_INBOUND_PORTS`].
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound destinations that are left alone.
    pub exclude_outbound_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    /// The ports that Istio uses, and the mark 1337.
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            dns_port: Some(15053),
            fwmark: 1337,
            exclude_uids: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether something exempts the proxy's own packets. Without that they would be led back to it for ever.
    #[must_use]
    pub fn exempts_proxy(&self) -> bool {
        self.fwmark != 0 || !self.exclude_uids.is_empty()
    }

    /// Destinations of one family that are left alone, as prefixes that hold no host bits and do not overlap.
    fn excluded(&self, is_wanted: fn(&IpAddr) -> bool) -> Vec<IpNet> {
        let wanted = self.exclude_outbound_cidrs.iter().filter(|net| is_wanted(&net.addr()));
        IpNet::aggregate(&wanted.map(IpNet::trunc).collect())
    }
}

/// Why the rules could not be put in place or taken away.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The proxy's own packets would be led back to it.
    #[error(
        "nothing exempts the proxy's own traffic: give a mark other than 0, or the user that the proxy runs as"
    )]
    ProxyNotExempt,
    /// `nft` is not there.
    #[error("the program nft is missing: install the package nftables")]
    ProgramMissing,
    /// `nft` could not be run.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// `nft` refused.
    #[error("nft refused the rules ({status}): {message}")]
    Refused {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        message: String,
    },
}

/// Puts the rules in force in the network namespace of this process, in place of earlier ones.
///
/// Blocks until `nft` ends; called once before the workload's application starts.
///
/// # Errors
/// When `nft` is missing or refuses (usually: no `CAP_NET_ADMIN` here); then nothing has changed.
pub fn install(settings: &Settings) -> Result<(), InterceptError> {
    if !settings.exempts_proxy() {
        return Err(InterceptError::ProxyNotExempt);
    }
    feed(&render(settings))
}

/// Takes the rules away; that there are none is no error.
///
/// # Errors
/// When `nft` is missing or refuses.
pub fn remove() -> Result<(), InterceptError> {
    // Deleting what may be absent fails, so the table is declared first, in the same transaction.
    feed(&format!("table {TABLE}\ndelete table {TABLE}\n"))
}

fn feed(rules: &str) -> Result<(), InterceptError> {
    let mut nft = Command::new("nft");
    let path = std::env::var("PATH").unwrap_or_default();
    nft.args(["-f", "-"]).env("PATH", format!("{path}:{SYSTEM_PATH}"));
    nft.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = nft.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InterceptError::ProgramMissing,
        _ => InterceptError::Run(error),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // When nft ends before it has read everything, its exit status and message say more than this error.
        let _broken_pipe = stdin.write_all(rules.as_bytes());
    }
    let output = child.wait_with_output().map_err(InterceptError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(InterceptError::Refused { status: output.status, message })
}
