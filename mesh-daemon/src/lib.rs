//! What control plane and proxy share as processes of a machine, and nothing of the mesh.
//!
//! The two never meet but over the wire, so what both are made of at their edge stands here: [`duration`] (of
//! flags), [`logging`] (lines on standard error, whose filter can be changed), [`operator_socket`] (who may
//! ask and tell).
//!
//! Invariants: nothing here knows a noun of the mesh, a policy or a certificate.

pub mod duration;
pub mod logging;
pub mod operator_socket;
