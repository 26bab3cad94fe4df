//! Rings when one object may have changed.
//!
//! Whoever listens reads the object then, and from time to time anyway. So nothing depends on a watch being
//! complete, and the watch asks for metadata only: what is secret in the object is not carried along.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};

/// Rings of one object by its name in `namespace`. Never ends.
pub struct Doorbell {
    rings: BoxStream<'static, ()>,
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doorbell").finish_non_exhaustive()
    }
}

impl Doorbell {
    /// A bell of the object.
    #[must_use]
    pub fn new<K>(client: &Client, namespace: &str, name: &str) -> Self
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        Self { rings: rings(watcher(api, config)).boxed() }
    }

    /// Returns at the next ring. Dropping it loses no ring.
    pub async fn ring(&mut self) {
        if self.rings.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn rings<K: Send + 'static>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> impl Stream<Item = ()> + Send {
    events.default_backoff().filter_map(async |event| match event {
        // The end of a list says that the object is not there, if it was not in it.
        Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_) | watcher::Event::InitDone) => Some(()),
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => None,
        Err(error) => {
            tracing::debug!(%error, "an object cannot be watched now");
            None
        }
    })
}
