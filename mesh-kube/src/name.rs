//! Names of the mesh's objects in a cluster, and the labels and annotations that it reads.
//!
//! A revision other than the default one has its name as a suffix: `mesh-control-canary`.

/// Namespace of the control plane, and root namespace of policies.
pub const SYSTEM_NAMESPACE: &str = "istio-system";
/// Deployment, Service and ServiceAccount of the control plane.
pub const CONTROL: &str = "mesh-control";
/// Value of the label [`LABEL_REVISION`] of an installation without a revision.
pub const DEFAULT_REVISION: &str = "default";
/// ConfigMap with the settings of one revision, in [`SYSTEM_NAMESPACE`].
pub const CONFIG: &str = "mini-mesh";
/// ConfigMap with what was said when a revision was installed, in [`SYSTEM_NAMESPACE`].
pub const INSTALLATION: &str = "mini-mesh-installation";
/// Key of [`CONFIG`]: a `mini-mesh.io` MeshConfig document.
pub const CONFIG_MESH: &str = "mesh.yaml";
/// Key of [`CONFIG`]: the settings of injection.
pub const CONFIG_INJECT: &str = "inject.yaml";
/// ConfigMap with the roots, in every namespace.
pub const ROOT_CERT: &str = "mini-mesh-ca-root-cert";
/// Key of [`ROOT_CERT`].
pub const ROOT_CERT_KEY: &str = "root-cert.pem";
/// Secret with the authority, in [`SYSTEM_NAMESPACE`]; made by the control plane, shared by all revisions.
pub const CA_SECRET: &str = "mini-mesh-ca";
/// ConfigMap with the addresses given to services that state none, in [`SYSTEM_NAMESPACE`].
pub const VIRTUAL_ADDRESSES: &str = "mini-mesh-virtual-addresses";
/// Lease of the replica that has the duties of which there must be one, for all revisions together.
pub const LEADER_LEASE: &str = "mesh-control-leader";
/// MutatingWebhookConfiguration of one revision.
pub const INJECTOR: &str = "mini-mesh-injector";
/// Webhook of [`INJECTOR`] for namespaces that no label speaks of: the one that may go unanswered.
pub const INJECTOR_UNLABELLED: &str = "unlabelled.injector.mini-mesh.io";
/// ValidatingWebhookConfiguration of one revision.
pub const VALIDATOR: &str = "mini-mesh-validator";
/// Path of the mutating webhook.
pub const INJECT_PATH: &str = "/inject";
/// Path of the validating webhook.
pub const VALIDATE_PATH: &str = "/validate";

/// Audience of the service-account tokens by which proxies prove who they are.
pub const TOKEN_AUDIENCE: &str = "mini-mesh-ca";
/// Field manager of `meshctl` in server-side apply.
pub const FIELD_MANAGER_CLI: &str = "meshctl";
/// Field manager of the control plane in server-side apply.
pub const FIELD_MANAGER_CONTROL: &str = "mesh-control";

/// Port for proxies (TLS).
pub const PORT_DISCOVERY: u16 = 15012;
/// Port of the webhooks (HTTPS).
pub const PORT_WEBHOOK: u16 = 15017;
/// Port of the control plane's operators, on loopback only.
pub const PORT_CONTROL_ADMIN: u16 = 15016;
/// Port of a proxy's operators, on loopback only.
pub const PORT_PROXY_ADMIN: u16 = 15000;
/// Port of a proxy's readiness, metrics and probes of the application.
pub const PORT_PROXY_STATUS: u16 = 15021;
/// User and group of the proxy: its packets are told by the user.
pub const PROXY_UID: i64 = 1337;

/// Name of the proxy's container.
pub const PROXY_CONTAINER: &str = "mesh-proxy";
/// Name of the init container that installs interception.
pub const INIT_CONTAINER: &str = "mesh-init";

/// Port to which what a pod sends is led.
pub const PORT_PROXY_OUTBOUND: u16 = 15001;
/// Port to which what a pod is sent is led.
pub const PORT_PROXY_INBOUND: u16 = 15006;
/// Port to which a pod's DNS queries are led.
pub const PORT_PROXY_DNS: u16 = 15053;
/// Name of the port [`PORT_PROXY_STATUS`] of the proxy's container.
pub const PORT_NAME_STATUS: &str = "mesh-status";
/// Volume of an injected pod with the token of [`TOKEN_AUDIENCE`].
pub const VOLUME_TOKEN: &str = "mini-mesh-token";
/// Volume of an injected pod with the roots.
pub const VOLUME_ROOT: &str = "mini-mesh-root";
/// Folder of [`VOLUME_TOKEN`] in the proxy's container.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/mini-mesh/token";
/// File in [`TOKEN_FOLDER`].
pub const TOKEN_FILE: &str = "token";
/// Folder of [`VOLUME_ROOT`] in the proxy's container.
pub const ROOT_FOLDER: &str = "/var/run/secrets/mini-mesh/root";

/// On every object of an installation: which revision it is of.
pub const LABEL_REVISION: &str = "istio.io/rev";
/// On every object of an installation: the name of the mesh's product.
pub const LABEL_PART_OF: &str = "app.kubernetes.io/part-of";
/// Value of [`LABEL_PART_OF`].
pub const PART_OF: &str = "mini-mesh";
/// On objects of an installation: the component.
pub const LABEL_COMPONENT: &str = "mini-mesh.io/component";
/// Value of [`LABEL_COMPONENT`] on the pods of the control plane.
pub const COMPONENT_CONTROL: &str = "control";
/// Value of [`LABEL_COMPONENT`] of the record of an installation.
pub const COMPONENT_INSTALLATION: &str = "installation";
/// On injectors: the tag by which namespaces and pods call their revision.
pub const LABEL_TAG: &str = "istio.io/tag";
/// Namespace label of Istio: `enabled` or `disabled`.
pub const LABEL_INJECTION: &str = "istio-injection";
/// Pod label or annotation of Istio: `"true"` or `"false"`.
pub const SIDECAR_INJECT: &str = "sidecar.istio.io/inject";
/// Namespace or pod annotation or label of Linkerd: `enabled`, `ingress` or `disabled`.
pub const LINKERD_INJECT: &str = "linkerd.io/inject";
/// Namespace or pod label or annotation of our own: `enabled` or `disabled`.
pub const INJECT: &str = "mini-mesh.io/inject";
/// Pod annotation that says what was injected (JSON).
pub const ANNOTATION_STATUS: &str = "sidecar.istio.io/status";
/// Label of a pod that a proxy of the mesh serves.
pub const LABEL_TLS_MODE: &str = "security.istio.io/tlsMode";
/// Value of [`LABEL_TLS_MODE`].
pub const TLS_MODE: &str = "istio";

/// A name of a revision: the default one's stands alone, any other's has the revision as a suffix.
#[must_use]
pub fn of_revision(name: &str, revision: &str) -> String {
    if revision == DEFAULT_REVISION { name.to_owned() } else { format!("{name}-{revision}") }
}
