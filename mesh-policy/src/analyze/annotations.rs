//! Istio's annotations: whether one is known, where it belongs, and what it may say.

use super::catalogue;
use super::document::{Document, strings};
use super::finding::Finding;

/// Where an annotation belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    Pod,
    Service,
    Ingress,
    Policy,
    Registered,
}

/// What an annotation may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Any,
    Boolean,
    Number,
    Ports,
}

impl Place {
    fn words(self) -> &'static str {
        match self {
            Self::Anywhere => "Any",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Ingress => "Ingress",
            Self::Policy => "AuthorizationPolicy",
            Self::Registered => "WorkloadEntry",
        }
    }

    fn holds(self, kind: &str) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Pod => kind == "Pod" || kind == "WorkloadGroup",
            Self::Service => ["Service", "Gateway", "ServiceEntry", "Namespace"].contains(&kind),
            Self::Ingress => kind == "Ingress",
            Self::Policy => kind == "AuthorizationPolicy",
            Self::Registered => kind == "WorkloadEntry",
        }
    }
}

/// Annotations of Istio's API by name. A name that ends in a slash stands for its whole domain.
const KNOWN: &[(&str, Place, Form)] = &[
    ("alpha.istio.io/", Place::Anywhere, Form::Any),
    ("ambient.istio.io/", Place::Anywhere, Form::Any),
    ("galley.istio.io/analyze-suppress", Place::Anywhere, Form::Any),
    ("gateway.istio.io/", Place::Anywhere, Form::Any),
    ("inject.istio.io/templates", Place::Pod, Form::Any),
    ("install.operator.istio.io/", Place::Anywhere, Form::Any),
    ("internal.istio.io/", Place::Anywhere, Form::Any),
    ("operator.istio.io/", Place::Anywhere, Form::Any),
    ("istio.io/autoRegistrationGroup", Place::Registered, Form::Any),
    ("istio.io/connectedAt", Place::Registered, Form::Any),
    ("istio.io/disconnectedAt", Place::Registered, Form::Any),
    ("istio.io/dry-run", Place::Policy, Form::Any),
    ("istio.io/rev", Place::Anywhere, Form::Any),
    ("istio.io/reroute-virtual-interfaces", Place::Pod, Form::Any),
    ("istio.io/workloadController", Place::Registered, Form::Any),
    ("kubernetes.io/ingress.class", Place::Ingress, Form::Any),
    ("networking.istio.io/address-type", Place::Anywhere, Form::Any),
    ("networking.istio.io/exportTo", Place::Service, Form::Any),
    ("networking.istio.io/service-type", Place::Anywhere, Form::Any),
    ("networking.istio.io/traffic-distribution", Place::Service, Form::Any),
    ("networking.istio.io/tunnel", Place::Anywhere, Form::Any),
    ("prometheus.istio.io/merge-metrics", Place::Pod, Form::Boolean),
    ("proxy.istio.io/config", Place::Pod, Form::Any),
    ("proxy.istio.io/overrides", Place::Pod, Form::Any),
    ("readiness.status.sidecar.istio.io/applicationPorts", Place::Pod, Form::Ports),
    ("readiness.status.sidecar.istio.io/failureThreshold", Place::Pod, Form::Number),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", Place::Pod, Form::Number),
    ("readiness.status.sidecar.istio.io/periodSeconds", Place::Pod, Form::Number),
    ("security.istio.io/", Place::Anywhere, Form::Any),
    ("service.istio.io/", Place::Anywhere, Form::Any),
    ("sidecar.istio.io/agentLogLevel", Place::Pod, Form::Any),
    ("sidecar.istio.io/bootstrapOverride", Place::Pod, Form::Any),
    ("sidecar.istio.io/componentLogLevel", Place::Pod, Form::Any),
    ("sidecar.istio.io/controlPlaneAuthPolicy", Place::Pod, Form::Any),
    ("sidecar.istio.io/discoveryAddress", Place::Pod, Form::Any),
    ("sidecar.istio.io/enableCoreDump", Place::Pod, Form::Boolean),
    ("sidecar.istio.io/extraStatTags", Place::Pod, Form::Any),
    ("sidecar.istio.io/inject", Place::Pod, Form::Boolean),
    ("sidecar.istio.io/interceptionMode", Place::Pod, Form::Any),
    ("sidecar.istio.io/logLevel", Place::Pod, Form::Any),
    ("sidecar.istio.io/nativeSidecar", Place::Pod, Form::Boolean),
    ("sidecar.istio.io/proxyCPU", Place::Pod, Form::Any),
    ("sidecar.istio.io/proxyCPULimit", Place::Pod, Form::Any),
    ("sidecar.istio.io/proxyImage", Place::Pod, Form::Any),
    ("sidecar.istio.io/proxyImageType", Place::Pod, Form::Any),
    ("sidecar.istio.io/proxyMemory", Place::Pod, Form::Any),
    ("sidecar.istio.io/proxyMemoryLimit", Place::Pod, Form::Any),
    ("sidecar.istio.io/rewriteAppHTTPProbers", Place::Pod, Form::Boolean),
    ("sidecar.istio.io/statsCompression", Place::Pod, Form::Any),
    ("sidecar.istio.io/statsEvictionInterval", Place::Pod, Form::Any),
    ("sidecar.istio.io/statsHistogramBuckets", Place::Pod, Form::Any),
    ("sidecar.istio.io/statsInclusionPrefixes", Place::Pod, Form::Any),
    ("sidecar.istio.io/statsInclusionRegexps", Place::Pod, Form::Any),
    ("sidecar.istio.io/statsInclusionSuffixes", Place::Pod, Form::Any),
    ("sidecar.istio.io/status", Place::Pod, Form::Any),
    ("sidecar.istio.io/userVolume", Place::Pod, Form::Any),
    ("sidecar.istio.io/userVolumeMount", Place::Pod, Form::Any),
    ("status.sidecar.istio.io/port", Place::Pod, Form::Number),
    ("topology.istio.io/", Place::Anywhere, Form::Any),
    ("traffic.istio.io/", Place::Anywhere, Form::Any),
    ("traffic.sidecar.istio.io/excludeInboundPorts", Place::Pod, Form::Ports),
    ("traffic.sidecar.istio.io/excludeInterfaces", Place::Pod, Form::Any),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", Place::Pod, Form::Any),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", Place::Pod, Form::Ports),
    ("traffic.sidecar.istio.io/includeInboundPorts", Place::Pod, Form::Ports),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", Place::Pod, Form::Any),
    ("traffic.sidecar.istio.io/includeOutboundPorts", Place::Pod, Form::Ports),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", Place::Pod, Form::Any),
    ("traffic.sidecar.istio.io/nodeSelector", Place::Pod, Form::Any),
    ("ztunnel.istio.io/", Place::Anywhere, Form::Any),
];

/// Annotations that Istio has given up.
const DEPRECATED: [&str; 7] = [
    "alpha.istio.io/canonical-serviceaccounts",
    "alpha.istio.io/kubernetes-serviceaccounts",
    "sidecar.istio.io/controlPlaneAuthPolicy",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
];

/// Checks the annotations of an object, and those of the pods that it makes.
pub(super) fn check(document: &Document, findings: &mut Vec<Finding>) {
    for (name, value) in &document.annotations {
        if DEPRECATED.contains(&name.as_str()) {
            let message =
                format!("Annotation {name:?} has been deprecated and may not work in future Istio versions.");
            findings.push(document.finding(
                catalogue::DEPRECATED_ANNOTATION,
                format!("metadata.annotations[{name}]"),
                message,
            ));
        }
        findings.extend(one(document, "metadata.annotations", &document.subject.kind, (name, value)));
    }
    if let Some((path, pod)) = document.pod().filter(|(path, _)| !path.is_empty()) {
        let path = format!("{}.metadata.annotations", path.trim_start_matches('/').replace('/', "."));
        for (name, value) in &strings(pod.pointer("/metadata/annotations")) {
            findings.extend(one(document, &path, "Pod", (name, value)));
        }
    }
}

fn one(document: &Document, path: &str, kind: &str, (name, value): (&str, &str)) -> Option<Finding> {
    let domain = name.split('/').next().unwrap_or_default();
    let is_ours =
        domain == "istio.io" || domain.ends_with(".istio.io") || name == "kubernetes.io/ingress.class";
    if !is_ours {
        return None;
    }
    let field = format!("{path}[{name}]");
    let known =
        KNOWN.iter().find(|(known, ..)| *known == name || known.ends_with('/') && name.starts_with(known));
    let Some((_, place, form)) = known else {
        let names: Vec<&str> = KNOWN.iter().map(|(name, ..)| *name).collect();
        let message = format!("Unknown annotation: {name}");
        let finding = document.finding(catalogue::UNKNOWN_ANNOTATION, field, message);
        return Some(match super::nearest(name, &names) {
            Some(near) => finding.hint(format!("Did you mean {near}?")),
            None => finding,
        });
    };
    // What decides over the injection of a pod is read from its namespace's template too.
    if !place.holds(kind) {
        let message = format!("Misplaced annotation: {name} can only be applied to {}", place.words());
        let finding = document.finding(catalogue::MISPLACED_ANNOTATION, field, message);
        return Some(match (place, document.pod()) {
            (Place::Pod, Some(_)) => {
                finding.hint("Move it to spec.template.metadata.annotations, where the pods get it.")
            }
            _ => finding.hint(format!("It has no effect on a {kind}.")),
        });
    }
    let is_valid = match form {
        Form::Any => true,
        Form::Boolean => [
            "true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False", "enabled",
            "disabled",
        ]
        .contains(&value),
        Form::Number => value.parse::<u32>().is_ok(),
        Form::Ports => {
            value.trim().is_empty()
                || value == "*"
                || value.split(',').all(|port| port.trim().parse::<u16>().is_ok())
        }
    };
    (!is_valid).then(|| {
        let message = format!(
            "Invalid annotation {name}: {value:?} is not {}",
            match form {
                Form::Boolean => "true or false",
                Form::Number => "a number",
                Form::Ports | Form::Any => "a list of ports",
            }
        );
        document.finding(catalogue::INVALID_ANNOTATION, field, message)
    })
}
