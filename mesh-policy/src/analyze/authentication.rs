//! PeerAuthentications and RequestAuthentications without effect, or with another than meant.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::problem::{Problem, Severity};

use super::{Survey, problem, subject};
use crate::peer_authentication;

pub(super) fn check(survey: &Survey<'_>, problems: &mut Vec<Problem>) {
    let model = &survey.model;
    // The same policy loses for many workloads; it is reported once for each winner.
    let mut conflicts = BTreeMap::new();
    for workload in model.workloads {
        for conflict in peer_authentication::resolve(model.mesh, &subject(workload), model.peer).conflicts {
            conflicts.entry((conflict.object.clone(), conflict.message.clone())).or_insert(conflict);
        }
    }
    problems.extend(conflicts.into_values());
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
        let selected = survey.concerned(&policy.meta, &policy.selector, &[]);
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
        let declared: Vec<_> = selected.iter().flat_map(|surveyed| &surveyed.ports).collect();
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
        let concerned = survey.concerned(&policy.meta, &policy.selector, &policy.targets);
        if concerned.is_empty() {
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
