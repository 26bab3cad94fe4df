//! The operator's socket: who may ask a daemon what it knows, and tell it the few things that a person may.
//!
//! Whoever may open it may ask the control plane for any identity, and may read every policy of a proxy and
//! drain it. So it is a socket in the file system, readable by its owner only, and the peer must be the user
//! of this process or root.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::unix::SocketAddr;
use tokio::net::{UnixListener, UnixStream};

/// Pause after an error of `accept`.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another process serves {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Accepts connections of this process's user and of root.
#[derive(Debug)]
pub struct OperatorSocket {
    listener: UnixListener,
    uid: u32,
}

impl OperatorSocket {
    /// Opens the socket, in place of one that a killed process left.
    ///
    /// # Errors
    /// When another process serves there or the operating system refuses.
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        let failed = |action, source| SocketError::Io { action, path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|error| failed("make the directory of", error))?;
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => return Err(SocketError::InUse { path: path.to_owned() }),
            // A connection to a file that is no socket is refused as well.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                std::fs::remove_file(path).map_err(|error| failed("remove the leftover", error))?;
            }
            // What else stands there is left alone; `bind` says what is wrong with it.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(|error| failed("bind", error))?;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(|error| failed("restrict", error))?;
        Ok(Self { listener, uid: nix::unistd::geteuid().as_raw() })
    }

    /// The next connection of somebody who may. Failures are waited out, others are refused. Dropping the
    /// future loses no connection that was let in.
    pub async fn accept(&self) -> (UnixStream, SocketAddr) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match stream.peer_cred().map(|credentials| credentials.uid()) {
                Ok(uid) if uid == self.uid || uid == 0 => return (stream, address),
                Ok(uid) => tracing::warn!(uid, "another user was refused at the admin socket"),
                Err(error) => tracing::warn!(%error, "the user at the admin socket is not known"),
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_socket_is_private_and_lets_its_owner_in() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("made/admin.sock");
        let socket = OperatorSocket::open(&path).expect("opened");
        assert_eq!(mode(&path), 0o600);
        let (client, _accepted) = tokio::join!(UnixStream::connect(&path), socket.accept());
        client.expect("let in");
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_what_is_served_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let _serving = OperatorSocket::open(&path).expect("the leftover is replaced");
        assert!(matches!(OperatorSocket::open(&path), Err(SocketError::InUse { .. })));
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "kept").expect("written");
        let refused = OperatorSocket::open(&path);
        assert!(matches!(refused, Err(SocketError::Io { action: "bind", .. })), "{refused:?}");
        assert_eq!(std::fs::read(&path).expect("there"), b"kept");
    }
}
