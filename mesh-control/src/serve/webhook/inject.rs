//! `POST /inject`: a pod becomes one with a proxy, stays as it is, or is refused with the reason.

use mesh_api::error_chain::chain;
use mesh_kube::inject::Decision;

use super::review::{Answer, Operation, Refusal, Request};
use crate::inject::{AdmitError, Injector};
use crate::telemetry::metrics::webhook as metrics;

/// Answers a review of a pod.
pub(super) async fn answer(injector: &Injector, request: Request) -> Answer {
    let is_pod = request.kind.group.is_empty() && request.kind.kind == "Pod";
    if !is_pod || request.operation != Operation::Create || !request.sub_resource.is_empty() {
        // Whoever registers the webhook for more than it is for gets no change.
        return Answer::admit();
    }
    let name = pod_name(&request);
    let injection = match injector.admit(&request.object, &request.namespace).await {
        Ok(injection) => injection,
        Err(error) => return refused(&request, &name, &error),
    };
    let reason = injection.decision.reason();
    let (namespace, code) = (request.namespace.as_str(), reason.code());
    let mut answer = Answer { warnings: injection.warnings, ..Answer::admit() };
    answer.audit.insert("reason", code.to_owned());
    match &injection.decision {
        Decision::Inject { .. } => {
            metrics::injection("injected");
            tracing::info!(namespace, pod = name, reason = code, "a pod gets a proxy");
            answer.audit.insert("decision", "inject".to_owned());
            answer.patch = Some(injection.patch);
        }
        Decision::Skip { .. } => {
            metrics::injection("skipped");
            tracing::info!(namespace, pod = name, reason = code, "a pod gets no proxy: {reason}");
            answer.audit.insert("decision", "skip".to_owned());
        }
        // Refusals are errors of injection; one that came here all the same is one.
        Decision::Refuse { .. } => {
            metrics::injection("refused");
            tracing::warn!(namespace, pod = name, reason = code, "a pod is refused: {reason}");
            return Answer::refuse(Refusal::forbidden(reason.to_string()));
        }
    }
    answer
}

fn refused(request: &Request, name: &str, error: &AdmitError) -> Answer {
    let (namespace, reason) = (request.namespace.as_str(), chain(error));
    let refusal = match error {
        AdmitError::NoSettings { .. } | AdmitError::Namespace { .. } | AdmitError::Version(_) => {
            metrics::injection("failed");
            tracing::error!(namespace, pod = name, reason, "a pod cannot be looked at");
            Refusal::unavailable(reason)
        }
        AdmitError::Inject(_) => {
            metrics::injection("refused");
            tracing::warn!(namespace, pod = name, reason, "a pod is refused");
            Refusal::forbidden(reason)
        }
    };
    Answer::refuse(refusal)
}

/// The pod's name, or the beginning that its name will have.
fn pod_name(request: &Request) -> String {
    let text = |pointer: &str| request.object.pointer(pointer).and_then(|value| value.as_str());
    let name = text("/metadata/name").or(Some(request.name.as_str())).filter(|name| !name.is_empty());
    let name = name.map(str::to_owned);
    let name = name.unwrap_or_else(|| format!("{}…", text("/metadata/generateName").unwrap_or_default()));
    super::review::shortened(&name, 253).to_owned()
}
