use super::*;
use crate::fixture::{host, object, plane, policy, routes, service, workload};
use crate::push::session::{Request, Session};
use crate::registry::{Change, WorkloadKey};
use mesh_api::model::Kind;
use mesh_api::wire::SELF;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// A connected proxy of a plane, by hand.
struct Proxy {
    plane: Arc<Plane>,
    workload: WorkloadKey,
    subscriber: SubscriberId,
    session: Session,
}

impl Proxy {
    fn connect(plane: &Arc<Plane>, node: &str) -> Self {
        let workload = WorkloadKey::from_node_id(node).expect("valid");
        let (subscriber, _) = plane.join();
        let record = ProxyRecord {
            subscriber,
            workload: workload.clone(),
            identity: String::new(),
            version: String::new(),
            is_connected: true,
            waiting: None,
            connected_at: SystemTime::UNIX_EPOCH,
            clock_skew_ms: None,
            address: ([127, 0, 0, 1], 1).into(),
            types: BTreeMap::new(),
            policies_version: None,
            destinations: BTreeMap::new(),
        };
        plane.proxies().insert(node.to_owned(), record);
        Self { plane: Arc::clone(plane), workload, subscriber, session: Session::new() }
    }

    /// Asks for a resource and acknowledges what it is sent, or not.
    fn subscribe(&mut self, kind: TypeUrl, name: &str) {
        let request = Request { subscribe: vec![name.to_owned()], ..Request::default() };
        self.session.request(kind, request).expect("taken");
        let key = ResourceKey::resolve(kind, name, &self.workload).expect("a resource");
        let desired = self.plane.snapshot().subscribe(self.subscriber, &key);
        self.session.update(kind, name, &desired);
    }

    fn refresh(&mut self, kind: TypeUrl, name: &str) {
        let key = ResourceKey::resolve(kind, name, &self.workload).expect("a resource");
        let desired = self.plane.snapshot().desired(&key).expect("kept");
        self.session.update(kind, name, &desired);
    }

    fn acknowledge(&mut self) {
        while let Some(response) = self.session.poll() {
            let kind = TypeUrl::parse(&response.type_url).expect("known");
            let answer = Request { nonce: response.nonce, ..Request::default() };
            self.session.request(kind, answer).expect("taken");
        }
        let mut proxies = self.plane.proxies();
        let record = proxies.get_mut(&self.workload.to_string()).expect("connected");
        record.observe(&mut self.session, None, Instant::now());
    }
}

fn take(plane: &Plane, entry: impl Into<Entry>) -> Entry {
    let entry = entry.into();
    plane.snapshot().apply(None, [Change::Set(entry.clone())]);
    entry
}

fn mesh() -> Arc<Plane> {
    let plane = plane();
    take(&plane, workload("shop", "web-0", "web", "10.0.0.1"));
    take(&plane, workload("shop", "web-1", "web", "10.0.0.2"));
    take(&plane, workload("shop", "db-0", "db", "10.0.0.3"));
    plane
}

#[test]
fn a_policy_is_enforced_where_a_version_that_holds_it_was_acknowledged() {
    let plane = mesh();
    let mut proxies = ["web-0.shop", "web-1.shop", "db-0.shop"].map(|node| Proxy::connect(&plane, node));
    for proxy in &mut proxies {
        proxy.subscribe(TypeUrl::WorkloadPolicies, SELF);
        proxy.acknowledge();
    }
    let entry = take(&plane, policy("shop", "access", Some("web")));
    let behind = spread(&plane, &entry);
    assert_eq!((behind.applies, behind.enforced), (2, 0));
    assert_eq!(behind.laggards, ["web-0.shop", "web-1.shop"]);
    proxies[0].refresh(TypeUrl::WorkloadPolicies, SELF);
    proxies[0].acknowledge();
    let half = spread(&plane, &entry);
    assert_eq!((half.applies, half.enforced, half.laggards), (2, 1, vec!["web-1.shop".to_owned()]));
    proxies[1].refresh(TypeUrl::WorkloadPolicies, SELF);
    proxies[1].acknowledge();
    assert_eq!(spread(&plane, &entry), Spread { applies: 2, enforced: 2, laggards: Vec::new() });
}

#[test]
fn a_later_policy_does_not_take_enforcement_from_an_earlier_one() {
    let plane = mesh();
    let mut proxy = Proxy::connect(&plane, "web-0.shop");
    proxy.subscribe(TypeUrl::WorkloadPolicies, SELF);
    let first = take(&plane, policy("shop", "first", Some("web")));
    proxy.refresh(TypeUrl::WorkloadPolicies, SELF);
    proxy.acknowledge();
    let second = take(&plane, policy("shop", "second", Some("web")));
    assert_eq!((spread(&plane, &first).enforced, spread(&plane, &second).enforced), (1, 0));
    let edited = take(&plane, policy("shop", "first", None));
    assert_eq!(spread(&plane, &edited).enforced, 0, "an edited policy is another one");
}

#[test]
fn proxies_that_are_away_do_not_count() {
    let plane = mesh();
    drop(Proxy::connect(&plane, "web-0.shop"));
    plane.proxies().get_mut("web-0.shop").expect("there").is_connected = false;
    let entry = take(&plane, policy("shop", "access", Some("web")));
    assert_eq!(spread(&plane, &entry), Spread::default());
}

#[test]
fn routes_are_enforced_by_those_who_asked_for_the_host() {
    let plane = mesh();
    take(&plane, service("shop", "db", "db"));
    let mut caller = Proxy::connect(&plane, "web-0.shop");
    let _other = Proxy::connect(&plane, "web-1.shop");
    let name = "host/db.shop.svc.cluster.local";
    caller.subscribe(TypeUrl::Destination, name);
    caller.acknowledge();
    let entry = take(&plane, routes("shop", "r", "db.shop.svc.cluster.local", "db.shop.svc.cluster.local"));
    let behind = spread(&plane, &entry);
    assert_eq!((behind.applies, behind.enforced, behind.laggards), (1, 0, vec!["web-0.shop".to_owned()]));
    caller.refresh(TypeUrl::Destination, name);
    caller.acknowledge();
    assert_eq!((spread(&plane, &entry).applies, spread(&plane, &entry).enforced), (1, 1));
}

#[test]
fn at_most_a_few_laggards_are_named() {
    let plane = plane();
    for number in 0..9 {
        let name = format!("web-{number}");
        take(&plane, workload("shop", &name, "web", &format!("10.0.0.{}", number + 1)));
        drop(Proxy::connect(&plane, &format!("{name}.shop")));
    }
    let entry = take(&plane, policy("shop", "access", Some("web")));
    let spread = spread(&plane, &entry);
    assert_eq!((spread.applies, spread.laggards.len()), (9, LAGGARDS_MAX));
}

#[test]
fn a_destination_that_is_unsubscribed_is_forgotten() {
    let plane = mesh();
    take(&plane, service("shop", "db", "db"));
    let mut proxy = Proxy::connect(&plane, "web-0.shop");
    let name = format!("host/{}", host("db.shop.svc.cluster.local"));
    proxy.subscribe(TypeUrl::Destination, &name);
    proxy.acknowledge();
    assert_eq!(plane.proxies()["web-0.shop"].destinations.len(), 1);
    let request = Request { unsubscribe: vec![name], ..Request::default() };
    proxy.session.request(TypeUrl::Destination, request).expect("taken");
    proxy.acknowledge();
    assert!(plane.proxies()["web-0.shop"].destinations.is_empty());
    assert_eq!(plane.snapshot().taken_at(&object(Kind::Service, "shop", "gone")), None);
}
