//! What all measurements share: namespaces, certificates, the application, the folder of the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::certificates::Certificates;
use super::daemon::{Daemon, inside};
use super::load::Target;
use super::peers::Programs;
use super::plan::{Peer, Plan, Protocol};
use super::topology::{self, Pair};

/// A gRPC message: not compressed, 32 bytes long, then the bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x20an answer of thirty-two bytes...";

/// What all measurements share.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Our binaries, and Envoy's.
    pub(crate) programs: Programs,
    /// Workers of every proxy.
    pub(crate) workers: u16,
    /// Certificates of the explicit proxies.
    pub(crate) certificates: Certificates,
    pairs: BTreeMap<Peer, Pair>,
    folder: tempfile::TempDir,
    /// Owned so that they end with the lab.
    _applications: Vec<Daemon>,
}

impl Lab {
    /// Makes the namespaces and starts an application behind each pair.
    ///
    /// # Errors
    /// When a program is missing or does not start.
    pub(crate) fn prepare(plan: &Plan, programs: Programs, workers: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mini-mesh-bench-").tempdir()?;
        let certificates = Certificates::make(&folder.path().join("certificates"))?;
        let documents = folder.path().join("documents");
        fs::create_dir_all(documents.join("bench.Echo"))?;
        fs::write(documents.join("bench.Echo/Call"), MESSAGE)?;
        fs::write(folder.path().join("message"), MESSAGE)?;
        topology::make_hub()?;
        let mut pairs = BTreeMap::new();
        let mut applications = Vec::new();
        for peer in std::iter::once(Peer::Direct).chain(plan.peers.iter().copied()) {
            let pair = topology::make_pair(peer)?;
            applications.push(start_http_application(&pair, folder.path())?);
            applications.push(start_grpc_application(&pair, folder.path(), &documents)?);
            pairs.insert(peer, pair);
        }
        let lab = Self { programs, workers, certificates, pairs, folder, _applications: applications };
        lab.await_applications()?;
        Ok(lab)
    }

    /// The namespaces of a peer.
    ///
    /// # Errors
    /// When the plan does not have it.
    pub(crate) fn pair(&self, peer: Peer) -> Result<&Pair> {
        self.pairs.get(&peer).with_context(|| format!("{peer} has no namespaces"))
    }

    /// A new, empty folder for one start of a peer.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn fresh_folder(&self, peer: Peer) -> Result<PathBuf> {
        let folder = self.folder.path().join(peer.name());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Load from a peer's client side to an address.
    ///
    /// # Errors
    /// When the plan does not have the peer.
    pub(crate) fn target(&self, peer: Peer, protocol: Protocol, authority: &str) -> Result<Target> {
        Ok(Target {
            namespace: self.pair(peer)?.client.clone(),
            protocol,
            base: format!("http://{authority}"),
            message: self.folder.path().join("message"),
        })
    }

    /// Load past every proxy.
    ///
    /// # Errors
    /// Never once the lab is prepared.
    pub(crate) fn direct_target(&self, protocol: Protocol) -> Result<Target> {
        let authority = self.pair(Peer::Direct)?.at_server(protocol.app_port()).to_string();
        self.target(Peer::Direct, protocol, &authority)
    }

    /// Where a paced load writes its log.
    pub(crate) fn latency_log(&self) -> PathBuf {
        self.folder.path().join("latency.tsv")
    }

    /// Empties access logs, which would fill the disk over a million requests.
    ///
    /// # Errors
    /// When a log cannot be emptied.
    pub(crate) fn empty_logs(&self) -> Result<()> {
        for peer in self.pairs.keys() {
            let Ok(entries) = fs::read_dir(self.folder.path().join(peer.name())) else { continue };
            for entry in entries.flatten() {
                if entry.path().extension().is_some_and(|extension| extension == "log") {
                    fs::OpenOptions::new().write(true).open(entry.path())?.set_len(0)?;
                }
            }
        }
        Ok(())
    }

    fn await_applications(&self) -> Result<()> {
        for peer in self.pairs.keys() {
            for protocol in Protocol::ALL {
                let authority = self.pair(*peer)?.at_server(protocol.app_port()).to_string();
                let target = self.target(*peer, protocol, &authority)?;
                let mut tries = 0..100;
                while !target.answers(protocol.path()) {
                    tries
                        .next()
                        .with_context(|| format!("the application at {authority} does not answer"))?;
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            }
        }
        Ok(())
    }
}

fn start_http_application(pair: &Pair, folder: &Path) -> Result<Daemon> {
    let ports = [Protocol::Http1, Protocol::Tcp].map(|protocol| format!("listen {};", protocol.app_port()));
    let configuration = folder.join("application.conf");
    fs::write(
        &configuration,
        format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
             server {{ {ports} location / {{ default_type application/json; return 200 '{body}'; }} }}\n}}\n",
            pid = folder.join("application.pid").display(),
            ports = ports.join(" "),
            body =
                "{\"answer\":\"about as long as a small answer of a service\",\"items\":[1,2,3,4,5,6,7,8]}",
        ),
    )?;
    let mut nginx = inside(&pair.server, "nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(&configuration);
    Daemon::start(&format!("application-{}", pair.server), folder, &mut nginx)
}

fn start_grpc_application(pair: &Pair, folder: &Path, documents: &Path) -> Result<Daemon> {
    let mut nghttpd = inside(&pair.server, "nghttpd");
    nghttpd.args(["--no-tls", "-n", "1", "--trailer", "grpc-status: 0", "-d"]).arg(documents);
    nghttpd.arg(Protocol::Grpc.app_port().to_string());
    Daemon::start(&format!("grpc-application-{}", pair.server), folder, &mut nghttpd)
}
