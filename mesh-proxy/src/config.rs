//! Settings of the process that the data path reads.
//!
//! They come from flags and the environment, are fixed for the life of the process, and say nothing about
//! the mesh: what the mesh says arrives from the control plane and is part of the [state](crate::state).

use std::time::Duration;

/// What the data path needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPathSettings {
    /// Port on which intercepted traffic towards the workload arrives. Default 15006.
    pub inbound_port: u16,
    /// Port on which intercepted traffic from the workload arrives. Default 15001.
    pub outbound_port: u16,
    /// `SO_MARK` of the proxy's own connections, by which interception lets them pass; `None` sets none.
    /// Default 1337.
    pub fwmark: Option<u32>,
    /// Longest time between the begin of a drain and the end of the process. Default 30 s.
    pub drain_deadline: Duration,
    /// Time for which inbound connections are still accepted once the drain has begun, at most a quarter of
    /// its deadline: callers learn of it meanwhile. Default 2 s.
    pub withdrawal: Duration,
    /// Whether connections of the application stay open while the proxy drains, for as long as the application
    /// keeps them and the deadline allows: it may be ending too and call others while it does. Default false:
    /// idle ones are closed.
    pub keeps_outbound: bool,
    /// Silence after which a client on an undeclared port is taken for one that waits for the other side to
    /// speak first. Default 50 ms: longer than a client needs to send its first bytes on a local network,
    /// and unnoticed by a person.
    pub detect_wait: Duration,
    /// Time allowed for a request's head once its first byte has come. Default 10 s.
    pub request_head_timeout: Duration,
    /// Time for which an HTTP/1.1 client may be silent while it owes the rest of a body. Default 5 minutes, as
    /// Envoy has it for streams.
    pub request_body_timeout: Duration,
    /// Time that a connection may be open without a request. Default one hour, as Envoy has it.
    pub http_idle_timeout: Duration,
}

impl Default for DataPathSettings {
    fn default() -> Self {
        Self {
            inbound_port: 15006,
            outbound_port: 15001,
            fwmark: Some(1337),
            drain_deadline: Duration::from_secs(30),
            withdrawal: Duration::from_secs(2),
            keeps_outbound: false,
            detect_wait: Duration::from_millis(50),
            request_head_timeout: Duration::from_secs(10),
            request_body_timeout: Duration::from_secs(300),
            http_idle_timeout: Duration::from_secs(3600),
        }
    }
}
