//! The control plane of a cluster: objects from the API server, state shared by all replicas.
//!
//! Everything here may have to wait, for settings that are not installed yet or an API server that is away;
//! the kubelet is told so by the readiness, which is served from the first moment.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use mesh_api::error_chain::chain;
use mesh_api::model::MeshSettings;
use mesh_daemon::logging::LogControl;
use mesh_daemon::operator_socket::OperatorSocket;
use mesh_kube::name;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::running::{Base, Departure, Running};
use super::upkeep::{measure_expiry, metrics_upkeep, renew_regularly};
use super::{CONFIRMATIONS, StartError, ca_settings, identity_source, listen, local, own_id};
use crate::address_store::AddressStore;
use crate::cluster::addresses::SharedAddresses;
use crate::cluster::authority::SharedAuthority;
use crate::cluster::token_review::TokenReviewer;
use crate::cluster::{client, root_cert};
use crate::config::{ClusterConfig, Config};
use crate::issue::IssueService;
use crate::jwks;
use crate::leader::Candidate;
use crate::leader::election::Timing;
use crate::plane::{Parts, Plane};
use crate::readiness::{Part, Readiness};
use crate::reconcile;
use crate::registry::{Registry, VirtualAddresses};
use crate::serve::admin::{self, Admin, AdminListener};
use crate::serve::identity::Identity;
use crate::serve::webhook::{self, Place, Webhooks};
use crate::snapshot::Snapshot;
use crate::source::kubernetes::{KubernetesSettings, KubernetesSource};
use crate::state_file;
use crate::telemetry::metrics;

/// How often it is said what the first look at the cluster waits for.
const FIRST_LOOK_REPORT: Duration = Duration::from_secs(15);
/// Time between two looks for the settings of the mesh.
const SETTINGS_AGAIN: Duration = Duration::from_secs(5);
/// Time between two attempts at a certificate for the webhooks.
const CERTIFICATE_AGAIN: Duration = Duration::from_secs(2);

pub(super) async fn start(
    config: Config,
    cluster: ClusterConfig,
    log: Option<LogControl>,
) -> Result<Running, StartError> {
    metrics::install();
    state_file::make_directory(&config.state_dir, 0o755).map_err(StartError::State)?;
    let parts = [Part::Authority, Part::Configuration, Part::Webhooks, Part::Discovery];
    let readiness = Arc::new(Readiness::waiting_for(parts));
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
        let (source, settings) = first_look(&client, &cluster).await;

        let ca = ca_settings(&config, settings.trust_domain.clone());
        let shared = SharedAuthority::new(client.clone(), cluster.namespace.as_str(), ca);
        let authority = shared.wait().await;
        shared.look_for_plugged_in().await;
        let tokens = config.state_dir.join("join-tokens.json");
        let issue = Arc::new(IssueService::new(authority, None, tokens).map_err(StartError::State)?);
        measure_expiry(&issue);
        let identity = identity_source(&issue, &settings);
        let own = own_id(&settings)?;
        issue.renew_own(&identity, &own, SystemTime::now()).map_err(StartError::Own)?;
        readiness.have(Part::Authority);

        let shared_addresses = SharedAddresses::new(client.clone(), cluster.namespace.as_str());
        let given = shared_addresses.wait().await;
        let pool = VirtualAddresses::new(config.vip_v4, config.vip_v6, given);
        let registry = Registry::new(settings.clone(), pool);
        let (keys, key_fetcher) =
            jwks::open(config.keys.clone(), &config.state_dir.join("jwks")).map_err(StartError::Keys)?;
        // Nothing is confirmed in a cluster: what a watch says is what there is.
        let (confirmations, _) = mpsc::channel(CONFIRMATIONS);
        let addresses_given = Arc::new(Notify::new());
        let plane = Arc::new(Plane::new(Parts {
            name: config.mesh_name.clone(),
            issue: Arc::clone(&issue),
            identity,
            keys,
            snapshot: Snapshot::new(registry, issue.trust_bundle()),
            addresses: AddressStore::Shared(Arc::clone(&addresses_given)),
            confirmations,
            look_now: Arc::default(),
        }));
        plane.take_keys(key_fetcher.restored());
        let source = hand_over(source, &plane).await;
        plane.measure_connections();
        readiness.have(Part::Configuration);

        let duties = CancellationToken::new();
        let (candidate, leadership) =
            Candidate::new(client.clone(), cluster.namespace.as_str(), &cluster.replica, Timing::default());
        base.tasks.spawn(candidate.run(duties.clone()));
        let sharing = shared_addresses.follow(Arc::clone(&plane), addresses_given, leadership.clone());
        base.spawn("addresses", sharing);
        base.spawn("authority", shared.follow(Arc::clone(&plane), leadership.clone()));
        let roots = {
            let (client, plane) = (client.clone(), Arc::clone(&plane));
            leadership
                .clone()
                .lead("root certificates", move || root_cert::keep(client.clone(), Arc::clone(&plane)))
        };
        base.spawn("root certificates", roots);
        let reconciled = reconcile::Duties { client: client.clone(), plane: Arc::clone(&plane) };
        base.spawn("duties", reconcile::run(reconciled, leadership.watch()));

        let webhook_listener = listen(cluster.webhook_listen).await?;
        let place = Place {
            namespace: cluster.namespace.as_str(),
            revision: &cluster.revision,
            cluster_domain: &settings.cluster_domain,
        };
        let webhooks = webhooks(&plane, &client, place).await?;
        base.spawn("webhooks", webhook::serve(webhook_listener, webhooks));
        readiness.have(Part::Webhooks);

        let listener = listen(config.listen).await?;
        let address = local(&listener, config.listen);
        let identity = Identity::new(issue).with_reviewer(TokenReviewer::new(client));
        base.serve_proxies(listener, &plane, identity);
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
        base.spawn("source", source.run(Arc::clone(&plane)));
        base.spawn("keys", key_fetcher.run(Arc::clone(&plane)));
        base.spawn("upkeep", renew_regularly(Arc::clone(&plane), own));
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

/// Looks at the cluster until everything is known, and answers with the settings of the mesh.
///
/// Without its ConfigMap nothing begins: the trust domain decides which authority is made, and settings that
/// are not installed yet are no reason for the defaults.
async fn first_look(client: &Client, cluster: &ClusterConfig) -> (KubernetesSource, MeshSettings) {
    let config: Api<ConfigMap> = Api::namespaced(client.clone(), cluster.namespace.as_str());
    let name = cluster.of_revision(name::CONFIG);
    while !is_there(&config, &name).await {
        tokio::time::sleep(SETTINGS_AGAIN).await;
    }
    let settings = KubernetesSettings {
        revision: cluster.revision.clone(),
        config_namespace: cluster.namespace.clone(),
    };
    let mut source = KubernetesSource::new(client, &settings);
    loop {
        match source.first(FIRST_LOOK_REPORT).await {
            Ok(settings) => return (source, settings),
            Err(error) => tracing::warn!(reason = chain(&error), "waiting for the cluster's configuration"),
        }
    }
}

async fn is_there(config: &Api<ConfigMap>, name: &str) -> bool {
    let reason = match tokio::time::timeout(FIRST_LOOK_REPORT, config.get_metadata_opt(name)).await {
        Ok(Ok(Some(_))) => return true,
        Ok(Ok(None)) => "there is none; `meshctl install` makes it".to_owned(),
        Ok(Err(error)) => chain(&error).to_string(),
        Err(_elapsed) => "the API server does not answer".to_owned(),
    };
    tracing::warn!(config_map = name, reason, "waiting for the settings of the mesh");
    false
}

async fn hand_over(mut source: KubernetesSource, plane: &Arc<Plane>) -> KubernetesSource {
    tokio::task::block_in_place(|| source.hand_over(plane));
    source
}

/// The webhooks, as soon as they have a certificate.
async fn webhooks(plane: &Arc<Plane>, client: &Client, place: Place<'_>) -> Result<Webhooks, StartError> {
    loop {
        let webhooks = Webhooks::new(Arc::clone(plane), client.clone(), place).map_err(StartError::Name)?;
        if webhooks.is_ready() {
            return Ok(webhooks);
        }
        tracing::warn!("waiting for the certificate of the webhooks");
        tokio::time::sleep(CERTIFICATE_AGAIN).await;
    }
}
