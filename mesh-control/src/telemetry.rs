//! What operators see of the process: log lines and metrics.

pub mod logging;
pub mod metrics;
