//! The rules as `nft -f` reads them: for people, who may look at them and feed them to `nft` themselves.

use std::fmt::{self, Display};

use super::ruleset::{Chain, Condition, Hook, Rule, Transport, Verdict, chains};
use super::{Settings, TABLE};

/// The rules as `nft -f` reads them. The first two lines make the whole a replacement of earlier rules.
#[must_use]
pub fn render(settings: &Settings) -> String {
    let chains = chains(settings).map(|chain| chain.to_string());
    format!("table {TABLE}\ndelete table {TABLE}\n\ntable {TABLE} {{\n{}}}\n", chains.join("\n"))
}

impl Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, priority) = match self.hook {
            Hook::Output => ("output", "-100"),
            Hook::Prerouting => ("prerouting", "dstnat"),
        };
        writeln!(f, "\tchain {name} {{")?;
        writeln!(f, "\t\ttype nat hook {name} priority {priority}; policy accept;")?;
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
        writeln!(f, "\t}}")
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conditions.iter().try_for_each(|condition| write!(f, "{condition} "))?;
        match self.verdict {
            Verdict::Return => write!(f, "return")?,
            Verdict::Redirect(port) => write!(f, "redirect to :{port}")?,
        }
        self.comment.map_or(Ok(()), |comment| write!(f, " comment \"{comment}\""))
    }
}

impl Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark(mark) => write!(f, "meta mark {mark:#x}"),
            Self::User(uid) => write!(f, "meta skuid {uid}"),
            Self::Loopback => write!(f, "oifname \"lo\""),
            Self::Local => write!(f, "fib daddr type local"),
            Self::Protocol(transport) => write!(f, "meta l4proto {}", transport.as_str()),
            Self::Port(transport, port) => write!(f, "{} dport {port}", transport.as_str()),
            Self::Network(network) if network.prefix_len() == 0 => {
                write!(f, "meta nfproto {}", if network.addr().is_ipv4() { "ipv4" } else { "ipv6" })
            }
            Self::Network(network) if network.addr().is_ipv4() => write!(f, "ip daddr {network}"),
            Self::Network(network) => write!(f, "ip6 daddr {network}"),
        }
    }
}

impl Transport {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
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
             \t\ttcp dport 15020 return\n\
             \t\ttcp dport 15021 return\n\
             \t\tfib daddr type local meta l4proto tcp redirect to :15006\n\
             \t}\n\
             }\n"
        );
    }
}
