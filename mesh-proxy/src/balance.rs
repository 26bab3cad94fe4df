//! Which endpoint serves the next request.
//!
//! A worker balances by what it sees itself: nothing is shared, and over many requests the workers' choices
//! add up. What a choice needs (usable endpoints, their targets and labels) is worked out once per state of a
//! destination, port and subset and kept in a [`group`]; what is learnt about an endpoint ([`load`]) outlives
//! that, so that a new endpoint elsewhere does not make it forgotten.
//!
//! Endpoints that drain, have no weight, or were tried for this request already are left out; those that drain
//! serve all the same when there is no other, which is better than nobody. When every endpoint says for which
//! zones it is meant (topology hints of Kubernetes) and one is meant for this one, the choice is among those,
//! and the others are for what these could not serve.

mod group;
mod load;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::state::DestinationState;
use crate::telemetry::active::ActiveRequests;
use crate::telemetry::record::DestinationLabels;
use crate::upstream::{Target, UpstreamAlpn};

use group::Group;
use load::Loads;

pub use load::InFlight;

/// Groups kept by a worker. Groups of states that are gone are dropped whenever one is added.
const GROUPS_MAX: usize = 4096;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The destination.
    pub destination: &'a Arc<DestinationState>,
    /// Service port.
    pub port: u16,
    /// Subset.
    pub subset: Option<&'a str>,
    /// What will be spoken.
    pub alpn: UpstreamAlpn,
    /// The address that the client dialled, for destinations without endpoints of their own.
    pub dialled: SocketAddr,
    /// Endpoints to leave out.
    pub tried: &'a [usize],
    /// Zone of the own workload; empty when it is not known.
    pub zone: &'a str,
    /// Time allowed for a connect when the destination's policy says nothing.
    pub connect_timeout: Duration,
}

/// What was picked.
#[derive(Debug)]
pub struct Picked {
    /// How to connect.
    pub target: Target,
    /// Labels of the called side.
    pub labels: Arc<DestinationLabels>,
    /// Counts as in flight for as long as it lives.
    pub in_flight: InFlight,
    /// Position of the endpoint in the destination.
    pub endpoint: usize,
}

type Groups = HashMap<(u64, u16), Vec<Rc<Group>>>;

/// A worker's choice of endpoints.
#[derive(Debug, Default)]
pub struct Balancer {
    /// By generation and port; few subsets each, which are compared one by one.
    groups: RefCell<Groups>,
    loads: Loads,
}

impl Balancer {
    /// A balancer that counts in `active`.
    #[must_use]
    pub fn new(active: ActiveRequests) -> Self {
        Self { groups: RefCell::default(), loads: Loads::new(active) }
    }

    /// Picks an endpoint; `None` when there is none to send to. Called per attempt.
    pub fn pick(&self, request: &Request<'_>, rng: &mut fastrand::Rng) -> Option<Picked> {
        let group = self.group(request)?;
        let now = Instant::now();
        let candidate = group.choose(request.tried, now, rng)?;
        let load = if group.is_passthrough() {
            self.loads.of(request.dialled, now)
        } else {
            Rc::clone(candidate.load())
        };
        Some(Picked {
            target: candidate.target(request, group.connect_timeout()),
            labels: Arc::clone(candidate.labels()),
            in_flight: InFlight::new(load, now, request.alpn),
            endpoint: candidate.endpoint(),
        })
    }

    fn group(&self, request: &Request<'_>) -> Option<Rc<Group>> {
        let key = (request.destination.generation, request.port);
        if let Some(known) = self.groups.borrow().get(&key)
            && let Some(group) = known.iter().find(|group| group.serves(request))
        {
            return Some(Rc::clone(group));
        }
        let group = Rc::new(Group::of(request, &self.loads)?);
        let mut groups = self.groups.borrow_mut();
        groups.retain(|_, known| {
            known.retain(|group| group.is_current());
            !known.is_empty()
        });
        if groups.len() >= GROUPS_MAX {
            groups.clear();
        }
        groups.entry(key).or_default().push(Rc::clone(&group));
        drop(groups);
        self.loads.prune();
        Some(group)
    }
}

#[cfg(test)]
mod tests;
