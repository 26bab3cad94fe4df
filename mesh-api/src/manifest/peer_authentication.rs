//! PeerAuthentication (SEMANTICS section 3).

use std::collections::BTreeMap;

use super::input::Input;
use super::meta;
use super::report::Report;
use super::tree::{Found, Place};
use crate::model::{MtlsMode, PeerAuthentication};

/// Modes as YAML writes them; `UNSET` inherits.
const MODES: [(&str, Option<MtlsMode>); 4] = [
    ("STRICT", Some(MtlsMode::Strict)),
    ("PERMISSIVE", Some(MtlsMode::Permissive)),
    ("DISABLE", Some(MtlsMode::Disable)),
    ("UNSET", None),
];

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> PeerAuthentication {
    let spec = input.spec.fields(&["selector", "mtls", "portLevelMtls"], report);
    let selector = meta::selector(spec, report);
    let mode = spec.get("mtls").and_then(|place| mode(place, report));
    let mut port_level = BTreeMap::new();
    if let Some(place) = spec.get("portLevelMtls") {
        for entry in place.entries(report) {
            let mode = self::mode(entry, report);
            if let Some(port) = port(entry, report)
                && port_level.insert(port, mode).is_some()
            {
                report.error(entry, format!("port {port} stands twice"), "Remove one of the two.");
            }
        }
        if selector.is_empty() {
            let hint = "Add selector.matchLabels, or use spec.mtls for the whole namespace.";
            let message = "portLevelMtls requires selector.matchLabels: a mode of the mesh or namespace \
                           cannot have port level mTLS";
            report.error(place, message, hint);
        }
        if matches!(place.found(), Found::Map) && place.children().len() == 0 {
            let message = "must not be empty: if defined, it must have at least one port";
            report.error(place, message, "Remove it, or state a mode for a port.");
        }
    }
    PeerAuthentication { meta: input.meta, selector, mode, port_level }
}

fn mode(place: Place<'_>, report: &mut Report) -> Option<MtlsMode> {
    if let Found::Scalar(super::scalar::ScalarType::Text, text) = place.found() {
        report.error(
            place,
            "must be a map with a mode",
            format!("Write {{mode: {}}}.", super::report::shortened(text)),
        );
        return None;
    }
    let mtls = place.fields(&["mode"], report);
    mtls.get("mode").and_then(|place| place.choice(&MODES, report)).flatten()
}

/// The key of `portLevelMtls`: the workload's own port (SEMANTICS 3.2, TRAP 7).
fn port(entry: Place<'_>, report: &mut Report) -> Option<u16> {
    let is_decimal = entry.name().bytes().all(|b| b.is_ascii_digit());
    match entry.name().parse::<u16>() {
        Ok(port) if port > 0 && is_decimal => Some(port),
        Ok(_) | Err(_) => {
            report.error(
                entry,
                "port must be in range 1..65535",
                "Write the port that the workload listens on.",
            );
            None
        }
    }
}
