//! Under which names of the mesh a question may be meant, and how sure it is that it means the mesh.
//!
//! Kubernetes gives each pod the search list `NS.svc.SUFFIX svc.SUFFIX SUFFIX`
//! (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>), so that `catalog`,
//! `catalog.backend` and `catalog.backend.svc` all reach the service. Workloads outside of Kubernetes have no
//! such list, so the short forms are understood here, in the same order: the mesh's reading first, then the
//! name as it stands (a ServiceEntry's host). `foo.com` has the shape of `catalog.backend` too; it is asked
//! for as both, and goes upstream when the mesh has neither.

use mesh_api::name::Host;

/// How sure it is that a name means the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Under the mesh's own domain: nobody else has it.
    Own,
    /// A short form of the mesh that no public name has: a single label, or `.svc` at the end.
    Short,
    /// Any other name: the mesh may have it, the world may too.
    Open,
}

/// A name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) shape: Shape,
    /// Hosts to look for, in order; none for a name that no host of the mesh can have.
    pub(super) hosts: Vec<Host>,
}

/// Reads a canonical name (lower case, without the last dot) as a workload of `namespace` means it.
pub(super) fn read(name: &str, namespace: &str, cluster_domain: &str) -> Reading {
    let suffix = cluster_domain.trim_matches('.').to_ascii_lowercase();
    let is_below =
        |parent: &str| name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let labels = name.split('.').count();
    let (shape, texts) = if name.is_empty() || is_below("arpa") {
        (Shape::Open, vec![])
    } else if !suffix.is_empty() && is_below(&suffix) {
        (Shape::Own, vec![name.to_owned()])
    } else if labels == 1 {
        (Shape::Short, vec![format!("{name}.{namespace}.svc.{suffix}"), name.to_owned()])
    } else if labels >= 3 && is_below("svc") {
        (Shape::Short, vec![format!("{name}.{suffix}"), name.to_owned()])
    } else if labels == 2 {
        (Shape::Open, vec![format!("{name}.svc.{suffix}"), name.to_owned()])
    } else {
        (Shape::Open, vec![name.to_owned()])
    };
    // A question for a wildcard is for the record of that very name (RFC 4592), which no host has.
    let hosts = texts.iter().filter_map(|text| Host::parse(text).ok()).filter(|host| !host.is_wildcard());
    Reading { shape, hosts: hosts.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hosts(name: &str) -> (Shape, Vec<String>) {
        let reading = read(name, "web", "cluster.local");
        (reading.shape, reading.hosts.iter().map(|host| host.as_str().to_owned()).collect())
    }

    #[test]
    fn every_form_of_a_service_leads_to_its_canonical_host() {
        let canonical = "catalog.backend.svc.cluster.local";
        for (name, shape) in [
            ("catalog.backend", Shape::Open),
            ("catalog.backend.svc", Shape::Short),
            ("catalog.backend.svc.cluster.local", Shape::Own),
        ] {
            let (found, hosts) = hosts(name);
            assert_eq!(found, shape, "{name}");
            assert_eq!(hosts[0], canonical, "{name}");
        }
        assert_eq!(
            hosts("frontend"),
            (Shape::Short, vec!["frontend.web.svc.cluster.local".into(), "frontend".into()])
        );
    }

    #[test]
    fn a_name_of_the_world_is_asked_for_as_it_stands_too() {
        assert_eq!(
            hosts("foo.com"),
            (Shape::Open, vec!["foo.com.svc.cluster.local".into(), "foo.com".into()])
        );
        assert_eq!(hosts("api.example.com"), (Shape::Open, vec!["api.example.com".into()]));
    }

    #[test]
    fn a_domain_that_only_ends_like_ours_is_not_ours() {
        assert_eq!(hosts("a.notcluster.local").0, Shape::Open);
        assert_eq!(hosts("a.cluster.local.evil.com").0, Shape::Open);
        assert_eq!(hosts("cluster.local").0, Shape::Own);
        assert_eq!(hosts("a.b.notsvc").0, Shape::Open);
    }

    #[test]
    fn reverse_names_the_root_and_wildcards_are_nobodys() {
        for name in ["", "1.0.0.10.in-addr.arpa", "*.example.com", "*", "a b.example.com"] {
            assert_eq!(hosts(name).1, Vec::<String>::new(), "{name:?}");
        }
    }

    #[test]
    fn the_suffix_is_taken_as_it_was_meant() {
        let reading = read("catalog.backend.svc.mesh.example", "web", ".Mesh.Example.");
        assert_eq!(reading.shape, Shape::Own);
        let reading = read("catalog.backend", "web", "Mesh.Example");
        assert_eq!(reading.hosts[0].as_str(), "catalog.backend.svc.mesh.example");
    }

    proptest! {
        #[test]
        fn no_name_has_more_than_two_readings(name in "[a-z0-9.*_\\\\-]{0,300}") {
            prop_assert!(read(&name, "web", "cluster.local").hosts.len() <= 2);
        }
    }
}
