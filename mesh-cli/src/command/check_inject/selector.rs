//! Selectors of webhooks: whether the API server asks one about a pod, and what keeps it from doing so (pure).
//!
//! Rules: <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>. A selector
//! without requirements selects everything.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// The first requirement that labels do not meet, in words; `None` when they are selected.
pub(super) fn obstacle(
    selector: Option<&LabelSelector>,
    labels: &BTreeMap<String, String>,
) -> Option<String> {
    let selector = selector?;
    let wanted = selector.match_labels.iter().flatten();
    let of_labels = wanted.into_iter().find(|(key, value)| labels.get(*key) != Some(value));
    if let Some((key, value)) = of_labels {
        return Some(other(labels, key, value));
    }
    let requirements = selector.match_expressions.iter().flatten();
    requirements.into_iter().find_map(|requirement| unmet(requirement, labels))
}

fn unmet(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> Option<String> {
    let key = &requirement.key;
    let value = labels.get(key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = value.is_some_and(|value| values.contains(value));
    match requirement.operator.as_str() {
        "In" if !is_listed => Some(other(labels, key, &values.join(" or "))),
        "NotIn" if is_listed => Some(format!("{key} is {}", value.map_or("", String::as_str))),
        "Exists" if value.is_none() => Some(format!("{key} is not set")),
        "DoesNotExist" => value.map(|value| format!("{key} is set ({value})")),
        _ => None,
    }
}

/// That a label is something else than it must be.
fn other(labels: &BTreeMap<String, String>, key: &str, wanted: &str) -> String {
    match labels.get(key) {
        Some(value) => format!("{key} is {value} and not {wanted}"),
        None => format!("{key} is not set (to {wanted})"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_unmet_requirement_is_told() {
        let labels = BTreeMap::from([("istio-injection".to_owned(), "disabled".to_owned())]);
        for (selector, expected) in [
            (json!({}), None),
            (json!({"matchLabels": {"istio-injection": "disabled"}}), None),
            (
                json!({"matchExpressions": [{"key": "istio-injection", "operator": "In", "values": ["enabled"]}]}),
                Some("istio-injection is disabled and not enabled"),
            ),
            (
                json!({"matchExpressions": [{"key": "istio.io/rev", "operator": "In", "values": ["canary"]}]}),
                Some("istio.io/rev is not set (to canary)"),
            ),
            (
                json!({"matchExpressions": [{"key": "istio-injection", "operator": "DoesNotExist"}]}),
                Some("istio-injection is set (disabled)"),
            ),
            (
                json!({"matchExpressions": [{"key": "istio-injection", "operator": "NotIn", "values": ["disabled"]}]}),
                Some("istio-injection is disabled"),
            ),
            (json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]}), Some("x is not set")),
        ] {
            let selector: LabelSelector = serde_json::from_value(selector).expect("a selector");
            assert_eq!(obstacle(Some(&selector), &labels).as_deref(), expected);
        }
        assert_eq!(obstacle(None, &labels), None);
    }
}
