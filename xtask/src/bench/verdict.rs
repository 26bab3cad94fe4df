//! Figures against the limits that the project holds itself to (pure).

use serde::Serialize;

use super::plan::{Peer, Protocol, RULES, Scenario};
use super::rounds::{Figures, Measured};

/// CPU per HTTP/1.1 request, as a share of Envoy's.
const HTTP1_OF_ENVOY_MAX: f64 = 0.5;
/// CPU per gRPC call, as a share of Envoy's.
const GRPC_OF_ENVOY_MAX: f64 = 0.6;
/// Resident memory of an idle proxy, in MiB.
const IDLE_MIB_MAX: f64 = 14.0;
/// Cost with ten thousand rules, as a multiple of that with ten.
const RULES_RATIO_MAX: f64 = 1.5;
/// What resident memory may differ by over the growth measurement, in MiB: pages that the allocator takes and
/// returns. A leak of 2 bytes a request would be more over a million.
const GROWTH_MIB_MAX: f64 = 1.0;

/// One limit and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Verdict {
    /// What is limited.
    pub(crate) what: String,
    /// What was measured.
    pub(crate) value: f64,
    /// The most that it may be.
    pub(crate) limit: f64,
    /// Whether it is.
    pub(crate) holds: bool,
}

impl Verdict {
    fn new(what: impl Into<String>, value: f64, limit: f64) -> Self {
        // A value that is no number holds nothing.
        Self { what: what.into(), value, limit, holds: value <= limit }
    }
}

/// Judges what was measured; what was not has no verdict.
pub(crate) fn judge(measured: &Measured) -> Vec<Verdict> {
    let figures = |peer, protocol, rules| find(&measured.figures, peer, Scenario { protocol, rules });
    let cpu = |peer, protocol, rules| figures(peer, protocol, rules).map(|figures| figures.cpu_us);
    let mut verdicts = Vec::new();
    for (protocol, limit) in [(Protocol::Http1, HTTP1_OF_ENVOY_MAX), (Protocol::Grpc, GRPC_OF_ENVOY_MAX)] {
        let ours = cpu(Peer::MiniMesh, protocol, RULES[0]);
        if let Some((ours, envoys)) = ours.zip(cpu(Peer::Envoy, protocol, RULES[0])) {
            verdicts.push(Verdict::new(
                format!("CPU a request of Envoy's, {protocol}"),
                ours / envoys,
                limit,
            ));
        }
    }
    let ours = || measured.figures.iter().filter(|figures| figures.peer == Peer::MiniMesh);
    let idle =
        ours().filter(|figures| figures.scenario.rules == RULES[0]).map(|figures| figures.idle_kib).max();
    if let Some(idle) = idle {
        verdicts.push(Verdict::new("MiB resident when idle", mib(idle), IDLE_MIB_MAX));
    }
    for protocol in Protocol::ALL {
        let few = cpu(Peer::MiniMesh, protocol, RULES[0]);
        if let Some((few, many)) = few.zip(cpu(Peer::MiniMesh, protocol, RULES[1])) {
            let what = format!("CPU with {} rules of that with {}, {protocol}", RULES[1], RULES[0]);
            verdicts.push(Verdict::new(what, many / few, RULES_RATIO_MAX));
        }
    }
    if let Some(growth) = &measured.growth {
        let what = format!("MiB grown over {} requests", growth.requests);
        verdicts.push(Verdict::new(what, mib(growth.after_kib) - mib(growth.before_kib), GROWTH_MIB_MAX));
    }
    verdicts
}

/// The figures of one peer in one scenario.
pub(crate) fn find(all: &[Figures], peer: Peer, scenario: Scenario) -> Option<&Figures> {
    all.iter().find(|figures| figures.peer == peer && figures.scenario == scenario)
}

/// KiB as MiB.
pub(crate) fn mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1_024.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::rounds::Growth;

    fn figures(peer: Peer, rules: usize, cpu_us: f64) -> Figures {
        Figures {
            peer,
            scenario: Scenario { protocol: Protocol::Http1, rules },
            cpu_us_turns: vec![cpu_us],
            cpu_us,
            requests_per_second: 1.0,
            latency: None,
            added: None,
            idle_kib: 10 * 1_024,
            loaded_kib: 0,
            start_ms: 1.0,
        }
    }

    fn measured() -> Measured {
        Measured {
            figures: vec![
                figures(Peer::MiniMesh, 10, 30.0),
                figures(Peer::Envoy, 10, 100.0),
                figures(Peer::MiniMesh, 10_000, 60.0),
            ],
            growth: Some(Growth { requests: 1_000_000, before_kib: 9_000, after_kib: 9_100 }),
            ..Measured::default()
        }
    }

    #[test]
    fn each_limit_is_judged_by_itself() {
        let verdicts = judge(&measured());
        let holds: Vec<bool> = verdicts.iter().map(|verdict| verdict.holds).collect();
        // Envoy's share, idle memory, rules, growth: only the rules cost too much here.
        assert_eq!(holds, [true, true, false, true], "{verdicts:?}");
    }

    #[test]
    fn what_was_not_measured_has_no_verdict() {
        assert!(judge(&Measured::default()).is_empty());
    }

    #[test]
    fn what_is_no_number_holds_nothing() {
        assert!(!Verdict::new("x", f64::NAN, 1.0).holds);
    }
}
