//! Results as a table for people and as JSON for machines.

use serde::Serialize;

use super::load::{Latency, MANY_CONNECTIONS, PACE};
use super::plan::{Effort, Peer, Plan, Protocol, Scenario};
use super::rounds::{Figures, Growth, Measured};
use super::verdict::{Verdict, find, mib};

/// The whole result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    effort: Effort,
    workers: u16,
    figures: Vec<Figures>,
    ratios: Vec<Ratio>,
    direct: Vec<Direct>,
    growth: Option<Growth>,
    verdicts: Vec<Verdict>,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
}

/// Latency past every proxy.
#[derive(Debug, Serialize)]
struct Direct {
    protocol: Protocol,
    #[serde(flatten)]
    latency: Latency,
}

/// Our figure divided by a peer's.
#[derive(Debug, Serialize)]
struct Ratio {
    to: Peer,
    #[serde(flatten)]
    scenario: Scenario,
    cpu: f64,
    requests_per_second: f64,
    idle_memory: f64,
    loaded_memory: f64,
    start: f64,
    added_p50: Option<f64>,
    added_p99: Option<f64>,
}

impl Report {
    /// Puts the parts together.
    pub(crate) fn new(plan: &Plan, workers: u16, measured: Measured, verdicts: Vec<Verdict>) -> Self {
        let ratios = measured.figures.iter().filter_map(|theirs| ratio(&measured.figures, theirs)).collect();
        let direct =
            measured.direct.into_iter().map(|(protocol, latency)| Direct { protocol, latency }).collect();
        Self {
            effort: plan.effort,
            workers,
            figures: measured.figures,
            ratios,
            direct,
            growth: measured.growth,
            verdicts,
            failures: measured.failures,
        }
    }

    /// Limits that are not kept.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &str> {
        self.verdicts.iter().filter(|verdict| !verdict.holds).map(|verdict| verdict.what.as_str())
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "Two hops with mutual TLS, {} workers a proxy. CPU is of both proxies per request; added latency at {PACE} \
             requests a second; memory of the larger proxy, idle and with {MANY_CONNECTIONS} connections.",
            self.workers
        )];
        let mut scenario = None;
        for figures in &self.figures {
            if scenario != Some(figures.scenario) {
                scenario = Some(figures.scenario);
                lines.push(format!("\n{}", figures.scenario));
                lines.push(HEADINGS.to_owned());
            }
            lines.push(self.row(figures));
        }
        if let Some(growth) = &self.growth {
            lines.push(format!(
                "\nmini-mesh over {} requests: {:.1} MiB before, {:.1} MiB after",
                growth.requests,
                mib(growth.before_kib),
                mib(growth.after_kib)
            ));
        }
        lines.push(String::new());
        for Verdict { what, value, limit, holds } in &self.verdicts {
            let mark = if *holds { "ok    " } else { "MISSED" };
            lines.push(format!("{mark} {what}: {value:.2} (at most {limit})"));
        }
        lines.extend(self.failures.iter().map(|failure| format!("FAILED {failure}")));
        lines.join("\n")
    }

    fn row(&self, figures: &Figures) -> String {
        let added = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |us| format!("{us:.0}"));
        let ratio =
            self.ratios.iter().find(|ratio| ratio.to == figures.peer && ratio.scenario == figures.scenario);
        let name = match figures.peer {
            Peer::Nginx => "nginx (no rules)",
            other => other.name(),
        };
        format!(
            "  {name:<16} {:>9.1} {:>9} {:>9.0} {:>9} {:>9} {:>9.1} {:>9.1} {:>9.0}",
            figures.cpu_us,
            ratio.map_or_else(String::new, |ratio| format!("{:.2}x", ratio.cpu)),
            figures.requests_per_second,
            added(figures.added.map(|added| added.p50_us)),
            added(figures.added.map(|added| added.p99_us)),
            mib(figures.idle_kib),
            mib(figures.loaded_kib),
            figures.start_ms,
        )
    }
}

const HEADINGS: &str =
    "                      CPU us   ours is     req/s  +p50 us   +p99 us  idle MiB  load MiB  start ms";

fn ratio(all: &[Figures], theirs: &Figures) -> Option<Ratio> {
    let ours = find(all, Peer::MiniMesh, theirs.scenario)?;
    if theirs.peer == Peer::MiniMesh {
        return None;
    }
    let added = |part: fn(Latency) -> f64| Some(part(ours.added?) / part(theirs.added?));
    Some(Ratio {
        to: theirs.peer,
        scenario: theirs.scenario,
        cpu: ours.cpu_us / theirs.cpu_us,
        requests_per_second: ours.requests_per_second / theirs.requests_per_second,
        idle_memory: mib(ours.idle_kib) / mib(theirs.idle_kib),
        loaded_memory: mib(ours.loaded_kib) / mib(theirs.loaded_kib),
        start: ours.start_ms / theirs.start_ms,
        added_p50: added(|latency| latency.p50_us),
        added_p99: added(|latency| latency.p99_us),
    })
}
