//! What one proxy has, what it should have, and therefore what to say next: the server's half of delta ADS.
//!
//! A machine without IO: requests and updates go in, the next response comes out of [`Session::poll`]. There
//! is at most one unanswered response for each type; what changes meanwhile is gathered, and only the latest
//! is sent. That bounds what a slow proxy can make the server keep.
//!
//! - A request that carries the nonce of the unanswered response is its answer. An answer with any other
//!   nonce is stale and counts for nothing, though its subscriptions do.
//! - ACK: the proxy has what was sent. NACK: it has what it had before; the same content is not sent again,
//!   other content is. Since the words of a NACK do not say which resource was meant, resources of a
//!   rejected response are offered again one by one, so that one bad resource does not hold up its
//!   neighbours.
//! - A name that is subscribed to again is answered again: the proxy has forgotten it.
//! - After a reconnect the proxy states what it has; only differences are sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::wire::TypeUrl;
use mesh_api::wire::discovery::{DeltaDiscoveryResponse, Resource};

use crate::snapshot::{Desired, Encoded};

/// Content of one response, in bytes; a single resource may be larger.
const RESPONSE_BYTES: usize = 4 * 1024 * 1024;

/// Most subscriptions of one stream. A workload that dials at random makes its proxy ask for every address,
/// and forgetting idle ones is the proxy's duty.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;

/// A request, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Names to subscribe to.
    pub subscribe: Vec<String>,
    /// Names to unsubscribe from.
    pub unsubscribe: Vec<String>,
    /// What the proxy has, by name; only looked at in the first request of a type.
    pub initial_versions: BTreeMap<String, String>,
    /// Nonce of the response that this answers; empty when it answers none.
    pub nonce: String,
    /// Why the response is rejected.
    pub error: Option<String>,
}

/// What a request means for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Look the resource up and call [`Session::update`].
    Subscribed(TypeUrl, String),
    /// Forget the subscription.
    Unsubscribed(TypeUrl, String),
    /// The proxy has taken what was sent.
    Acknowledged(TypeUrl),
    /// The proxy refuses what was sent, and why.
    Rejected(TypeUrl, String),
}

/// Why a stream is ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Too many subscriptions.
    #[error("more than {SUBSCRIPTIONS_MAX} subscriptions on one stream")]
    TooManySubscriptions,
}

/// What the proxy has of one name, as far as it has said so.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Has {
    /// It has said nothing.
    Nothing,
    /// This version.
    Version(String),
    /// The answer that there is none.
    Absence,
}

/// What is to be had: a comparable form of [`Desired`].
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Resource(Arc<Encoded>),
    Absence,
}

impl Wanted {
    fn is_had(&self, has: &Has) -> bool {
        match (self, has) {
            (Self::Resource(encoded), Has::Version(version)) => encoded.version == *version,
            (Self::Absence, Has::Absence) => true,
            (Self::Resource(_) | Self::Absence, _) => false,
        }
    }

    fn as_had(&self) -> Has {
        match self {
            Self::Resource(encoded) => Has::Version(encoded.version.clone()),
            Self::Absence => Has::Absence,
        }
    }
}

#[derive(Debug)]
struct Name {
    has: Has,
    wanted: Option<Wanted>,
    /// What was refused and is not to be offered again.
    refused: Option<Has>,
    /// A response with this name among others was refused.
    is_suspect: bool,
}

impl Name {
    fn new(has: Has) -> Self {
        Self { has, wanted: None, refused: None, is_suspect: false }
    }

    /// What has to be sent, if anything.
    fn due(&self) -> Option<&Wanted> {
        let wanted = self.wanted.as_ref()?;
        let is_refused = self.refused.as_ref().is_some_and(|refused| wanted.is_had(refused));
        (!wanted.is_had(&self.has) && !is_refused).then_some(wanted)
    }
}

#[derive(Debug)]
struct Unanswered {
    nonce: String,
    sent: BTreeMap<String, Has>,
    /// More than one resource was sent: a refusal does not say which is meant.
    is_batch: bool,
}

#[derive(Debug, Default)]
struct OfType {
    is_known: bool,
    names: BTreeMap<String, Name>,
    /// Names that may have something due.
    pending: BTreeSet<String>,
    unanswered: Option<Unanswered>,
    error: Option<String>,
    /// Names of which the proxy has something else since this was last asked for.
    moved: BTreeSet<String>,
}

/// State of one resource type, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeState {
    /// Subscriptions.
    pub resources: usize,
    /// A response waits for its answer.
    pub is_unanswered: bool,
    /// Something is due.
    pub is_due: bool,
    /// The proxy has asked for this type.
    pub is_subscribed: bool,
    /// The proxy's words, when it refused the last response.
    pub error: Option<String>,
}

/// The server's half of one stream.
#[derive(Debug, Default)]
pub struct Session {
    types: BTreeMap<TypeUrl, OfType>,
    nonces: u64,
}

impl Session {
    /// A session that knows nothing of the proxy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// When the proxy asks for more than a stream may have; the stream is to be ended.
    pub fn request(&mut self, kind: TypeUrl, request: Request) -> Result<Vec<Effect>, SessionError> {
        let mut effects = Vec::new();
        let known: usize = self.types.values().map(|of_type| of_type.names.len()).sum();
        let of_type = self.types.entry(kind).or_default();
        if !request.nonce.is_empty() {
            effects.extend(of_type.answer(kind, &request.nonce, request.error));
        }
        let is_first = !std::mem::replace(&mut of_type.is_known, true);
        for name in request.unsubscribe {
            if of_type.names.remove(&name).is_some() {
                of_type.pending.remove(&name);
                of_type.moved.insert(name.clone());
                effects.push(Effect::Unsubscribed(kind, name));
            }
        }
        let added = request.subscribe.iter().filter(|name| !of_type.names.contains_key(*name)).count();
        if known + added > SUBSCRIPTIONS_MAX {
            return Err(SessionError::TooManySubscriptions);
        }
        for name in request.subscribe {
            let stated = request.initial_versions.get(&name).filter(|_| is_first);
            let has = stated.map_or(Has::Nothing, |version| Has::Version(version.clone()));
            of_type.names.insert(name.clone(), Name::new(has));
            of_type.moved.insert(name.clone());
            // An answer that is under way was given to a proxy that has forgotten since.
            if let Some(unanswered) = &mut of_type.unanswered {
                unanswered.sent.remove(&name);
            }
            effects.push(Effect::Subscribed(kind, name));
        }
        Ok(effects)
    }

    /// States what the proxy is to have. Names that it does not subscribe to are passed over.
    pub fn update(&mut self, kind: TypeUrl, name: &str, desired: &Desired) {
        let Some(of_type) = self.types.get_mut(&kind) else { return };
        let Some(entry) = of_type.names.get_mut(name) else { return };
        entry.wanted = match desired {
            Desired::Present(encoded) => Some(Wanted::Resource(Arc::clone(encoded))),
            Desired::Absent => Some(Wanted::Absence),
            Desired::Unknown => None,
        };
        of_type.pending.insert(name.to_owned());
    }

    /// The next response to send, if there is one. To be called until there is none, after each request and
    /// update.
    pub fn poll(&mut self) -> Option<DeltaDiscoveryResponse> {
        for kind in TypeUrl::ALL {
            let Some(of_type) = self.types.get_mut(&kind) else { continue };
            if of_type.unanswered.is_some() {
                continue;
            }
            let batch = of_type.take_batch();
            if batch.is_empty() {
                continue;
            }
            self.nonces += 1;
            let nonce = self.nonces.to_string();
            let mut response = DeltaDiscoveryResponse {
                type_url: kind.as_str().to_owned(),
                nonce: nonce.clone(),
                ..DeltaDiscoveryResponse::default()
            };
            let mut sent = BTreeMap::new();
            for (name, wanted) in batch {
                sent.insert(name.clone(), wanted.as_had());
                match wanted {
                    Wanted::Resource(encoded) => response.resources.push(Resource {
                        version: encoded.version.clone(),
                        resource: Some(encoded.to_any()),
                        name,
                    }),
                    Wanted::Absence => response.removed_resources.push(name),
                }
            }
            let is_batch = sent.len() > 1;
            of_type.unanswered = Some(Unanswered { nonce, sent, is_batch });
            return Some(response);
        }
        None
    }

    /// State of a type, for status.
    #[must_use]
    pub fn state(&self, kind: TypeUrl) -> TypeState {
        let Some(of_type) = self.types.get(&kind) else {
            return TypeState {
                resources: 0,
                is_unanswered: false,
                is_due: false,
                is_subscribed: false,
                error: None,
            };
        };
        let is_due = of_type
            .pending
            .iter()
            .any(|name| of_type.names.get(name).is_some_and(|entry| entry.due().is_some()));
        TypeState {
            resources: of_type.names.len(),
            is_unanswered: of_type.unanswered.is_some(),
            is_due,
            is_subscribed: of_type.is_known,
            error: of_type.error.clone(),
        }
    }

    /// Names of a type of which the proxy has another version than when this was last called, with the version;
    /// `None` when it has none, or does not subscribe any more.
    pub fn take_moved(&mut self, kind: TypeUrl) -> Vec<(String, Option<String>)> {
        let Some(of_type) = self.types.get_mut(&kind) else { return Vec::new() };
        let moved = std::mem::take(&mut of_type.moved);
        let version = |name: &String| match &of_type.names.get(name)?.has {
            Has::Version(version) => Some(version.clone()),
            Has::Nothing | Has::Absence => None,
        };
        moved.into_iter().map(|name| (version(&name), name)).map(|(version, name)| (name, version)).collect()
    }

    /// The version of a resource that the proxy is known to have.
    #[must_use]
    pub fn acknowledged(&self, kind: TypeUrl, name: &str) -> Option<&str> {
        match &self.types.get(&kind)?.names.get(name)?.has {
            Has::Version(version) => Some(version),
            Has::Nothing | Has::Absence => None,
        }
    }
}

impl OfType {
    fn answer(&mut self, kind: TypeUrl, nonce: &str, error: Option<String>) -> Option<Effect> {
        let unanswered = self.unanswered.take_if(|unanswered| unanswered.nonce == nonce)?;
        let is_batch = unanswered.is_batch;
        for (name, sent) in unanswered.sent {
            let Some(entry) = self.names.get_mut(&name) else { continue };
            match (&error, is_batch) {
                (None, _) => {
                    entry.has = sent;
                    self.moved.insert(name.clone());
                    entry.refused = None;
                    entry.is_suspect = false;
                }
                (Some(_), true) => entry.is_suspect = true,
                (Some(_), false) => {
                    entry.refused = Some(sent);
                    entry.is_suspect = false;
                }
            }
            self.pending.insert(name);
        }
        if let Some(reason) = error {
            self.error = Some(reason.clone());
            return Some(Effect::Rejected(kind, reason));
        }
        let still_refused = self.names.values().any(|entry| entry.is_suspect || entry.refused_is_current());
        if !still_refused {
            self.error = None;
        }
        Some(Effect::Acknowledged(kind))
    }

    /// Takes what goes into the next response out of `pending`. A suspect travels alone.
    fn take_batch(&mut self) -> Vec<(String, Wanted)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(name) = self.pending.pop_first() {
            let Some(entry) = self.names.get_mut(&name) else { continue };
            let is_suspect = std::mem::take(&mut entry.is_suspect);
            let Some(wanted) = entry.due().cloned() else { continue };
            entry.is_suspect = is_suspect;
            let size = match &wanted {
                Wanted::Resource(encoded) => encoded.len(),
                Wanted::Absence => name.len(),
            };
            let fits = batch.is_empty() || (!is_suspect && bytes + size <= RESPONSE_BYTES);
            if !fits {
                self.pending.insert(name);
                break;
            }
            bytes += size;
            batch.push((name, wanted));
            if is_suspect {
                break;
            }
        }
        batch
    }
}

impl Name {
    /// Whether what is wanted now is what was refused.
    fn refused_is_current(&self) -> bool {
        match (&self.refused, &self.wanted) {
            (Some(refused), Some(wanted)) => wanted.is_had(refused),
            (Some(_), None) | (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests;
