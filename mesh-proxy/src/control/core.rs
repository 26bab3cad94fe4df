//! Discovery without IO: questions, responses and the passing of time in; requests and the next state out.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::error_chain::chain;
use mesh_api::model::DestinationKey;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_api::wire::{SELF, TypeUrl};
use mesh_identity::tls::IdentitySource;

use super::apply::{Applied, Model};
use super::session::{Session, UnknownType};
use super::status::Status;
use super::subscriptions::{DESTINATIONS_MAX, Standing, Subscriptions};
use super::unknown_keys::UnknownKeys;
use crate::settings::Settings;
use crate::state::{Known, State};
use crate::telemetry::process;

/// What discovery knows. Owned by one task.
#[derive(Debug)]
pub struct Core {
    session: Session,
    model: Model,
    subscriptions: Subscriptions,
    rejection: Option<String>,
    state: State,
    identity: Arc<IdentitySource>,
    status: Arc<Status>,
}

impl Core {
    /// Subscribed to what concerns the own workload.
    #[must_use]
    pub fn new(
        settings: &Settings,
        state: State,
        identity: Arc<IdentitySource>,
        status: Arc<Status>,
    ) -> Self {
        let mut session = Session::new();
        for kind in [TypeUrl::TrustBundle, TypeUrl::ProxyConfig, TypeUrl::WorkloadPolicies] {
            session.subscribe(kind, SELF);
        }
        let core = Self {
            session,
            model: Model::new(settings),
            subscriptions: Subscriptions::default(),
            rejection: None,
            state,
            identity,
            status,
        };
        core.observe();
        core
    }

    /// What the request path wants to know of keys.
    #[must_use]
    pub fn unknown_keys(&self) -> &UnknownKeys {
        self.state.unknown_keys()
    }

    /// A stream is open.
    pub fn open(&mut self) {
        self.session.open();
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_due(&self) -> bool {
        self.session.has_due()
    }

    /// The next request to send.
    pub fn poll(&mut self) -> Option<DeltaDiscoveryRequest> {
        self.session.poll()
    }

    /// Somebody wants to know about a destination.
    pub fn ask(&mut self, key: DestinationKey, now: Duration) {
        if self.model.known(&key).is_some() && self.subscriptions.contains(&key) {
            return;
        }
        self.subscribe(key, now);
        self.observe();
    }

    /// A response has come.
    ///
    /// # Errors
    /// When it is of a type that was not asked for.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse, now: Duration) -> Result<(), UnknownType> {
        let delivery = self.session.receive(response)?;
        let kind = delivery.kind;
        match self.model.apply(kind, &delivery.changes) {
            Ok(applied) => {
                process::response(kind, "accepted");
                self.rejection = None;
                if kind == TypeUrl::Destination {
                    for key in delivery.changes.iter().filter_map(|c| DestinationKey::parse(c.name())) {
                        self.subscriptions.answer(&key, now);
                    }
                }
                self.session.accept(delivery);
                self.subscribe_route_hosts(now);
                self.publish(applied);
            }
            Err(error) => {
                process::response(kind, "rejected");
                let reason = chain(&error);
                tracing::error!(
                    kind = kind.short(),
                    reason,
                    "configuration is rejected; what is in force stays"
                );
                self.session.reject(&delivery, &reason);
                self.rejection = Some(reason);
            }
        }
        self.observe();
        Ok(())
    }

    /// Lets go of what is idle. To be called now and then, while the stream is open only.
    pub fn sweep(&mut self, now: Duration) {
        let needed = self.model.route_hosts();
        let idle = self.subscriptions.idle(now, &needed, |key| self.standing(key));
        let mut is_changed = false;
        for key in idle {
            is_changed |= self.forget(&key);
        }
        if is_changed {
            self.publish(Applied { is_changed, ..Applied::default() });
            self.observe();
        }
    }

    fn standing(&self, key: &DestinationKey) -> Standing {
        match self.model.known(key) {
            None => Standing::Asked,
            Some(Known::Absent) => Standing::Absent,
            Some(Known::Present(state)) => {
                Standing::Present { last_used: Duration::from_secs(state.last_used()) }
            }
        }
    }

    /// Tells whether the state has changed, because another destination had to make room.
    fn subscribe(&mut self, key: DestinationKey, now: Duration) -> bool {
        let mut is_changed = false;
        if !self.subscriptions.contains(&key) && self.subscriptions.len() >= DESTINATIONS_MAX {
            let needed = self.model.route_hosts();
            let Some(victim) = self.subscriptions.victim(&needed, |key| self.standing(key)) else {
                tracing::warn!(%key, "too many destinations at once; this one is not asked for");
                return false;
            };
            process::evicted();
            is_changed = self.forget(&victim);
        }
        self.session.subscribe(TypeUrl::Destination, &key.to_string());
        self.subscriptions.ask(key, now);
        if is_changed {
            self.publish(Applied { is_changed, ..Applied::default() });
        }
        is_changed
    }

    fn subscribe_route_hosts(&mut self, now: Duration) {
        for host in self.model.route_hosts() {
            if !self.subscriptions.contains(&host) {
                self.subscribe(host, now);
            }
        }
    }

    fn forget(&mut self, key: &DestinationKey) -> bool {
        self.subscriptions.remove(key);
        self.session.unsubscribe(TypeUrl::Destination, &key.to_string());
        self.model.forget(key)
    }

    /// Trust goes first, so that whoever reads the new state already trusts whom it names.
    fn publish(&self, applied: Applied) {
        if let Some(bundle) = applied.bundle {
            measure_roots(&bundle);
            self.identity.publish_bundle(bundle);
        }
        if let Some(domains) = applied.trust_domains {
            self.identity.publish_trust_domains(domains);
        }
        if applied.is_changed {
            self.state.publish(self.model.state());
            process::revision(self.state.load().revision);
        }
    }

    fn observe(&self) {
        self.status.observe(self.session.versions(), self.model.missing(), self.rejection.clone());
        let state = self.state.load();
        let present = state.destinations.values().filter(|known| matches!(known, Known::Present(_))).count();
        let absent = state.destinations.len() - present;
        let asked = self.subscriptions.len().saturating_sub(present + absent);
        process::destinations(present, absent, asked);
    }
}

fn measure_roots(bundle: &mesh_identity::bundle::TrustBundle) {
    let roots = bundle.trust_domains().flat_map(|domain| bundle.certificates(domain.as_str()));
    let ends =
        roots.filter_map(|der| mesh_identity::certificate::inspect(der).ok()).map(|root| root.not_after);
    if let Some(first) = ends.min() {
        process::expiry("root", first);
    }
}
