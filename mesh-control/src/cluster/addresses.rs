//! The addresses given to services that state none, the same on every replica.
//!
//! An address is the place of the name's hash, so replicas agree by themselves but for names whose hashes meet:
//! there it counts who came first. Those names, which are few, stand in ConfigMap `mini-mesh-virtual-addresses`.
//! Every replica reads it, at the start before anything is given, and obeys it; the leader adds what is not in it
//! yet. An application may hold an address that it looked up long ago, so what stands there is kept, also
//! while its service is away, until there are too many.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mesh_api::error_chain::chain;
use mesh_kube::name;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::doorbell::Doorbell;
use crate::leader::Leadership;
use crate::plane::Plane;
use crate::registry::VirtualAddressState;

/// Key of the ConfigMap.
const KEY: &str = "displaced.json";
/// Names that are kept at most; with the longest of names this stays under the 1 MiB of an object.
const NAMES_MAX: usize = 3_500;
/// Time for one answer of the API server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks when nothing rings.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// Pause after a failed look, a lost race or a look with changes.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why addresses could not be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// The API server does not answer in time.
    #[error("the API server did not answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    /// The API server refuses.
    #[error("the API server does not {action} ConfigMap {}", name::VIRTUAL_ADDRESSES)]
    Api {
        /// What it was asked for.
        action: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The state could not be put into words.
    #[error("the addresses cannot be encoded")]
    Encode(#[source] serde_json::Error),
}

/// What stands in the ConfigMap.
#[derive(Debug, Default)]
struct Found {
    /// `None` when there is no ConfigMap.
    version: Option<String>,
    state: VirtualAddressState,
    is_damaged: bool,
}

/// Reads and writes the shared addresses.
#[derive(Clone)]
pub struct SharedAddresses {
    api: Api<ConfigMap>,
    client: Client,
    namespace: String,
}

impl std::fmt::Debug for SharedAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedAddresses").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl SharedAddresses {
    /// The addresses of the control plane in `namespace`.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        let api = Api::namespaced(client.clone(), namespace);
        Self { api, client, namespace: namespace.to_owned() }
    }

    /// What is shared, as soon as it can be read.
    pub async fn wait(&self) -> VirtualAddressState {
        loop {
            match self.read().await {
                Ok(found) => return found.state,
                Err(error) => {
                    tracing::warn!(reason = chain(&error), "waiting for the addresses given to services")
                }
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Obeys what is shared and, on the leader, adds what this replica has given. `given` rings when it did.
    pub async fn follow(
        self,
        plane: Arc<Plane>,
        given: Arc<Notify>,
        mut leadership: Leadership,
    ) -> Infallible {
        let mut bell = Doorbell::new::<ConfigMap>(&self.client, &self.namespace, name::VIRTUAL_ADDRESSES);
        let mut reported = String::new();
        loop {
            let pause = match self.look(&plane, leadership.is_leader()).await {
                Ok(()) => {
                    reported.clear();
                    CHECK_EVERY
                }
                Err(error) => {
                    let reason = chain(&error).to_string();
                    if reason != reported {
                        tracing::warn!(reason, "addresses given to services are not shared now");
                        reported = reason;
                    }
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = bell.ring() => {}
                () = given.notified() => {}
                () = leadership.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look(&self, plane: &Plane, leads: bool) -> Result<(), ShareError> {
        let found = self.read().await?;
        plane.adopt_addresses(&found.state);
        if !leads {
            return Ok(());
        }
        let wanted = merged(&found.state, plane.snapshot().registry().displaced_addresses());
        // Where nothing has to be said, nothing is made.
        let is_needed = wanted != found.state || found.is_damaged;
        if is_needed { self.write(&wanted, found.version).await } else { Ok(()) }
    }

    async fn read(&self) -> Result<Found, ShareError> {
        let found = answer("give", self.api.get_opt(name::VIRTUAL_ADDRESSES)).await?;
        let Some(found) = found else { return Ok(Found::default()) };
        let version = found.metadata.resource_version;
        let text = found.data.unwrap_or_default().remove(KEY);
        Ok(match text.as_deref().map(serde_json::from_str) {
            Some(Ok(state)) => Found { version, state, is_damaged: false },
            // Without it replicas differ for a few names, which the leader's next write ends.
            Some(Err(_)) | None => {
                tracing::warn!(config_map = name::VIRTUAL_ADDRESSES, "the shared addresses are damaged");
                Found { version, state: VirtualAddressState::default(), is_damaged: true }
            }
        })
    }

    async fn write(&self, state: &VirtualAddressState, version: Option<String>) -> Result<(), ShareError> {
        let text = serde_json::to_string(state).map_err(ShareError::Encode)?;
        let is_new = version.is_none();
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name::VIRTUAL_ADDRESSES.to_owned()),
                labels: Some(BTreeMap::from([(name::LABEL_PART_OF.to_owned(), name::PART_OF.to_owned())])),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), text)])),
            ..ConfigMap::default()
        };
        let params = PostParams {
            field_manager: Some(name::FIELD_MANAGER_CONTROL.to_owned()),
            ..PostParams::default()
        };
        if is_new {
            answer("create", self.api.create(&params, &object)).await?;
        } else {
            answer("replace", self.api.replace(name::VIRTUAL_ADDRESSES, &params, &object)).await?;
        }
        tracing::info!(names = state.places.len(), "addresses given to services were shared");
        Ok(())
    }
}

/// What is shared, which holds, and what is new; without what is not in use if there are too many.
fn merged(shared: &VirtualAddressState, in_use: VirtualAddressState) -> VirtualAddressState {
    let mut places = shared.places.clone();
    if places.len() + in_use.places.len() > NAMES_MAX {
        places.retain(|name, _| in_use.places.contains_key(name));
    }
    for (name, place) in in_use.places {
        if places.len() >= NAMES_MAX {
            break;
        }
        places.entry(name).or_insert(place);
    }
    VirtualAddressState { places }
}

async fn answer<T>(
    action: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ShareError> {
    let answered = timeout(ANSWER_TIMEOUT, request).await.map_err(|_| ShareError::Silent)?;
    answered.map_err(|source| ShareError::Api { action, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::fixture::versioned_objects::VersionedObjects;
    use crate::registry::{Change, Entry};
    use std::net::IpAddr;

    const PATH: &str = "/api/v1/namespaces/istio-system/configmaps/mini-mesh-virtual-addresses";
    /// So many that hashes meet in a range of 65,534 places.
    const SERVICES: usize = 1_500;

    fn set(plane: &Plane, numbers: impl Iterator<Item = usize>) {
        let changes = numbers
            .map(|number| Change::Set(Entry::from(fixture::service("shop", &format!("s{number}"), "app"))));
        drop(plane.snapshot().apply(None, changes.collect::<Vec<_>>()));
    }

    fn given(plane: &Plane) -> BTreeMap<String, Vec<IpAddr>> {
        let snapshot = plane.snapshot();
        let services = snapshot.registry().services();
        services.map(|service| (service.meta.object.name.to_string(), service.addresses.clone())).collect()
    }

    #[tokio::test]
    async fn replicas_that_saw_services_in_another_order_agree_with_the_leader() {
        let server = VersionedObjects::default();
        let shared = SharedAddresses::new(server.client(), "istio-system");
        let (leader, follower) = (fixture::plane(), fixture::plane());
        set(&leader, 0..SERVICES);
        set(&follower, (0..SERVICES).rev());
        assert_ne!(given(&leader), given(&follower), "no hashes meet; the test tests nothing");
        shared.look(&follower, false).await.expect("nothing to do");
        assert!(server.get(PATH).is_none(), "a follower has written");
        shared.look(&leader, true).await.expect("written");
        shared.look(&follower, false).await.expect("obeyed");
        assert_eq!(given(&leader), given(&follower));
        // Whoever leads next keeps it as it is.
        let writes = server.writes();
        shared.look(&follower, true).await.expect("nothing to do");
        assert_eq!(server.writes(), writes);
        assert_eq!(shared.wait().await, leader.snapshot().registry().displaced_addresses());
    }

    #[tokio::test]
    async fn where_no_names_meet_nothing_is_written_and_damage_is_repaired_by_the_leader() {
        let server = VersionedObjects::default();
        let shared = SharedAddresses::new(server.client(), "istio-system");
        let plane = fixture::plane();
        set(&plane, 0..1);
        shared.look(&plane, true).await.expect("nothing to do");
        assert_eq!(server.writes(), 0);
        server.put(PATH, serde_json::json!({"metadata": {"name": "x"}, "data": {"displaced.json": "{"}}));
        shared.look(&plane, false).await.expect("a warning");
        shared.look(&plane, true).await.expect("repaired");
        assert_eq!(server.get(PATH).expect("there")["data"]["displaced.json"], r#"{"places":{}}"#);
    }

    #[test]
    fn what_is_shared_holds_and_names_without_a_service_go_when_there_are_too_many() {
        let state = |names: &[(&str, u32)]| VirtualAddressState {
            places: names.iter().map(|(name, place)| ((*name).to_owned(), *place)).collect(),
        };
        let both = merged(&state(&[("a", 1), ("gone", 2)]), state(&[("a", 7), ("b", 3)]));
        assert_eq!(both, state(&[("a", 1), ("b", 3), ("gone", 2)]));
        let many = VirtualAddressState {
            places: (0..NAMES_MAX).map(|n| (format!("n{n}"), u32::try_from(n).expect("small"))).collect(),
        };
        assert_eq!(merged(&many, state(&[("n1", 1), ("new", 9_999)])), state(&[("n1", 1), ("new", 9_999)]));
    }
}
