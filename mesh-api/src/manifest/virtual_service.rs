//! VirtualService (SEMANTICS section 10).

use super::fields::Fields;
use super::input::Input;
use super::report::Report;
use super::shape::Shape;
use super::traffic_policy::unenforced_field;
use super::tree::Place;
use super::{host, http_route};
use crate::model::VirtualService;
use crate::name::{Host, Namespace};

const DESTINATION: Shape = Shape::Object(&[
    ("host", Shape::Text),
    ("subset", Shape::Text),
    ("port", Shape::Object(&[("number", Shape::Count)])),
]);
const ROUTES: Shape = Shape::List(&Shape::Object(&[("destination", DESTINATION), ("weight", Shape::Count)]));
const L4_MATCH: [(&str, Shape); 6] = [
    ("destinationSubnets", Shape::List(&Shape::Text)),
    ("port", Shape::Count),
    ("sourceLabels", Shape::Map(&Shape::Text)),
    ("sourceNamespace", Shape::Text),
    ("gateways", Shape::List(&Shape::Text)),
    ("sourceSubnet", Shape::Text),
];
const TCP: Shape =
    Shape::List(&Shape::Object(&[("match", Shape::List(&Shape::Object(&L4_MATCH))), ("route", ROUTES)]));
const TLS_MATCH: [(&str, Shape); 6] = [
    ("sniHosts", Shape::List(&Shape::Text)),
    ("destinationSubnets", Shape::List(&Shape::Text)),
    ("port", Shape::Count),
    ("sourceLabels", Shape::Map(&Shape::Text)),
    ("sourceNamespace", Shape::Text),
    ("gateways", Shape::List(&Shape::Text)),
];
const TLS: Shape =
    Shape::List(&Shape::Object(&[("match", Shape::List(&Shape::Object(&TLS_MATCH))), ("route", ROUTES)]));
/// The reserved gateway name of sidecars.
const MESH: &str = "mesh";

pub(super) fn lower(input: Input<'_, '_>, report: &mut Report) -> VirtualService {
    let known = ["hosts", "gateways", "http", "tls", "tcp", "exportTo"];
    let spec = input.spec.fields(&known, report);
    let gateways = match spec.get("gateways") {
        Some(place) => gateways(place, report),
        None => vec![MESH.to_owned()],
    };
    let is_for_mesh = gateways.iter().any(|name| name == MESH);
    let hosts = hosts(&input, spec, is_for_mesh, report);
    let mut http = Vec::new();
    for place in spec.get("http").map(|place| place.items(report)).unwrap_or_default() {
        http.extend(http_route::read(place, &input, report));
    }
    let effect = "connections go to the host that was dialled";
    unenforced_field(spec, ("tcp", TCP), effect, report);
    unenforced_field(spec, ("tls", TLS), effect, report);
    if let Some(place) = spec.get("exportTo") {
        host::export_to(place, report);
    }
    if spec.stated(&["http", "tls", "tcp"]) == 0 {
        report.error(spec.place, "states no routes", "Add http.");
    }
    VirtualService { meta: input.meta, hosts, gateways, http }
}

fn gateways(place: Place<'_>, report: &mut Report) -> Vec<String> {
    let names = place.texts(report);
    for (item, name) in place.children().zip(&names) {
        if name.split('/').count() > 2 || name.split('/').any(str::is_empty) {
            report.error(
                item,
                format!("{name:?} is not the name of a gateway"),
                "Write NAME or NAMESPACE/NAME.",
            );
        }
    }
    if !names.is_empty() && names.iter().all(|name| name != MESH) {
        report.not_enforced(place, "there are no gateways, and sidecars do not use it without `mesh`");
    }
    // An empty list is the same as none.
    if names.is_empty() { vec![MESH.to_owned()] } else { names }
}

fn hosts(input: &Input<'_, '_>, spec: Fields<'_>, is_for_mesh: bool, report: &mut Report) -> Vec<Host> {
    let Some(place) = spec.get("hosts") else {
        if spec.stated(&["gateways", "tls", "tcp"]) > 0 {
            report.missing(spec.place, "hosts", "Name the hosts that are routed.");
        } else {
            report.not_enforced(spec.place, "without hosts it is a delegate, and nothing delegates to it");
        }
        return Vec::new();
    };
    let namespace: &Namespace = &input.meta.object.namespace;
    let items = place.items(report);
    if items.is_empty() {
        report.error(place, "must name a host", "Name the hosts that are routed.");
    }
    let mut hosts: Vec<Host> = Vec::new();
    for item in items {
        let Some(host) = host::resolved(item, namespace, input.context, report) else { continue };
        if host.as_str() == "*" && is_for_mesh {
            report.error(item, "* cannot be routed for the whole mesh", "Name the hosts.");
        }
        if let Some(other) =
            hosts.iter().find(|other| other.covers(host.as_str()) || host.covers(other.as_str()))
        {
            report.error(item, format!("overlaps with {other}"), "Name each host once.");
        }
        hosts.push(host);
    }
    hosts
}
