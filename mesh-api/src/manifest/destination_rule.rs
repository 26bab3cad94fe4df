//! DestinationRule (SEMANTICS section 11).

use std::collections::BTreeSet;

use super::fields::Fields;
use super::input::Input;
use super::report::Report;
use super::traffic_policy::{self, Level, Policies};
use super::tree::Place;
use super::{host, meta};
use crate::model::DestinationRule;
use crate::model::traffic::{ClientTlsMode, Subset};
use crate::name::kubernetes::dns_label;

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Option<DestinationRule> {
    let known = ["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"];
    let spec = input.spec.fields(&known, report);
    let host = spec.required("host", "Name the host that the rule is for.", report);
    let namespace = &input.meta.object.namespace;
    let host = host.and_then(|place| host::resolved(place, namespace, input.context, report));
    let policies = spec.get("trafficPolicy").map(|place| traffic_policy::read(place, Level::Host, report));
    let policies = policies.unwrap_or_default();
    let subsets = spec.get("subsets").map(|place| subsets(place, report)).unwrap_or_default();
    scope(spec, &policies, &subsets, report);
    Some(DestinationRule {
        meta: input.meta,
        host: host?,
        policy: policies.policy,
        port_level: policies.port_level,
        subsets,
    })
}

/// Rules for some clients only. Every client would follow them, which must not turn theirs to plaintext.
fn scope(spec: Fields<'_>, policies: &Policies, subsets: &[Subset], report: &mut Report) {
    let is_plain = |subset: &Subset| subset.policy.tls == Some(ClientTlsMode::Disable);
    let has_plaintext = policies.has_plaintext() || subsets.iter().any(is_plain);
    let hint = "Remove tls, or the restriction to some clients.";
    if let Some(place) = spec.get("workloadSelector") {
        let selector = meta::match_labels(place, report);
        match (selector.is_empty(), has_plaintext) {
            (true, _) => {}
            (false, true) => {
                report.error(place, "a rule with plaintext cannot be restricted to some clients", hint)
            }
            (false, false) => report.not_enforced(place, "every client follows the rule"),
        }
    }
    if let Some(place) = spec.get("exportTo")
        && host::export_to(place, report)
        && has_plaintext
    {
        report.error(place, "a rule with plaintext cannot be restricted to some namespaces", hint);
    }
}

fn subsets(place: Place<'_>, report: &mut Report) -> Vec<Subset> {
    let mut names = BTreeSet::new();
    let mut subsets = Vec::new();
    for item in place.items(report) {
        let fields = item.fields(&["name", "labels", "trafficPolicy"], report);
        let labels = fields.get("labels").map(|place| meta::labels(place, report)).unwrap_or_default();
        let policy =
            fields.get("trafficPolicy").map(|place| traffic_policy::read(place, Level::Subset, report));
        let Some(name_place) = fields.required("name", "Name the subset.", report) else { continue };
        let parsed = |text: &str| dns_label("subset name", text).map(str::to_owned);
        let Some(name) = name_place.parsed(parsed, report) else { continue };
        if !names.insert(name.clone()) {
            report.error(name_place, format!("another subset is named {name:?} too"), "");
        }
        subsets.push(Subset { name, labels, policy: policy.unwrap_or_default().policy });
    }
    subsets
}
