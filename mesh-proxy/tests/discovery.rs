//! Both halves of the discovery protocol against each other, in memory: whatever is pushed, delayed, lost,
//! rejected, forgotten and asked for again, in whatever order, both end with the same versions.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_api::wire::TypeUrl;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use mesh_control::push::session::{Effect, Request, Session as Server};
use mesh_control::snapshot::{Desired, Encoded};
use mesh_proxy::control::session::{Change, Session as Client};
use proptest::prelude::*;

const KIND: TypeUrl = TypeUrl::Destination;
const NAMES: [&str; 4] = ["host/a.b", "host/c.d", "host/e.f", "host/g.h"];
/// Content that the proxy refuses.
const BAD: u8 = 3;

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Subscribe(usize),
    Unsubscribe(usize),
    /// The mesh changes: this content, or none.
    Change(usize, Option<u8>),
    /// One message reaches the control plane.
    ToServer,
    /// One message reaches the proxy.
    ToClient,
    /// The connection breaks with all that is under way; the control plane may be another one afterwards.
    Reconnect,
}

#[derive(Debug, Default)]
struct World {
    client: Client,
    server: Server,
    mesh: BTreeMap<usize, u8>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    wanted: BTreeSet<usize>,
    /// What the proxy has in force.
    has: BTreeMap<String, Option<u8>>,
}

impl World {
    fn desired(&self, name: &str) -> Desired {
        let index = NAMES.iter().position(|known| *known == name);
        match index.and_then(|index| self.mesh.get(&index)) {
            Some(content) => Desired::Present(Encoded::of(KIND, content)),
            None => Desired::Absent,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Subscribe(index) => {
                self.wanted.insert(*index);
                self.client.subscribe(KIND, NAMES[*index]);
            }
            Step::Unsubscribe(index) => {
                self.wanted.remove(index);
                self.has.remove(NAMES[*index]);
                self.client.unsubscribe(KIND, NAMES[*index]);
            }
            Step::Change(index, content) => {
                match content {
                    Some(content) => self.mesh.insert(*index, *content),
                    None => self.mesh.remove(index),
                };
                let desired = self.desired(NAMES[*index]);
                self.server.update(KIND, NAMES[*index], &desired);
            }
            Step::ToServer => self.deliver_request(),
            Step::ToClient => self.deliver_response(),
            Step::Reconnect => {
                self.to_server.clear();
                self.to_client.clear();
                self.server = Server::new();
                self.client.open();
            }
        }
        self.to_server.extend(std::iter::from_fn(|| self.client.poll()));
        self.to_client.extend(std::iter::from_fn(|| self.server.poll()));
    }

    fn deliver_request(&mut self) {
        let Some(request) = self.to_server.pop_front() else { return };
        let request = Request {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce,
            error: request.error_detail.map(|status| status.message),
        };
        for effect in self.server.request(KIND, request).expect("within limits") {
            if let Effect::Subscribed(kind, name) = effect {
                let desired = self.desired(&name);
                self.server.update(kind, &name, &desired);
            }
        }
    }

    fn deliver_response(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let delivery = self.client.receive(response).expect("a known type");
        let content = |change: &Change| match change {
            Change::Set(resource) => {
                let body = resource.resource.as_ref().expect("a body");
                Some(serde_json::from_slice::<u8>(&body.value).expect("a number"))
            }
            Change::Remove(_) => None,
        };
        if delivery.changes.iter().any(|change| content(change) == Some(BAD)) {
            self.client.reject(&delivery, "refused");
            return;
        }
        for change in &delivery.changes {
            self.has.insert(change.name().to_owned(), content(change));
        }
        self.client.accept(delivery);
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        let is_at_rest = |world: &Self| {
            world.to_server.is_empty() && world.to_client.is_empty() && !world.client.has_due()
        };
        for _ in 0..1_000 {
            if is_at_rest(self) {
                return;
            }
            self.step(&Step::ToServer);
            self.step(&Step::ToClient);
        }
        assert!(is_at_rest(self), "the two never come to rest");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..NAMES.len();
    prop_oneof![
        3 => index().prop_map(Step::Subscribe),
        2 => index().prop_map(Step::Unsubscribe),
        3 => (index(), proptest::option::weighted(0.8, 0..=BAD)).prop_map(|(i, c)| Step::Change(i, c)),
        4 => Just(Step::ToServer),
        4 => Just(Step::ToClient),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn both_halves_end_with_the_same_versions(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::default();
        world.step(&Step::Reconnect);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        for (index, name) in NAMES.into_iter().enumerate() {
            if !world.wanted.contains(&index) {
                prop_assert_eq!(world.has.get(name), None, "{} was let go", name);
                continue;
            }
            let had = world.client.versions().get(&KIND).and_then(|names| names.get(name).cloned());
            let acknowledged = world.server.acknowledged(KIND, name).map(ToOwned::to_owned);
            match world.mesh.get(&index).copied() {
                // What was under way for an earlier subscription may be had although nobody counts on it.
                Some(BAD) => {
                    let has = world.has.get(name).copied().flatten();
                    prop_assert_ne!(has, Some(BAD), "{} was refused", name);
                    prop_assert!(acknowledged.is_none() || acknowledged == had, "{}: more is believed", name);
                }
                content => {
                    prop_assert_eq!(world.has.get(name), Some(&content), "{}", name);
                    prop_assert_eq!(had, acknowledged, "{}: the two disagree", name);
                }
            }
        }
    }
}
