//! What is asked, of whom.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, LogParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt as _};
use mesh_kube::crd::DEFINITIONS;
use mesh_kube::name;
use serde_json::{Value, json};

use super::redact;
use crate::cluster::pod::PodView;
use crate::cluster::{Cluster, ClusterError, Question};
use crate::command::mesh::{ASKED_AT_ONCE, forwarded};
use crate::install::object::KINDS;
use crate::install::{apply, installed, server};
use crate::output::chain;

/// Longest log of one container, in bytes.
const LOG_BYTES_MAX: i64 = 5 * 1024 * 1024;
/// Longest file of the report, in bytes.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Everything together, in bytes.
const REPORT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What a replica of the control plane is asked.
const CONTROL: [&str; 5] = ["/status", "/problems", "/objects", "/registry", "/ca"];
/// What a proxy is asked.
const PROXY: [&str; 3] = ["/config_dump", "/certs", "/denials"];

/// What is wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Namespaces; all when there is none.
    pub(super) include: Vec<String>,
    /// Namespaces that are left out.
    pub(super) exclude: Vec<String>,
    /// How far back logs are read.
    pub(super) since: Duration,
    /// Proxies at most.
    pub(super) proxies: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Files by name.
    pub(super) files: BTreeMap<String, String>,
    /// What could not be had, and why.
    pub(super) missing: Vec<String>,
    bytes: usize,
}

impl Report {
    fn add(&mut self, name: &str, content: &str) {
        let content = redact::text(content);
        let content = match content.char_indices().nth(FILE_BYTES_MAX) {
            Some((at, _)) => format!("{}\n[cut off here]\n", &content[..at]),
            None => content.into_owned(),
        };
        if self.bytes + content.len() > REPORT_BYTES_MAX {
            self.missing.push(format!("{name}: the report is full"));
            return;
        }
        self.bytes += content.len();
        self.files.insert(name.to_owned(), content);
    }

    fn value(&mut self, name: &str, value: &Value) {
        self.add(name, &serde_json::to_string_pretty(value).unwrap_or_default());
    }

    fn objects(&mut self, name: &str, mut objects: Vec<Value>) {
        objects.iter_mut().for_each(redact::object);
        self.value(name, &Value::Array(objects));
    }

    fn lacks(&mut self, name: &str, error: &(dyn std::error::Error + 'static)) {
        self.missing.push(format!("{name}: {}", chain(error)));
    }
}

/// Asks everybody. Whoever does not answer is listed.
pub(super) async fn gather(cluster: &Cluster, wanted: &Wanted) -> Report {
    let mut report = Report::default();
    versions(cluster, &mut report).await;
    installation(cluster, &mut report).await;
    objects(cluster, wanted, &mut report).await;
    control_plane(cluster, wanted, &mut report).await;
    proxies(cluster, wanted, &mut report).await;
    report
}

async fn versions(cluster: &Cluster, report: &mut Report) {
    let server = match cluster.client.apiserver_version().await {
        Ok(info) => json!(info.git_version),
        Err(error) => {
            report.lacks("version of the API server", &error);
            Value::Null
        }
    };
    report.value("versions.json", &json!({"meshctl": env!("CARGO_PKG_VERSION"), "kubernetes": server}));
}

async fn installation(cluster: &Cluster, report: &mut Report) {
    let records = match installed::records(cluster).await {
        Ok(records) => records,
        Err(error) => return report.lacks("installation", &error),
    };
    for (revision, record) in records {
        let said = json!({"version": record.version, "values": record.stated});
        report.value(&format!("installation/{revision}/values.json"), &said);
        match apply::of_revision(cluster, &revision).await {
            Ok(objects) => {
                let objects = objects.into_iter().map(|wanted| wanted.object).collect();
                report.objects(&format!("installation/{revision}/objects.json"), objects);
            }
            Err(error) => report.lacks(&format!("objects of revision {revision}"), &error),
        }
    }
}

/// Objects of the mesh's kinds, and what is around them.
async fn objects(cluster: &Cluster, wanted: &Wanted, report: &mut Report) {
    for definition in &DEFINITIONS {
        let version = definition.versions.first().copied().unwrap_or("v1");
        let resource = resource(definition.group, version, definition.kind, definition.plural);
        list(cluster, wanted, report, &resource).await;
    }
    for (group, version, kind, plural) in [
        ("", "v1", "Namespace", "namespaces"),
        ("", "v1", "Node", "nodes"),
        ("", "v1", "Pod", "pods"),
        ("", "v1", "Service", "services"),
        ("", "v1", "Event", "events"),
        ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        ("apps", "v1", "Deployment", "deployments"),
        ("coordination.k8s.io", "v1", "Lease", "leases"),
    ] {
        list(cluster, wanted, report, &resource(group, version, kind, plural)).await;
    }
    for kind in KINDS.iter().filter(|kind| kind.group == "admissionregistration.k8s.io") {
        match server::list(cluster, *kind, None, "").await {
            Ok(found) => report.objects(&format!("objects/{}.json", kind.plural), found),
            Err(error) => report.lacks(kind.plural, &error),
        }
    }
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

async fn list(cluster: &Cluster, wanted: &Wanted, report: &mut Report, resource: &ApiResource) {
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), resource);
    let question = Question::list(&resource.plural, None);
    match cluster.pages(&api, &question, &ListParams::default()).await {
        Ok(found) => {
            let found = found
                .into_iter()
                .filter(|object| object.namespace().is_none_or(|namespace| wanted.takes(&namespace)));
            let objects: Vec<Value> = found
                .map(|object| {
                    let mut object = serde_json::to_value(object).unwrap_or_default();
                    object["kind"] = resource.kind.clone().into();
                    object
                })
                .collect();
            report.objects(&format!("objects/{}.json", resource.plural), objects);
        }
        Err(error) => report.lacks(&resource.plural, &error),
    }
}

impl Wanted {
    /// The control plane's namespace is always wanted.
    fn takes(&self, namespace: &str) -> bool {
        namespace == name::SYSTEM_NAMESPACE
            || (self.include.is_empty() || self.include.iter().any(|known| known == namespace))
                && !self.exclude.iter().any(|known| known == namespace)
    }
}

async fn control_plane(cluster: &Cluster, wanted: &Wanted, report: &mut Report) {
    let labels = format!("{}={}", name::LABEL_COMPONENT, name::COMPONENT_CONTROL);
    let pods = match cluster.pods(Some(name::SYSTEM_NAMESPACE), &labels).await {
        Ok(pods) => pods,
        Err(error) => return report.lacks("pods of the control plane", &error),
    };
    for pod in &pods {
        let folder = format!("control-plane/{}", pod.name);
        logs(cluster, wanted, report, (pod, name::CONTROL, &folder)).await;
        for path in CONTROL {
            let file = format!("{folder}{path}.json");
            let answer =
                forwarded::<Value>(cluster, &pod.namespace, &pod.name, name::PORT_CONTROL_ADMIN, path).await;
            match answer {
                Ok(value) => report.value(&file, &value),
                Err(error) => report.lacks(&file, &error),
            }
        }
    }
}

async fn proxies(cluster: &Cluster, wanted: &Wanted, report: &mut Report) {
    let mut pods = match cluster.meshed_pods(None).await {
        Ok(pods) => pods,
        Err(error) => return report.lacks("pods with proxies", &error),
    };
    pods.retain(|pod| wanted.takes(&pod.namespace));
    if pods.len() > wanted.proxies {
        report.missing.push(format!(
            "{} of {} proxies: --proxies and --include say which",
            pods.len() - wanted.proxies,
            pods.len()
        ));
        pods.truncate(wanted.proxies);
    }
    let ask = |pod: &PodView| {
        let pod = pod.clone();
        async move {
            let mut answers = Vec::new();
            for path in PROXY {
                let port = name::PORT_PROXY_ADMIN;
                answers
                    .push((path, forwarded::<Value>(cluster, &pod.namespace, &pod.name, port, path).await));
            }
            (pod, answers)
        }
    };
    let answers: Vec<_> = stream::iter(pods.iter().map(ask)).buffered(ASKED_AT_ONCE).collect().await;
    for (pod, answers) in answers {
        let folder = format!("proxies/{}/{}", pod.namespace, pod.name);
        for (path, answer) in answers {
            match answer {
                Ok(value) => report.value(&format!("{folder}{path}.json"), &value),
                Err(error) => report.lacks(&format!("{folder}{path}.json"), &error),
            }
        }
        logs(cluster, wanted, report, (&pod, name::PROXY_CONTAINER, &folder)).await;
    }
}

/// The log of a container, and of the one before it if it was restarted.
async fn logs(
    cluster: &Cluster,
    wanted: &Wanted,
    report: &mut Report,
    (pod, container, folder): (&PodView, &str, &str),
) {
    for (file, previous) in [("log.txt", false), ("log-before-restart.txt", true)] {
        let params = LogParams {
            container: Some(container.to_owned()),
            limit_bytes: Some(LOG_BYTES_MAX),
            since_seconds: i64::try_from(wanted.since.as_secs()).ok(),
            timestamps: true,
            previous,
            ..LogParams::default()
        };
        match log(cluster, pod, &params).await {
            Ok(text) => report.add(&format!("{folder}/{file}"), &text),
            // Most containers were never restarted.
            Err(_) if previous => {}
            Err(error) => report.lacks(&format!("{folder}/{file}"), &error),
        }
    }
}

async fn log(cluster: &Cluster, pod: &PodView, params: &LogParams) -> Result<String, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
    let question = Question {
        verb: "get",
        resource: "pods/log",
        namespace: Some(&pod.namespace),
        name: Some(&pod.name),
    };
    cluster.call(question, api.logs(&pod.name, params)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_chosen_and_the_control_planes_always_is() {
        let wanted = |include: &[&str], exclude: &[&str]| Wanted {
            include: include.iter().map(|name| (*name).to_owned()).collect(),
            exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
            since: Duration::ZERO,
            proxies: 0,
        };
        assert!(wanted(&[], &[]).takes("a"));
        assert!(!wanted(&["b"], &[]).takes("a"));
        assert!(!wanted(&["a"], &["a"]).takes("a"));
        assert!(wanted(&["b"], &[name::SYSTEM_NAMESPACE]).takes(name::SYSTEM_NAMESPACE));
    }

    #[test]
    fn a_report_has_an_end() {
        let mut report = Report { bytes: REPORT_BYTES_MAX, ..Report::default() };
        report.add("a", "text");
        assert!(report.files.is_empty());
        assert_eq!(report.missing, ["a: the report is full"]);
    }
}
