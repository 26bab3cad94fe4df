//! A mesh for the time of a test.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest run of one command, in seconds. `timeout` ends it, so that a test cannot hang.
const COMMAND_SECONDS_MAX: &str = "90";
/// Time for what must come true by itself.
const EVENTUALLY: Duration = Duration::from_secs(20);

/// Who runs `meshctl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    /// Root.
    Root,
    /// A user without an account and without any privilege.
    Ordinary(u32),
}

/// A folder with a mesh.yaml and the binaries, and the mesh that is up in it.
#[derive(Debug)]
pub(crate) struct Mesh {
    folder: tempfile::TempDir,
    user: User,
}

/// What a command answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit status.
    pub(crate) status: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Mesh {
    /// A mesh of this text, not yet up.
    pub(crate) fn of(text: &str, user: User) -> Self {
        let folder = tempfile::Builder::new().prefix("mesh-test-").tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let mesh = Self { folder, user };
        let binaries = std::env::var_os("MESH_BIN_DIR").expect("MESH_BIN_DIR says where the binaries are");
        fs::create_dir(mesh.path("bin")).expect("a folder");
        for binary in ["meshctl", "mesh-control", "mesh-proxy", "shop"] {
            let (from, to) = (Path::new(&binaries).join(binary), mesh.path("bin").join(binary));
            // An application may not be able to enter the folder that they were built in.
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ())).expect("a binary");
        }
        fs::write(mesh.path("mesh.yaml"), text).expect("a file");
        if let User::Ordinary(uid) = user {
            chown(mesh.folder.path(), Some(uid), Some(uid)).expect("an owner");
        }
        mesh
    }

    /// The shop of the examples, not yet up.
    pub(crate) fn shop(user: User) -> Self {
        let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
        let text = fs::read_to_string(shop.join("mesh.yaml")).expect("the shop's mesh.yaml");
        let mesh = Self::of(&text, user);
        fs::create_dir(mesh.path("config")).expect("a folder");
        for entry in fs::read_dir(shop.join("config")).expect("the shop's configuration") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), mesh.path("config").join(entry.file_name())).expect("a copy");
        }
        mesh
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `meshctl` with these arguments, as the user.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", COMMAND_SECONDS_MAX]);
        if let User::Ordinary(uid) = self.user {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups"]);
        }
        command.arg(self.path("bin/meshctl")).args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", self.path("bin").display()));
        command.env("HOME", self.folder.path()).env("MESH_STATE_DIR", self.path("state"));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `meshctl`.
    pub(crate) fn ask(&self, args: &[&str]) -> Answer {
        self.command(args).output().expect("meshctl runs").into()
    }

    /// Runs `meshctl`, which must succeed; returns what it printed.
    pub(crate) fn must(&self, args: &[&str]) -> String {
        let answer = self.ask(args);
        assert_eq!(answer.status, Some(0), "meshctl {args:?}: {}{}", answer.out, answer.err);
        answer.out
    }

    /// Starts `meshctl` and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("meshctl runs")
    }

    /// One request from inside a workload; what it answers begins with the status.
    pub(crate) fn call(&self, workload: &str, request: &[&str]) -> Answer {
        let mut args = vec!["exec", workload, "--", "timeout", "5", "shop", "call"];
        args.extend(request);
        self.ask(&args)
    }

    /// Rows of `meshctl ps --all`.
    pub(crate) fn rows(&self) -> Vec<Value> {
        serde_json::from_str(&self.must(&["ps", "--all", "-o", "json"])).expect("JSON")
    }

    /// A field of a row that is a number.
    pub(crate) fn number(&self, name: &str, field: &str) -> i32 {
        let rows = self.rows();
        let row = rows.iter().find(|row| row["name"] == name).expect("a row of that name");
        assert!(row[field].is_i64(), "{field} of {row}");
        let number = row[field].as_i64().expect("a number");
        i32::try_from(number).expect("a number of a process")
    }

    /// Numbers of all processes of the mesh.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let rows = self.rows();
        let numbers = rows.iter().flat_map(|row| [&row["pid"], &row["proxy_pid"]]);
        numbers.filter_map(Value::as_i64).map(|number| i32::try_from(number).expect("a number")).collect()
    }

    /// Asserts that nothing of the mesh is left: none of `processes`, nothing that mentions its folder, no
    /// mount and no file.
    pub(crate) fn assert_nothing_left(&self, processes: &[i32]) {
        let state = self.path("state");
        assert!(
            !state.exists(),
            "the state directory is left: {:?}",
            fs::read_dir(&state).map(Iterator::count)
        );
        let alive: Vec<&i32> = processes.iter().filter(|pid| is_alive(**pid)).collect();
        assert!(alive.is_empty(), "processes are left: {alive:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let name = self.folder.path().to_str().expect("a name");
        assert!(!mounts.contains(name), "mounts are left: {mounts}");
        let tied =
            |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| contains(&line, &state));
        let left: Vec<i32> = all_processes().into_iter().filter(tied).collect();
        assert!(left.is_empty(), "processes mention the state directory: {left:?}");
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let answer = self.ask(&["down"]);
        // A second panic would end the whole run, and the first says more.
        if !std::thread::panicking() {
            assert_eq!(answer.status, Some(0), "meshctl down: {}{}", answer.out, answer.err);
        }
    }
}

/// Repeats until it is true.
pub(crate) fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < EVENTUALLY, "not within {} s: {what}", EVENTUALLY.as_secs());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Sends a signal, by name.
pub(crate) fn signal(name: &str, pid: i32) {
    let done =
        Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill runs");
    assert!(done.success(), "kill -{name} {pid}");
}

/// Whether a process runs.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn all_processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn contains(text: &[u8], path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    text.windows(path.len()).any(|window| window == path)
}
