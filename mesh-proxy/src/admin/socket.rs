//! Where connections of operators, probes and scrapers come from.

use mesh_daemon::operator_socket::OperatorSocket;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::http::Accept;

impl Accept for OperatorSocket {
    type Stream = UnixStream;

    async fn accept(&self) -> UnixStream {
        Self::accept(self).await.0
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> TcpStream {
        crate::accept::listener::accept(self).await.0
    }
}
