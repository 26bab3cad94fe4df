//! What the control plane is told about the local mesh: the plan as Kubernetes and Istio documents (pure).
//!
//! Users read these files too, so they are written as a person would write them. There is one file for what
//! the plan states as a whole and one for each workload, so that a workload can come and go by itself.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::name::Namespace;
use serde::Serialize;
use serde_json::{Value, json};

use super::mesh_file::TargetPort;
use super::plan::{Plan, Service, Workload};

/// The label by which Istio's own tooling says that a workload has a proxy.
const MESHED_LABEL: &str = "security.istio.io/tlsMode";

/// Namespaces, service accounts, services and, when the file states a trust domain, the mesh's settings.
pub(crate) fn mesh(plan: &Plan) -> String {
    let mut documents = Vec::new();
    if let Some(trust_domain) = &plan.trust_domain {
        documents.push(json!({
            "apiVersion": "mini-mesh.io/v1alpha1",
            "kind": "MeshConfig",
            "metadata": {"name": "default", "namespace": "istio-system"},
            "spec": {"trustDomain": trust_domain},
        }));
    }
    let namespaces: BTreeSet<&Namespace> = (plan.workloads.iter().map(|workload| &workload.namespace))
        .chain(plan.services.iter().map(|service| &service.namespace))
        .collect();
    documents.extend(namespaces.into_iter().map(namespace));
    let accounts: BTreeMap<(&str, &str), Value> = plan
        .workloads
        .iter()
        .map(|workload| {
            ((workload.namespace.as_str(), workload.service_account.as_str()), service_account(workload))
        })
        .collect();
    documents.extend(accounts.into_values());
    documents.extend(plan.services.iter().map(service));
    render(&documents)
}

/// A workload that joins a running mesh: its own documents, and those of its namespace, service account and
/// service that are new with it.
pub(crate) fn joining(workload: &Workload, plan: &Plan, implied: Option<&Service>) -> String {
    let mut documents = Vec::new();
    if !plan.workloads.iter().any(|other| other.namespace == workload.namespace) {
        documents.push(namespace(&workload.namespace));
    }
    let has_account = |other: &Workload| {
        other.namespace == workload.namespace && other.service_account == workload.service_account
    };
    if !plan.workloads.iter().any(has_account) {
        documents.push(service_account(workload));
    }
    documents.extend(implied.map(service));
    documents.push(entry(workload));
    render(&documents)
}

/// A workload of the plan.
pub(crate) fn workload(workload: &Workload) -> String {
    weighted(workload, None)
}

/// A workload of the plan with its share of traffic, when one is stated; 0 is none.
pub(crate) fn weighted(workload: &Workload, weight: Option<u32>) -> String {
    let mut entry = entry(workload);
    if let Some(weight) = weight {
        entry["spec"]["weight"] = json!(weight);
    }
    render(&[entry])
}

fn namespace(name: &Namespace) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn service_account(workload: &Workload) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": workload.service_account, "namespace": workload.namespace},
    })
}

fn service(service: &Service) -> Value {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let mut value = json!({"port": port.port, "protocol": port.transport});
            value["targetPort"] = match &port.target {
                TargetPort::Number(number) => json!(number),
                TargetPort::Name(name) => json!(name),
            };
            if !port.name.is_empty() {
                value["name"] = json!(port.name);
            }
            if let Some(protocol) = &port.app_protocol {
                value["appProtocol"] = json!(protocol);
            }
            value
        })
        .collect();
    let mut spec = json!({"selector": service.selector, "ports": ports});
    if service.is_headless {
        spec["clusterIP"] = json!("None");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": service.name, "namespace": service.namespace},
        "spec": spec,
    })
}

fn entry(workload: &Workload) -> Value {
    let mut labels = workload.labels.clone();
    if workload.is_meshed {
        labels.insert(MESHED_LABEL.to_owned(), "istio".to_owned());
    }
    let ports: BTreeMap<&str, u16> = workload
        .ports
        .iter()
        .filter(|port| !port.name.is_empty())
        .map(|port| (port.name.as_str(), port.port))
        .collect();
    let mut spec = json!({
        "address": workload.addresses.v4(),
        "serviceAccount": workload.service_account,
        "labels": labels,
    });
    if !ports.is_empty() {
        spec["ports"] = json!(ports);
    }
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {"name": workload.name, "namespace": workload.namespace},
        "spec": spec,
    })
}

fn render(documents: &[Value]) -> String {
    let text: Vec<String> = documents.iter().map(yaml).collect();
    text.join("---\n")
}

fn yaml(document: &impl Serialize) -> String {
    serde_saphyr::to_string(document).expect("strings, numbers, lists and maps can be written as YAML")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::plan::planned;

    fn plan() -> Plan {
        let text = "trustDomain: example.org\n\
                    workloads:\n\
                    - {name: web, namespace: shop, command: x, ports: [{port: 8080, name: http}, 9000]}\n\
                    - {name: intruder, namespace: outside, mesh: false, command: x, labels: {version: 1}}\n\
                    services:\n\
                    - {name: peers, namespace: shop, headless: true, selector: {app: web}, ports: [{port: 80, targetPort: http, appProtocol: http}]}\n";
        planned("/srv/shop/mesh.yaml", text)
    }

    #[test]
    fn the_plan_as_documents() {
        insta::assert_snapshot!("mesh", mesh(&plan()));
    }

    #[test]
    fn a_workload_as_a_document() {
        let plan = plan();
        insta::assert_snapshot!("meshed", workload(&plan.workloads[0]));
        insta::assert_snapshot!("outside", workload(&plan.workloads[1]));
    }

    #[test]
    fn a_joining_workload_brings_what_is_new_with_it_and_nothing_else() {
        let plan = plan();
        let mut joining_one = plan.workloads[0].clone();
        joining_one.name = "web-extra".to_owned();
        assert_eq!(joining(&joining_one, &plan, None), workload(&joining_one));
        joining_one.namespace = Namespace::parse("new").expect("a name");
        let text = joining(&joining_one, &plan, None);
        for kind in ["Namespace", "ServiceAccount", "WorkloadEntry"] {
            assert_eq!(text.matches(&format!("kind: {kind}\n")).count(), 1, "{text}");
        }
    }
}
