//! The rules, as values (pure): which packets are led where, and which are left alone.
//!
//! Two chains. `output` sees what processes of the workload send: DNS goes to the proxy's resolver, other TCP
//! to its outbound port; the workload's traffic to itself (loopback and own addresses) stays as it is, so
//! that a workload reaches its own port by its own address as it would anywhere. A call to a *service* that
//! the workload itself serves is led to the proxy like any other, since a service's address is not its own.
//! `prerouting` sees what arrives from the network: TCP to an own address goes to the inbound port. What
//! arrives over loopback is not led there again: the kernel decides where a connection goes once, and for
//! those it did so in `output`.
//!
//! A rule is a row of conditions that all hold, and what happens then. Several elements make several rules and
//! no set: the lists are short, and the first packet of a connection alone is looked at.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{EXCLUDED_INBOUND_PORTS, Settings};

/// Port of DNS.
const DNS_PORT: u16 = 53;

/// A hook of the kernel and the rules there, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) hook: Hook,
    pub(super) rules: Vec<Rule>,
}

/// Where a chain is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hook {
    /// What processes of this namespace send.
    Output,
    /// What arrives.
    Prerouting,
}

/// Conditions that all hold, and what happens then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
    pub(super) comment: Option<&'static str>,
}

/// What a packet must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It bears this mark.
    Mark(u32),
    /// This user's socket sent it.
    User(u32),
    /// It leaves by the loopback interface.
    Loopback,
    /// Its destination is an address of this namespace.
    Local,
    /// It is of this protocol.
    Protocol(Transport),
    /// It is of this protocol and goes to this port.
    Port(Transport, u16),
    /// Its destination is in this network, which has no host bits.
    Network(IpNet),
}

/// Protocols with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// What happens to a packet's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is left alone.
    Return,
    /// It is led to this port of this namespace.
    Redirect(u16),
}

impl Rule {
    fn new(conditions: impl Into<Vec<Condition>>, verdict: Verdict) -> Self {
        Self { conditions: conditions.into(), verdict, comment: None }
    }

    fn because(mut self, comment: &'static str) -> Self {
        self.comment = Some(comment);
        self
    }
}

/// The chains of these settings.
pub(super) fn chains(settings: &Settings) -> [Chain; 2] {
    [
        Chain { hook: Hook::Output, rules: output(settings) },
        Chain { hook: Hook::Prerouting, rules: prerouting(settings) },
    ]
}

fn output(settings: &Settings) -> Vec<Rule> {
    let leave = |condition| Rule::new([condition], Verdict::Return);
    let redirect = |condition| Rule::new([condition], Verdict::Redirect(settings.outbound_port));
    let mut rules = Vec::new();
    if settings.fwmark != 0 {
        rules.push(leave(Condition::Mark(settings.fwmark)).because("the proxy's own"));
    }
    rules.extend(sorted(&settings.exclude_uids).into_iter().map(|uid| leave(Condition::User(uid))));
    let ports = sorted(&settings.exclude_outbound_ports);
    if let Some(resolver) = settings.dns_port.filter(|_| !ports.contains(&DNS_PORT)) {
        rules.extend(
            [Transport::Udp, Transport::Tcp].map(|transport| {
                Rule::new([Condition::Port(transport, DNS_PORT)], Verdict::Redirect(resolver))
            }),
        );
    }
    rules.push(leave(Condition::Loopback).because("to itself"));
    rules.push(leave(Condition::Local).because("to itself"));
    rules
        .extend(networks(&settings.exclude_outbound_cidrs).map(|network| leave(Condition::Network(network))));
    rules.extend(ports.into_iter().map(|port| leave(Condition::Port(Transport::Tcp, port))));
    if settings.include_outbound_cidrs.is_empty() && settings.include_outbound_ports.is_empty() {
        rules.push(redirect(Condition::Protocol(Transport::Tcp)));
        return rules;
    }
    let included = sorted(&settings.include_outbound_ports);
    rules.extend(included.into_iter().map(|port| redirect(Condition::Port(Transport::Tcp, port))));
    rules.extend(networks(&settings.include_outbound_cidrs).map(|network| {
        let conditions = [Condition::Network(network), Condition::Protocol(Transport::Tcp)];
        Rule::new(conditions, Verdict::Redirect(settings.outbound_port))
    }));
    rules
}

fn prerouting(settings: &Settings) -> Vec<Rule> {
    let excluded = sorted(&[&EXCLUDED_INBOUND_PORTS, &settings.exclude_inbound_ports[..]].concat());
    let leave = |port| Rule::new([Condition::Port(Transport::Tcp, port)], Verdict::Return);
    let redirect =
        |condition| Rule::new([Condition::Local, condition], Verdict::Redirect(settings.inbound_port));
    let mut rules: Vec<_> = excluded.into_iter().map(leave).collect();
    if settings.include_inbound_ports.is_empty() {
        rules.push(redirect(Condition::Protocol(Transport::Tcp)));
    } else {
        let included = sorted(&settings.include_inbound_ports);
        rules.extend(included.into_iter().map(|port| redirect(Condition::Port(Transport::Tcp, port))));
    }
    rules
}

/// In order, each once.
fn sorted<T: Copy + Ord>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    list
}

/// Networks without host bits, of which none holds another; those of IPv4 come first.
fn networks(list: &[IpNet]) -> impl Iterator<Item = IpNet> + use<> {
    let of = |is_wanted: fn(&IpAddr) -> bool| {
        let wanted = list.iter().filter(|network| is_wanted(&network.addr()));
        IpNet::aggregate(&wanted.map(IpNet::trunc).collect())
    };
    of(IpAddr::is_ipv4).into_iter().chain(of(IpAddr::is_ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(rules: &[Rule], conditions: &[Condition], verdict: Verdict) -> usize {
        let found = rules.iter().position(|rule| rule.conditions == conditions && rule.verdict == verdict);
        found.unwrap_or_else(|| panic!("{conditions:?} {verdict:?} is missing in {rules:?}"))
    }

    fn network(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn exclusions_come_before_the_redirect() {
        let settings = Settings {
            dns_port: None,
            fwmark: 0,
            exclude_uids: vec![1337],
            exclude_inbound_ports: vec![22, 15021],
            exclude_outbound_ports: vec![3306, 25],
            exclude_outbound_cidrs: ["10.0.0.7/8", "10.1.0.0/16", "fd00::/8"].map(network).to_vec(),
            ..Settings::default()
        };
        let [output, prerouting] = chains(&settings);
        let all = [Condition::Protocol(Transport::Tcp)];
        assert_eq!(position(&output.rules, &all, Verdict::Redirect(15001)), output.rules.len() - 1);
        assert_eq!(position(&output.rules, &[Condition::User(1337)], Verdict::Return), 0);
        for condition in [
            Condition::Network(network("10.0.0.0/8")),
            Condition::Network(network("fd00::/8")),
            Condition::Port(Transport::Tcp, 25),
            Condition::Port(Transport::Tcp, 3306),
        ] {
            position(&output.rules, &[condition], Verdict::Return);
        }
        assert_eq!(output.rules.len(), 8, "{output:?}");
        let left: Vec<_> = prerouting.rules.iter().take(3).flat_map(|rule| rule.conditions.clone()).collect();
        assert_eq!(left, [22, 15020, 15021].map(|port| Condition::Port(Transport::Tcp, port)));
    }

    #[test]
    fn inclusions_leave_everything_else_alone_and_exclusions_win() {
        let settings = Settings {
            include_inbound_ports: vec![8080],
            include_outbound_ports: vec![443],
            include_outbound_cidrs: vec![network("10.0.0.0/8")],
            exclude_outbound_cidrs: vec![network("10.9.0.0/16")],
            ..Settings::default()
        };
        let [output, prerouting] = chains(&settings);
        let redirect = Verdict::Redirect(15001);
        let by_port = position(&output.rules, &[Condition::Port(Transport::Tcp, 443)], redirect);
        let tcp = Condition::Protocol(Transport::Tcp);
        let inside = [Condition::Network(network("10.0.0.0/8")), tcp];
        let by_network = position(&output.rules, &inside, redirect);
        let out = [Condition::Network(network("10.9.0.0/16"))];
        let excluded = position(&output.rules, &out, Verdict::Return);
        assert!(excluded < by_port && excluded < by_network);
        assert!(!output.rules.iter().any(|rule| rule.conditions == [tcp]), "{output:?}");
        let inbound = [Condition::Local, Condition::Port(Transport::Tcp, 8080)];
        let last = position(&prerouting.rules, &inbound, Verdict::Redirect(15006));
        assert_eq!(last, prerouting.rules.len() - 1);
    }

    #[test]
    fn an_excluded_port_53_leaves_dns_alone() {
        let settings = Settings { exclude_outbound_ports: vec![53], ..Settings::default() };
        let [output, _] = chains(&settings);
        assert!(!output.rules.iter().any(|rule| rule.verdict == Verdict::Redirect(15053)), "{output:?}");
    }
}
