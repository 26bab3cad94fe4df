//! Which rows of `proxy-config` to show (pure). Flags are istioctl's; what is not given takes all.

use clap::Args;
use mesh_api::admin::{ClusterStatus, EndpointStatus, ListenerStatus, RouteStatus};

use super::tables::Detail;

/// Flags of `proxy-config cluster`.
#[derive(Debug, Default, Args)]
pub(crate) struct ClusterFilter {
    /// Part of the service's name.
    #[arg(long, value_name = "HOST")]
    fqdn: Option<String>,
    /// Only inbound or outbound.
    #[arg(long, value_name = "DIRECTION", value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Only this subset.
    #[arg(long, value_name = "NAME")]
    subset: Option<String>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

impl ClusterFilter {
    /// Whether the row is shown.
    pub(super) fn takes(&self, cluster: &ClusterStatus) -> bool {
        holds(self.fqdn.as_deref(), |fqdn| cluster.service_fqdn.contains(fqdn))
            && holds(self.direction.as_deref(), |direction| cluster.direction == direction)
            && holds(self.subset.as_deref(), |subset| cluster.subset == subset)
            && self.port.is_none_or(|port| cluster.port == port)
    }
}

/// Flags of `proxy-config endpoint`.
#[derive(Debug, Default, Args)]
pub(crate) struct EndpointFilter {
    /// Only this address.
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Only this cluster, by its whole name or by its host.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only this status, for instance healthy.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
}

impl EndpointFilter {
    /// Whether the row is shown.
    pub(super) fn takes(&self, endpoint: &EndpointStatus) -> bool {
        let (address, port) = endpoint.endpoint.rsplit_once(':').unwrap_or((&endpoint.endpoint, ""));
        let address = address.trim_matches(['[', ']']);
        let host = endpoint.cluster.rsplit('|').next().unwrap_or_default();
        holds(self.address.as_deref(), |wanted| wanted == address)
            && self.port.is_none_or(|wanted| port == wanted.to_string())
            && holds(self.cluster.as_deref(), |wanted| wanted == endpoint.cluster || wanted == host)
            && holds(self.status.as_deref(), |wanted| wanted.eq_ignore_ascii_case(&endpoint.status))
    }
}

/// Flags of `proxy-config listener`.
#[derive(Debug, Default, Args)]
pub(crate) struct ListenerFilter {
    /// Only this address.
    #[arg(long, value_name = "IP")]
    address: Option<String>,
    /// Only this type: HTTP, TCP or DNS.
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// Only this port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Show what is matched and where it goes; false shows the type.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    verbose: bool,
}

impl ListenerFilter {
    /// Whether the row is shown.
    pub(super) fn takes(&self, listener: &ListenerStatus) -> bool {
        holds(self.address.as_deref(), |address| listener.address == address)
            && holds(self.r#type.as_deref(), |kind| listener.kind.eq_ignore_ascii_case(kind))
            && self.port.is_none_or(|port| listener.port == port)
    }

    /// How much of each row is shown.
    pub(super) fn form(&self) -> Detail {
        if self.verbose { Detail::Full } else { Detail::Brief }
    }
}

/// Flags of `proxy-config route`.
#[derive(Debug, Default, Args)]
pub(crate) struct RouteFilter {
    /// Only this route configuration, for instance 8080.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Show each route; false counts them.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    verbose: bool,
}

impl RouteFilter {
    /// Whether the row is shown.
    pub(super) fn takes(&self, route: &RouteStatus) -> bool {
        holds(self.name.as_deref(), |name| route.name == name)
    }

    /// How much is shown.
    pub(super) fn form(&self) -> Detail {
        if self.verbose { Detail::Full } else { Detail::Brief }
    }
}

fn holds(wanted: Option<&str>, test: impl FnOnce(&str) -> bool) -> bool {
    wanted.is_none_or(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(address: &str) -> EndpointStatus {
        EndpointStatus {
            endpoint: address.to_owned(),
            status: "HEALTHY".to_owned(),
            outlier_check: "OK".to_owned(),
            cluster: "outbound|80||catalog.backend.svc.cluster.local".to_owned(),
            identity: String::new(),
            active_requests: 0,
        }
    }

    #[test]
    fn endpoints_are_found_by_address_of_either_family_port_and_cluster() {
        let filter = |address: Option<&str>, port, cluster: Option<&str>| EndpointFilter {
            address: address.map(str::to_owned),
            port,
            cluster: cluster.map(str::to_owned),
            status: Some("healthy".to_owned()),
        };
        assert!(filter(Some("10.0.0.1"), Some(8080), None).takes(&endpoint("10.0.0.1:8080")));
        assert!(filter(Some("fd00::1"), Some(8080), None).takes(&endpoint("[fd00::1]:8080")));
        assert!(filter(None, None, Some("catalog.backend.svc.cluster.local")).takes(&endpoint("10.0.0.1:1")));
        assert!(!filter(Some("10.0.0.1"), Some(80), None).takes(&endpoint("10.0.0.1:8080")));
        assert!(!filter(None, None, Some("orders.backend.svc.cluster.local")).takes(&endpoint("10.0.0.1:1")));
    }

    #[test]
    fn clusters_are_found_by_part_of_their_host() {
        let cluster = ClusterStatus {
            service_fqdn: "catalog.backend.svc.cluster.local".to_owned(),
            port: 80,
            subset: "-".to_owned(),
            direction: "outbound".to_owned(),
            kind: "EDS".to_owned(),
            destination_rule: String::new(),
            name: String::new(),
            protocol: "HTTP".to_owned(),
        };
        assert!(ClusterFilter::default().takes(&cluster));
        let filter = ClusterFilter { fqdn: Some("backend".to_owned()), ..ClusterFilter::default() };
        assert!(filter.takes(&cluster));
        let filter = ClusterFilter { direction: Some("inbound".to_owned()), ..ClusterFilter::default() };
        assert!(!filter.takes(&cluster));
        assert!(!ClusterFilter { port: Some(81), ..ClusterFilter::default() }.takes(&cluster));
    }
}
