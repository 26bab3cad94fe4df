//! A control plane in this process, on loopback and a temporary folder, and a small client of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use mesh_api::name::{SpiffeId, TrustDomain};
use mesh_api::wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Status as WireStatus};
use mesh_api::wire::identity::identity_service_client::IdentityServiceClient;
use mesh_api::wire::identity::issue_request::Attestation;
use mesh_api::wire::identity::{CurrentSvid, IssueRequest};
use mesh_api::wire::{MESSAGE_BYTES_MAX, TypeUrl};
use mesh_control::app::{self, Running};
use mesh_control::config::{Config, Origin};
use mesh_control::jwks::KeySettings;
use mesh_identity::bundle::TrustBundle;
use mesh_identity::key::WorkloadKey;
use mesh_identity::svid::Svid;
use mesh_identity::tls::{IdentitySource, bootstrap_client_config, client_config};
use mesh_identity::verify::ExpectedPeer;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};

/// Longest wait for what is expected to come.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// Time in which nothing is expected to come.
pub(crate) const A_WHILE: Duration = Duration::from_millis(700);

pub(crate) const FRONTEND: &str = "spiffe://cluster.local/ns/web/sa/frontend";
pub(crate) const CATALOG: &str = "spiffe://cluster.local/ns/backend/sa/catalog";

pub(crate) const WORKLOADS: &str = "\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: frontend-0
  namespace: web
spec:
  address: 10.77.0.10
  serviceAccount: frontend
  labels:
    app: frontend
    security.istio.io/tlsMode: istio
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: catalog-0
  namespace: backend
spec:
  address: 10.77.0.20
  serviceAccount: catalog
  labels:
    app: catalog
    security.istio.io/tlsMode: istio
---
apiVersion: v1
kind: Service
metadata:
  name: catalog
  namespace: backend
spec:
  selector:
    app: catalog
  ports:
  - name: http
    port: 80
    targetPort: 8080
";

/// A policy for the catalog that allows one method.
pub(crate) fn policy(name: &str, method: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: {name}
  namespace: backend
spec:
  selector:
    matchLabels:
      app: catalog
  action: ALLOW
  rules:
  - to:
    - operation:
        methods: [\"{method}\"]
"
    )
}

/// A control plane with its folders.
pub(crate) struct Mesh {
    pub(crate) folder: TempDir,
    pub(crate) running: Option<Running>,
    pub(crate) keys: KeySettings,
}

impl Mesh {
    /// A control plane over a folder with the workloads.
    pub(crate) async fn start() -> Self {
        Self::start_with(KeySettings::default()).await
    }

    /// The same, with other settings about the keys of token issuers.
    pub(crate) async fn start_with(keys: KeySettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("config")).expect("made");
        let mut mesh = Self { folder, running: None, keys };
        mesh.write("workloads.yaml", WORKLOADS);
        mesh.restart().await;
        mesh
    }

    /// Drops the control plane without any farewell to its tasks, and starts it anew on the same state.
    pub(crate) async fn restart(&mut self) {
        self.halt().await;
        let config = Config {
            origin: Origin::Folders(vec![self.config_dir()]),
            state_dir: self.folder.path().join("state"),
            listen: "127.0.0.1:0".parse().expect("valid"),
            metrics_listen: "127.0.0.1:0".parse().expect("valid"),
            admin_socket: Some(self.admin_socket()),
            admin_listen: Some("127.0.0.1:0".parse().expect("valid")),
            workload_ttl: Duration::from_secs(3600),
            intermediate_ttl: Duration::from_secs(30 * 86_400),
            root_ttl: Duration::from_secs(3650 * 86_400),
            mesh_name: "test".to_owned(),
            vip_v4: "240.240.0.0/16".parse().expect("valid"),
            vip_v6: "fd77:6d6d::/64".parse().expect("valid"),
            keys: self.keys.clone(),
        };
        self.running = Some(app::start(config, None).await.expect("it starts"));
    }

    pub(crate) async fn halt(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub(crate) fn config_dir(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        std::fs::write(self.config_dir().join(file), text).expect("written");
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.config_dir().join(file)).expect("removed");
    }

    pub(crate) fn root(&self) -> TrustBundle {
        let text = std::fs::read_to_string(self.folder.path().join("state/root-cert.pem")).expect("there");
        TrustBundle::from_pem(&TrustDomain::parse("cluster.local").expect("valid"), &text).expect("valid")
    }

    pub(crate) fn token(&self, id: &str) -> String {
        let id = SpiffeId::parse(id).expect("valid");
        let issue = &self.running().plane.issue;
        issue.issue_token(id, Duration::from_secs(60), SystemTime::now()).expect("a token")
    }

    /// Waits until a condition on the shared state holds; folders are looked at meanwhile.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Running) -> bool) {
        let waiting = async {
            while !condition(self.running()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, waiting).await.expect(what);
    }

    async fn channel(&self, config: Arc<rustls::ClientConfig>) -> Result<Channel, tonic::transport::Error> {
        connect(self.running().address, config).await
    }

    fn control(&self) -> ExpectedPeer {
        let id = "spiffe://cluster.local/ns/istio-system/sa/mesh-control";
        ExpectedPeer::one(SpiffeId::parse(id).expect("valid"))
    }

    /// A connection without a certificate.
    pub(crate) async fn anonymous(&self) -> Channel {
        let config = bootstrap_client_config(self.root(), &self.control(), &[b"h2"]);
        self.channel(config).await.expect("connects")
    }

    /// A connection with a certificate.
    pub(crate) async fn authenticated(&self, identity: &Arc<IdentitySource>) -> Channel {
        let config = client_config(identity, &self.control(), &[b"h2"]);
        self.channel(config).await.expect("connects")
    }

    /// The first certificate of a workload, by a join token.
    pub(crate) async fn bootstrap(&self, id: &str) -> Arc<IdentitySource> {
        let attestation = Attestation::JoinToken(self.token(id));
        issue(self.anonymous().await, self.root(), attestation).await.expect("issued")
    }

    /// The next certificate of a workload.
    pub(crate) async fn renew(&self, identity: &Arc<IdentitySource>) -> Result<Arc<IdentitySource>, Status> {
        let channel = self.authenticated(identity).await;
        issue(channel, self.root(), Attestation::CurrentSvid(CurrentSvid {})).await
    }
}

async fn connect(
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = TlsConnector::from(config);
    Endpoint::from_static("http://mesh-control")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("mesh-control").expect("valid");
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        }))
        .await
}

/// Asks for a certificate.
pub(crate) async fn issue(
    channel: Channel,
    root: TrustBundle,
    attestation: Attestation,
) -> Result<Arc<IdentitySource>, Status> {
    let key = WorkloadKey::generate().expect("a key");
    let csr = mesh_identity::csr::build(&key).expect("a request");
    let request =
        IssueRequest { csr, ttl_seconds: 0, attestation: Some(attestation), node_id: String::new() };
    let answer = IdentityServiceClient::new(channel).issue(request).await?.into_inner();
    assert!(!answer.bundles.is_empty(), "no trust bundle came");
    let svid = Svid::new(answer.chain, &key).expect("a whole certificate");
    let domains: Vec<_> = root.trust_domains().cloned().collect();
    let identity = IdentitySource::new(root, domains);
    identity.publish_svid(&svid);
    Ok(identity)
}

/// A proxy's end of a discovery stream. Keeps what it was sent and acknowledges it.
pub(crate) struct Proxy {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    /// Versions by type and name; `None` is a definite "no such thing".
    pub(crate) has: BTreeMap<(TypeUrl, String), Option<String>>,
    node: Option<Node>,
}

impl Proxy {
    pub(crate) async fn connect(channel: Channel, node: &str) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(16);
        let mut client =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let responses = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        let node = Some(Node { id: node.to_owned(), cluster: String::new(), metadata: None });
        Ok(Self { requests, responses, has: BTreeMap::new(), node })
    }

    /// Subscribes; states what is had in the first request of a type.
    pub(crate) async fn subscribe(&mut self, kind: TypeUrl, names: &[&str], had: &[(&str, &str)]) {
        let request = DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: kind.as_str().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            initial_resource_versions: had.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    /// The next response, unanswered.
    pub(crate) async fn receive(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        tokio::time::timeout(SOON, self.responses.message()).await.expect("something comes soon")
    }

    /// Answers a response.
    pub(crate) async fn answer(&mut self, response: &DeltaDiscoveryResponse, error: Option<&str>) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(|message| WireStatus { code: 3, message: message.to_owned() }),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.expect("the stream is open");
    }

    /// The next response, acknowledged and taken in.
    pub(crate) async fn next(&mut self) -> DeltaDiscoveryResponse {
        let response = self.receive().await.expect("the stream is served").expect("the stream is open");
        self.answer(&response, None).await;
        let kind = TypeUrl::parse(&response.type_url).expect("a known type");
        for resource in &response.resources {
            self.has.insert((kind, resource.name.clone()), Some(resource.version.clone()));
        }
        for name in &response.removed_resources {
            self.has.insert((kind, name.clone()), None);
        }
        response
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(A_WHILE, self.responses.message()).await.is_err()
    }

    /// The status with which the stream ends.
    pub(crate) async fn refusal(&mut self) -> Code {
        self.receive().await.expect_err("the stream is refused").code()
    }
}
