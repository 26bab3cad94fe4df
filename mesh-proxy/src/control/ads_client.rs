//! Carries discovery over a stream to the control plane, which is opened again whenever it ends.
//!
//! While there is no stream, questions are still taken and are the first thing that the next one is asked.
//! Dropping the future ends the stream; what was published stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::error_chain::chain;
use mesh_api::model::DestinationKey;
use mesh_api::wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_api::wire::keys::ReportUnknownKeyRequest;
use mesh_api::wire::keys::key_service_client::KeyServiceClient;
use mesh_api::wire::{MESSAGE_BYTES_MAX, METADATA_NOW_UNIX_MS, METADATA_VERSION};
use mesh_identity::tls::{IdentitySource, client_config};
use mesh_identity::verify::ExpectedPeer;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::backoff::Backoff;
use super::channel::{self, ChannelError};
use super::core::Core;
use super::status::Status;
use super::unknown_keys::UnknownKeys;
use crate::settings::Settings;
use crate::telemetry::process;

/// Requests on their way into the transport.
const QUEUE: usize = 4;
/// Time allowed for the stream to be accepted once the connection is there.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time allowed for the answer to a report of an unknown key.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often idle destinations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// Pause between two looks for the first certificate, without which there is no stream.
const IDENTITY_PAUSE: Duration = Duration::from_millis(20);
/// Time after which a stream on which nothing has come counts as open.
const SETTLED_AFTER: Duration = Duration::from_millis(500);
/// Life of a stream after which its end is no reason to wait: certificates end, control planes restart.
const STEADY_AFTER: Duration = Duration::from_secs(5);

/// What the task is made of.
#[derive(Debug)]
pub struct AdsClient {
    settings: Arc<Settings>,
    identity: Arc<IdentitySource>,
    status: Arc<Status>,
    core: Core,
    unknown_keys: UnknownKeys,
    started: Instant,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("no connection")]
    Channel(#[from] ChannelError),
    #[error("the control plane refuses the stream")]
    Refused(#[source] tonic::Status),
    #[error("the control plane does not accept the stream in time")]
    TimedOut,
}

impl OpenError {
    fn label(&self) -> &'static str {
        match self {
            Self::Channel(error) => error.label(),
            Self::Refused(_) => "refused",
            Self::TimedOut => "timeout",
        }
    }
}

/// An open stream.
struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    channel: Channel,
}

impl AdsClient {
    /// A client that publishes into the state of `core`.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        identity: Arc<IdentitySource>,
        status: Arc<Status>,
        core: Core,
    ) -> Self {
        let unknown_keys = core.unknown_keys().clone();
        Self { settings, identity, status, core, unknown_keys, started: Instant::now() }
    }

    /// Runs for as long as somebody may ask questions.
    pub async fn run(mut self, questions: &mut mpsc::Receiver<DestinationKey>) {
        let mut backoff = Backoff::default();
        loop {
            let Some(opened) = self.while_asking(questions, open(&self.settings, &self.identity)).await
            else {
                return;
            };
            match opened {
                Ok(stream) => {
                    process::connect_attempt("ok");
                    let opened_at = Instant::now();
                    self.serve(questions, stream).await;
                    self.status.disconnected();
                    if opened_at.elapsed() >= STEADY_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    process::connect_attempt(error.label());
                    let silent_seconds = self.status.silent().map(|silent| silent.as_secs());
                    tracing::warn!(
                        reason = chain(&error),
                        silent_seconds,
                        "no configuration stream; what is in force stays"
                    );
                }
            }
            let pause = sleep(backoff.next(fastrand::f64()));
            if self.while_asking(questions, pause).await.is_none() {
                return;
            }
        }
    }

    /// Takes questions until `future` is done; `None` when nobody can ask any more.
    async fn while_asking<T>(
        &mut self,
        questions: &mut mpsc::Receiver<DestinationKey>,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                done = &mut future => return Some(done),
                question = questions.recv() => {
                    let now = self.started.elapsed();
                    self.core.ask(question?, now);
                }
            }
        }
    }

    fn connected(&self) {
        self.status.connected();
        tracing::info!(control = %self.settings.args.control, "configuration stream is open");
    }

    /// Serves one stream until it ends.
    async fn serve(&mut self, questions: &mut mpsc::Receiver<DestinationKey>, stream: Stream) {
        let Stream { requests, mut responses, channel } = stream;
        let reports = report(channel, self.settings.args.node_id.clone(), self.unknown_keys.clone());
        tokio::pin!(reports);
        let mut node = Some(node(&self.settings));
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.core.open();
        let mut is_heard = false;
        // One that has everything already is sent nothing; one that is not served is told so at once.
        let settled = sleep(SETTLED_AFTER);
        tokio::pin!(settled);
        loop {
            tokio::select! {
                // Reading goes on while the transport takes no requests, or both sides could wait for ever.
                permit = requests.reserve(), if self.core.has_due() => {
                    let Ok(permit) = permit else { return };
                    if let Some(mut request) = self.core.poll() {
                        request.node = node.take();
                        permit.send(request);
                    }
                }
                message = responses.message() => match message {
                    Ok(Some(response)) => {
                        if !std::mem::replace(&mut is_heard, true) {
                            self.connected();
                        }
                        if let Err(error) = self.core.receive(response, self.started.elapsed()) {
                            tracing::error!(%error, "the control plane breaks the protocol");
                            return;
                        }
                    }
                    Ok(None) => {
                        tracing::info!("the control plane has closed the configuration stream");
                        return;
                    }
                    Err(status) => {
                        tracing::warn!(reason = chain(&status), "the configuration stream has failed");
                        return;
                    }
                },
                question = questions.recv() => match question {
                    Some(key) => self.core.ask(key, self.started.elapsed()),
                    None => return,
                },
                () = &mut settled, if !is_heard => {
                    is_heard = true;
                    self.connected();
                }
                never = &mut reports => match never {},
                _ = sweep.tick() => self.core.sweep(self.started.elapsed()),
            }
        }
    }
}

/// Opens a stream, once there is a certificate to open it with.
fn open(
    settings: &Arc<Settings>,
    identity: &Arc<IdentitySource>,
) -> impl Future<Output = Result<Stream, OpenError>> + use<> {
    let (settings, identity) = (Arc::clone(settings), Arc::clone(identity));
    async move {
        while identity.current().valid_svid(SystemTime::now()).is_none() {
            sleep(IDENTITY_PAUSE).await;
        }
        let expected = ExpectedPeer::one(settings.control_identity.clone());
        let config = client_config(&identity, &expected, &[b"h2"]);
        let channel = channel::connect(&settings.args.control, settings.data_path.fwmark, config).await?;
        let (requests, outgoing) = mpsc::channel(QUEUE);
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        match timeout(OPEN_TIMEOUT, client.delta_aggregated_resources(ReceiverStream::new(outgoing))).await {
            Ok(Ok(response)) => Ok(Stream { requests, responses: response.into_inner(), channel }),
            Ok(Err(status)) => Err(OpenError::Refused(status)),
            Err(_elapsed) => Err(OpenError::TimedOut),
        }
    }
}

/// Reports unknown keys for as long as the stream lives, one at a time. Dropping the future loses nothing: a
/// report that has not been answered waits for the next stream.
async fn report(channel: Channel, node_id: String, unknown_keys: UnknownKeys) -> Infallible {
    let mut client = KeyServiceClient::new(channel);
    loop {
        let question = unknown_keys.next().await.until_answered(&unknown_keys);
        let request = ReportUnknownKeyRequest {
            node_id: node_id.clone(),
            source: question.key().source.as_ref().to_owned(),
            key_id: question.key().key_id.clone(),
        };
        let answer = timeout(REPORT_TIMEOUT, client.report_unknown_key(request)).await;
        match answer.map_err(|_elapsed| tonic::Status::deadline_exceeded("no answer in time")).flatten() {
            Ok(_reported) => {
                process::unknown_key("reported");
                question.answered();
            }
            Err(status) if matches!(status.code(), Code::PermissionDenied | Code::Unimplemented) => {
                process::unknown_key("refused");
                tracing::debug!(reason = status.message(), "a report of an unknown key was refused");
                question.answered();
            }
            Err(status) => {
                process::unknown_key("failed");
                tracing::debug!(reason = chain(&status), "an unknown key could not be reported");
            }
        }
    }
}

fn node(settings: &Settings) -> Node {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let text = |text: String| Value { kind: Some(Kind::StringValue(text)) };
    let fields = [
        (METADATA_NOW_UNIX_MS.to_owned(), text(now.to_string())),
        (METADATA_VERSION.to_owned(), text(env!("CARGO_PKG_VERSION").to_owned())),
    ];
    Node {
        id: settings.args.node_id.clone(),
        cluster: settings.namespace.to_string(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
    }
}
