//! Metrics of admission and of the leader's duties in a cluster.

use std::time::{Duration, SystemTime};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::as_f64;

pub(super) fn describe() {
    describe_counter!("mesh_control_admissions_total", "Admission reviews, by webhook and outcome.");
    describe_counter!(
        "mesh_control_injections_total",
        "Pods that were looked at for injection, by outcome: injected, skipped, refused or failed."
    );
    describe_histogram!(
        "mesh_control_admission_seconds",
        Unit::Seconds,
        "Time from the body of an admission review to its answer, by webhook."
    );
    describe_counter!(
        "mesh_control_webhook_handshakes_failed_total",
        "TLS handshakes of the webhooks that failed."
    );
    describe_gauge!(
        "mesh_control_webhook_cert_expiry_timestamp_seconds",
        "End of validity of the webhooks' certificate, in seconds of the Unix epoch."
    );
    describe_gauge!(
        "mesh_control_inject_settings_state",
        "1 for the state that the settings of injection are in: \
                     good, held (the last good ones while the ConfigMap is broken) or missing."
    );
    describe_counter!(
        "mesh_control_webhook_ca_writes_total",
        "Writes of the trust bundle to webhook configurations, by result."
    );
    describe_counter!(
        "mesh_control_status_writes_total",
        "Writes of conditions of policy objects, by result."
    );
    describe_gauge!(
        "mesh_unmeshed_pods",
        "Running pods that ask for injection and have no proxy, by namespace; of many namespaces the rest is `_other`."
    );
}

/// An admission review was answered.
pub fn admission(webhook: &'static str, outcome: &'static str, took: Duration) {
    counter!("mesh_control_admissions_total", "webhook" => webhook, "outcome" => outcome).increment(1);
    histogram!("mesh_control_admission_seconds", "webhook" => webhook).record(took.as_secs_f64());
}

/// A pod was looked at.
pub fn injection(outcome: &'static str) {
    counter!("mesh_control_injections_total", "outcome" => outcome).increment(1);
}

/// A handshake failed.
pub fn handshake_failed() {
    counter!("mesh_control_webhook_handshakes_failed_total").increment(1);
}

/// There is a new certificate.
pub fn certificate_expiry(not_after: SystemTime) {
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!("mesh_control_webhook_cert_expiry_timestamp_seconds").set(seconds);
}

/// In which state the settings of injection are.
pub fn inject_settings(state: &'static str) {
    for known in ["good", "held", "missing"] {
        let is_it = f64::from(u8::from(known == state));
        gauge!("mesh_control_inject_settings_state", "state" => known).set(is_it);
    }
}

/// A webhook configuration was written.
pub fn ca_write(result: &'static str) {
    counter!("mesh_control_webhook_ca_writes_total", "result" => result).increment(1);
}

/// Conditions were written.
pub fn status_write(result: &'static str) {
    counter!("mesh_control_status_writes_total", "result" => result).increment(1);
}

/// Unmeshed pods of one namespace.
pub fn unmeshed(namespace: &str, pods: usize) {
    gauge!("mesh_unmeshed_pods", "namespace" => namespace.to_owned()).set(as_f64(pods));
}
