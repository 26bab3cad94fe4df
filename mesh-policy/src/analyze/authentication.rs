//! PeerAuthentications and RequestAuthentications without effect, or with another than meant.

use std::collections::BTreeSet;

use mesh_api::problem::{Problem, Severity};

use super::{Model, problem, subject};
use crate::{peer_authentication, select};

pub(super) fn check(model: &Model<'_>, problems: &mut Vec<Problem>) {
    let mut conflicts = Vec::new();
    for workload in model.workloads {
        for conflict in peer_authentication::resolve(model.mesh, &subject(workload), model.peer).conflicts {
            if !conflicts.contains(&conflict) {
                conflicts.push(conflict);
            }
        }
    }
    problems.append(&mut conflicts);
    for policy in model.peer {
        let namespace = &policy.meta.object.namespace;
        if !policy.selector.is_empty() && *namespace == model.mesh.root_namespace {
            let message = "a policy with a selector in the root namespace has no effect".to_owned();
            let hint = "Put it into the namespace of the workloads that it is meant for.";
            problems.push(problem(
                "MM0202",
                Severity::Warning,
                &policy.meta,
                "spec.selector",
                (message, hint),
            ));
            continue;
        }
        let selected: Vec<_> = model.selected(namespace, &policy.selector).collect();
        if selected.is_empty() && !policy.selector.is_empty() {
            let message = "selector matches no workload".to_owned();
            let hint = "Compare the labels with those of the workloads in the policy's namespace.";
            problems.push(problem(
                "IST0127",
                Severity::Warning,
                &policy.meta,
                "spec.selector",
                (message, hint),
            ));
        }
        let declared: Vec<_> = selected.iter().flat_map(|workload| model.declared_ports(workload)).collect();
        let targets: BTreeSet<u16> = declared.iter().map(|port| port.target_port).collect();
        for port in policy.port_level.keys().filter(|port| !targets.contains(port)) {
            if let Some(service) = declared.iter().find(|declared| declared.service_port == *port) {
                let message = format!(
                    "port {port} is the port of a service; the workload listens on {}",
                    service.target_port
                );
                let field = format!("spec.portLevelMtls[{port}]");
                let hint = "Write the workload's port.";
                problems.push(problem("MM0203", Severity::Warning, &policy.meta, field, (message, hint)));
            }
        }
    }
    for policy in model.request.iter().filter(|policy| !policy.selector.is_empty()) {
        let concerned = model.workloads.iter().any(|workload| {
            select::applies(model.mesh, &subject(workload), &policy.meta, &policy.selector, &policy.targets)
        });
        if !concerned {
            let message = "selector matches no workload".to_owned();
            let hint = "Compare the labels with those of the workloads in the policy's namespace.";
            problems.push(problem(
                "IST0127",
                Severity::Warning,
                &policy.meta,
                "spec.selector",
                (message, hint),
            ));
        }
    }
}
