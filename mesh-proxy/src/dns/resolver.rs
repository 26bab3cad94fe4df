//! Leads each question to its answer: the mesh's, or that of the world.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use hickory_proto::op::ResponseCode;
use mesh_api::model::DestinationKey;
use mesh_api::name::Host;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::answer::{self, Verdict};
use super::measure::{Counts, Outcome};
use super::names::{self, Reading, Shape};
use super::question::{Parsed, Question, Transport, parse};
use super::upstream::{RelayError, Upstream};
use crate::state::{Resolution, State};

/// Wait for the control plane about a name that means the mesh: within the 5 s after which clients ask
/// again (resolv.conf(5)), so that they learn of the failure.
const OWN_WAIT: Duration = Duration::from_secs(4);
/// The same about a name of the world, which the mesh most likely does not have: a round trip to the control
/// plane is some milliseconds, and the upstream's answer is still to be waited for.
const OPEN_WAIT: Duration = Duration::from_secs(1);
/// For so long after a wait in vain, names of the world do not wait again: with the control plane gone the
/// world's names should not become slow.
const OPEN_PAUSE: Duration = Duration::from_secs(10);

/// Questions that wait for an upstream at once. Fewer than are answered at once ([`super::listener`]), so that
/// an upstream that is dead, and a program that asks and asks, leave room for names of the mesh.
const RELAYS_MAX: usize = 384;

/// Answers questions. Shared by all sockets.
#[derive(Debug)]
pub(super) struct Resolver {
    state: State,
    upstream: Upstream,
    counts: Counts,
    /// Which address an answer begins with.
    turn: AtomicUsize,
    started: Instant,
    /// Milliseconds from the start until which names of the world do not wait.
    paused_until: AtomicU64,
    /// Room for questions that wait for an upstream.
    relays: Semaphore,
}

/// What the mesh says about a name.
enum Found {
    Here(Verdict),
    Absent,
    Unanswered,
}

impl Resolver {
    pub(super) fn new(state: State, upstream: Upstream) -> Self {
        Self {
            state,
            upstream,
            counts: Counts::new(),
            turn: AtomicUsize::new(0),
            started: Instant::now(),
            paused_until: AtomicU64::new(0),
            relays: Semaphore::new(RELAYS_MAX),
        }
    }

    /// The answer to a message; `None` when it deserves none. Dropping the future loses the question, and
    /// nothing else.
    pub(super) async fn answer(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let (outcome, answer) = match parse(bytes, transport) {
            Parsed::Drop => (Outcome::Refused, None),
            Parsed::Refuse(answer) => (Outcome::Refused, Some(answer)),
            Parsed::Question(question) => {
                let (outcome, answer) = self.resolve(&question, bytes, transport).await;
                (outcome, Some(answer))
            }
        };
        self.counts.count(outcome);
        answer
    }

    /// The answer to a message for which there is no room.
    pub(super) fn overloaded(&self, bytes: &[u8], transport: Transport) -> Option<Vec<u8>> {
        self.counts.count(Outcome::Overloaded);
        match parse(bytes, transport) {
            Parsed::Drop => None,
            Parsed::Refuse(answer) => Some(answer),
            Parsed::Question(question) => Some(answer::failure(&question, ResponseCode::ServFail)),
        }
    }

    async fn resolve(&self, question: &Question, bytes: &[u8], transport: Transport) -> (Outcome, Vec<u8>) {
        // Before the first configuration nobody can say which names are the mesh's.
        let Some(workload) = self.state.load().workload.clone() else {
            return (Outcome::Unanswered, answer::failure(question, ResponseCode::ServFail));
        };
        if self.upstream.knows_cluster() && !answer::keeps(question.record_type()) {
            return self.relay(question, bytes, transport).await;
        }
        let config = &workload.config;
        let reading = if question.is_internet() {
            names::read(&question.name, config.namespace.as_str(), &config.mesh.cluster_domain)
        } else {
            Reading { shape: Shape::Open, hosts: Vec::new() }
        };
        match (self.find(&reading, question).await, reading.shape) {
            (Found::Here(Verdict::Addresses(addresses)), _) => {
                let outcome = if addresses.is_empty() { Outcome::NoData } else { Outcome::Answered };
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                (outcome, answer::success(question, addresses, turn))
            }
            (Found::Here(Verdict::Upstream), Shape::Own) if !self.upstream.knows_cluster() => {
                (Outcome::NoData, answer::success(question, Vec::new(), 0))
            }
            (Found::Absent, Shape::Own | Shape::Short) if self.upstream.is_empty() => {
                (Outcome::NoName, answer::failure(question, ResponseCode::NXDomain))
            }
            (Found::Unanswered, Shape::Own | Shape::Short) if !self.upstream.knows_cluster() => {
                (Outcome::Unanswered, answer::failure(question, ResponseCode::ServFail))
            }
            (Found::Here(Verdict::Upstream) | Found::Absent | Found::Unanswered, _) => {
                self.relay(question, bytes, transport).await
            }
        }
    }

    async fn relay(&self, question: &Question, bytes: &[u8], transport: Transport) -> (Outcome, Vec<u8>) {
        let Ok(_relaying) = self.relays.try_acquire() else {
            return (Outcome::Overloaded, answer::failure(question, ResponseCode::ServFail));
        };
        match self.upstream.relay(question, bytes, transport).await {
            Ok(answer) => (Outcome::Relayed, answer),
            Err(error) => {
                if !matches!(error, RelayError::NoUpstream) {
                    tracing::debug!(error = &error as &dyn std::error::Error, "dns question failed");
                }
                (Outcome::UpstreamFailed, answer::failure(question, ResponseCode::ServFail))
            }
        }
    }

    /// Asks for all readings at once; the first in order that the mesh has is meant.
    async fn find(&self, reading: &Reading, question: &Question) -> Found {
        if reading.hosts.is_empty() {
            return Found::Absent;
        }
        let wait = match reading.shape {
            Shape::Own | Shape::Short if !self.upstream.knows_cluster() => OWN_WAIT,
            Shape::Own | Shape::Short | Shape::Open if self.is_paused() => Duration::ZERO,
            Shape::Own | Shape::Short | Shape::Open => OPEN_WAIT,
        };
        let answers = join_all(reading.hosts.iter().map(|host| self.ask(host, wait))).await;
        let mut found = Found::Absent;
        for resolution in answers {
            match resolution {
                Resolution::Present(destination) => {
                    destination.touch(self.started.elapsed().as_secs());
                    return Found::Here(answer::decide(&destination.destination, question.record_type()));
                }
                Resolution::Absent => {}
                Resolution::Unanswered => found = Found::Unanswered,
            }
        }
        if matches!(found, Found::Unanswered) && wait == OPEN_WAIT {
            self.pause();
        }
        found
    }

    /// With a wait of zero, what is known already; the question is asked all the same.
    async fn ask(&self, host: &Host, wait: Duration) -> Resolution {
        let key = DestinationKey::Host(host.clone());
        timeout(wait, self.state.resolve(&key)).await.unwrap_or(Resolution::Unanswered)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_paused(&self) -> bool {
        self.elapsed_ms() < self.paused_until.load(Ordering::Relaxed)
    }

    fn pause(&self) {
        let pause = u64::try_from(OPEN_PAUSE.as_millis()).unwrap_or(u64::MAX);
        self.paused_until.store(self.elapsed_ms().saturating_add(pause), Ordering::Relaxed);
    }
}
