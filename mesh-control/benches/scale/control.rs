//! The control plane, as a process.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use mesh_api::name::TrustDomain;
use mesh_identity::bundle::TrustBundle;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::api_server::ApiServer;
use crate::cluster;

/// Longest wait for readiness.
const START_MAX: Duration = Duration::from_secs(120);

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Control {
    child: Child,
    /// Where proxies connect.
    pub(crate) address: SocketAddr,
    /// Time from its start until it was ready.
    pub(crate) started_in: Duration,
    _folder: TempDir,
}

impl Control {
    /// Starts it against an API server and waits until it is ready.
    pub(crate) async fn start(program: &Path, server: &ApiServer) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let kubeconfig = folder.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: it\nclusters:\n- name: it\n  cluster: {{server: \"http://{}\"}}\n\
             users:\n- name: it\n  user: {{}}\ncontexts:\n- name: it\n  context: {{cluster: it, user: it}}\n",
            server.address
        );
        std::fs::write(&kubeconfig, text)?;
        let [address, metrics, webhook, admin] = [free()?, free()?, free()?, free()?];
        let log = std::fs::File::create(folder.path().join("log"))?;
        let began = Instant::now();
        let mut command = Command::new(program);
        command
            .args(["run", "--kubernetes", "--state-dir"])
            .arg(folder.path().join("state"))
            .args(["--listen", &address.to_string(), "--metrics-listen", &metrics.to_string()])
            .args(["--webhook-listen", &webhook.to_string(), "--admin-listen", &admin.to_string()])
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", "mesh-control-0")
            .env("POD_NAMESPACE", "istio-system")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut control = Self { child, address, started_in: Duration::ZERO, _folder: folder };
        while !is_ready(metrics).await {
            if control.child.try_wait()?.is_some() || began.elapsed() > START_MAX {
                let log = std::fs::read_to_string(control._folder.path().join("log"))?;
                bail!("the control plane does not become ready:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        control.started_in = began.elapsed();
        Ok(control)
    }

    /// Resident memory of the process.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let id = self.child.id().context("the control plane has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches("kB").trim().parse().context("VmRSS is no number")
    }

    /// The roots, as pods are given them.
    pub(crate) async fn root(&self, server: &ApiServer) -> Result<TrustBundle> {
        let path =
            format!("/api/v1/namespaces/{}/configmaps/mini-mesh-ca-root-cert", cluster::namespace_of(0));
        let began = Instant::now();
        loop {
            let map = server.get(&path);
            if let Some(pem) = map.as_ref().and_then(|map| map["data"]["root-cert.pem"].as_str()) {
                return Ok(TrustBundle::from_pem(&TrustDomain::parse("cluster.local")?, pem)?);
            }
            if began.elapsed() > START_MAX {
                bail!("the roots were not written into {path}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.child.kill().await.context("the control plane could not be ended")
    }
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn is_ready(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    };
    ask.await.unwrap_or(false)
}
