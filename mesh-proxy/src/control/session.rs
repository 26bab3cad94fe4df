//! What this proxy has, what it asks for, and therefore what to say next: the client's half of delta ADS.
//!
//! A machine without IO: subscriptions and responses go in, requests come out of [`Session::poll`].
//!
//! - A response is answered as a whole: accepted, and then its versions are what is had, or rejected, and
//!   then nothing of it is. Until it is answered it changes nothing.
//! - What comes for a name that is not subscribed to any more is left out, and the rest is judged.
//! - A stream that opens is told every name with the version had of it, so that only differences come.
//!   Answers and withdrawals meant for an earlier stream are forgotten with it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mesh_api::wire::TypeUrl;
use mesh_api::wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, Status};

/// gRPC's `INVALID_ARGUMENT`, which the protocol wants in a rejection.
const INVALID_ARGUMENT: i32 = 3;
/// Longest reason that is sent, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// What is had of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Has {
    Nothing,
    Version(String),
    Absence,
}

#[derive(Debug)]
struct Name {
    has: Has,
    /// The server of the open stream knows of the subscription.
    is_told: bool,
}

#[derive(Debug, Default)]
struct OfType {
    names: BTreeMap<String, Name>,
    /// Names that the server is to forget.
    withdrawn: BTreeSet<String>,
    /// Names that the server is to be told.
    untold: BTreeSet<String>,
    /// The open stream has had its first request of this type.
    is_open: bool,
}

/// What a response says about one name.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// This is the resource.
    Set(Resource),
    /// There is no such resource.
    Remove(String),
}

impl Change {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Set(resource) => &resource.name,
            Self::Remove(name) => name,
        }
    }
}

/// A response that waits for its answer.
#[derive(Debug)]
#[must_use = "a response is to be accepted or rejected"]
pub struct Delivery {
    /// Type of the resources.
    pub kind: TypeUrl,
    /// What it says about names that are subscribed to.
    pub changes: Vec<Change>,
    nonce: String,
}

/// Why a response cannot even be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the control plane sent resources of type {url:?}, which was not asked for")]
pub struct UnknownType {
    /// The type.
    pub url: String,
}

/// The client's half of the discovery protocol, over any number of streams.
#[derive(Debug, Default)]
pub struct Session {
    types: BTreeMap<TypeUrl, OfType>,
    answers: VecDeque<DeltaDiscoveryRequest>,
}

impl Session {
    /// A session that has nothing and asks for nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new stream is open: its server knows nothing.
    pub fn open(&mut self) {
        self.answers.clear();
        for of_type in self.types.values_mut() {
            of_type.is_open = false;
            of_type.withdrawn.clear();
            of_type.untold = of_type.names.keys().cloned().collect();
            of_type.names.values_mut().for_each(|name| name.is_told = false);
        }
    }

    /// Asks for a name; tells whether that is new.
    pub fn subscribe(&mut self, kind: TypeUrl, name: &str) -> bool {
        let of_type = self.types.entry(kind).or_default();
        if of_type.names.contains_key(name) {
            return false;
        }
        of_type.names.insert(name.to_owned(), Name { has: Has::Nothing, is_told: false });
        of_type.untold.insert(name.to_owned());
        true
    }

    /// Forgets a name.
    pub fn unsubscribe(&mut self, kind: TypeUrl, name: &str) {
        let Some(of_type) = self.types.get_mut(&kind) else { return };
        of_type.untold.remove(name);
        if of_type.names.remove(name).is_some_and(|known| known.is_told) {
            of_type.withdrawn.insert(name.to_owned());
        }
    }

    /// Takes a response in, to be answered with [`Session::accept`] or [`Session::reject`].
    ///
    /// # Errors
    /// When it is of a type that this proxy does not know.
    pub fn receive(&self, response: DeltaDiscoveryResponse) -> Result<Delivery, UnknownType> {
        let kind = TypeUrl::parse(&response.type_url)
            .filter(|kind| self.types.contains_key(kind))
            .ok_or_else(|| UnknownType { url: response.type_url.clone() })?;
        let names = self.types.get(&kind).map(|of_type| &of_type.names);
        let is_wanted = |name: &str| names.is_some_and(|names| names.contains_key(name));
        let set = response.resources.into_iter().map(Change::Set);
        let removed = response.removed_resources.into_iter().map(Change::Remove);
        let changes = set.chain(removed).filter(|change| is_wanted(change.name())).collect();
        Ok(Delivery { kind, changes, nonce: response.nonce })
    }

    /// The response is in force.
    pub fn accept(&mut self, delivery: Delivery) {
        let Delivery { kind, changes, nonce } = delivery;
        let of_type = self.types.entry(kind).or_default();
        for change in changes {
            let Some(known) = of_type.names.get_mut(change.name()) else { continue };
            known.has = match change {
                Change::Set(resource) => Has::Version(resource.version),
                Change::Remove(_) => Has::Absence,
            };
        }
        self.answers.push_back(answer(kind, nonce, None));
    }

    /// The response is refused as a whole, and why.
    pub fn reject(&mut self, delivery: &Delivery, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let error = Status { code: INVALID_ARGUMENT, message: reason[..end].to_owned() };
        self.answers.push_back(answer(delivery.kind, delivery.nonce.clone(), Some(error)));
    }

    /// Whether there is something to send.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.answers.is_empty()
            || self.types.values().any(|of_type| !of_type.untold.is_empty() || !of_type.withdrawn.is_empty())
    }

    /// The next request to send, if there is one. To be called only while a stream is open.
    pub fn poll(&mut self) -> Option<DeltaDiscoveryRequest> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        for kind in TypeUrl::ALL {
            let Some(of_type) = self.types.get_mut(&kind) else { continue };
            if of_type.untold.is_empty() && of_type.withdrawn.is_empty() {
                continue;
            }
            return Some(of_type.take_request(kind));
        }
        None
    }

    /// Versions had, by type and name; a definite "no such thing" has none and is left out.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<TypeUrl, BTreeMap<String, String>> {
        let of_names = |names: &BTreeMap<String, Name>| {
            let had = names.iter().filter_map(|(name, known)| match &known.has {
                Has::Version(version) => Some((name.clone(), version.clone())),
                Has::Nothing | Has::Absence => None,
            });
            had.collect()
        };
        self.types.iter().map(|(kind, of_type)| (*kind, of_names(&of_type.names))).collect()
    }

    /// Number of names that are subscribed to.
    #[must_use]
    pub fn len(&self, kind: TypeUrl) -> usize {
        self.types.get(&kind).map_or(0, |of_type| of_type.names.len())
    }
}

impl OfType {
    fn take_request(&mut self, kind: TypeUrl) -> DeltaDiscoveryRequest {
        let is_first = !std::mem::replace(&mut self.is_open, true);
        let mut request =
            DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), ..DeltaDiscoveryRequest::default() };
        for name in std::mem::take(&mut self.untold) {
            let Some(known) = self.names.get_mut(&name) else { continue };
            known.is_told = true;
            if let (true, Has::Version(version)) = (is_first, &known.has) {
                request.initial_resource_versions.insert(name.clone(), version.clone());
            }
            request.resource_names_subscribe.push(name);
        }
        request.resource_names_unsubscribe = std::mem::take(&mut self.withdrawn).into_iter().collect();
        request
    }
}

fn answer(kind: TypeUrl, nonce: String, error: Option<Status>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.as_str().to_owned(),
        response_nonce: nonce,
        error_detail: error,
        ..DeltaDiscoveryRequest::default()
    }
}

#[cfg(test)]
mod tests;
