//! What `status` asks, and what it makes of the answers.

use futures::StreamExt as _;
use futures::stream;
use http::{Method, StatusCode};
use mesh_api::admin::{CaStatus, CertificateStatus, ControlStatus, ReadyStatus};
use mesh_api::problem::{Problem, Severity};
use serde::Serialize;

use crate::admin_client::AskError;
use crate::command::mesh::{ASKED_AT_ONCE, Mesh};
use crate::command::target;
use crate::local::client::{MeshStatus, Phase};
use crate::output;

/// Everything that is known.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    /// What needs attention now; empty when all is well.
    pub(super) complaints: Vec<String>,
    /// The control plane, if it answers.
    pub(super) control: Option<ControlStatus>,
    /// Its authority.
    pub(super) ca: Option<CaStatus>,
    /// What is wrong with configuration.
    pub(super) problems: Option<Vec<Problem>>,
    /// Processes, if the supervisor answers.
    pub(super) workloads: Option<MeshStatus>,
    /// Proxies, asked one by one.
    pub(super) proxies: Vec<ProxyHealth>,
}

/// One proxy.
#[derive(Debug, Serialize)]
pub(super) struct ProxyHealth {
    /// `WORKLOAD.NAMESPACE`.
    pub(super) name: String,
    /// Its readiness, if it answers.
    pub(super) ready: Option<ReadyStatus>,
    /// Its certificate, once there is one.
    pub(super) leaf: Option<CertificateStatus>,
    /// Why it does not answer.
    pub(super) error: Option<String>,
}

impl ProxyHealth {
    /// Whether it answers and serves.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.ready)
    }
}

/// Asks everybody; with a namespace only the proxies of that one.
pub(super) async fn ask(mesh: &Mesh, namespace: Option<&str>) -> Health {
    let control = mesh.control_status().await;
    let mut complaints = Vec::new();
    if let Err(error) = &control {
        complaints.push(format!("the control plane does not answer: {}", output::chain(error)));
    }
    let is_there = control.is_ok();
    let mut health = Health {
        complaints,
        control: control.ok(),
        ca: if is_there { mesh.ca().await.ok() } else { None },
        problems: if is_there { mesh.problems().await.ok() } else { None },
        workloads: match mesh {
            Mesh::Local(mesh) => mesh.processes().await.ok(),
            Mesh::Cluster(_) => None,
        },
        proxies: Vec::new(),
    };
    match target::with_proxies(mesh, namespace).await {
        Ok(names) => {
            let asked = stream::iter(names).map(|name| proxy(mesh, name));
            health.proxies = asked.buffered(ASKED_AT_ONCE).collect().await;
        }
        Err(failure) => health.complaints.push(failure.message().to_owned()),
    }
    let judged = judge(&health);
    health.complaints.extend(judged);
    health
}

async fn proxy(mesh: &Mesh, name: String) -> ProxyHealth {
    let ready = readiness(mesh, &name).await;
    let certificates: Vec<CertificateStatus> = match &ready {
        Ok(_) => mesh.proxy(&name, "/certs").await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let leaf = certificates.into_iter().find(|one| one.chain_index == 0 && !one.spiffe_id.is_empty());
    let error = ready.as_ref().err().map(|error| output::chain(error));
    ProxyHealth { name, ready: ready.ok(), leaf, error }
}

/// A proxy that is not ready answers with 503 and says why.
async fn readiness(mesh: &Mesh, name: &str) -> Result<ReadyStatus, AskError> {
    let mut connection = mesh.proxy_connection(name).await?;
    let answer = connection.ask(Method::GET, "/ready", bytes::Bytes::new()).await?;
    if answer.status != StatusCode::SERVICE_UNAVAILABLE {
        answer.check()?;
    }
    serde_json::from_slice(&answer.body)
        .map_err(|source| AskError::Content { place: name.to_owned(), source })
}

/// What needs attention now (pure).
fn judge(health: &Health) -> Vec<String> {
    let mut complaints = Vec::new();
    for source in health.control.iter().flat_map(|control| &control.sources) {
        if let (Some(reason), Some(kind)) = (&source.suspended, source.watched()) {
            complaints.push(format!("{kind} are not watched {reason}"));
        } else if let Some(reason) = &source.suspended {
            complaints.push(format!(
                "{} is held for an accident: {reason} (`meshctl confirm` if it was none)",
                source.path
            ));
        }
        if !source.held.is_empty() {
            let held = output::count(source.held.len(), "object is", "objects are");
            complaints.push(format!("{held} held in the last good version in {}", source.path));
        }
    }
    let errors =
        health.problems.iter().flatten().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        complaints.push(format!(
            "{} in the configuration (`meshctl analyze`)",
            output::count(errors, "error", "errors")
        ));
    }
    let sources = || health.control.iter().flat_map(|control| &control.key_sources);
    let without = sources().filter(|source| source.keys == 0 && !source.problem.is_empty()).count();
    if without > 0 {
        let issuers = output::count(without, "issuer has", "issuers have");
        complaints.push(format!("{issuers} no keys, so their tokens are refused"));
    }
    for proxy in health.control.iter().flat_map(|control| &control.proxies).filter(|proxy| proxy.connected) {
        for (kind, sync) in proxy.types.iter().filter(|(_, sync)| sync.state == "ERROR") {
            let error = sync.error.as_deref().unwrap_or("no reason given");
            complaints.push(format!("{} refuses {kind}: {error}", proxy.name));
        }
    }
    for proxy in &health.proxies {
        match (&proxy.error, &proxy.leaf) {
            (Some(error), _) => {
                complaints.push(format!("the proxy of {} does not answer: {error}", proxy.name))
            }
            (None, Some(leaf)) if !leaf.valid => {
                complaints.push(format!(
                    "the certificate of {} is not valid (until {})",
                    proxy.name, leaf.not_after
                ));
            }
            (None, _) if !proxy.is_ready() => {
                complaints.push(format!("the proxy of {} is not ready", proxy.name))
            }
            (None, _) => {}
        }
    }
    for authority in health.ca.iter().flat_map(|ca| &ca.authorities).filter(|authority| !authority.valid) {
        complaints.push(format!(
            "the certificate {} is not valid (until {})",
            authority.resource_name, authority.not_after
        ));
    }
    for workload in health.workloads.iter().flat_map(|processes| &processes.workloads) {
        if workload.app.phase == Phase::Failed {
            complaints.push(format!("{} has failed: {}", workload.id(), workload.app.message));
        }
    }
    complaints
}
