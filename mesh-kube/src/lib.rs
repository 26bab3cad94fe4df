//! The mesh on Kubernetes, as values.
//!
//! Control plane and `meshctl` share what stands here: the names by which they find each other in a cluster
//! ([`name`]), the custom resource definitions ([`crd`]), and what becomes of a pod that is injected
//! ([`inject`]), and how YAML is written ([`yaml`]). Everything is a function over JSON values: no API server
//! is asked, no clock is read.

pub mod crd;
pub mod inject;
pub mod name;
pub mod yaml;
