//! Where connections of operators, probes and scrapers come from.

use std::net::IpAddr;

use mesh_daemon::operator_socket::OperatorSocket;
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::http::Accept;

impl Accept for OperatorSocket {
    type Stream = UnixStream;

    async fn accept(&self) -> UnixStream {
        Self::accept(self).await.0
    }

    fn local(_stream: &UnixStream) -> Option<IpAddr> {
        None
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> TcpStream {
        crate::accept::listener::accept(self).await.0
    }

    fn local(stream: &TcpStream) -> Option<IpAddr> {
        stream.local_addr().ok().map(|address| address.ip().to_canonical())
    }
}
