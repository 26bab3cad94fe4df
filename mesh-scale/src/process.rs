//! The control plane that is measured: a real one, in a process of its own, told of the cluster in memory.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// Longest time until it is ready.
const READY_MAX: Duration = Duration::from_secs(120);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running control plane; it ends with this value.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    child: Child,
    /// Where it serves proxies.
    pub(crate) address: SocketAddr,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready in time; its log is in the message.
    pub(crate) async fn start(program: &Path, api_server: SocketAddr) -> Result<Self> {
        let folder = TempDir::new().context("no temporary folder")?;
        let kubeconfig = folder.path().join("kubeconfig");
        tokio::fs::write(&kubeconfig, config_of(api_server)).await.context("the kubeconfig")?;
        let [proxies, metrics, webhook, admin] = free_ports()?;
        let log = std::fs::File::create(folder.path().join("log")).context("the log")?;
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(["run", "--kubernetes", "--log-level", "warn"])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .args(["--listen", &proxies.to_string(), "--metrics-listen", &metrics.to_string()])
            .args(["--webhook-listen", &webhook.to_string(), "--admin-listen", &admin.to_string()])
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", "mesh-control-0")
            .env("POD_NAMESPACE", mesh_kube::name::SYSTEM_NAMESPACE)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        while !is_ready(metrics).await {
            let has_ended = child.try_wait().context("the control plane's state")?;
            if has_ended.is_some() || begun.elapsed() > READY_MAX {
                let log = tokio::fs::read_to_string(folder.path().join("log")).await.unwrap_or_default();
                bail!("the control plane is not ready after {:?} ({has_ended:?}):\n{log}", begun.elapsed());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(Self { child, address: proxies, ready_after: begun.elapsed(), folder })
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let id = self.child.id().context("the control plane has ended")?;
        let status =
            std::fs::read_to_string(format!("/proc/{id}/status")).context("the control plane has ended")?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse().context("VmRSS")?;
        Ok(kibibytes * 1024)
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let id = self.child.id().context("the control plane has ended")?;
        let stat =
            std::fs::read_to_string(format!("/proc/{id}/stat")).context("the control plane has ended")?;
        let (_, after) = stat.rsplit_once(')').context("no name in stat")?;
        // utime and stime are fields 14 and 15 (proc(5)); the name is field 2.
        let ticks = after
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u64>().ok())
            .sum::<u64>();
        let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Duration::from_millis(ticks * 1000 / u64::try_from(per_second).context("the clock tick")?))
    }

    /// Where its log is.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

fn config_of(server: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: memory\nclusters:\n- name: memory\n  cluster: {{server: \"http://{server}\"}}\n\
         users:\n- name: memory\n  user: {{}}\ncontexts:\n- name: memory\n  context: {{cluster: memory, user: memory}}\n"
    )
}

fn free_ports() -> Result<[SocketAddr; 4]> {
    // All are held until each has its own.
    let listeners: Vec<TcpListener> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>().context("no free port")?;
    let addresses: Vec<SocketAddr> =
        listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>().context("no free port")?;
    addresses.try_into().ok().context("no free port")
}

async fn is_ready(address: SocketAddr) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    asking.await.unwrap_or(false)
}
