//! One mesh for one test: an attacker outside of it, a client and a server workload, and a control plane in
//! this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::lab::{self, Control, Networks, Process};
pub(crate) use crate::lab::{output, run};

/// Longest wait for what is expected to come.
const SOON: Duration = Duration::from_secs(20);
/// Longest wait for bytes of a peer: longer than every timeout under test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Port of the application that is declared as HTTP.
pub(crate) const HTTP: u16 = 8080;
/// Port of the application that is declared as HTTP/2.
pub(crate) const HTTP2: u16 = 9090;
/// Port of the application that declares nothing.
pub(crate) const AUTO: u16 = 7000;
/// Port that demands mutual TLS.
pub(crate) const STRICT: u16 = 8443;

/// Which of the two workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn letter(self) -> char {
        match self {
            Self::Client => 'c',
            Self::Server => 's',
        }
    }
}

/// A mesh of two workloads.
pub(crate) struct Mesh {
    folder: tempfile::TempDir,
    client: Option<Process>,
    server: Option<Process>,
    _control: Control,
    _networks: Networks,
    number: u8,
}

impl Mesh {
    /// Starts mesh `number`, which no other test uses.
    pub(crate) fn start(number: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("config")).expect("made");
        let config = include_str!("mesh.yaml").replace("10.79.0.", &format!("10.79.{number}."));
        std::fs::write(folder.path().join("config/mesh.yaml"), config).expect("written");
        let address = |host| Ipv4Addr::new(10, 79, number, host);
        let (client, server) = (format!("hst{number}c"), format!("hst{number}s"));
        let spaces = [(client.as_str(), address(10)), (server.as_str(), address(20))];
        let networks = Networks::new(&format!("hst{number}"), address(1), &spaces);
        let control = Control::start(folder.path(), address(1), &[]);
        let mut mesh =
            Self { folder, _networks: networks, number, _control: control, client: None, server: None };
        for side in [Side::Client, Side::Server] {
            let program = env!("CARGO_BIN_EXE_mesh-proxy");
            run("ip", &["netns", "exec", &mesh.space(side), program, "intercept", "install"]);
        }
        mesh.tokens();
        mesh.client = Some(mesh.proxy(Side::Client, "client-0.web"));
        mesh.server = Some(mesh.proxy(Side::Server, "server-0.backend"));
        let renewed = std::cell::Cell::new(Instant::now());
        mesh.until("both are ready", || {
            if [Side::Client, Side::Server].into_iter().all(|side| mesh.is_ready(side)) {
                return true;
            }
            // A token whose answer was lost on a busy machine is used up; its writer makes another.
            if renewed.get().elapsed() > Duration::from_secs(3) {
                renewed.set(Instant::now());
                mesh.tokens();
            }
            false
        });
        mesh
    }

    fn tokens(&self) {
        self.token(Side::Client, "spiffe://cluster.local/ns/web/sa/client");
        self.token(Side::Server, "spiffe://cluster.local/ns/backend/sa/server");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    pub(crate) fn space(&self, side: Side) -> String {
        format!("hst{}{}", self.number, side.letter())
    }

    /// Address of a port of the server workload.
    pub(crate) fn server(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address(20), port))
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.number, host)
    }

    fn token(&self, side: Side, id: &str) {
        lab::write_token(self.folder.path(), id, &self.path(&format!("{}.token", side.letter())));
    }

    fn proxy(&self, side: Side, node: &str) -> Process {
        let letter = side.letter();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(side), env!("CARGO_BIN_EXE_mesh-proxy"), "run"]);
        command.args(["--node-id", node]);
        command.arg("--control").arg(format!("{}:15012", self.address(1)));
        command.arg("--control-root-cert").arg(self.path("state/root-cert.pem"));
        command.arg("--join-token-file").arg(self.path(&format!("{letter}.token")));
        command.arg("--admin-socket").arg(self.path(&format!("{letter}.sock")));
        command.arg("--access-log").arg(self.path(&format!("{letter}.access")));
        command.args(["--drain-deadline", "4s", "--dns-upstream", "127.0.0.1:1", "--workers", "1"]);
        let log = std::fs::File::create(self.path(&format!("{letter}.log"))).expect("a log");
        Process(command.stdout(Stdio::null()).stderr(log).spawn().expect("started"))
    }

    fn is_ready(&self, side: Side) -> bool {
        lab::is_ready(&self.path(&format!("{}.sock", side.letter())))
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !condition() {
            let log = |name: &str| std::fs::read_to_string(self.path(name)).unwrap_or_default();
            assert!(Instant::now() < deadline, "{what}\n{}\n{}", log("c.log"), log("s.log"));
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The server's proxy, which `ip` has become.
    pub(crate) fn process(&mut self, side: Side) -> &mut Child {
        let process = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        &mut process.as_mut().expect("it runs").0
    }

    /// Fails when a proxy has ended.
    pub(crate) fn assert_alive(&mut self) {
        for side in [Side::Client, Side::Server] {
            let ended = self.process(side).try_wait().expect("asked");
            assert!(ended.is_none(), "{side:?}'s proxy ended with {ended:?}");
        }
    }

    /// Resident memory of a proxy, in KiB.
    pub(crate) fn resident_kib(&mut self, side: Side) -> u64 {
        let path = format!("/proc/{}/status", self.process(side).id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sum of a counter of a proxy over those of its series that contain `labels`.
    pub(crate) fn counter(&self, side: Side, name: &str, labels: &str) -> u64 {
        let socket = self.text_path(&format!("{}.sock", side.letter()));
        let text = run("curl", &["-sf", "--unix-socket", &socket, "http://localhost/stats/prometheus"]);
        let of_series = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole")]
        let sum = lines.filter_map(of_series).sum::<f64>() as u64;
        sum
    }

    /// Address that the client's proxy answers for the server's name.
    pub(crate) fn service(&self) -> IpAddr {
        let socket = within(&self.space(Side::Client), || UdpSocket::bind("0.0.0.0:0").expect("bound"));
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        socket.send_to(&super::dns::question("server.backend", 1), "10.79.0.53:53").expect("sent");
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).expect("an answer");
        let octets: [u8; 4] = answer[length - 4..length].try_into().expect("four");
        IpAddr::from(octets)
    }

    /// Connects from the client workload to an address: through both proxies.
    pub(crate) fn dial_outbound_to(&self, address: SocketAddr) -> TcpStream {
        within(&self.space(Side::Client), || connect(address))
    }

    /// Connects from outside of the mesh: through the server's proxy only.
    pub(crate) fn dial_inbound(&self, port: u16) -> TcpStream {
        connect(self.server(port))
    }

    /// A listener of the application in the server workload.
    pub(crate) fn listen(&self, port: u16) -> TcpListener {
        within(&self.space(Side::Server), || TcpListener::bind(("0.0.0.0", port)).expect("bound"))
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    stream.set_nodelay(true).expect("set");
    stream
}

/// Runs `work` in a network namespace; sockets that it makes stay there.
pub(crate) fn within<T: Send>(space: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let entered = scope.spawn(|| {
            let file = std::fs::File::open(format!("/run/netns/{space}")).expect("a namespace");
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may");
            work()
        });
        entered.join().expect("no panic")
    })
}
