//! What operators see of the process beside its log lines: metrics.

pub mod metrics;
