//! How the control plane of a large cluster is doing: the time from its start until it is ready, its memory for each
//! service and each proxy, and the time from a change in the cluster until proxies have it.
//!
//! The control plane is the program itself, in a process of its own. It follows an API server that is made up
//! ([`api_server`], over HTTP on loopback) and serves proxies that are made up ([`proxy`]): each has its own service
//! account, certificate, connection and subscriptions, and does with what it is sent nothing but acknowledge it.
//!
//! `cargo bench -p mesh-control --bench scale -- --control PATH [--services N] [--proxies N] [--rounds N] [--json]`

mod api_server;
mod cluster;
mod control;
mod proxy;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use mesh_api::wire::TypeUrl;
use serde::Serialize;
use tokio::sync::mpsc;

use api_server::ApiServer;
use control::Control;
use proxy::Proxies;

/// Longest that a policy may take until the slowest of a hundred proxies has it (DESIGN.md section 9).
const POLICY_P99_MAX: Duration = Duration::from_secs(1);
/// A round that takes longer than this has failed.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Options.
#[derive(Debug, Parser)]
struct Options {
    /// The control plane's program.
    #[arg(long, value_name = "FILE", env = "MESH_CONTROL")]
    control: PathBuf,
    /// Services of the cluster.
    #[arg(long, default_value_t = 5000)]
    services: usize,
    /// Proxies, each of one pod.
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Services that each proxy calls.
    #[arg(long, default_value_t = 5)]
    calls: usize,
    /// Changes of each kind.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Times from a change until proxies have it, in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    deliveries: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
struct Measured {
    services: usize,
    proxies: usize,
    calls: usize,
    /// From the start of the process until it is ready.
    cold_start_ms: f64,
    /// The same in an empty cluster.
    empty_start_ms: f64,
    /// Resident memory in an empty cluster, and ready in the full one, in KiB.
    empty_kib: u64,
    ready_kib: u64,
    /// With every proxy connected and subscribed.
    connected_kib: u64,
    kib_per_service: f64,
    kib_per_proxy: f64,
    /// Until every proxy had a certificate and all that it subscribed to.
    connect_ms: f64,
    /// A policy of the whole mesh, until each proxy has it.
    policy: Latency,
    /// A pod that becomes ready or unready, until each proxy that calls its services has it.
    endpoint: Latency,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let measured = measure(&options).await?;
    let text = match options.json {
        true => serde_json::to_string_pretty(&measured)?,
        false => table(&measured),
    };
    writeln!(std::io::stdout(), "{text}")?;
    let p99 = Duration::from_secs_f64(measured.policy.p99_ms / 1000.0);
    ensure!(
        p99 <= POLICY_P99_MAX,
        "a policy took {p99:?} to reach 99 of 100 proxies, at most {POLICY_P99_MAX:?} are allowed"
    );
    Ok(())
}

async fn measure(options: &Options) -> Result<Measured> {
    let empty = ApiServer::start().await?;
    cluster::found(&empty);
    let control = Control::start(&options.control, &empty).await?;
    let (empty_start, empty_kib) = (control.started_in, control.resident_kib()?);
    control.stop().await?;

    let server = ApiServer::start().await?;
    cluster::found(&server);
    cluster::fill(&server, options.services, options.proxies);
    let control = Control::start(&options.control, &server).await?;
    let ready_kib = control.resident_kib()?;
    let root = control.root(&server).await?;

    let (told, mut heard) = mpsc::channel(100_000);
    let began = Instant::now();
    let proxies = Proxies::connect(&control, root, options, told).await?;
    let connect = began.elapsed();
    // Acknowledgements are under way still.
    tokio::time::sleep(Duration::from_secs(1)).await;
    while heard.try_recv().is_ok() {}
    let connected_kib = control.resident_kib()?;

    let mut policy = Vec::new();
    for round in 0..options.rounds {
        let began = Instant::now();
        cluster::put_policy(&server, round);
        policy.extend(deliveries(&mut heard, TypeUrl::WorkloadPolicies, options.proxies, began).await?);
    }
    let mut endpoint = Vec::new();
    for round in 0..options.rounds {
        let callers = proxies.callers_of(cluster::app_of(0), options);
        let began = Instant::now();
        cluster::put_pod(&server, 0, round % 2 == 1);
        endpoint.extend(deliveries(&mut heard, TypeUrl::Destination, callers, began).await?);
    }
    let result = Measured {
        services: options.services,
        proxies: options.proxies,
        calls: options.calls,
        cold_start_ms: ms(control.started_in),
        empty_start_ms: ms(empty_start),
        empty_kib,
        ready_kib,
        connected_kib,
        kib_per_service: per(ready_kib.saturating_sub(empty_kib), options.services),
        kib_per_proxy: per(connected_kib.saturating_sub(ready_kib), options.proxies),
        connect_ms: ms(connect),
        policy: latency(policy),
        endpoint: latency(endpoint),
    };
    proxies.stop();
    control.stop().await?;
    Ok(result)
}

/// Waits until `number` proxies have been told something of a kind; answers how long after `began` each was.
async fn deliveries(
    heard: &mut mpsc::Receiver<(usize, TypeUrl, Instant)>,
    kind: TypeUrl,
    number: usize,
    began: Instant,
) -> Result<Vec<Duration>> {
    let mut first: BTreeMap<usize, Duration> = BTreeMap::new();
    while first.len() < number {
        let next = tokio::time::timeout(ROUND_MAX, heard.recv()).await;
        let (proxy, of, at) = next
            .with_context(|| format!("{} of {number} proxies were told of a change in time", first.len()))?
            .context("the proxies are gone")?;
        if of == kind && at >= began {
            first.entry(proxy).or_insert(at - began);
        }
    }
    Ok(first.into_values().collect())
}

fn latency(mut times: Vec<Duration>) -> Latency {
    times.sort();
    let at =
        |share: usize| times.get((times.len().saturating_sub(1)) * share / 100).copied().unwrap_or_default();
    Latency { deliveries: times.len(), p50_ms: ms(at(50)), p99_ms: ms(at(99)), max_ms: ms(at(100)) }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn per(kib: u64, number: usize) -> f64 {
    (kib as f64 / number.max(1) as f64 * 10.0).round() / 10.0
}

fn table(measured: &Measured) -> String {
    let Measured { services, proxies, calls, .. } = measured;
    let line = |latency: &Latency| {
        format!(
            "p50 {} ms, p99 {} ms, at most {} ms ({} deliveries)",
            latency.p50_ms, latency.p99_ms, latency.max_ms, latency.deliveries
        )
    };
    format!(
        "{services} services, {proxies} proxies that call {calls} services each\n\
         start to ready          {} ms (empty cluster: {} ms)\n\
         resident memory         {} KiB empty, {} KiB ready, {} KiB with all proxies\n\
         for each service        {} KiB (with its share of pods and accounts)\n\
         for each proxy          {} KiB\n\
         all proxies connected   {} ms\n\
         policy to every proxy   {}\n\
         endpoint to its callers {}",
        measured.cold_start_ms,
        measured.empty_start_ms,
        measured.empty_kib,
        measured.ready_kib,
        measured.connected_kib,
        measured.kib_per_service,
        measured.kib_per_proxy,
        measured.connect_ms,
        line(&measured.policy),
        line(&measured.endpoint),
    )
}
