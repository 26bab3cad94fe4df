//! The proxies, each told to do the same work in its own words.

mod envoy;
mod haproxy;
mod mini_mesh;
mod nginx;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::accounting;
use super::daemon::Daemon;
use super::lab::Lab;
use super::load::Target;
use super::plan::{Peer, Protocol, Scenario};

/// Port of the explicit proxies A, on loopback.
const PORT_A: u16 = 18080;
/// Port of the explicit proxies B.
const PORT_B: u16 = 18443;
/// Longest wait for a pair of proxies to do its work; ten thousand rules are read meanwhile.
const START_MAX: Duration = Duration::from_secs(60);
/// Pause between two tries of a first request.
const START_PAUSE: Duration = Duration::from_millis(5);
/// A path that no rule allows.
const FORBIDDEN_PATH: &str = "/forbidden";

/// Programs that do not come with the system.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// Folder of our binaries.
    pub(crate) binaries: PathBuf,
    /// Envoy, when it is measured.
    pub(crate) envoy: Option<PathBuf>,
}

/// A pair of proxies that does its work. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct RunningPair {
    /// Who it is.
    pub(crate) peer: Peer,
    /// Where load is sent.
    pub(crate) target: Target,
    /// From the start of both processes to the first answered request, in milliseconds.
    pub(crate) start_ms: f64,
    /// Resident memory of the larger of both after one request, in KiB.
    pub(crate) idle_kib: u64,
    proxies: [Daemon; 2],
    /// What else it needs, ended after the proxies.
    _beside: Vec<Daemon>,
}

impl RunningPair {
    /// Starts a pair and waits for its first answer.
    ///
    /// # Errors
    /// When it does not answer, or lets pass what no rule allows.
    pub(crate) fn start(peer: Peer, scenario: Scenario, lab: &Lab) -> Result<Self> {
        let launched = match peer {
            Peer::MiniMesh => mini_mesh::launch(scenario, lab)?,
            Peer::Envoy => envoy::launch(scenario, lab)?,
            Peer::Haproxy => haproxy::launch(scenario, lab)?,
            Peer::Nginx => nginx::launch(scenario, lab)?,
            Peer::Direct => bail!("there is no proxy to start"),
        };
        let Launched { mut proxies, beside, begun, authority } = launched;
        let target = lab.target(peer, scenario.protocol, &authority)?;
        let answers = || target.answers(scenario.protocol.path()).then_some(());
        if let Err(error) = proxies[0].until(START_MAX, START_PAUSE, answers) {
            bail!("{error:#}; proxy B: {}", proxies[1].last_words());
        }
        let start_ms = begun.elapsed().as_secs_f64() * 1_000.0;
        if peer != Peer::Nginx && scenario.protocol != Protocol::Tcp {
            ensure!(!target.answers(FORBIDDEN_PATH), "{peer} lets pass what no rule allows");
        }
        let mut pair = Self { peer, target, start_ms, idle_kib: 0, proxies, _beside: beside };
        pair.idle_kib = pair.resident_kib()?;
        Ok(pair)
    }

    /// CPU time that both proxies have used, in microseconds.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn cpu_us(&self) -> Result<u64> {
        let [a, b] = &self.proxies;
        Ok(accounting::cpu_us(a.pid())? + accounting::cpu_us(b.pid())?)
    }

    /// Resident memory of the larger of both, in KiB.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn resident_kib(&self) -> Result<u64> {
        let [a, b] = &self.proxies;
        Ok(accounting::resident_kib(a.pid())?.max(accounting::resident_kib(b.pid())?))
    }
}

/// A pair whose processes have been started.
#[derive(Debug)]
struct Launched {
    /// A and B.
    proxies: [Daemon; 2],
    /// What else it needs.
    beside: Vec<Daemon>,
    /// When the first of both was started.
    begun: Instant,
    /// Address and port that the client calls.
    authority: String,
}

impl Launched {
    fn explicit(begun: Instant, proxies: [Daemon; 2]) -> Self {
        Self { proxies, beside: Vec::new(), begun, authority: format!("127.0.0.1:{PORT_A}") }
    }
}

/// One authorization rule: who may call what. For byte streams only who counts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Service account of the caller, in the namespace `bench`.
    account: String,
    method: &'static str,
    path: String,
}

/// Rules of which only the last admits the client, so that an implementation that walks them walks them all.
fn rules(scenario: Scenario) -> impl Iterator<Item = Rule> {
    let Scenario { protocol, rules } = scenario;
    (0..rules).map(move |index| {
        let is_last = index + 1 == rules;
        Rule {
            account: if is_last { "client".to_owned() } else { format!("caller-{index:05}") },
            method: protocol.method(),
            path: if is_last { protocol.path().to_owned() } else { format!("/api/item-{index:05}") },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_rule_admits_the_client() {
        let rules: Vec<Rule> = rules(Scenario { protocol: Protocol::Grpc, rules: 10 }).collect();
        assert_eq!(rules.len(), 10);
        assert_eq!(rules.iter().position(|rule| rule.account == "client"), Some(9));
        assert_eq!(rules[9].path, "/bench.Echo/Call");
    }
}
