//! Arguments as typed. Every flag can be given as `MESH_CONTROL_<FLAG>` too; a flag goes before it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use ipnet::{AddrParseError, IpNet, Ipv4Net, Ipv6Net};
use mesh_daemon::duration;
use mesh_daemon::logging::LogFormat;
use mesh_kube::name;

use crate::jwks::guard::{self, Destination};

/// The control plane of the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-control", version, about, disable_help_subcommand = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves until SIGTERM or SIGINT.
    Run(Box<RunArgs>),
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Folder of YAML to watch; may be given several times (in the environment: separated by commas).
    #[arg(
        long,
        env = "MESH_CONTROL_CONFIG_DIR",
        value_name = "DIR",
        required_unless_present = "kubernetes",
        conflicts_with = "kubernetes",
        value_delimiter = ','
    )]
    pub config_dir: Vec<PathBuf>,
    /// Objects come from the API server of a cluster: the one that this process runs in, else that of
    /// KUBECONFIG.
    #[arg(long, env = "MESH_CONTROL_KUBERNETES")]
    pub kubernetes: bool,
    /// Revision of this installation.
    #[arg(
        long,
        env = "MESH_CONTROL_REVISION",
        value_name = "NAME",
        default_value = name::DEFAULT_REVISION,
        requires = "kubernetes"
    )]
    pub revision: String,
    /// Namespace of the control plane and of its settings, Secret and Lease.
    #[arg(
        long,
        env = "MESH_CONTROL_CONFIG_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = name::SYSTEM_NAMESPACE,
        requires = "kubernetes"
    )]
    pub config_namespace: String,
    /// Name of this replica; the name of its pod. Default: the name of the machine.
    #[arg(long, env = "POD_NAME", value_name = "NAME", hide_env_values = true)]
    pub pod_name: Option<String>,
    /// Where the API server reaches the webhooks (HTTPS).
    #[arg(
        long,
        env = "MESH_CONTROL_WEBHOOK_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "[::]:15017",
        requires = "kubernetes"
    )]
    pub webhook_listen: SocketAddr,
    /// Folder for the authority's keys and everything else that outlives a restart.
    #[arg(long, env = "MESH_CONTROL_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Where proxies connect (TLS).
    #[arg(long, env = "MESH_CONTROL_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:15012")]
    pub listen: SocketAddr,
    /// Where `/metrics`, `/live` and `/ready` are served (plain HTTP).
    #[arg(
        long,
        env = "MESH_CONTROL_METRICS_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:15014"
    )]
    pub metrics_listen: SocketAddr,
    /// Socket for operators of this machine.
    #[arg(
        long,
        env = "MESH_CONTROL_ADMIN_SOCKET",
        value_name = "PATH",
        required_unless_present = "admin_listen"
    )]
    pub admin_socket: Option<PathBuf>,
    /// Where operators are served over TCP (plain HTTP, the same answers as at the socket); on loopback only,
    /// for everybody there may ask for any identity. In a pod it is reached by port-forward.
    #[arg(long, env = "MESH_CONTROL_ADMIN_LISTEN", value_name = "ADDR:PORT")]
    pub admin_listen: Option<SocketAddr>,
    /// Life of workload certificates, for instance 24h, 90s or 30d.
    #[arg(long, env = "MESH_CONTROL_WORKLOAD_TTL", value_name = "DURATION", default_value = "24h", value_parser = duration::lifetime)]
    pub workload_ttl: Duration,
    /// Life of intermediate authorities.
    #[arg(long, env = "MESH_CONTROL_INTERMEDIATE_TTL", value_name = "DURATION", default_value = "30d", value_parser = duration::lifetime)]
    pub intermediate_ttl: Duration,
    /// Life of the root.
    #[arg(long, env = "MESH_CONTROL_ROOT_TTL", value_name = "DURATION", default_value = "3650d", value_parser = duration::lifetime)]
    pub root_ttl: Duration,
    /// Name of the mesh, for people.
    #[arg(long, env = "MESH_CONTROL_MESH_NAME", value_name = "NAME", default_value = "mini-mesh")]
    pub mesh_name: String,
    /// Range of IPv4 addresses for services that state none.
    #[arg(long, env = "MESH_CONTROL_VIP_CIDR", value_name = "CIDR", default_value = "240.240.0.0/16")]
    pub vip_cidr: Ipv4Net,
    /// Range of IPv6 addresses for services that state none.
    #[arg(long, env = "MESH_CONTROL_VIP_CIDR_V6", value_name = "CIDR", default_value = "fd77:6d6d::/64")]
    pub vip_cidr_v6: Ipv6Net,
    /// The only destinations that keys of token issuers are fetched from (jwksUri, OpenID discovery and where
    /// they lead): a host, *.DOMAIN or a network; may be given several times. Default: all but link-local,
    /// metadata and similar addresses, which are never asked.
    #[arg(
        long,
        env = "MESH_CONTROL_JWKS_ALLOW_DESTINATION",
        value_name = "HOST|CIDR",
        value_delimiter = ','
    )]
    pub jwks_allow_destination: Vec<Destination>,
    /// Network that keys are not fetched from; may be given several times.
    #[arg(
        long,
        env = "MESH_CONTROL_JWKS_BLOCK_DESTINATION",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = jwks_network
    )]
    pub jwks_block_destination: Vec<IpNet>,
    /// Certificates (PEM) of authorities that token issuers may have theirs from, beside the system's.
    #[arg(long, env = "MESH_CONTROL_JWKS_CA_CERTIFICATES", value_name = "FILE")]
    pub jwks_ca_certificates: Option<PathBuf>,
    /// Time between two looks at each issuer's keys, at least 1m.
    #[arg(long, env = "MESH_CONTROL_JWKS_REFRESH_INTERVAL", value_name = "DURATION", default_value = "20m", value_parser = duration::wait)]
    pub jwks_refresh_interval: Duration,
    /// Log filter, for instance info or info,mesh_control=debug.
    #[arg(long, env = "MESH_CONTROL_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
    /// Form of log lines.
    #[arg(long, env = "MESH_CONTROL_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

fn jwks_network(text: &str) -> Result<IpNet, AddrParseError> {
    guard::network(text)
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
