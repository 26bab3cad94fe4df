//! Interception: the nftables rules that lead a workload's traffic through its proxy.
//!
//! The rules live in one table, `inet mini_mesh`, in the network namespace of the workload, and are handed to
//! the kernel as one transaction: there is no moment with half of them. They hold for IPv4 and IPv6 alike, and
//! where there is no IPv6 too. They stay when the proxy dies, so that what they lead to a closed port is
//! refused: a workload without its proxy has no network, never a plaintext one.
//!
//! [`ruleset`] decides which rules there are, [`message`] writes them as the kernel reads them and [`netlink`]
//! hands them over; no program is needed for it. [`render`] writes the same rules for people and for `nft`.
//!
//! Where a supervisor starts the proxy, its own packets are told apart by a mark and not by a user id, so that
//! it matters to nobody as whom proxy and application run; setting the mark needs `CAP_NET_ADMIN`, which
//! applications do not have. In a pod the proxy has no privilege either and a user of its own, so there its
//! packets are told by that user, which no application may run as.

mod message;
mod netlink;
mod ruleset;
mod text;

use std::io;

use ipnet::IpNet;
use nix::errno::Errno;

pub use text::render;

use message::{Batch, Part};
use netlink::SendError;
use ruleset::{Condition, Verdict};

/// Name of the table.
pub const TABLE: &str = "inet mini_mesh";

/// Ports of the proxy that its operators reach from outside: metrics and readiness.
pub const EXCLUDED_INBOUND_PORTS: [u16; 2] = [15020, 15021];

/// What is led where, and what is not. What is excluded is left alone even when it is included too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Port that outbound TCP is led to.
    pub outbound_port: u16,
    /// Port that inbound TCP is led to.
    pub inbound_port: u16,
    /// Port that queries to port 53 (UDP and TCP) are led to; `None` leaves them alone.
    pub dns_port: Option<u16>,
    /// Mark of the proxy's own packets. 0 marks nothing, and then `exclude_uids` must name the proxy's user.
    pub fwmark: u32,
    /// Users whose packets are left alone, by number.
    pub exclude_uids: Vec<u32>,
    /// Inbound ports that are left alone, besides [`EXCLUDED_INBOUND_PORTS`].
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound destinations that are left alone.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Inbound ports that alone are led to the proxy; empty for all.
    pub include_inbound_ports: Vec<u16>,
    /// Outbound ports that are led to the proxy whatever the destination.
    pub include_outbound_ports: Vec<u16>,
    /// Outbound destinations that are led to the proxy. When this list and that of the ports are empty, all
    /// are; otherwise what is in neither is left alone.
    pub include_outbound_cidrs: Vec<IpNet>,
}

impl Default for Settings {
    /// The ports that Istio uses, and the mark 1337.
    fn default() -> Self {
        Self {
            outbound_port: 15001,
            inbound_port: 15006,
            dns_port: Some(15053),
            fwmark: 1337,
            exclude_uids: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            include_inbound_ports: Vec::new(),
            include_outbound_ports: Vec::new(),
            include_outbound_cidrs: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether something exempts the proxy's own packets. Without that they would be led back to it for ever.
    #[must_use]
    pub fn exempts_proxy(&self) -> bool {
        self.fwmark != 0 || !self.exclude_uids.is_empty()
    }
}

/// Why the rules could not be put in place or taken away. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum InterceptError {
    /// The proxy's own packets would be led back to it.
    #[error(
        "nothing exempts the proxy's own traffic: give a mark other than 0, or the user that the proxy runs as"
    )]
    ProxyNotExempt,
    /// The kernel's netfilter cannot be reached.
    #[error("cannot reach nftables in the kernel{}", hint(source, None))]
    Unreachable {
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("the kernel refuses {what}{hint}")]
    Refused {
        /// Which part of the rules.
        what: String,
        /// What to do about it, or nothing.
        hint: String,
        /// Why.
        source: io::Error,
    },
}

/// Puts the rules in force in the network namespace of this process, in place of earlier ones.
///
/// Blocks until the kernel has answered; called once before the workload's application starts.
///
/// # Errors
/// When the kernel refuses; usually there is no `CAP_NET_ADMIN` here, or it has no nftables.
pub fn install(settings: &Settings) -> Result<(), InterceptError> {
    if !settings.exempts_proxy() {
        return Err(InterceptError::ProxyNotExempt);
    }
    send(&Batch::replacing(&ruleset::chains(settings)))
}

/// Takes the rules away; that there are none is no error.
///
/// # Errors
/// When the kernel refuses.
pub fn remove() -> Result<(), InterceptError> {
    send(&Batch::removing())
}

fn send(batch: &Batch) -> Result<(), InterceptError> {
    netlink::send(batch).map_err(|error| match error {
        SendError::Socket(source) => InterceptError::Unreachable { source },
        SendError::Refused { part, reason } => InterceptError::Refused {
            what: describe(&part),
            hint: hint(&reason, Some(&part)),
            source: reason,
        },
    })
}

fn describe(part: &Part) -> String {
    match part {
        Part::Transaction => "the rules".to_owned(),
        Part::Table => format!("the table {TABLE}"),
        Part::Chain(name) => format!("the chain {name} of the table {TABLE}"),
        Part::Rule(rule) => format!("the rule \"{rule}\" of the table {TABLE}"),
    }
}

/// What to do about a refusal, in brackets; empty when its reason says all that is known.
fn hint(reason: &io::Error, part: Option<&Part>) -> String {
    let modules = match part {
        None | Some(Part::Transaction) => "nfnetlink, nf_tables".to_owned(),
        Some(Part::Table) => "nf_tables, nf_tables_inet".to_owned(),
        Some(Part::Chain(_)) => "nft_chain_nat, nf_nat".to_owned(),
        Some(Part::Rule(rule)) => {
            let asks_routes = rule.conditions.contains(&Condition::Local);
            let redirects = matches!(rule.verdict, Verdict::Redirect(_));
            let needed = [(asks_routes, "nft_fib_inet"), (redirects, "nft_redir, nf_nat")];
            let needed: Vec<_> = needed.iter().filter(|(is, _)| *is).map(|(_, modules)| *modules).collect();
            needed.join(", ")
        }
    };
    match reason.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            " (CAP_NET_ADMIN is needed in the user namespace that owns this network namespace)".to_owned()
        }
        Some(Errno::ENOENT | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT)
            if !modules.is_empty() =>
        {
            format!(" (the kernel of this machine has none of it; load the module: {modules})")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_would_lead_the_proxy_to_itself_are_refused() {
        let settings = Settings { fwmark: 0, ..Settings::default() };
        assert!(!settings.exempts_proxy());
        assert!(matches!(install(&settings), Err(InterceptError::ProxyNotExempt)));
    }

    #[test]
    fn a_refusal_names_the_rule_and_the_module_that_it_needs() {
        let chains = ruleset::chains(&Settings::default());
        let missing = io::Error::from_raw_os_error(Errno::ENOENT as i32);
        let last = chains[1].rules.last().expect("there are rules").clone();
        let part = Part::Rule(Box::new(last));
        let what = describe(&part);
        assert!(what.contains("fib daddr type local meta l4proto tcp redirect to :15006"), "{what}");
        let hint_of_rule = hint(&missing, Some(&part));
        assert!(hint_of_rule.contains("nft_fib_inet, nft_redir"), "{hint_of_rule}");
        let forbidden = io::Error::from_raw_os_error(Errno::EPERM as i32);
        assert!(hint(&forbidden, Some(&Part::Transaction)).contains("CAP_NET_ADMIN"));
        assert_eq!(hint(&io::Error::from_raw_os_error(Errno::ENOMEM as i32), Some(&part)), "");
    }
}
