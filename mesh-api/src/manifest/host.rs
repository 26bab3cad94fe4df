//! Host names as users write them, to fully qualified ones.

use super::LowerContext;
use super::report::Report;
use super::tree::Place;
use crate::name::{Host, Namespace};

/// The canonical host of a Service.
pub(super) fn of_service(name: &str, namespace: &Namespace, context: &LowerContext) -> String {
    format!("{name}.{namespace}.svc.{}", context.cluster_domain)
}

/// A host that a rule or route names: a name without a dot is a service of the object's own namespace, a
/// name with one is taken as it is (SEMANTICS 10.1).
pub(super) fn resolved(
    place: Place<'_>,
    namespace: &Namespace,
    context: &LowerContext,
    report: &mut Report,
) -> Option<Host> {
    let text = place.non_empty(report)?;
    let full = match text {
        "*" => "*".to_owned(),
        short if !short.contains('.') => of_service(short, namespace, context),
        full => full.to_owned(),
    };
    match Host::parse(&full) {
        Ok(host) => Some(host),
        Err(error) => {
            report.error(place, error.to_string(), hint(text));
            None
        }
    }
}

/// A host that is stated in full.
pub(super) fn full(place: Place<'_>, report: &mut Report) -> Option<Host> {
    let text = place.non_empty(report)?;
    match Host::parse(text) {
        Ok(host) => Some(host),
        Err(error) => {
            report.error(place, error.to_string(), hint(text));
            None
        }
    }
}

/// What to write instead.
pub(super) fn hint(text: &str) -> &'static str {
    if text.contains("://") {
        "Write the host without its scheme."
    } else if text.contains(':') {
        "Write the host without a port."
    } else if text.contains('/') {
        "Write the host without a namespace or path."
    } else {
        ""
    }
}

/// `exportTo`: visibility alone, and what is not `*` is told, because everything is visible here.
pub(super) fn export_to(place: Place<'_>, report: &mut Report) -> bool {
    let values = place.texts(report);
    for (item, value) in place.children().zip(&values) {
        let is_known = matches!(value.as_str(), "*" | "." | "~") || Namespace::parse(value).is_ok();
        if !is_known {
            report.error(item, format!("{value:?} is neither *, ., ~ nor a namespace"), "");
        }
    }
    let is_limited = !values.is_empty() && values.iter().all(|value| value != "*");
    if is_limited {
        report.not_enforced(place, "it is visible in every namespace");
    }
    is_limited
}
