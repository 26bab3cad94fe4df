//! What a test of the binary stands on: processes, namespaces on a bridge, and a control plane in this
//! process. All of it ends with its owner.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use clap::Parser as _;
use mesh_control::args::{Args as ControlArgs, Command as ControlCommand};
use mesh_control::config::Config;

/// A child that ends with its owner.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

pub(crate) fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().expect("the program is there")
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// Namespaces and a bridge, which this machine's own namespace is on too.
pub(crate) struct Networks {
    bridge: String,
    spaces: Vec<String>,
}

impl Networks {
    /// Makes them in place of what a killed run left. The bridge has the address `hub` of a /24.
    pub(crate) fn new(bridge: &str, hub: Ipv4Addr, spaces: &[(&str, Ipv4Addr)]) -> Self {
        let names = spaces.iter().map(|(name, _)| (*name).to_owned()).collect();
        let networks = Self { bridge: bridge.to_owned(), spaces: names };
        networks.remove();
        run("ip", &["link", "add", bridge, "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{hub}/24"), "dev", bridge]);
        run("ip", &["link", "set", bridge, "up"]);
        for (name, address) in spaces {
            let outer = format!("{name}0");
            run("ip", &["netns", "add", name]);
            run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", "eth0", "netns", name]);
            run("ip", &["link", "set", &outer, "master", bridge, "up"]);
            run("ip", &["-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
            run("ip", &["-n", name, "link", "set", "eth0", "up"]);
            run("ip", &["-n", name, "route", "add", "default", "via", &hub.to_string()]);
        }
        networks
    }

    fn remove(&self) {
        // What is not there need not be removed.
        let delete = |what: &str, name: &str| {
            let _absent = Command::new("ip").args([what, "del", name]).stderr(Stdio::null()).status();
        };
        self.spaces.iter().for_each(|space| delete("netns", space));
        delete("link", &self.bridge);
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A control plane over `FOLDER/config`, with its state and its socket beside that.
pub(crate) struct Control {
    runtime: Option<tokio::runtime::Runtime>,
    running: Option<mesh_control::app::Running>,
}

impl Control {
    pub(crate) fn start(folder: &Path, hub: Ipv4Addr, flags: &[&str]) -> Self {
        let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
        let (config, state, socket) = (path("config"), path("state"), path("control.sock"));
        let listen = format!("{hub}:15012");
        let fixed = [
            ["--config-dir", &config],
            ["--state-dir", &state],
            ["--listen", &listen],
            ["--metrics-listen", "127.0.0.1:0"],
            ["--admin-socket", &socket],
        ];
        let all = ["mesh-control", "run"].into_iter().chain(fixed.into_iter().flatten());
        let ControlCommand::Run(args) = ControlArgs::parse_from(all.chain(flags.iter().copied())).command;
        let config = Config::new(&args).expect("valid");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let running = runtime.block_on(mesh_control::app::start(config, None)).expect("it starts");
        Self { runtime: Some(runtime), running: Some(running) }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let (Some(runtime), Some(running)) = (self.runtime.take(), self.running.take()) {
            runtime.block_on(running.stop());
        }
    }
}

/// Writes a join token of the control plane in `folder` to `file`, for the workload `id`.
pub(crate) fn write_token(folder: &Path, id: &str, file: &Path) {
    let body = format!(r#"{{"spiffe_id":"{id}","ttl_seconds":60}}"#);
    let socket = folder.join("control.sock");
    let socket = socket.to_str().expect("text");
    let header = "content-type: application/json";
    let url = "http://localhost/tokens";
    let answer = run("curl", &["-sf", "--unix-socket", socket, "-H", header, "-d", &body, url]);
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    std::fs::write(file, answer["token"].as_str().expect("a token")).expect("written");
}

/// Whether the proxy behind an admin socket says that it is ready.
pub(crate) fn is_ready(socket: &Path) -> bool {
    let socket = socket.to_str().expect("text");
    output("curl", &["-sf", "--unix-socket", socket, "http://localhost/ready"]).status.success()
}
