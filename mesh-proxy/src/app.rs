//! Puts the proxy together: the only file that names what listens, connects and runs where.
//!
//! Two kinds of threads. The control thread (this one) runs discovery, identity, DNS, admin and status on a
//! runtime of its own, so that none of them can stall traffic and traffic cannot starve them. Each worker
//! thread carries its share of connections. They share the snapshot, the identity and the drain.
//!
//! Every port is bound before anything else is done, so that a proxy that cannot serve says so at once, and
//! connections that come early wait in the kernel's queue. When discovery or identity panics it
//! is started anew, and what it had published stays; when a worker panics the process ends with an error, because its listeners would swallow
//! their share of connections: interception then refuses what comes until a supervisor has started it again.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::model::DestinationKey;
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::{OperatorSocket, SocketError};
use mesh_identity::bundle::TrustBundle;
use mesh_identity::tls::IdentitySource;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::accept::listener;
use crate::admin::http::serve_all;
use crate::admin::{Admin, Audience};
use crate::control::ads_client::AdsClient;
use crate::control::core::Core;
use crate::control::status::Status;
use crate::dns::{self, DnsSettings};
use crate::identity::{IdentityKeeper, IdentityStatus};
use crate::runtime::drain::{self, Drain};
use crate::runtime::tasks::{Outcome, Tasks};
use crate::runtime::workers::{self, WorkerError, WorkerThread};
use crate::settings::{Proof, Settings};
use crate::state::State;
use crate::telemetry::access_log::{AccessLog, AccessLogTarget, OpenAccessLogError};
use crate::telemetry::denials::Denials;
use crate::telemetry::{Telemetry, process};
use crate::worker::{self, WorkerSetup};

/// How often the metric recorder tidies up; without it samples pile up until the next scrape.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked whether the workers have ended, once the drain has begun.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often it is looked whether a worker has ended that should not have.
const WORKER_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time beyond the drain's deadline that workers are given to notice it.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How often it is said that the control plane is away.
const SILENCE_WARNING_EVERY: Duration = Duration::from_secs(60);
/// Port of DNS servers.
const DNS_PORT: u16 = 53;
/// Pause before a task that panicked is started anew.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Where the system's resolvers are named.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Why the proxy does not start, or ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A signal cannot be waited for.
    #[error("no handler for signals")]
    Signals(#[source] io::Error),
    /// The access log.
    #[error("the access log cannot be written")]
    AccessLog(#[from] OpenAccessLogError),
    /// A port cannot be bound.
    #[error("cannot listen on {what}")]
    Listen {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// The operator's socket.
    #[error("the admin socket cannot be opened")]
    Admin(#[from] SocketError),
    /// A worker failed.
    #[error("traffic cannot be carried")]
    Worker(#[from] WorkerError),
    /// A worker ended with no drain.
    #[error("a worker has ended by itself")]
    WorkerEnded,
}

/// Runs the proxy until it has drained. A second signal ends the wait.
///
/// # Errors
/// Why it does not start, or had to end.
pub async fn run(settings: Settings, log: LogControl) -> Result<(), RunError> {
    let settings = Arc::new(settings);
    let metrics = process::install();
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let telemetry = Telemetry::new(
        AccessLog::open(&AccessLogTarget::parse(&settings.args.access_log))?,
        Arc::new(Denials::default()),
    );
    let (state, questions) = State::new();
    let identity = IdentitySource::new(TrustBundle::new(), [settings.trust_domain.clone()]);
    let identity_status = Arc::new(IdentityStatus::default());
    let control_status = Arc::new(Status::default());
    let (drain, watch) = drain::channel();
    let admin = Admin {
        settings: Arc::clone(&settings),
        state: state.clone(),
        identity: Arc::clone(&identity),
        identity_status: Arc::clone(&identity_status),
        control_status: Arc::clone(&control_status),
        telemetry: telemetry.clone(),
        metrics: metrics.clone(),
        log,
        drain: drain.clone(),
    };

    let listeners = bind_traffic(&settings)?;
    let status_listener = bind_status(settings.args.status_listen)?;
    let admin_socket = settings.args.admin_socket.as_deref().map(OperatorSocket::open).transpose()?;
    let admin_listener = settings.args.admin_listen.map(bind_admin).transpose()?;
    let mut tasks = Tasks::default();
    if settings.args.dns_port != 0 {
        let listeners = dns::Listeners::bind(dns_settings(&settings)).map_err(|source| RunError::Listen {
            what: format!("port {} for DNS", settings.args.dns_port),
            source,
        })?;
        let state = state.clone();
        tasks.spawn("dns", async move { listeners.serve(state, std::future::pending()).await });
    }
    if let Some(socket) = admin_socket {
        tasks.spawn("admin", serve_all(admin.clone(), Audience::Operator, socket));
    }
    if let Some(listener) = admin_listener {
        tasks.spawn("admin over TCP", serve_all(admin.clone(), Audience::Operator, listener));
    }
    tasks.spawn("status", serve_all(admin.clone(), Audience::Network, status_listener));
    spawn_identity(&mut tasks, &settings, &identity, identity_status, &state);
    spawn_discovery(&mut tasks, &settings, &identity, &control_status, &state, questions);
    tasks.spawn("upkeep", upkeep(metrics, telemetry.clone(), Arc::clone(&control_status)));
    tasks.spawn("announcement", announce(admin));
    tasks.spawn("completion", complete(state.clone(), drain.clone()));

    let data_path = Arc::new(settings.data_path.clone());
    let mut workers = Vec::with_capacity(settings.workers);
    for (id, (inbound, outbound)) in listeners.into_iter().enumerate() {
        workers.push(workers::start(WorkerSetup {
            id,
            state: state.clone(),
            telemetry: telemetry.clone(),
            identity: Arc::clone(&identity),
            drain: watch.clone(),
            settings: Arc::clone(&data_path),
            inbound,
            outbound,
            dialled: worker::intercepted,
        })?);
    }
    tracing::info!(
        node = settings.args.node_id,
        control = %settings.args.control,
        workers = workers.len(),
        "mesh-proxy started"
    );
    let outcome = serve(&settings, &mut signals, &drain, workers, &mut tasks).await;
    tasks.cancel().await;
    if let Some(socket) = &settings.args.admin_socket {
        // It may be gone already, with the folder of a mesh that was taken down.
        let _gone = std::fs::remove_file(socket);
    }
    outcome
}

fn spawn_identity(
    tasks: &mut Tasks,
    settings: &Arc<Settings>,
    identity: &Arc<IdentitySource>,
    status: Arc<IdentityStatus>,
    state: &State,
) {
    let (settings, identity, state) = (Arc::clone(settings), Arc::clone(identity), state.clone());
    let keeper = move || {
        IdentityKeeper::new(Arc::clone(&settings), Arc::clone(&identity), Arc::clone(&status), state.clone())
            .run()
    };
    tasks.spawn("identity", keep("identity", keeper));
}

fn spawn_discovery(
    tasks: &mut Tasks,
    settings: &Arc<Settings>,
    identity: &Arc<IdentitySource>,
    status: &Arc<Status>,
    state: &State,
    questions: mpsc::Receiver<DestinationKey>,
) {
    let (settings, identity) = (Arc::clone(settings), Arc::clone(identity));
    let (status, state) = (Arc::clone(status), state.clone());
    let questions = Arc::new(Mutex::new(questions));
    let discovery = move || {
        let core = Core::new(&settings, state.clone(), Arc::clone(&identity), Arc::clone(&status));
        let client = AdsClient::new(Arc::clone(&settings), Arc::clone(&identity), Arc::clone(&status), core);
        let questions = Arc::clone(&questions);
        async move { client.run(&mut *questions.lock().await).await }
    };
    tasks.spawn("discovery", keep("discovery", discovery));
}

/// Runs a task, and anew when it panics: what it had published stays in force meanwhile.
async fn keep<F: Future<Output = ()> + Send + 'static>(name: &'static str, mut make: impl FnMut() -> F) {
    loop {
        let mut inner = Tasks::default();
        inner.spawn(name, make());
        match inner.ended().await.map(|ended| ended.outcome) {
            Some(Outcome::Panicked) => {
                process::task_failed(name);
                sleep(RESTART_PAUSE).await;
            }
            Some(Outcome::Returned | Outcome::Cancelled) | None => return,
        }
    }
}

/// Waits for the end: a signal or an operator begins it, the workers make it.
async fn serve(
    settings: &Settings,
    signals: &mut Signals,
    drain: &Drain,
    workers: Vec<WorkerThread>,
    tasks: &mut Tasks,
) -> Result<(), RunError> {
    let watch = drain.watch();
    let mut look = interval(WORKER_LOOK_EVERY);
    loop {
        tokio::select! {
            name = signals.next() => {
                tracing::info!(signal = name, "draining");
                drain.begin();
                break;
            }
            () = watch.draining() => break,
            Some(ended) = tasks.ended() => {
                let outcome = match ended.outcome {
                    Outcome::Returned => "returned",
                    Outcome::Cancelled => "cancelled",
                    Outcome::Panicked => "panicked",
                };
                process::task_failed(ended.name);
                // What it served stays as it is; a supervisor sees it on the log and in the metric.
                tracing::error!(task = ended.name, outcome, "a task has ended that should not have");
            }
            _ = look.tick() => {
                if workers.iter().any(WorkerThread::has_ended) {
                    return join_ended(workers);
                }
            }
        }
    }
    let drained = async {
        while !workers.iter().all(WorkerThread::has_ended) {
            sleep(DRAIN_LOOK_EVERY).await;
        }
    };
    let deadline = settings.args.drain_deadline + DRAIN_GRACE;
    tokio::select! {
        () = drained => {
            for worker in workers {
                worker.join()?;
            }
            tracing::info!("drained");
        }
        () = sleep(deadline) => tracing::warn!("the drain took too long; what is open is closed"),
        name = signals.next() => tracing::warn!(signal = name, "second signal: ending at once"),
    }
    Ok(())
}

/// What made a worker end with no drain. Only those that have ended are joined, so this does not block.
fn join_ended(workers: Vec<WorkerThread>) -> Result<(), RunError> {
    for worker in workers.into_iter().filter(WorkerThread::has_ended) {
        worker.join()?;
    }
    Err(RunError::WorkerEnded)
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

type Pair = (std::net::TcpListener, std::net::TcpListener);

/// One pair of listeners for each worker.
fn bind_traffic(settings: &Settings) -> Result<Vec<Pair>, RunError> {
    let bind = |port: u16, what: &str| {
        listener::bind(port)
            .map_err(|source| RunError::Listen { what: format!("port {port} for {what} traffic"), source })
    };
    (0..settings.workers)
        .map(|_| {
            Ok((bind(settings.args.inbound_port, "inbound")?, bind(settings.args.outbound_port, "outbound")?))
        })
        .collect()
}

fn bind_status(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    let failed = |source| RunError::Listen { what: format!("{address} for status"), source };
    let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    let bound = if is_any_v6 { listener::bind(address.port()) } else { listener::bind_address(address) };
    tokio::net::TcpListener::from_std(bound.map_err(failed)?).map_err(failed)
}

/// Bound for this process alone: another proxy on the same port would be asked in its place now and then.
fn bind_admin(address: SocketAddr) -> Result<tokio::net::TcpListener, RunError> {
    let failed = |source| RunError::Listen { what: format!("{address} for operators"), source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(listener).map_err(failed)
}

fn dns_settings(settings: &Settings) -> DnsSettings {
    let listen = SocketAddr::new(IpAddr::from([0, 0, 0, 0]), settings.args.dns_port);
    let mut upstreams = settings.args.dns_upstream.clone();
    if upstreams.is_empty() {
        // A machine without the file has no resolvers, which is an answer too.
        let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        upstreams = resolvers(&text, settings.args.dns_port);
    }
    let is_cluster = matches!(settings.proof, Proof::ServiceAccountToken(_));
    DnsSettings { listen, upstreams, is_cluster, fwmark: settings.data_path.fwmark }
}

/// The resolvers that `resolv.conf(5)` names, but for the proxy itself.
fn resolvers(text: &str, own_port: u16) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    let servers = lines.filter_map(|word| word.split('%').next()?.parse::<IpAddr>().ok());
    servers
        .filter(|server| !(server.is_loopback() && own_port == DNS_PORT))
        .map(|server| SocketAddr::new(server, DNS_PORT))
        .collect()
}

/// Keeps the recorder small, the gauges true, and says so while the control plane is away.
async fn upkeep(metrics: Option<PrometheusHandle>, telemetry: Telemetry, status: Arc<Status>) {
    let mut tick = interval(UPKEEP_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = Duration::ZERO;
    loop {
        tick.tick().await;
        if let Some(metrics) = &metrics {
            metrics.run_upkeep();
        }
        telemetry.active().prune();
        let silent = status.silent().unwrap_or_default();
        process::control_plane(status.is_connected(), silent);
        said = said.min(silent);
        if silent >= said + SILENCE_WARNING_EVERY {
            said = silent;
            tracing::warn!(
                silent_seconds = silent.as_secs(),
                "the control plane is away; traffic is served with the last good configuration"
            );
        }
    }
}

/// Begins the drain once what the workload was started for is done. Where Kubernetes knows no sidecars nothing
/// else ends the proxy of a Job, and the pod would never be complete.
async fn complete(state: State, drain: Drain) {
    let mut revisions = state.revisions();
    while !state.load().workload.as_ref().is_some_and(|workload| workload.config.completed) {
        if revisions.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
    tracing::info!("the application has ended for good; draining");
    drain.begin();
    std::future::pending().await
}

/// Says once that traffic is served.
async fn announce(admin: Admin) {
    let begin = tokio::time::Instant::now();
    while !admin.ready().ready {
        sleep(DRAIN_LOOK_EVERY).await;
    }
    let milliseconds = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(milliseconds, "ready: traffic is served");
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_those_of_the_system_but_not_the_proxy_itself() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.2\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\nnameserver x\n";
        let found: Vec<_> = resolvers(text, 53).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2:53", "[fe80::1]:53"]);
        assert_eq!(resolvers(text, 15053).len(), 3);
        assert!(resolvers("", 53).is_empty());
    }
}
