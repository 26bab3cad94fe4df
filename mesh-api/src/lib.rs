//! The nouns of the mesh, and the three foreign forms they take.
//!
//! Reading order, which is the order in which data passes: [`name`] (validated names), [`model`] (what the
//! mesh believes, after validation), [`manifest`] (what users write: YAML), [`problem`] (what is wrong with
//! it), [`policy_test`] (what a unit test of policies says), [`cel`] (the expressions of Telemetry), [`wire`]
//! (what control plane and proxy say to each other), [`admin`] (what the admin sockets answer and `meshctl`
//! prints), [`error_chain`] (how an error is told to an operator).
//!
//! Invariants: nothing here does IO, reads a clock or keeps global state. A value of a type in [`name`] or
//! [`model`] is valid; what is not valid never becomes one. Features only add: `manifest` and `wire`.

pub mod admin;
pub mod cel;
pub mod error_chain;
#[cfg(feature = "manifest")]
pub mod manifest;
pub mod model;
pub mod name;
pub mod policy_assertion;
pub mod policy_test;
pub mod problem;
pub mod traffic_record;
#[cfg(feature = "wire")]
pub mod wire;
