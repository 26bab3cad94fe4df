//! The mesh on a real Kubernetes, as its users have it: `meshctl install`, `kubectl apply`, pods that call each
//! other. The scenarios are in `tests/`; this is what they say things with.
//!
//! Everything goes through `kubectl` and `meshctl`, because that is what is promised to work; nothing of the
//! mesh's own crates is used. A scenario has namespaces of its own, so that several run side by side in one
//! cluster; it deletes them when it has succeeded, and leaves them to be looked at when it has not. Those
//! that take the control plane or the API server away run alone, after the others.
//!
//! `cargo xtask e2e` makes the cluster, loads the images and sets the environment that [`Cluster`] reads.

pub mod answer;
pub mod cluster;
pub mod figures;
pub mod load;
pub mod namespace;
pub mod patience;

pub use answer::Answer;
pub use cluster::Cluster;
pub use load::{Load, Totals};
pub use namespace::Namespace;
pub use patience::{eventually, holds_for, pause};
