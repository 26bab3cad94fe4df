//! A connection of redis-cli that stays open, as an application's pool would hold it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout};

use crate::local_mesh::LocalMesh;

/// An open session.
#[derive(Debug)]
pub struct RedisSession {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl RedisSession {
    /// Opens one from a workload.
    ///
    /// # Panics
    /// When redis-cli cannot be started.
    pub fn open(mesh: &LocalMesh, workload: &str, host: &str) -> Self {
        // One connection, and no other one behind the test's back when it is cut: redis-cli would open it.
        let words = ["stdbuf", "-oL", "/usr/bin/python3", "-u", "-c", CLIENT, host];
        let mut child = mesh.exec_start(workload, &words);
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, input, output }
    }

    /// Sends a command in one line; the answer's first line, or `None` when the connection was cut.
    pub fn ask(&mut self, command: &str) -> Option<String> {
        writeln!(self.input, "{command}").ok()?;
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Waits until the server's side ends the connection, with nothing sent to it.
    ///
    /// # Panics
    /// When something arrives instead, or nothing happens within the time that a command inside a workload has.
    #[track_caller]
    pub fn until_cut(mut self) {
        let mut line = String::new();
        let read = self.output.read_line(&mut line);
        assert!(matches!(read, Ok(0)), "{read:?}: {line}");
        let status = self.child.wait().expect("an end");
        assert_eq!(status.code(), Some(CUT), "the session ended otherwise");
    }
}

/// Exit status of the client when its connection ended.
const CUT: i32 = 7;

/// Speaks redis' inline commands, and notices the end of the connection while it waits for a command.
const CLIENT: &str = r#"
import os, select, socket, sys
peer = socket.create_connection((sys.argv[1], 6379), timeout=20)
while True:
    ready, _, _ = select.select([peer, 0], [], [])
    if peer in ready:
        try:
            data = peer.recv(65536)
        except OSError:
            data = b""
        if not data:
            sys.exit(7)
        os.write(1, data)
    if 0 in ready:
        line = os.read(0, 65536)
        if not line:
            sys.exit(0)
        peer.sendall(line.replace(b"\n", b"\r\n"))
"#;
