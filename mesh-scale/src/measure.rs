//! The steps, and what is measured in each.
//!
//! A push is timed from the moment at which the cluster has the changed object to the moment at which a proxy
//! has what follows from it: watch, translation, encoding, TLS and the transport are all in it. Simulated
//! proxies share the machine with the control plane, so the figures are upper bounds.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use mesh_api::name::{SpiffeId, TrustDomain};
use mesh_api::wire::TypeUrl;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::api_server::{ApiServer, token};
use crate::process::ControlPlane;
use crate::proxy::{Control, News, Proxy};
use crate::world;

/// Destinations that each proxy's application calls.
const CALLED: usize = 5;
/// News that wait to be counted.
const QUEUE: usize = 65_536;
/// Longest wait for all proxies to have something.
const WAIT_MAX: Duration = Duration::from_secs(120);
/// Time without news after which everybody has everything.
const QUIET: Duration = Duration::from_millis(500);

/// How large the cluster is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sizes {
    /// Services, each with one pod.
    pub(crate) services: usize,
    /// Simulated proxies.
    pub(crate) proxies: usize,
    /// Changes that are timed.
    pub(crate) rounds: usize,
}

/// Time from a change to the proxies that it concerns, in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Push {
    samples: u64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    sizes: Sizes,
    /// From its start until an empty cluster is served.
    empty_ready_ms: f64,
    /// From its start until the whole cluster is served.
    cold_start_ms: f64,
    /// From the first connection until every proxy has its certificate and its configuration.
    all_proxies_ms: f64,
    /// Resident memory in an empty cluster.
    empty_mib: f64,
    /// Resident memory with all services and no proxy.
    services_mib: f64,
    /// Resident memory with all services and proxies.
    proxies_mib: f64,
    /// Growth for each service, with its pod and endpoints.
    service_kib: f64,
    /// Growth for each proxy.
    proxy_kib: f64,
    /// A policy for the whole mesh.
    policy: Push,
    /// A pod of a service that some proxies call stops being ready, or is ready again.
    endpoint: Push,
    /// Processor time for one such policy, all proxies together.
    policy_cpu_ms: f64,
    /// Requests to the API server in all, by verb and collection.
    requests: BTreeMap<String, u64>,
}

/// Measures.
///
/// # Errors
/// When the control plane or a proxy fails.
pub(crate) async fn run(program: &Path, sizes: Sizes) -> Result<Figures> {
    ensure!(sizes.services >= CALLED && sizes.proxies > 0 && sizes.rounds > 0, "the sizes are too small");
    let (empty, empty_address) = ApiServer::start().await?;
    world::furnish(&empty, 0, 0);
    let control = ControlPlane::start(program, empty_address).await?;
    let empty_ready = control.ready_after;
    sleep(QUIET).await;
    let empty_bytes = control.resident_bytes()?;
    drop(control);

    let (server, address) = ApiServer::start().await?;
    world::furnish(&server, sizes.services, sizes.proxies);
    let control = ControlPlane::start(program, address).await?;
    sleep(QUIET).await;
    let services_bytes = control.resident_bytes()?;

    let begun = Instant::now();
    let mut swarm = Swarm::start(&control, &server, sizes).await?;
    let last = swarm.all_settled(&control).await?;
    let all_proxies = last.duration_since(begun);
    let proxies_bytes = control.resident_bytes()?;

    let cpu_before = control.processor_time()?;
    let policy = swarm.policies(&server).await?;
    let policy_cpu = control.processor_time()?.saturating_sub(cpu_before);
    let endpoint = swarm.endpoints(&server).await?;
    let per = |bytes: u64, number: usize| bytes as f64 / 1024.0 / number as f64;
    Ok(Figures {
        sizes,
        empty_ready_ms: milliseconds(empty_ready),
        cold_start_ms: milliseconds(control.ready_after),
        all_proxies_ms: milliseconds(all_proxies),
        empty_mib: mebibytes(empty_bytes),
        services_mib: mebibytes(services_bytes),
        proxies_mib: mebibytes(proxies_bytes),
        service_kib: per(services_bytes.saturating_sub(empty_bytes), sizes.services),
        proxy_kib: per(proxies_bytes.saturating_sub(services_bytes), sizes.proxies),
        policy,
        endpoint,
        policy_cpu_ms: milliseconds(policy_cpu) / sizes.rounds as f64,
        requests: server.requests(),
    })
}

/// All proxies, and what they are sent.
struct Swarm {
    sizes: Sizes,
    news: mpsc::Receiver<News>,
    proxies: JoinSet<Result<()>>,
}

impl Swarm {
    async fn start(control: &ControlPlane, server: &ApiServer, sizes: Sizes) -> Result<Self> {
        let trust_domain = TrustDomain::parse("cluster.local").context("the trust domain")?;
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/istio-system/sa/mesh-control")
            .context("the identity")?;
        let root = root(server).await?;
        let facts = Arc::new(Control { address: control.address, root, trust_domain, identity });
        let (observer, news) = mpsc::channel(QUEUE);
        let mut proxies = JoinSet::new();
        for n in 0..sizes.proxies {
            let called = (0..CALLED).map(|k| (n + k) % sizes.services);
            let proxy = Proxy {
                node: format!("{}.{}", world::client(n), world::namespace(n)),
                token: token(&world::namespace(n), "client", &world::client(n)),
                destinations: called.map(|n| format!("addr/{}", world::service_address(n))).collect(),
            };
            proxies.spawn(proxy.run(Arc::clone(&facts), observer.clone()));
        }
        Ok(Self { sizes, news, proxies })
    }

    /// Waits until every proxy has what it asked for; the moment of the last news.
    async fn all_settled(&mut self, control: &ControlPlane) -> Result<Instant> {
        // Bundle, configuration, policies and the destinations, which may come in one answer or in several.
        let mut counts = HashMap::new();
        let mut last = Instant::now();
        let deadline = Instant::now() + WAIT_MAX;
        while counts.values().filter(|count| **count >= self.sizes.proxies).count() < TypeUrl::ALL.len() {
            tokio::select! {
                news = self.news.recv() => {
                    let news = news.context("all proxies have ended")?;
                    *counts.entry(news.kind).or_insert(0_usize) += 1;
                    last = last.max(news.at);
                }
                Some(ended) = self.proxies.join_next() => {
                    let log = tokio::fs::read_to_string(control.log()).await.unwrap_or_default();
                    let tail: Vec<&str> = log.lines().rev().take(10).collect();
                    bail!("a proxy has ended: {ended:?}\n{}", tail.join("\n"));
                }
                () = tokio::time::sleep_until(deadline) => bail!("not every proxy is served after {WAIT_MAX:?}: {counts:?}"),
            }
        }
        self.drain().await;
        Ok(last)
    }

    /// A policy for all, changed time after time.
    async fn policies(&mut self, server: &ApiServer) -> Result<Push> {
        let mut times = histogram()?;
        for round in 0..self.sizes.rounds {
            let begun = Instant::now();
            server.put(world::POLICIES, world::mesh_policy(&format!("/round-{round}")));
            self.collect(TypeUrl::WorkloadPolicies, self.sizes.proxies, begun, &mut times).await?;
        }
        Ok(push(&times))
    }

    /// A pod that comes and goes.
    async fn endpoints(&mut self, server: &ApiServer) -> Result<Push> {
        let mut times = histogram()?;
        let callers = (0..self.sizes.proxies)
            .filter(|n| (0..CALLED).any(|k| (n + k) % self.sizes.services == CALLED))
            .count();
        for round in 0..self.sizes.rounds {
            let service = world::service(CALLED);
            let pod = world::pod_object(
                CALLED,
                &format!("{service}-0"),
                &service,
                &world::address(1, CALLED),
                round % 2 == 1,
            );
            let begun = Instant::now();
            server.put(world::PODS, pod);
            self.collect(TypeUrl::Destination, callers, begun, &mut times).await?;
        }
        Ok(push(&times))
    }

    /// Counts news of one type until there are as many as expected.
    async fn collect(
        &mut self,
        kind: TypeUrl,
        expected: usize,
        begun: Instant,
        times: &mut Histogram<u64>,
    ) -> Result<()> {
        let mut seen = 0;
        while seen < expected {
            let news = timeout(WAIT_MAX, self.news.recv()).await;
            let Ok(Some(news)) = news else {
                bail!("{seen} of {expected} proxies were told of a change of {kind:?}")
            };
            if news.kind == kind {
                seen += 1;
                let micros = u64::try_from(news.at.duration_since(begun).as_micros()).unwrap_or(u64::MAX);
                times.saturating_record(micros);
            }
        }
        self.drain().await;
        Ok(())
    }

    /// Takes what still comes, until nothing does.
    async fn drain(&mut self) {
        while let Ok(Some(_late)) = timeout(QUIET, self.news.recv()).await {}
    }
}

/// The root, from where the control plane publishes it.
async fn root(server: &ApiServer) -> Result<String> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let found = server.find("/v1/configmaps", &world::namespace(0), mesh_kube::name::ROOT_CERT);
        if let Some(pem) =
            found.and_then(|map| map["data"][mesh_kube::name::ROOT_CERT_KEY].as_str().map(str::to_owned))
        {
            return Ok(pem);
        }
        ensure!(Instant::now() < deadline, "the control plane publishes no root certificate");
        sleep(Duration::from_millis(20)).await;
    }
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 600_000_000, 3).context("a histogram")
}

fn push(times: &Histogram<u64>) -> Push {
    let ms = |micros: u64| micros as f64 / 1000.0;
    Push {
        samples: times.len(),
        p50_ms: ms(times.value_at_quantile(0.5)),
        p99_ms: ms(times.value_at_quantile(0.99)),
        max_ms: ms(times.max()),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
