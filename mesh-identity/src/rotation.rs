//! When a workload asks for its next certificate: a plan drawn once per certificate ([`RotationPlan`]) and
//! a state machine that follows it ([`Rotation`]).
//!
//! The machine touches no clock and no network. It is told the time and what happened, and answers with
//! effects; whoever drives it sleeps, sends requests and counts. Its promises: a certificate is renewed from
//! half of its life on, retries never stop and become denser towards the end, and an end is announced while
//! most people would still have time to act.

mod machine;
mod plan;

pub use machine::{Condition, Effect, Input, Moment, Rotation};
pub use plan::RotationPlan;
