//! Which addresses may be dialled for keys: a URL of a policy must not make the control plane ask on its
//! author's behalf what the author could not ask (SEMANTICS 7.2, trap 31).
//!
//! What is judged is the address that is about to be dialled, after the look-up of the name, and the very
//! address that was judged is dialled; so neither a name that resolves otherwise the second time nor another
//! spelling of an address gets past. Every redirect is judged anew.
//!
//! - Addresses that no identity provider has are always refused, whatever the flags say: those of the link,
//!   of cloud metadata services, unspecified, multicast and broadcast ones; also when an IPv6 address only
//!   wraps such an IPv4 address.
//! - Loopback is for the URL that the policy itself states, spelt as an address or as `localhost`. A
//!   redirect, a provider's configuration or a name that resolves there does not lead to it, unless the
//!   policy's own URL is on loopback too, or an operator allows the network.
//! - Private networks are where identity providers of a cluster are, so they are allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::target::HostName;

/// Networks of IPv4 that are never dialled.
const REFUSED_V4: [(Ipv4Net, &str); 7] = [
    // RFC 1122 section 3.2.1.3; Linux takes 0.0.0.0 for this machine.
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), "the unspecified network"),
    // RFC 3927. Cloud metadata and container credentials (169.254.169.254, 169.254.170.2) are in it.
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), "link-local"),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), "multicast"),
    (Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32), "broadcast"),
    // Alibaba Cloud, instance metadata.
    (Ipv4Net::new_assert(Ipv4Addr::new(100, 100, 100, 200), 32), "a metadata service"),
    // Oracle Cloud, instance metadata over iSCSI's network.
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 192), 32), "a metadata service"),
    // Azure, "What is IP address 168.63.129.16?".
    (Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32), "a metadata service"),
];

/// Networks of IPv6 that are never dialled.
const REFUSED_V6: [(Ipv6Net, &str); 5] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "the unspecified address"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), "link-local"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), "multicast"),
    // Amazon EC2: instance metadata (fd00:ec2::254) and pod credentials (fd00:ec2::23).
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32), "a metadata service"),
    // Google Cloud, metadata server over IPv6.
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128), "a metadata service"),
];

/// Why an address is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No provider is there.
    #[error("{address} is refused: it is {what}")]
    Reserved {
        /// The address.
        address: IpAddr,
        /// What it is.
        what: &'static str,
    },
    /// It is this machine, and the policy does not say so itself.
    #[error("{address} is refused: only a policy whose own URL is on loopback is led there")]
    Loopback {
        /// The address.
        address: IpAddr,
    },
    /// An operator has blocked it.
    #[error("{address} is refused: --jwks-block-destination {network} covers it")]
    Blocked {
        /// The address.
        address: IpAddr,
        /// The flag's value.
        network: IpNet,
    },
    /// Operators allow others only.
    #[error("{host} at {address} is refused: no --jwks-allow-destination covers it")]
    NotAllowed {
        /// The host.
        host: String,
        /// The address.
        address: IpAddr,
    },
}

/// A value of `--jwks-allow-destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A DNS name, in lower case.
    Name(String),
    /// Every name below, for `*.example.com`; starts with a dot.
    Below(String),
    /// Addresses.
    Network(IpNet),
}

/// Why a destination cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is neither a host such as idp.example.com or *.example.com nor a network such as 10.0.0.0/8"
)]
pub struct DestinationError {
    text: String,
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Ok(network) = network(text) {
            return Ok(Self::Network(network));
        }
        let (rest, is_wildcard) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        // A last label of digits alone is a mistyped address, never a name (RFC 3696 section 2).
        let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        let name = rest.to_ascii_lowercase();
        if !name.split('.').all(is_label) || name.rsplit('.').next().is_none_or(is_number) {
            return Err(DestinationError { text: text.to_owned() });
        }
        Ok(if is_wildcard { Self::Below(format!(".{name}")) } else { Self::Name(name) })
    }
}

/// Parses a network; an address alone is the network of itself.
///
/// # Errors
/// When it is neither.
pub fn network(text: &str) -> Result<IpNet, ipnet::AddrParseError> {
    text.parse::<IpNet>().or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error))
}

impl Destination {
    fn covers(&self, host: &HostName, address: IpAddr) -> bool {
        match (self, host) {
            (Self::Name(allowed), HostName::Name(name)) => allowed == name,
            (Self::Below(suffix), HostName::Name(name)) => name.ends_with(suffix.as_str()),
            (Self::Name(_) | Self::Below(_), HostName::Address(_)) => false,
            (Self::Network(network), _) => network.contains(&address),
        }
    }
}

/// Whether a fetch may go to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loopback {
    /// The policy's own URL says so.
    Stated,
    /// It does not.
    NotStated,
}

/// The rules.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allowed: Vec<Destination>,
    blocked: Vec<IpNet>,
}

impl Guard {
    /// Rules with what operators allow (nothing stated: all) and block.
    #[must_use]
    pub fn new(allowed: Vec<Destination>, blocked: Vec<IpNet>) -> Self {
        Self { allowed, blocked }
    }

    /// Whether `address`, found for `host`, may be dialled.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, host: &HostName, address: IpAddr, loopback: Loopback) -> Result<(), Refusal> {
        let spelt = spellings(address);
        for form in spelt.into_iter().flatten() {
            if let Some(what) = reserved(form) {
                return Err(Refusal::Reserved { address, what });
            }
            if let Some(network) = self.blocked.iter().find(|network| network.contains(&form)) {
                return Err(Refusal::Blocked { address, network: *network });
            }
        }
        let canonical = address.to_canonical();
        let is_loopback = spelt.into_iter().flatten().any(|form| form.is_loopback());
        let is_network_allowed = |destination: &Destination| match destination {
            Destination::Network(network) => network.contains(&canonical),
            Destination::Name(_) | Destination::Below(_) => false,
        };
        if is_loopback && loopback == Loopback::NotStated && !self.allowed.iter().any(is_network_allowed) {
            return Err(Refusal::Loopback { address });
        }
        let covers = |destination: &Destination| destination.covers(host, canonical);
        if !self.allowed.is_empty() && !self.allowed.iter().any(covers) {
            return Err(Refusal::NotAllowed { host: host.to_string(), address });
        }
        Ok(())
    }
}

fn reserved(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            REFUSED_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, what)| *what)
        }
        IpAddr::V6(address) => {
            REFUSED_V6.iter().find(|(network, _)| network.contains(&address)).map(|(_, what)| *what)
        }
    }
}

/// An address, and the IPv4 address that it wraps.
fn spellings(address: IpAddr) -> [Option<IpAddr>; 2] {
    let wrapped = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => wrapped(address).map(IpAddr::V4),
    };
    [Some(address), wrapped]
}

/// The IPv4 address that an IPv6 address stands for: mapped and compatible (RFC 4291 section 2.5.5),
/// translated (RFC 6052, RFC 8215), 6to4 (RFC 3056).
fn wrapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, high, low] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b, c, d, e, f) {
        // `::` and `::1` are themselves.
        (0, 0, 0, 0, 0, 0) if high == 0 && low <= 1 => None,
        (0, 0, 0, 0, 0, 0 | 0xffff) | (0, 0, 0, 0, 0xffff, 0) => Some(v4(high, low)),
        (0x64, 0xff9b, 0 | 1, ..) => Some(v4(high, low)),
        (0x2002, high, low, ..) => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HostName {
        HostName::Name(text.to_owned())
    }

    fn judge(guard: &Guard, host: &str, address: &str, loopback: Loopback) -> Result<(), Refusal> {
        guard.check(&name(host), address.parse().expect(address), loopback)
    }

    #[test]
    fn addresses_that_no_provider_has_are_refused_in_every_spelling_and_whatever_is_allowed() {
        let all =
            Guard::new(vec!["0.0.0.0/0".parse().expect("valid"), "::/0".parse().expect("valid")], vec![]);
        let refused = [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "2002:a9fe:a9fe::1",
            "::ffff:0.0.0.0",
            "::ffff:255.255.255.255",
        ];
        for address in refused {
            for guard in [&Guard::default(), &all] {
                let found = judge(guard, "idp.example", address, Loopback::Stated);
                assert!(matches!(found, Err(Refusal::Reserved { .. })), "{address}: {found:?}");
            }
        }
    }

    #[test]
    fn public_and_private_addresses_are_dialled() {
        let dialled = [
            "8.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.201",
            "240.240.0.1",
            "169.253.255.255",
            "2001:db8::1",
            "fd00:ec3::254",
            "fec0::1",
            "::ffff:10.0.0.1",
            "2002:a00:1::1",
        ];
        for address in dialled {
            assert_eq!(
                judge(&Guard::default(), "idp.example", address, Loopback::NotStated),
                Ok(()),
                "{address}"
            );
        }
    }

    #[test]
    fn loopback_is_for_policies_that_state_it() {
        for address in
            ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::127.0.0.1"]
        {
            let guard = Guard::default();
            assert_eq!(judge(&guard, "localhost", address, Loopback::Stated), Ok(()), "{address}");
            let led = judge(&guard, "idp.example", address, Loopback::NotStated);
            assert!(matches!(led, Err(Refusal::Loopback { .. })), "{address}: {led:?}");
        }
        // An operator may allow the network, but a name alone allows no way there.
        let network = Guard::new(vec!["127.0.0.0/8".parse().expect("valid")], vec![]);
        assert_eq!(judge(&network, "idp.example", "127.0.0.1", Loopback::NotStated), Ok(()));
        let by_name = Guard::new(vec!["idp.example".parse().expect("valid")], vec![]);
        let led = judge(&by_name, "idp.example", "127.0.0.1", Loopback::NotStated);
        assert!(matches!(led, Err(Refusal::Loopback { .. })));
    }

    #[test]
    fn what_operators_allow_excludes_the_rest_and_what_they_block_goes_first() {
        let allow = ["idp.example", "*.corp.example", "10.1.0.0/16", "192.0.2.7"];
        let allowed = allow.iter().map(|text| text.parse().expect(text)).collect();
        let blocked = vec![network("10.1.2.0/24").expect("valid"), network("203.0.113.9").expect("valid")];
        let guard = Guard::new(allowed, blocked);
        let judge = |host: &str, address: &str| judge(&guard, host, address, Loopback::NotStated);
        assert_eq!(judge("idp.example", "8.8.8.8"), Ok(()));
        assert_eq!(judge("a.b.corp.example", "8.8.8.8"), Ok(()));
        assert_eq!(judge("other", "10.1.0.9"), Ok(()));
        assert_eq!(judge("other", "::ffff:10.1.0.9"), Ok(()));
        assert_eq!(judge("other", "192.0.2.7"), Ok(()));
        for (host, address) in
            [("other", "8.8.8.8"), ("corp.example", "8.8.8.8"), ("x.idp.example", "8.8.8.8")]
        {
            assert!(matches!(judge(host, address), Err(Refusal::NotAllowed { .. })), "{host}");
        }
        for (host, address) in
            [("idp.example", "10.1.2.3"), ("idp.example", "::ffff:10.1.2.3"), ("idp.example", "203.0.113.9")]
        {
            assert!(matches!(judge(host, address), Err(Refusal::Blocked { .. })), "{address}");
        }
        let literal = HostName::Address("10.1.0.9".parse().expect("valid"));
        assert_eq!(guard.check(&literal, "10.1.0.9".parse().expect("valid"), Loopback::NotStated), Ok(()));
    }

    #[test]
    fn a_destination_is_a_name_or_a_network() {
        assert_eq!("IDP.Example".parse(), Ok(Destination::Name("idp.example".to_owned())));
        assert_eq!("*.Example".parse(), Ok(Destination::Below(".example".to_owned())));
        for bad in ["", "*", "a..b", "10.0.0.0/33", "10.0.0", "https://a", "a:443", "*.*.a"] {
            assert!(bad.parse::<Destination>().is_err(), "{bad:?} was accepted");
        }
    }
}
