//! Two workloads in network namespaces of their own, each behind its proxy with real interception, and a
//! control plane: the binaries as they are shipped.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/lab.rs"]
mod lab;

use lab::{Control, Networks, Process, output, run};

/// Longest wait for what is expected to come.
const SOON: Duration = Duration::from_secs(15);
const HUB: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
/// Life of certificates, short enough for several rotations.
const LIFE: &str = "8s";

const MESH: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: frontend-0, namespace: web}
spec:
  address: 10.78.0.10
  serviceAccount: frontend
  labels: {app: frontend, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: catalog-0, namespace: backend}
spec:
  address: 10.78.0.20
  serviceAccount: catalog
  labels: {app: catalog, security.istio.io/tlsMode: istio}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: backend}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

const DENY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nothing, namespace: backend}
spec: {}
";

impl Process {
    fn signal(&self, signal: &str) {
        run("kill", &[signal, &self.0.id().to_string()]);
    }

    fn kill(mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

/// A mesh of two workloads.
struct Mesh {
    folder: tempfile::TempDir,
    _networks: Networks,
}

impl Mesh {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("config")).expect("made");
        std::fs::write(folder.path().join("config/mesh.yaml"), MESH).expect("written");
        let spaces = [("mmf", Ipv4Addr::new(10, 78, 0, 10)), ("mmc", Ipv4Addr::new(10, 78, 0, 20))];
        Self { folder, _networks: Networks::new("mmhub", HUB, &spaces) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    fn control(&self) -> Control {
        Control::start(self.folder.path(), HUB, &["--workload-ttl", LIFE])
    }

    fn proxy(&self, namespace: &str, node: &str) -> Process {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            namespace,
            env!("CARGO_BIN_EXE_mesh-proxy"),
            "run",
            "--node-id",
            node,
        ]);
        command.arg("--control").arg(format!("{HUB}:15012"));
        command.arg("--control-root-cert").arg(self.path("state/root-cert.pem"));
        command.arg("--join-token-file").arg(self.path(&format!("{namespace}.token")));
        command.arg("--admin-socket").arg(self.path(&format!("{namespace}.sock")));
        command.arg("--access-log").arg(self.path(&format!("{namespace}.access")));
        command.args(["--drain-deadline", "5s", "--dns-upstream", "127.0.0.1:1"]);
        let log = self.path(&format!("{namespace}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        Process(command.stdout(Stdio::null()).stderr(log).spawn().expect("started"))
    }

    fn token(&self, namespace: &str, id: &str) {
        lab::write_token(self.folder.path(), id, &self.path(&format!("{namespace}.token")));
    }

    fn admin(&self, namespace: &str, path: &str) -> serde_json::Value {
        let socket = self.text_path(&format!("{namespace}.sock"));
        let answer = run("curl", &["-s", "--unix-socket", &socket, &format!("http://localhost{path}")]);
        serde_json::from_str(&answer).expect("JSON")
    }

    fn is_ready(&self, namespace: &str) -> bool {
        lab::is_ready(&self.path(&format!("{namespace}.sock")))
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition() {
            let log = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what}\n{}\n{}", log("mmf.log"), log("mmc.log"));
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Status that the frontend gets from the catalog.
fn call() -> String {
    let url = "http://catalog.backend/";
    let arguments =
        ["netns", "exec", "mmf", "curl", "-s", "-m", "8", "-o", "/dev/null", "-w", "%{http_code}", url];
    String::from_utf8(output("ip", &arguments).stdout).expect("text")
}

fn application(folder: &Path) -> Process {
    std::fs::create_dir(folder).expect("made");
    std::fs::write(folder.join("index.html"), "hello").expect("written");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "mmc", "python3", "-m", "http.server", "8080"]).current_dir(folder);
    Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started"))
}

#[test]
#[ignore = "needs root and nftables"]
fn two_workloads_talk_through_their_proxies_whatever_is_killed() {
    let mesh = Mesh::new();
    let control = mesh.control();
    for namespace in ["mmf", "mmc"] {
        run("ip", &["netns", "exec", namespace, env!("CARGO_BIN_EXE_mesh-proxy"), "intercept", "install"]);
    }
    // The name server is the proxy's by interception, whatever address is asked.
    std::fs::create_dir_all("/etc/netns/mmf").expect("made");
    std::fs::write("/etc/netns/mmf/resolv.conf", "nameserver 10.78.0.53\n").expect("written");
    let _application = application(&mesh.path("www"));
    assert_eq!(call(), "000", "a workload whose proxy does not run has a network");

    mesh.token("mmf", "spiffe://cluster.local/ns/web/sa/frontend");
    mesh.token("mmc", "spiffe://cluster.local/ns/backend/sa/catalog");
    let frontend = mesh.proxy("mmf", "frontend-0.web");
    let catalog = mesh.proxy("mmc", "catalog-0.backend");
    mesh.until("both are ready", || mesh.is_ready("mmf") && mesh.is_ready("mmc"));
    let mode = std::fs::metadata(mesh.path("mmf.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    mesh.until("the application answers", || call() == "200");
    mesh.until("the record", || {
        let log = std::fs::read_to_string(mesh.path("mmc.access")).unwrap_or_default();
        log.contains(r#""connection_security_policy":"mutual_tls""#)
            && log.contains(r#""source_principal":"spiffe://cluster.local/ns/web/sa/frontend""#)
    });

    let serial = || mesh.admin("mmc", "/certs")[0]["serial_number"].as_str().map(ToOwned::to_owned);
    let first = serial();
    mesh.until("a rotation", || {
        assert_eq!(call(), "200", "a rotation broke a request");
        serial() != first
    });
    assert!(!mesh.admin("mmc", "/config_dump").to_string().contains("PRIVATE"));

    drop(control);
    mesh.until("the proxies notice", || mesh.admin("mmf", "/ready")["control_plane_connected"] == false);
    assert_eq!(call(), "200", "the data plane needs the control plane");
    let control = mesh.control();
    mesh.until("they come back", || mesh.admin("mmf", "/ready")["control_plane_connected"] == true);

    std::fs::write(mesh.path("config/deny.yaml"), DENY).expect("written");
    mesh.until("the policy holds", || call() == "403");
    assert_eq!(mesh.admin("mmc", "/denials").as_array().map(|list| list.is_empty()), Some(false));
    std::fs::remove_file(mesh.path("config/deny.yaml")).expect("removed");
    mesh.until("the policy is gone", || call() == "200");

    frontend.kill();
    assert_eq!(call(), "000", "a workload whose proxy was killed has a network");
    mesh.token("mmf", "spiffe://cluster.local/ns/web/sa/frontend");
    let frontend = mesh.proxy("mmf", "frontend-0.web");
    mesh.until("the new proxy serves", || call() == "200");

    for mut process in [frontend, catalog] {
        process.signal("-TERM");
        let status = process.0.wait().expect("ended");
        assert!(status.success(), "a drained proxy ends with {status}");
    }
    drop(control);
    std::fs::remove_dir_all("/etc/netns/mmf").expect("removed");
}
