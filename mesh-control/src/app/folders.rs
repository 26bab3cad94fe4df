//! The control plane of one machine: objects from folders of YAML, state in files.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use mesh_api::model::MeshSettings;
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::OperatorSocket;
use mesh_identity::ca::disk::{Origin, StateDirectory};
use mesh_identity::certificate;
use tokio::sync::mpsc;

use super::running::{Base, Departure, Running};
use super::upkeep::{measure_expiry, metrics_upkeep, upkeep};
use super::{CONFIRMATIONS, StartError, ca_settings, identity_source, listen, local, own_id, trust_domains};
use crate::address_store::AddressStore;
use crate::config::Config;
use crate::issue::IssueService;
use crate::jwks;
use crate::plane::{Parts, Plane};
use crate::readiness::Readiness;
use crate::registry::{Registry, VirtualAddresses};
use crate::serve::admin::{self, Admin, AdminListener};
use crate::serve::identity::Identity;
use crate::snapshot::Snapshot;
use crate::source::last_good::LastGood;
use crate::source::scan::Depth;
use crate::source::watch::Watch;
use crate::source::{Context, Directories, View};
use crate::state_file::{self, Durability};
use crate::telemetry::metrics;

/// Times that folders are read at the start, while their settings change what they mean.
const SETTLE_ROUNDS: usize = 3;

pub(super) async fn start(
    config: Config,
    folders: &[PathBuf],
    log: Option<LogControl>,
) -> Result<Running, StartError> {
    metrics::install();
    let state = &config.state_dir;
    // Others read the root certificate here; what is secret in it is so file by file.
    state_file::make_directory(state, 0o755).map_err(StartError::State)?;
    let directory = StateDirectory::open(&state.join("ca")).map_err(StartError::Authority)?;
    let store = LastGood::open(&state.join("last-good")).map_err(StartError::State)?;
    let directories = Directories::new(folders, store, context(&MeshSettings::default()));
    let (directories, view, settings) = first_look(directories);
    let issue = Arc::new(open_authority(&config, directory, &settings)?);
    let identity = identity_source(&issue, &settings);
    let own = own_id(&settings)?;
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
    let watch = Watch::new(folders.to_vec());
    let plane = Arc::new(Plane::new(Parts {
        name: config.mesh_name.clone(),
        issue: Arc::clone(&issue),
        identity,
        keys,
        snapshot: Snapshot::new(registry, issue.trust_bundle()),
        addresses: AddressStore::File(addresses_path),
        confirmations,
        look_now: watch.bell(),
    }));
    // Before any proxy is served: one that is told of no keys forgets those that it had.
    plane.take_keys(key_fetcher.restored());
    plane.take(view);
    plane.measure_connections();

    let listener = listen(config.listen).await?;
    let metrics_listener = listen(config.metrics_listen).await?;
    let admin_listener = match config.admin_listen {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let socket = match &config.admin_socket {
        Some(path) => Some(AdminListener(OperatorSocket::open(path).map_err(StartError::Admin)?)),
        None => None,
    };
    // All of it is there already.
    let readiness = Arc::new(Readiness::waiting_for([]));
    let running = Running {
        address: local(&listener, config.listen),
        metrics_address: local(&metrics_listener, config.metrics_listen),
        admin_address: admin_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
        plane: Arc::clone(&plane),
        readiness: Arc::clone(&readiness),
        base: Base::new(),
        admin_socket: config.admin_socket.clone(),
        departure: Departure::Immediate,
    };
    let base = &running.base;
    base.serve_proxies(listener, &plane, Identity::new(issue));
    base.serve_http("metrics", metrics_listener, crate::serve::metrics::routes(Arc::clone(&readiness)));
    let routes = admin::routes(Admin { plane: Arc::clone(&plane), log }, readiness);
    if let Some(listener) = admin_listener {
        base.serve_http("admin", listener, routes.clone());
    }
    if let Some(socket) = socket {
        base.serve_admin(socket, routes);
    }
    base.spawn("source", follow_folders(directories, watch, confirmed, Arc::clone(&plane)));
    base.spawn("keys", key_fetcher.run(Arc::clone(&plane)));
    base.spawn("upkeep", upkeep(Arc::clone(&plane), own));
    base.spawn("metrics upkeep", metrics_upkeep());
    tracing::info!(address = %running.address, metrics = %running.metrics_address, "mesh-control ready");
    Ok(running)
}

fn context(settings: &MeshSettings) -> Context {
    Context {
        cluster_domain: settings.cluster_domain.clone(),
        root_namespace: settings.root_namespace.clone(),
        ..Context::default()
    }
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
    let ca = ca_settings(config, settings.trust_domain.clone());
    let (authority, origin) =
        directory.load_or_create(ca, SystemTime::now()).map_err(StartError::Authority)?;
    match origin {
        Origin::Created => tracing::info!("a new root was made"),
        Origin::Loaded => tracing::info!("the authority was read from its state"),
    }
    let tokens = config.state_dir.join("join-tokens.json");
    let issue = IssueService::new(authority, Some(directory), tokens).map_err(StartError::State)?;
    measure_expiry(&issue);
    Ok(issue)
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
