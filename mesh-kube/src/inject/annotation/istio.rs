//! Istio's annotations, and its `proxy.istio.io/config`.
//!
//! Reference: <https://istio.io/latest/docs/reference/config/annotations/> and
//! <https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#ProxyConfig>.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Apply, Effective, list, number, quantity, truth};
use crate::inject::seconds::Seconds;
use crate::inject::settings::NativeSidecars;

/// Annotations that are honoured.
pub(super) const HONOURED: &[(&str, Apply)] = &[
    ("proxy.istio.io/config", proxy_config),
    ("traffic.sidecar.istio.io/includeInboundPorts", |effective, value, _| {
        effective.traffic.include_inbound_ports = list::included_ports(value)?;
        Ok(())
    }),
    ("traffic.sidecar.istio.io/excludeInboundPorts", |effective, value, _| {
        effective.traffic.exclude_inbound_ports.extend(list::ports(value)?);
        Ok(())
    }),
    ("traffic.sidecar.istio.io/includeOutboundPorts", |effective, value, _| {
        effective.traffic.include_outbound_ports = list::included_ports(value)?;
        Ok(())
    }),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", |effective, value, _| {
        effective.traffic.exclude_outbound_ports.extend(list::ports(value)?);
        Ok(())
    }),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", |effective, value, _| {
        effective.traffic.include_outbound_cidrs = list::included_cidrs(value)?;
        Ok(())
    }),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", |effective, value, _| {
        effective.traffic.exclude_outbound_cidrs.extend(list::cidrs(value)?);
        Ok(())
    }),
    ("sidecar.istio.io/proxyImage", |effective, value, _| {
        if value.is_empty() || value.contains(char::is_whitespace) {
            return Err("must be the reference of an image".to_owned());
        }
        value.clone_into(&mut effective.image);
        Ok(())
    }),
    ("sidecar.istio.io/proxyCPU", |effective, value, _| {
        effective.cpu.request = quantity(value)?;
        Ok(())
    }),
    ("sidecar.istio.io/proxyCPULimit", |effective, value, _| {
        effective.cpu.limit = quantity(value)?;
        Ok(())
    }),
    ("sidecar.istio.io/proxyMemory", |effective, value, _| {
        effective.memory.request = quantity(value)?;
        Ok(())
    }),
    ("sidecar.istio.io/proxyMemoryLimit", |effective, value, _| {
        effective.memory.limit = quantity(value)?;
        Ok(())
    }),
    ("sidecar.istio.io/logLevel", |effective, value, warnings| {
        effective.log_level = level(value, warnings)?;
        Ok(())
    }),
    ("sidecar.istio.io/nativeSidecar", |effective, value, _| {
        effective.native_sidecars =
            if truth(value)? { NativeSidecars::Always } else { NativeSidecars::Never };
        Ok(())
    }),
    ("sidecar.istio.io/rewriteAppHTTPProbers", |effective, value, _| {
        effective.rewrites_probes = truth(value)?;
        Ok(())
    }),
    ("sidecar.istio.io/interceptionMode", |_, value, warnings| match value {
        "REDIRECT" => Ok(()),
        "TPROXY" => {
            warnings.push(
                "sidecar.istio.io/interceptionMode: TPROXY has no effect; traffic is redirected and \
                 the application sees its proxy as the caller"
                    .to_owned(),
            );
            Ok(())
        }
        "NONE" => {
            Err("is not served: a pod of the mesh has its traffic captured; exclude ports instead, or \
             turn injection off"
                .to_owned())
        }
        _ => Err("must be REDIRECT".to_owned()),
    }),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", |effective, value, _| {
        effective.readiness.initial_delay_seconds = number(value, 0)?;
        Ok(())
    }),
    ("readiness.status.sidecar.istio.io/periodSeconds", |effective, value, _| {
        effective.readiness.period_seconds = number(value, 1)?;
        Ok(())
    }),
    ("readiness.status.sidecar.istio.io/failureThreshold", |effective, value, _| {
        effective.readiness.failure_threshold = number(value, 1)?;
        Ok(())
    }),
];

/// Annotations of a pod that Istio heeds and this mesh does not.
const NOT_HONOURED: &[&str] = &[
    "inject.istio.io/templates",
    "prometheus.istio.io/merge-metrics",
    "proxy.istio.io/overrides",
    "readiness.status.sidecar.istio.io/applicationPorts",
    "sidecar.istio.io/agentLogLevel",
    "sidecar.istio.io/bootstrapOverride",
    "sidecar.istio.io/componentLogLevel",
    "sidecar.istio.io/controlPlaneAuthPolicy",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/enableCoreDump",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/proxyImageType",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsHistogramBuckets",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "sidecar.istio.io/userVolume",
    "sidecar.istio.io/userVolumeMount",
    "status.sidecar.istio.io/port",
    "traffic.sidecar.istio.io/excludeInterfaces",
    "traffic.sidecar.istio.io/kubevirtInterfaces",
    "istio.io/reroute-virtual-interfaces",
];

/// Tells of annotations that change nothing here.
pub(super) fn warn(annotations: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
    for key in NOT_HONOURED.iter().filter(|key| annotations.contains_key(**key)) {
        warnings.push(format!("the annotation {key} has no effect in this mesh"));
    }
}

fn level(value: &str, warnings: &mut Vec<String>) -> Result<String, String> {
    let mut plain = None;
    for part in value.split(',').map(str::trim) {
        if part.contains(':') {
            warnings.push(format!(
                "{part:?} of the annotation sidecar.istio.io/logLevel has no effect: this proxy has no such scopes"
            ));
        } else {
            plain = Some(part);
        }
    }
    match plain {
        Some(level @ ("off" | "error" | "info" | "debug" | "trace")) => Ok(level.to_owned()),
        Some("warning" | "warn") => Ok("warn".to_owned()),
        Some("critical" | "none") => Ok("error".to_owned()),
        Some(_) | None => Err("must have a level: trace, debug, info, warning, error or off".to_owned()),
    }
}

/// `proxy.istio.io/config`: YAML of Istio's ProxyConfig.
fn proxy_config(effective: &mut Effective, text: &str, warnings: &mut Vec<String>) -> Result<(), String> {
    const BYTES_MAX: usize = 64 * 1024;
    if text.len() > BYTES_MAX {
        return Err(format!("must be no longer than {} KiB", BYTES_MAX / 1024));
    }
    if text.trim().is_empty() {
        return Ok(());
    }
    let options = serde_saphyr::options! { with_snippet: false };
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("this is not YAML: {error}"))?;
    let Value::Object(fields) = value else {
        return Err("must be an object of ProxyConfig's fields".to_owned());
    };
    for (field, value) in &fields {
        match (field.as_str(), value) {
            ("holdApplicationUntilProxyStarts", Value::Bool(is_held)) => effective.is_held = *is_held,
            ("concurrency", Value::Number(number)) => effective.workers = workers(number.as_u64())?,
            ("terminationDrainDuration", Value::String(text)) => {
                effective.drain = Seconds::parse(text).map_err(|error| format!("{field}: {error}"))?;
            }
            ("proxyMetadata", Value::Object(entries)) => metadata(effective, entries, warnings)?,
            ("holdApplicationUntilProxyStarts", _) => return Err(format!("{field} must be true or false")),
            ("concurrency", _) => return Err(format!("{field} must be a number")),
            ("terminationDrainDuration", _) => return Err(format!("{field} must be a time such as 30s")),
            ("proxyMetadata", _) => return Err(format!("{field} must be an object")),
            (_, _) => warnings.push(format!(
                "{field:?} of the annotation proxy.istio.io/config has no effect in this mesh"
            )),
        }
    }
    Ok(())
}

/// Istio's `concurrency`: 0 stands for one thread for each processor of the machine, which is the proxy's own
/// choice here.
fn workers(number: Option<u64>) -> Result<Option<u16>, String> {
    match number.map(u16::try_from) {
        Some(Ok(0)) => Ok(None),
        Some(Ok(workers)) if workers <= 1_024 => Ok(Some(workers)),
        Some(Ok(_) | Err(_)) | None => Err("concurrency must be from 0 to 1024".to_owned()),
    }
}

fn metadata(
    effective: &mut Effective,
    entries: &serde_json::Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<(), String> {
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("ISTIO_META_DNS_CAPTURE", Value::Bool(captures)) => effective.captures_dns = *captures,
            ("ISTIO_META_DNS_CAPTURE", Value::String(text)) => {
                effective.captures_dns =
                    truth(text).map_err(|reason| format!("proxyMetadata.{key} {reason}"))?;
            }
            // Services without an address always get one here.
            ("ISTIO_META_DNS_AUTO_ALLOCATE", _) => {}
            (_, _) => warnings.push(format!(
                "proxyMetadata.{key} of the annotation proxy.istio.io/config has no effect in this mesh"
            )),
        }
    }
    Ok(())
}
