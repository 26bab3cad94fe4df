//! Arguments as typed. Every flag of `run` can be given as `MESH_PROXY_<FLAG>` too; a flag goes before it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ipnet::IpNet;
use mesh_daemon::duration;
use mesh_daemon::logging::LogFormat;

use crate::control::address::ControlAddress;

/// The sidecar proxy of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version, about, disable_help_subcommand = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves until SIGTERM or SIGINT, then drains. A second signal ends at once.
    Run(Box<RunArgs>),
    /// Leads the traffic of this network namespace through the proxy.
    Intercept {
        /// What to do about it.
        #[command(subcommand)]
        command: InterceptCommand,
    },
    /// Waits until the proxy beside it serves: for a container that must not start before.
    Wait(WaitArgs),
}

/// What to do about interception.
#[derive(Debug, Subcommand)]
pub enum InterceptCommand {
    /// Puts the rules in force, in place of earlier ones, as one transaction.
    Install(InterceptArgs),
    /// Prints the rules as nft reads them, and changes nothing.
    Show(InterceptArgs),
    /// Takes the rules away; that there are none is no error.
    Remove,
}

/// Arguments of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Whose proxy this is.
    #[arg(long, env = "MESH_PROXY_NODE_ID", value_name = "WORKLOAD.NAMESPACE")]
    pub node_id: String,
    /// Where the control plane serves proxies; a name is looked up anew at each connect.
    #[arg(long, env = "MESH_PROXY_CONTROL", value_name = "HOST:PORT")]
    pub control: ControlAddress,
    /// Roots by which the control plane is known while there is no certificate, PEM.
    #[arg(long, env = "MESH_PROXY_CONTROL_ROOT_CERT", value_name = "FILE")]
    pub control_root_cert: PathBuf,
    /// Trust domain of the mesh.
    #[arg(long, env = "MESH_PROXY_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,
    /// One-time join token, read whenever there is no valid certificate.
    #[arg(long, env = "MESH_PROXY_JOIN_TOKEN_FILE", value_name = "FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Kubernetes service-account token of the mesh's audience, in place of a join token. Read anew at each
    /// use, since the kubelet renews it.
    #[arg(long, env = "MESH_PROXY_SERVICE_ACCOUNT_TOKEN_FILE", value_name = "FILE")]
    pub service_account_token_file: Option<PathBuf>,
    /// Socket for operators of this machine.
    #[arg(long, env = "MESH_PROXY_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// The same over TCP, for operators who come through a port-forward; on loopback only.
    #[arg(long, env = "MESH_PROXY_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Port for intercepted traffic towards the workload.
    #[arg(long, env = "MESH_PROXY_INBOUND_PORT", value_name = "PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port for intercepted traffic from the workload.
    #[arg(long, env = "MESH_PROXY_OUTBOUND_PORT", value_name = "PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Port for intercepted DNS queries; 0 answers none.
    #[arg(long, env = "MESH_PROXY_DNS_PORT", value_name = "PORT", default_value_t = 15053)]
    pub dns_port: u16,
    /// Server for names outside of the mesh; may be given several times (in the environment: separated by
    /// commas). Default: those of /etc/resolv.conf that are not the proxy itself.
    #[arg(long, env = "MESH_PROXY_DNS_UPSTREAM", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub dns_upstream: Vec<SocketAddr>,
    /// Where readiness and metrics are served (plain HTTP).
    #[arg(long, env = "MESH_PROXY_STATUS_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:15021")]
    pub status_listen: SocketAddr,
    /// Probes of the application that are answered there, as JSON: an object of paths and what each one stands
    /// for. Default: none.
    #[arg(long, env = "MESH_PROXY_APP_PROBES", value_name = "JSON", default_value = "")]
    pub app_probes: String,
    /// Mark of the proxy's own packets, by which interception lets them pass; 0 marks none, and then
    /// interception must know them by the user that the proxy runs as.
    #[arg(long, env = "MESH_PROXY_FWMARK", value_name = "NUMBER", default_value_t = 1337)]
    pub fwmark: u32,
    /// Threads that carry traffic. Default: one for each whole core that the process may use (a limit of its
    /// container counts), at least 1 and at most 4.
    #[arg(long, env = "MESH_PROXY_WORKERS", value_name = "NUMBER")]
    pub workers: Option<usize>,
    /// Where access-log records go: a file, stdout, stderr or off.
    #[arg(long, env = "MESH_PROXY_ACCESS_LOG", value_name = "TARGET", default_value = "stdout")]
    pub access_log: String,
    /// Longest time from SIGTERM to the end.
    #[arg(long, env = "MESH_PROXY_DRAIN_DEADLINE", value_name = "DURATION", default_value = "30s", value_parser = duration::wait)]
    pub drain_deadline: Duration,
    /// Log filter, for instance info or info,mesh_proxy=debug.
    #[arg(long, env = "MESH_PROXY_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
    /// Form of log lines.
    #[arg(long, env = "MESH_PROXY_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Arguments of `wait`.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    /// Where the proxy serves its readiness.
    #[arg(long, env = "MESH_PROXY_STATUS_LISTEN", value_name = "ADDR:PORT", default_value = "[::]:15021")]
    pub status_listen: SocketAddr,
    /// Longest wait.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration::wait)]
    pub timeout: Duration,
}

impl WaitArgs {
    /// The address at which the proxy of this network namespace is asked.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self.status_listen.ip() {
            // A listener on all addresses is reached at loopback, and IPv4 is always there.
            ip if ip.is_unspecified() => {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.status_listen.port())
            }
            _ => self.status_listen,
        }
    }
}

/// Arguments of `intercept install` and `intercept show`. What is excluded is left alone even when it is
/// included too.
#[derive(Debug, Clone, clap::Args)]
pub struct InterceptArgs {
    /// Port that TCP from the workload is led to.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Port that TCP towards the workload is led to.
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port that DNS queries are led to; 0 leaves them alone.
    #[arg(long, value_name = "PORT", default_value_t = 15053)]
    pub dns_port: u16,
    /// Mark of the proxy's own packets; 0 expects none, and then a user must be excluded.
    #[arg(long, value_name = "NUMBER", default_value_t = 1337)]
    pub fwmark: u32,
    /// Users, by number, whose packets are left alone.
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    pub exclude_uid: Vec<u32>,
    /// Inbound ports that are left alone.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are left alone.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound destinations that are left alone.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Inbound ports that alone are led to the proxy; 0 leads none. Default: all.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub include_inbound_ports: Vec<u16>,
    /// Outbound ports that are led to the proxy whatever the destination.
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub include_outbound_ports: Vec<u16>,
    /// Outbound destinations that are led to the proxy. What is neither among these nor among the ports is then
    /// left alone. Default: all.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub include_outbound_cidrs: Vec<IpNet>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
