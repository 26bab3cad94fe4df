//! `cargo xtask bench control`: the control plane on a cluster of thousands of services and proxies.
//!
//! The cluster's API is in memory and the proxies are simulated, all in one process beside the control plane, so
//! that nothing but the control plane costs anything worth measuring. Limits are those of DESIGN: a change is
//! with every proxy within a second.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::output;
use crate::process::{Profile, build, command};

/// Longest time from a change to 99 of 100 proxies, in milliseconds.
const PUSH_P99_MS_MAX: f64 = 1_000.0;

/// Measures, prints the table, and judges it.
///
/// # Errors
/// When something fails, or a limit is missed.
pub(crate) fn run() -> Result<()> {
    output::note("building mesh-control and its measurement, optimised");
    let binaries = build(&["mesh-control", "mesh-scale"], Profile::Release)?;
    let mut measuring = command(binaries.join("mesh-scale"), &["--control"]);
    measuring.arg(binaries.join("mesh-control")).stdin(Stdio::null()).stderr(Stdio::inherit());
    let done = measuring.output().context("the measurement cannot be run")?;
    ensure!(done.status.success(), "the measurement has failed: {}", done.status);
    let figures: Value = serde_json::from_slice(&done.stdout).context("the figures")?;
    output::line(&table(&figures));
    let missed: Vec<String> =
        ["policy", "endpoint"].into_iter().filter_map(|push| missed(&figures, push)).collect();
    if missed.is_empty() { Ok(()) } else { bail!("limits missed: {}", missed.join("; ")) }
}

fn missed(figures: &Value, push: &str) -> Option<String> {
    let p99 = figures[push]["p99_ms"].as_f64().unwrap_or(f64::INFINITY);
    (p99 > PUSH_P99_MS_MAX)
        .then(|| format!("a change of {push} takes {p99:.0} ms, at most {PUSH_P99_MS_MAX:.0} ms is allowed"))
}

fn table(figures: &Value) -> String {
    let number =
        |path: &[&str]| path.iter().fold(figures, |value, key| &value[*key]).as_f64().unwrap_or(f64::NAN);
    let count = |key: &str| figures["sizes"][key].as_u64().unwrap_or(0);
    let mut lines = vec![format!("{} services, {} proxies", count("services"), count("proxies"))];
    let rows: [(&str, &[&str], &str); 14] = [
        ("start, empty cluster", &["empty_ready_ms"], "ms"),
        ("start, whole cluster", &["cold_start_ms"], "ms"),
        ("all proxies served after", &["all_proxies_ms"], "ms"),
        ("resident, empty cluster", &["empty_mib"], "MiB"),
        ("resident, all services", &["services_mib"], "MiB"),
        ("resident, and all proxies", &["proxies_mib"], "MiB"),
        ("each service", &["service_kib"], "KiB"),
        ("each proxy", &["proxy_kib"], "KiB"),
        ("a policy for all, p50", &["policy", "p50_ms"], "ms"),
        ("a policy for all, p99", &["policy", "p99_ms"], "ms"),
        ("processor time of it", &["policy_cpu_ms"], "ms"),
        ("an endpoint, p50", &["endpoint", "p50_ms"], "ms"),
        ("an endpoint, p99", &["endpoint", "p99_ms"], "ms"),
        ("an endpoint, slowest", &["endpoint", "max_ms"], "ms"),
    ];
    lines.extend(rows.map(|(name, path, unit)| format!("{name:<28}{:>10.1} {unit}", number(path))));
    lines.join("\n")
}
