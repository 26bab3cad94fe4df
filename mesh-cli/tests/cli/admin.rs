//! A state directory with admin sockets in it that answer from a closure, and `meshctl` run against it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

/// Answers a request: method, path with query; status and JSON body.
pub(crate) type Answer = Arc<dyn Fn(&str, &str) -> (u16, String) + Send + Sync>;

/// A mesh that only answers.
pub(crate) struct FakeMesh {
    folder: tempfile::TempDir,
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
}

impl Printed {
    /// Everything, for a snapshot.
    pub(crate) fn all(&self) -> String {
        let mut text = self.stdout.clone();
        if !self.stderr.is_empty() {
            text.push_str("--- standard error\n");
            text.push_str(&self.stderr);
        }
        if self.status != 0 {
            text.push_str(&format!("--- exit status {}\n", self.status));
        }
        text
    }
}

impl FakeMesh {
    /// A mesh named `shop` without any process.
    pub(crate) fn new() -> Self {
        let mesh = Self { folder: tempfile::tempdir().expect("a folder") };
        fs::create_dir_all(mesh.config()).expect("a folder");
        fs::create_dir_all(mesh.path("state/control")).expect("a folder");
        let state = serde_json::json!({
            "name": "shop",
            "supervisor": {"pid": std::process::id(), "start_ticks": start_ticks()},
            "privilege": "root",
            "file": mesh.path("mesh.yaml"),
            "config": mesh.config(),
            "version": "0.1.0",
        });
        fs::write(mesh.path("state/mesh.json"), state.to_string()).expect("a file");
        mesh
    }

    /// Files of the user.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration folder.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("config")
    }

    /// Writes a file of the user.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// Starts the control plane.
    pub(crate) fn control(&self, answer: Answer) {
        serve(&self.path("state/control/admin.sock"), answer);
    }

    /// Starts the proxy of a workload.
    pub(crate) fn proxy(&self, workload: &str, answer: Answer) {
        let folder = self.path("state/run").join(workload).join("proxy");
        fs::create_dir_all(&folder).expect("a folder");
        serve(&folder.join("admin.sock"), answer);
    }

    /// A workload outside of the mesh.
    pub(crate) fn stranger(&self, workload: &str) {
        fs::create_dir_all(self.path("state/run").join(workload)).expect("a folder");
    }

    /// Runs `meshctl`.
    pub(crate) fn run(&self, args: &[&str]) -> Printed {
        self.run_with(args, "", &[])
    }

    /// Runs `meshctl` with something on its standard input and in its environment.
    pub(crate) fn run_with(&self, args: &[&str], input: &str, environment: &[(&str, &str)]) -> Printed {
        let output = assert_cmd::Command::cargo_bin("meshctl")
            .expect("the binary")
            .env_clear()
            .env("MESH_STATE_DIR", self.path("state"))
            .envs(environment.iter().copied())
            .current_dir(self.folder.path())
            .args(args)
            .write_stdin(input)
            .output()
            .expect("it runs");
        let place = self.folder.path().to_string_lossy().into_owned();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&place, "[FOLDER]");
        Printed {
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
            status: output.status.code().expect("it ended by itself"),
        }
    }
}

/// An answer from fixed values by path, whatever the query.
pub(crate) fn fixed(values: &[(&str, String)]) -> Answer {
    let values: BTreeMap<String, String> =
        values.iter().map(|(path, value)| ((*path).to_owned(), value.clone())).collect();
    Arc::new(move |_, path| {
        let path = path.split('?').next().unwrap_or_default();
        match values.get(path) {
            Some(value) => (200, value.clone()),
            None => (404, r#"{"error": "there is nothing here"}"#.to_owned()),
        }
    })
}

/// A value as an admin socket sends it.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("encodes")
}

/// Start of this process, which stands for the supervisor (field 22 of `/proc/PID/stat`).
fn start_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("proc");
    let behind_name = stat.rsplit_once(") ").expect("a name").1;
    behind_name.split(' ').nth(19).expect("22 fields").parse().expect("a number")
}

fn serve(socket: &Path, answer: Answer) {
    let listener = UnixListener::bind(socket).expect("a socket");
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            exchange(&stream, &answer);
        }
    });
}

fn exchange(stream: &UnixStream, answer: &Answer) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if let Some(length) = line.to_lowercase().strip_prefix("content-length:") {
            body_bytes = length.trim().parse().expect("a length");
        }
        head.push_str(&line);
    }
    let mut body = vec![0; body_bytes];
    reader.read_exact(&mut body).expect("a body");
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = answer(method, path);
    let mut writer = stream;
    // A command that was ended does not read its answer.
    let _gone = write!(
        writer,
        "HTTP/1.1 {status} Answer\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}
