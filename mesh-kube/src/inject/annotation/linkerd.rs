//! Linkerd's annotations (`config.linkerd.io/…`), which stand on a pod or on its namespace.

use std::collections::BTreeMap;

use super::{Apply, list, on_or_off, quantity};
use crate::inject::seconds::Seconds;
use crate::inject::settings::NativeSidecars;

const PREFIXES: [&str; 3] = ["config.linkerd.io/", "config.alpha.linkerd.io/", "config.beta.linkerd.io/"];

/// Annotations that are honoured.
pub(super) const HONOURED: &[(&str, Apply)] = &[
    ("config.linkerd.io/skip-inbound-ports", |effective, value, _| {
        effective.traffic.exclude_inbound_ports.extend(list::port_ranges(value)?);
        Ok(())
    }),
    ("config.linkerd.io/skip-outbound-ports", |effective, value, _| {
        effective.traffic.exclude_outbound_ports.extend(list::port_ranges(value)?);
        Ok(())
    }),
    ("config.linkerd.io/skip-subnets", |effective, value, _| {
        effective.traffic.exclude_outbound_cidrs.extend(list::cidrs(value)?);
        Ok(())
    }),
    ("config.linkerd.io/proxy-cpu-request", |effective, value, _| {
        effective.cpu.request = quantity(value)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-cpu-limit", |effective, value, _| {
        effective.cpu.limit = quantity(value)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-memory-request", |effective, value, _| {
        effective.memory.request = quantity(value)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-memory-limit", |effective, value, _| {
        effective.memory.limit = quantity(value)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-log-level", |effective, value, warnings| {
        effective.log_level = level(value, warnings)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-await", |effective, value, _| {
        effective.is_held = on_or_off(value)?;
        Ok(())
    }),
    ("config.linkerd.io/proxy-enable-native-sidecar", set_native),
    ("config.alpha.linkerd.io/proxy-enable-native-sidecar", set_native),
    ("config.beta.linkerd.io/proxy-enable-native-sidecar", set_native),
    ("config.linkerd.io/shutdown-grace-period", |effective, value, _| {
        effective.drain = Seconds::parse(value).map_err(|error| error.to_string())?;
        Ok(())
    }),
];

fn set_native(
    effective: &mut super::Effective,
    value: &str,
    _warnings: &mut Vec<String>,
) -> Result<(), String> {
    effective.native_sidecars =
        if on_or_off(value)? { NativeSidecars::Always } else { NativeSidecars::Never };
    Ok(())
}

/// Linkerd's annotations of a pod, and those of its namespace that the pod does not have itself.
pub(super) fn merged(
    namespace: &BTreeMap<String, String>,
    pod: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let of_namespace = namespace.iter().chain(pod);
    let theirs = of_namespace.filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)));
    theirs.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Tells of annotations that change nothing here.
pub(super) fn warn(annotations: &BTreeMap<String, String>, warnings: &mut Vec<String>) {
    for key in annotations.keys() {
        let is_theirs = PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        if !is_theirs || HONOURED.iter().any(|(honoured, _)| honoured == key) {
            continue;
        }
        let advice = match key.as_str() {
            "config.linkerd.io/opaque-ports" => {
                "; name the Service's port tcp-… or set its appProtocol: tcp instead"
            }
            _ => "",
        };
        warnings.push(format!("the annotation {key} has no effect in this mesh{advice}"));
    }
}

/// The level out of a filter of Linkerd's proxy (`warn,linkerd=info`), whose modules this proxy does not have.
fn level(value: &str, warnings: &mut Vec<String>) -> Result<String, String> {
    let mut parts = value.split(',').map(str::trim);
    let plain = parts.clone().find(|part| !part.contains('='));
    let is_level = |text: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&text);
    match plain {
        Some(level) if is_level(level) => {
            if parts.any(|part| part.contains('=')) {
                warnings.push(format!(
                    "of the annotation config.linkerd.io/proxy-log-level only the level {level:?} has an effect"
                ));
            }
            Ok(level.to_owned())
        }
        Some(_) | None => Err("must have a level: off, error, warn, info, debug or trace".to_owned()),
    }
}
