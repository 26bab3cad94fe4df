//! What injection is told once for a revision: key `inject.yaml` of the ConfigMap `mini-mesh`.
//!
//! Every field has a default, so an empty document is complete. An unknown key is an error, and so is a value
//! that cannot hold: a broken document is refused as a whole and the one before it stays in force.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::seconds::Seconds;
use crate::name;

/// Settings of injection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct InjectSettings {
    /// Image of the proxy.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: PullPolicy,
    /// Names of Secrets in the pod's namespace with which it is pulled.
    pub image_pull_secrets: Vec<String>,
    /// Revision of the control plane that injects.
    pub revision: String,
    /// Further names under which namespaces and pods choose this revision.
    pub tags: Vec<String>,
    /// `HOST:PORT` of the control plane; empty for the Service of the revision.
    pub control: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Domain of the cluster's services.
    pub cluster_domain: String,
    /// Requests and limits of the proxy.
    pub resources: Resources,
    /// What the proxy has of a pod that is Guaranteed, as request and limit alike.
    pub guaranteed_resources: Amounts,
    /// Filter of the proxy's log: a level, or as `info,mesh_proxy=debug`.
    pub log_level: String,
    /// Form of the proxy's log.
    pub log_format: LogFormat,
    /// Where access-log records go: a file, `stdout`, `stderr` or `off`.
    pub access_log: String,
    /// Whether the proxy is a native sidecar.
    pub native_sidecars: NativeSidecars,
    /// Whether the application waits for the proxy where there are no native sidecars.
    pub hold_application_until_proxy_starts: bool,
    /// Whether the pod's DNS queries go to its proxy.
    pub dns_capture: bool,
    /// Inbound ports that are captured; none listed means all.
    pub include_inbound_ports: Vec<u16>,
    /// Inbound ports that are left alone.
    pub exclude_inbound_ports: Vec<u16>,
    /// Outbound ports that are captured wherever they go, when `includeOutboundCidrs` leaves something out.
    pub include_outbound_ports: Vec<u16>,
    /// Outbound ports that are left alone.
    pub exclude_outbound_ports: Vec<u16>,
    /// Outbound destinations that are captured; none listed means all.
    pub include_outbound_cidrs: Vec<IpNet>,
    /// Outbound destinations that are left alone.
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Longest time for draining; never longer than the pod's grace period allows.
    pub drain_duration: Seconds,
    /// Threads of the proxy; unset: one for each processor of its limit, or of its request.
    pub workers: Option<u16>,
    /// Audience of the token by which a proxy proves who it is.
    pub token_audience: String,
    /// Life of that token in seconds, from 600 (the least that Kubernetes issues) to a day.
    pub token_ttl_seconds: u32,
    /// ConfigMap with the roots, in the pod's namespace.
    pub root_cert_config_map: String,
    /// Whether probes of the application go through the proxy.
    pub rewrite_probes: bool,
    /// Whether pods are annotated so that Prometheus finds the proxy's metrics.
    pub prometheus_annotations: bool,
    /// Whether a pod about which nothing is said is injected.
    pub enabled_by_default: bool,
    /// Pods that are not injected unless they ask themselves.
    pub never_inject_selector: Vec<LabelSelector>,
    /// Pods that are injected where their namespace says nothing.
    pub always_inject_selector: Vec<LabelSelector>,
}

/// `imagePullPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// When the node has none.
    #[default]
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl LogFormat {
    /// As the proxy's flag has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Whether the proxy is a native sidecar: an init container that keeps running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NativeSidecars {
    /// Where the server has them (Kubernetes 1.29).
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Requests and limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// What the scheduler sets aside.
    pub requests: Amounts,
    /// What is not exceeded.
    pub limits: Amounts,
}

/// Amounts of the two resources that make a quality of service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Amounts {
    /// Processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// Labels that a pod must have (Kubernetes' LabelSelector). One without any requirement selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    /// Labels with their values.
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements.
    pub match_expressions: Vec<LabelRequirement>,
}

/// One requirement of a [`LabelSelector`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRequirement {
    /// Name of the label.
    pub key: String,
    /// What is required of it.
    pub operator: LabelOperator,
    /// Values of `In` and `NotIn`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Operator of a [`LabelRequirement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LabelOperator {
    /// Is one of the values.
    In,
    /// Is absent or none of the values.
    NotIn,
    /// Is there.
    Exists,
    /// Is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels are selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is_any = !self.match_labels.is_empty() || !self.match_expressions.is_empty();
        is_any
            && self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl Default for InjectSettings {
    fn default() -> Self {
        let amount = |text: &str| Quantity::parse(text).ok();
        Self {
            image: concat!("docker.io/mini-mesh/mesh-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
            image_pull_policy: PullPolicy::default(),
            image_pull_secrets: Vec::new(),
            revision: name::DEFAULT_REVISION.to_owned(),
            tags: Vec::new(),
            control: String::new(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            // An idle proxy has about 8 MiB resident; the limits are those of a proxy under load.
            resources: Resources {
                requests: Amounts { cpu: amount("10m"), memory: amount("24Mi") },
                limits: Amounts { cpu: amount("2"), memory: amount("256Mi") },
            },
            guaranteed_resources: Amounts { cpu: amount("200m"), memory: amount("128Mi") },
            log_level: "info".to_owned(),
            log_format: LogFormat::default(),
            access_log: "stdout".to_owned(),
            native_sidecars: NativeSidecars::default(),
            hold_application_until_proxy_starts: true,
            dns_capture: true,
            include_inbound_ports: Vec::new(),
            exclude_inbound_ports: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_outbound_cidrs: Vec::new(),
            exclude_outbound_cidrs: Vec::new(),
            drain_duration: Seconds::new(30),
            workers: None,
            token_audience: name::TOKEN_AUDIENCE.to_owned(),
            token_ttl_seconds: 43_200,
            root_cert_config_map: name::ROOT_CERT.to_owned(),
            rewrite_probes: true,
            prometheus_annotations: true,
            enabled_by_default: false,
            never_inject_selector: Vec::new(),
            always_inject_selector: Vec::new(),
        }
    }
}

/// Why settings are refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No YAML, an unknown key, or a value of the wrong kind.
    #[error("the settings of injection are not valid: {0}")]
    Syntax(String),
    /// A value that cannot hold.
    #[error("the settings of injection are not valid: {field} {reason}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong, and what would be right.
        reason: String,
    },
}

/// Longest text of settings, in bytes: a ConfigMap has at most 1 MiB, and these are a page.
const BYTES_MAX: usize = 256 * 1024;

impl InjectSettings {
    /// Reads settings from YAML (or JSON). An empty text stands for the defaults.
    ///
    /// # Errors
    /// When the text is none, has a key that is not known, or a value that cannot hold.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        if text.len() > BYTES_MAX {
            return Err(SettingsError::Syntax(format!("they are longer than {} KiB", BYTES_MAX / 1024)));
        }
        let is_blank = text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'));
        let settings: Self = if is_blank {
            Self::default()
        } else {
            let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
            serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| SettingsError::Syntax(error.to_string()))?
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks what types alone do not.
    ///
    /// # Errors
    /// When a value cannot hold.
    pub fn check(&self) -> Result<(), SettingsError> {
        let wrong = |field, reason: &str| Err(SettingsError::Value { field, reason: reason.to_owned() });
        if self.image.is_empty() || self.image.contains(char::is_whitespace) {
            return wrong("image", "must be the reference of an image");
        }
        for (field, name) in [
            ("revision", &self.revision),
            ("trustDomain", &self.trust_domain),
            ("clusterDomain", &self.cluster_domain),
            ("rootCertConfigMap", &self.root_cert_config_map),
        ]
        .into_iter()
        .chain(self.tags.iter().map(|tag| ("tags", tag)))
        .chain(self.image_pull_secrets.iter().map(|secret| ("imagePullSecrets", secret)))
        {
            if mesh_api::name::ObjectName::parse(name).is_err() {
                return wrong(field, &format!("must be a name of Kubernetes, not {name:?}"));
            }
        }
        if self.token_audience.is_empty() {
            return wrong("tokenAudience", "must not be empty");
        }
        if !(600..=86_400).contains(&self.token_ttl_seconds) {
            return wrong("tokenTtlSeconds", "must be from 600 to 86400");
        }
        if self.workers == Some(0) {
            return wrong("workers", "must be at least 1");
        }
        if !self.control.is_empty() && !is_host_and_port(&self.control) {
            return wrong("control", "must be HOST:PORT");
        }
        if self.log_level.is_empty() || self.access_log.is_empty() {
            return wrong("logLevel and accessLog", "must not be empty");
        }
        for (requests, limits, field) in [
            (&self.resources.requests.cpu, &self.resources.limits.cpu, "resources.requests.cpu"),
            (&self.resources.requests.memory, &self.resources.limits.memory, "resources.requests.memory"),
        ] {
            if let (Some(request), Some(limit)) = (requests, limits)
                && request > limit
            {
                return wrong(field, "must not be more than the limit");
            }
        }
        let guaranteed = [&self.guaranteed_resources.cpu, &self.guaranteed_resources.memory];
        if guaranteed.iter().any(|amount| amount.as_ref().is_none_or(Quantity::is_zero)) {
            return wrong("guaranteedResources", "must have cpu and memory, both more than 0");
        }
        Ok(())
    }

    /// `HOST:PORT` of the control plane.
    #[must_use]
    pub fn control_address(&self) -> String {
        if !self.control.is_empty() {
            return self.control.clone();
        }
        let suffix = match self.revision.as_str() {
            name::DEFAULT_REVISION => String::new(),
            revision => format!("-{revision}"),
        };
        format!(
            "{}{suffix}.{}.svc.{}:{}",
            name::CONTROL,
            name::SYSTEM_NAMESPACE,
            self.cluster_domain,
            name::PORT_DISCOVERY
        )
    }

    /// Whether a namespace or pod that names a revision means this one.
    #[must_use]
    pub fn is_revision(&self, name: &str) -> bool {
        self.revision == name || self.tags.iter().any(|tag| tag == name)
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_means_the_defaults() {
        for text in ["", "# nothing\n", "{}"] {
            assert_eq!(InjectSettings::parse(text).expect(text), InjectSettings::default(), "{text:?}");
        }
        InjectSettings::default().check().expect("the defaults hold");
        assert_eq!(
            InjectSettings::default().control_address(),
            "mesh-control.istio-system.svc.cluster.local:15012"
        );
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let written = serde_saphyr::to_string(&InjectSettings::default()).expect("YAML");
        assert_eq!(InjectSettings::parse(&written).expect("settings"), InjectSettings::default());
        let canary = InjectSettings::parse("revision: canary\ntags: [prod]\nresources: {limits: {cpu: 1}}")
            .expect("settings");
        assert_eq!(canary.control_address(), "mesh-control-canary.istio-system.svc.cluster.local:15012");
        assert!(canary.is_revision("prod") && canary.is_revision("canary") && !canary.is_revision("default"));
    }

    #[test]
    fn what_cannot_hold_is_refused_by_its_name() {
        for (text, word) in [
            ("imag: x", "imag"),
            ("image: 'a b'", "image"),
            ("tokenTtlSeconds: 10", "tokenTtlSeconds"),
            ("workers: 0", "workers"),
            ("control: somewhere", "control"),
            ("revision: 'A B'", "revision"),
            ("drainDuration: soon", "soon"),
            ("dnsCapture: \"yes\"", "boolean"),
            ("resources: {requests: {cpu: 3}, limits: {cpu: 1}}", "resources.requests.cpu"),
            ("resources: {requests: {cpu: lots}}", "lots"),
            ("guaranteedResources: {cpu: 1}", "guaranteedResources"),
            ("excludeOutboundCidrs: [10.0.0.0/33]", "column 24"),
            ("- a", ""),
        ] {
            let error = InjectSettings::parse(text).expect_err(text).to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_selector_selects_what_it_names_and_an_empty_one_nothing() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let selector = |text: &str| serde_saphyr::from_str::<LabelSelector>(text).expect(text);
        for (text, expected) in [
            ("{}", false),
            ("matchLabels: {app: web}", true),
            ("matchLabels: {app: db}", false),
            ("matchExpressions: [{key: app, operator: In, values: [web, db]}]", true),
            ("matchExpressions: [{key: app, operator: NotIn, values: [web]}]", false),
            ("matchExpressions: [{key: other, operator: NotIn, values: [web]}]", true),
            ("matchExpressions: [{key: app, operator: Exists}]", true),
            ("matchExpressions: [{key: app, operator: DoesNotExist}]", false),
        ] {
            assert_eq!(selector(text).matches(&labels), expected, "{text}");
        }
    }
}
