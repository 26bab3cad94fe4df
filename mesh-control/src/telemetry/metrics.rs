//! Every metric of the control plane.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use mesh_api::admin::KeySourceStatus;
use mesh_api::wire::TypeUrl;
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub mod webhook;

/// Buckets of latencies, in seconds: a change is to reach its proxies within one.
const LATENCY_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder of the process, once, and says how to render it. `None` when the process has a
/// recorder of another kind.
pub fn install() -> Option<PrometheusHandle> {
    RECORDER
        .get_or_init(|| {
            let builder = PrometheusBuilder::new()
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_BUCKETS)
                .ok()?;
            let handle = builder.install_recorder().ok()?;
            describe();
            Some(handle)
        })
        .clone()
}

fn describe() {
    webhook::describe();
    describe_counter!("mesh_control_pushes_total", "Responses sent to proxies, by resource type.");
    describe_counter!("mesh_control_acks_total", "Responses that proxies acknowledged, by resource type.");
    describe_counter!("mesh_control_nacks_total", "Responses that proxies rejected, by resource type.");
    describe_histogram!(
        "mesh_control_push_latency_seconds",
        Unit::Seconds,
        "Time from a change taken in until one proxy has acknowledged everything that it concerns."
    );
    describe_gauge!("mesh_control_connected_proxies", "Open discovery streams.");
    describe_gauge!("mesh_control_subscriptions", "Subscriptions over all streams.");
    describe_gauge!("mesh_control_revision", "Number of changes taken in since start.");
    describe_gauge!("mesh_control_objects", "Objects in force, by kind.");
    describe_gauge!("mesh_control_problems", "Problems of the configuration, by severity.");
    describe_gauge!("mesh_control_held_objects", "Objects whose last good version is kept, by folder.");
    describe_gauge!("mesh_control_source_suspended", "1 while what disappeared from a folder is held.");
    describe_counter!("mesh_control_certificates_total", "Certificate requests, by result.");
    describe_gauge!(
        "mesh_control_cert_expiry_timestamp_seconds",
        "End of validity of the authority's certificates, in seconds of the Unix epoch, by level."
    );
    describe_counter!("mesh_control_handshakes_total", "TLS handshakes, by result.");
    describe_counter!(
        "mesh_control_streams_refused_total",
        "Discovery streams that were refused, by reason."
    );
    describe_counter!(
        "mesh_control_jwks_fetches_total",
        "Fetches of token issuers' keys, by result: changed, unchanged, or what went wrong."
    );
    describe_gauge!(
        "mesh_control_jwks_sources",
        "Sources of keys that policies use, by state: fresh, stale (the last fetch failed) or empty (no keys)."
    );
    describe_gauge!(
        "mesh_control_jwks_oldest_age_seconds",
        Unit::Seconds,
        "Time since those keys were seen at their source that were seen there longest ago."
    );
    describe_counter!(
        "mesh_control_jwks_unknown_keys_total",
        "Reports of proxies that a token's key is not known, by what is done about it."
    );
    describe_gauge!("mesh_control_leader", "1 on the replica that has the leader's duties, else 0.");
    describe_counter!(
        "mesh_control_token_reviews_total",
        "Service-account tokens that proxies have shown, by outcome."
    );
    describe_counter!(
        "mesh_control_authority_writes_total",
        "Writes of the authority's Secret, by outcome: created, rotated, restored, conflict or failed."
    );
    describe_gauge!(
        "mesh_control_authority_alarm",
        "1 while the authority's Secret is missing, damaged or of other_root, by problem."
    );
    describe_counter!(
        "mesh_control_root_certificates_total",
        "Writes of the root certificate to namespaces, by result: written or failed."
    );
    describe_gauge!(
        "mesh_control_root_certificates_wanting",
        "Namespaces without the current root certificate, as the leader sees it."
    );
}

/// A service-account token was reviewed.
pub fn token_review(outcome: &'static str) {
    counter!("mesh_control_token_reviews_total", "outcome" => outcome).increment(1);
}

/// The authority's Secret was written, or not.
pub fn authority_write(outcome: &'static str) {
    counter!("mesh_control_authority_writes_total", "outcome" => outcome).increment(1);
}

/// Whether the authority's Secret has a problem.
pub fn authority_alarm(problem: &'static str, is_raised: bool) {
    gauge!("mesh_control_authority_alarm", "problem" => problem).set(f64::from(u8::from(is_raised)));
}

/// The root certificate of a namespace was written, or not.
pub fn root_certificate_written(result: &'static str) {
    counter!("mesh_control_root_certificates_total", "result" => result).increment(1);
}

/// Namespaces without the current root certificate.
pub fn root_certificates_wanting(namespaces: usize) {
    gauge!("mesh_control_root_certificates_wanting").set(as_f64(namespaces));
}

/// Whether this replica leads.
pub fn leader(leads: bool) {
    gauge!("mesh_control_leader").set(f64::from(u8::from(leads)));
}

/// A response was sent.
pub fn pushed(kind: TypeUrl) {
    counter!("mesh_control_pushes_total", "type" => kind.short()).increment(1);
}

/// A response was acknowledged.
pub fn acknowledged(kind: TypeUrl) {
    counter!("mesh_control_acks_total", "type" => kind.short()).increment(1);
}

/// A response was rejected.
pub fn rejected(kind: TypeUrl) {
    counter!("mesh_control_nacks_total", "type" => kind.short()).increment(1);
}

/// A change has reached a proxy.
pub fn converged(latency: Duration) {
    histogram!("mesh_control_push_latency_seconds").record(latency.as_secs_f64());
}

/// Numbers of open streams and of subscriptions.
pub fn connected(proxies: usize, subscriptions: usize) {
    gauge!("mesh_control_connected_proxies").set(as_f64(proxies));
    gauge!("mesh_control_subscriptions").set(as_f64(subscriptions));
}

/// The revision.
pub fn revision(revision: u64) {
    gauge!("mesh_control_revision").set(as_f64(usize::try_from(revision).unwrap_or(usize::MAX)));
}

/// Objects of one kind.
pub fn objects(kind: &'static str, count: usize) {
    gauge!("mesh_control_objects", "kind" => kind).set(as_f64(count));
}

/// Problems of one severity.
pub fn problems(severity: &'static str, count: usize) {
    gauge!("mesh_control_problems", "severity" => severity).set(as_f64(count));
}

/// State of one folder; there are as many as flags on the command line.
pub fn folder(path: &str, held: usize, is_suspended: bool) {
    gauge!("mesh_control_held_objects", "path" => path.to_owned()).set(as_f64(held));
    gauge!("mesh_control_source_suspended", "path" => path.to_owned()).set(f64::from(u8::from(is_suspended)));
}

/// A certificate was issued or refused.
pub fn certificate(result: &'static str) {
    counter!("mesh_control_certificates_total", "result" => result).increment(1);
}

/// End of validity of a certificate of the authority.
pub fn expiry(level: &'static str, not_after: SystemTime) {
    let seconds = not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    gauge!("mesh_control_cert_expiry_timestamp_seconds", "level" => level).set(seconds);
}

/// A handshake has ended.
pub fn handshake(result: &'static str) {
    counter!("mesh_control_handshakes_total", "result" => result).increment(1);
}

/// A stream was refused.
pub fn stream_refused(reason: &'static str) {
    counter!("mesh_control_streams_refused_total", "reason" => reason).increment(1);
}

/// A fetch of keys has ended.
pub fn keys_fetched(result: &'static str) {
    counter!("mesh_control_jwks_fetches_total", "result" => result).increment(1);
}

/// A proxy has reported an unknown key.
pub fn unknown_key(result: &'static str) {
    counter!("mesh_control_jwks_unknown_keys_total", "result" => result).increment(1);
}

/// State of the sources of keys.
pub fn key_sources(sources: &[KeySourceStatus]) {
    let (mut fresh, mut stale, mut empty) = (0, 0, 0);
    for source in sources {
        match source.age_seconds {
            Some(_) if source.problem.is_empty() => fresh += 1,
            Some(_) => stale += 1,
            None => empty += 1,
        }
    }
    for (state, number) in [("fresh", fresh), ("stale", stale), ("empty", empty)] {
        gauge!("mesh_control_jwks_sources", "state" => state).set(as_f64(number));
    }
    let oldest = sources.iter().filter_map(|source| source.age_seconds).max().unwrap_or_default();
    let oldest = usize::try_from(oldest).unwrap_or(usize::MAX);
    gauge!("mesh_control_jwks_oldest_age_seconds").set(as_f64(oldest));
}

/// Counts are far below what an `f64` holds exactly.
fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
