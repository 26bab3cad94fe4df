//! Arguments as typed. Every flag can be given as `MESH_CONTROL_<FLAG>` too; a flag goes before it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipnet::{Ipv4Net, Ipv6Net};

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

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Folder of YAML to watch; may be given several times (in the environment: separated by commas).
    #[arg(long, env = "MESH_CONTROL_CONFIG_DIR", value_name = "DIR", required = true, value_delimiter = ',')]
    pub config_dir: Vec<PathBuf>,
    /// Folder for the authority's keys and everything else that outlives a restart.
    #[arg(long, env = "MESH_CONTROL_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Where proxies connect (TLS).
    #[arg(long, env = "MESH_CONTROL_LISTEN", value_name = "ADDR:PORT", default_value = "0.0.0.0:15012")]
    pub listen: SocketAddr,
    /// Where `/metrics` and `/ready` are served (plain HTTP).
    #[arg(
        long,
        env = "MESH_CONTROL_METRICS_LISTEN",
        value_name = "ADDR:PORT",
        default_value = "127.0.0.1:15014"
    )]
    pub metrics_listen: SocketAddr,
    /// Socket for operators of this machine.
    #[arg(long, env = "MESH_CONTROL_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: PathBuf,
    /// Life of workload certificates, for instance 24h, 90s or 30d.
    #[arg(long, env = "MESH_CONTROL_WORKLOAD_TTL", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub workload_ttl: Duration,
    /// Life of intermediate authorities.
    #[arg(long, env = "MESH_CONTROL_INTERMEDIATE_TTL", value_name = "DURATION", default_value = "30d", value_parser = duration)]
    pub intermediate_ttl: Duration,
    /// Life of the root.
    #[arg(long, env = "MESH_CONTROL_ROOT_TTL", value_name = "DURATION", default_value = "3650d", value_parser = duration)]
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
    /// Log filter, for instance info or info,mesh_control=debug.
    #[arg(long, env = "MESH_CONTROL_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,
    /// Form of log lines.
    #[arg(long, env = "MESH_CONTROL_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a duration such as 24h, 90s, 500ms or 30d")]
pub struct DurationError {
    text: String,
}

/// Parses a whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, DurationError> {
    let refuse = || DurationError { text: text.to_owned() };
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(refuse)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refuse()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_a_unit() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "h", "24", "1.5h", "-1s", "24 h", "1w", "99999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
