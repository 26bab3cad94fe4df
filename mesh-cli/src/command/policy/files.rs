//! Files of policies as a whole: the policies, the settings that they are read in the light of, and the
//! workloads that the files speak of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::manifest::policy_test::{self, SourcedObject};
use mesh_api::manifest::{LowerContext, Object};
use mesh_api::model::{MeshSettings, ObjectRef, Origin, Protocol, Service, Workload as Entry};
use mesh_api::name::{Labels, Namespace, ServiceAccount};
use mesh_api::policy_test::{MeshOverrides, Traffic};
use mesh_api::problem::{Problem, Severity};
use mesh_policy::judge::Policies;
use mesh_policy::symbolic::{Settled, Workload};

use crate::command::objects::input::{self, Input};
use crate::command::{Failure, analyze};
use crate::output;

/// Exit status when a question cannot be answered.
pub(super) const EXIT_NOT_RUN: u8 = 2;

/// What files say.
#[derive(Debug, Default)]
pub(super) struct PolicyFiles {
    pub(super) settings: MeshSettings,
    pub(super) policies: Policies,
    /// Those that the files speak of, each once.
    pub(super) workloads: Vec<Workload>,
    /// Names of workloads, by place in `workloads`.
    names: Vec<(String, usize)>,
    rule_lines: BTreeMap<ObjectRef, Vec<u32>>,
}

/// Whether a folder without files is a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    Refused,
    /// It stands for no policies at all.
    Taken,
}

impl PolicyFiles {
    /// Reads files and folders.
    ///
    /// # Errors
    /// When something cannot be read or is not valid.
    pub(super) fn read(paths: &[PathBuf], overrides: &MeshOverrides, empty: Empty) -> Result<Self, Failure> {
        let is_empty = |path: &Path| {
            let mut files = Vec::new();
            path.is_dir() && input::list(path, 0, &mut files).is_ok() && files.is_empty()
        };
        let paths: Vec<PathBuf> =
            paths.iter().filter(|path| empty == Empty::Refused || !is_empty(path)).cloned().collect();
        let inputs = match paths.is_empty() {
            true => Vec::new(),
            false => input::read(&paths).map_err(|failure| failure.status(EXIT_NOT_RUN))?,
        };
        let (planned, inputs): (Vec<_>, Vec<_>) =
            inputs.into_iter().partition(analyze::local_mesh::is_mesh_file);
        let mut settings = settings_of(&inputs);
        overrides.apply_to(&mut settings);
        let context = LowerContext {
            cluster_domain: settings.cluster_domain.clone(),
            root_namespace: settings.root_namespace.clone(),
            ..LowerContext::default()
        };
        let mut gathered = Gathered::default();
        for input in &planned {
            match analyze::local_mesh::objects(input, &context) {
                Ok(objects) => objects.into_iter().for_each(|object| {
                    gathered.take(SourcedObject { object, rule_lines: Vec::new() });
                }),
                Err(problem) => gathered.problems.push(*problem),
            }
        }
        for input in &inputs {
            match policy_test::parse_policies(&input.name, &input.text, &context) {
                Ok(objects) => objects.into_iter().for_each(|object| gathered.take(object)),
                Err(problems) => gathered.problems.extend(problems),
            }
        }
        gathered.finish(settings)
    }

    /// Adds the policies that an assertion states itself.
    pub(super) fn add(&mut self, more: mesh_policy::policy_test::PolicySet) {
        self.policies.authorization.extend(more.policies.authorization);
        self.policies.peer_authentication.extend(more.policies.peer_authentication);
        self.policies.request_authentication.extend(more.policies.request_authentication);
        self.rule_lines.extend(more.rule_lines);
    }

    /// The workload of that name in a namespace, or all with a service account of it.
    pub(super) fn called(&self, namespace: &str, name: &str, account: &str) -> Vec<&Workload> {
        let of = |at: &usize| self.workloads.get(*at);
        let named = self.names.iter().filter(|(known, _)| known == name).map(|(_, at)| at);
        let named: Vec<&Workload> =
            named.filter_map(of).filter(|workload| workload.namespace.as_str() == namespace).collect();
        if !named.is_empty() {
            return named;
        }
        let is_meant = |workload: &&Workload| {
            workload.namespace.as_str() == namespace && workload.service_account.as_str() == account
        };
        self.workloads.iter().filter(is_meant).collect()
    }

    /// `FILE:LINE` of a rule that decided.
    pub(super) fn place(&self, settled: &Settled) -> Option<String> {
        let policy = settled.policy.as_ref()?;
        let origin = settled.origin.as_ref().or_else(|| self.origin(policy))?;
        let lines = self.rule_lines.get(policy);
        let rule = settled.rule.and_then(|rule| usize::try_from(rule).ok());
        let line = lines.zip(rule).and_then(|(lines, rule)| lines.get(rule)).copied().unwrap_or(origin.line);
        Some(Origin { file: Arc::clone(&origin.file), line }.to_string())
    }

    fn origin(&self, policy: &ObjectRef) -> Option<&Origin> {
        let policies = &self.policies;
        let authorization = policies.authorization.iter().map(|policy| &policy.meta);
        let peer = policies.peer_authentication.iter().map(|policy| &policy.meta);
        let request = policies.request_authentication.iter().map(|policy| &policy.meta);
        let mut all = authorization.chain(peer).chain(request);
        all.find(|meta| meta.object == *policy).map(|meta| &meta.origin)
    }
}

/// Settings that stand among the files.
fn settings_of(inputs: &[Input]) -> MeshSettings {
    let context = LowerContext::default();
    let documents = inputs
        .iter()
        .flat_map(|input| mesh_api::manifest::parse(&input.name, &input.text, &context).documents);
    documents
        .filter_map(|document| match document.outcome {
            Ok(Object::MeshConfig(config)) => Some(config.settings),
            Ok(_) | Err(_) => None,
        })
        .last()
        .unwrap_or_default()
}

/// Objects as they come together.
#[derive(Debug, Default)]
struct Gathered {
    files: PolicyFiles,
    entries: Vec<Arc<Entry>>,
    services: Vec<Arc<Service>>,
    seen: BTreeMap<ObjectRef, Origin>,
    problems: Vec<Problem>,
}

impl Gathered {
    fn take(&mut self, sourced: SourcedObject) {
        let meta = sourced.object.meta();
        if let Some(other) = self.seen.insert(meta.object.clone(), meta.origin.clone()) {
            self.problems.push(Problem {
                code: "MM0105".to_owned(),
                severity: Severity::Error,
                object: Some(meta.object.clone()),
                origin: meta.origin.clone(),
                field: String::new(),
                message: format!("is defined twice; the other stands at {other}"),
                hint: "Remove one of the two.".to_owned(),
            });
            return;
        }
        let policies = &mut self.files.policies;
        match sourced.object {
            Object::AuthorizationPolicy(policy) => {
                self.files.rule_lines.insert(policy.meta.object.clone(), sourced.rule_lines);
                policies.authorization.push(Arc::new(policy));
            }
            Object::PeerAuthentication(policy) => policies.peer_authentication.push(Arc::new(policy)),
            Object::RequestAuthentication(policy) => policies.request_authentication.push(Arc::new(policy)),
            Object::Workload(entry) => self.entries.push(Arc::new(entry)),
            Object::Service(service) => self.services.push(Arc::new(service)),
            Object::MeshConfig(_)
            | Object::DestinationRule(_)
            | Object::VirtualService(_)
            | Object::Telemetry(_)
            | Object::ServiceAccount(_)
            | Object::Namespace(_) => {}
        }
    }

    fn finish(mut self, settings: MeshSettings) -> Result<PolicyFiles, Failure> {
        let errors: Vec<&Problem> =
            self.problems.iter().filter(|problem| problem.severity == Severity::Error).collect();
        if !errors.is_empty() {
            errors.iter().for_each(|problem| output::note(&analyze::painted(problem)));
            return Err(Failure::new(output::count(errors.len(), "mistake", "mistakes") + " in the files")
                .hint("Nothing is said about policies that are not valid: mend them, then ask again.")
                .status(EXIT_NOT_RUN));
        }
        for entry in std::mem::take(&mut self.entries) {
            let declared = self.declared(&entry.meta.object.namespace, &entry.labels, &entry.ports);
            let name = entry.meta.object.name.to_string();
            self.put(
                name,
                (entry.meta.object.namespace.clone(), entry.labels.clone()),
                entry.service_account.clone(),
                declared,
            );
        }
        for service in self.services.clone() {
            self.put_selected(&service);
        }
        self.files.settings = settings;
        Ok(self.files)
    }

    /// The workloads behind a service, when no other object speaks of them.
    fn put_selected(&mut self, service: &Service) {
        let Some(selector) = service.selector.as_ref().filter(|selector| !selector.is_empty()) else {
            return;
        };
        let namespace = &service.meta.object.namespace;
        let is_known =
            |workload: &Workload| workload.namespace == *namespace && selector.selects(&workload.labels);
        if service.external || self.files.workloads.iter().any(is_known) {
            return;
        }
        let declared = self.declared(namespace, &selector.match_labels, &BTreeMap::new());
        let account = ServiceAccount::parse("default").expect("a valid constant");
        let name = service.meta.object.name.to_string();
        self.put(name, (namespace.clone(), selector.match_labels.clone()), account, declared);
    }

    fn put(
        &mut self,
        name: String,
        (namespace, labels): (Namespace, Labels),
        service_account: ServiceAccount,
        declared: BTreeMap<u16, Traffic>,
    ) {
        let workloads = &mut self.files.workloads;
        let known = workloads.iter().position(|known| {
            known.namespace == namespace && known.labels == labels && known.declared == declared
        });
        let at = known.unwrap_or(workloads.len());
        if known.is_none() {
            let told = format!("{namespace}/{name}");
            workloads.push(Workload { namespace, labels, service_account, only: None, declared, told });
        }
        self.files.names.push((name, at));
    }

    /// Protocols that services declare for ports of a workload; what they do not agree on is not declared.
    fn declared(
        &self,
        namespace: &Namespace,
        labels: &Labels,
        ports: &BTreeMap<String, u16>,
    ) -> BTreeMap<u16, Traffic> {
        let mut stated: BTreeMap<u16, BTreeSet<Option<bool>>> = BTreeMap::new();
        let behind = self.services.iter().filter(|service| {
            let selector = service.selector.as_ref().filter(|selector| !selector.is_empty());
            service.meta.object.namespace == *namespace
                && selector.is_some_and(|selector| selector.selects(labels))
        });
        for port in behind.flat_map(|service| &service.ports) {
            let named = port.target_port_name.as_ref().and_then(|name| ports.get(name)).copied();
            let is_tcp = match port.protocol {
                Protocol::Auto => None,
                Protocol::Tcp | Protocol::Tls => Some(true),
                Protocol::Http | Protocol::Http2 | Protocol::Grpc => Some(false),
            };
            stated.entry(named.unwrap_or(port.target_port)).or_default().insert(is_tcp);
        }
        let one = stated.into_iter().filter(|(_, stated)| stated.len() == 1);
        let traffic = |is_tcp: bool| if is_tcp { Traffic::Tcp } else { Traffic::Http };
        one.filter_map(|(port, stated)| Some((port, traffic(stated.into_iter().next()??)))).collect()
    }
}
