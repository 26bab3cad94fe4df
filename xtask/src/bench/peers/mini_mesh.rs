//! Ours, as users run it: a control plane with the rules as Istio YAML, interception by nftables, certificates
//! from the control plane's authority, access log and metrics on.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Launched, START_MAX, START_PAUSE, rules};
use crate::bench::certificates::{CLIENT_ID, SERVER_ID};
use crate::bench::daemon::{Daemon, inside, succeed};
use crate::bench::lab::Lab;
use crate::bench::plan::{Peer, Protocol, Scenario};
use crate::bench::topology::{HUB, Pair};
use crate::process::command;

/// Port of the control plane.
const CONTROL_PORT: u16 = 15012;
/// Rules in one AuthorizationPolicy, about what people write.
const RULES_PER_POLICY: usize = 100;

/// Starts the control plane, puts interception in place, then starts both proxies.
///
/// # Errors
/// When a process does not start or refuses its configuration.
pub(super) fn launch(scenario: Scenario, lab: &Lab) -> Result<Launched> {
    let folder = lab.fresh_folder(Peer::MiniMesh)?;
    let pair = lab.pair(Peer::MiniMesh)?;
    let config = folder.join("config");
    fs::create_dir_all(&config)?;
    fs::write(config.join("mesh.yaml"), mesh(pair))?;
    fs::write(config.join("rules.yaml"), policies(scenario))?;
    let control = Control::start(&folder, &config, &lab.programs.binaries)?;
    let address = control.service_address()?;
    let program = lab.programs.binaries.join("mesh-proxy");
    for namespace in [&pair.client, &pair.server] {
        succeed(inside(namespace, &program).args(["intercept", "install"]))?;
    }
    let sides = [("client", &pair.client, CLIENT_ID), ("server", &pair.server, SERVER_ID)];
    for (name, _, id) in sides {
        fs::write(folder.join(format!("{name}.token")), control.join_token(id)?)?;
    }
    let begun = Instant::now();
    let start = |(name, namespace, _): (&str, &String, &str)| -> Result<Daemon> {
        let mut proxy = inside(namespace, &program);
        proxy.args([
            "run",
            "--node-id",
            &format!("{name}.bench"),
            "--control",
            &format!("{HUB}:{CONTROL_PORT}"),
        ]);
        proxy.arg("--control-root-cert").arg(control.state.join("root-cert.pem"));
        proxy.arg("--join-token-file").arg(folder.join(format!("{name}.token")));
        proxy.arg("--admin-socket").arg(folder.join(format!("{name}.sock")));
        proxy.arg("--access-log").arg(folder.join(format!("{name}.log")));
        proxy.args(["--workers", &lab.workers.to_string(), "--log-level", "warn"]);
        Daemon::start(name, &folder, &mut proxy)
    };
    let b = start(sides[1])?;
    let a = start(sides[0])?;
    let authority = format!("{address}:{}", scenario.protocol.app_port());
    Ok(Launched { proxies: [a, b], beside: vec![control.daemon], begun, authority })
}

/// A control plane that has read its folder.
#[derive(Debug)]
struct Control {
    daemon: Daemon,
    socket: PathBuf,
    state: PathBuf,
}

impl Control {
    fn start(folder: &Path, config: &Path, binaries: &Path) -> Result<Self> {
        let socket = folder.join("control.sock");
        let state = folder.join("control");
        let mut control = command(binaries.join("mesh-control"), &["run", "--log-level", "warn"]);
        control.arg("--config-dir").arg(config).arg("--state-dir").arg(&state);
        control.args(["--listen", &format!("{HUB}:{CONTROL_PORT}")]).arg("--admin-socket").arg(&socket);
        let mut daemon = Daemon::start("control", folder, &mut control)?;
        let root = state.join("root-cert.pem");
        let is_up = || (root.is_file() && ask(&socket, "GET", "/status", None).is_ok()).then_some(());
        daemon.until(START_MAX, START_PAUSE, is_up)?;
        let problems = ask(&socket, "GET", "/problems", None)?;
        let errors: Vec<&Value> = problems
            .as_array()
            .into_iter()
            .flatten()
            .filter(|problem| problem["severity"] == "error")
            .collect();
        ensure!(errors.is_empty(), "the control plane refuses the benchmark's configuration: {errors:?}");
        Ok(Self { daemon, socket, state })
    }

    /// The address that clients of the service dial.
    fn service_address(&self) -> Result<IpAddr> {
        let registry = ask(&self.socket, "GET", "/registry", None)?;
        let services = registry["services"].as_array().context("the registry lists no services")?;
        let service = services.iter().find(|service| service["meta"]["object"]["name"] == "server");
        let addresses = service.and_then(|service| service["addresses"].as_array()).into_iter().flatten();
        let mut v4 = addresses.filter_map(|address| address.as_str()?.parse().ok()).filter(IpAddr::is_ipv4);
        v4.next().context("the service has no address")
    }

    fn join_token(&self, id: &str) -> Result<String> {
        let request = json!({"spiffe_id": id, "ttl_seconds": 60});
        let answer = ask(&self.socket, "POST", "/tokens", Some(&request))?;
        Ok(answer["token"].as_str().context("the answer holds no token")?.to_owned())
    }
}

/// One request over an admin socket.
fn ask(socket: &Path, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {body}");
    // With `connection: close` a body of known length is sent whole, so what follows the head is it.
    serde_json::from_str(body).with_context(|| format!("{method} {path}: not JSON"))
}

fn mesh(pair: &Pair) -> String {
    let workload = |name: &str, address: &dyn std::fmt::Display| {
        format!(
            "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: bench}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: {name}, namespace: bench}}\n\
             spec:\n  address: {address}\n  serviceAccount: {name}\n  \
             labels: {{app: {name}, security.istio.io/tlsMode: istio}}\n"
        )
    };
    let ports: String = [(Protocol::Http1, "http"), (Protocol::Grpc, "grpc"), (Protocol::Tcp, "tcp")]
        .iter()
        .map(|(protocol, name)| format!("  - {{name: {name}, port: {}}}\n", protocol.app_port()))
        .collect();
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: bench}}\n{}{}\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: server, namespace: bench}}\n\
         spec:\n  selector: {{app: server}}\n  ports:\n{ports}\
         ---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: default, namespace: istio-system}}\nspec:\n  mtls: {{mode: STRICT}}\n",
        workload("client", &pair.client_address),
        workload("server", &pair.server_address),
    )
}

fn policies(scenario: Scenario) -> String {
    let mut text = String::new();
    for (index, rule) in rules(scenario).enumerate() {
        if index % RULES_PER_POLICY == 0 {
            let name = index / RULES_PER_POLICY;
            let _infallible = write!(
                text,
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: rules-{name:03}, namespace: bench}}\n\
                 spec:\n  selector: {{matchLabels: {{app: server}}}}\n  action: ALLOW\n  rules:\n"
            );
        }
        let operation = match scenario.protocol {
            Protocol::Tcp => format!("ports: [\"{}\"]", scenario.protocol.app_port()),
            Protocol::Http1 | Protocol::Grpc => format!("methods: [{}], paths: [{}]", rule.method, rule.path),
        };
        let _infallible = writeln!(
            text,
            "  - from: [{{source: {{principals: [cluster.local/ns/bench/sa/{}]}}}}]\n    \
             to: [{{operation: {{{operation}}}}}]",
            rule.account
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_spread_over_policies() {
        let text = policies(Scenario { protocol: Protocol::Http1, rules: 10_000 });
        assert_eq!(text.matches("kind: AuthorizationPolicy").count(), 100);
        assert_eq!(text.matches("principals:").count(), 10_000);
    }
}
