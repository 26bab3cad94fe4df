//! The recorder, and the metrics of the process itself: identity, discovery, state.
//!
//! The metrics of traffic are in [`super::metrics`]. Histograms have Istio's buckets, so that dashboards
//! made for Istio read them unchanged.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use mesh_api::wire::TypeUrl;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::metrics::{REQUEST_BYTES, REQUEST_DURATION, RESPONSE_BYTES};

/// Istio's buckets of durations, in milliseconds
/// (<https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/metrics/v3/stats.proto>, Envoy's default).
const DURATION_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Sizes, in bytes. The same list serves Envoy for sizes too, but one that starts at half a byte says little.
const SIZE_BUCKETS: [f64; 8] =
    [100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0, 1_000_000_000.0];

/// End of validity of the own certificates, by level.
const CERT_EXPIRY: &str = "mesh_proxy_cert_expiry_timestamp_seconds";
const ROTATIONS: &str = "mesh_proxy_cert_rotations_total";
const ROTATION_FAILURES: &str = "mesh_proxy_cert_rotation_failures_total";
const CLOCK_JUMPS: &str = "mesh_proxy_clock_jumps_total";
const CONNECTED: &str = "mesh_proxy_control_plane_connected";
const SILENT: &str = "mesh_proxy_control_plane_silent_seconds";
const CONNECTS: &str = "mesh_proxy_control_plane_connects_total";
const RESPONSES: &str = "mesh_proxy_discovery_responses_total";
const DESTINATIONS: &str = "mesh_proxy_destinations";
const EVICTED: &str = "mesh_proxy_destinations_evicted_total";
const REVISION: &str = "mesh_proxy_state_revision";
const UNKNOWN_KEYS: &str = "mesh_proxy_unknown_key_reports_total";
const PANICS: &str = "mesh_proxy_task_failures_total";

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of the process, once, and says how to render it. `None` when the process has a
/// recorder of another kind.
pub fn install() -> Option<PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let exact = |name: &str| Matcher::Full(name.to_owned());
            let handle = PrometheusBuilder::new()
                .set_buckets_for_metric(exact(REQUEST_DURATION), &DURATION_BUCKETS)
                .and_then(|builder| builder.set_buckets_for_metric(exact(REQUEST_BYTES), &SIZE_BUCKETS))
                .and_then(|builder| builder.set_buckets_for_metric(exact(RESPONSE_BYTES), &SIZE_BUCKETS))
                .ok()?
                .install_recorder()
                .ok()?;
            super::metrics::describe();
            describe();
            Some(handle)
        })
        .clone()
}

fn describe() {
    describe_gauge!(
        CERT_EXPIRY,
        Unit::Seconds,
        "End of validity of the own certificates, in seconds of the Unix epoch, by level."
    );
    describe_counter!(ROTATIONS, "Certificates received.");
    describe_counter!(ROTATION_FAILURES, "Requests for a certificate that failed, by reason.");
    describe_counter!(CLOCK_JUMPS, "Times that the wall clock was found set by more than seconds.");
    describe_gauge!(CONNECTED, "1 while the discovery stream is open.");
    describe_gauge!(SILENT, Unit::Seconds, "Time since the discovery stream was last open; 0 while it is.");
    describe_counter!(CONNECTS, "Attempts to open the discovery stream, by result.");
    describe_counter!(RESPONSES, "Responses of the control plane, by resource type and what became of them.");
    describe_gauge!(DESTINATIONS, "Destinations that are subscribed to, by what is known of them.");
    describe_counter!(EVICTED, "Destinations that were dropped to make room for others.");
    describe_gauge!(REVISION, "Number of configurations taken into use since start.");
    describe_counter!(
        UNKNOWN_KEYS,
        "Reports to the control plane that a token's key is not known, by what became of them."
    );
    describe_counter!(PANICS, "Tasks of the process that ended unexpectedly and were started anew, by name.");
}

/// End of validity of a certificate: `leaf`, `intermediate` or `root`.
pub fn expiry(level: &'static str, not_after: SystemTime) {
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!(CERT_EXPIRY, "level" => level).set(seconds);
}

/// A certificate was received.
pub fn rotated() {
    counter!(ROTATIONS).increment(1);
}

/// A request for a certificate failed.
pub fn rotation_failed(reason: &'static str) {
    counter!(ROTATION_FAILURES, "reason" => reason).increment(1);
}

/// The wall clock jumped.
pub fn clock_jumped() {
    counter!(CLOCK_JUMPS).increment(1);
}

/// An unknown key was reported to the control plane, or could not be.
pub fn unknown_key(result: &'static str) {
    counter!(UNKNOWN_KEYS, "result" => result).increment(1);
}

/// State of the discovery stream.
pub fn control_plane(is_connected: bool, silent: Duration) {
    gauge!(CONNECTED).set(f64::from(u8::from(is_connected)));
    gauge!(SILENT).set(silent.as_secs_f64());
}

/// An attempt to open the discovery stream has ended.
pub fn connect_attempt(result: &'static str) {
    counter!(CONNECTS, "result" => result).increment(1);
}

/// A response was taken (`accepted`) or not (`rejected`).
pub fn response(kind: TypeUrl, result: &'static str) {
    counter!(RESPONSES, "type" => kind.short(), "result" => result).increment(1);
}

/// Numbers of destinations.
pub fn destinations(present: usize, absent: usize, asked: usize) {
    for (state, count) in [("present", present), ("absent", absent), ("asked", asked)] {
        gauge!(DESTINATIONS, "state" => state).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
}

/// A destination was dropped for want of room.
pub fn evicted() {
    counter!(EVICTED).increment(1);
}

/// A configuration was taken into use.
pub fn revision(revision: u64) {
    gauge!(REVISION).set(f64::from(u32::try_from(revision).unwrap_or(u32::MAX)));
}

/// A task ended that should not have.
pub fn task_failed(name: &'static str) {
    counter!(PANICS, "task" => name).increment(1);
}
