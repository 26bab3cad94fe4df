//! Puts the control plane together: the only file that names what serves, watches and stores.
//!
//! Order at the start: state is opened and locked, folders are looked at once, the authority is read or
//! made, the root is written for others to find, and only then do the listeners open. So whoever reaches the
//! control plane reaches a whole one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use mesh_api::error_chain::chain;
use mesh_api::model::MeshSettings;
use mesh_api::name::{ServiceAccount, SpiffeId};
use mesh_api::wire::MESSAGE_BYTES_MAX;
use mesh_api::wire::discovery::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use mesh_api::wire::identity::identity_service_server::IdentityServiceServer;
use mesh_api::wire::keys::key_service_server::KeyServiceServer;
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::{OperatorSocket, SocketError};
use mesh_identity::ca::disk::{DiskError, Origin, StateDirectory};
use mesh_identity::ca::{CaSettings, Event, Issuer};
use mesh_identity::certificate::{self, timestamp};
use mesh_identity::tls::{ClientAuth, IdentitySource, server_config};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;

use crate::config::{Config, WORKLOAD_TTL_MIN};
use crate::issue::{IssueService, UpkeepError};
use crate::jwks;
use crate::plane::{Parts, Plane};
use crate::registry::{Registry, VirtualAddresses};
use crate::serve::admin::{self, Admin, AdminListener};
use crate::serve::ads::Discovery;
use crate::serve::identity::Identity;
use crate::serve::keys::UnknownKeys;
use crate::serve::tls;
use crate::snapshot::Snapshot;
use crate::source::last_good::LastGood;
use crate::source::scan::Depth;
use crate::source::watch::Watch;
use crate::source::{Context, Directories, View};
use crate::state_file::{self, Durability, StateFileError};
use crate::telemetry::metrics;

/// Service account of the control plane itself; clients expect it in the root namespace.
pub const SERVICE_ACCOUNT: &str = "mesh-control";
/// How often an idle connection is probed, and how long an answer may take: a proxy whose machine has gone
/// is noticed within the sum.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams of one connection: a proxy has one for discovery and now and then a request for a certificate.
const STREAMS_PER_CONNECTION: u32 = 32;
/// How often the authority and the own certificate are looked after, at least.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);
/// How often the metric recorder tidies up; without it samples pile up until the next scrape.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Longest report of an unknown key, in bytes: a URL, a node id and a `kid`. Some of them wait in a queue.
const REPORT_BYTES_MAX: usize = 8 * 1024;
/// Confirmations that may wait.
const CONFIRMATIONS: usize = 16;
/// Time that tasks are given to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Times that folders are read at the start, while their settings change what they mean.
const SETTLE_ROUNDS: usize = 3;

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// State that cannot be read or written.
    #[error("the state cannot be used")]
    State(#[source] StateFileError),
    /// The authority.
    #[error("the authority cannot be used")]
    Authority(#[source] DiskError),
    /// The own certificate.
    #[error("the control plane has no certificate of its own")]
    Own(#[source] UpkeepError),
    /// Keys of token issuers.
    #[error("keys of token issuers cannot be fetched")]
    Keys(#[source] jwks::OpenError),
    /// An address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operator's socket.
    #[error("the admin socket cannot be opened")]
    Admin(#[source] SocketError),
    /// The own name.
    #[error("the control plane has no valid name")]
    Name(#[source] mesh_api::name::NameError),
}

/// A running control plane.
#[derive(Debug)]
pub struct Running {
    /// Where proxies connect.
    pub address: SocketAddr,
    /// Where metrics are served.
    pub metrics_address: SocketAddr,
    /// The shared state.
    pub plane: Arc<Plane>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    admin_socket: PathBuf,
}

impl Running {
    /// Stops everything and waits for it, up to a deadline.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = std::fs::remove_file(&self.admin_socket) {
            tracing::debug!(%error, "the admin socket was gone already");
        }
    }
}

/// Starts a control plane.
///
/// # Errors
/// Whatever keeps it from serving; nothing is left running then.
pub async fn start(config: Config, log: Option<LogControl>) -> Result<Running, StartError> {
    metrics::install();
    let state = &config.state_dir;
    // Others read the root certificate here; what is secret in it is so file by file.
    state_file::make_directory(state, 0o755).map_err(StartError::State)?;
    let directory = StateDirectory::open(&state.join("ca")).map_err(StartError::Authority)?;
    let store = LastGood::open(&state.join("last-good")).map_err(StartError::State)?;
    let directories = Directories::new(&config.config_dirs, store, context(&MeshSettings::default()));
    let (directories, view, settings) = first_look(directories);
    let issue = Arc::new(open_authority(&config, directory, &settings)?);
    let identity = IdentitySource::new(issue.authority().trust_bundle(), trust_domains(&settings));
    let account = ServiceAccount::parse(SERVICE_ACCOUNT).map_err(StartError::Name)?;
    let own = SpiffeId::for_workload(&settings.trust_domain, &settings.root_namespace, &account);
    issue.renew_own(&identity, &own, SystemTime::now()).map_err(StartError::Own)?;
    let root = certificate::to_pem(issue.authority().root_certificate());
    state_file::write(&state.join("root-cert.pem"), root.as_bytes(), 0o644, Durability::Flushed)
        .map_err(StartError::State)?;

    let addresses_path = state.join("virtual-addresses.json");
    let addresses = state_file::read_json(&addresses_path).map_err(StartError::State)?.unwrap_or_default();
    let pool = VirtualAddresses::new(config.vip_v4, config.vip_v6, addresses);
    let registry = Registry::new(settings.clone(), pool);
    let (keys, key_fetcher) =
        jwks::open(config.keys.clone(), &state.join("jwks")).map_err(StartError::Keys)?;
    let (confirmations, confirmed) = mpsc::channel(CONFIRMATIONS);
    let watch = Watch::new(config.config_dirs.clone());
    let plane = Arc::new(Plane::new(Parts {
        name: config.mesh_name.clone(),
        issue: Arc::clone(&issue),
        identity: Arc::clone(&identity),
        keys,
        snapshot: Snapshot::new(registry, issue.trust_bundle()),
        addresses_path,
        confirmations,
        look_now: watch.bell(),
    }));
    // Before any proxy is served: one that is told of no keys forgets those that it had.
    plane.take_keys(key_fetcher.restored());
    plane.take(view);
    plane.measure_connections();

    let listener = listen(config.listen).await?;
    let metrics_listener = listen(config.metrics_listen).await?;
    let socket = AdminListener(OperatorSocket::open(&config.admin_socket).map_err(StartError::Admin)?);
    let running = Running {
        address: local(&listener, config.listen),
        metrics_address: local(&metrics_listener, config.metrics_listen),
        plane: Arc::clone(&plane),
        tasks: TaskTracker::new(),
        shutdown: CancellationToken::new(),
        admin_socket: config.admin_socket.clone(),
    };
    running.serve_proxies(listener);
    running.serve_http(metrics_listener, crate::serve::metrics::routes());
    running.serve_admin(socket, admin::routes(Admin { plane: Arc::clone(&plane), log }));
    running.spawn("source", follow_folders(directories, watch, confirmed, Arc::clone(&plane)));
    running.spawn("keys", key_fetcher.run(Arc::clone(&plane)));
    running.spawn("upkeep", upkeep(Arc::clone(&plane), own));
    running.spawn("metrics upkeep", metrics_upkeep());
    tracing::info!(address = %running.address, metrics = %running.metrics_address, "mesh-control ready");
    Ok(running)
}

impl Running {
    /// A task that ends with the control plane, by itself never.
    fn spawn(&self, name: &'static str, task: impl Future<Output = Infallible> + Send + 'static) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                never = task => match never {},
                () = shutdown.cancelled() => tracing::debug!(task = name, "stopped"),
            }
        });
    }

    fn serve_proxies(&self, listener: TcpListener) {
        let config = server_config(&self.plane.identity, ClientAuth::Optional, &[b"h2"]);
        let connections = tls::incoming(listener, config, &self.tasks, self.shutdown.clone());
        let discovery = Discovery::new(Arc::clone(&self.plane), self.tasks.clone(), self.shutdown.clone());
        let discovery = AggregatedDiscoveryServiceServer::new(discovery)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
            .send_compressed(CompressionEncoding::Gzip);
        let identity = IdentityServiceServer::new(Identity::new(Arc::clone(&self.plane.issue)));
        let keys = KeyServiceServer::new(UnknownKeys::new(Arc::clone(&self.plane)))
            .max_decoding_message_size(REPORT_BYTES_MAX);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(Some(STREAMS_PER_CONNECTION))
            .add_service(discovery)
            .add_service(identity)
            .add_service(keys)
            .serve_with_incoming_shutdown(connections, self.shutdown.clone().cancelled_owned());
        self.tasks.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(error = chain(&error), "the server for proxies has ended");
            }
        });
    }

    fn serve_http(&self, listener: TcpListener, routes: Router) {
        let shutdown = self.shutdown.clone().cancelled_owned();
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown).await {
                tracing::error!(%error, "the server for metrics has ended");
            }
        });
    }

    fn serve_admin(&self, listener: AdminListener, routes: Router) {
        let shutdown = self.shutdown.clone().cancelled_owned();
        self.tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown).await {
                tracing::error!(%error, "the admin socket has ended");
            }
        });
    }
}

fn context(settings: &MeshSettings) -> Context {
    Context {
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        ..Context::default()
    }
}

fn trust_domains(settings: &MeshSettings) -> Vec<mesh_api::name::TrustDomain> {
    std::iter::once(&settings.trust_domain).chain(&settings.trust_domain_aliases).cloned().collect()
}

/// Looks at the folders until their own settings do not change any more how they are read.
fn first_look(mut directories: Directories) -> (Directories, View, MeshSettings) {
    let mut view = View::default();
    let mut settings = MeshSettings::default();
    for _ in 0..SETTLE_ROUNDS {
        if let Some(next) = directories.look(Depth::Content, &[]) {
            view = next;
        }
        let found = crate::ingest::ingest(&view.documents, None).settings;
        let is_settled = context(&found) == context(&settings);
        settings = found.as_ref().clone();
        if is_settled {
            break;
        }
        directories.set_context(context(&settings));
    }
    (directories, view, settings)
}

fn open_authority(
    config: &Config,
    directory: StateDirectory,
    settings: &MeshSettings,
) -> Result<IssueService, StartError> {
    let mut ca = CaSettings::new(settings.trust_domain.clone());
    ca.name.clone_from(&config.mesh_name);
    ca.root_ttl = config.root_ttl;
    ca.intermediate_ttl = config.intermediate_ttl;
    ca.workload_ttl = config.workload_ttl;
    ca.workload_ttl_min = WORKLOAD_TTL_MIN;
    let (authority, origin) =
        directory.load_or_create(ca, SystemTime::now()).map_err(StartError::Authority)?;
    match origin {
        Origin::Created => tracing::info!("a new root was made"),
        Origin::Loaded => tracing::info!("the authority was read from its state"),
    }
    let tokens = config.state_dir.join("join-tokens.json");
    let issue = IssueService::new(authority, directory, tokens).map_err(StartError::State)?;
    measure_expiry(&issue);
    Ok(issue)
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Looks at the folders whenever there is reason to, and takes in what changed.
async fn follow_folders(
    directories: Directories,
    mut watch: Watch,
    mut confirmed: mpsc::Receiver<PathBuf>,
    plane: Arc<Plane>,
) -> Infallible {
    let directories = Arc::new(Mutex::new(directories));
    loop {
        let depth = watch.next().await;
        let mut paths = Vec::new();
        while let Ok(path) = confirmed.try_recv() {
            paths.push(path);
        }
        let (directories, plane) = (Arc::clone(&directories), Arc::clone(&plane));
        let look = tokio::task::spawn_blocking(move || {
            look_once(&mut directories.lock().unwrap_or_else(PoisonError::into_inner), depth, &paths, &plane);
        });
        if let Err(error) = look.await {
            tracing::error!(%error, "a look at the folders was not finished; what is in force stays");
        }
    }
}

fn look_once(directories: &mut Directories, depth: Depth, confirmed: &[PathBuf], plane: &Plane) {
    let Some(view) = directories.look(depth, confirmed) else { return };
    plane.take(view);
    let settings = Arc::clone(&plane.configuration().objects.settings);
    let wanted = trust_domains(&settings);
    if *plane.identity.current().trust_domains != *wanted {
        plane.identity.publish_trust_domains(wanted);
    }
    directories.set_context(context(&settings));
    if let Some(view) = directories.look(Depth::Content, &[]) {
        plane.take(view);
    }
}

/// Keeps the authority and the own certificate in order.
async fn upkeep(plane: Arc<Plane>, own: SpiffeId) -> Infallible {
    loop {
        let now = SystemTime::now();
        let next = plane.issue.authority().next_maintenance(now);
        let wait = next.duration_since(now).unwrap_or_default().clamp(Duration::from_secs(1), UPKEEP_EVERY);
        tokio::time::sleep(wait).await;
        let (plane, own) = (Arc::clone(&plane), own.clone());
        let work = tokio::task::spawn_blocking(move || upkeep_once(&plane, &own));
        if let Err(error) = work.await {
            tracing::error!(%error, "upkeep was not finished");
        }
    }
}

fn upkeep_once(plane: &Plane, own: &SpiffeId) {
    let now = SystemTime::now();
    match plane.issue.maintain(now) {
        Ok(events) => {
            for event in events {
                match event {
                    Event::IntermediateRotated { serial, not_after } => {
                        let not_after = timestamp(not_after);
                        tracing::info!(serial, not_after, "a new intermediate signs from now on");
                    }
                    Event::RootExpiring { not_after } => {
                        let not_after = timestamp(not_after);
                        tracing::warn!(not_after, "the root ends soon; plan its replacement");
                    }
                }
            }
            plane.take_bundle();
        }
        Err(error) => tracing::error!(error = chain(&error), "the authority needs attention"),
    }
    match plane.issue.renew_own(&plane.identity, own, now) {
        Ok(true) => tracing::info!("the serving certificate was renewed"),
        Ok(false) => {}
        Err(error) => tracing::error!(error = chain(&error), "no new serving certificate"),
    }
    measure_expiry(&plane.issue);
}

fn measure_expiry(issue: &IssueService) {
    let authority = issue.authority();
    let intermediate = authority.intermediate_certificate();
    for (level, der) in [("root", authority.root_certificate()), ("intermediate", &intermediate)] {
        if let Ok(summary) = certificate::inspect(der) {
            metrics::expiry(level, summary.not_after);
        }
    }
}

async fn metrics_upkeep() -> Infallible {
    let mut tick = tokio::time::interval(METRICS_UPKEEP_EVERY);
    loop {
        tick.tick().await;
        if let Some(handle) = metrics::install() {
            handle.run_upkeep();
        }
    }
}
