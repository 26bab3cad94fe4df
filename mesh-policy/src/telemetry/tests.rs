use super::*;
use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::name::{Labels, Namespace, ServiceAccount};

/// Telemetry objects `NAMESPACE/NAME: SPEC`, in order of age.
fn objects(specs: &[(&str, &str, &str)]) -> Vec<Arc<Telemetry>> {
    let read = |(age, (namespace, name, spec)): (usize, &(&str, &str, &str))| {
        let text = format!(
            "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: {name}, namespace: {namespace}, \
             creationTimestamp: '2026-01-01T00:00:{age:02}Z'}}\nspec: {spec}\n"
        );
        let parsed = manifest::parse("t.yaml", &text, &LowerContext::default());
        match parsed.documents.into_iter().next().map(|document| document.outcome) {
            Some(Ok(Object::Telemetry(object))) => Arc::new(object),
            other => unreachable!("{spec}: {other:?}"),
        }
    };
    specs.iter().enumerate().map(read).collect()
}

fn resolved_in(
    mesh: &MeshSettings,
    labels: &[(&str, &str)],
    specs: &[(&str, &str, &str)],
) -> WorkloadTelemetry {
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let namespace = Namespace::parse("shop").expect("valid");
    let account = ServiceAccount::parse("a").expect("valid");
    let subject = Subject { namespace: &namespace, labels: &labels, service_account: &account };
    resolve(mesh, &subject, &objects(specs))
}

fn resolved(specs: &[(&str, &str, &str)]) -> WorkloadTelemetry {
    resolved_in(&MeshSettings::default(), &[("app", "a")], specs)
}

const ROOT: &str = "istio-system";

fn on(filters: &[&str]) -> AccessLogRule {
    AccessLogRule::On(filters.iter().map(|filter| (*filter).to_owned()).collect())
}

#[test]
fn without_telemetry_the_settings_of_the_mesh_hold() {
    assert_eq!(resolved(&[]), WorkloadTelemetry::default());
    assert_eq!(
        resolved(&[("other", "x", "{accessLogging: [{disabled: true}]}")]),
        WorkloadTelemetry::default()
    );
    assert_eq!(resolved(&[(ROOT, "x", "{metrics: [{}]}")]).server.access_log, AccessLogRule::OfMesh);
}

#[test]
fn the_log_is_switched_by_the_narrowest_level() {
    let off = (ROOT, "mesh", "{accessLogging: [{disabled: true}]}");
    let again = ("shop", "ns", "{accessLogging: [{disabled: false}]}");
    let one = ("shop", "one", "{selector: {matchLabels: {app: a}}, accessLogging: [{disabled: true}]}");
    let other = ("shop", "two", "{selector: {matchLabels: {app: b}}, accessLogging: [{disabled: true}]}");
    for (specs, expected) in [
        (vec![off], AccessLogRule::Off),
        (vec![off, again], on(&[])),
        (vec![off, again, one], AccessLogRule::Off),
        (vec![one, again, off], AccessLogRule::Off),
        (vec![again, other], on(&[])),
    ] {
        assert_eq!(resolved(&specs).server.access_log, expected, "{specs:?}");
    }
}

#[test]
fn sides_are_told_apart_and_a_gateway_is_a_client() {
    let spec = "{accessLogging: [{match: {mode: CLIENT}, disabled: true}, {match: {mode: SERVER}, filter: {expression: a}}]}";
    let sidecar = resolved(&[(ROOT, "x", spec)]);
    assert_eq!((sidecar.client.access_log, sidecar.server.access_log), (AccessLogRule::Off, on(&["a"])));
    let label = [("gateway.networking.k8s.io/gateway-name", "g")];
    let gateway = resolved_in(&MeshSettings::default(), &label, &[(ROOT, "x", spec)]);
    assert_eq!(gateway.server.access_log, AccessLogRule::Off);
}

#[test]
fn providers_that_are_named_replace_those_of_the_wider_level() {
    let own = "{accessLogging: [{providers: [{name: envoy}], filter: {expression: a}}]}";
    let foreign = "{accessLogging: [{providers: [{name: otel}]}]}";
    let filtered = "{accessLogging: [{filter: {expression: b}}]}";
    assert_eq!(resolved(&[(ROOT, "x", own)]).server.access_log, on(&["a"]));
    assert_eq!(resolved(&[(ROOT, "x", own), ("shop", "y", foreign)]).server.access_log, AccessLogRule::Off);
    assert_eq!(resolved(&[(ROOT, "x", own), ("shop", "y", filtered)]).server.access_log, on(&["b"]));
    let off = "{accessLogging: [{providers: [{name: envoy}], disabled: true}]}";
    assert_eq!(resolved(&[(ROOT, "x", own), ("shop", "y", off)]).server.access_log, AccessLogRule::Off);
    let mut silent = MeshSettings { access_log: AccessLogFormat::Off, ..MeshSettings::default() };
    assert_eq!(resolved_in(&silent, &[], &[(ROOT, "x", own)]).server.access_log, on(&["a"]));
    assert_eq!(resolved_in(&silent, &[], &[(ROOT, "x", filtered)]).server.access_log, AccessLogRule::Off);
    silent.extension_providers.push(mesh_api::model::ExtensionProvider {
        name: "otel".to_owned(),
        kind: ProviderKind::Other("envoyFileAccessLog".to_owned()),
    });
    assert_eq!(resolved_in(&silent, &[], &[(ROOT, "x", foreign)]).server.access_log, on(&[]));
    let both = "{accessLogging: [{providers: [{name: envoy}, {name: otel}], filter: {expression: c}}]}";
    assert_eq!(resolved_in(&silent, &[], &[(ROOT, "x", both)]).server.access_log, on(&["c", "c"]));
    let open = "{accessLogging: [{providers: [{name: envoy}], filter: {expression: c}}, {providers: [{name: otel}]}]}";
    assert_eq!(resolved_in(&silent, &[], &[(ROOT, "x", open)]).server.access_log, on(&[]));
}

#[test]
fn of_several_for_a_namespace_the_oldest_speaks_and_all_that_select_do() {
    let specs = [
        ("shop", "b", "{accessLogging: [{filter: {expression: old}}]}"),
        ("shop", "a", "{accessLogging: [{filter: {expression: young}}]}"),
    ];
    assert_eq!(resolved(&specs).server.access_log, on(&["old"]));
    let narrow = [
        specs[0],
        ("shop", "c", "{selector: {matchLabels: {app: a}}, accessLogging: [{filter: {expression: first}}]}"),
        ("shop", "d", "{selector: {matchLabels: {app: a}}, accessLogging: [{filter: {expression: second}}]}"),
        (
            ROOT,
            "e",
            "{selector: {matchLabels: {app: a}}, accessLogging: [{filter: {expression: elsewhere}}]}",
        ),
        (
            "shop",
            "f",
            "{targetRefs: [{kind: Service, name: a}], accessLogging: [{filter: {expression: way}}]}",
        ),
    ];
    assert_eq!(resolved(&narrow).server.access_log, on(&["second"]));
}

#[test]
fn overrides_of_metrics_are_merged_deeply() {
    let upsert = |text: &str| TagOverride::Upsert(text.to_owned());
    let merged = resolved(&[
        (
            ROOT,
            "x",
            "{metrics: [{providers: [{name: prometheus}], overrides: [
              {tagOverrides: {a: {value: request.host}, b: {operation: REMOVE}}},
              {match: {metric: REQUEST_SIZE}, disabled: true}, {match: {metric: RESPONSE_SIZE, mode: CLIENT}, disabled: true}]}]}",
        ),
        (
            "shop",
            "y",
            "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {a: {operation: REMOVE}, c: {value: \"'x'\"}}},
              {match: {metric: REQUEST_SIZE}, disabled: false}, {match: {customMetric: mine}, disabled: true}]}]}",
        ),
    ]);
    let server = &merged.server;
    assert!(server.disabled_metrics.is_empty(), "{server:?}");
    assert_eq!(merged.client.disabled_metrics.iter().collect::<Vec<_>>(), [&StandardMetric::ResponseSize]);
    let count = &server.tags[&StandardMetric::RequestCount];
    assert_eq!(
        (&count["a"], &count["b"], &count["c"]),
        (&TagOverride::Remove, &TagOverride::Remove, &upsert("'x'"))
    );
    assert_eq!(server.tags[&StandardMetric::TcpSentBytes]["a"], upsert("request.host"));
}

#[test]
fn all_metrics_can_be_off_and_one_on_again() {
    let off = (ROOT, "x", "{metrics: [{overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]}");
    assert_eq!(resolved(&[off]).server.disabled_metrics.len(), StandardMetric::ALL.len());
    let on = (
        "shop",
        "y",
        "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: false}]}]}",
    );
    let merged = resolved(&[off, on]);
    assert!(!merged.server.disabled_metrics.contains(&StandardMetric::RequestCount));
    assert!(merged.client.disabled_metrics.contains(&StandardMetric::RequestCount));
    let elsewhere = (ROOT, "x", "{metrics: [{providers: [{name: stackdriver}]}]}");
    assert_eq!(resolved(&[elsewhere]).client.disabled_metrics.len(), StandardMetric::ALL.len());
}

#[test]
fn fields_of_tracing_overwrite_one_another() {
    let merged = resolved(&[
        (
            ROOT,
            "x",
            "{tracing: [{providers: [{name: zipkin}], randomSamplingPercentage: 54.54, customTags: {a: {literal: {value: b}}}}]}",
        ),
        (
            "shop",
            "y",
            "{tracing: [{match: {mode: SERVER}, disableSpanReporting: true, customTags: {c: {header: {name: d}}}}]}",
        ),
    ]);
    let (client, server) = (&merged.client.tracing, &merged.server.tracing);
    assert_eq!((client.provider.as_deref(), client.sampling_ppm), (Some("zipkin"), Some(545_400)));
    assert!(!client.is_silent && server.is_silent);
    assert_eq!(server.custom_tags.keys().collect::<Vec<_>>(), ["c"]);
    assert_eq!(client.custom_tags.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(server.sampling_ppm, Some(545_400));
}

#[test]
fn providers_that_the_settings_name_hold_where_telemetry_names_none() {
    let mut mesh = MeshSettings { access_log: AccessLogFormat::Off, ..MeshSettings::default() };
    mesh.default_providers.access_logging = vec!["envoy".to_owned()];
    mesh.default_providers.tracing = vec!["zipkin".to_owned()];
    let plain = resolved_in(&mesh, &[], &[]);
    assert_eq!((&plain.server.access_log, plain.server.disabled_metrics.len()), (&on(&[]), 0));
    assert_eq!(plain.client.tracing.provider.as_deref(), Some("zipkin"));
    let filtered = (ROOT, "x", "{accessLogging: [{filter: {expression: a}}]}");
    assert_eq!(resolved_in(&mesh, &[], &[filtered]).server.access_log, on(&["a"]));
    mesh.default_providers.access_logging = vec!["otel".to_owned()];
    mesh.default_providers.metrics = vec!["stackdriver".to_owned()];
    let elsewhere = resolved_in(&mesh, &[], &[]);
    assert_eq!(elsewhere.server.access_log, AccessLogRule::Off);
    assert_eq!(elsewhere.server.disabled_metrics.len(), StandardMetric::ALL.len());
    let own = (
        ROOT,
        "x",
        "{metrics: [{providers: [{name: prometheus}]}], accessLogging: [{providers: [{name: envoy}]}]}",
    );
    let back = resolved_in(&mesh, &[], &[own]);
    assert_eq!((&back.server.access_log, back.server.disabled_metrics.len()), (&on(&[]), 0));
}
