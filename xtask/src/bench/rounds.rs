//! The order of measurements: all pairs of a scenario run beside each other and take turns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::lab::Lab;
use super::load::{Latency, Outcome, Target};
use super::peers::RunningPair;
use super::plan::{Effort, Peer, Plan, Protocol, RULES, Scenario};
use crate::output;

/// Requests of the first, short load, which opens connections and shows about how fast a pair is.
const FIRST_REQUESTS: u64 = 256;
/// Most requests of one turn.
const TURN_REQUESTS_MAX: u64 = 500_000;
/// Requests of one part of the growth measurement, after each of which logs are emptied.
const GROWTH_PART: u64 = 50_000;
/// Parts that pass before growth counts: pools, buffers and the allocator's caches fill meanwhile.
const GROWTH_WARM_UP: u64 = 1;

/// Figures of one pair in one scenario.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Who.
    pub(crate) peer: Peer,
    /// What.
    #[serde(flatten)]
    pub(crate) scenario: Scenario,
    /// CPU microseconds of both proxies per request, turn by turn.
    pub(crate) cpu_us_turns: Vec<f64>,
    /// The median of the turns.
    pub(crate) cpu_us: f64,
    /// Requests a second, the median of the turns.
    pub(crate) requests_per_second: f64,
    /// Latency at a fixed rate.
    pub(crate) latency: Option<Latency>,
    /// The same, less that of no proxy at all.
    pub(crate) added: Option<Latency>,
    /// Resident memory of the larger proxy after its first request, in KiB.
    pub(crate) idle_kib: u64,
    /// The most under 128 connections, in KiB.
    pub(crate) loaded_kib: u64,
    /// From the start of the processes to the first answer, in milliseconds.
    pub(crate) start_ms: f64,
}

/// Resident memory over many requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Growth {
    /// Requests between both readings.
    pub(crate) requests: u64,
    /// Before them, in KiB.
    pub(crate) before_kib: u64,
    /// After them, in KiB.
    pub(crate) after_kib: u64,
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// Figures by scenario and peer.
    pub(crate) figures: Vec<Figures>,
    /// Latency without a proxy, by protocol.
    pub(crate) direct: Vec<(Protocol, Latency)>,
    /// Growth of ours.
    pub(crate) growth: Option<Growth>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// Measures all of a plan. What one peer cannot do is noted and does not end the run.
///
/// # Errors
/// When the run itself breaks.
pub(crate) fn run(plan: &Plan, lab: &Lab) -> Result<Measured> {
    let mut measured = Measured::default();
    for scenario in &plan.scenarios {
        output::note(&format!("== {scenario}"));
        measure_scenario(*scenario, plan, lab, &mut measured)?;
    }
    if plan.has_growth {
        output::note(&format!("== growth over {} requests", plan.effort.growth_requests()));
        match growth(plan.effort, lab) {
            Ok(growth) => measured.growth = Some(growth),
            Err(error) => measured.failures.push(format!("growth: {error:#}")),
        }
    }
    Ok(measured)
}

fn measure_scenario(scenario: Scenario, plan: &Plan, lab: &Lab, measured: &mut Measured) -> Result<()> {
    let is_base = scenario.rules == RULES[0];
    let mut contestants = Vec::new();
    for peer in &plan.peers {
        // nginx has no rules, so more of them change nothing.
        if *peer == Peer::Nginx && !is_base {
            continue;
        }
        match RunningPair::start(*peer, scenario, lab).and_then(|pair| Contestant::warm_up(pair, plan.effort))
        {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => fail(measured, *peer, scenario, &error),
        }
    }
    for round in 0..plan.effort.rounds() {
        // Whoever went first goes last in the next round.
        contestants.rotate_left(round.min(1));
        for contestant in &mut contestants {
            contestant.take(Contestant::turn);
        }
        lab.empty_logs()?;
    }
    let mut direct = None;
    if is_base && !contestants.is_empty() {
        let target = lab.direct_target(scenario.protocol)?;
        let latency = target.pace(plan.effort.paced_requests(), &lab.latency_log())?;
        measured.direct.push((scenario.protocol, latency));
        direct = Some(latency);
        for contestant in &mut contestants {
            contestant.take(|it| it.pace(plan.effort, lab));
        }
    }
    for contestant in &mut contestants {
        contestant.take(Contestant::fill);
    }
    lab.empty_logs()?;
    contestants.sort_by_key(|contestant| contestant.pair.peer);
    for contestant in contestants {
        match contestant.failure {
            Some(error) => fail(measured, contestant.pair.peer, scenario, &error),
            None => measured.figures.push(contestant.figures(scenario, direct)),
        }
    }
    Ok(())
}

fn fail(measured: &mut Measured, peer: Peer, scenario: Scenario, error: &anyhow::Error) {
    output::note(&format!("   {peer}: {error:#}"));
    measured.failures.push(format!("{peer}, {scenario}: {error:#}"));
}

/// A pair and what was read of it so far.
#[derive(Debug)]
struct Contestant {
    pair: RunningPair,
    requests_per_turn: u64,
    cpu_us: Vec<f64>,
    requests_per_second: Vec<f64>,
    latency: Option<Latency>,
    loaded_kib: u64,
    failure: Option<anyhow::Error>,
}

impl Contestant {
    fn warm_up(pair: RunningPair, effort: Effort) -> Result<Self> {
        let mut outcome = pair.target.push(FIRST_REQUESTS)?;
        // Twice, because the first loads are mostly handshakes, which a turn is to be hardly any of.
        for _ in 0..2 {
            outcome = pair.target.push(requests_in(outcome, effort.turn() / 8))?;
        }
        let requests_per_turn = requests_in(outcome, effort.turn());
        Ok(Self {
            pair,
            requests_per_turn,
            cpu_us: Vec::new(),
            requests_per_second: Vec::new(),
            latency: None,
            loaded_kib: 0,
            failure: None,
        })
    }

    /// Does a measurement unless an earlier one failed.
    fn take(&mut self, measurement: impl FnOnce(&mut Self) -> Result<()>) {
        if self.failure.is_none() {
            self.failure = measurement(self).err();
        }
    }

    fn turn(&mut self) -> Result<()> {
        let before = self.pair.cpu_us()?;
        let outcome = self.pair.target.push(self.requests_per_turn)?;
        let used = self.pair.cpu_us()? - before;
        let per_request = as_float(used) / as_float(outcome.requests);
        let per_second = as_float(outcome.requests) / outcome.seconds;
        output::note(&format!(
            "   {:<10} {per_request:8.1} us CPU a request, {per_second:8.0} a second",
            self.pair.peer
        ));
        self.cpu_us.push(per_request);
        self.requests_per_second.push(per_second);
        Ok(())
    }

    fn pace(&mut self, effort: Effort, lab: &Lab) -> Result<()> {
        self.latency = Some(self.pair.target.pace(effort.paced_requests(), &lab.latency_log())?);
        Ok(())
    }

    /// Reads memory while many connections are open.
    fn fill(&mut self) -> Result<()> {
        let pair = &self.pair;
        let is_over = AtomicBool::new(false);
        let requests = self.requests_per_turn / 2;
        self.loaded_kib = thread::scope(|scope| -> Result<u64> {
            let load = scope.spawn(|| {
                let outcome = pair.target.push_many(requests);
                is_over.store(true, Ordering::Release);
                outcome
            });
            let mut most = 0;
            while !is_over.load(Ordering::Acquire) {
                most = most.max(pair.resident_kib()?);
                thread::park_timeout(Duration::from_millis(50));
            }
            load.join().ok().context("the load's thread ended early")??;
            Ok(most)
        })?;
        Ok(())
    }

    fn figures(self, scenario: Scenario, direct: Option<Latency>) -> Figures {
        let less = |ours: Latency, direct: Latency| Latency {
            p50_us: ours.p50_us - direct.p50_us,
            p99_us: ours.p99_us - direct.p99_us,
        };
        Figures {
            peer: self.pair.peer,
            scenario,
            cpu_us: median(&self.cpu_us),
            cpu_us_turns: self.cpu_us,
            requests_per_second: median(&self.requests_per_second),
            latency: self.latency,
            added: self.latency.zip(direct).map(|(latency, direct)| less(latency, direct)),
            idle_kib: self.pair.idle_kib,
            loaded_kib: self.loaded_kib,
            start_ms: self.pair.start_ms,
        }
    }
}

fn growth(effort: Effort, lab: &Lab) -> Result<Growth> {
    let scenario = Scenario { protocol: Protocol::Http1, rules: RULES[0] };
    let pair = RunningPair::start(Peer::MiniMesh, scenario, lab)?;
    let part = |target: &Target| -> Result<()> {
        target.push(GROWTH_PART)?;
        lab.empty_logs()
    };
    for _ in 0..GROWTH_WARM_UP {
        part(&pair.target)?;
    }
    let before_kib = pair.resident_kib()?;
    let parts = effort.growth_requests() / GROWTH_PART;
    for number in 1..=parts {
        part(&pair.target)?;
        output::note(&format!("   {:>9} requests: {} KiB", number * GROWTH_PART, pair.resident_kib()?));
    }
    Ok(Growth { requests: parts * GROWTH_PART, before_kib, after_kib: pair.resident_kib()? })
}

/// How many requests a pair answers in a time, judged by an earlier load.
fn requests_in(earlier: Outcome, time: Duration) -> u64 {
    let requests = as_float(earlier.requests) / earlier.seconds.max(1e-3) * time.as_secs_f64();
    Duration::try_from_secs_f64(requests)
        .map_or(TURN_REQUESTS_MAX, |d| d.as_secs())
        .clamp(64, TURN_REQUESTS_MAX)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// Counts here are far below the 2^53 up to which this is exact.
fn as_float(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^53")]
    let float = count as f64;
    float
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_one_outlier() {
        assert!((median(&[3.0, 1.0, 100.0]) - 3.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0]) - 1.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn turns_are_bounded_in_requests() {
        let fast = Outcome { seconds: 0.001, requests: 1_000_000 };
        let slow = Outcome { seconds: 60.0, requests: 1 };
        assert_eq!(requests_in(fast, Duration::from_secs(10)), TURN_REQUESTS_MAX);
        assert_eq!(requests_in(slow, Duration::from_secs(1)), 64);
        assert_eq!(requests_in(Outcome { seconds: 2.0, requests: 1_000 }, Duration::from_secs(4)), 2_000);
    }
}
