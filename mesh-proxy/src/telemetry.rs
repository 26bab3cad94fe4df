//! One record per outcome: metrics, the access log and the list of refusals, all fed from the same value.
//!
//! A stage takes a record from its worker's [`WorkerTelemetry`] when it accepts a connection or reads a
//! request, fills in what it learns, and drops it. The drop emits: counters and histograms by handles held
//! per label set, one access-log line handed to the writer's thread, and an entry among the refusals when
//! policy refused. A task that is cancelled drops its record too, so nothing ends unrecorded.

pub mod access_log;
pub mod active;
mod attributes;
pub mod decisions;
pub mod denials;
mod explaining;
pub mod metrics;
pub mod process;
pub mod record;
pub mod rules;

pub use record::{FaultDomain, Flag, HttpRecord, TcpRecord, Telemetry, Verdict, WorkerTelemetry};
pub use rules::Rules;

#[cfg(test)]
mod tests;
