//! The operator's socket, and the listener of probes and scrapers.
//!
//! Whoever may open the operator's socket may read every policy and drain the proxy. So it is readable by
//! its owner only, and the peer must be the user of this process or root.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::http::Accept;

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
pub struct AdminListener {
    listener: UnixListener,
    uid: u32,
}

/// Opens the socket, in place of one that a killed process left.
///
/// # Errors
/// When another process serves there or the operating system refuses.
pub fn open(path: &Path) -> Result<AdminListener, SocketError> {
    let failed = |action, source| SocketError::Io { action, path: path.to_owned(), source };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| failed("make the directory of", error))?;
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => return Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|error| failed("remove the leftover", error))?;
        }
        // What else stands there is left alone; `bind` says what is wrong with it.
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|error| failed("bind", error))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(|error| failed("restrict", error))?;
    Ok(AdminListener { listener, uid: nix::unistd::geteuid().as_raw() })
}

impl Accept for AdminListener {
    type Stream = UnixStream;

    async fn accept(&self) -> UnixStream {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the admin socket could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match stream.peer_cred().map(|credentials| credentials.uid()) {
                Ok(uid) if uid == self.uid || uid == 0 => return stream,
                Ok(uid) => tracing::warn!(uid, "another user was refused at the admin socket"),
                Err(error) => tracing::warn!(%error, "the user at the admin socket is not known"),
            }
        }
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> TcpStream {
        crate::accept::listener::accept(self).await.0
    }
}
