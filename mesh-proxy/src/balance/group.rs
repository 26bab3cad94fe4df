//! The endpoints of one destination, port and subset, ready to be chosen from.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mesh_api::model::destination::Balance;
use mesh_api::model::service::Resolution;
use mesh_api::model::traffic::{ClientTlsMode, Subset, TrafficPolicy};
use mesh_api::model::{Destination, Endpoint, Kind, PeerTls};
use mesh_api::name::SpiffeId;

use super::Request;
use super::load::{Load, Loads};
use crate::state::DestinationState;
use crate::telemetry::record::{DestinationLabels, PeerLabels};
use crate::upstream::Target;

/// The second of two draws is taken only when it is clearly better, so that small differences between alike
/// endpoints do not send everything to one of them.
const CLEARLY_BETTER: f64 = 0.8;
/// Draws for a second endpoint that differs from the first.
const SECOND_DRAWS_MAX: usize = 4;

/// An endpoint that may be chosen.
#[derive(Debug)]
pub(super) struct Candidate {
    endpoint: usize,
    /// `None` is the address that the client dialled.
    address: Option<SocketAddr>,
    tls: PeerTls,
    sni: Arc<str>,
    labels: Arc<DestinationLabels>,
    load: Rc<Load>,
    weight: u64,
}

impl Candidate {
    pub(super) fn target(&self, request: &Request<'_>, connect_timeout: Option<Duration>) -> Target {
        Target {
            address: self.address.unwrap_or(request.dialled),
            tls: self.tls.clone(),
            alpn: request.alpn,
            sni: Arc::clone(&self.sni),
            connect_timeout: connect_timeout.unwrap_or(request.connect_timeout),
        }
    }

    pub(super) fn labels(&self) -> &Arc<DestinationLabels> {
        &self.labels
    }

    pub(super) fn load(&self) -> &Rc<Load> {
        &self.load
    }

    pub(super) fn endpoint(&self) -> usize {
        self.endpoint
    }
}

/// What a choice needs.
#[derive(Debug)]
pub(super) struct Group {
    owner: Weak<DestinationState>,
    subset: Option<String>,
    zone: String,
    balance: Balance,
    connect_timeout: Option<Duration>,
    candidates: Vec<Candidate>,
    total_weight: u64,
    /// Where round robin stands, in units of weight.
    cursor: Cell<u64>,
    /// Endpoints that are meant for other zones, for what those of this one could not serve.
    beyond: Option<Box<Self>>,
}

impl Group {
    /// Works out the group of a request; `None` when the destination has no such port or subset.
    pub(super) fn of(request: &Request<'_>, loads: &Loads) -> Option<Self> {
        let destination = &request.destination.destination;
        let subset = match request.subset {
            None => None,
            Some(name) => Some(destination.subsets.iter().find(|subset| subset.name == name)?),
        };
        let policies = policies(destination, request.port, subset);
        let balance = policies.iter().find_map(|policy| policy.balance).unwrap_or_default();
        let timeout = policies.iter().find_map(|policy| policy.connect_timeout_ms);
        let is_plaintext = policies.iter().find_map(|policy| policy.tls) == Some(ClientTlsMode::Disable);
        let builder = Builder { destination, request, is_plaintext, loads };
        let (balance, (candidates, beyond)) = match destination.port_index(request.port) {
            Some(port) if balance == Balance::Passthrough || destination.resolution == Resolution::None => {
                (Balance::Passthrough, (builder.passthrough(Some(port)), Vec::new()))
            }
            Some(port) => (balance, builder.endpoints(port, subset)),
            None if destination.direct.is_some() => {
                (Balance::Passthrough, (builder.passthrough(None), Vec::new()))
            }
            None => return None,
        };
        let of = |candidates: Vec<Candidate>, beyond: Option<Box<Self>>| Self {
            owner: Arc::downgrade(request.destination),
            subset: request.subset.map(str::to_owned),
            zone: request.zone.to_owned(),
            balance,
            connect_timeout: timeout.map(Duration::from_millis),
            total_weight: candidates.iter().map(|candidate| candidate.weight).sum(),
            candidates,
            cursor: Cell::new(0),
            beyond,
        };
        let beyond = (!beyond.is_empty()).then(|| Box::new(of(beyond, None)));
        Some(of(candidates, beyond))
    }

    /// Whether it was worked out for the subset and the zone of a request.
    pub(super) fn serves(&self, request: &Request<'_>) -> bool {
        self.subset.as_deref() == request.subset && self.zone == request.zone
    }

    pub(super) fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    pub(super) fn is_passthrough(&self) -> bool {
        self.balance == Balance::Passthrough
    }

    /// Whether the state that the group was made from is still in use.
    pub(super) fn is_current(&self) -> bool {
        self.owner.strong_count() > 0
    }

    /// Chooses a candidate whose endpoint is not among `tried`.
    pub(super) fn choose(
        &self,
        tried: &[usize],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<&Candidate> {
        match (self.choose_here(tried, now, rng), &self.beyond) {
            (Some(index), _) => Some(&self.candidates[index]),
            (None, Some(beyond)) => beyond.choose(tried, now, rng),
            (None, None) => None,
        }
    }

    fn choose_here(&self, tried: &[usize], now: Instant, rng: &mut fastrand::Rng) -> Option<usize> {
        let is_open = |index: usize| !tried.contains(&self.candidates[index].endpoint);
        if self.candidates.len() == 1 {
            return is_open(0).then_some(0);
        }
        if self.total_weight == 0 {
            return None;
        }
        let drawn = match self.balance {
            Balance::RoundRobin => {
                let cursor = self.cursor.get();
                self.cursor.set((cursor + 1) % self.total_weight);
                self.at_interleaved(cursor)
            }
            Balance::Random | Balance::Passthrough => self.at_weight(rng.u64(..self.total_weight)),
            Balance::LeastRequest => self.better_of_two(now, rng),
        };
        // Endpoints that were tried are few: go on to the next that was not.
        let count = self.candidates.len();
        (0..count).map(|step| (drawn + step) % count).find(|&index| is_open(index))
    }

    /// The candidate that covers a point of the added-up weights.
    fn at_weight(&self, mut point: u64) -> usize {
        for (index, candidate) in self.candidates.iter().enumerate() {
            if point < candidate.weight {
                return index;
            }
            point -= candidate.weight;
        }
        self.candidates.len() - 1
    }

    /// As [`Self::at_weight`], with the points of each candidate spread over the round: a stride that shares
    /// no divisor with the total visits every point once.
    fn at_interleaved(&self, cursor: u64) -> usize {
        let total = self.total_weight;
        if self.candidates.iter().all(|candidate| candidate.weight == 1) {
            return self.at_weight(cursor);
        }
        let mut stride = (total * 5 / 8).max(1);
        while greatest_common_divisor(stride, total) != 1 {
            stride += 1;
        }
        let point = u128::from(cursor) * u128::from(stride) % u128::from(total);
        self.at_weight(u64::try_from(point).unwrap_or_default())
    }

    fn better_of_two(&self, now: Instant, rng: &mut fastrand::Rng) -> usize {
        let first = self.at_weight(rng.u64(..self.total_weight));
        for _ in 0..SECOND_DRAWS_MAX {
            let second = self.at_weight(rng.u64(..self.total_weight));
            if second != first {
                let cost = |index: usize| self.candidates[index].load.cost(now);
                return if cost(second) < cost(first) * CLEARLY_BETTER { second } else { first };
            }
        }
        first
    }
}

fn greatest_common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

/// Policies from the narrowest to the widest: a subset's, a port's, the host's (SEMANTICS 11).
fn policies<'a>(
    destination: &'a Destination,
    port: u16,
    subset: Option<&'a Subset>,
) -> Vec<&'a TrafficPolicy> {
    let of_port = destination.port_level.iter().find(|(of, _)| *of == port).map(|(_, policy)| policy);
    let of_subset = subset.map(|subset| &subset.policy);
    of_subset.into_iter().chain(of_port).chain([&destination.policy]).collect()
}

struct Builder<'a> {
    destination: &'a Destination,
    request: &'a Request<'a>,
    is_plaintext: bool,
    loads: &'a Loads,
}

impl Builder<'_> {
    /// Candidates, and those to go on to when none of them can serve.
    fn endpoints(&self, port: usize, subset: Option<&Subset>) -> (Vec<Candidate>, Vec<Candidate>) {
        let endpoints = self.destination.endpoints.iter().enumerate();
        let serving = endpoints.filter(|(_, endpoint)| {
            endpoint.weight > 0
                && subset.is_none_or(|subset| {
                    subset.labels.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value))
                })
        });
        let (draining, lasting): (Vec<_>, Vec<_>) = serving.partition(|(_, endpoint)| endpoint.draining);
        let usable = if lasting.is_empty() { draining } else { lasting };
        let is_meant = |endpoint: &Endpoint| endpoint.zones.iter().any(|zone| zone == self.request.zone);
        let is_hinted = usable.iter().all(|(_, endpoint)| !endpoint.zones.is_empty());
        let (near, far): (Vec<_>, Vec<_>) =
            usable.into_iter().partition(|(_, one)| !is_hinted || is_meant(one));
        let [near, far] = [near, far].map(|endpoints| self.candidates(endpoints, port));
        if near.is_empty() { (far, near) } else { (near, far) }
    }

    fn candidates(&self, endpoints: Vec<(usize, &Endpoint)>, port: usize) -> Vec<Candidate> {
        let sni: Arc<str> = self.server_name().into();
        endpoints
            .into_iter()
            .filter_map(|(index, endpoint)| {
                let address = SocketAddr::new(endpoint.address, *endpoint.target_ports.get(port)?);
                let tls = self.tls(endpoint.tls.get(port)?);
                Some(Candidate {
                    endpoint: index,
                    address: Some(address),
                    labels: Arc::new(self.labels(Some(endpoint), &tls)),
                    tls,
                    sni: Arc::clone(&sni),
                    load: self.loads.of(address, Instant::now()),
                    weight: u64::from(endpoint.weight),
                })
            })
            .collect()
    }

    /// The one candidate of a destination that is reached at the address that was dialled.
    fn passthrough(&self, port: Option<usize>) -> Vec<Candidate> {
        let destination = self.destination;
        let dialled = self.request.dialled;
        let ip = dialled.ip();
        let endpoint = destination.endpoints.iter().find(|endpoint| endpoint.address == ip);
        let endpoint = endpoint.or(destination.endpoints.first().filter(|_| destination.direct.is_some()));
        let of_endpoint = endpoint.zip(port).and_then(|(endpoint, port)| endpoint.tls.get(port));
        let tls = of_endpoint.or(destination.direct.as_ref()).map_or(PeerTls::Plaintext, |tls| self.tls(tls));
        vec![Candidate {
            endpoint: 0,
            address: None,
            labels: Arc::new(self.labels(endpoint, &tls)),
            tls,
            sni: self.server_name().into(),
            load: self.loads.of(dialled, Instant::now()),
            weight: 1,
        }]
    }

    /// A copy of this worker's own: the state's is shared, and counting its users would make cores wait for
    /// each other.
    fn tls(&self, tls: &PeerTls) -> PeerTls {
        match tls {
            PeerTls::Mutual { identity } if !self.is_plaintext => {
                let own = SpiffeId::parse(identity.as_str()).unwrap_or_else(|_| identity.clone());
                PeerTls::Mutual { identity: own }
            }
            PeerTls::Mutual { .. } | PeerTls::Plaintext => PeerTls::Plaintext,
        }
    }

    /// Istio's server name for a destination.
    fn server_name(&self) -> String {
        let Request { port, subset, .. } = self.request;
        format!("outbound_.{port}_.{}_.{}", subset.unwrap_or_default(), self.destination.host)
    }

    fn labels(&self, endpoint: Option<&Endpoint>, tls: &PeerTls) -> DestinationLabels {
        let Destination { host, object, .. } = self.destination;
        let Request { port, subset, .. } = self.request;
        let principal = match tls {
            PeerTls::Mutual { identity } => identity.to_string(),
            PeerTls::Plaintext => String::new(),
        };
        let name = if object.kind == Kind::Service { object.name.to_string() } else { host.clone() };
        DestinationLabels {
            workload: endpoint.map(|endpoint| workload_labels(endpoint, principal)).unwrap_or_default(),
            service: host.clone(),
            service_name: name,
            service_namespace: object.namespace.to_string(),
            cluster: format!("outbound|{port}|{}|{host}", subset.unwrap_or_default()),
        }
    }
}

fn workload_labels(endpoint: &Endpoint, principal: String) -> PeerLabels {
    let label = |name: &str| endpoint.labels.get(name).cloned();
    let app = label("app").or_else(|| label("app.kubernetes.io/name"));
    let version = label("version").or_else(|| label("app.kubernetes.io/version"));
    PeerLabels {
        workload: endpoint.workload.clone(),
        namespace: endpoint.namespace.to_string(),
        canonical_service: label("service.istio.io/canonical-name")
            .or_else(|| app.clone())
            .unwrap_or_else(|| endpoint.workload.clone()),
        canonical_revision: label("service.istio.io/canonical-revision")
            .or_else(|| version.clone())
            .unwrap_or_else(|| "latest".to_owned()),
        app: app.unwrap_or_else(|| "unknown".to_owned()),
        version: version.unwrap_or_else(|| "unknown".to_owned()),
        principal,
    }
}
