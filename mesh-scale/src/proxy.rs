//! A simulated proxy: the identity and the discovery of a real one, and nothing of its traffic.
//!
//! It asks for a certificate with its service account's token, opens a stream over mutual TLS, subscribes to
//! what is its own and to a few destinations, and acknowledges whatever comes. When what comes differs from
//! what it had, it tells the observer at what moment.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use mesh_api::model::TrustBundleSet;
use mesh_api::name::{SpiffeId, TrustDomain};
use mesh_api::wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, Node};
use mesh_api::wire::identity::IssueRequest;
use mesh_api::wire::identity::identity_service_client::IdentityServiceClient;
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::{MESSAGE_BYTES_MAX, SELF, TypeUrl};
use mesh_identity::bundle::TrustBundle;
use mesh_identity::csr;
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use mesh_identity::tls::{IdentitySource, bootstrap_client_config, client_config};
use mesh_identity::verify::ExpectedPeer;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Uri};

/// Acknowledgements on their way into the transport.
const QUEUE: usize = 16;
/// Time allowed for each step of coming up.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before a certificate is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What all proxies share.
#[derive(Debug)]
pub(crate) struct Control {
    /// Where the control plane serves proxies.
    pub(crate) address: SocketAddr,
    /// Its root certificate, PEM.
    pub(crate) root: String,
    /// Trust domain of the mesh.
    pub(crate) trust_domain: TrustDomain,
    /// Whom the control plane must prove to be.
    pub(crate) identity: SpiffeId,
}

/// One proxy.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    /// `POD.NAMESPACE`.
    pub(crate) node: String,
    /// Its service account's token.
    pub(crate) token: String,
    /// Destinations that its application calls, as they are named on the wire.
    pub(crate) destinations: Vec<String>,
}

/// Something new that a proxy was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    /// Of which type.
    pub(crate) kind: TypeUrl,
    /// When it had come.
    pub(crate) at: Instant,
}

impl Proxy {
    /// Runs until the stream ends, which is an error, or the observer goes away.
    ///
    /// # Errors
    /// What kept it from being served.
    pub(crate) async fn run(self, control: Arc<Control>, observer: mpsc::Sender<News>) -> Result<()> {
        let identity =
            timeout(STEP_TIMEOUT, self.certificate(&control)).await.context("no certificate in time")??;
        let expected = ExpectedPeer::one(control.identity.clone());
        let channel = connect(control.address, client_config(&identity, &expected, &[b"h2"])).await?;
        let (requests, outgoing) = mpsc::channel(QUEUE);
        for request in self.subscriptions() {
            requests.send(request).await.context("the stream is closed")?;
        }
        let mut client = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        let answer = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?;
        let mut responses = answer.into_inner();
        let mut known: HashMap<(TypeUrl, String), String> = HashMap::new();
        while let Some(response) = responses.message().await? {
            let at = Instant::now();
            let kind = TypeUrl::parse(&response.type_url).context("a type that is not known")?;
            let mut is_new = false;
            for resource in response.resources {
                let former = known.insert((kind, resource.name), resource.version.clone());
                is_new |= former.as_ref() != Some(&resource.version);
            }
            let acknowledged = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(acknowledged).await.context("the stream is closed")?;
            if is_new && observer.send(News { kind, at }).await.is_err() {
                return Ok(());
            }
        }
        bail!("{}: the control plane has ended the stream", self.node)
    }

    fn subscriptions(&self) -> Vec<DeltaDiscoveryRequest> {
        let own = |kind: TypeUrl| (kind, vec![SELF.to_owned()]);
        let wanted = [
            own(TypeUrl::TrustBundle),
            own(TypeUrl::ProxyConfig),
            own(TypeUrl::WorkloadPolicies),
            (TypeUrl::Destination, self.destinations.clone()),
        ];
        let mut node = Some(Node { id: self.node.clone(), ..Node::default() });
        wanted
            .into_iter()
            .map(|(kind, names)| DeltaDiscoveryRequest {
                node: node.take(),
                type_url: kind.as_str().to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            })
            .collect()
    }

    async fn certificate(&self, control: &Control) -> Result<Arc<IdentitySource>> {
        let roots = TrustBundle::from_pem(&control.trust_domain, &control.root).context("the root")?;
        let expected = ExpectedPeer::one(control.identity.clone());
        let channel = connect(control.address, bootstrap_client_config(roots, &expected, &[b"h2"])).await?;
        let key = WorkloadKey::generate()?;
        let request = IssueRequest {
            csr: csr::build(&key)?,
            attestation: Some(Attestation::KubernetesToken(self.token.clone())),
            ..IssueRequest::default()
        };
        let mut client = IdentityServiceClient::new(channel);
        // As a proxy does: who is told that a token cannot be reviewed now asks again.
        let answer = loop {
            match client.issue(request.clone()).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(ASK_AGAIN).await,
                Err(status) => return Err(status.into()),
            }
        };
        let anchors =
            answer.bundles.into_iter().map(|bundle| (bundle.trust_domain, bundle.anchors)).collect();
        let bundle = TrustBundle::from_model(&TrustBundleSet { anchors })?;
        let svid = Svid::new(answer.chain, &key)?;
        if !svid.is_valid_at(SystemTime::now()) {
            bail!("{}: the certificate is not valid now", self.node);
        }
        let identity = IdentitySource::new(bundle, [control.trust_domain.clone()]);
        identity.publish_svid(&svid);
        Ok(identity)
    }
}

async fn connect(address: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let connecting = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("mesh-control").expect("a valid DNS name");
        TlsConnector::from(config).connect(name, stream).await
    };
    let stream = timeout(STEP_TIMEOUT, connecting).await.context("no connection in time")??;
    let stream = Arc::new(Mutex::new(Some(TokioIo::new(stream))));
    let once = tower::service_fn(move |_: Uri| {
        let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(taken.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected)))
    });
    Ok(Endpoint::from_static("http://mesh-control").connect_with_connector(once).await?)
}
