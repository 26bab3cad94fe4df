//! Services of the plan: those that the file states, and one for each workload with ports that has none.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::name::ObjectName;

use super::{Mistake, Service, ServicePort, Workload};
use crate::local::mesh_file::{Port, ServiceEntry, TargetPort, Text};

/// A stated service.
pub(super) fn stated(entry: &ServiceEntry) -> Result<Service, Mistake> {
    let name = ObjectName::parse(&entry.name).map_err(|error| ("name".to_owned(), error.to_string()))?;
    let namespace = super::resolve::namespace(entry.namespace.as_deref())?;
    let mut selector: BTreeMap<String, String> =
        entry.selector.iter().map(|(key, Text(value))| (key.clone(), value.clone())).collect();
    if selector.is_empty() {
        selector.insert("app".to_owned(), entry.name.clone());
    }
    if entry.ports.is_empty() {
        return Err(("ports".to_owned(), "a service needs at least one port".to_owned()));
    }
    Ok(Service { name, namespace, selector, ports: ports(&entry.ports)?, is_headless: entry.headless })
}

/// The service that is implied for a workload: called like it and selecting exactly its labels.
pub(crate) fn implied(name: &str, workload: &Workload, ports: &[Port]) -> Result<Service, Mistake> {
    Ok(Service {
        name: ObjectName::parse(name).map_err(|error| ("name".to_owned(), error.to_string()))?,
        namespace: workload.namespace.clone(),
        selector: workload.labels.clone(),
        ports: self::ports(ports)?,
        is_headless: false,
    })
}

fn ports(written: &[Port]) -> Result<Vec<ServicePort>, Mistake> {
    let is_single = written.len() == 1;
    let mut names = BTreeSet::new();
    let mut ports = Vec::new();
    for (index, port) in written.iter().enumerate() {
        let (transport, app_protocol) = protocols(port);
        // Kubernetes asks for names where there are several ports; this one declares no protocol.
        let name = match port.name.as_str() {
            "" if !is_single => format!("port-{}", port.port),
            name => name.to_owned(),
        };
        if !name.is_empty() && !names.insert(name.clone()) {
            return Err((format!("ports[{index}].name"), format!("two ports are called {name}")));
        }
        let target = port.target_port.clone().unwrap_or(TargetPort::Number(port.port));
        ports.push(ServicePort { port: port.port, target, name, transport, app_protocol });
    }
    Ok(ports)
}

/// Transport and application protocol. `protocol: http` is taken for what it obviously means, although
/// Kubernetes would want `appProtocol` for it.
fn protocols(port: &Port) -> (String, Option<String>) {
    let stated = port.protocol.as_deref().unwrap_or("TCP");
    match stated.to_ascii_uppercase().as_str() {
        transport @ ("TCP" | "UDP") => (transport.to_owned(), port.app_protocol.clone()),
        _ => ("TCP".to_owned(), port.app_protocol.clone().or_else(|| Some(stated.to_owned()))),
    }
}
