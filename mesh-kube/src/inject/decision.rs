//! Whether a pod is injected, and why: one table, for the webhook, the reconciler and the command line alike.
//!
//! The first row that applies decides.
//!
//! | # | what | decision |
//! |---|------|----------|
//! | 1 | pod in `kube-system`, `kube-public`, `kube-node-lease` or the namespace of the control plane | skip |
//! | 2 | mirror of a static pod | skip |
//! | 3 | already injected by this mesh | skip |
//! | 4 | pod says no: `sidecar.istio.io/inject: "false"`, `mini-mesh.io/inject: disabled`, `linkerd.io/inject: disabled` | skip |
//! | 5 | namespace label `istio-injection: disabled` | skip, even if the pod says yes |
//! | 6 | pod says yes: `sidecar.istio.io/inject: "true"`, `mini-mesh.io/inject: enabled`, `linkerd.io/inject: enabled` or `ingress`, or a label `istio.io/rev` of this revision | inject |
//! | 7 | namespace says no: `mini-mesh.io/inject: disabled`, `linkerd.io/inject: disabled` | skip |
//! | 8 | `neverInjectSelector` selects the pod | skip |
//! | 9 | namespace says yes: `istio-injection: enabled`, `istio.io/rev`, `mini-mesh.io/inject: enabled`, `linkerd.io/inject: enabled` or `ingress` | inject |
//! | 10 | `alwaysInjectSelector` selects the pod, or `enabledByDefault` | inject |
//! | 11 | nothing said | skip |
//!
//! A pod that would be injected is looked at once more. One revision alone injects it: `default` when the
//! namespace is labelled `istio-injection: enabled`, else the namespace's `istio.io/rev`, else the pod's, else
//! `default`; for another revision it is skipped. On the host's network, on Windows, or with a sidecar of
//! another mesh it cannot be injected: refused when the pod itself asked (row 6), since it would otherwise run
//! as something its author did not want; skipped with a warning when only its namespace did.
//!
//! At one level "no" wins over "yes", and a warning tells of the contradiction. A value that is neither is
//! refused: a typing error must not decide whether traffic is encrypted.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::pod;
use super::settings::InjectSettings;
use crate::name;

/// What injection knows of a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceMeta {
    /// Name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a pod is injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is.
    Inject {
        /// Who asked for it.
        reason: Reason,
    },
    /// It stays as it is.
    Skip {
        /// Why.
        reason: Reason,
    },
    /// It must not be created: it asks for what cannot be.
    Refuse {
        /// Why.
        reason: Reason,
    },
}

impl Decision {
    /// The reason, whatever the decision.
    #[must_use]
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Inject { reason } | Self::Skip { reason } | Self::Refuse { reason } => reason,
        }
    }

    /// Whether the pod is injected.
    #[must_use]
    pub fn is_inject(&self) -> bool {
        matches!(self, Self::Inject { .. })
    }
}

/// Why a pod is injected or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It lies in a namespace of the cluster or of the mesh itself.
    SystemNamespace(String),
    /// It is the mirror of a static pod, which the kubelet runs and no admission changes.
    StaticPod,
    /// This mesh has injected it.
    AlreadyInjected,
    /// Something said no.
    Disabled(Source),
    /// Something said yes.
    Enabled(Source),
    /// Another revision injects it.
    OtherRevision(String),
    /// `neverInjectSelector` selects it.
    NeverSelector,
    /// `alwaysInjectSelector` selects it.
    AlwaysSelector,
    /// `enabledByDefault`.
    EnabledByDefault,
    /// Nothing asks for it.
    NotAsked,
    /// It uses the network of its node.
    HostNetwork,
    /// It runs on Windows.
    Windows,
    /// It has a sidecar of another mesh: the name of that container.
    OtherMesh(String),
    /// A label or annotation has a value that is neither yes nor no.
    Unclear {
        /// Where it stands.
        source: Source,
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
}

/// Where something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// On the pod or its namespace.
    pub level: Level,
    /// As a label or an annotation.
    pub form: Form,
    /// Its key.
    pub key: &'static str,
}

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The pod's.
    Pod,
    /// The namespace's.
    Namespace,
}

/// Which metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A label.
    Label,
    /// An annotation.
    Annotation,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Pod => "pod",
            Level::Namespace => "namespace",
        };
        let form = match self.form {
            Form::Label => "label",
            Form::Annotation => "annotation",
        };
        write!(f, "{level} {form} {}", self.key)
    }
}

impl Reason {
    /// A word for metrics and events; there are not more of them than variants.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::SystemNamespace(_) => "SystemNamespace",
            Self::StaticPod => "StaticPod",
            Self::AlreadyInjected => "AlreadyInjected",
            Self::Disabled(_) => "Disabled",
            Self::Enabled(_) => "Enabled",
            Self::OtherRevision(_) => "OtherRevision",
            Self::NeverSelector => "NeverInjectSelector",
            Self::AlwaysSelector => "AlwaysInjectSelector",
            Self::EnabledByDefault => "EnabledByDefault",
            Self::NotAsked => "NotAsked",
            Self::HostNetwork => "HostNetwork",
            Self::Windows => "Windows",
            Self::OtherMesh(_) => "OtherMesh",
            Self::Unclear { .. } => "Unclear",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SystemNamespace(namespace) => {
                write!(f, "pods of the namespace {namespace} are never injected")
            }
            Self::StaticPod => f.write_str("it is a static pod, which only its node can change"),
            Self::AlreadyInjected => f.write_str("it has the proxy of this mesh already"),
            Self::Disabled(source) => write!(f, "{source} turns injection off"),
            Self::Enabled(source) => write!(f, "{source} turns injection on"),
            Self::OtherRevision(revision) => write!(f, "the revision or tag {revision:?} injects it"),
            Self::NeverSelector => f.write_str("neverInjectSelector of the mesh's settings selects it"),
            Self::AlwaysSelector => f.write_str("alwaysInjectSelector of the mesh's settings selects it"),
            Self::EnabledByDefault => f.write_str("injection is on by default in the mesh's settings"),
            Self::NotAsked => f.write_str("neither the pod nor its namespace asks for injection"),
            Self::HostNetwork => f.write_str(
                "it uses the network of its node (hostNetwork), whose traffic a proxy of one pod must not capture",
            ),
            Self::Windows => f.write_str("it runs on Windows, where there is no proxy"),
            Self::OtherMesh(container) => write!(
                f,
                "it has the container {container:?} of another mesh; remove that sidecar from the pod or turn the other injector off"
            ),
            Self::Unclear { source, value, expected } => {
                write!(f, "{source} is {value:?}; it must be {expected}")
            }
        }
    }
}

/// Namespaces of the cluster itself (<https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/>).
const SYSTEM_NAMESPACES: [&str; 4] =
    ["kube-system", "kube-public", "kube-node-lease", name::SYSTEM_NAMESPACE];

/// Containers by which sidecars of other meshes are known.
const OTHER_SIDECARS: [&str; 4] = ["istio-proxy", "linkerd-proxy", "consul-dataplane", "kuma-sidecar"];

/// Annotation of a pod that stands for a static one.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Label or annotation that names the operating system in a node selector.
const NODE_OS: [&str; 2] = ["kubernetes.io/os", "beta.kubernetes.io/os"];

/// Decides about a pod, whatever its form. See the table above.
#[must_use]
pub fn decide(pod: &Value, namespace: &NamespaceMeta, settings: &InjectSettings) -> Decision {
    judge(pod, namespace, settings, &mut Vec::new())
}

/// Decides about a pod and tells of contradictions.
pub(super) fn judge(
    pod: &Value,
    namespace: &NamespaceMeta,
    settings: &InjectSettings,
    warnings: &mut Vec<String>,
) -> Decision {
    let labels = pod::metadata(pod, "labels");
    let annotations = pod::metadata(pod, "annotations");
    if SYSTEM_NAMESPACES.contains(&namespace.name.as_str()) {
        return Decision::Skip { reason: Reason::SystemNamespace(namespace.name.clone()) };
    }
    if annotations.contains_key(MIRROR) {
        return Decision::Skip { reason: Reason::StaticPod };
    }
    if is_injected(pod, &annotations) {
        return Decision::Skip { reason: Reason::AlreadyInjected };
    }
    let wish = match wish(&labels, &annotations, namespace, settings, warnings) {
        Ok(wish) => wish,
        Err(reason) => return Decision::Refuse { reason },
    };
    let (reason, level) = match wish {
        Wish::Yes { reason, level } => (reason, level),
        Wish::No(reason) => return Decision::Skip { reason },
    };
    let revision = revision_of(&labels, namespace, warnings);
    if !settings.is_revision(&revision) {
        return Decision::Skip { reason: Reason::OtherRevision(revision) };
    }
    match (obstacle(pod), level) {
        (None, _) => Decision::Inject { reason },
        (Some(obstacle), Level::Pod) => Decision::Refuse { reason: obstacle },
        (Some(obstacle), Level::Namespace) => {
            warnings.push(format!("the pod is not part of the mesh: {obstacle}"));
            Decision::Skip { reason: obstacle }
        }
    }
}

/// Whether this mesh has injected the pod. The annotation alone does not do: templates are copied.
fn is_injected(pod: &Value, annotations: &BTreeMap<String, String>) -> bool {
    annotations.contains_key(name::ANNOTATION_STATUS)
        && pod::containers(pod).any(|container| pod::text(container, "name") == name::PROXY_CONTAINER)
}

/// What is wished for.
enum Wish {
    Yes { reason: Reason, level: Level },
    No(Reason),
}

fn wish(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    namespace: &NamespaceMeta,
    settings: &InjectSettings,
    warnings: &mut Vec<String>,
) -> Result<Wish, Reason> {
    let of_pod = voice(&pod_voices(labels, annotations)?, warnings);
    if let Some((source, false)) = of_pod {
        return Ok(Wish::No(Reason::Disabled(source)));
    }
    let of_namespace = namespace_voices(namespace)?;
    let closed = of_namespace.iter().find(|(source, say)| source.key == name::LABEL_INJECTION && !say);
    if let Some((source, _)) = closed {
        if of_pod.is_some() {
            warnings.push(format!("the pod asks for injection, but {source} turns it off and wins"));
        }
        return Ok(Wish::No(Reason::Disabled(*source)));
    }
    if let Some((source, _)) = of_pod {
        return Ok(Wish::Yes { reason: Reason::Enabled(source), level: Level::Pod });
    }
    let of_namespace = voice(&of_namespace, warnings);
    if let Some((source, false)) = of_namespace {
        return Ok(Wish::No(Reason::Disabled(source)));
    }
    let is_selected = |selectors: &[super::settings::LabelSelector]| {
        selectors.iter().any(|selector| selector.matches(labels))
    };
    if is_selected(&settings.never_inject_selector) {
        return Ok(Wish::No(Reason::NeverSelector));
    }
    let level = Level::Namespace;
    Ok(match of_namespace {
        Some((source, _)) => Wish::Yes { reason: Reason::Enabled(source), level },
        None if is_selected(&settings.always_inject_selector) => {
            Wish::Yes { reason: Reason::AlwaysSelector, level }
        }
        None if settings.enabled_by_default => Wish::Yes { reason: Reason::EnabledByDefault, level },
        None => Wish::No(Reason::NotAsked),
    })
}

/// Everything that a pod says.
fn pod_voices(
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<(Source, bool)>, Reason> {
    let mut voices = Vec::new();
    // Of one key, the label is heard and the annotation only without it, as Istio has it.
    for (key, read) in [
        (name::SIDECAR_INJECT, truth as Read),
        (name::INJECT, on_or_off as Read),
        (name::LINKERD_INJECT, linkerd as Read),
    ] {
        voices.extend(said(Level::Pod, key, labels, annotations, read)?);
    }
    let source = Source { level: Level::Pod, form: Form::Label, key: name::LABEL_REVISION };
    voices.extend(labels.get(name::LABEL_REVISION).map(|_| (source, true)));
    Ok(voices)
}

/// Everything that a namespace says.
fn namespace_voices(namespace: &NamespaceMeta) -> Result<Vec<(Source, bool)>, Reason> {
    let mut voices = Vec::new();
    let none = BTreeMap::new();
    let (labels, annotations) = (&namespace.labels, &namespace.annotations);
    voices.extend(said(Level::Namespace, name::LABEL_INJECTION, labels, &none, on_or_off)?);
    voices.extend(said(Level::Namespace, name::INJECT, labels, annotations, on_or_off)?);
    voices.extend(said(Level::Namespace, name::LINKERD_INJECT, labels, annotations, linkerd)?);
    let source = Source { level: Level::Namespace, form: Form::Label, key: name::LABEL_REVISION };
    voices.extend(labels.get(name::LABEL_REVISION).map(|_| (source, true)));
    Ok(voices)
}

/// Reads a value, or says what it may be.
type Read = fn(&str) -> Result<bool, &'static str>;

fn said(
    level: Level,
    key: &'static str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    read: Read,
) -> Result<Option<(Source, bool)>, Reason> {
    let (form, value) = match (labels.get(key), annotations.get(key)) {
        (Some(value), _) => (Form::Label, value),
        (None, Some(value)) => (Form::Annotation, value),
        (None, None) => return Ok(None),
    };
    let source = Source { level, form, key };
    match read(value) {
        Ok(say) => Ok(Some((source, say))),
        Err(expected) => Err(Reason::Unclear { source, value: value.clone(), expected }),
    }
}

/// Values as Istio reads them: those of YAML 1.1.
fn truth(value: &str) -> Result<bool, &'static str> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" | "enabled" => Ok(true),
        "false" | "n" | "no" | "off" | "disabled" => Ok(false),
        _ => Err("\"true\" or \"false\""),
    }
}

fn on_or_off(value: &str) -> Result<bool, &'static str> {
    match value {
        "enabled" | "true" => Ok(true),
        "disabled" | "false" => Ok(false),
        _ => Err("\"enabled\" or \"disabled\""),
    }
}

fn linkerd(value: &str) -> Result<bool, &'static str> {
    match value {
        "enabled" | "ingress" => Ok(true),
        "disabled" => Ok(false),
        _ => Err("\"enabled\", \"ingress\" or \"disabled\""),
    }
}

/// One voice out of those of a level: "no" wins, and a contradiction is told. A revision is a wish of its own
/// only where nothing else is said; elsewhere it only says which revision is meant.
fn voice(voices: &[(Source, bool)], warnings: &mut Vec<String>) -> Option<(Source, bool)> {
    let is_wish = |source: &Source| source.key != name::LABEL_REVISION || voices.len() == 1;
    let find = |wanted: bool| voices.iter().find(|(source, say)| *say == wanted && is_wish(source)).copied();
    let (yes, no) = (find(true), find(false));
    if let (Some((yes, _)), Some((no, _))) = (yes, no) {
        warnings.push(format!("{yes} turns injection on and {no} turns it off; off wins"));
    }
    no.or(yes)
}

/// The one revision that injects the pod. The namespace wins over the pod, as in Istio: only the revision that
/// the namespace names is sure to be asked.
fn revision_of(
    labels: &BTreeMap<String, String>,
    namespace: &NamespaceMeta,
    warnings: &mut Vec<String>,
) -> String {
    let of_pod = labels.get(name::LABEL_REVISION);
    let is_enabled = namespace.labels.get(name::LABEL_INJECTION).is_some_and(|value| value == "enabled");
    let of_namespace = match (is_enabled, namespace.labels.get(name::LABEL_REVISION)) {
        (true, Some(revision)) if revision != name::DEFAULT_REVISION => {
            warnings.push(format!(
                "the namespace has the labels istio-injection=enabled and istio.io/rev={revision}; the first wins, and the default revision injects"
            ));
            Some(name::DEFAULT_REVISION)
        }
        (true, _) => Some(name::DEFAULT_REVISION),
        (false, revision) => revision.map(String::as_str),
    };
    match (of_namespace, of_pod) {
        (Some(chosen), Some(other)) if chosen != other => {
            warnings.push(format!(
                "the pod's label istio.io/rev={other} has no effect: its namespace chooses the revision {chosen:?}"
            ));
            chosen.to_owned()
        }
        (Some(chosen), _) => chosen.to_owned(),
        (None, Some(chosen)) => chosen.clone(),
        (None, None) => name::DEFAULT_REVISION.to_owned(),
    }
}

/// What makes injection impossible.
fn obstacle(pod: &Value) -> Option<Reason> {
    if pod::spec(pod, "hostNetwork").as_bool() == Some(true) {
        return Some(Reason::HostNetwork);
    }
    let is_windows = |value: &Value| value.as_str() == Some("windows");
    let selector = pod::spec(pod, "nodeSelector");
    if pod::spec(pod, "os").get("name").is_some_and(is_windows)
        || NODE_OS.iter().any(|key| selector.get(*key).is_some_and(is_windows))
    {
        return Some(Reason::Windows);
    }
    let other = pod::containers(pod)
        .map(|container| pod::text(container, "name"))
        .find(|name| OTHER_SIDECARS.contains(name))?;
    Some(Reason::OtherMesh(other.to_owned()))
}
