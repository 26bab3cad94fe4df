//! Proxies that are made up: certificate, connection and subscriptions are real, and what comes is acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use mesh_api::name::SpiffeId;
use mesh_api::wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_api::wire::identity::IssueRequest;
use mesh_api::wire::identity::identity_service_client::IdentityServiceClient;
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::{MESSAGE_BYTES_MAX, SELF, TypeUrl};
use mesh_identity::bundle::TrustBundle;
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use mesh_identity::tls::{IdentitySource, bootstrap_client_config, client_config};
use mesh_identity::verify::ExpectedPeer;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::control::Control;
use crate::{Options, cluster};

/// Proxies that come up at once.
const AT_ONCE: usize = 16;

/// What proxies tell: which one, what kind of resources came, when.
pub(crate) type Told = mpsc::Sender<(usize, TypeUrl, Instant)>;

/// Every proxy.
#[derive(Debug)]
pub(crate) struct Proxies {
    streams: JoinSet<()>,
}

impl Proxies {
    /// Connects every proxy and waits until each has all that it subscribed to.
    pub(crate) async fn connect(
        control: &Control,
        root: TrustBundle,
        options: &Options,
        told: Told,
    ) -> Result<Self> {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut starting = JoinSet::new();
        for number in 0..options.proxies {
            let (turns, root, told) = (Arc::clone(&turns), root.clone(), told.clone());
            let hosts = hosts(number, options);
            let address = control.address;
            starting.spawn(async move {
                let _turn = turns.acquire().await;
                let stream = Stream::open(address, root, number, &hosts).await;
                stream
                    .with_context(|| format!("proxy {number} does not come up"))
                    .map(|stream| (stream, told))
            });
        }
        let mut streams = JoinSet::new();
        while let Some(started) = starting.join_next().await {
            let (stream, told) = started??;
            streams.spawn(stream.follow(told));
        }
        Ok(Self { streams })
    }

    /// Number of proxies that call a service of application number `app`.
    pub(crate) fn callers_of(&self, app: usize, options: &Options) -> usize {
        let calls = |number: &usize| called(*number, options).any(|service| service % options.proxies == app);
        (0..options.proxies).filter(calls).count()
    }

    pub(crate) fn stop(mut self) {
        self.streams.abort_all();
    }
}

/// Numbers of the services that a proxy calls.
fn called(number: usize, options: &Options) -> impl Iterator<Item = usize> {
    let (services, calls) = (options.services.max(1), options.calls);
    (0..calls).map(move |call| (number * calls + call) % services)
}

fn hosts(number: usize, options: &Options) -> Vec<String> {
    let host = |service: usize| {
        format!(
            "host/service-{service}.{}.svc.cluster.local",
            cluster::namespace_of(service % options.proxies)
        )
    };
    called(number, options).map(host).collect()
}

struct Stream {
    number: usize,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn open(address: SocketAddr, root: TrustBundle, number: usize, hosts: &[String]) -> Result<Self> {
        let identity = identity(address, root, number).await?;
        let channel = connect(address, client_config(&identity, &control_plane()?, &[b"h2"])).await?;
        let (requests, outgoing) = mpsc::channel(16);
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let node = Node { id: node_id(number), cluster: String::new(), metadata: None };
        let own = |kind: TypeUrl| (kind, vec![SELF.to_owned()]);
        let wanted = [
            own(TypeUrl::TrustBundle),
            own(TypeUrl::ProxyConfig),
            own(TypeUrl::WorkloadPolicies),
            (TypeUrl::Destination, hosts.to_vec()),
        ];
        let mut missing: usize = wanted.iter().map(|(_, names)| names.len()).sum();
        let mut node = Some(node);
        for (kind, names) in wanted {
            let request = DeltaDiscoveryRequest {
                node: node.take(),
                type_url: kind.as_str().to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(request).await.context("the stream has ended")?;
        }
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut stream = Self { number, requests, responses };
        while missing > 0 {
            let response = stream.next().await?;
            missing = missing.saturating_sub(response.resources.len());
        }
        Ok(stream)
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse> {
        let response = self.responses.message().await?.context("the stream has ended")?;
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.context("the stream has ended")?;
        Ok(response)
    }

    async fn follow(mut self, told: Told) {
        while let Ok(response) = self.next().await {
            let at = Instant::now();
            if let Some(kind) = TypeUrl::parse(&response.type_url)
                && told.send((self.number, kind, at)).await.is_err()
            {
                return;
            }
        }
    }
}

fn node_id(number: usize) -> String {
    format!("app-{number}.{}", cluster::namespace_of(number))
}

fn control_plane() -> Result<ExpectedPeer> {
    Ok(ExpectedPeer::one(SpiffeId::parse("spiffe://cluster.local/ns/istio-system/sa/mesh-control")?))
}

/// A certificate, by a service-account token.
async fn identity(address: SocketAddr, root: TrustBundle, number: usize) -> Result<Arc<IdentitySource>> {
    let config = bootstrap_client_config(root.clone(), &control_plane()?, &[b"h2"]);
    let channel = connect(address, config).await?;
    let key = WorkloadKey::generate()?;
    let token = format!("{}/app-{number}/app-{number}", cluster::namespace_of(number));
    let request = IssueRequest {
        csr: mesh_identity::csr::build(&key)?,
        attestation: Some(Attestation::KubernetesToken(token)),
        ..IssueRequest::default()
    };
    let answer = IdentityServiceClient::new(channel).issue(request).await?.into_inner();
    let svid = Svid::new(answer.chain, &key)?;
    let domains: Vec<_> = root.trust_domains().cloned().collect();
    let identity = IdentitySource::new(root, domains);
    identity.publish_svid(&svid);
    Ok(identity)
}

async fn connect(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let connector = TlsConnector::from(config);
    let dial = tower::service_fn(move |_: Uri| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("mesh-control").map_err(std::io::Error::other)?;
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_static("http://mesh-control");
    endpoint.connect_with_connector(dial).await.context("no connection to the control plane")
}
