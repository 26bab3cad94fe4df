//! The authority and its roots.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1::ConfigMap;
use mesh_api::admin::{CaStatus, CertificateStatus};
use mesh_kube::name;

use super::catalogue::{TRUST_BUNDLES, TRUST_ISSUERS, TRUST_ROOTS};
use super::report::{Mark, Report};
use crate::cluster::Cluster;
use crate::command::mesh::{ASKED_AT_ONCE, Mesh};
use crate::output;

/// A root that ends sooner is told: linkerd warns of sixty days too.
const ROOT_WARNING_SECONDS: i64 = 60 * 86_400;

/// Makes the checks.
pub(super) async fn look(mesh: &Mesh, cluster: Option<&Cluster>, report: &mut Report) {
    let ca = match mesh.ca().await {
        Ok(ca) => ca,
        Err(error) => return report.unanswered(TRUST_ROOTS, &error),
    };
    anchors(&ca, report);
    if let Some(cluster) = cluster {
        bundles(cluster, &ca, report).await;
    }
}

/// The roots among the authorities: an authority that issued itself.
pub(super) fn roots(ca: &CaStatus) -> Vec<&CertificateStatus> {
    let named: Vec<&CertificateStatus> =
        ca.authorities.iter().filter(|one| one.resource_name.to_lowercase().contains("root")).collect();
    match named.is_empty() {
        // Root first, then intermediates, is the order of the answer.
        true => ca.authorities.first().into_iter().collect(),
        false => named,
    }
}

fn anchors(ca: &CaStatus, report: &mut Report) {
    let roots = roots(ca);
    let ended: Vec<String> = roots.iter().filter(|root| !root.valid).map(|root| span(root)).collect();
    if ended.is_empty() {
        let soon = roots.iter().filter(|root| root.ttl_seconds < ROOT_WARNING_SECONDS);
        report.judge(TRUST_ROOTS, Mark::Doubtful, soon.map(|root| span(root)).collect());
    } else {
        report.bad(TRUST_ROOTS, ended);
    }
    let issuers = || ca.authorities.iter().filter(|one| !roots.iter().any(|root| root.pem == one.pem));
    // Only one that is in use has to outlive what it signs: an old one is kept until nothing of it is left.
    let is_one_well = issuers().any(|one| one.valid && outlives(one, ca.workload_ttl_seconds));
    let ending: Vec<String> = issuers().map(span).collect();
    match is_one_well || ending.is_empty() {
        true => report.good(TRUST_ISSUERS),
        false => report.bad(TRUST_ISSUERS, ending),
    }
}

fn outlives(certificate: &CertificateStatus, seconds: u64) -> bool {
    certificate.ttl_seconds > i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn span(certificate: &CertificateStatus) -> String {
    let left = match u64::try_from(certificate.ttl_seconds) {
        Ok(seconds) => format!("{} left", output::duration(seconds)),
        Err(_) => "it has ended".to_owned(),
    };
    format!(
        "{} ({}): {left}, until {}",
        certificate.resource_name, certificate.subject, certificate.not_after
    )
}

async fn bundles(cluster: &Cluster, ca: &CaStatus, report: &mut Report) {
    let namespaces: BTreeSet<String> = match cluster.meshed_pods(None).await {
        Ok(pods) => pods.into_iter().map(|pod| pod.namespace).collect(),
        Err(error) => return report.unanswered(TRUST_BUNDLES, &error),
    };
    let wanted: Vec<String> = roots(ca).iter().map(|root| normal(&root.pem)).collect();
    let wanted = &wanted;
    let look = |namespace: String| async move {
        match cluster.get::<ConfigMap>(&namespace, name::ROOT_CERT).await {
            Ok(Some(map)) => {
                let text =
                    map.data.and_then(|data| data.get(name::ROOT_CERT_KEY).cloned()).unwrap_or_default();
                let text = normal(&text);
                let is_there = wanted.iter().all(|root| text.contains(root.as_str()));
                (!is_there).then(|| format!("namespace {namespace}: {} has other roots", name::ROOT_CERT))
            }
            Ok(None) => Some(format!("namespace {namespace}: there is no ConfigMap {}", name::ROOT_CERT)),
            Err(error) => Some(format!("namespace {namespace}: {}", output::chain(&error))),
        }
    };
    let found: Vec<Option<String>> =
        stream::iter(namespaces).map(look).buffered(ASKED_AT_ONCE).collect().await;
    report.judge(TRUST_BUNDLES, Mark::Bad, found.into_iter().flatten().collect());
}

/// PEM without its line ends, which writers set differently.
pub(super) fn normal(pem: &str) -> String {
    pem.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::Mark;
    use super::*;

    fn authority(name: &str, seconds: i64) -> CertificateStatus {
        CertificateStatus {
            resource_name: name.to_owned(),
            kind: "CA".to_owned(),
            status: "ACTIVE".to_owned(),
            valid: seconds > 0,
            chain_index: 0,
            spiffe_id: String::new(),
            trust_domain: String::new(),
            subject: name.to_owned(),
            serial_number: String::new(),
            not_before: String::new(),
            not_after: String::new(),
            ttl_seconds: seconds,
            next_rotation: None,
            pem: name.to_owned(),
        }
    }

    fn judged(root: i64, issuers: &[i64]) -> Vec<Mark> {
        let mut authorities = vec![authority("root", root)];
        authorities
            .extend(issuers.iter().map(|seconds| authority(&format!("intermediate {seconds}"), *seconds)));
        let ca = CaStatus { authorities, issued: 0, refused: 0, workload_ttl_seconds: 3600 };
        let mut report = Report::default();
        anchors(&ca, &mut report);
        report.marks()
    }

    #[test]
    fn a_root_that_ends_soon_is_told_and_one_that_ended_is_bad() {
        assert_eq!(judged(100 * 86_400, &[86_400]), [Mark::Good, Mark::Good]);
        assert_eq!(judged(59 * 86_400, &[86_400]), [Mark::Doubtful, Mark::Good]);
        assert_eq!(judged(-1, &[86_400]), [Mark::Bad, Mark::Good]);
    }

    #[test]
    fn an_issuer_has_to_outlive_what_it_signs() {
        assert_eq!(judged(100 * 86_400, &[1800])[1], Mark::Bad);
        assert_eq!(judged(100 * 86_400, &[-5, 86_400])[1], Mark::Good);
    }
}
