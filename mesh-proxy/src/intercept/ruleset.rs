//! The text of the rules (pure).
//!
//! Two chains. `output` sees what processes of the workload send: DNS goes to the proxy's resolver, other TCP
//! to its outbound port; the workload's traffic to itself (loopback and own addresses) stays as it is, so
//! that a workload reaches its own port by its own address as it would anywhere. A call to a *service* that
//! the workload itself serves is led to the proxy like any other, since a service's address is not its own.
//! `prerouting` sees what arrives from the network: TCP to an own address goes to the inbound port. What
//! arrives over loopback is not led there again: the kernel decides where a connection goes once, and for
//! those it did so in `output`.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{EXCLUDED_INBOUND_PORTS, Settings, TABLE};

/// The rules as `nft -f` reads them. The first two lines make the whole a replacement of earlier rules.
#[must_use]
pub fn render(settings: &Settings) -> String {
    let mut text = format!("table {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n");
    text.push_str("\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n");
    for rule in output(settings) {
        line(&mut text, &rule);
    }
    text.push_str(
        "\t}\n\n\tchain prerouting {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n",
    );
    for rule in prerouting(settings) {
        line(&mut text, &rule);
    }
    text.push_str("\t}\n}\n");
    text
}

fn line(text: &mut String, rule: &str) {
    writeln!(text, "\t\t{rule}").expect("writing to a string cannot fail");
}

fn output(settings: &Settings) -> Vec<String> {
    let mut rules = Vec::new();
    if settings.fwmark != 0 {
        rules.push(format!("meta mark {:#x} return comment \"the proxy's own\"", settings.fwmark));
    }
    if let Some(uids) = set(&settings.exclude_uids) {
        rules.push(format!("meta skuid {uids} return"));
    }
    if let Some(port) = settings.dns_port {
        rules.push(format!("udp dport 53 redirect to :{port}"));
        rules.push(format!("tcp dport 53 redirect to :{port}"));
    }
    rules.push("oifname \"lo\" return comment \"to itself\"".to_owned());
    rules.push("fib daddr type local return comment \"to itself\"".to_owned());
    rules.extend(excluded("ip", settings, IpAddr::is_ipv4));
    rules.extend(excluded("ip6", settings, IpAddr::is_ipv6));
    if let Some(ports) = set(&settings.exclude_outbound_ports) {
        rules.push(format!("tcp dport {ports} return"));
    }
    rules.push(format!("meta l4proto tcp redirect to :{}", settings.outbound_port));
    rules
}

/// Leaves alone what goes to the excluded destinations of one family.
fn excluded(family: &str, settings: &Settings, is_wanted: fn(&IpAddr) -> bool) -> Option<String> {
    let networks: Vec<String> = settings.excluded(is_wanted).iter().map(IpNet::to_string).collect();
    set(&networks).map(|networks| format!("{family} daddr {networks} return"))
}

fn prerouting(settings: &Settings) -> Vec<String> {
    let mut ports = EXCLUDED_INBOUND_PORTS.to_vec();
    ports.extend(&settings.exclude_inbound_ports);
    ports.sort_unstable();
    ports.dedup();
    let mut rules = Vec::new();
    if let Some(ports) = set(&ports) {
        rules.push(format!("tcp dport {ports} return"));
    }
    rules.push(format!("fib daddr type local meta l4proto tcp redirect to :{}", settings.inbound_port));
    rules
}

/// An anonymous set, or nothing for no elements: an empty set is a syntax error.
fn set<T: ToString>(elements: &[T]) -> Option<String> {
    let elements: Vec<String> = elements.iter().map(T::to_string).collect();
    (!elements.is_empty()).then(|| format!("{{ {} }}", elements.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_with_nothing_excluded_are_these() {
        assert_eq!(
            render(&Settings::default()),
            "table inet mini_mesh\n\
             delete table inet mini_mesh\n\
             \n\
             table inet mini_mesh {\n\
             \tchain output {\n\
             \t\ttype nat hook output priority -100; policy accept;\n\
             \t\tmeta mark 0x539 return comment \"the proxy's own\"\n\
             \t\tudp dport 53 redirect to :15053\n\
             \t\ttcp dport 53 redirect to :15053\n\
             \t\toifname \"lo\" return comment \"to itself\"\n\
             \t\tfib daddr type local return comment \"to itself\"\n\
             \t\tmeta l4proto tcp redirect to :15001\n\
             \t}\n\
             \n\
             \tchain prerouting {\n\
             \t\ttype nat hook prerouting priority dstnat; policy accept;\n\
             \t\ttcp dport { 15020, 15021 } return\n\
             \t\tfib daddr type local meta l4proto tcp redirect to :15006\n\
             \t}\n\
             }\n"
        );
    }

    #[test]
    fn exclusions_come_before_the_redirect_and_by_family() {
        let settings = Settings {
            dns_port: None,
            fwmark: 0,
            exclude_uids: vec![1337],
            exclude_inbound_ports: vec![22, 15021],
            exclude_outbound_ports: vec![25, 3306],
            exclude_outbound_cidrs: ["10.0.0.7/8", "10.1.0.0/16", "fd00::/8"]
                .map(|text| text.parse().expect("a prefix"))
                .to_vec(),
            ..Settings::default()
        };
        let text = render(&settings);
        let at = |rule: &str| text.find(rule).unwrap_or_else(|| panic!("{rule:?} is missing in {text}"));
        let redirect = at("redirect to :15001");
        for rule in [
            "meta skuid { 1337 } return",
            "ip daddr { 10.0.0.0/8 } return",
            "ip6 daddr { fd00::/8 } return",
            "tcp dport { 25, 3306 } return",
        ] {
            assert!(at(rule) < redirect, "{rule} comes too late in {text}");
        }
        at("tcp dport { 22, 15020, 15021 } return");
        assert!(!text.contains("meta mark") && !text.contains("dport 53"), "{text}");
    }

    #[test]
    fn rules_that_would_lead_the_proxy_to_itself_are_refused() {
        let settings = Settings { fwmark: 0, ..Settings::default() };
        assert!(!settings.exempts_proxy());
        assert!(matches!(
            super::super::install(&settings),
            Err(super::super::InterceptError::ProxyNotExempt)
        ));
    }
}
