//! Tables of clusters, listeners, routes and endpoints, with istioctl's columns.

use std::collections::BTreeMap;

use mesh_api::admin::{ClusterStatus, EndpointStatus, ListenerStatus, RouteStatus};

use crate::output;

/// Domains of a route that are shown before `+ N more...`.
const DOMAINS_SHOWN: usize = 2;

/// How much of each row is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// One row per name.
    Brief,
    /// Everything.
    Full,
}

/// `proxy-config cluster`.
pub(super) fn clusters(clusters: &[ClusterStatus]) {
    let mut clusters: Vec<&ClusterStatus> = clusters.iter().collect();
    clusters
        .sort_by_key(|cluster| (&cluster.service_fqdn, cluster.port, &cluster.subset, &cluster.direction));
    let row = |cluster: &&ClusterStatus| {
        vec![
            or_dash(&cluster.service_fqdn),
            port(cluster.port),
            or_dash(&cluster.subset),
            or_dash(&cluster.direction),
            cluster.kind.clone(),
            cluster.destination_rule.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = clusters.iter().map(row).collect();
    output::table(&["SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"], &rows);
}

/// `proxy-config listener`.
pub(super) fn listeners(listeners: &[ListenerStatus], detail: Detail) {
    let row = |listener: &ListenerStatus| {
        let place = [listener.address.clone(), port(listener.port)];
        match detail {
            Detail::Full => {
                place.into_iter().chain([listener.matches.clone(), listener.destination.clone()]).collect()
            }
            Detail::Brief => place.into_iter().chain([listener.kind.clone()]).collect(),
        }
    };
    // A destination that is known by name and by address is one listener all the same.
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in listeners.iter().map(row) {
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    match detail {
        Detail::Full => output::table(&["ADDRESSES", "PORT", "MATCH", "DESTINATION"], &rows),
        Detail::Brief => output::table(&["ADDRESSES", "PORT", "TYPE"], &rows),
    }
}

/// `proxy-config route`.
pub(super) fn routes(routes: &[RouteStatus], detail: Detail) {
    match detail {
        Detail::Full => {
            let row = |route: &RouteStatus| {
                vec![
                    route.name.clone(),
                    route.vhost_name.clone(),
                    domains(&route.domains),
                    if route.matches.is_empty() { "/*".to_owned() } else { route.matches.clone() },
                    if route.targets.is_empty() { "404".to_owned() } else { route.virtual_service.clone() },
                ]
            };
            let rows: Vec<Vec<String>> = routes.iter().map(row).collect();
            output::table(&["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"], &rows);
        }
        Detail::Brief => {
            let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for route in routes {
                let of_name = hosts.entry(&route.name).or_default();
                if !of_name.contains(&route.vhost_name.as_str()) {
                    of_name.push(&route.vhost_name);
                }
            }
            let rows: Vec<Vec<String>> =
                hosts.iter().map(|(name, hosts)| vec![(*name).to_owned(), hosts.len().to_string()]).collect();
            output::table(&["NAME", "VIRTUAL HOSTS"], &rows);
        }
    }
}

/// `proxy-config endpoint`.
pub(super) fn endpoints(endpoints: &[EndpointStatus]) {
    let row = |endpoint: &EndpointStatus| {
        vec![
            endpoint.endpoint.clone(),
            endpoint.status.clone(),
            endpoint.outlier_check.clone(),
            endpoint.cluster.clone(),
        ]
    };
    let mut rows: Vec<Vec<String>> = endpoints.iter().map(row).collect();
    rows.sort_by(|left, right| (left.get(3), left.first()).cmp(&(right.get(3), right.first())));
    output::table(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"], &rows);
}

fn domains(domains: &[String]) -> String {
    let shown = domains.iter().take(DOMAINS_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match domains.len().saturating_sub(DOMAINS_SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn port(port: u16) -> String {
    if port == 0 { "-".to_owned() } else { port.to_string() }
}
