//! Two workloads as pods have them: the proxy has no privilege and is told by its user, everything comes by
//! environment, operators and probes come over TCP, and the control plane is known by name.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/lab.rs"]
#[expect(dead_code, reason = "what only proxies with an admin socket are asked")]
mod lab;

use lab::{Control, Networks, Process, output, run};

/// Longest wait for what is expected to come.
const SOON: Duration = Duration::from_secs(20);
const HUB: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
const FRONTEND: &str = "10.79.0.10";
const CATALOG: &str = "10.79.0.20";
const SPACES: [&str; 2] = ["mmpodf", "mmpodc"];

const MESH: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: frontend-0, namespace: web}
spec:
  address: 10.79.0.10
  serviceAccount: frontend
  labels: {app: frontend, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: catalog-0, namespace: backend}
spec:
  address: 10.79.0.20
  serviceAccount: catalog
  labels: {app: catalog, security.istio.io/tlsMode: istio}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: backend}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog-pods, namespace: backend}
spec:
  clusterIP: None
  selector: {app: catalog}
  ports: [{name: http, port: 8080}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

const PROBES: &str = r#"{"/app-health/web/readyz":{"httpGet":{"path":"/index.html","port":8080},"timeoutSeconds":2},"/app-health/web/livez":{"tcpSocket":{"port":8080}},"/app-health/web/startupz":{"httpGet":{"path":"/missing","port":8080}}}"#;

/// A control plane and two pods on one bridge.
struct Pods {
    folder: tempfile::TempDir,
    _networks: Networks,
}

impl Pods {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // The proxies are other users, who read their tokens and the roots here.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).expect("opened");
        std::fs::create_dir(folder.path().join("config")).expect("made");
        std::fs::write(folder.path().join("config/mesh.yaml"), MESH).expect("written");
        let addresses = [FRONTEND, CATALOG].map(|text| text.parse().expect("an address"));
        let spaces: Vec<_> = SPACES.into_iter().zip(addresses).collect();
        for name in SPACES {
            let files = Path::new("/etc/netns").join(name);
            std::fs::create_dir_all(&files).expect("made");
            std::fs::write(files.join("resolv.conf"), "nameserver 10.79.0.53\n").expect("written");
            std::fs::write(files.join("hosts"), format!("{HUB} mesh-control.test\n")).expect("written");
        }
        Self { folder, _networks: Networks::new("mmpodhub", HUB, &spaces) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the init container and the proxy's container of a pod do.
    fn proxy(&self, space: &str, node: &str, id: &str) -> Process {
        let program = env!("CARGO_BIN_EXE_mesh-proxy");
        let install = ["intercept", "install", "--fwmark", "0", "--exclude-uid", "1337"];
        run("ip", &[&["netns", "exec", space, program][..], &install].concat());
        let (token, roots) = (self.path(&format!("{space}.token")), self.path("roots.pem"));
        lab::write_token(self.folder.path(), id, &token);
        std::fs::copy(self.path("state/root-cert.pem"), &roots).expect("copied");
        for file in [&token, &roots] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).expect("opened");
        }
        let mut command = Command::new("ip");
        let unprivileged = ["--reuid=1337", "--regid=1337", "--clear-groups", "--bounding-set=-all"];
        command.args(["netns", "exec", space, "setpriv"]).args(unprivileged);
        command.args(["--no-new-privs", "--inh-caps=-all", program, "run"]);
        let access = std::fs::File::create(self.path(&format!("{space}.access"))).expect("a file");
        let log = std::fs::File::create(self.path(&format!("{space}.log"))).expect("a file");
        command
            .env("MESH_PROXY_NODE_ID", node)
            .env("MESH_PROXY_CONTROL", "mesh-control.test:15012")
            .env("MESH_PROXY_CONTROL_ROOT_CERT", &roots)
            .env("MESH_PROXY_JOIN_TOKEN_FILE", &token)
            .env("MESH_PROXY_FWMARK", "0")
            .env("MESH_PROXY_ADMIN_LISTEN", "127.0.0.1:15000")
            .env("MESH_PROXY_APP_PROBES", PROBES)
            .env("MESH_PROXY_DRAIN_DEADLINE", "5s")
            .stdout(access)
            .stderr(log);
        Process(command.spawn().expect("started"))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition() {
            let logs = SPACES.map(|space| self.read(&format!("{space}.log")));
            assert!(Instant::now() < deadline, "{what}\n{}", logs.join("\n"));
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for name in SPACES {
            // It may be gone with an earlier run.
            let _gone = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
        }
    }
}

/// Status of a GET from within a pod; `000` when there was no answer.
fn status(space: &str, url: &str) -> String {
    let curl = ["curl", "-s", "-m", "8", "-o", "/dev/null", "-w", "%{http_code}", url];
    let arguments = [&["netns", "exec", space][..], &curl].concat();
    String::from_utf8(output("ip", &arguments).stdout).expect("text")
}

/// The same from the node.
fn status_outside(url: &str) -> String {
    let arguments = ["-s", "-m", "4", "-o", "/dev/null", "-w", "%{http_code}", url];
    String::from_utf8(output("curl", &arguments).stdout).expect("text")
}

#[test]
#[ignore = "needs root and nftables"]
fn pods_serve_and_call_under_strict_without_any_privilege() {
    let pods = Pods::new();
    let control = Control::start(pods.folder.path(), HUB, &[]);
    let [frontend_space, catalog_space] = SPACES;
    std::fs::create_dir(pods.path("www")).expect("made");
    std::fs::write(pods.path("www/index.html"), "hello").expect("written");
    let mut server = Command::new("ip");
    server.args(["netns", "exec", catalog_space, "python3", "-m", "http.server", "8080"]);
    server.current_dir(pods.path("www")).stdout(Stdio::null()).stderr(Stdio::null());
    let _application = Process(server.spawn().expect("started"));

    let frontend = pods.proxy(frontend_space, "frontend-0.web", "spiffe://cluster.local/ns/web/sa/frontend");
    let catalog =
        pods.proxy(catalog_space, "catalog-0.backend", "spiffe://cluster.local/ns/backend/sa/catalog");
    for space in SPACES {
        let wait = ["netns", "exec", space, env!("CARGO_BIN_EXE_mesh-proxy"), "wait", "--timeout", "20s"];
        let waited = output("ip", &wait);
        let error = String::from_utf8_lossy(&waited.stderr);
        assert!(waited.status.success(), "{error}\n{}", pods.read(&format!("{space}.log")));
    }

    let by = [
        ("service", "http://catalog.backend/?service".to_owned()),
        ("address", format!("http://{CATALOG}:8080/?address")),
        ("headless", "http://catalog-pods.backend:8080/?headless".to_owned()),
    ];
    for (how, url) in &by {
        pods.until(&format!("a call by {how}"), || status(frontend_space, url) == "200");
    }
    let came_secured = |how: &str| {
        let log = pods.read(&format!("{catalog_space}.access"));
        let facts = [r#""connection_security_policy":"mutual_tls""#, "/sa/frontend", &format!("/?{how}\"")];
        log.lines().any(|line| facts.iter().all(|fact| line.contains(fact)))
    };
    for (how, _) in &by {
        pods.until(&format!("the record of the call by {how}"), || came_secured(how));
    }
    assert_eq!(status(catalog_space, "http://catalog.backend/"), "200", "itself by its service");
    assert_eq!(status(catalog_space, &format!("http://{CATALOG}:8080/")), "200", "itself by its address");
    assert_eq!(status(catalog_space, "http://127.0.0.1:8080/"), "200", "itself by loopback");

    let at_catalog = |path: &str| status_outside(&format!("http://{CATALOG}:15021{path}"));
    assert_eq!(
        status_outside(&format!("http://{CATALOG}:8080/")),
        "000",
        "STRICT admits nobody in plaintext"
    );
    assert_eq!(at_catalog("/app-health/web/readyz"), "200");
    assert_eq!(at_catalog("/app-health/web/livez"), "200");
    assert_eq!(at_catalog("/app-health/web/startupz"), "404", "the application's own answer");
    assert_eq!(at_catalog("/app-health/other/readyz"), "404");
    assert_eq!(at_catalog("/index.html"), "404");
    assert_eq!(at_catalog("/healthz/ready"), "200");
    assert_eq!(
        status_outside(&format!("http://{FRONTEND}:15021/app-health/web/readyz")),
        "503",
        "nobody listens"
    );
    assert_eq!(status(catalog_space, "http://127.0.0.1:15000/certs"), "200", "operators on loopback");
    assert_eq!(status_outside(&format!("http://{CATALOG}:15000/certs")), "000", "and from nowhere else");

    for mut process in [frontend, catalog] {
        run("kill", &["-TERM", &process.0.id().to_string()]);
        let status = process.0.wait().expect("ended");
        assert!(status.success(), "a drained proxy ends with {status}");
    }
    drop(control);
}
