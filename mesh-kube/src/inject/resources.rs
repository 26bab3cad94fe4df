//! Resources of the proxy's containers, so that the pod keeps its quality of service.
//!
//! | pod | the proxy and its init container get |
//! |-----|--------------------------------------|
//! | Guaranteed | `guaranteedResources` as request and limit alike: the pod stays Guaranteed |
//! | Burstable | `resources` |
//! | BestEffort | none: the pod stays BestEffort |
//! | resources of its own (`spec.resources`) | none: they share what the pod has |
//!
//! Annotations win over all of these. Those that make a BestEffort pod Burstable do so with a warning; in a
//! Guaranteed pod the larger of request and limit becomes both. The classes are computed as Kubernetes does
//! (<https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>): of processors and memory alone, init
//! containers included.

use serde_json::{Map, Value};

use super::annotation::{Demand, Effective};
use super::pod;
use super::quantity::Quantity;
use super::settings::{Amounts, InjectSettings};

/// What decides about the resources of added containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Every container has equal requests and limits.
    Guaranteed,
    /// Some container has a request or a limit.
    Burstable,
    /// None has.
    BestEffort,
    /// The pod has resources as a whole (Kubernetes 1.34).
    PodLevel,
}

const RESOURCES: [&str; 2] = ["cpu", "memory"];

impl Class {
    /// The class of a pod.
    pub(super) fn of(pod: &Value) -> Self {
        let has_own = RESOURCES.iter().any(|name| {
            let resources = pod::spec(pod, "resources");
            amount(resources, "requests", name).or(amount(resources, "limits", name)).is_some()
        });
        if has_own {
            return Self::PodLevel;
        }
        let (mut is_guaranteed, mut is_best_effort) = (true, true);
        for container in pod::containers(pod) {
            let resources = container.get("resources").unwrap_or(&Value::Null);
            for name in RESOURCES {
                let (request, limit) =
                    (amount(resources, "requests", name), amount(resources, "limits", name));
                is_best_effort &= request.is_none() && limit.is_none();
                // A request that is not stated is the limit.
                is_guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
        match (is_guaranteed, is_best_effort) {
            (true, _) => Self::Guaranteed,
            (false, true) => Self::BestEffort,
            (false, false) => Self::Burstable,
        }
    }
}

/// A stated amount; nothing of a resource counts as not stated, as in Kubernetes.
fn amount(resources: &Value, kind: &str, name: &str) -> Option<Quantity> {
    let value = resources.get(kind)?.get(name)?;
    Quantity::of_json(value).filter(|quantity| !quantity.is_zero())
}

/// Resources of the containers that are added.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Granted {
    cpu: Demand,
    memory: Demand,
}

impl Granted {
    /// What a pod's proxy gets.
    pub(super) fn to(
        pod: &Value,
        effective: &Effective,
        settings: &InjectSettings,
        warnings: &mut Vec<String>,
    ) -> Self {
        match Class::of(pod) {
            Class::Guaranteed => {
                let Amounts { cpu, memory } = &settings.guaranteed_resources;
                Self {
                    cpu: equal("CPU", &effective.cpu, cpu.as_ref(), warnings),
                    memory: equal("memory", &effective.memory, memory.as_ref(), warnings),
                }
            }
            Class::Burstable => Self::shared(effective, settings),
            Class::BestEffort if effective.cpu.is_empty() && effective.memory.is_empty() => Self::default(),
            Class::BestEffort => {
                warnings.push(
                    "annotations give the proxy resources, so the pod is Burstable and no longer BestEffort"
                        .to_owned(),
                );
                Self::shared(effective, settings)
            }
            Class::PodLevel => Self { cpu: effective.cpu.clone(), memory: effective.memory.clone() },
        }
    }

    fn shared(effective: &Effective, settings: &InjectSettings) -> Self {
        let (requests, limits) = (&settings.resources.requests, &settings.resources.limits);
        Self {
            cpu: completed(&effective.cpu, requests.cpu.as_ref(), limits.cpu.as_ref()),
            memory: completed(&effective.memory, requests.memory.as_ref(), limits.memory.as_ref()),
        }
    }

    /// Threads that suit the processors: the limit's, else the request's.
    pub(super) fn workers(&self) -> Option<u16> {
        const WORKERS_MAX: u64 = 16;
        let processors = self.cpu.limit.as_ref().or(self.cpu.request.as_ref())?;
        u16::try_from(processors.rounded_up().clamp(1, WORKERS_MAX)).ok()
    }

    /// As a container has it; `None` when there is nothing to say.
    pub(super) fn to_json(&self) -> Option<Value> {
        let side = |of: fn(&Demand) -> &Option<Quantity>| {
            let stated = [("cpu", of(&self.cpu)), ("memory", of(&self.memory))];
            let stated = stated
                .into_iter()
                .filter_map(|(name, amount)| Some((name.to_owned(), Value::from(amount.as_ref()?.as_str()))));
            stated.collect::<Map<String, Value>>()
        };
        let sides = [("limits", side(|demand| &demand.limit)), ("requests", side(|demand| &demand.request))];
        let stated = sides.into_iter().filter(|(_, amounts)| !amounts.is_empty());
        let resources: Map<String, Value> =
            stated.map(|(name, amounts)| (name.to_owned(), Value::Object(amounts))).collect();
        (!resources.is_empty()).then_some(Value::Object(resources))
    }
}

/// One amount as request and limit.
fn equal(what: &str, demand: &Demand, default: Option<&Quantity>, warnings: &mut Vec<String>) -> Demand {
    if let (Some(request), Some(limit)) = (&demand.request, &demand.limit)
        && request != limit
    {
        warnings.push(format!(
            "the proxy requests its {what} limit of {}, so that the pod stays Guaranteed",
            limit.as_str()
        ));
    }
    // The limit is not less than the request: that has been checked.
    let amount = demand.limit.as_ref().or(demand.request.as_ref()).or(default).cloned();
    Demand { request: amount.clone(), limit: amount }
}

/// What annotations leave open comes from the settings, so far as it does not contradict them.
fn completed(demand: &Demand, request: Option<&Quantity>, limit: Option<&Quantity>) -> Demand {
    let limit = match (&demand.limit, &demand.request, limit) {
        (Some(stated), _, _) => Some(stated.clone()),
        (None, Some(request), Some(default)) => Some(request.max(default).clone()),
        (None, _, default) => default.cloned(),
    };
    let request = match (&demand.request, request, &limit) {
        (Some(stated), _, _) => Some(stated.clone()),
        (None, Some(default), Some(limit)) => Some(default.min(limit).clone()),
        (None, default, _) => default.cloned(),
    };
    Demand { request, limit }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_are_those_of_kubernetes() {
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        for (spec, class) in [
            (json!({"containers": [{}]}), Class::BestEffort),
            (
                json!({"containers": [{"resources": {"requests": {"ephemeral-storage": "1Gi"}}}]}),
                Class::BestEffort,
            ),
            (json!({"containers": [{"resources": {"requests": {"cpu": "0"}}}]}), Class::BestEffort),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}), Class::Burstable),
            (json!({"containers": [{"resources": equal}]}), Class::Guaranteed),
            (
                json!({"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}),
                Class::Guaranteed,
            ),
            (json!({"containers": [{"resources": equal}, {}]}), Class::Burstable),
            (json!({"containers": [{"resources": equal}], "initContainers": [{}]}), Class::Burstable),
            (json!({"containers": [{"resources": {"limits": {"cpu": "1"}}}]}), Class::Burstable),
            (json!({"containers": [{}], "resources": {"limits": {"cpu": "1"}}}), Class::PodLevel),
        ] {
            assert_eq!(Class::of(&json!({"spec": spec})), class, "{spec}");
        }
    }

    #[test]
    fn defaults_give_way_to_what_is_stated() {
        let of = |text: &str| Quantity::parse(text).ok();
        let demand = |request: &str, limit: &str| Demand { request: of(request), limit: of(limit) };
        let default = (of("100m"), of("1"));
        for (stated, expected) in [
            (demand("", ""), demand("100m", "1")),
            (demand("2", ""), demand("2", "2")),
            (demand("", "50m"), demand("50m", "50m")),
            (demand("10m", "3"), demand("10m", "3")),
        ] {
            assert_eq!(completed(&stated, default.0.as_ref(), default.1.as_ref()), expected);
        }
    }
}
