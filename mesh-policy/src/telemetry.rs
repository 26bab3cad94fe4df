//! What a workload logs, counts and traces (SEMANTICS 9.2), and the expressions by which it chooses.
//!
//! One Telemetry without selector speaks for the mesh, one for the namespace, then those that select the
//! workload, each over what came before. Of several without selector at one level the oldest speaks, as with
//! PeerAuthentication. Everything is merged here, once, so that a proxy is sent what holds and no rules to find
//! it by.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::model::telemetry::{
    AccessLogRule, AccessLogging, MetricSelector, Metrics, Side, SideTelemetry, StandardMetric, TagOverride,
    Telemetry, Tracing, TracingRule, WorkloadTelemetry,
};
use mesh_api::model::{AccessLogFormat, MeshSettings, ProviderKind};

use crate::select::{self, Subject};

pub mod expression;

pub use expression::{Attribute, AttributeSource, Program, Value};

/// The provider that is the proxies' own access log: Istio's built-in one, writing to standard output.
const OWN_LOG: &str = "envoy";
/// The provider that is the proxies' own metrics.
const OWN_METRICS: &str = "prometheus";

/// Telemetry of `subject`, from the objects of the mesh; those that do not concern it may be among them.
#[must_use]
pub fn resolve(mesh: &MeshSettings, subject: &Subject<'_>, objects: &[Arc<Telemetry>]) -> WorkloadTelemetry {
    let chain = relevant(mesh, subject, objects);
    let mut resolved = WorkloadTelemetry::default();
    for side in Side::ALL {
        // A gateway is nobody's server: all it does is call (SEMANTICS 9.2).
        let judged = if subject.gateway_name().is_some() { Side::Client } else { side };
        *resolved.side_mut(side) = side_telemetry(mesh, judged, &chain);
    }
    resolved
}

/// The objects among `objects` that speak for `subject`, the wider ones first.
#[must_use]
pub fn relevant(
    mesh: &MeshSettings,
    subject: &Subject<'_>,
    objects: &[Arc<Telemetry>],
) -> Vec<Arc<Telemetry>> {
    let mut sorted: Vec<&Arc<Telemetry>> = objects.iter().collect();
    sorted.sort_by(|a, b| a.meta.age_key().cmp(&b.meta.age_key()));
    let is_wide = |object: &Telemetry| object.selector.is_empty() && object.targets.is_empty();
    let mut levels = vec![&mesh.root_namespace];
    if *subject.namespace != mesh.root_namespace {
        levels.push(subject.namespace);
    }
    let wide = levels.into_iter().filter_map(|namespace| {
        sorted.iter().find(|object| object.meta.object.namespace == *namespace && is_wide(object)).copied()
    });
    let narrow = sorted.iter().copied().filter(|object| {
        !is_wide(object)
            && object.meta.object.namespace == *subject.namespace
            && select::applies(mesh, subject, &object.meta, &object.selector, &object.targets)
    });
    wide.chain(narrow).cloned().collect()
}

fn side_telemetry(mesh: &MeshSettings, side: Side, chain: &[Arc<Telemetry>]) -> SideTelemetry {
    let (disabled_metrics, tags) = metrics(mesh, side, chain);
    SideTelemetry {
        access_log: access_log(mesh, side, chain),
        disabled_metrics: disabled_metrics.into_iter().collect(),
        tags,
        tracing: tracing(mesh, side, chain),
    }
}

/// Whether a provider is one of the settings of the mesh, by Istio's field name.
fn is_provider(mesh: &MeshSettings, name: &str, kind: &str) -> bool {
    let provider = mesh.extension_providers.iter().find(|provider| provider.name == name);
    provider.is_some_and(|provider| matches!(&provider.kind, ProviderKind::Other(found) if found == kind))
}

fn is_own_log(mesh: &MeshSettings, name: &str) -> bool {
    name == OWN_LOG || is_provider(mesh, name, "envoyFileAccessLog")
}

/// Entries inherit the providers of the entry before them; those that the narrowest level names are the only
/// ones in scope.
fn access_log(mesh: &MeshSettings, side: Side, chain: &[Arc<Telemetry>]) -> AccessLogRule {
    let stated = &mesh.default_providers.access_logging;
    let is_silent = chain.iter().all(|object| object.access_logging.is_empty());
    if is_silent && stated.is_empty() {
        return AccessLogRule::OfMesh;
    }
    // The log that the settings turn on is what entries without a name are about.
    let default = match mesh.access_log {
        _ if !stated.is_empty() => stated.clone(),
        AccessLogFormat::Off => Vec::new(),
        AccessLogFormat::Json | AccessLogFormat::Text => vec![OWN_LOG.to_owned()],
    };
    let mut in_scope = default.clone();
    for object in chain {
        let entries = object.access_logging.iter().filter(|entry| entry.mode.covers(side));
        let named: Vec<String> = entries.flat_map(|entry| entry.providers.clone()).collect();
        if !named.is_empty() {
            in_scope = named;
        }
    }
    let mut inherited = default;
    let mut logs: BTreeMap<String, Option<String>> = BTreeMap::new();
    if is_silent {
        take_in(&AccessLogging::default(), inherited.iter(), &mut logs);
    }
    for entry in chain.iter().flat_map(|object| &object.access_logging) {
        if !entry.providers.is_empty() {
            inherited.clone_from(&entry.providers);
        }
        if entry.mode.covers(side) {
            take_in(entry, inherited.iter().filter(|name| in_scope.contains(name)), &mut logs);
        }
    }
    let own: Vec<Option<String>> =
        logs.into_iter().filter(|(name, _)| is_own_log(mesh, name)).map(|(_, filter)| filter).collect();
    match own.is_empty() {
        true => AccessLogRule::Off,
        // One that takes every record makes the filters of the others idle: there is one log here.
        false => AccessLogRule::On(own.into_iter().collect::<Option<Vec<String>>>().unwrap_or_default()),
    }
}

fn take_in<'n>(
    entry: &AccessLogging,
    names: impl Iterator<Item = &'n String>,
    logs: &mut BTreeMap<String, Option<String>>,
) {
    for name in names {
        if entry.disabled {
            logs.remove(name);
        } else {
            logs.insert(name.clone(), entry.filter.clone());
        }
    }
}

type Tags = BTreeMap<StandardMetric, BTreeMap<String, TagOverride>>;

/// Metrics that are off, and changes to labels of the others.
fn metrics(mesh: &MeshSettings, side: Side, chain: &[Arc<Telemetry>]) -> (Vec<StandardMetric>, Tags) {
    let is_own = |name: &String| *name == OWN_METRICS || is_provider(mesh, name, "prometheus");
    let entries = || chain.iter().flat_map(|object| &object.metrics);
    let default = &mesh.default_providers.metrics;
    let is_default_own = default.is_empty() || default.iter().any(is_own);
    let named = entries().rfind(|entry| !entry.providers.is_empty());
    let is_counted = named.map_or(is_default_own, |entry: &Metrics| entry.providers.iter().any(is_own));
    if !is_counted {
        return (StandardMetric::ALL.to_vec(), Tags::new());
    }
    let mut is_disabled: BTreeMap<StandardMetric, bool> = BTreeMap::new();
    let mut tags = Tags::new();
    let mut is_inherited_own = is_default_own;
    for entry in entries() {
        if !entry.providers.is_empty() {
            is_inherited_own = entry.providers.iter().any(is_own);
        }
        let overrides = entry.overrides.iter().filter(|change| is_inherited_own && change.mode.covers(side));
        for change in overrides {
            for metric in selected(&change.metric) {
                if let Some(disabled) = change.disabled {
                    is_disabled.insert(*metric, disabled);
                }
                if !change.tags.is_empty() {
                    let merged = tags.entry(*metric).or_default();
                    merged.extend(change.tags.iter().map(|(name, tag)| (name.clone(), tag.clone())));
                }
            }
        }
    }
    let disabled = is_disabled.into_iter().filter(|(_, is_off)| *is_off).map(|(metric, _)| metric);
    (disabled.collect(), tags)
}

fn selected(selector: &MetricSelector) -> &[StandardMetric] {
    match selector {
        MetricSelector::All => &StandardMetric::ALL,
        MetricSelector::Standard(metric) => std::slice::from_ref(metric),
        MetricSelector::Custom(_) => &[],
    }
}

/// Later fields overwrite; tags are replaced as a whole.
fn tracing(mesh: &MeshSettings, side: Side, chain: &[Arc<Telemetry>]) -> TracingRule {
    let default = mesh.default_providers.tracing.first().cloned();
    let mut rule = TracingRule { provider: default, ..TracingRule::default() };
    let entries = chain.iter().flat_map(|object| &object.tracing).filter(|entry| entry.mode.covers(side));
    for Tracing {
        providers,
        mode: _,
        sampling_ppm,
        disable_span_reporting,
        custom_tags,
        use_request_id,
        enable_istio_tags,
    } in entries
    {
        if let Some(provider) = providers.first() {
            rule.provider = Some(provider.clone());
        }
        rule.sampling_ppm = sampling_ppm.or(rule.sampling_ppm);
        rule.is_silent = disable_span_reporting.unwrap_or(rule.is_silent);
        if let Some(tags) = custom_tags {
            rule.custom_tags.clone_from(tags);
        }
        rule.use_request_id = use_request_id.or(rule.use_request_id);
        rule.enable_istio_tags = enable_istio_tags.or(rule.enable_istio_tags);
    }
    rule
}

#[cfg(test)]
mod tests;
