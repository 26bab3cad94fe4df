//! A worker: one thread's share of the data path. It owns its listeners, its upstream pools and its caches,
//! and shares with the others only what is read: the state, the identity, the settings.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use mesh_identity::tls::IdentitySource;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::accept::{listener, original_destination};
use crate::balance::Balancer;
use crate::config::DataPathSettings;
use crate::connection::{Connection, Direction};
use crate::exchange::budget::RetryBudget;
use crate::ext_authz::Checks;
use crate::runtime::drain::DrainWatch;
use crate::state::State;
use crate::telemetry::record::{DestinationLabels, LocalWorkload, PeerLabels};
use crate::telemetry::{Telemetry, WorkerTelemetry};
use crate::tls::TlsContext;
use crate::upstream::Upstreams;
use crate::{inbound, outbound};

/// Connections that one worker serves at a time. More wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32 * 1024;
/// Pause between two looks for the first identity, before which nothing is accepted.
const IDENTITY_PAUSE: Duration = Duration::from_millis(20);

/// Numbers connections over all workers.
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// How the address that a peer dialled is found out.
pub type Dialled = fn(&TcpStream) -> Option<SocketAddr>;

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerSetup {
    /// Number of the worker, from 0.
    pub id: usize,
    /// The snapshot.
    pub state: State,
    /// Where records go.
    pub telemetry: Telemetry,
    /// Own identity and trust.
    pub identity: Arc<IdentitySource>,
    /// Whether the process is draining.
    pub drain: DrainWatch,
    /// Settings.
    pub settings: Arc<DataPathSettings>,
    /// Listener for traffic towards the workload.
    pub inbound: std::net::TcpListener,
    /// Listener for traffic from the workload.
    pub outbound: std::net::TcpListener,
    /// Finds the address dialled; [`original_destination::of`] but in tests, where nothing redirects.
    pub dialled: Dialled,
}

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Worker {
    /// Number of the worker.
    pub id: usize,
    /// The snapshot.
    pub state: State,
    /// Records.
    pub telemetry: WorkerTelemetry,
    /// Connections upstream.
    pub upstreams: Upstreams,
    /// Handshakes.
    pub tls: TlsContext,
    /// Whether the process is draining.
    pub drain: DrainWatch,
    /// Settings.
    pub settings: Arc<DataPathSettings>,
    /// Randomness of routes and balancing.
    pub rng: RefCell<fastrand::Rng>,
    /// Labels of the own workload.
    pub local_labels: RefCell<PeerLabels>,
    /// Labels of the own workload's ports, filled as they are used.
    pub inbound_labels: RefCell<HashMap<u16, Arc<DestinationLabels>>>,
    /// Retries in flight.
    pub retries: RetryBudget,
    /// Choice of endpoints.
    pub balance: Balancer,
    /// Questions to external authorizers.
    pub checks: Checks,
    /// The server name of a hop without TLS.
    pub no_server_name: Arc<str>,
    /// Labels of what is not of the mesh.
    pub passthrough: Arc<DestinationLabels>,
    started: Instant,
    open: Cell<usize>,
    closed: Notify,
    is_draining: Cell<bool>,
    is_withdrawn: Cell<bool>,
    drain_moved: Notify,
}

impl Worker {
    /// Seconds since the worker started.
    #[must_use]
    pub fn process_seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Whether the drain has begun. Asked for with every response.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// Waits until connections of this direction that carry nothing are to end. Dropping the future loses
    /// nothing.
    ///
    /// That is later than the begin of the drain: callers go on calling until they have learnt of it, and one
    /// that is told by the end of its connection may have sent a request meanwhile, which it cannot send again
    /// if it must not be sent twice. Until then each answer says that the connection ends with it. An
    /// application that ends together with its proxy may call others to the last, so where its end can be
    /// waited for, its connections are its own to end.
    pub async fn leaving(&self, direction: Direction) {
        if direction == Direction::Outbound && self.settings.keeps_outbound {
            return std::future::pending().await;
        }
        self.withdrawn().await;
    }

    /// Waits until callers have had time to learn of the drain.
    async fn withdrawn(&self) {
        while !self.is_withdrawn.get() {
            self.drain_moved.notified().await;
        }
    }

    /// Time that callers are given to learn of the drain. None is needed where nobody is meant to call, and
    /// where what is called has ended already.
    fn withdrawal(&self) -> Duration {
        let state = self.state.load();
        let is_called = state
            .workload
            .as_ref()
            .is_some_and(|workload| !workload.config.inbound.is_empty() && !workload.config.completed);
        if is_called {
            self.settings.withdrawal.min(self.settings.drain_deadline / 4)
        } else {
            Duration::ZERO
        }
    }

    /// Hands the process's drain on to the connections of this worker, which wait for it often and on
    /// nothing that other workers wait on too.
    async fn follow_drain(&self) {
        self.drain.draining().await;
        self.is_draining.set(true);
        self.drain_moved.notify_waiters();
        tokio::time::sleep(self.withdrawal()).await;
        self.is_withdrawn.set(true);
        self.drain_moved.notify_waiters();
        std::future::pending().await
    }

    /// Time allowed for a connect to the own application.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        let state = self.state.load();
        let configured = state.workload.as_ref().map(|workload| workload.config.mesh.connect_timeout_ms);
        Duration::from_millis(configured.unwrap_or(10_000))
    }

    /// Facts about a connection that was just accepted.
    #[must_use]
    pub fn connection(&self, direction: Direction, peer: SocketAddr, destination: SocketAddr) -> Connection {
        Connection {
            id: NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed),
            direction,
            peer,
            destination,
            tls: None,
            accepted: Instant::now(),
        }
    }
}

/// Counts one open connection for as long as it lives.
struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        Self(Rc::clone(worker))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_waiters();
    }
}

/// Runs a worker until it has drained. Called within a [`tokio::task::LocalSet`].
///
/// Before there is an identity and a complete configuration nothing is accepted: connections wait in the
/// kernel's queue. While draining, inbound connections are accepted for a moment longer and outbound ones to
/// the end, because the application may need them to shut down.
///
/// # Errors
/// When the listeners cannot be registered with the runtime.
pub async fn run(setup: WorkerSetup) -> io::Result<()> {
    let inbound = TcpListener::from_std(setup.inbound)?;
    let outbound = TcpListener::from_std(setup.outbound)?;
    let (state, published) = setup.state.local();
    let (dialled, identity) = (setup.dialled, Arc::clone(&setup.identity));
    let worker = Rc::new(Worker {
        id: setup.id,
        telemetry: setup.telemetry.worker(),
        upstreams: Upstreams::new(Arc::clone(&setup.identity), setup.settings.fwmark),
        tls: TlsContext::new(setup.identity),
        state,
        drain: setup.drain,
        settings: setup.settings,
        rng: RefCell::new(fastrand::Rng::new()),
        local_labels: RefCell::default(),
        inbound_labels: RefCell::default(),
        retries: RetryBudget::default(),
        checks: Checks::default(),
        balance: Balancer::new(setup.telemetry.active().clone()),
        no_server_name: Arc::from(""),
        passthrough: Arc::new(DestinationLabels {
            cluster: "PassthroughCluster".to_owned(),
            ..DestinationLabels::default()
        }),
        started: Instant::now(),
        open: Cell::new(0),
        closed: Notify::new(),
        is_draining: Cell::new(false),
        is_withdrawn: Cell::new(false),
        drain_moved: Notify::new(),
    });
    let mut relay = std::pin::pin!(worker.state.relay(published));
    tokio::select! {
        () = ready(&worker, &identity) => {}
        () = relay.as_mut() => {}
        () = worker.drain.draining() => return Ok(()),
    }
    let inbound_until_withdrawn = async {
        tokio::select! {
            () = accept(&worker, &inbound, Direction::Inbound, dialled) => {}
            () = worker.withdrawn() => {}
        }
        // Who still comes is refused at once, and goes elsewhere; an open port would let him wait.
        drop(inbound);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = inbound_until_withdrawn => {}
        () = accept(&worker, &outbound, Direction::Outbound, dialled) => {}
        () = worker.telemetry.flush_periodically() => {}
        () = follow_configuration(&worker) => {}
        () = worker.upstreams.upkeep() => {}
        () = worker.follow_drain() => {}
        () = relay => {}
        () = drained(&worker) => {}
    }
    Ok(())
}

/// Waits for the first identity and the first complete configuration.
async fn ready(worker: &Worker, identity: &IdentitySource) {
    let mut revisions = worker.state.revisions();
    while worker.state.load().workload.is_none() {
        if revisions.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
    while identity.current().valid_svid(SystemTime::now()).is_none() {
        tokio::time::sleep(IDENTITY_PAUSE).await;
    }
    configure(worker);
}

/// Accepts connections for ever.
async fn accept(worker: &Rc<Worker>, listener: &TcpListener, direction: Direction, dialled: Dialled) {
    loop {
        while worker.open.get() >= CONNECTIONS_MAX {
            worker.closed.notified().await;
        }
        let (stream, peer) = listener::accept(listener).await;
        let destination = dialled(&stream);
        let open = Open::new(worker);
        let worker = Rc::clone(worker);
        tokio::task::spawn_local(async move {
            match direction {
                Direction::Inbound => inbound::serve(worker, stream, peer, destination).await,
                Direction::Outbound => outbound::serve(worker, stream, peer, destination).await,
            }
            drop(open);
        });
    }
}

/// Takes over what the configuration says about telemetry, now and on every change.
async fn follow_configuration(worker: &Worker) {
    let mut revisions = worker.state.revisions();
    let mut current = worker.state.load().workload.clone();
    loop {
        if revisions.changed().await.is_err() {
            return std::future::pending().await;
        }
        let next = worker.state.load().workload.clone();
        let is_same = match (&current, &next) {
            (Some(current), Some(next)) => Arc::ptr_eq(current, next),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            configure(worker);
            current = next;
        }
    }
}

fn configure(worker: &Worker) {
    let state = worker.state.load();
    let Some(workload) = &state.workload else { return };
    let labels = inbound::local_labels(&workload.config);
    *worker.local_labels.borrow_mut() = labels.clone();
    worker.inbound_labels.borrow_mut().clear();
    let rules = crate::telemetry::Rules::compile(&workload.policies.telemetry);
    worker.telemetry.configure(workload.config.mesh.access_log, LocalWorkload { labels }, rules);
}

/// Waits for the drain: for its begin, the withdrawal, and then the end of the last connection or the
/// deadline.
async fn drained(worker: &Worker) {
    worker.drain.draining().await;
    let deadline = tokio::time::Instant::now() + worker.settings.drain_deadline;
    worker.withdrawn().await;
    let empty = async {
        while worker.open.get() > 0 {
            worker.closed.notified().await;
        }
    };
    if tokio::time::timeout_at(deadline, empty).await.is_err() {
        tracing::warn!(open = worker.open.get(), "drain deadline reached; closing what is open");
    }
}

/// Finds the address that a peer dialled before interception.
#[must_use]
pub fn intercepted(stream: &TcpStream) -> Option<SocketAddr> {
    original_destination::of(stream)
}

#[cfg(test)]
mod tests;
