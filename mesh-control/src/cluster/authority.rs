//! The authority that all replicas share, in the Secret `mini-mesh-ca`.
//!
//! Whoever is first creates it; of two that try at once the API server takes one, and the other reads it.
//! Every later write names the version that it replaces. Only the leader writes: the next intermediate, which
//! it stores *before* it signs with it, so that no replica ever signs with what the others cannot see. The
//! others take it up when it appears.
//!
//! A root is made only where there has never been one. A Secret that has vanished, is damaged or holds another
//! root is an alarm: replicas that run go on with what they have in memory, and the leader restores the Secret from
//! there. A replica that starts without one waits while the root certificate in the control plane's namespace
//! says that there was an authority; see [`super::root_cert`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mesh_api::error_chain::chain;
use mesh_identity::ca::secret::{self, SecretError};
use mesh_identity::ca::{Authority, CaSettings, CreateError, MaintainError};
use mesh_identity::certificate::{inspect, timestamp};
use mesh_kube::name;
use tokio::time::timeout;
use zeroize::Zeroize;

use super::doorbell::Doorbell;
use crate::leader::Leadership;
use crate::plane::Plane;
use crate::telemetry::metrics;

/// Time for one answer of the API server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks while there is no authority to begin with.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time between two looks at a Secret that does not ring.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// Pause after a failed look or a lost race.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Secret in which Istio takes an authority of the user's.
const PLUGGED_IN: &str = "cacerts";

/// Why there is no shared authority.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The API server does not answer in time.
    #[error("the API server did not answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    /// The API server refuses.
    #[error("the API server does not {action} {what}")]
    Api {
        /// `give`, `create` or `replace`.
        action: &'static str,
        /// Which object.
        what: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// There was an authority and it is gone.
    #[error(
        "Secret {} is gone although ConfigMap {} says that there was an authority; restore the Secret from a \
         backup, or delete that ConfigMap here to begin with a new root, which cuts off every proxy until it restarts",
        name::CA_SECRET,
        name::ROOT_CERT
    )]
    Gone,
    /// The Secret does not hold an authority of this mesh.
    #[error("Secret {} cannot be used", name::CA_SECRET)]
    Damaged(#[source] SecretError),
    /// A new authority could not be made.
    #[error("a new authority could not be made")]
    Create(#[source] CreateError),
    /// The next intermediate could not be made.
    #[error("the next intermediate could not be made")]
    Maintain(#[source] MaintainError),
    /// Somebody else was quicker.
    #[error("another replica was quicker")]
    Conflict,
}

/// What stands in the Secret.
enum Seen {
    Absent,
    Damaged { version: Option<String>, reason: SecretError },
    Present { version: Option<String>, authority: Box<Authority> },
}

/// What is wrong with the Secret, for the metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    Missing,
    Damaged,
    OtherRoot,
}

impl Alarm {
    const ALL: [Self; 3] = [Self::Missing, Self::Damaged, Self::OtherRoot];

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Damaged => "damaged",
            Self::OtherRoot => "other_root",
        }
    }
}

/// Reads and writes the authority.
pub struct SharedAuthority {
    secrets: Api<Secret>,
    config_maps: Api<ConfigMap>,
    client: Client,
    namespace: String,
    settings: CaSettings,
}

impl std::fmt::Debug for SharedAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedAuthority").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl SharedAuthority {
    /// The authority of the control plane in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str, settings: CaSettings) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            client,
            namespace: namespace.to_owned(),
            settings,
        }
    }

    /// The authority to begin with, read or made. Waits as long as it takes, and logs why when that changes.
    pub async fn wait(&self) -> Authority {
        let mut reported = String::new();
        loop {
            match self.read_or_create().await {
                Ok(authority) => return authority,
                Err(error) => {
                    let reason = chain(&error).to_string();
                    if reason != reported {
                        tracing::error!(reason, "there is no authority to begin with; looking again");
                        reported = reason;
                    }
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn read_or_create(&self) -> Result<Authority, SharedError> {
        match self.read().await? {
            Seen::Present { authority, .. } => {
                tracing::info!(secret = name::CA_SECRET, "the authority was read");
                Ok(*authority)
            }
            Seen::Damaged { reason, .. } => Err(SharedError::Damaged(reason)),
            Seen::Absent => {
                // Asked after the Secret: the leader writes the one only when it has the other.
                if self.has_had_root().await? {
                    return Err(SharedError::Gone);
                }
                let made = Authority::create(self.settings.clone(), SystemTime::now())
                    .map_err(SharedError::Create)?;
                self.write(&made, None, "created").await?;
                tracing::info!(secret = name::CA_SECRET, "a new root was made");
                Ok(made)
            }
        }
    }

    async fn has_had_root(&self) -> Result<bool, SharedError> {
        let found = answer("give", name::ROOT_CERT, self.config_maps.get_opt(name::ROOT_CERT)).await?;
        Ok(found.is_some())
    }

    async fn read(&self) -> Result<Seen, SharedError> {
        let found = answer("give", name::CA_SECRET, self.secrets.get_opt(name::CA_SECRET)).await?;
        let Some(found) = found else { return Ok(Seen::Absent) };
        let version = found.metadata.resource_version;
        let mut data = found.data.unwrap_or_default();
        let decoded =
            secret::decode(|part| data.get(part).map(|bytes| bytes.0.as_slice()), self.settings.clone());
        data.values_mut().for_each(|bytes| bytes.0.zeroize());
        Ok(match decoded {
            Ok(authority) => Seen::Present { version, authority: Box::new(authority) },
            Err(reason) => Seen::Damaged { version, reason },
        })
    }

    /// Writes the Secret: in place of a version, or where there is none.
    async fn write(
        &self,
        authority: &Authority,
        version: Option<&str>,
        what: &'static str,
    ) -> Result<(), SharedError> {
        let parts = secret::encode(authority).map_err(SharedError::Damaged)?;
        let data: BTreeMap<_, _> =
            parts.iter().map(|(part, bytes)| ((*part).to_owned(), ByteString(bytes.to_vec()))).collect();
        let mut written = Secret {
            metadata: ObjectMeta {
                name: Some(name::CA_SECRET.to_owned()),
                labels: Some(BTreeMap::from([(name::LABEL_PART_OF.to_owned(), name::PART_OF.to_owned())])),
                resource_version: version.map(ToOwned::to_owned),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(data),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(name::FIELD_MANAGER_CONTROL.to_owned()),
            ..PostParams::default()
        };
        let result = match version {
            None => answer("create", name::CA_SECRET, self.secrets.create(&params, &written)).await,
            Some(_) => {
                answer("replace", name::CA_SECRET, self.secrets.replace(name::CA_SECRET, &params, &written))
                    .await
            }
        };
        let wipe = |secret: &mut Secret| {
            secret.data.iter_mut().flat_map(BTreeMap::values_mut).for_each(|bytes| bytes.0.zeroize());
        };
        wipe(&mut written);
        let outcome = match result {
            Ok(mut echoed) => {
                wipe(&mut echoed);
                Ok(())
            }
            Err(SharedError::Api { source, .. }) if is_conflict(&source) => Err(SharedError::Conflict),
            Err(error) => Err(error),
        };
        metrics::authority_write(match &outcome {
            Ok(()) => what,
            Err(SharedError::Conflict) => "conflict",
            Err(_) => "failed",
        });
        outcome
    }

    /// Says that an authority which the user has plugged in is not used.
    pub async fn look_for_plugged_in(&self) {
        match timeout(ANSWER_TIMEOUT, self.secrets.get_metadata_opt(PLUGGED_IN)).await {
            Ok(Ok(Some(_))) => tracing::warn!(
                secret = PLUGGED_IN,
                "there is an authority of the user's, which this version does not use: certificates are signed \
                 by the mesh's own root"
            ),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::debug!(error = chain(&error), "whether there is a plugged-in authority is not known")
            }
            Err(_elapsed) => tracing::debug!("whether there is a plugged-in authority is not known"),
        }
    }

    /// Follows the Secret and, on the leader, keeps it in order.
    pub async fn follow(self, plane: Arc<Plane>, mut leadership: Leadership) -> Infallible {
        let mut bell = Doorbell::new::<Secret>(&self.client, &self.namespace, name::CA_SECRET);
        let mut reported = String::new();
        loop {
            let looked = self.look(&plane, leadership.is_leader(), SystemTime::now()).await;
            let pause = match looked {
                Ok(()) => {
                    reported.clear();
                    let now = SystemTime::now();
                    let next = plane.issue.authority().next_maintenance(now);
                    next.duration_since(now).unwrap_or_default().clamp(RETRY_AFTER, CHECK_EVERY)
                }
                Err(SharedError::Conflict) => RETRY_AFTER,
                Err(error) => {
                    let reason = chain(&error).to_string();
                    if reason != reported {
                        tracing::error!(reason, "the shared authority needs attention");
                        reported = reason;
                    }
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = bell.ring() => {}
                () = leadership.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self, plane: &Plane, leads: bool, now: SystemTime) -> Result<(), SharedError> {
        let ours = plane.issue.authority();
        let (alarm, version) = match self.read().await? {
            Seen::Present { version, authority } => match ours.take_up(&authority) {
                Ok(has_changed) => {
                    raise(None);
                    if has_changed {
                        report_taken_up(ours);
                        plane.take_bundle();
                    }
                    return if leads { self.rotate(plane, version.as_deref(), now).await } else { Ok(()) };
                }
                Err(foreign) => {
                    tracing::error!(reason = %foreign, leads, "the shared authority was replaced and is not obeyed; to begin with another root, stop every replica first");
                    (Alarm::OtherRoot, version)
                }
            },
            Seen::Damaged { version, reason } => {
                tracing::error!(reason = chain(&reason), leads, "the shared authority is damaged");
                (Alarm::Damaged, version)
            }
            Seen::Absent => {
                tracing::error!(leads, "the shared authority has vanished");
                (Alarm::Missing, None)
            }
        };
        raise(Some(alarm));
        if leads {
            self.write(ours, version.as_deref(), "restored").await?;
            tracing::warn!(secret = name::CA_SECRET, "the shared authority was restored from memory");
            raise(None);
        }
        Ok(())
    }

    /// Stores the next intermediate if it is due, and signs with it once it is stored.
    async fn rotate(&self, plane: &Plane, version: Option<&str>, now: SystemTime) -> Result<(), SharedError> {
        let ours = plane.issue.authority();
        let next = ours.successor(now).map_err(SharedError::Maintain)?;
        let Some(next) = next else { return Ok(()) };
        self.write(&next, version, "rotated").await?;
        if ours.take_up(&next).is_ok_and(|has_changed| has_changed) {
            report_taken_up(ours);
            plane.take_bundle();
        }
        Ok(())
    }
}

fn report_taken_up(authority: &Authority) {
    if let Ok(summary) = inspect(&authority.intermediate_certificate()) {
        let not_after = timestamp(summary.not_after);
        tracing::info!(serial = summary.serial, not_after, "another intermediate signs from now on");
    }
}

fn raise(alarm: Option<Alarm>) {
    for kind in Alarm::ALL {
        metrics::authority_alarm(kind.as_str(), alarm == Some(kind));
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

async fn answer<T>(
    action: &'static str,
    what: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, SharedError> {
    let answered = timeout(ANSWER_TIMEOUT, request).await.map_err(|_| SharedError::Silent)?;
    answered.map_err(|source| SharedError::Api { action, what, source: Box::new(source) })
}

#[cfg(test)]
mod tests;
