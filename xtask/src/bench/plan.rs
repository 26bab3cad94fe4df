//! What is measured, and how long for: values only.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// No proxy at all: what "added" latency is counted from.
    Direct,
    /// Ours, with real interception and a real control plane.
    MiniMesh,
    /// Envoy with the filters that Istio would give it.
    Envoy,
    /// haproxy.
    Haproxy,
    /// nginx, which has no authorization by certificate to speak of and is measured without rules.
    Nginx,
}

impl Peer {
    /// All that are proxies.
    pub(crate) const PROXIES: [Self; 4] = [Self::MiniMesh, Self::Envoy, Self::Haproxy, Self::Nginx];

    /// The name that reports and filters use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::MiniMesh => "mini-mesh",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the connections carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Protocol {
    /// HTTP/1.1 requests, judged one by one.
    Http1,
    /// gRPC unary calls over HTTP/2, judged one by one.
    Grpc,
    /// The same HTTP/1.1 requests over what the proxies take for a byte stream, judged per connection.
    Tcp,
}

impl Protocol {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Grpc, Self::Tcp];

    /// The name that reports and filters use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }

    /// Port of the application.
    pub(crate) fn app_port(self) -> u16 {
        match self {
            Self::Http1 => 8080,
            Self::Grpc => 9090,
            Self::Tcp => 7000,
        }
    }

    /// Path that is requested, and the only one that the last rule allows.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Http1 | Self::Tcp => "/api/echo",
            Self::Grpc => "/bench.Echo/Call",
        }
    }

    /// Method that is requested.
    pub(crate) fn method(self) -> &'static str {
        match self {
            Self::Http1 | Self::Tcp => "GET",
            Self::Grpc => "POST",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Numbers of authorization rules, of which only the last admits the client.
pub(crate) const RULES: [usize; 2] = [10, 10_000];

/// One thing to measure, for every peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Scenario {
    /// What the connections carry.
    pub(crate) protocol: Protocol,
    /// Number of authorization rules.
    pub(crate) rules: usize,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} rules", self.protocol, self.rules)
    }
}

/// How much time is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Effort {
    /// A look.
    Quick,
    /// Figures to rely on.
    Full,
}

impl Effort {
    /// Turns that each peer takes; the median counts.
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Quick => 1,
            Self::Full => 3,
        }
    }

    /// Length of one turn.
    pub(crate) fn turn(self) -> Duration {
        match self {
            Self::Quick => Duration::from_millis(1_500),
            Self::Full => Duration::from_secs(4),
        }
    }

    /// Requests at the fixed rate.
    pub(crate) fn paced_requests(self) -> u64 {
        match self {
            Self::Quick => 3_000,
            Self::Full => 10_000,
        }
    }

    /// Requests over which memory may not grow.
    pub(crate) fn growth_requests(self) -> u64 {
        match self {
            Self::Quick => 100_000,
            Self::Full => 1_000_000,
        }
    }
}

/// One word of `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Only this peer.
    Peer(Peer),
    /// Only this protocol.
    Protocol(Protocol),
    /// Only this number of rules.
    Rules(usize),
    /// Only the growth over many requests.
    Growth,
}

/// Why a word of `--only` means nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no peer, protocol, number of rules or `growth`", self.0)
    }
}

impl std::error::Error for FilterError {}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(word: &str) -> Result<Self, FilterError> {
        let peer = Peer::PROXIES.into_iter().find(|peer| peer.name() == word).map(Self::Peer);
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == word).map(Self::Protocol);
        let rules = RULES.into_iter().find(|rules| rules.to_string() == word).map(Self::Rules);
        let growth = (word == "growth").then_some(Self::Growth);
        peer.or(protocol).or(rules).or(growth).ok_or_else(|| FilterError(word.to_owned()))
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How much time is spent.
    pub(crate) effort: Effort,
    /// Proxies.
    pub(crate) peers: Vec<Peer>,
    /// Scenarios.
    pub(crate) scenarios: Vec<Scenario>,
    /// Whether growth is measured.
    pub(crate) has_growth: bool,
}

impl Plan {
    /// What the filters leave. Words of one kind add up, words of different kinds narrow each other.
    ///
    /// # Errors
    /// When nothing is left.
    pub(crate) fn new(effort: Effort, filters: &[Filter]) -> Result<Self> {
        let wants_peer = |peer| chosen(filters, |f| matches!(f, Filter::Peer(_)), Filter::Peer(peer));
        let wants_protocol =
            |protocol| chosen(filters, |f| matches!(f, Filter::Protocol(_)), Filter::Protocol(protocol));
        let wants_rules = |rules| chosen(filters, |f| matches!(f, Filter::Rules(_)), Filter::Rules(rules));
        let only_growth = filters.contains(&Filter::Growth);
        let peers: Vec<Peer> = Peer::PROXIES.into_iter().filter(|peer| wants_peer(*peer)).collect();
        let scenarios: Vec<Scenario> = (RULES.into_iter())
            .flat_map(|rules| Protocol::ALL.map(|protocol| Scenario { protocol, rules }))
            .filter(|scenario| {
                !only_growth && wants_protocol(scenario.protocol) && wants_rules(scenario.rules)
            })
            .collect();
        let has_growth = peers.contains(&Peer::MiniMesh)
            && (only_growth || !filters.iter().any(|f| matches!(f, Filter::Protocol(_) | Filter::Rules(_))));
        ensure!(has_growth || !scenarios.is_empty(), "--only leaves nothing to measure");
        Ok(Self { effort, peers, scenarios, has_growth })
    }

    /// Whether a proxy is measured.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.peers.contains(&peer)
    }
}

fn chosen(filters: &[Filter], is_of_kind: fn(&Filter) -> bool, wanted: Filter) -> bool {
    !filters.iter().any(is_of_kind) || filters.contains(&wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &[&str]) -> Plan {
        let filters: Vec<Filter> = words.iter().map(|word| word.parse().expect("a filter")).collect();
        Plan::new(Effort::Quick, &filters).expect("something to measure")
    }

    #[test]
    fn without_filters_everything_is_measured() {
        let plan = plan(&[]);
        assert_eq!(plan.peers, Peer::PROXIES);
        assert_eq!(plan.scenarios.len(), 6);
        assert!(plan.has_growth);
    }

    #[test]
    fn words_of_one_kind_add_up_and_kinds_narrow_each_other() {
        let plan = plan(&["http1", "tcp", "10", "envoy"]);
        assert_eq!(plan.peers, [Peer::Envoy]);
        let expected = [Protocol::Http1, Protocol::Tcp].map(|protocol| Scenario { protocol, rules: 10 });
        assert_eq!(plan.scenarios, expected);
        assert!(!plan.has_growth);
    }

    #[test]
    fn growth_alone_is_growth_alone() {
        let plan = plan(&["growth"]);
        assert!(plan.has_growth && plan.scenarios.is_empty());
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert!("htpp1".parse::<Filter>().is_err());
        assert!(Plan::new(Effort::Quick, &[Filter::Growth, Filter::Peer(Peer::Envoy)]).is_err());
    }
}
