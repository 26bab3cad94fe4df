//! Arguments as meant: checked together, with defaults filled in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::{Ipv4Net, Ipv6Net};
use mesh_api::name::{NameError, Namespace};
use mesh_kube::name;

use crate::args::RunArgs;
use crate::jwks::KeySettings;
use crate::jwks::schedule::{Intervals, REFRESH_MIN};

/// Why the arguments cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A lifetime is longer than that of its issuer allows.
    #[error("--{shorter} ({shorter_life:?}) must be less than --{longer} ({longer_life:?})")]
    Lifetimes {
        /// Flag of what must be shorter.
        shorter: &'static str,
        /// Its value.
        shorter_life: Duration,
        /// Flag of what must be longer.
        longer: &'static str,
        /// Its value.
        longer_life: Duration,
    },
    /// A lifetime is too short to be of use.
    #[error("--workload-ttl ({found:?}) must be at least {least:?}")]
    TooShort {
        /// Found.
        found: Duration,
        /// Needed.
        least: Duration,
    },
    /// Keys would be asked for too often.
    #[error("--jwks-refresh-interval ({found:?}) must be at least {REFRESH_MIN:?}")]
    Refresh {
        /// Found.
        found: Duration,
    },
    /// A range has no room.
    #[error("--{flag} {range} has room for fewer than 14 services; use a shorter prefix")]
    Range {
        /// The flag.
        flag: &'static str,
        /// The range.
        range: String,
    },
    /// Operators would be served to others than this machine's.
    #[error(
        "--admin-listen {address} is not a loopback address; whoever reaches it may ask for any identity"
    )]
    AdminListen {
        /// The address.
        address: SocketAddr,
    },
    /// A name of a cluster's object is not one.
    #[error("--{flag} {found:?} is not a valid name")]
    Name {
        /// The flag.
        flag: &'static str,
        /// Found.
        found: String,
        /// Why.
        source: NameError,
    },
    /// The same folder twice.
    #[error("--config-dir {} is given twice", path.display())]
    Twice {
        /// The folder.
        path: PathBuf,
    },
}

/// Shortest life of workload certificates.
pub const WORKLOAD_TTL_MIN: Duration = Duration::from_secs(5);

/// Where the objects of the mesh come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Folders of YAML, in order of precedence.
    Folders(Vec<PathBuf>),
    /// A cluster.
    Kubernetes(ClusterConfig),
}

/// Settings of a control plane of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Revision of this installation.
    pub revision: String,
    /// Namespace of the control plane.
    pub namespace: Namespace,
    /// Name of this replica.
    pub replica: String,
    /// Where the webhooks are served.
    pub webhook_listen: SocketAddr,
}

impl ClusterConfig {
    /// The name of this revision's object, for one that each revision has: `mini-mesh`, or `mini-mesh-canary`.
    #[must_use]
    pub fn of_revision(&self, base: &str) -> String {
        match self.revision.as_str() {
            name::DEFAULT_REVISION => base.to_owned(),
            revision => format!("{base}-{revision}"),
        }
    }
}

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where objects come from.
    pub origin: Origin,
    /// Folder of state.
    pub state_dir: PathBuf,
    /// Where proxies connect.
    pub listen: SocketAddr,
    /// Where metrics are served.
    pub metrics_listen: SocketAddr,
    /// Socket for operators.
    pub admin_socket: Option<PathBuf>,
    /// Where operators are served over TCP; a loopback address.
    pub admin_listen: Option<SocketAddr>,
    /// Life of workload certificates.
    pub workload_ttl: Duration,
    /// Life of intermediates.
    pub intermediate_ttl: Duration,
    /// Life of the root.
    pub root_ttl: Duration,
    /// Name of the mesh.
    pub mesh_name: String,
    /// Range of IPv4 virtual addresses.
    pub vip_v4: Ipv4Net,
    /// Range of IPv6 virtual addresses.
    pub vip_v6: Ipv6Net,
    /// Keys of token issuers.
    pub keys: KeySettings,
}

impl Config {
    /// Checks the arguments.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(args: &RunArgs) -> Result<Self, ConfigError> {
        if args.workload_ttl < WORKLOAD_TTL_MIN {
            return Err(ConfigError::TooShort { found: args.workload_ttl, least: WORKLOAD_TTL_MIN });
        }
        let lives = [
            ("workload-ttl", args.workload_ttl),
            ("intermediate-ttl", args.intermediate_ttl),
            ("root-ttl", args.root_ttl),
        ];
        for pair in lives.windows(2) {
            let [(shorter, shorter_life), (longer, longer_life)] = pair else { continue };
            if shorter_life >= longer_life {
                return Err(ConfigError::Lifetimes {
                    shorter,
                    shorter_life: *shorter_life,
                    longer,
                    longer_life: *longer_life,
                });
            }
        }
        if args.vip_cidr.prefix_len() > 28 {
            return Err(ConfigError::Range { flag: "vip-cidr", range: args.vip_cidr.to_string() });
        }
        if args.vip_cidr_v6.prefix_len() > 124 {
            return Err(ConfigError::Range { flag: "vip-cidr-v6", range: args.vip_cidr_v6.to_string() });
        }
        if args.jwks_refresh_interval < REFRESH_MIN {
            return Err(ConfigError::Refresh { found: args.jwks_refresh_interval });
        }
        if let Some(address) = args.admin_listen.filter(|address| !address.ip().to_canonical().is_loopback())
        {
            return Err(ConfigError::AdminListen { address });
        }
        Ok(Self {
            origin: origin(args)?,
            state_dir: args.state_dir.clone(),
            listen: args.listen,
            metrics_listen: args.metrics_listen,
            admin_socket: args.admin_socket.clone(),
            admin_listen: args.admin_listen,
            workload_ttl: args.workload_ttl,
            intermediate_ttl: args.intermediate_ttl,
            root_ttl: args.root_ttl,
            mesh_name: args.mesh_name.clone(),
            vip_v4: args.vip_cidr,
            vip_v6: args.vip_cidr_v6,
            keys: KeySettings {
                allowed: args.jwks_allow_destination.clone(),
                blocked: args.jwks_block_destination.clone(),
                ca_certificates: args.jwks_ca_certificates.clone(),
                intervals: Intervals {
                    refresh: args.jwks_refresh_interval,
                    ..KeySettings::default().intervals
                },
            },
        })
    }
}

fn origin(args: &RunArgs) -> Result<Origin, ConfigError> {
    if !args.kubernetes {
        for (position, path) in args.config_dir.iter().enumerate() {
            if args.config_dir[..position].contains(path) {
                return Err(ConfigError::Twice { path: path.clone() });
            }
        }
        return Ok(Origin::Folders(args.config_dir.clone()));
    }
    let invalid = |flag, found: &str| {
        let found = found.to_owned();
        move |source| ConfigError::Name { flag, found, source }
    };
    let namespace = Namespace::parse(&args.config_namespace)
        .map_err(invalid("config-namespace", &args.config_namespace))?;
    // A revision is part of names and the value of a label, which a namespace's name fits too.
    Namespace::parse(&args.revision).map_err(invalid("revision", &args.revision))?;
    let machine = || machine_name().unwrap_or_else(|| name::CONTROL.to_owned());
    Ok(Origin::Kubernetes(ClusterConfig {
        revision: args.revision.clone(),
        namespace,
        replica: args.pod_name.clone().filter(|pod| !pod.is_empty()).unwrap_or_else(machine),
        webhook_listen: args.webhook_listen,
    }))
}

/// Name of the machine, as the kernel has it.
fn machine_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(text.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn config(extra: &[&str]) -> Result<Config, ConfigError> {
        let base = ["mesh-control", "run", "--config-dir", "c", "--state-dir", "s", "--admin-socket", "a"];
        let args = crate::args::Args::try_parse_from(base.iter().chain(extra)).expect("parses");
        let crate::args::Command::Run(run) = args.command;
        Config::new(&run)
    }

    #[test]
    fn lifetimes_must_nest() {
        assert!(config(&[]).is_ok());
        assert!(config(&["--workload-ttl", "10s", "--intermediate-ttl", "60s"]).is_ok());
        assert!(matches!(config(&["--workload-ttl", "31d"]), Err(ConfigError::Lifetimes { .. })));
        assert!(matches!(config(&["--intermediate-ttl", "4000d"]), Err(ConfigError::Lifetimes { .. })));
        assert!(matches!(config(&["--workload-ttl", "1s"]), Err(ConfigError::TooShort { .. })));
    }

    #[test]
    fn what_is_said_of_keys_is_read() {
        let flags = [
            "--jwks-allow-destination",
            "idp.example,10.0.0.0/8",
            "--jwks-allow-destination",
            "*.corp.example",
            "--jwks-block-destination",
            "10.9.0.0/16",
            "--jwks-refresh-interval",
            "5m",
        ];
        let keys = config(&flags).expect("valid").keys;
        assert_eq!((keys.allowed.len(), keys.blocked.len()), (3, 1));
        assert_eq!(keys.intervals.refresh, Duration::from_secs(300));
        assert_eq!(config(&[]).expect("valid").keys.intervals.refresh, Duration::from_secs(1_200));
        assert!(matches!(config(&["--jwks-refresh-interval", "30s"]), Err(ConfigError::Refresh { .. })));
    }

    #[test]
    fn operators_are_served_on_loopback_only() {
        for fine in ["127.0.0.1:15016", "[::1]:15016", "127.0.0.2:0"] {
            assert!(config(&["--admin-listen", fine]).is_ok(), "{fine}");
        }
        for open in ["0.0.0.0:15016", "[::]:15016", "10.0.0.1:15016", "[::ffff:10.0.0.1]:15016"] {
            let refused = config(&["--admin-listen", open]);
            assert!(matches!(refused, Err(ConfigError::AdminListen { .. })), "{open}");
        }
    }

    #[test]
    fn a_cluster_or_folders_are_the_origin_and_never_both() {
        let parse = |flags: &[&str]| {
            let base = ["mesh-control", "run", "--state-dir", "s", "--admin-listen", "127.0.0.1:0"];
            crate::args::Args::try_parse_from(base.iter().chain(flags))
        };
        let crate::args::Command::Run(run) =
            parse(&["--kubernetes", "--revision", "canary", "--pod-name", "p"]).expect("parses").command;
        let Origin::Kubernetes(cluster) = Config::new(&run).expect("valid").origin else { panic!("folders") };
        assert_eq!(cluster.of_revision("mini-mesh"), "mini-mesh-canary");
        assert_eq!((cluster.namespace.as_str(), cluster.replica.as_str()), ("istio-system", "p"));
        assert!(parse(&[]).is_err() && parse(&["--kubernetes", "--config-dir", "c"]).is_err());
        let crate::args::Command::Run(run) =
            parse(&["--kubernetes", "--revision", "No_Name"]).expect("parses").command;
        assert!(matches!(Config::new(&run), Err(ConfigError::Name { flag: "revision", .. })));
    }

    #[test]
    fn ranges_need_room_and_folders_are_given_once() {
        assert!(matches!(config(&["--vip-cidr", "10.0.0.0/30"]), Err(ConfigError::Range { .. })));
        assert!(matches!(config(&["--config-dir", "c"]), Err(ConfigError::Twice { .. })));
    }
}
