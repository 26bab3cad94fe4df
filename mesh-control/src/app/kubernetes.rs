//! The control plane of a cluster: objects from the API server, state shared by all replicas.
//!
//! Everything here may have to wait, for settings that are not installed yet or an API server that is away;
//! the kubelet is told so by the readiness, which is served from the first moment.

use std::sync::Arc;
use std::time::SystemTime;

use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::OperatorSocket;
use mesh_identity::ca::disk::StateDirectory;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::running::{Base, Departure, Running};
use super::upkeep::{measure_expiry, metrics_upkeep, upkeep};
use super::{CONFIRMATIONS, StartError, ca_settings, identity_source, listen, local, own_id};
use crate::address_store::AddressStore;
use crate::cluster::{client, mesh_settings};
use crate::config::{ClusterConfig, Config};
use crate::issue::IssueService;
use crate::jwks;
use crate::leader::Candidate;
use crate::leader::election::Timing;
use crate::plane::{Parts, Plane};
use crate::readiness::{Part, Readiness};
use crate::registry::{Registry, VirtualAddressState, VirtualAddresses};
use crate::serve::admin::{self, Admin, AdminListener};
use crate::serve::identity::Identity;
use crate::snapshot::Snapshot;
use crate::state_file;
use crate::telemetry::metrics;

pub(super) async fn start(
    config: Config,
    cluster: ClusterConfig,
    log: Option<LogControl>,
) -> Result<Running, StartError> {
    metrics::install();
    state_file::make_directory(&config.state_dir, 0o755).map_err(StartError::State)?;
    let readiness = Arc::new(Readiness::waiting_for([Part::Authority, Part::Discovery]));
    let metrics_listener = listen(config.metrics_listen).await?;
    let starting = Starting { base: Base::new(), readiness, config, cluster, log };
    let base = starting.base.clone();
    let result = starting.finish(metrics_listener).await;
    if result.is_err() {
        base.stop().await;
    }
    result
}

struct Starting {
    base: Base,
    readiness: Arc<Readiness>,
    config: Config,
    cluster: ClusterConfig,
    log: Option<LogControl>,
}

impl Starting {
    async fn finish(self, metrics_listener: TcpListener) -> Result<Running, StartError> {
        let Self { base, readiness, config, cluster, log } = self;
        let metrics_address = local(&metrics_listener, config.metrics_listen);
        base.serve_http("metrics", metrics_listener, crate::serve::metrics::routes(Arc::clone(&readiness)));
        let client = client::connect().await.map_err(StartError::Cluster)?;
        let settings = mesh_settings::wait(&client, &cluster).await;

        let directory = StateDirectory::open(&config.state_dir.join("ca")).map_err(StartError::Authority)?;
        let ca = ca_settings(&config, settings.trust_domain.clone());
        let (authority, _) =
            directory.load_or_create(ca, SystemTime::now()).map_err(StartError::Authority)?;
        let tokens = config.state_dir.join("join-tokens.json");
        let issue = IssueService::new(authority, Some(directory), tokens).map_err(StartError::State)?;
        let issue = Arc::new(issue);
        measure_expiry(&issue);
        let identity = identity_source(&issue, &settings);
        let own = own_id(&settings)?;
        issue.renew_own(&identity, &own, SystemTime::now()).map_err(StartError::Own)?;
        readiness.have(Part::Authority);

        let pool = VirtualAddresses::new(config.vip_v4, config.vip_v6, VirtualAddressState::default());
        let registry = Registry::new(settings.clone(), pool);
        let (keys, key_fetcher) =
            jwks::open(config.keys.clone(), &config.state_dir.join("jwks")).map_err(StartError::Keys)?;
        let (confirmations, _confirmed) = mpsc::channel(CONFIRMATIONS);
        let (addresses, _given) = watch::channel(VirtualAddressState::default());
        let plane = Arc::new(Plane::new(Parts {
            name: config.mesh_name.clone(),
            issue: Arc::clone(&issue),
            identity,
            keys,
            snapshot: Snapshot::new(registry, issue.trust_bundle()),
            addresses: AddressStore::Shared(addresses),
            confirmations,
            look_now: Arc::default(),
        }));
        plane.take_keys(key_fetcher.restored());
        plane.measure_connections();

        let duties = CancellationToken::new();
        let (candidate, _leadership) =
            Candidate::new(client.clone(), cluster.namespace.as_str(), &cluster.replica, Timing::default());
        base.tasks.spawn(candidate.run(duties.clone()));

        let listener = listen(config.listen).await?;
        let address = local(&listener, config.listen);
        base.serve_proxies(listener, &plane, Identity::new(issue));
        readiness.have(Part::Discovery);
        let routes = admin::routes(Admin { plane: Arc::clone(&plane), log }, Arc::clone(&readiness));
        let mut admin_address = None;
        if let Some(wanted) = config.admin_listen {
            let listener = listen(wanted).await?;
            admin_address = Some(local(&listener, wanted));
            base.serve_http("admin", listener, routes.clone());
        }
        if let Some(path) = &config.admin_socket {
            let socket = AdminListener(OperatorSocket::open(path).map_err(StartError::Admin)?);
            base.serve_admin(socket, routes);
        }
        base.spawn("keys", key_fetcher.run(Arc::clone(&plane)));
        base.spawn("upkeep", upkeep(Arc::clone(&plane), own));
        base.spawn("metrics upkeep", metrics_upkeep());
        tracing::info!(%address, metrics = %metrics_address, "mesh-control serves");
        Ok(Running {
            address,
            metrics_address,
            admin_address,
            plane,
            readiness,
            base,
            admin_socket: config.admin_socket,
            departure: Departure::Gradual { duties },
        })
    }
}
