//! Where the control plane is: a host or an address, and a port.
//!
//! A name is looked up at each connect, because what is behind it changes: a service's address when it is made
//! anew, a machine's when it moves. The system's resolver does it, on a thread for blocking calls and within a
//! deadline; when that has passed the thread ends by itself. Its questions leave as the proxy's own packets
//! only where interception knows those by their user. By a mark it cannot, so there an address is to be given.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::select_ok;
use mesh_api::name::Host;
use tokio::time::timeout;

/// Time allowed for one look-up: the resolvers of the C library give up within some seconds too.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A host or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlAddress {
    host: Where,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    Address(IpAddr),
    Name(String),
}

/// Why a text is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not HOST:PORT, such as mesh-control.istio-system.svc:15012, 10.0.0.1:15012 or [fd00::1]:15012"
)]
pub struct ControlAddressError {
    text: String,
}

impl FromStr for ControlAddress {
    type Err = ControlAddressError;

    fn from_str(text: &str) -> Result<Self, ControlAddressError> {
        let wrong = || ControlAddressError { text: text.to_owned() };
        let parsed = match text.parse::<SocketAddr>() {
            Ok(address) => Self { host: Where::Address(address.ip()), port: address.port() },
            Err(_) => {
                let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                let port = port.parse().map_err(|_| wrong())?;
                let plain = name.strip_suffix('.').unwrap_or(name);
                let is_name = Host::parse(plain).is_ok_and(|host| !host.is_wildcard());
                // Four numbers that are no address are a mistake and no name.
                if !is_name || plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
                    return Err(wrong());
                }
                Self { host: Where::Name(name.to_owned()), port }
            }
        };
        if parsed.port == 0 { Err(wrong()) } else { Ok(parsed) }
    }
}

impl fmt::Display for ControlAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Where::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            Where::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl ControlAddress {
    /// The addresses behind it now, in the order in which they are to be tried; at least one. Dropping the
    /// future gives the look-up up.
    ///
    /// # Errors
    /// When the name has no address, or the resolver does not say in time.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let name = match &self.host {
            Where::Address(address) => return Ok(vec![SocketAddr::new(*address, self.port)]),
            Where::Name(name) => name,
        };
        let asking = async {
            let as_written = lookup(name.clone(), self.port).boxed();
            if !name.contains('.') || name.ends_with('.') {
                return as_written.await;
            }
            // A whole name is meant as it stands. Without the dot at its end a pod's resolver goes through its
            // search list first, which is several questions; with it, files of hosts do not have the name.
            let whole = lookup(format!("{name}."), self.port).boxed();
            select_ok([whole, as_written]).await.map(|(found, _)| found)
        };
        timeout(LOOKUP_TIMEOUT, asking).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }
}

async fn lookup(name: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host((name, port)).await?.take(ADDRESSES_MAX).collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_of_both_families_are_taken_and_nothing_else() {
        for good in [
            "mesh-control.istio-system.svc.cluster.local:15012",
            "mesh-control.istio-system.svc.:15012",
            "localhost:1",
            "10.0.0.1:15012",
            "[fd00::1]:15012",
        ] {
            let parsed: ControlAddress = good.parse().expect(good);
            assert_eq!(parsed.to_string(), good);
        }
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "10.0.0.1:0",
            "host:70000",
            ":15012",
            "a b:1",
            "10.0.0:1",
            "*.x:1",
        ] {
            assert!(bad.parse::<ControlAddress>().is_err(), "{bad:?} was taken");
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_an_address_is_not() {
        let address: ControlAddress = "192.0.2.7:15012".parse().expect("an address");
        assert_eq!(address.resolve().await.expect("known"), ["192.0.2.7:15012".parse().expect("an address")]);
        let local: ControlAddress = "localhost:15012".parse().expect("a name");
        let found = local.resolve().await.expect("every machine knows it");
        assert!(found.iter().all(|one| one.ip().is_loopback() && one.port() == 15012), "{found:?}");
    }
}
