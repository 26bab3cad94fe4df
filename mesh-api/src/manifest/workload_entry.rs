//! WorkloadEntry, and the endpoints of a ServiceEntry, which have the same fields.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::host;
use super::input::Input;
use super::meta;
use super::report::Report;
use super::tree::Place;
use crate::model::{Availability, ObjectMeta, Workload};
use crate::name::{Labels, ServiceAccount};

/// Fields of a workload.
const SPEC: [&str; 7] = ["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];
/// The label that says that a workload has a proxy.
const MESHED_LABEL: &str = "security.istio.io/tlsMode";

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> Option<Workload> {
    workload(input.spec, input.meta, report)
}

/// Reads a workload. Labels of the object count as the workload's own, below those that it states.
pub(super) fn workload(place: Place<'_>, meta: ObjectMeta, report: &mut Report) -> Option<Workload> {
    let spec = place.fields(&SPEC, report);
    let mut labels = meta.labels.clone();
    labels.extend(spec.get("labels").map(|place| meta::labels(place, report)).unwrap_or_default());
    let ports = spec.get("ports").map(|place| ports(place, report)).unwrap_or_default();
    let account = match spec.get("serviceAccount") {
        Some(place) => place.parsed(ServiceAccount::parse, report),
        None => ServiceAccount::parse("default").ok(),
    };
    let locality = spec.get("locality").and_then(|place| locality(place, report)).unwrap_or_default();
    let weight = spec.get("weight").and_then(|place| place.integer(0..=i64::from(u32::MAX), report));
    if let Some(place) = spec.get("network")
        && place.text(report).is_some_and(|network| !network.is_empty())
    {
        report.not_enforced(place, "every address is taken to be reachable directly");
    }
    let hint = "State the workload's IP address.";
    let address = spec.required("address", hint, report).and_then(|place| address(place, report));
    let (addresses, dns_name) = match address? {
        Address::Ip(address) => (vec![address], None),
        Address::Name(name) => (Vec::new(), Some(name)),
    };
    Some(Workload {
        meshed: is_meshed(&labels),
        meta,
        addresses,
        dns_name,
        labels,
        service_account: account?,
        ports,
        weight: weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(u32::MAX)),
        locality,
        availability: Availability::Ready,
        shares_addresses: false,
        hosts: Vec::new(),
        is_completed: false,
    })
}

fn is_meshed(labels: &Labels) -> bool {
    labels.get(MESHED_LABEL).is_some_and(|mode| mode == "istio")
}

enum Address {
    Ip(IpAddr),
    Name(String),
}

fn address(place: Place<'_>, report: &mut Report) -> Option<Address> {
    let text = place.non_empty(report)?;
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            report.error(place, format!("{address} is not an address of a workload"), "");
            return None;
        }
        return Some(Address::Ip(address));
    }
    if text.starts_with("unix:") {
        report.error(place, "Unix sockets are not supported", "State an IP address.");
        return None;
    }
    let is_numeric = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b':' | b'/'));
    if is_numeric {
        report.error(place, format!("{:?} is not an IP address", super::report::shortened(text)), "");
        return None;
    }
    host::full(place, report).map(|host| Address::Name(host.as_str().to_owned()))
}

fn ports(place: Place<'_>, report: &mut Report) -> BTreeMap<String, u16> {
    let entries = place.entries(report).into_iter();
    entries.filter_map(|entry| Some((entry.name().to_owned(), entry.port(report)?))).collect()
}

/// `region/zone/subzone`, none of them empty.
fn locality(place: Place<'_>, report: &mut Report) -> Option<String> {
    let text = place.text(report)?;
    if !text.is_empty() && (text.split('/').count() > 3 || text.split('/').any(str::is_empty)) {
        let message = format!("{:?} is not a locality", super::report::shortened(text));
        report.error(place, message, "Write region, region/zone or region/zone/subzone.");
        return None;
    }
    Some(text.to_owned())
}
