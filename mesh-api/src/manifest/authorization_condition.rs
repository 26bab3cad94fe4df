//! Entries of `when` (SEMANTICS 6.7).

use super::authorization_value::{self as value, ValueRule};
use super::report::{Report, nearest, shortened};
use super::tree::Place;
use crate::model::{Action, Condition};

/// Keys without brackets, with the rule of their values.
const KEYS: [(&str, ValueRule); 12] = [
    ("source.ip", ValueRule::IpBlock),
    ("remote.ip", ValueRule::IpBlock),
    ("source.namespace", ValueRule::Text),
    ("source.serviceAccount", ValueRule::ServiceAccount),
    ("source.trustDomain", ValueRule::TrustDomain),
    ("source.principal", ValueRule::Text),
    ("request.auth.principal", ValueRule::Text),
    ("request.auth.audiences", ValueRule::Text),
    ("request.auth.presenter", ValueRule::Text),
    ("destination.ip", ValueRule::IpBlock),
    ("destination.port", ValueRule::Port),
    ("connection.sni", ValueRule::Text),
];
/// Keys of older versions that Istio refuses now.
const REMOVED: [&str; 4] =
    ["destination.labels", "destination.name", "destination.namespace", "destination.user"];
const HEADERS: &str = "request.headers";
const CLAIMS: &str = "request.auth.claims";
const FILTERS: &str = "experimental.envoy.filters.";

/// Reads a condition.
pub(super) fn read(place: Place<'_>, action: Option<Action>, report: &mut Report) -> Option<Condition> {
    let fields = place.fields(&["key", "values", "notValues"], report);
    let key_place = fields.required("key", "Name the attribute to test.", report)?;
    let key = key_place.non_empty(report)?;
    let rule = match rule_of(key) {
        Ok(rule) => Some(rule),
        Err((message, hint)) => {
            report.error(key_place, message, hint);
            None
        }
    };
    if action == Some(Action::Custom) && is_identity(key) {
        let message = "is not supported: it cannot be used with action CUSTOM";
        report.error(key_place, message, "Match by headers, addresses or ports.");
    }
    let rule = rule.unwrap_or(ValueRule::Text);
    let mut read =
        |name: &str| fields.get(name).map(|place| value::list(place, rule, report)).unwrap_or_default();
    let (values, not_values) = (read("values"), read("notValues"));
    let has_any = |name: &str| fields.get(name).is_some_and(|place| place.children().len() > 0);
    if !has_any("values") && !has_any("notValues") {
        let message = "states neither: at least one of values or notValues must be set";
        report.error(place, message, "List the values to test for.");
    }
    Some(Condition { key: key.to_owned(), values, not_values })
}

fn is_identity(key: &str) -> bool {
    let sources = ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    sources.contains(&key) || key.starts_with("request.auth.")
}

fn rule_of(key: &str) -> Result<ValueRule, (String, String)> {
    if let Some((_, rule)) = KEYS.iter().find(|(known, _)| *known == key) {
        return Ok(*rule);
    }
    let form = |text: &str| {
        (format!("bad key {:?}: it has no name in brackets", shortened(key)), format!("Write {text}."))
    };
    if let Some(rest) = key.strip_prefix(HEADERS) {
        return match brackets(rest) {
            Some(1) => Ok(ValueRule::Text),
            Some(_) | None => Err(form("request.headers[NAME]")),
        };
    }
    if let Some(rest) = key.strip_prefix(CLAIMS) {
        return brackets(rest).map(|_| ValueRule::Text).ok_or_else(|| form("request.auth.claims[NAME]"));
    }
    if let Some(rest) = key.strip_prefix(FILTERS) {
        let at = rest.find('[').filter(|at| *at > 0);
        let is_well_formed = at.is_some_and(|at| brackets(&rest[at..]).is_some());
        return if is_well_formed {
            Ok(ValueRule::Text)
        } else {
            Err(form("experimental.envoy.filters.FILTER[KEY]"))
        };
    }
    if REMOVED.iter().any(|removed| key.starts_with(removed)) {
        let hint = "Use a selector to choose workloads, and destination.ip or destination.port here.";
        let message = format!("the attribute {:?} is not supported: it was replaced", shortened(key));
        return Err((message, hint.to_owned()));
    }
    let known = KEYS.iter().map(|(key, _)| *key).chain([HEADERS, CLAIMS]);
    let hint = match nearest(key, known) {
        Some(name) => format!("Did you mean {name}?"),
        None => "Known are source.*, request.headers[], request.auth.*, destination.ip, destination.port and connection.sni.".to_owned(),
    };
    Err((format!("unknown attribute {:?}", shortened(key)), hint))
}

/// Number of `[name]`s that `text` consists of.
fn brackets(text: &str) -> Option<usize> {
    let mut rest = text;
    let mut count = 0;
    while !rest.is_empty() {
        let (name, after) = rest.strip_prefix('[')?.split_once(']')?;
        if name.is_empty() || name.contains('[') {
            return None;
        }
        rest = after;
        count += 1;
    }
    (count > 0).then_some(count)
}
