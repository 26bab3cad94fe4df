//! What Telemetry makes of records, from the record to the line and the series.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use mesh_api::model::AccessLogFormat;
use mesh_api::model::telemetry::{AccessLogRule, StandardMetric, TagOverride, WorkloadTelemetry};
use metrics_exporter_prometheus::PrometheusBuilder;

use super::access_log::AccessLog;
use super::denials::Denials;
use super::record::LocalWorkload;
use super::{Rules, Telemetry, WorkerTelemetry};
use crate::connection::{Connection, Direction};

fn connection(direction: Direction) -> Rc<Connection> {
    Rc::new(Connection {
        id: 1,
        direction,
        peer: "10.0.0.1:4000".parse().expect("address"),
        destination: "10.0.0.2:8080".parse().expect("address"),
        tls: None,
        accepted: Instant::now(),
    })
}

fn upsert(text: &str) -> TagOverride {
    TagOverride::Upsert(text.to_owned())
}

/// Lines and series that a worker with this Telemetry makes.
fn made(
    format: AccessLogFormat,
    telemetry: &WorkloadTelemetry,
    work: impl FnOnce(&WorkerTelemetry),
) -> (String, String) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (log, lines) = AccessLog::into_queue();
    metrics::with_local_recorder(&recorder, || {
        let worker = Telemetry::new(log, Arc::new(Denials::default())).worker();
        worker.configure(format, LocalWorkload::default(), Rules::compile(telemetry));
        work(&worker);
    });
    let lines: Vec<u8> = lines.try_iter().flatten().collect();
    (String::from_utf8(lines).expect("text"), recorder.handle().render())
}

fn answer(worker: &WorkerTelemetry, direction: Direction, path: &str, status: u16) {
    let mut record = worker.http(&connection(direction));
    record.method.push_str("GET");
    record.path.push_str(path);
    record.keep_header(b"X-Tenant", b"blue");
    record.keep_header(b"x-other", b"kept by nobody");
    record.status = status;
}

#[test]
fn only_records_that_fulfil_the_filter_are_logged() {
    let mut telemetry = WorkloadTelemetry::default();
    let filter =
        "response.code >= 500 || request.headers['x-tenant'] == 'blue' && request.url_path == '/debug'";
    telemetry.server.access_log = AccessLogRule::On(vec![filter.to_owned()]);
    telemetry.client.access_log = AccessLogRule::Off;
    let (lines, _) = made(AccessLogFormat::Off, &telemetry, |worker| {
        for (path, status) in [("/a", 200), ("/b", 503), ("/debug?x=1", 200), ("/debugged", 200)] {
            answer(worker, Direction::Inbound, path, status);
            answer(worker, Direction::Outbound, path, status);
        }
        worker.tcp(&connection(Direction::Inbound)).opened();
    });
    let paths: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["path"].to_string())
        .collect();
    assert_eq!(paths, ["\"/b\"", "\"/debug?x=1\""]);
}

#[test]
fn byte_streams_are_filtered_too() {
    let mut telemetry = WorkloadTelemetry::default();
    telemetry.server.access_log = AccessLogRule::On(vec!["request.size > 10".to_owned()]);
    let (lines, _) = made(AccessLogFormat::Text, &telemetry, |worker| {
        for bytes in [5, 50] {
            worker.tcp(&connection(Direction::Inbound)).bytes_received = bytes;
        }
    });
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains(" 50 0 "), "{lines}");
}

#[test]
fn metrics_are_switched_off_and_labelled_as_telemetry_says() {
    let mut telemetry = WorkloadTelemetry::default();
    let tags = BTreeMap::from([
        ("source_app".to_owned(), TagOverride::Remove),
        ("tenant".to_owned(), upsert("request.headers['x-tenant']")),
        ("kind".to_owned(), upsert("response.code >= 500 ? 'bad' : 'good'")),
    ]);
    telemetry.server.tags.insert(StandardMetric::RequestCount, tags);
    telemetry.server.disabled_metrics.extend([StandardMetric::RequestSize, StandardMetric::TcpSentBytes]);
    let (_, series) = made(AccessLogFormat::Json, &telemetry, |worker| {
        answer(worker, Direction::Inbound, "/a", 200);
        answer(worker, Direction::Inbound, "/b", 200);
        answer(worker, Direction::Inbound, "/c", 503);
        answer(worker, Direction::Outbound, "/d", 200);
        worker.tcp(&connection(Direction::Inbound)).opened();
    });
    let counted = |parts: &[&str]| {
        let is_there = |line: &&str| parts.iter().all(|part| line.contains(part));
        series.lines().filter(|line| line.starts_with("istio_requests_total{")).find(is_there)
    };
    let good = counted(&["kind=\"good\""]).expect("a series");
    assert!(
        good.ends_with(" 2") && good.contains("tenant=\"blue\"") && !good.contains("source_app"),
        "{good}"
    );
    assert!(counted(&["kind=\"bad\""]).is_some_and(|line| line.ends_with(" 1")), "{series}");
    let other = counted(&["reporter=\"source\""]).expect("a series");
    assert!(other.contains("source_app") && !other.contains("tenant"), "{other}");
    let has = |name: &str, reporter: &str| {
        let reporter = format!("reporter=\"{reporter}\"");
        series.lines().any(|line| line.starts_with(name) && line.contains(&reporter))
    };
    assert!(has("istio_request_bytes", "source") && !has("istio_request_bytes", "destination"), "{series}");
    assert!(has("istio_tcp_received_bytes_total", "destination"));
    assert!(!has("istio_tcp_sent_bytes_total", "destination"));
}
