//! Names of the mesh, answered; everything else, passed on.
//!
//! Interception redirects the workload's port 53 to this resolver, on the loopback of its network. A name
//! that the mesh knows is answered with the virtual addresses that the control plane gave it, so that the
//! connection which follows can be told by its address; any other question is relayed, byte for byte, to
//! the resolvers that the workload would have asked. Nothing is cached here: destinations are in [`State`]
//! already, and caching the internet's answers is the upstream resolver's work.
//!
//! [`question`] reads a message, [`names`] says under which names of the mesh it may be known, [`answer`]
//! decides and writes; these are functions of values. [`resolver`] asks the state, [`upstream`] relays,
//! [`listener`] holds the sockets.
//!
//! At the edges: what cannot be read is answered `FORMERR` or dropped; while the control plane does not
//! answer, names that look like the mesh's own fail (`SERVFAIL`) and do not leave the machine (DESIGN 11.1),
//! and names of the world go on after a short wait. Messages, queries in flight, connections and waits are
//! bounded.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::state::State;

mod answer;
mod listener;
mod measure;
mod names;
mod question;
mod resolver;
mod upstream;

pub use listener::Listeners;

/// What a message is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A question, which is looked into.
    Question,
    /// One that is refused with an answer of this many bytes.
    Refused {
        /// Length of the answer.
        bytes: usize,
    },
    /// None that is worth an answer.
    Dropped,
}

/// Reads a message and says no more than what it is; for whoever tries hostile ones.
#[must_use]
pub fn look_at(message: &[u8]) -> Message {
    match question::parse(message, question::Transport::Udp) {
        question::Parsed::Question(_) => Message::Question,
        question::Parsed::Refuse(answer) => Message::Refused { bytes: answer.len() },
        question::Parsed::Drop => Message::Dropped,
    }
}

/// Where to listen, and whom to ask for names outside of the mesh.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// Address and port, for UDP and TCP alike. An unspecified address (`0.0.0.0`, `[::]`) means the
    /// loopback address of both families: redirected packets come to these, and an answer has to leave from
    /// the very address that the question came to, which a socket bound to all addresses does not promise.
    pub listen: SocketAddr,
    /// Resolvers for names outside of the mesh, in the order in which they are asked. With none, such names
    /// fail at once.
    pub upstreams: Vec<SocketAddr>,
    /// Whether the upstreams are those of a cluster, which know its names too. Then they are asked for kinds of
    /// records that the mesh does not keep, and for names of the mesh while the control plane is away: a name
    /// opens nothing, since it is the address that is judged at the connect. Resolvers of the world would say
    /// that there is no such name, and would learn of it.
    pub is_cluster: bool,
    /// Mark for the sockets to the upstream resolvers, so that interception leaves them alone.
    pub fwmark: Option<u32>,
}

impl DnsSettings {
    /// The addresses to listen on; those that the machine may lack come last.
    fn addresses(&self) -> Vec<SocketAddr> {
        if self.listen.ip().is_unspecified() {
            let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            loopback.map(|address| SocketAddr::new(address, self.listen.port())).to_vec()
        } else {
            vec![self.listen]
        }
    }
}

/// Binds and serves until `stop` is ready. Give it the *end* of the drain: the application still needs names
/// while it finishes. Dropping the future ends everything as well; questions under way stay unanswered, and
/// their clients ask again.
///
/// # Errors
/// When a socket cannot be bound.
pub async fn serve(settings: DnsSettings, state: State, stop: impl Future<Output = ()>) -> io::Result<()> {
    Listeners::bind(settings)?.serve(state, stop).await;
    Ok(())
}

#[cfg(test)]
mod tests;
