//! VirtualServices as they are written: what they name and does not exist, hosts that several claim, and
//! matches that are never reached.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::problem::Severity;
use serde_json::Value;

use super::catalogue;
use super::document::{Document, items, strings, texts};
use super::finding::Finding;
use super::nearest;
use super::survey::{Survey, selects_all_of};

const GROUP: &str = "networking.istio.io";
/// Most VirtualServices whose hosts are compared pair by pair because they are wildcards.
const WILDCARDS_MAX: usize = 1_000;

pub(super) fn check(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    for document in survey.documents(GROUP, "VirtualService") {
        for (list, routes) in
            [("http", document.list("/http")), ("tls", document.list("/tls")), ("tcp", document.list("/tcp"))]
        {
            for (index, route) in routes.iter().enumerate() {
                let path = format!("spec.{list}[{index}]");
                destinations(survey, document, &path, route, findings);
                expressions(document, &path, route, findings);
                if list == "http" {
                    double_slash(document, &path, route, findings);
                    claims(survey, document, &path, route, findings);
                }
            }
            unreachable(document, list, routes, findings);
        }
        gateways(survey, document, findings);
        findings.extend(export_to(survey, document));
        findings.extend(unaffected(survey, document));
        findings.extend(foreign(survey, document));
    }
    same_hosts(survey, findings);
}

/// The full name of a host as an object of `namespace` writes it.
pub(super) fn full_host(survey: &Survey<'_>, namespace: &str, text: &str) -> String {
    match text.contains('.') || text.contains('*') {
        true => text.to_ascii_lowercase(),
        false => format!("{text}.{namespace}.svc.{}", survey.model.mesh.cluster_domain).to_ascii_lowercase(),
    }
}

/// Gateways that it is bound to; `mesh` when it states none.
fn gateways_of(document: &Document) -> Vec<&str> {
    let named = texts(document.spec("/gateways"));
    if named.is_empty() { vec!["mesh"] } else { named }
}

fn is_for_gateways(document: &Document) -> bool {
    gateways_of(document).iter().any(|name| *name != "mesh")
}

/// Every destination of a route, with its path.
fn targets(path: &str, route: &Value) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (index, target) in items(route.get("route")).iter().enumerate() {
        found.extend(
            target.get("destination").map(|it| (format!("{path}.route[{index}].destination"), it.clone())),
        );
    }
    found.extend(route.get("mirror").map(|it| (format!("{path}.mirror"), it.clone())));
    for (index, mirror) in items(route.get("mirrors")).iter().enumerate() {
        found.extend(
            mirror.get("destination").map(|it| (format!("{path}.mirrors[{index}].destination"), it.clone())),
        );
    }
    found
}

fn destinations(
    survey: &Survey<'_>,
    document: &Document,
    path: &str,
    route: &Value,
    findings: &mut Vec<Finding>,
) {
    for (path, target) in targets(path, route) {
        let Some(written) = target.get("host").and_then(Value::as_str) else { continue };
        let host = full_host(survey, &document.subject.namespace, written);
        let service = survey.service(&host);
        if service.is_none() && survey.knows_services() {
            findings.push(unknown_host(survey, document, &format!("{path}.host"), (written, &host)));
            continue;
        }
        if let Some(subset) = target.get("subset").and_then(Value::as_str) {
            findings.extend(unknown_subset(survey, document, &format!("{path}.subset"), (&host, subset)));
        }
        let Some(service) = service.filter(|service| !service.ports.is_empty()) else { continue };
        let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
        match target.pointer("/port/number").and_then(Value::as_u64) {
            Some(port) if !service.ports.iter().any(|it| u64::from(it.port) == port) => {
                let message = format!("Referenced host:port not found: \"{host}:{port}\"");
                findings.push(
                    document
                        .finding(catalogue::REFERENCE, format!("{path}.port.number"), message)
                        .hint(format!("The service has port {}.", ports.join(", "))),
                );
            }
            None if service.ports.len() > 1 && !path.contains("mirror") => {
                let message = format!(
                    "This VirtualService routes to a service {host:?} that exposes multiple ports [{}]. Specifying a port in the destination is required to disambiguate.",
                    ports.join(" ")
                );
                let finding = document
                    .finding(catalogue::PORT_REQUIRED, path, message)
                    .fix(format!("port: {{number: {}}}", ports[0]));
                findings.push(match is_for_gateways(document) {
                    true => finding,
                    false => finding
                        .severity(Severity::Info)
                        .hint("Inside the mesh the port that the client dialled is taken; state one to send all to it."),
                });
            }
            Some(_) | None => {}
        }
    }
}

fn unknown_host(
    survey: &Survey<'_>,
    document: &Document,
    field: &str,
    (written, host): (&str, &str),
) -> Finding {
    let message = format!("Referenced host not found: {written:?}");
    let namespace = document.subject.namespace.as_str();
    let finding = document.finding(catalogue::REFERENCE, field, message);
    if written.contains('.') {
        // `reviews.prod` is taken as it is: what is short has no dot at all.
        let full = format!("{written}.svc.{}", survey.model.mesh.cluster_domain);
        return match survey.service(&full) {
            Some(_) => finding.hint("A name with a dot is taken as it is; write it in full.").fix(full),
            None => finding.hint("Name a host of a Service or ServiceEntry."),
        };
    }
    let known: Vec<&str> =
        survey.services_of(namespace).iter().map(|service| service.meta.object.name.as_str()).collect();
    let elsewhere = survey.model.services.iter().find(|service| service.meta.object.name.as_str() == written);
    match (nearest(written, &known), elsewhere) {
        (Some(near), _) => finding.hint(format!("Did you mean {near:?}?")),
        (None, Some(service)) => finding
            .hint(format!("A short name is one of the VirtualService's own namespace, {namespace}: {host}."))
            .fix(service.hosts.first().map_or_else(String::new, ToString::to_string)),
        (None, None) => finding.hint(format!("It means {host}. Name a Service or ServiceEntry.")),
    }
}

fn unknown_subset(
    survey: &Survey<'_>,
    document: &Document,
    field: &str,
    (host, subset): (&str, &str),
) -> Option<Finding> {
    let rules: Vec<_> = survey.rules_for(host).collect();
    if rules.is_empty() && !survey.knows_services() {
        return None;
    }
    let names: Vec<&str> = rules
        .iter()
        .flat_map(|rule| rule.list("/subsets"))
        .filter_map(|it| it.get("name")?.as_str())
        .collect();
    if names.contains(&subset) {
        return None;
    }
    let message = format!("Referenced host+subset in destinationrule not found: \"{host}+{subset}\"");
    let hint = match names.is_empty() {
        true => {
            format!("Add a DestinationRule for {host} with the subset; until then the route answers 503.")
        }
        false => format!("The subsets of the host are {}; the route answers 503.", names.join(", ")),
    };
    Some(document.finding(catalogue::REFERENCE, field, message).hint(hint))
}

fn gateways(survey: &Survey<'_>, document: &Document, findings: &mut Vec<Finding>) {
    for (index, name) in texts(document.spec("/gateways")).into_iter().enumerate() {
        let field = format!("spec.gateways[{index}]");
        if name.contains("istio-autogenerated-k8s-gateway") {
            let message = format!(
                "Gateway {name} in VirtualService is an internal gateway, made of a Kubernetes Gateway"
            );
            findings.push(document.finding(catalogue::INTERNAL_GATEWAY, field, message));
            continue;
        }
        if name == "mesh" {
            continue;
        }
        let (namespace, short) = name.split_once('/').unwrap_or((document.subject.namespace.as_str(), name));
        match survey.gateway(namespace, short) {
            Some(gateway) => {
                findings.extend(hosts_of_gateway(document, gateway));
                findings.extend(tls_of_gateway(document, gateway));
            }
            None if survey.knows_services() || survey.documents(GROUP, "Gateway").next().is_some() => {
                let elsewhere = survey.documents(GROUP, "Gateway").find(|it| it.subject.name == short);
                let finding = document.finding(
                    catalogue::REFERENCE,
                    field,
                    format!("Referenced gateway not found: {name:?}"),
                );
                findings.push(match elsewhere {
                    Some(found) => finding
                        .hint("A gateway of another namespace is written NAMESPACE/NAME.")
                        .fix(format!("{}/{short}", found.subject.namespace)),
                    None => finding.hint(format!("It means {namespace}/{short}. Name a Gateway, or `mesh`.")),
                });
            }
            None => {}
        }
    }
}

/// Whether two host patterns have a name in common.
fn overlap(left: &str, right: &str) -> bool {
    match (left.strip_prefix('*'), right.strip_prefix('*')) {
        (None, None) => left == right,
        (Some(suffix), None) => right.ends_with(suffix),
        (None, Some(suffix)) => left.ends_with(suffix),
        (Some(left), Some(right)) => left.ends_with(right) || right.ends_with(left),
    }
}

fn hosts_of_gateway(document: &Document, gateway: &Document) -> Option<Finding> {
    let admitted: Vec<String> = gateway
        .list("/servers")
        .iter()
        .flat_map(|server| texts(server.get("hosts")))
        .filter_map(|host| match host.split_once('/') {
            None => Some(host.to_owned()),
            Some(("*", host)) => Some(host.to_owned()),
            Some((".", host)) => {
                (gateway.subject.namespace == document.subject.namespace).then(|| host.to_owned())
            }
            Some((namespace, host)) => (namespace == document.subject.namespace).then(|| host.to_owned()),
        })
        .collect();
    let missing: Vec<&str> = texts(document.spec("/hosts"))
        .into_iter()
        .filter(|host| !admitted.iter().any(|known| overlap(known, host)))
        .collect();
    (!missing.is_empty()).then(|| {
        let message = format!(
            "one or more host [{}] defined in VirtualService {}/{} not found in Gateway {}/{}.",
            missing.join(" "),
            document.subject.namespace,
            document.subject.name,
            gateway.subject.namespace,
            gateway.subject.name
        );
        document
            .finding(catalogue::HOST_NOT_IN_GATEWAY, "spec.hosts", message)
            .hint(format!("The gateway's hosts are {}; it answers 404 for others.", admitted.join(", ")))
    })
}

/// Routes of a kind that the gateway's server does not use for these hosts.
fn tls_of_gateway(document: &Document, gateway: &Document) -> Option<Finding> {
    let hosts = texts(document.spec("/hosts"));
    let (has_http, has_tls) = (!document.list("/http").is_empty(), !document.list("/tls").is_empty());
    let serving: Vec<&Value> = gateway
        .list("/servers")
        .iter()
        .filter(|server| {
            let of = texts(server.get("hosts"));
            let mut of = of.iter().map(|host| host.rsplit_once('/').map_or(*host, |(_, host)| host));
            of.any(|known| hosts.iter().any(|host| overlap(known, host)))
        })
        .collect();
    let passes = |server: &&Value| {
        let mode = server.pointer("/tls/mode").and_then(Value::as_str);
        matches!(mode, Some("PASSTHROUGH" | "AUTO_PASSTHROUGH"))
    };
    let is_all = |wanted: bool| !serving.is_empty() && serving.iter().all(|server| passes(server) == wanted);
    let name = &gateway.subject;
    let (field, message) = if has_http && !has_tls && is_all(true) {
        ("spec.http", format!("{name} passes TLS through, and sees no HTTP: these routes are never used"))
    } else if has_tls && !has_http && is_all(false) {
        ("spec.tls", format!("{name} ends TLS for these hosts: routes by SNI are never used"))
    } else {
        return None;
    };
    Some(document.finding(catalogue::GATEWAY_TLS, field, message))
}

/// A gateway's route to a host whose own routing is for the mesh only.
fn unaffected(survey: &Survey<'_>, document: &Document) -> Option<Finding> {
    if !is_for_gateways(document) {
        return None;
    }
    for (index, route) in document.list("/http").iter().enumerate() {
        for (path, target) in targets(&format!("spec.http[{index}]"), route) {
            let host = target.get("host").and_then(Value::as_str)?;
            if target.get("subset").is_some() || path.contains("mirror") {
                continue;
            }
            let host = full_host(survey, &document.subject.namespace, host);
            let own = survey.routes_for(&host).find(|it| {
                it.subject != document.subject && gateways_of(it) == ["mesh"] && chooses_subsets(it)
            });
            if let Some(own) = own {
                let message = format!(
                    "Subset in virtual service {} has no effect on ingress gateway {} requests: they go to {host} by this route alone",
                    own.subject,
                    gateways_of(document).join(", ")
                );
                return Some(document.finding(catalogue::INGRESS_UNAFFECTED, path, message));
            }
        }
    }
    None
}

/// Whether a VirtualService does more than to send everything to one subset.
fn chooses_subsets(document: &Document) -> bool {
    let routes = document.list("/http");
    let all: BTreeSet<String> = routes
        .iter()
        .flat_map(|route| items(route.get("route")))
        .filter_map(|target| target.pointer("/destination/subset")?.as_str().map(str::to_owned))
        .collect();
    all.len() > 1
}

/// `exportTo` with a namespace that does not exist.
pub(super) fn export_to(survey: &Survey<'_>, document: &Document) -> Option<Finding> {
    let values = texts(document.spec("/exportTo"));
    let unknown = values
        .iter()
        .position(|value| !matches!(*value, "*" | "." | "~") && survey.lacks_namespace(value))?;
    let message = format!("Referenced namespace not found: {:?}", values[unknown]);
    Some(document.finding(catalogue::REFERENCE, format!("spec.exportTo[{unknown}]"), message))
}

/// Whoever may write a VirtualService anywhere may route any host for the whole mesh (TRAP 38).
fn foreign(survey: &Survey<'_>, document: &Document) -> Option<Finding> {
    let own = document.subject.namespace.as_str();
    if !gateways_of(document).contains(&"mesh") || own == survey.model.mesh.root_namespace.as_str() {
        return None;
    }
    if !texts(document.spec("/exportTo")).is_empty() && texts(document.spec("/exportTo")) == ["."] {
        return None;
    }
    texts(document.spec("/hosts")).into_iter().enumerate().find_map(|(index, written)| {
        let host = full_host(survey, own, written);
        let owner = survey.service(&host).filter(|_| !host.contains('*'))?.meta.object.namespace.as_str();
        (owner != own).then(|| {
            let message = format!("Routes {host}, a host of namespace {owner}, for every caller of the mesh");
            document.finding(catalogue::FOREIGN_ROUTE, format!("spec.hosts[{index}]"), message)
        })
    })
}

/// Where an object is visible: everywhere, or in some namespaces.
fn visible(document: &Document) -> Option<BTreeSet<String>> {
    let values = texts(document.spec("/exportTo"));
    if values.is_empty() || values.contains(&"*") {
        return None;
    }
    Some(
        values
            .into_iter()
            .map(|value| if value == "." { document.subject.namespace.clone() } else { value.to_owned() })
            .collect(),
    )
}

pub(super) fn see_each_other(left: &Document, right: &Document) -> bool {
    match (visible(left), visible(right)) {
        (Some(left), Some(right)) => !left.is_disjoint(&right),
        (None, _) | (_, None) => true,
    }
}

/// Hosts that several VirtualServices route for the mesh.
fn same_hosts(survey: &Survey<'_>, findings: &mut Vec<Finding>) {
    let mut by_host: BTreeMap<String, Vec<(&Document, usize)>> = BTreeMap::new();
    for document in survey.documents(GROUP, "VirtualService").filter(|it| gateways_of(it).contains(&"mesh")) {
        for (index, host) in texts(document.spec("/hosts")).into_iter().enumerate() {
            by_host
                .entry(full_host(survey, &document.subject.namespace, host))
                .or_default()
                .push((document, index));
        }
    }
    for (host, claims) in by_host.iter().filter(|(_, claims)| claims.len() > 1) {
        for (document, index) in claims {
            let rivals: BTreeSet<String> = claims
                .iter()
                .filter(|(other, _)| other.subject != document.subject && see_each_other(document, other))
                .map(|(other, _)| format!("{}/{}", other.subject.namespace, other.subject.name))
                .collect();
            if rivals.is_empty() {
                continue;
            }
            let own = format!("{}/{}", document.subject.namespace, document.subject.name);
            let all: Vec<String> = std::iter::once(own).chain(rivals.into_iter().take(4)).collect();
            let message = format!(
                "The VirtualServices {} associated with mesh gateway define the same host {host} which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource.",
                all.join(",")
            );
            findings.push(
                document
                    .finding(catalogue::SAME_HOST, format!("spec.hosts[{index}]"), message)
                    .hint("The oldest is used and the others are ignored; merge them."),
            );
        }
    }
    let wildcards =
        by_host.iter().filter(|(host, _)| host.starts_with('*') && host.len() > 1).take(WILDCARDS_MAX);
    for (wildcard, claims) in wildcards {
        let Some((document, index)) = claims.first() else { continue };
        let covered = by_host.iter().find(|(host, others)| {
            *host != wildcard
                && host.ends_with(&wildcard[1..])
                && others
                    .iter()
                    .any(|(other, _)| other.subject != document.subject && see_each_other(document, other))
        });
        if let Some((host, others)) = covered
            && let Some((other, _)) = others.iter().find(|(other, _)| other.subject != document.subject)
        {
            let message = format!(
                "{wildcard} overlaps with {host} of {} ({}): for that host only the routes of the other are used",
                other.subject, other.origin
            );
            findings.push(document.finding(
                catalogue::WILDCARD_OVERLAP,
                format!("spec.hosts[{index}]"),
                message,
            ));
        }
    }
}

/// Routes and matches behind others that take everything they would.
fn unreachable(document: &Document, list: &str, routes: &[Value], findings: &mut Vec<Finding>) {
    let mut catch_all = None;
    let mut seen: Vec<(usize, &Value)> = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let name = route
            .get("name")
            .and_then(Value::as_str)
            .map_or_else(|| format!("#{index}"), |name| format!("{name:?}"));
        let field = format!("spec.{list}[{index}]");
        let unused = |reason: String| {
            document.finding(
                catalogue::UNREACHABLE_ROUTE,
                field.clone(),
                format!("VirtualService rule {name} not used ({reason})."),
            )
        };
        if let Some(earlier) = catch_all {
            findings.push(unused(format!(
                "only the last rule can have no matches, and ⟨spec.{list}[{earlier}]⟩ takes everything"
            )));
            continue;
        }
        let matches = items(route.get("match"));
        let is_empty = |entry: &Value| fields_of(entry).next().is_none();
        if matches.is_empty() || matches.iter().any(is_empty) {
            catch_all = Some(index);
        }
        let mut covered = 0;
        for (position, entry) in matches.iter().enumerate() {
            let by = seen.iter().find(|(earlier, wide)| {
                let is_root = wide.pointer("/uri/prefix").and_then(Value::as_str) == Some("/");
                !(is_root && *earlier == index) && takes(list, wide, entry)
            });
            if let Some((earlier, _)) = by {
                covered += usize::from(*earlier != index);
                let message = format!(
                    "VirtualService rule {name} match #{position} is not used (duplicate/overlapping match in rule #{earlier}, ⟨spec.{list}[{earlier}]⟩)."
                );
                findings.push(document.finding(
                    catalogue::INEFFECTIVE_MATCH,
                    format!("{field}.match[{position}]"),
                    message,
                ));
            }
            seen.push((index, entry));
        }
        if !matches.is_empty() && covered == matches.len() {
            findings.push(unused("all matches used by prior rules".to_owned()));
        }
        if seen.len() > 512 {
            // A VirtualService of more matches is generated, and comparing all of them is not worth minutes.
            return;
        }
    }
}

/// What a match asks for, without its names.
fn fields_of(entry: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let fields = entry.as_object().into_iter().flatten();
    fields.filter(|(key, value)| !matches!(key.as_str(), "name" | "statPrefix") && !value.is_null())
}

/// Whether everything that `narrow` matches is matched by `wide`.
fn takes(list: &str, wide: &Value, narrow: &Value) -> bool {
    if list != "http" {
        return fields_of(wide).collect::<BTreeMap<_, _>>() == fields_of(narrow).collect::<BTreeMap<_, _>>();
    }
    let ignores = |entry: &Value| entry.get("ignoreUriCase").and_then(Value::as_bool).unwrap_or(false);
    fields_of(wide).all(|(key, wanted)| {
        if key == "ignoreUriCase" {
            return true;
        }
        let Some(given) = narrow.get(key) else { return false };
        match key.as_str() {
            "uri" => (ignores(wide) == ignores(narrow)) && string_takes(wanted, given),
            "scheme" | "method" | "authority" => string_takes(wanted, given),
            "headers" | "queryParams" => {
                let all = wanted.as_object().into_iter().flatten();
                all.into_iter()
                    .all(|(name, wanted)| given.get(name).is_some_and(|given| string_takes(wanted, given)))
            }
            "sourceLabels" => selects_all_of(&strings(Some(wanted)), &strings(Some(given))),
            "gateways" => texts(Some(given)).iter().all(|name| texts(Some(wanted)).contains(name)),
            _ => wanted == given,
        }
    })
}

fn string_takes(wide: &Value, narrow: &Value) -> bool {
    let text = |value: &Value, kind: &str| value.get(kind).and_then(Value::as_str).map(str::to_owned);
    if wide == narrow {
        return true;
    }
    match (text(wide, "prefix"), text(narrow, "prefix"), text(narrow, "exact")) {
        (Some(prefix), Some(other), _) => other.starts_with(&prefix),
        (Some(prefix), _, Some(exact)) => exact.starts_with(&prefix),
        _ => false,
    }
}

/// Regular expressions that do not compile. Those of matches are refused when the document is read.
fn expressions(document: &Document, path: &str, value: &Value, findings: &mut Vec<Finding>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter().filter(|(name, _)| *name != "match") {
                let path = format!("{path}.{name}");
                match value.as_str().filter(|_| name == "regex") {
                    Some(text) => findings.extend(invalid_regex(document, path, text)),
                    None => expressions(document, &path, value, findings),
                }
            }
            let rewrite = fields
                .get("uriRegexRewrite")
                .and_then(|rewrite| rewrite.get("match"))
                .and_then(Value::as_str);
            let field = format!("{path}.uriRegexRewrite.match");
            findings.extend(rewrite.and_then(|text| invalid_regex(document, field, text)));
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                expressions(document, &format!("{path}[{index}]"), value, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn invalid_regex(document: &Document, field: String, text: &str) -> Option<Finding> {
    /// Longest program of an expression, in bytes; RE2 has a bound of the same kind.
    const PROGRAM_BYTES_MAX: usize = 1 << 20;
    let error = regex::RegexBuilder::new(text).size_limit(PROGRAM_BYTES_MAX).build().err()?;
    let reason = error.to_string();
    let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let message = format!("Field {field:?} regular expression invalid: {text:?} ({reason})");
    Some(document.finding(catalogue::INVALID_REGEX, field, message))
}

/// A prefix without its slash, rewritten to one.
fn double_slash(document: &Document, path: &str, route: &Value, findings: &mut Vec<Finding>) {
    if route.pointer("/rewrite/uri").and_then(Value::as_str) != Some("/") {
        return;
    }
    let prefixes: Vec<&str> =
        items(route.get("match")).iter().filter_map(|entry| entry.pointer("/uri/prefix")?.as_str()).collect();
    let bare = prefixes.iter().find(|prefix| !prefix.ends_with('/') && !prefix.is_empty());
    if let Some(prefix) = bare {
        let message = format!(
            "{:?} becomes \"//x\", which policies and applications may read as another path",
            format!("{prefix}/x")
        );
        findings.push(
            document
                .finding(catalogue::DOUBLE_SLASH, format!("{path}.rewrite.uri"), message)
                .fix(format!("match:\n- uri: {{prefix: {prefix}/}}\n- uri: {{exact: {prefix}}}")),
        );
    }
}

/// Routes by the claims of a token that no gateway verifies.
fn claims(survey: &Survey<'_>, document: &Document, path: &str, route: &Value, findings: &mut Vec<Finding>) {
    for (position, entry) in items(route.get("match")).iter().enumerate() {
        for list in ["headers", "withoutHeaders"] {
            let names =
                entry.get(list).and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name);
            let Some(key) = names.into_iter().find(|name| name.starts_with("@request.auth.claims")) else {
                continue;
            };
            for gateway in gateways_of(document).into_iter().filter(|name| *name != "mesh") {
                let (namespace, short) =
                    gateway.split_once('/').unwrap_or((document.subject.namespace.as_str(), gateway));
                let known = survey.gateway(namespace, short);
                let labels = known.map(|it| strings(it.spec("/selector"))).unwrap_or_default();
                let mut in_force = survey.model.request.iter().filter(|it| it.meta.is_in_force());
                let is_verified = in_force.any(|it| {
                    known.is_none()
                        || !it.targets.is_empty()
                        || selects_all_of(&it.selector.match_labels, &labels)
                });
                if !is_verified {
                    let message = format!(
                        "The virtual service uses the JWT claim based routing (key: {key}) but found no request authentication for the gateway ({gateway}): the match never holds, and requests take another route"
                    );
                    findings.push(document.finding(
                        catalogue::JWT_ROUTING,
                        format!("{path}.match[{position}].{list}"),
                        message,
                    ));
                }
            }
        }
    }
}

/// Hosts that gateways route to, each with the namespaces of those gateways' workloads.
pub(super) fn from_gateways(survey: &Survey<'_>) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for document in survey.documents(GROUP, "VirtualService").filter(|it| is_for_gateways(it)) {
        let mut namespaces = BTreeSet::new();
        for gateway in gateways_of(document).into_iter().filter(|name| *name != "mesh") {
            let (namespace, short) =
                gateway.split_once('/').unwrap_or((document.subject.namespace.as_str(), gateway));
            let known = survey.gateway(namespace, short);
            let selector = known.map(|it| strings(it.spec("/selector"))).unwrap_or_default();
            let selected = survey
                .workloads
                .iter()
                .filter(|it| !selector.is_empty() && selects_all_of(&selector, &it.workload.labels));
            let of: Vec<String> = selected.map(|it| it.named.namespace.clone()).collect();
            if of.is_empty() {
                namespaces.insert(survey.model.mesh.root_namespace.to_string());
            }
            namespaces.extend(of);
        }
        for (index, route) in document.list("/http").iter().enumerate() {
            for (_, target) in targets(&format!("spec.http[{index}]"), route) {
                if let Some(host) = target.get("host").and_then(Value::as_str) {
                    let host = full_host(survey, &document.subject.namespace, host);
                    found.entry(host).or_default().extend(namespaces.iter().cloned());
                }
            }
        }
    }
    found
}
