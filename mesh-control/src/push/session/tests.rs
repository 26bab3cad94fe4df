use super::*;
use mesh_api::model::TrustBundleSet;
use proptest::prelude::*;

const KIND: TypeUrl = TypeUrl::Destination;

/// Content that differs by its number.
fn content(number: u8) -> Desired {
    let anchors = BTreeMap::from([("d".to_owned(), vec![vec![number]])]);
    Desired::Present(Encoded::of(KIND, &TrustBundleSet { anchors }))
}

fn subscribe(names: &[&str]) -> Request {
    Request { subscribe: names.iter().map(|name| (*name).to_owned()).collect(), ..Request::default() }
}

fn answer(response: &DeltaDiscoveryResponse, error: Option<&str>) -> Request {
    Request { nonce: response.nonce.clone(), error: error.map(ToOwned::to_owned), ..Request::default() }
}

fn session_with(names: &[&str]) -> Session {
    let mut session = Session::new();
    session.request(KIND, subscribe(names)).expect("within bounds");
    session
}

fn names_of(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

#[test]
fn changes_that_come_before_the_answer_are_gathered_and_only_the_latest_is_sent() {
    let mut session = session_with(&["a"]);
    session.update(KIND, "a", &content(1));
    let first = session.poll().expect("a response");
    for number in 2..9 {
        session.update(KIND, "a", &content(number));
        assert_eq!(session.poll(), None, "a second response is under way");
    }
    session.request(KIND, answer(&first, None)).expect("within bounds");
    let second = session.poll().expect("a response");
    assert_eq!(second.resources[0].version, content(8).version().expect("a version"));
}

#[test]
fn a_rejected_resource_is_not_offered_again_until_it_is_different() {
    let mut session = session_with(&["a"]);
    session.update(KIND, "a", &content(1));
    let response = session.poll().expect("a response");
    let effects = session.request(KIND, answer(&response, Some("bad"))).expect("within bounds");
    assert_eq!(effects, [Effect::Rejected(KIND, "bad".to_owned())]);
    session.update(KIND, "a", &content(1));
    assert_eq!(session.poll(), None);
    assert_eq!(session.state(KIND).error.as_deref(), Some("bad"));
    session.update(KIND, "a", &content(2));
    let response = session.poll().expect("a response");
    session.request(KIND, answer(&response, None)).expect("within bounds");
    assert_eq!(session.state(KIND).error, None);
}

#[test]
fn one_bad_resource_does_not_hold_up_its_neighbours() {
    let mut session = session_with(&["a", "bad", "c"]);
    for name in ["a", "bad", "c"] {
        session.update(KIND, name, &content(1));
    }
    let mut accepted = BTreeSet::new();
    while let Some(response) = session.poll() {
        let is_bad = names_of(&response).contains(&"bad");
        if !is_bad {
            accepted.extend(names_of(&response).into_iter().map(ToOwned::to_owned));
        }
        session.request(KIND, answer(&response, is_bad.then_some("bad"))).expect("within bounds");
    }
    assert_eq!(accepted, BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    assert_eq!(session.acknowledged(KIND, "bad"), None);
    assert!(session.state(KIND).error.is_some());
}

#[test]
fn an_answer_to_something_else_counts_for_nothing() {
    let mut session = session_with(&["a"]);
    session.update(KIND, "a", &content(1));
    let response = session.poll().expect("a response");
    let stale = Request { nonce: "0".to_owned(), ..Request::default() };
    assert_eq!(session.request(KIND, stale), Ok(Vec::new()));
    assert_eq!(session.acknowledged(KIND, "a"), None);
    session.request(KIND, answer(&response, None)).expect("within bounds");
    assert_eq!(session.acknowledged(KIND, "a"), content(1).version());
}

#[test]
fn a_name_that_is_subscribed_to_again_is_answered_again() {
    let mut session = session_with(&["a"]);
    session.update(KIND, "a", &Desired::Absent);
    let first = session.poll().expect("a response");
    assert_eq!(first.removed_resources, ["a"]);
    // The proxy forgets, and asks anew before its acknowledgement is taken in.
    session.request(KIND, subscribe(&["a"])).expect("within bounds");
    session.update(KIND, "a", &Desired::Absent);
    session.request(KIND, answer(&first, None)).expect("within bounds");
    assert_eq!(session.poll().expect("a response").removed_resources, ["a"]);
}

#[test]
fn what_is_stated_as_had_is_not_sent_and_what_is_gone_is_taken_back() {
    let mut session = Session::new();
    let version = content(1).version().expect("a version").to_owned();
    let had = ["a", "b"].map(|name| (name.to_owned(), version.clone()));
    let request = Request { initial_versions: had.into(), ..subscribe(&["a", "b"]) };
    session.request(KIND, request).expect("within bounds");
    session.update(KIND, "a", &content(1));
    session.update(KIND, "b", &Desired::Absent);
    let response = session.poll().expect("a response");
    assert_eq!(
        (names_of(&response), response.removed_resources.as_slice()),
        (vec![], ["b".to_owned()].as_slice())
    );
}

#[test]
fn types_are_sent_in_order_and_do_not_wait_for_each_other() {
    let mut session = Session::new();
    for kind in TypeUrl::ALL.into_iter().rev() {
        session.request(kind, subscribe(&["self"])).expect("within bounds");
        session.update(kind, "self", &content(1));
    }
    let sent: Vec<_> = std::iter::from_fn(|| session.poll()).map(|response| response.type_url).collect();
    assert_eq!(sent, TypeUrl::ALL.map(|kind| kind.as_str().to_owned()));
}

#[test]
fn subscriptions_are_bounded() {
    let mut session = Session::new();
    let names: Vec<String> = (0..SUBSCRIPTIONS_MAX).map(|number| number.to_string()).collect();
    let request = Request { subscribe: names, ..Request::default() };
    session.request(KIND, request).expect("within bounds");
    session.request(KIND, subscribe(&["0"])).expect("a known name costs nothing");
    assert_eq!(session.request(KIND, subscribe(&["more"])), Err(SessionError::TooManySubscriptions));
}

#[test]
fn large_content_is_sent_in_several_responses() {
    let mut session = session_with(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        let bytes = vec![vec![7; RESPONSE_BYTES / 6]];
        let anchors = BTreeMap::from([(name.to_owned(), bytes)]);
        session.update(KIND, name, &Desired::Present(Encoded::of(KIND, &TrustBundleSet { anchors })));
    }
    let mut responses = 0;
    while let Some(response) = session.poll() {
        responses += 1;
        session.request(KIND, answer(&response, None)).expect("within bounds");
    }
    assert!(responses >= 2, "everything went into {responses} response");
}

/// A proxy that takes what it is sent, refuses what its judgement refuses, and loses its stream.
#[derive(Debug, Default)]
struct Client {
    wanted: BTreeSet<String>,
    /// Version by name; `None` is a definite absence.
    has: BTreeMap<String, Option<String>>,
}

impl Client {
    fn take(
        &mut self,
        response: &DeltaDiscoveryResponse,
        refused: &BTreeSet<String>,
    ) -> Option<&'static str> {
        if response.resources.iter().any(|resource| refused.contains(&resource.version)) {
            return Some("refused");
        }
        for resource in &response.resources {
            if self.wanted.contains(&resource.name) {
                self.has.insert(resource.name.clone(), Some(resource.version.clone()));
            }
        }
        for name in &response.removed_resources {
            if self.wanted.contains(name) {
                self.has.insert(name.clone(), None);
            }
        }
        None
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The mesh changes: a name has this content from now on, or none.
    Change(u8, Option<u8>),
    Subscribe(u8),
    Unsubscribe(u8),
    /// The server says what is due.
    Send,
    /// The proxy receives what is on the way, and answers.
    Receive,
    /// The server receives an answer.
    Hear,
    /// The stream is lost, with everything on it, and opened anew.
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..4_u8, proptest::option::of(0..6_u8)).prop_map(|(name, to)| Step::Change(name, to)),
        2 => (0..4_u8).prop_map(Step::Subscribe),
        1 => (0..4_u8).prop_map(Step::Unsubscribe),
        4 => Just(Step::Send),
        4 => Just(Step::Receive),
        4 => Just(Step::Hear),
        1 => Just(Step::Reconnect),
    ];
    proptest::collection::vec(step, 0..80)
}

/// Server, client, and the two directions of the stream between them.
#[derive(Debug, Default)]
struct World {
    mesh: BTreeMap<String, Desired>,
    session: Session,
    down: std::collections::VecDeque<DeltaDiscoveryResponse>,
    up: std::collections::VecDeque<Request>,
    client: Client,
    refused: BTreeSet<String>,
}

impl World {
    fn run(&mut self, step: &Step) {
        let name = |number: u8| format!("n{number}");
        match *step {
            Step::Change(number, to) => {
                let desired = to.map_or(Desired::Absent, content);
                self.session.update(KIND, &name(number), &desired);
                self.mesh.insert(name(number), desired);
            }
            Step::Subscribe(number) => {
                self.client.wanted.insert(name(number));
                self.client.has.remove(&name(number));
                self.up.push_back(subscribe(&[&name(number)]));
            }
            Step::Unsubscribe(number) => {
                self.client.wanted.remove(&name(number));
                self.client.has.remove(&name(number));
                self.up.push_back(Request { unsubscribe: vec![name(number)], ..Request::default() });
            }
            Step::Send => self.down.extend(self.session.poll()),
            Step::Receive => {
                if let Some(response) = self.down.pop_front() {
                    let error = self.client.take(&response, &self.refused);
                    self.up.push_back(answer(&response, error));
                }
            }
            Step::Hear => {
                if let Some(request) = self.up.pop_front() {
                    self.hear(request);
                }
            }
            Step::Reconnect => {
                self.session = Session::new();
                self.down.clear();
                self.up.clear();
                let versions = |(name, version): (&String, &Option<String>)| {
                    version.clone().map(|version| (name.clone(), version))
                };
                let request = Request {
                    subscribe: self.client.wanted.iter().cloned().collect(),
                    initial_versions: self.client.has.iter().filter_map(versions).collect(),
                    ..Request::default()
                };
                self.up.push_back(request);
            }
        }
    }

    fn hear(&mut self, request: Request) {
        for effect in self.session.request(KIND, request).expect("within bounds") {
            if let Effect::Subscribed(_, name) = effect {
                let desired = self.mesh.get(&name).cloned().unwrap_or(Desired::Absent);
                self.session.update(KIND, &name, &desired);
            }
        }
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.run(&Step::Send);
            if self.down.is_empty() && self.up.is_empty() {
                return;
            }
            self.run(&Step::Receive);
            self.run(&Step::Hear);
        }
        panic!("the two talk for ever");
    }

    fn check(&self) {
        for name in &self.client.wanted {
            let desired = self.mesh.get(name).and_then(Desired::version).map(ToOwned::to_owned);
            let is_refused = desired.as_ref().is_some_and(|version| self.refused.contains(version));
            if is_refused {
                let had = self.client.has.get(name).cloned().flatten();
                assert!(had.is_none_or(|version| !self.refused.contains(&version)), "took what it refuses");
            } else {
                assert_eq!(self.client.has.get(name), Some(&desired), "{name} differs");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_interleaving_of_push_answer_loss_and_reconnect_ends_in_the_same_versions(
        steps in steps(),
        refused in proptest::collection::btree_set(0..6_u8, 0..3),
    ) {
        let refused = refused.into_iter().filter_map(|number| content(number).version().map(ToOwned::to_owned));
        let mut world = World { refused: refused.collect(), ..World::default() };
        for step in steps {
            world.run(&step);
        }
        world.settle();
        world.check();
        prop_assert_eq!(world.session.poll(), None);
    }

    #[test]
    fn no_request_makes_the_session_fail(
        requests in proptest::collection::vec(
            (proptest::collection::vec("[a-c]", 0..3), proptest::collection::vec("[a-c]", 0..3), "[0-3]?", any::<bool>()),
            0..30,
        )
    ) {
        let mut session = Session::new();
        for (subscribe, unsubscribe, nonce, is_error) in requests {
            let error = is_error.then(|| "no".to_owned());
            let request = Request { subscribe, unsubscribe, nonce, error, initial_versions: BTreeMap::new() };
            for effect in session.request(KIND, request).expect("within bounds") {
                if let Effect::Subscribed(kind, name) = effect {
                    session.update(kind, &name, &content(1));
                }
            }
            session.poll();
        }
    }
}
