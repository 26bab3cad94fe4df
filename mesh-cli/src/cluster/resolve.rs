//! From what a person writes to a pod: `POD[.NAMESPACE]`, or `KIND/NAME[.NAMESPACE]` with what stands for
//! pods: Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs and Services.
//!
//! Names may hold dots and namespaces may not, so a name is tried as a whole in the namespace that was named
//! beside it, and else its last part is the namespace, as istioctl has it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;

use super::pod::PodView;
use super::{Cluster, ClusterError};
use crate::suggestion;

/// Most names that a message lists.
const LISTED_MAX: usize = 8;

/// What stands for pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Pods themselves.
    Pod,
    /// A Deployment.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A DaemonSet.
    DaemonSet,
    /// A ReplicaSet.
    ReplicaSet,
    /// A Job.
    Job,
    /// A Service, for the pods that it selects.
    Service,
}

impl Owner {
    /// Tried in turn for a name without a kind.
    const WITHOUT_KIND: [Self; 5] =
        [Self::Deployment, Self::StatefulSet, Self::DaemonSet, Self::Job, Self::Service];

    /// The kind that a text names, with or without its group, in any case.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        Some(match text.split('.').next().unwrap_or(&text) {
            "pod" | "pods" | "po" => Self::Pod,
            "deployment" | "deployments" | "deploy" => Self::Deployment,
            "statefulset" | "statefulsets" | "sts" => Self::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => Self::DaemonSet,
            "replicaset" | "replicasets" | "rs" => Self::ReplicaSet,
            "job" | "jobs" => Self::Job,
            "service" | "services" | "svc" => Self::Service,
            _ => return None,
        })
    }

    /// Its name in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Deployment => "deployment",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::ReplicaSet => "replicaset",
            Self::Job => "job",
            Self::Service => "service",
        }
    }
}

/// Why a text names no pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The part before the slash is none of those known.
    #[error("{0:?} is not a kind that has pods")]
    Kind(String),
    /// Nothing of that name.
    #[error("there is no {kind} {name:?} in namespace {namespace}")]
    Unknown {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// Where it was looked for.
        namespace: String,
        /// What there is of that name elsewhere, or with a similar name here.
        hint: String,
    },
    /// It stands for no pod that runs.
    #[error("{kind} {name} in namespace {namespace} has no running pod")]
    NoPod {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// The cluster does not answer.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ResolveError {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Kind(_) => {
                Some("Write POD.NAMESPACE, or deploy/NAME.NAMESPACE (sts, ds, job, svc).".to_owned())
            }
            Self::Unknown { hint, .. } => Some(hint.clone()),
            Self::NoPod { kind, name, namespace } => {
                Some(format!("`kubectl describe {kind} {name} -n {namespace}` says why."))
            }
            Self::Cluster(error) => error.hint(),
        }
    }
}

/// Pods that a text was found to name, the best one first, and whether it named exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The pods: ready before others, those with a proxy before those without, then by name.
    pub(crate) pods: Vec<PodView>,
    /// What the text was taken for, when that is not a pod's own name: `deployment web`.
    pub(crate) by: Option<String>,
}

/// A name, and the namespaces in which it is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    name: String,
    namespace: String,
}

/// What a text may mean, the likeliest first.
fn candidates(text: &str, flag: Option<&str>, default: &str) -> Vec<Candidate> {
    let candidate =
        |name: &str, namespace: &str| Candidate { name: name.to_owned(), namespace: namespace.to_owned() };
    let split = text.rsplit_once('.').filter(|(name, space)| !name.is_empty() && !space.is_empty());
    match (flag, split) {
        (Some(flag), Some((name, space))) if space == flag => {
            vec![candidate(name, flag), candidate(text, flag)]
        }
        (Some(flag), _) => vec![candidate(text, flag)],
        (None, Some((name, space))) => vec![candidate(name, space), candidate(text, default)],
        (None, None) => vec![candidate(text, default)],
    }
}

impl Cluster {
    /// The pods that `text` names. `flag` is the namespace of the command line.
    ///
    /// # Errors
    /// When it names none, or the API server does not say.
    pub(crate) async fn resolve(&self, text: &str, flag: Option<&str>) -> Result<Resolved, ResolveError> {
        let (owner, written) = match text.split_once('/') {
            None => (None, text),
            Some((kind, rest)) => {
                let owner = Owner::parse(kind).ok_or_else(|| ResolveError::Kind(kind.to_owned()))?;
                (Some(owner), rest)
            }
        };
        let candidates = candidates(written, flag, &self.default_namespace);
        for Candidate { name, namespace } in &candidates {
            if matches!(owner, None | Some(Owner::Pod))
                && let Some(pod) = self.get::<Pod>(namespace, name).await?
            {
                return Ok(Resolved { pods: vec![PodView::of(&pod)], by: None });
            }
            let owners: &[Owner] = match &owner {
                None => &Owner::WITHOUT_KIND,
                Some(Owner::Pod) => &[],
                Some(owner) => std::slice::from_ref(owner),
            };
            for owner in owners {
                if let Some(resolved) = self.pods_of(*owner, namespace, name).await? {
                    return Ok(resolved);
                }
            }
        }
        // Never empty: there is at least the text itself.
        let Candidate { name, namespace } = candidates
            .into_iter()
            .next()
            .unwrap_or_else(|| Candidate { name: String::new(), namespace: String::new() });
        let kind = owner.map_or("pod or workload", Owner::as_str);
        let hint = self.nearest(&name, &namespace).await;
        Err(ResolveError::Unknown { kind, name, namespace, hint })
    }

    /// Pods of an owner; `None` when there is no such owner.
    async fn pods_of(
        &self,
        owner: Owner,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Resolved>, ResolveError> {
        let labels = match owner {
            Owner::Pod => None,
            Owner::Deployment => self
                .get::<Deployment>(namespace, name)
                .await?
                .map(|found| found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()),
            Owner::StatefulSet => self
                .get::<StatefulSet>(namespace, name)
                .await?
                .map(|found| found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()),
            Owner::DaemonSet => self
                .get::<DaemonSet>(namespace, name)
                .await?
                .map(|found| found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()),
            Owner::ReplicaSet => self
                .get::<ReplicaSet>(namespace, name)
                .await?
                .map(|found| found.spec.map(|spec| labels(&spec.selector)).unwrap_or_default()),
            Owner::Job => self.get::<Job>(namespace, name).await?.map(|found| {
                found
                    .spec
                    .and_then(|spec| spec.selector)
                    .map(|selector| labels(&selector))
                    .unwrap_or_default()
            }),
            Owner::Service => self.get::<Service>(namespace, name).await?.map(|found| {
                found
                    .spec
                    .and_then(|spec| spec.selector)
                    .map(|selector| equalities(&selector))
                    .unwrap_or_default()
            }),
        };
        let Some(labels) = labels else { return Ok(None) };
        // An empty selector would be all pods of the namespace.
        let mut pods =
            if labels.is_empty() { Vec::new() } else { self.pods(Some(namespace), &labels).await? };
        pods.retain(|pod| !pod.has_ended());
        pods.sort_by_key(|pod| (!pod.has_proxy, pod.is_ending, !pod.is_ready, pod.name.clone()));
        if pods.is_empty() {
            return Err(ResolveError::NoPod {
                kind: owner.as_str(),
                name: name.to_owned(),
                namespace: namespace.to_owned(),
            });
        }
        Ok(Some(Resolved { pods, by: Some(format!("{} {name}", owner.as_str())) }))
    }

    /// What could have been meant. A hint only: what cannot be asked for it is left out.
    async fn nearest(&self, name: &str, namespace: &str) -> String {
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let elsewhere = self.list::<Pod>(None, &params).await.unwrap_or_default();
        if let Some(other) = elsewhere.first().map(PodView::of) {
            return format!("There is one in namespace {0}: add -n {0}.", other.namespace);
        }
        let here = self.pods(Some(namespace), "").await.unwrap_or_default();
        let names: Vec<&str> = here.iter().map(|pod| pod.name.as_str()).collect();
        if let Some(nearest) = suggestion::nearest(name, names.iter().copied()) {
            return format!("Did you mean {nearest}?");
        }
        match names.len() {
            0 => format!("No pod is in namespace {namespace}; -n NAMESPACE names another one."),
            number if number > LISTED_MAX => {
                format!("Its pods are {} and {} more.", names[..LISTED_MAX].join(", "), number - LISTED_MAX)
            }
            _ => format!("Its pods are {}.", names.join(", ")),
        }
    }
}

/// A selector as the API server takes it in a list.
pub(crate) fn labels(selector: &LabelSelector) -> String {
    let mut terms: Vec<String> = Vec::new();
    if let Some(equal) = &selector.match_labels {
        terms.push(equalities(equal));
    }
    for one in selector.match_expressions.iter().flatten() {
        let values = one.values.clone().unwrap_or_default().join(",");
        terms.push(match one.operator.as_str() {
            "In" => format!("{} in ({values})", one.key),
            "NotIn" => format!("{} notin ({values})", one.key),
            "DoesNotExist" => format!("!{}", one.key),
            _ => one.key.clone(),
        });
    }
    terms.retain(|term| !term.is_empty());
    terms.join(",")
}

fn equalities(labels: &BTreeMap<String, String>) -> String {
    let terms: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, flag: Option<&str>) -> Vec<(String, String)> {
        candidates(text, flag, "default").into_iter().map(|one| (one.name, one.namespace)).collect()
    }

    fn pair(name: &str, namespace: &str) -> (String, String) {
        (name.to_owned(), namespace.to_owned())
    }

    #[test]
    fn the_last_part_of_a_name_is_its_namespace_unless_one_is_named_beside_it() {
        assert_eq!(of("web-1", None), [pair("web-1", "default")]);
        assert_eq!(of("web-1.shop", None), [pair("web-1", "shop"), pair("web-1.shop", "default")]);
        assert_eq!(of("a.b.shop", None)[0], pair("a.b", "shop"));
        assert_eq!(of("a.b", Some("shop")), [pair("a.b", "shop")]);
        assert_eq!(of("a.shop", Some("shop"))[0], pair("a", "shop"));
    }

    #[test]
    fn kinds_are_known_by_all_their_names() {
        for (text, owner) in [
            ("deploy", Owner::Deployment),
            ("Deployments.apps", Owner::Deployment),
            ("sts", Owner::StatefulSet),
            ("svc", Owner::Service),
            ("po", Owner::Pod),
        ] {
            assert_eq!(Owner::parse(text), Some(owner), "{text}");
        }
        assert_eq!(Owner::parse("configmap"), None);
    }

    #[test]
    fn a_selector_is_written_as_lists_take_it() {
        let selector: LabelSelector = serde_json::from_value(serde_json::json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "new", "operator": "Exists"},
            ],
        }))
        .expect("a selector");
        assert_eq!(labels(&selector), "app=web,tier in (a,b),!old,new");
    }
}
