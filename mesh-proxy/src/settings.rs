//! Arguments as meant: checked together, with defaults filled in, and printable for operators.
//!
//! What the data path reads of them is [`DataPathSettings`]. None of them is a secret: the join token and
//! the roots are named by their files, and the files' content never becomes a setting.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use mesh_api::name::{NameError, Namespace, ObjectName, ServiceAccount, SpiffeId, TrustDomain};

use crate::app_probe::{AppProbeTable, AppProbesError};
use crate::args::{InterceptArgs, RunArgs};
use crate::config::DataPathSettings;
use crate::intercept;

/// Most workers by default: a sidecar shares its machine with the workload that it serves.
const WORKERS_DEFAULT_MAX: usize = 4;
/// Most workers at all.
const WORKERS_MAX: usize = 256;
/// Time from the begin of a drain until callers have learnt of it: through one control plane on this machine.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// The same through an API server, replicas of the control plane, and services of the cluster that clients
/// outside of the mesh use. Istio's proxies take the same time (`terminationDrainDuration`).
const POD_WITHDRAWAL: Duration = Duration::from_secs(5);
/// Namespace and service account of the control plane.
const CONTROL_NAMESPACE: &str = "istio-system";
const CONTROL_ACCOUNT: &str = "mesh-control";

/// Why the arguments cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The node id is not `WORKLOAD.NAMESPACE`.
    #[error("--node-id {text:?} is not WORKLOAD.NAMESPACE")]
    NodeId {
        /// What was given.
        text: String,
    },
    /// A name breaks its rules.
    #[error("--{flag} is not valid")]
    Name {
        /// The flag.
        flag: &'static str,
        /// The rule.
        #[source]
        source: NameError,
    },
    /// Two listeners want the same port.
    #[error("--{first} and --{second} are both {port}")]
    SamePort {
        /// One flag.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// The port.
        port: u16,
    },
    /// A port of interception is 0: nothing could be led to it.
    #[error("--{flag} must not be 0")]
    ZeroPort {
        /// The flag.
        flag: &'static str,
    },
    /// There must be one way to prove who the workload is.
    #[error("give one of --join-token-file and --service-account-token-file")]
    Proof,
    /// Nobody could ask this proxy anything.
    #[error("give --admin-socket or --admin-listen, or both")]
    NoAdmin,
    /// Operators' requests are not authenticated over TCP, so only this machine may send them.
    #[error("--admin-listen {address} is not a loopback address, such as 127.0.0.1:15000")]
    AdminNotLoopback {
        /// What was given.
        address: SocketAddr,
    },
    /// The probes of the application.
    #[error("--app-probes cannot be used")]
    AppProbes(#[from] AppProbesError),
    /// Too few or too many workers.
    #[error("--workers must be from 1 to {WORKERS_MAX}")]
    Workers,
}

/// How the workload proves who it is while it has no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A one-time token of the control plane, in this file.
    JoinToken(PathBuf),
    /// A service-account token of Kubernetes, in this file.
    ServiceAccountToken(PathBuf),
}

/// Settings of the process.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As typed, with defaults.
    pub args: RunArgs,
    /// Name of the workload.
    pub workload: ObjectName,
    /// Namespace of the workload.
    pub namespace: Namespace,
    /// How the workload proves who it is while it has no certificate.
    pub proof: Proof,
    /// Probes of the application that are answered at the status listener.
    pub app_probes: AppProbeTable,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Identity that the control plane must prove.
    pub control_identity: SpiffeId,
    /// Number of workers.
    pub workers: usize,
    /// What the data path reads.
    pub data_path: DataPathSettings,
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    /// What is not valid or does not fit together.
    pub fn new(args: RunArgs) -> Result<Self, SettingsError> {
        let named = |flag| move |source| SettingsError::Name { flag, source };
        // A workload's name may hold dots and a namespace may not, so the last dot divides.
        let (workload, namespace) = args
            .node_id
            .rsplit_once('.')
            .ok_or_else(|| SettingsError::NodeId { text: args.node_id.clone() })?;
        let workload = ObjectName::parse(workload).map_err(named("node-id"))?;
        let namespace = Namespace::parse(namespace).map_err(named("node-id"))?;
        let trust_domain = TrustDomain::parse(&args.trust_domain).map_err(named("trust-domain"))?;
        let proof = proof(&args)?;
        let app_probes = AppProbeTable::parse(&args.app_probes)?;
        check_admin(&args)?;
        check_ports(&args)?;
        let workers = match args.workers {
            Some(workers @ 1..=WORKERS_MAX) => workers,
            Some(_) => return Err(SettingsError::Workers),
            None => {
                std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(WORKERS_DEFAULT_MAX)
            }
        };
        let control_namespace = Namespace::parse(CONTROL_NAMESPACE).map_err(named("trust-domain"))?;
        let control_account = ServiceAccount::parse(CONTROL_ACCOUNT).map_err(named("trust-domain"))?;
        let control_identity = SpiffeId::for_workload(&trust_domain, &control_namespace, &control_account);
        // On Kubernetes proxy and application end together; elsewhere a proxy may be restarted alone.
        let is_pod = matches!(proof, Proof::ServiceAccountToken(_));
        let data_path = DataPathSettings {
            inbound_port: args.inbound_port,
            outbound_port: args.outbound_port,
            fwmark: (args.fwmark != 0).then_some(args.fwmark),
            drain_deadline: args.drain_deadline,
            withdrawal: if is_pod { POD_WITHDRAWAL } else { WITHDRAWAL },
            keeps_outbound: is_pod,
            ..DataPathSettings::default()
        };
        Ok(Self {
            args,
            workload,
            namespace,
            proof,
            app_probes,
            trust_domain,
            control_identity,
            workers,
            data_path,
        })
    }

    /// The settings in force by the names of their flags, for the admin socket.
    #[must_use]
    pub fn effective(&self) -> BTreeMap<String, String> {
        let args = &self.args;
        let path = |path: &std::path::Path| path.display().to_string();
        let given = |file: &Option<PathBuf>| file.as_deref().map(path).unwrap_or_default();
        let upstreams: Vec<_> = args.dns_upstream.iter().map(ToString::to_string).collect();
        let entries = [
            ("node-id", args.node_id.clone()),
            ("control", args.control.to_string()),
            ("control-root-cert", path(&args.control_root_cert)),
            ("trust-domain", self.trust_domain.to_string()),
            ("join-token-file", given(&args.join_token_file)),
            ("service-account-token-file", given(&args.service_account_token_file)),
            ("admin-socket", given(&args.admin_socket)),
            ("admin-listen", args.admin_listen.map(|address| address.to_string()).unwrap_or_default()),
            ("inbound-port", args.inbound_port.to_string()),
            ("outbound-port", args.outbound_port.to_string()),
            ("dns-port", args.dns_port.to_string()),
            ("dns-upstream", upstreams.join(",")),
            ("status-listen", args.status_listen.to_string()),
            ("app-probes", self.app_probes.paths().collect::<Vec<_>>().join(",")),
            ("fwmark", args.fwmark.to_string()),
            ("workers", self.workers.to_string()),
            ("access-log", args.access_log.clone()),
            ("drain-deadline", format!("{}ms", args.drain_deadline.as_millis())),
            ("log-level", args.log_level.clone()),
            ("log-format", args.log_format.as_str().to_owned()),
        ];
        entries.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}

fn proof(args: &RunArgs) -> Result<Proof, SettingsError> {
    match (&args.join_token_file, &args.service_account_token_file) {
        (Some(file), None) => Ok(Proof::JoinToken(file.clone())),
        (None, Some(file)) => Ok(Proof::ServiceAccountToken(file.clone())),
        (None, None) | (Some(_), Some(_)) => Err(SettingsError::Proof),
    }
}

fn check_admin(args: &RunArgs) -> Result<(), SettingsError> {
    match args.admin_listen {
        Some(address) if !address.ip().is_loopback() => Err(SettingsError::AdminNotLoopback { address }),
        None if args.admin_socket.is_none() => Err(SettingsError::NoAdmin),
        Some(_) | None => Ok(()),
    }
}

fn check_ports(args: &RunArgs) -> Result<(), SettingsError> {
    let ports = [
        ("inbound-port", args.inbound_port),
        ("outbound-port", args.outbound_port),
        ("dns-port", args.dns_port),
        ("status-listen", args.status_listen.port()),
        ("admin-listen", args.admin_listen.map_or(0, |address| address.port())),
    ];
    if let Some((flag, _)) = ports[..2].iter().find(|(_, port)| *port == 0) {
        return Err(SettingsError::ZeroPort { flag });
    }
    for (position, (first, port)) in ports.iter().enumerate() {
        let same = ports[position + 1..].iter().find(|(_, other)| other == port && *port != 0);
        if let Some((second, _)) = same {
            return Err(SettingsError::SamePort { first, second, port: *port });
        }
    }
    Ok(())
}

impl From<InterceptArgs> for intercept::Settings {
    fn from(args: InterceptArgs) -> Self {
        Self {
            outbound_port: args.outbound_port,
            inbound_port: args.inbound_port,
            dns_port: (args.dns_port != 0).then_some(args.dns_port),
            fwmark: args.fwmark,
            exclude_uids: args.exclude_uid,
            exclude_inbound_ports: args.exclude_inbound_ports,
            exclude_outbound_ports: args.exclude_outbound_ports,
            exclude_outbound_cidrs: args.exclude_outbound_cidrs,
            include_inbound_ports: args.include_inbound_ports,
            include_outbound_ports: args.include_outbound_ports,
            include_outbound_cidrs: args.include_outbound_cidrs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn settings(more: &[&str]) -> Result<Settings, SettingsError> {
        let usual = ["--join-token-file", "t", "--admin-socket", "s"];
        settings_of(&[&usual, more].concat())
    }

    fn settings_of(more: &[&str]) -> Result<Settings, SettingsError> {
        let least = ["mesh-proxy", "run", "--control", "10.0.0.1:15012", "--control-root-cert", "r"];
        let args = Args::try_parse_from(least.iter().chain(more)).expect("arguments");
        let Command::Run(args) = args.command else { panic!("another command") };
        Settings::new(*args)
    }

    #[test]
    fn the_last_dot_of_a_node_id_divides_workload_and_namespace() {
        let found = settings(&["--node-id", "web.v1.shop"]).expect("valid");
        assert_eq!((found.workload.as_str(), found.namespace.as_str()), ("web.v1", "shop"));
        assert!(matches!(settings(&["--node-id", "web"]), Err(SettingsError::NodeId { .. })));
        assert!(matches!(settings(&["--node-id", "Web.shop"]), Err(SettingsError::Name { .. })));
    }

    #[test]
    fn a_workload_proves_who_it_is_in_one_way() {
        let node = ["--node-id", "a.b", "--admin-socket", "s"];
        let with = |more: &[&str]| settings_of(&[&node, more].concat()).map(|settings| settings.proof);
        assert_eq!(with(&["--join-token-file", "j"]), Ok(Proof::JoinToken("j".into())));
        let account = ["--service-account-token-file", "t"];
        assert_eq!(with(&account), Ok(Proof::ServiceAccountToken("t".into())));
        assert_eq!(with(&[]), Err(SettingsError::Proof));
        assert_eq!(with(&[&account[..], &["--join-token-file", "j"]].concat()), Err(SettingsError::Proof));
    }

    #[test]
    fn operators_come_over_a_socket_or_loopback_and_from_nowhere_else() {
        let node = ["--node-id", "a.b", "--join-token-file", "j"];
        let with = |more: &[&str]| settings_of(&[&node, more].concat()).map(drop);
        assert_eq!(with(&["--admin-listen", "127.0.0.1:15000"]), Ok(()));
        assert_eq!(with(&["--admin-listen", "[::1]:15000"]), Ok(()));
        assert_eq!(with(&[]), Err(SettingsError::NoAdmin));
        for open in ["0.0.0.0:15000", "[::]:15000", "10.0.0.1:15000"] {
            let refused = with(&["--admin-socket", "s", "--admin-listen", open]);
            assert!(matches!(refused, Err(SettingsError::AdminNotLoopback { .. })), "{open}");
        }
    }

    #[test]
    fn every_flag_of_run_is_visible_in_the_effective_settings() {
        use clap::CommandFactory;
        let effective = settings(&["--node-id", "a.b", "--workers", "3"]).expect("valid").effective();
        let command = Args::command();
        let run = command.find_subcommand("run").expect("there");
        let flags = run.get_arguments().filter_map(|arg| arg.get_long()).filter(|flag| *flag != "help");
        let missing: Vec<_> = flags.filter(|flag| !effective.contains_key(*flag)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(effective["workers"], "3");
    }

    #[test]
    fn two_listeners_never_share_a_port_and_zero_only_turns_dns_off() {
        let clash = settings(&["--node-id", "a.b", "--inbound-port", "15001"]);
        assert!(matches!(clash, Err(SettingsError::SamePort { .. })));
        let zero = settings(&["--node-id", "a.b", "--outbound-port", "0"]);
        assert!(matches!(zero, Err(SettingsError::ZeroPort { flag: "outbound-port" })));
        assert!(settings(&["--node-id", "a.b", "--dns-port", "0"]).is_ok());
        assert_eq!(settings(&["--node-id", "a.b", "--workers", "0"]).unwrap_err(), SettingsError::Workers);
    }
}
