//! The control plane: folders of YAML or the objects of a cluster in, resources for each proxy and certificates out.
//!
//! Reading order, which is the order in which data passes: [`source`] (documents, and the last good version
//! of each object), [`ingest`] (objects in force, and what is wrong with them; pure), [`registry`] (objects
//! with their look-ups; pure), [`snapshot`] (resources by proxy, and who reads which fact; pure), [`push`]
//! (what one proxy has and is sent next; its session is pure), [`issue`] (attest, decide, sign), [`jwks`] (keys of token issuers), [`plane`]
//! (the state that all of these share), [`serve`] (gRPC, metrics and the admin socket), [`status`] (what
//! operators are told), [`app`] (puts it together).
//!
//! In a cluster several replicas serve the same mesh: [`cluster`] is what they share through the API server,
//! and [`leader`] decides which of them has the duties of which there must be one.
//!
//! Invariants: a broken document changes nothing but the list of problems; a change costs what it touches
//! times who subscribes; a proxy is sent its own configuration and the destinations that it asked for, and
//! nothing else; the identity that is signed comes from the attestation alone.

pub mod address_store;
pub mod app;
pub mod args;
pub mod cluster;
pub mod config;
pub mod ingest;
pub mod inject;
pub mod issue;
pub mod jwks;
pub mod leader;
pub mod plane;
pub mod push;
pub mod readiness;
pub mod reconcile;
pub mod registry;
pub mod serve;
pub mod snapshot;
pub mod source;
pub mod state_file;
pub mod status;
pub mod telemetry;

#[cfg(test)]
mod fixture;
