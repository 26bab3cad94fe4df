//! A local mesh for the time of a test: a folder of its own with copies of the binaries, and `meshctl` run in
//! it as a user would.
//!
//! Copies, because applications run unprivileged and may not be able to enter the folder that the binaries
//! were built in. When the test ends, also by a panic, the mesh goes down and the folder is removed; a test
//! that failed first prints the ends of the logs.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::answer::{Answer, HttpAnswer};
use crate::machine::eventually;

/// Longest run of one command, in seconds. `timeout` ends it, so that a test cannot hang.
const COMMAND_SECONDS_MAX: &str = "90";
/// The same for what runs inside a workload, so that the inner one ends first and its output is kept.
const INNER_SECONDS_MAX: &str = "60";
/// Longest wait for one HTTP answer, in seconds.
const ANSWER_SECONDS_MAX: &str = "20";
/// Lines of each log that a failed test shows.
const LINES_SHOWN: usize = 12;

/// What a mesh is made of, before it is up.
#[derive(Debug)]
pub struct MeshLayout {
    folder: tempfile::TempDir,
}

impl MeshLayout {
    /// A folder with the binaries, an empty configuration, and a folder `scratch` that everybody may write.
    ///
    /// # Panics
    /// When the binaries are not there; `MESH_BIN_DIR` says where they are.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mesh-e2e-").tempdir().expect("a folder");
        let layout = Self { folder };
        set_mode(layout.folder.path(), 0o755);
        for name in ["bin", "config", "scratch"] {
            fs::create_dir(layout.path(name)).expect("a folder");
        }
        set_mode(&layout.path("scratch"), 0o777);
        let binaries = std::env::var_os("MESH_BIN_DIR").expect("MESH_BIN_DIR says where the binaries are");
        for binary in ["meshctl", "mesh-control", "mesh-proxy", "shop"] {
            fs::copy(Path::new(&binaries).join(binary), layout.path("bin").join(binary)).expect(binary);
        }
        layout
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that everybody may read; the folder's path stands for `@FOLDER@`.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(self, name: &str, text: &str) -> Self {
        let text = text.replace("@FOLDER@", self.folder.path().to_str().expect("a path of letters"));
        fs::write(self.path(name), text).expect("a file");
        self
    }

    /// Starts the mesh of `mesh.yaml`, in which `@FOLDER@` stands for the folder's path.
    ///
    /// # Panics
    /// When not everything in it gets ready.
    #[track_caller]
    pub fn up(self, mesh_yaml: &str) -> LocalMesh {
        let mesh = LocalMesh { layout: self.file("mesh.yaml", mesh_yaml) };
        mesh.must(&["up", "-d"]);
        mesh
    }
}

impl Default for MeshLayout {
    fn default() -> Self {
        Self::new()
    }
}

/// A mesh that is up.
#[derive(Debug)]
pub struct LocalMesh {
    layout: MeshLayout,
}

impl LocalMesh {
    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.layout.path(name)
    }

    /// `meshctl` with these arguments, not yet run.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_SECONDS_MAX]).arg(self.path("bin/meshctl")).args(args);
        command.current_dir(self.layout.folder.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display()));
        command.env("HOME", self.layout.folder.path()).env("MESH_STATE_DIR", self.path("state"));
        command
    }

    /// Runs `meshctl`.
    ///
    /// # Panics
    /// When it cannot be run at all.
    pub fn ask(&self, args: &[&str]) -> Answer {
        self.command(args).output().expect("meshctl runs").into()
    }

    /// Runs `meshctl`, which must succeed; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn must(&self, args: &[&str]) -> String {
        let answer = self.ask(args);
        assert!(answer.is_success(), "meshctl {args:?}: {}{}", answer.out, answer.err);
        answer.out
    }

    /// Runs `meshctl` with `-o json`, which must succeed.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.must(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&out).expect("JSON")
    }

    fn exec_command(&self, workload: &str, words: &[&str]) -> Command {
        let inner = ["exec", workload, "--", "timeout", INNER_SECONDS_MAX];
        self.command(&[&inner, words].concat())
    }

    /// Runs a program inside a workload.
    ///
    /// # Panics
    /// When `meshctl` cannot be run at all.
    pub fn exec(&self, workload: &str, words: &[&str]) -> Answer {
        self.exec_command(workload, words).output().expect("meshctl runs").into()
    }

    /// Runs a program inside a workload, which must succeed; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn exec_must(&self, workload: &str, words: &[&str]) -> String {
        let answer = self.exec(workload, words);
        assert!(answer.is_success(), "{words:?} in {workload}: {}{}", answer.out, answer.err);
        answer.out
    }

    /// Starts a program inside a workload, with pipes to it, and leaves it running.
    ///
    /// # Panics
    /// When `meshctl` cannot be run at all.
    pub fn exec_start(&self, workload: &str, words: &[&str]) -> Child {
        let mut command = self.exec_command(workload, words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("meshctl runs")
    }

    /// One request by curl from inside a workload; `args` are curl's, with the URL.
    pub fn curl(&self, workload: &str, args: &[&str]) -> HttpAnswer {
        let curl = ["curl", "-sS", "--max-time", ANSWER_SECONDS_MAX, "-w", "\n%{http_code}"];
        HttpAnswer::of_curl(&self.exec(workload, &[&curl, args].concat()))
    }

    /// Writes a file of the configuration at once, as editors do: aside, then renamed.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, name: &str, text: &str) {
        let aside = self.path("config.new");
        fs::write(&aside, text).expect("a file");
        fs::rename(aside, self.path("config").join(name)).expect("a file of the configuration");
    }

    /// Removes a file of the configuration.
    ///
    /// # Panics
    /// When it is not there.
    pub fn deconfigure(&self, name: &str) {
        fs::remove_file(self.path("config").join(name)).expect("a file of the configuration");
    }

    /// The row of `meshctl ps` with this name.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn process(&self, name: &str) -> Value {
        let rows = self.json(&["ps", "--all"]);
        let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        row.expect("a process of that name").clone()
    }

    /// The number of a process, as the machine sees it: field `pid` or `proxy_pid` of a row of `meshctl ps`.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    pub fn pid(&self, name: &str, field: &str) -> i32 {
        let number = self.process(name)[field].as_i64().expect("a process that runs");
        i32::try_from(number).expect("a number of a process")
    }

    /// The IPv4 address of a workload.
    ///
    /// # Panics
    /// When there is no such workload.
    #[track_caller]
    pub fn address(&self, name: &str) -> Ipv4Addr {
        let row = self.process(name);
        row["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// Waits until a process that was ended runs again under another number, and is ready.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn until_replaced(&self, name: &str, field: &str, before: i32) {
        let status = if field == "proxy_pid" { "proxy_status" } else { "status" };
        eventually(&format!("{field} of {name} is back"), || {
            let row = self.process(name);
            let is_back =
                row[status] == "Running" && row[field].as_i64().is_some_and(|pid| pid != i64::from(before));
            if is_back { Ok(()) } else { Err(row.to_string()) }
        });
    }

    /// Records of a proxy's access log, oldest first.
    ///
    /// # Panics
    /// When a line is not JSON.
    #[track_caller]
    pub fn access_log(&self, workload: &str) -> Vec<Value> {
        let text = self.must(&["logs", "--access", workload]);
        let records = text.lines().map(|line| &line[line.find('{').unwrap_or(0)..]);
        records.map(|line| serde_json::from_str(line).expect("a record in JSON")).collect()
    }
}

impl Drop for LocalMesh {
    fn drop(&mut self) {
        let is_failing = std::thread::panicking();
        if is_failing {
            show_logs(&self.path("state/logs"));
        }
        let answer = self.ask(&["down"]);
        // A second panic would end the whole run, and the first says more.
        if !is_failing {
            assert!(answer.is_success(), "meshctl down: {}{}", answer.out, answer.err);
            assert!(!self.path("state").exists(), "meshctl down left its state directory");
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

fn show_logs(folder: &Path) {
    let mut shown = String::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let text = fs::read(entry.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        shown.push_str(&format!("--- {}\n", entry.file_name().to_string_lossy()));
        for line in &lines[lines.len().saturating_sub(LINES_SHOWN)..] {
            shown.push_str(&format!("    {line}\n"));
        }
    }
    // Nothing can be done about a closed terminal, and the test has failed already.
    drop(std::io::stderr().write_all(shown.as_bytes()));
}
