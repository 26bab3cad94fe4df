//! The lines of `describe` (pure): indentation and words are istioctl's.

use std::collections::BTreeMap;

use mesh_api::model::traffic::TrafficPolicy;
use mesh_api::model::{
    Action, AuthorizationPolicy, DestinationRule, ObjectRef, Service, ServicePort, VirtualService, Workload,
};
use mesh_policy::peer_authentication;
use mesh_policy::select::{self, Subject};
use serde_json::{Value, json};

use crate::command::objects::collected::Collected;

/// What divides sections.
const RULE: &str = "--------------------";

/// A workload.
pub(super) fn workload(workload: &Workload, all: &Collected) -> Vec<String> {
    let object = &workload.meta.object;
    let trust_domain = &all.settings.trust_domain;
    let mut lines = vec![format!("Pod: {}.{}", object.name, object.namespace)];
    let addresses: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
    lines.push(format!("   Pod Addresses: {}", addresses.join(", ")));
    lines.push(format!("   Pod Ports: {}", ports(workload, all)));
    lines.push(format!(
        "   Identity: spiffe://{trust_domain}/ns/{}/sa/{}",
        object.namespace, workload.service_account
    ));
    if !workload.meshed {
        lines.push("WARNING: this workload is outside of the mesh: no proxy stands before it".to_owned());
    }
    let services: Vec<&Service> = services_of(workload, all).collect();
    for service in &services {
        lines.push(RULE.to_owned());
        lines.extend(service_lines(service, Some(workload), all));
    }
    if services.is_empty() {
        lines.push(RULE.to_owned());
        lines.push("No Service selects this workload".to_owned());
    }
    lines.push(RULE.to_owned());
    if workload.meshed {
        lines.extend(policies(workload, all));
    } else {
        lines.push("No policy is enforced, since there is no proxy".to_owned());
    }
    lines
}

/// A service.
pub(super) fn service(service: &Service, all: &Collected) -> Vec<String> {
    let mut lines = service_lines(service, None, all);
    let behind: Vec<&Workload> = all
        .workloads
        .iter()
        .map(AsRef::as_ref)
        .filter(|workload| serves(service, workload))
        .chain(&service.endpoints)
        .collect();
    lines.push(RULE.to_owned());
    if behind.is_empty() {
        lines.push("WARNING: no workload is behind this service".to_owned());
    }
    for workload in behind {
        let object = &workload.meta.object;
        let addresses: Vec<String> = workload.addresses.iter().map(ToString::to_string).collect();
        lines.push(format!("Pod: {}.{} ({})", object.name, object.namespace, addresses.join(", ")));
    }
    lines
}

fn serves(service: &Service, workload: &Workload) -> bool {
    service.meta.object.namespace == workload.meta.object.namespace
        && service.selector.as_ref().is_some_and(|s| !s.is_empty() && s.selects(&workload.labels))
}

fn services_of<'a>(workload: &'a Workload, all: &'a Collected) -> impl Iterator<Item = &'a Service> {
    all.services.iter().map(AsRef::as_ref).filter(|service| serves(service, workload))
}

fn target_port(port: &ServicePort, workload: Option<&Workload>) -> u16 {
    let named = port.target_port_name.as_ref();
    named.and_then(|name| workload?.ports.get(name)).copied().unwrap_or(port.target_port)
}

/// Ports that services or the workload itself declare: `8080 (http), 9090 (grpc)`.
fn ports(workload: &Workload, all: &Collected) -> String {
    let mut ports: BTreeMap<u16, &str> = BTreeMap::new();
    for service in services_of(workload, all) {
        for port in &service.ports {
            ports.entry(target_port(port, Some(workload))).or_insert(&port.name);
        }
    }
    for (name, port) in &workload.ports {
        ports.insert(*port, name);
    }
    let text: Vec<String> = ports
        .into_iter()
        .map(|(port, name)| if name.is_empty() { port.to_string() } else { format!("{port} ({name})") })
        .collect();
    if text.is_empty() { "none declared".to_owned() } else { text.join(", ") }
}

fn service_lines(service: &Service, workload: Option<&Workload>, all: &Collected) -> Vec<String> {
    let object = &service.meta.object;
    let mut lines = vec![format!("Service: {}.{}", object.name, object.namespace)];
    for port in &service.ports {
        let name = if port.name.is_empty() { String::new() } else { format!("{} ", port.name) };
        let target = target_port(port, workload);
        lines.push(format!(
            "   Port: {name}{}/{} targets pod port {target}",
            port.port,
            port.protocol.as_str()
        ));
    }
    let names = |host: &mesh_api::name::Host| service.hosts.iter().any(|known| host.covers(known.as_str()));
    for rule in all.destination_rules.iter().filter(|rule| names(&rule.host)) {
        lines.extend(destination_rule(rule, workload));
    }
    let routes = |virtual_service: &&std::sync::Arc<VirtualService>| virtual_service.hosts.iter().any(&names);
    for virtual_service in all.virtual_services.iter().filter(routes) {
        lines.extend(virtual_service_lines(virtual_service));
    }
    lines
}

fn named(object: &ObjectRef) -> String {
    format!("{}.{}", object.name, object.namespace)
}

fn destination_rule(rule: &DestinationRule, workload: Option<&Workload>) -> Vec<String> {
    let mut lines =
        vec![format!("DestinationRule: {} for {:?}", named(&rule.meta.object), rule.host.as_str())];
    let matching = |labels: &mesh_api::name::Labels| {
        workload
            .is_none_or(|workload| labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value)))
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        rule.subsets.iter().partition(|subset| matching(&subset.labels));
    let names = |subsets: &[&mesh_api::model::traffic::Subset]| {
        subsets.iter().map(|subset| subset.name.as_str()).collect::<Vec<_>>().join(",")
    };
    if !inside.is_empty() {
        lines.push(format!("   Matching subsets: {}", names(&inside)));
        if !outside.is_empty() {
            lines.push(format!("      (Non-matching subsets {})", names(&outside)));
        }
    } else if !outside.is_empty() {
        lines.push(format!("   WARNING: matches none of the subsets {}", names(&outside)));
    }
    lines.push(traffic_policy(&rule.policy));
    for (port, policy) in &rule.port_level {
        lines.push(format!("   Port {port}:{}", traffic_policy(policy).trim_start_matches("  ")));
    }
    lines
}

fn traffic_policy(policy: &TrafficPolicy) -> String {
    let mut parts = Vec::new();
    if let Some(tls) = policy.tls {
        parts.push(format!("TLS {tls:?}"));
    }
    if let Some(balance) = policy.balance {
        parts.push(format!("load balancer {balance:?}"));
    }
    if let Some(timeout) = policy.connect_timeout_ms {
        parts.push(format!("connect timeout {timeout} ms"));
    }
    if parts.is_empty() {
        "   No Traffic Policy".to_owned()
    } else {
        format!("   Traffic Policy: {}", parts.join(", "))
    }
}

fn virtual_service_lines(virtual_service: &VirtualService) -> Vec<String> {
    let mut lines = vec![format!("VirtualService: {}", named(&virtual_service.meta.object))];
    lines.push(format!("   {} HTTP route(s)", virtual_service.http.len()));
    for route in &virtual_service.http {
        for target in &route.targets {
            let subset = target.subset.as_ref().map(|subset| format!(" subset {subset}")).unwrap_or_default();
            let weight = if route.targets.len() > 1 {
                format!(" with weight {}%", target.weight)
            } else {
                String::new()
            };
            lines.push(format!("   Route to host {:?}{subset}{weight}", target.host.as_str()));
        }
    }
    lines
}

/// The policies in force for a workload, for programs.
pub(super) fn in_force(workload: &Workload, all: &Collected) -> Value {
    let subject = subject(workload);
    let authorization = select::authorization(&all.settings, &subject, &all.authorization);
    let resolution = peer_authentication::resolve(&all.settings, &subject, &all.peer);
    let ports: BTreeMap<String, &str> =
        resolution.ports.iter().map(|(port, mode)| (port.to_string(), mode.as_str())).collect();
    json!({
        "authorization": authorization.iter().map(|policy| named(&policy.meta.object)).collect::<Vec<_>>(),
        "mtls": resolution.mode.as_str(),
        "mtlsPorts": ports,
        "peerAuthentication": resolution.used.iter().map(named).collect::<Vec<_>>(),
    })
}

fn subject(workload: &Workload) -> Subject<'_> {
    Subject {
        namespace: &workload.meta.object.namespace,
        labels: &workload.labels,
        service_account: &workload.service_account,
    }
}

fn policies(workload: &Workload, all: &Collected) -> Vec<String> {
    let subject = subject(workload);
    let mut lines = Vec::new();
    let authorization = select::authorization(&all.settings, &subject, &all.authorization);
    if authorization.is_empty() {
        lines.push("RBAC policies: none; every request passes".to_owned());
    } else {
        let names: Vec<String> = authorization.iter().map(|policy| rbac(policy)).collect();
        lines.push(format!("RBAC policies: {}", names.join(", ")));
    }
    let resolution = peer_authentication::resolve(&all.settings, &subject, &all.peer);
    lines.push("Effective PeerAuthentication:".to_owned());
    lines.push(format!("   Workload mTLS mode: {}", resolution.mode.as_str()));
    if !resolution.ports.is_empty() {
        lines.push("   Port Level mTLS mode:".to_owned());
        lines.extend(resolution.ports.iter().map(|(port, mode)| format!("      {port}: {}", mode.as_str())));
    }
    if !resolution.used.is_empty() {
        let used: Vec<String> = resolution.used.iter().map(named).collect();
        lines.push("Applied PeerAuthentication:".to_owned());
        lines.push(format!("   {}", used.join(", ")));
    }
    lines.extend(resolution.conflicts.iter().map(|problem| format!("WARNING: {problem}")));
    lines
}

fn rbac(policy: &AuthorizationPolicy) -> String {
    let action = match policy.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    };
    let dry_run = if policy.dry_run { ", dry run" } else { "" };
    format!("{} ({action}{dry_run})", named(&policy.meta.object))
}
