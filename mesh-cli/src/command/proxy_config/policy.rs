//! `proxy-config policy`: everything that decides who may call the workload, as its proxy has it.

use mesh_api::admin::PolicyStatus;
use mesh_api::model::{MtlsMode, ObjectMeta, Selector};

use crate::command::x_authz;
use crate::output;

/// Prints policies, then the mutual-TLS modes that follow from them. `namespace` is the workload's.
pub(super) fn table(status: &PolicyStatus, namespace: &str) {
    let policies = &status.policies;
    let row = |meta: &ObjectMeta, action: String, selector: &Selector, detail: String| {
        let object = &meta.object;
        let place = [object.namespace.to_string(), object.name.to_string(), object.kind.to_string()];
        let scope = scope(meta, selector, namespace).to_owned();
        place.into_iter().chain([action, scope, detail]).collect::<Vec<String>>()
    };
    let mut rows = Vec::new();
    for policy in &policies.authorization {
        let rules = output::count(policy.rules.len(), "rule", "rules");
        rows.push(row(&policy.meta, x_authz::action(policy), &policy.selector, rules));
    }
    for policy in &policies.peer {
        let mode = policy.mode.map_or("UNSET", MtlsMode::as_str).to_owned();
        let ports = match policy.port_level.len() {
            0 => "-".to_owned(),
            number => output::count(number, "port", "ports"),
        };
        rows.push(row(&policy.meta, mode, &policy.selector, ports));
    }
    for policy in &policies.request {
        let rules = output::count(policy.jwt_rules.len(), "issuer", "issuers");
        rows.push(row(&policy.meta, "JWT".to_owned(), &policy.selector, rules));
    }
    if rows.is_empty() {
        output::note("no policy selects this workload");
    } else {
        output::table(&["NAMESPACE", "POLICY NAME", "KIND", "ACTION", "SCOPE", "DETAIL"], &rows);
        output::line("");
    }
    for (source, set) in &policies.key_sets {
        match &set.jwks {
            Some(jwks) => output::line(&format!("Keys of {source}: {}", key_ids(jwks))),
            None => {
                output::line(&format!("Keys of {source}: {}", output::bad(&format!("none: {}", set.problem))))
            }
        }
    }
    let ports: Vec<String> =
        status.mtls_ports.iter().map(|(port, mode)| format!("{port}: {}", mode.as_str())).collect();
    let ports = if ports.is_empty() { String::new() } else { format!(" (by port: {})", ports.join(", ")) };
    output::line(&format!("Workload mTLS mode: {}{ports}", status.mtls.as_str()));
}

/// The keys of a JWKS by their names; they say which generation of keys a proxy has.
fn key_ids(jwks: &str) -> String {
    let document: serde_json::Value = serde_json::from_str(jwks).unwrap_or_default();
    let keys = document.get("keys").and_then(serde_json::Value::as_array);
    let name = |key: &serde_json::Value| {
        let text = |member: &str| key.get(member).and_then(serde_json::Value::as_str);
        // The issuer's words, on somebody's terminal.
        text("kid").or(text("kty")).unwrap_or("-").escape_debug().to_string()
    };
    keys.into_iter().flatten().map(name).collect::<Vec<_>>().join(", ")
}

/// How far a policy reaches: only the root namespace reaches into another one.
fn scope(meta: &ObjectMeta, selector: &Selector, namespace: &str) -> &'static str {
    match (selector.is_empty(), meta.object.namespace.as_str() == namespace) {
        (false, _) => "WorkloadSelector",
        (true, true) => "Namespace",
        (true, false) => "RootNamespace",
    }
}
