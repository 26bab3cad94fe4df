//! The containers and volumes that are added to a pod.
//!
//! The proxy runs as a user of its own with nothing else: no capability, no writable file, no token of the API
//! server. Its init container is root with `NET_ADMIN` alone, because only so can the rules of a network
//! namespace be written. Everything is stated on the container, so that what the pod states for all of its
//! containers (a user, a seccomp profile) changes nothing.

use mesh_api::model::probe::{APP_PROBES_ENV, AppProbes};
use serde_json::{Map, Value, json};

use super::annotation::{Effective, Include, Traffic};
use super::resources::Granted;
use super::settings::InjectSettings;
use crate::name;

/// Where the admission of service accounts mounts the API server's token into every container that has nothing
/// there yet (<https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>). It runs again
/// after injection, so the only way to keep that token out is to have something there: the roots, once more.
const API_TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the proxy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An init container that keeps running.
    NativeSidecar,
    /// A container before the application's, which wait for it.
    Held,
    /// A container beside the application's.
    Beside,
}

/// What the proxy's containers are made of.
#[derive(Debug)]
pub(super) struct Plan<'p> {
    pub(super) settings: &'p InjectSettings,
    pub(super) effective: &'p Effective,
    pub(super) granted: &'p Granted,
    pub(super) probes: &'p AppProbes,
    pub(super) form: Form,
    /// Longest time for draining, in seconds.
    pub(super) drain_seconds: u32,
}

impl Plan<'_> {
    /// The proxy.
    pub(super) fn proxy(&self) -> Value {
        let status = |path: &str| json!({"path": path, "port": name::PORT_PROXY_STATUS, "scheme": "HTTP"});
        let readiness = self.effective.readiness;
        let mut container = json!({
            "name": name::PROXY_CONTAINER,
            "image": self.effective.image,
            "imagePullPolicy": self.settings.image_pull_policy.as_str(),
            "args": ["run"],
            "env": self.env(),
            "ports": [{
                "name": name::PORT_NAME_STATUS,
                "containerPort": name::PORT_PROXY_STATUS,
                "protocol": "TCP",
            }],
            "readinessProbe": {
                "httpGet": status("/healthz/ready"),
                "initialDelaySeconds": readiness.initial_delay_seconds,
                "periodSeconds": readiness.period_seconds,
                "failureThreshold": readiness.failure_threshold,
                "timeoutSeconds": 3,
            },
            "securityContext": {
                "runAsUser": name::PROXY_UID,
                "runAsGroup": name::PROXY_UID,
                "runAsNonRoot": true,
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": name::VOLUME_TOKEN, "mountPath": name::TOKEN_FOLDER, "readOnly": true},
                {"name": name::VOLUME_ROOT, "mountPath": name::ROOT_FOLDER, "readOnly": true},
                {"name": name::VOLUME_ROOT, "mountPath": API_TOKEN_FOLDER, "readOnly": true},
            ],
        });
        container["command"] = json!(["/mesh-proxy"]);
        self.give_resources(&mut container);
        match self.form {
            Form::NativeSidecar => {
                container["restartPolicy"] = json!("Always");
                // The next init container starts when this succeeds: ask often, and for ten minutes, since a
                // control plane that is not there yet is no fault of this pod.
                container["startupProbe"] = json!({
                    "httpGet": status("/healthz/ready"),
                    "periodSeconds": 1,
                    "failureThreshold": 600,
                    "timeoutSeconds": 3,
                });
            }
            Form::Held => {
                container["lifecycle"] = json!({
                    "postStart": {"exec": {"command": ["/mesh-proxy", "wait", "--timeout", "60s"]}},
                });
            }
            Form::Beside => {}
        }
        container
    }

    /// The init container that leads the pod's traffic through the proxy.
    pub(super) fn init(&self) -> Value {
        let mut container = json!({
            "name": name::INIT_CONTAINER,
            "image": self.effective.image,
            "imagePullPolicy": self.settings.image_pull_policy.as_str(),
            "command": ["/mesh-proxy"],
            "args": self.interception(),
            "securityContext": {
                "runAsUser": 0,
                "runAsGroup": 0,
                "runAsNonRoot": false,
                "privileged": false,
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": name::VOLUME_ROOT, "mountPath": API_TOKEN_FOLDER, "readOnly": true}],
        });
        self.give_resources(&mut container);
        container
    }

    /// The volumes of both.
    pub(super) fn volumes(&self) -> [Value; 2] {
        let token = json!({
            "name": name::VOLUME_TOKEN,
            "projected": {"sources": [{"serviceAccountToken": {
                "audience": self.settings.token_audience,
                "expirationSeconds": self.settings.token_ttl_seconds,
                "path": name::TOKEN_FILE,
            }}]},
        });
        let root = json!({
            "name": name::VOLUME_ROOT,
            "configMap": {"name": self.settings.root_cert_config_map},
        });
        [token, root]
    }

    fn give_resources(&self, container: &mut Value) {
        if let Some(resources) = self.granted.to_json() {
            container["resources"] = resources;
        }
    }

    fn env(&self) -> Vec<Value> {
        let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}});
        let mut env = vec![
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_IPS", "status.podIPs"),
        ];
        let mut set = |name: &str, value: String| env.push(json!({"name": name, "value": value}));
        let (settings, effective) = (self.settings, self.effective);
        set("MESH_PROXY_NODE_ID", "$(POD_NAME).$(POD_NAMESPACE)".to_owned());
        set("MESH_PROXY_CONTROL", settings.control_address());
        set("MESH_PROXY_CONTROL_ROOT_CERT", format!("{}/{}", name::ROOT_FOLDER, name::ROOT_CERT_KEY));
        set("MESH_PROXY_SERVICE_ACCOUNT_TOKEN_FILE", format!("{}/{}", name::TOKEN_FOLDER, name::TOKEN_FILE));
        set("MESH_PROXY_TRUST_DOMAIN", settings.trust_domain.clone());
        set("MESH_PROXY_FWMARK", "0".to_owned());
        set("MESH_PROXY_ADMIN_LISTEN", format!("127.0.0.1:{}", name::PORT_PROXY_ADMIN));
        set("MESH_PROXY_STATUS_LISTEN", format!("[::]:{}", name::PORT_PROXY_STATUS));
        set("MESH_PROXY_DRAIN_DEADLINE", format!("{}s", self.drain_seconds));
        set("MESH_PROXY_LOG_LEVEL", effective.log_level.clone());
        set("MESH_PROXY_LOG_FORMAT", settings.log_format.as_str().to_owned());
        set("MESH_PROXY_ACCESS_LOG", settings.access_log.clone());
        if !effective.captures_dns {
            set("MESH_PROXY_DNS_PORT", "0".to_owned());
        }
        if let Some(workers) = effective.workers.or_else(|| self.granted.workers()) {
            set("MESH_PROXY_WORKERS", workers.to_string());
        }
        if !self.probes.0.is_empty() {
            // Serialising texts and numbers cannot fail. The kubelet replaces $(NAME) in values; a doubled $ is
            // one $ to it.
            let probes = serde_json::to_string(self.probes).unwrap_or_default();
            set(APP_PROBES_ENV, probes.replace('$', "$$"));
        }
        env
    }

    fn interception(&self) -> Vec<String> {
        let mut args = ["intercept", "install", "--fwmark", "0", "--exclude-uid"].map(str::to_owned).to_vec();
        args.push(name::PROXY_UID.to_string());
        if !self.effective.captures_dns {
            args.extend(["--dns-port".to_owned(), "0".to_owned()]);
        }
        let mut flag = |name: &str, items: Vec<String>| {
            if !items.is_empty() {
                args.extend([format!("--{name}"), items.join(",")]);
            }
        };
        let Traffic {
            include_inbound_ports,
            exclude_inbound_ports,
            include_outbound_ports,
            exclude_outbound_ports,
            include_outbound_cidrs,
            exclude_outbound_cidrs,
        } = &self.effective.traffic;
        flag("include-inbound-ports", included(include_inbound_ports, &["0"]));
        flag("exclude-inbound-ports", texts(exclude_inbound_ports));
        match (include_outbound_cidrs, include_outbound_ports) {
            (Include::All, _) | (_, Include::All) => {}
            (Include::Only(cidrs), Include::Only(ports)) if cidrs.is_empty() && ports.is_empty() => {
                flag("include-outbound-cidrs", texts(&["0.0.0.0/32", "::/128"]));
            }
            (Include::Only(cidrs), Include::Only(ports)) => {
                flag("include-outbound-cidrs", texts(cidrs));
                flag("include-outbound-ports", texts(ports));
            }
        }
        flag("exclude-outbound-ports", texts(exclude_outbound_ports));
        flag("exclude-outbound-cidrs", texts(exclude_outbound_cidrs));
        args
    }
}

/// A list as arguments; "nothing" is said by what no packet has: port 0, the unspecified address.
fn included<T: ToString>(include: &Include<T>, nothing: &[&str]) -> Vec<String> {
    match include {
        Include::All => Vec::new(),
        Include::Only(items) if items.is_empty() => texts(nothing),
        Include::Only(items) => texts(items),
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// What an injected pod says of itself, in the form of Istio's `sidecar.istio.io/status`.
pub(super) fn status(revision: &str, form: Form, added: &Map<String, Value>) -> String {
    let (init, containers) = match form {
        Form::NativeSidecar => (json!([name::INIT_CONTAINER, name::PROXY_CONTAINER]), Value::Null),
        Form::Held | Form::Beside => (json!([name::INIT_CONTAINER]), json!([name::PROXY_CONTAINER])),
    };
    let mut status = json!({
        "initContainers": init,
        "containers": containers,
        "volumes": [name::VOLUME_TOKEN, name::VOLUME_ROOT],
        "revision": revision,
    });
    for (key, value) in added {
        status[key.as_str()] = value.clone();
    }
    status.to_string()
}
