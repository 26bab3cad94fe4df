//! What becomes of a pod that is injected: a function over JSON (pure).
//!
//! The webhook, `meshctl inject` and `meshctl x check-inject` all call [`inject`] and [`decide`], so a file that
//! was injected by hand is what the webhook would have made of it. A pod is JSON and not a typed object: fields
//! that a later Kubernetes adds pass through as they are.
//!
//! Nothing is guessed. A pod whose form is not understood, an annotation that cannot be read, a container that
//! would escape its proxy: each is an [`InjectError`], and whoever asked refuses the pod. What changes less than
//! its author may think (an annotation without effect, init containers outside of the mesh) is a warning.

mod annotation;
mod decision;
mod metadata;
mod pod;
mod probes;
mod quantity;
mod resources;
mod seconds;
mod settings;
mod sidecar;
mod uninject;
mod warning;
mod workload;

use std::collections::BTreeMap;

use json_patch::Patch;
use mesh_api::model::probe::AppProbes;
use serde_json::{Value, json};

pub use decision::{Decision, Form, Level, NamespaceMeta, Reason, Source, decide};
pub use quantity::{Quantity, QuantityError};
pub use seconds::{Seconds, SecondsError};
pub use settings::{
    Amounts, InjectSettings, LabelOperator, LabelRequirement, LabelSelector, LogFormat, NativeSidecars,
    PullPolicy, Resources, SettingsError,
};
pub use uninject::uninject;
pub use workload::{Template, inject_object, templates, uninject_object};

use annotation::Effective;
use metadata::Added;
use resources::Granted;
use sidecar::Plan;

use crate::name;

/// What the cluster can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Whether it has native sidecars (Kubernetes 1.29 and later).
    pub native_sidecars: bool,
}

/// What became of a pod.
#[derive(Debug, Clone)]
pub struct Injection {
    /// The pod; as it was, unless it was injected.
    pub pod: Value,
    /// What leads from the old pod to the new one; empty unless it was injected.
    pub patch: Patch,
    /// Whether it was injected, and why: never [`Decision::Refuse`], which is an error.
    pub decision: Decision,
    /// What its author should know, one sentence each.
    pub warnings: Vec<String>,
}

/// Why a pod must not be created as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// A field is not what it is in a pod.
    #[error("{field} must be {expected}")]
    Shape {
        /// The field.
        field: String,
        /// What it should be.
        expected: &'static str,
    },
    /// It asks for injection and cannot be injected.
    #[error("the pod cannot be injected as asked: {0}")]
    Refused(Reason),
    /// An annotation cannot be read.
    #[error("the annotation {name} is {value:?}: {reason}")]
    Annotation {
        /// Its key.
        name: String,
        /// Its value, or the beginning of it.
        value: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// Annotations ask for more than they allow.
    #[error(
        "annotations give the proxy a {resource} request of {request}, which is more than its limit of {limit}"
    )]
    Resources {
        /// `cpu` or `memory`.
        resource: &'static str,
        /// The request.
        request: String,
        /// The limit.
        limit: String,
    },
    /// A container runs as the proxy's user.
    #[error(
        "the container {container:?} runs as user 1337, which is the proxy's: its traffic would pass by the proxy; choose another user (init containers need no exception: with native sidecars they have the mesh's network)"
    )]
    ReservedUser {
        /// Its name.
        container: String,
    },
    /// A name of ours is taken.
    #[error("the {what} {name:?} has a name that injection uses; rename it")]
    ReservedName {
        /// Container or volume.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A port of ours is taken.
    #[error("the container {container:?} has the port {port}, which the proxy uses; choose another")]
    ReservedPort {
        /// Its name.
        container: String,
        /// The port.
        port: u16,
    },
}

/// Injects a pod, if it is to be injected.
///
/// # Errors
/// When the pod must not be created as it is.
pub fn inject(
    pod: &Value,
    namespace: &NamespaceMeta,
    settings: &InjectSettings,
    platform: Platform,
) -> Result<Injection, InjectError> {
    inject_as(pod, namespace, settings, platform, None)
}

/// Injects a pod of a workload whose name is known.
fn inject_as(
    pod: &Value,
    namespace: &NamespaceMeta,
    settings: &InjectSettings,
    platform: Platform,
    workload: Option<&str>,
) -> Result<Injection, InjectError> {
    let mut warnings = Vec::new();
    let decision = decision::judge(pod, namespace, settings, &mut warnings);
    match decision {
        Decision::Refuse { reason } => return Err(InjectError::Refused(reason)),
        Decision::Skip { .. } => {
            return Ok(Injection { pod: pod.clone(), patch: Patch::default(), decision, warnings });
        }
        Decision::Inject { .. } => {}
    }
    pod::check_shape(pod)?;
    check_collisions(pod)?;
    let annotations = pod::metadata(pod, "annotations");
    let effective = annotation::effective(settings, namespace, &annotations, &mut warnings)?;
    let injected = injected(pod, settings, &effective, platform, workload, &mut warnings);
    warning::warn(pod, namespace, &effective, form(&effective, platform), &mut warnings);
    let patch = json_patch::diff(pod, &injected);
    Ok(Injection { pod: injected, patch, decision, warnings })
}

fn form(effective: &Effective, platform: Platform) -> sidecar::Form {
    let is_native = match effective.native_sidecars {
        NativeSidecars::Auto => platform.native_sidecars,
        NativeSidecars::Always => true,
        NativeSidecars::Never => false,
    };
    match (is_native, effective.is_held) {
        (true, _) => sidecar::Form::NativeSidecar,
        (false, true) => sidecar::Form::Held,
        (false, false) => sidecar::Form::Beside,
    }
}

fn injected(
    pod: &Value,
    settings: &InjectSettings,
    effective: &Effective,
    platform: Platform,
    workload: Option<&str>,
    warnings: &mut Vec<String>,
) -> Value {
    let mut new = pod.clone();
    let grace_seconds = grace_seconds(pod);
    let probes = if effective.rewrites_probes {
        rewrite_probes(&mut new, grace_seconds, warnings)
    } else {
        AppProbes::default()
    };
    let granted = Granted::to(pod, effective, settings, warnings);
    let form = form(effective, platform);
    let plan = Plan {
        settings,
        effective,
        granted: &granted,
        probes: &probes,
        form,
        // Killed in the middle of draining is worse than drained for less long: two seconds are left to end in.
        drain_seconds: effective.drain.get().min(grace_seconds.saturating_sub(2).max(1)),
    };
    let (init, proxy) = (plan.init(), plan.proxy());
    let spec = &mut new["spec"];
    match form {
        sidecar::Form::NativeSidecar => prepend(spec, "initContainers", [init, proxy]),
        sidecar::Form::Held => {
            append(spec, "initContainers", [init]);
            prepend(spec, "containers", [proxy]);
        }
        sidecar::Form::Beside => {
            append(spec, "initContainers", [init]);
            append(spec, "containers", [proxy]);
        }
    }
    append(spec, "volumes", plan.volumes());
    let has_secret = |secret: &&String| {
        pod::list(pod, "imagePullSecrets").iter().any(|known| pod::text(known, "name") == secret.as_str())
    };
    let secrets: Vec<_> = settings.image_pull_secrets.iter().filter(|secret| !has_secret(secret)).collect();
    append(spec, "imagePullSecrets", secrets.iter().map(|secret| json!({"name": secret})));
    let added = Added::to(pod, settings, workload);
    let mut noted = added.keys();
    noted.insert("imagePullSecrets".to_owned(), json!(secrets));
    let status = sidecar::status(&settings.revision, form, &noted);
    added.put(&mut new, status);
    new
}

/// The grace period of a pod, in seconds; without one the kubelet kills at once.
fn grace_seconds(pod: &Value) -> u32 {
    let stated = pod::spec(pod, "terminationGracePeriodSeconds").as_u64();
    stated.map_or(probes::GRACE_SECONDS, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX))
}

fn rewrite_probes(pod: &mut Value, grace_seconds: u32, warnings: &mut Vec<String>) -> AppProbes {
    let mut originals = BTreeMap::new();
    for field in pod::CONTAINER_LISTS {
        let Some(containers) = pod["spec"].get_mut(field).and_then(Value::as_array_mut) else { continue };
        for container in containers {
            // An init container that ends has neither probes nor lifecycle handlers.
            if field == "containers" || pod::is_native_sidecar(container) {
                probes::rewrite(container, grace_seconds, &mut originals, warnings);
            }
        }
    }
    AppProbes(originals)
}

fn prepend(spec: &mut Value, field: &str, items: impl IntoIterator<Item = Value>) {
    let old = spec.get_mut(field).map(Value::take);
    let old = match old {
        Some(Value::Array(old)) => old,
        Some(_) | None => Vec::new(),
    };
    spec[field] = items.into_iter().chain(old).collect();
}

fn append(spec: &mut Value, field: &str, items: impl IntoIterator<Item = Value>) {
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return;
    }
    match spec.get_mut(field) {
        Some(Value::Array(old)) => old.extend(items),
        Some(_) | None => spec[field] = items.collect(),
    }
}

/// Refuses names, ports and the user that are the proxy's own.
fn check_collisions(pod: &Value) -> Result<(), InjectError> {
    let taken = |what, name: &str| Err(InjectError::ReservedName { what, name: name.to_owned() });
    for volume in pod::list(pod, "volumes") {
        let name = pod::text(volume, "name");
        if [name::VOLUME_TOKEN, name::VOLUME_ROOT].contains(&name) {
            return taken("volume", name);
        }
    }
    let user_of = |holder: &Value| holder.get("securityContext")?.get("runAsUser")?.as_i64();
    let of_pod = pod.get("spec").and_then(user_of);
    for container in pod::containers(pod) {
        let name = pod::text(container, "name");
        if [name::PROXY_CONTAINER, name::INIT_CONTAINER].contains(&name) {
            return taken("container", name);
        }
        if user_of(container).or(of_pod) == Some(name::PROXY_UID) {
            return Err(InjectError::ReservedUser { container: name.to_owned() });
        }
        let ports = container.get("ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_ours = |port: &u16| {
            [
                name::PORT_PROXY_ADMIN,
                name::PORT_PROXY_OUTBOUND,
                name::PORT_PROXY_INBOUND,
                name::PORT_PROXY_STATUS,
                name::PORT_PROXY_DNS,
            ]
            .contains(port)
        };
        let numbers = ports.iter().filter_map(|port| port.get("containerPort")?.as_u64());
        if let Some(port) = numbers.filter_map(|port| u16::try_from(port).ok()).find(is_ours) {
            return Err(InjectError::ReservedPort { container: name.to_owned(), port });
        }
    }
    Ok(())
}
