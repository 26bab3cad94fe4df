//! Proxies: whether they run, are connected, in sync and of one version, and what they say of themselves.

use futures::StreamExt as _;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use mesh_api::admin::{CertificateStatus, ControlStatus, PolicyStatus, ProxyStatus};
use mesh_api::model::MtlsMode;

use super::catalogue::{
    PROXIES_CERTIFICATES, PROXIES_CLOCKS, PROXIES_CONNECTED, PROXIES_RUN, PROXIES_STRICT, PROXIES_SYNCED,
    PROXIES_VERSION,
};
use super::identity::{normal, roots};
use super::report::{Mark, Report};
use crate::admin_client::AskError;
use crate::cluster::pod::PodView;
use crate::command::mesh::{ASKED_AT_ONCE, Mesh};
use crate::command::proxy_status::remarks;
use crate::command::target;
use crate::output;

/// Time for a proxy to get ready.
const GRACE: SignedDuration = SignedDuration::from_secs(15);
/// Clocks that differ by less agree, in milliseconds.
const SKEW_MS_MAX: i64 = 5000;
/// From here on certificates that are just made are not valid yet, in milliseconds.
const SKEW_MS_BAD: i64 = 60_000;

/// What a proxy says of itself.
#[derive(Debug)]
struct Answer {
    id: String,
    certificates: Result<Vec<CertificateStatus>, AskError>,
    policy: Result<PolicyStatus, AskError>,
}

/// Makes the checks, for all proxies or those of one namespace.
pub(super) async fn look(mesh: &Mesh, namespace: Option<&str>, report: &mut Report) {
    if let Mesh::Cluster(cluster) = mesh {
        match cluster.meshed_pods(namespace).await {
            Ok(pods) => {
                let now = Timestamp::now();
                report.judge(PROXIES_RUN, Mark::Bad, pods.iter().filter_map(|pod| idle(pod, now)).collect());
            }
            Err(error) => report.unanswered(PROXIES_RUN, &error),
        }
    }
    let names = match target::with_proxies(mesh, namespace).await {
        Ok(names) => names,
        Err(failure) => {
            report.doubtful(PROXIES_CONNECTED, vec![failure.message().to_owned()]);
            return;
        }
    };
    match mesh.control_status().await {
        Ok(status) => as_seen_by_control(&status, &names, report),
        Err(error) => report.unanswered(PROXIES_CONNECTED, &error),
    }
    as_they_say(mesh, names, report).await;
}

/// Why a pod's proxy does not serve, when it had time to get ready.
fn idle(pod: &PodView, now: Timestamp) -> Option<String> {
    let is_new = pod.created.is_some_and(|created| now.duration_since(created) < GRACE);
    if pod.proxy_is_ready || pod.is_ending || is_new {
        return None;
    }
    let why = match (pod.proxy_trouble.is_empty(), pod.proxy_runs) {
        (false, _) => pod.proxy_trouble.as_str(),
        (true, true) => "it runs, and is not ready",
        (true, false) => "it does not run",
    };
    Some(format!("{}: {why}", pod.id()))
}

fn as_seen_by_control(status: &ControlStatus, names: &[String], report: &mut Report) {
    let find = |name: &String| status.proxies.iter().find(|proxy| proxy.name == *name);
    let away = names.iter().filter(|name| !find(name).is_some_and(|proxy| proxy.connected));
    report.judge(PROXIES_CONNECTED, Mark::Bad, away.map(|name| format!("{name} is not connected")).collect());
    let connected: Vec<&ProxyStatus> =
        status.proxies.iter().filter(|proxy| proxy.connected && names.contains(&proxy.name)).collect();
    let is_refusing = |proxy: &&ProxyStatus| proxy.types.values().any(|sync| sync.state == "ERROR");
    let mark = if connected.iter().any(is_refusing) { Mark::Bad } else { Mark::Doubtful };
    report.judge(PROXIES_SYNCED, mark, connected.iter().flat_map(|proxy| remarks(proxy)).collect());
    let is_other =
        |proxy: &&&ProxyStatus| !status.version.split(", ").any(|version| version == proxy.version);
    let others = connected.iter().filter(is_other);
    let others = others
        .map(|proxy| format!("{} is {}, the control plane is {}", proxy.name, proxy.version, status.version));
    report.judge(PROXIES_VERSION, Mark::Doubtful, others.collect());
    let skews: Vec<(&str, i64)> = connected
        .iter()
        .filter_map(|proxy| Some((proxy.name.as_str(), proxy.clock_skew_ms?)))
        .filter(|(_, skew)| skew.abs() > SKEW_MS_MAX)
        .collect();
    let mark =
        if skews.iter().any(|(_, skew)| skew.abs() > SKEW_MS_BAD) { Mark::Bad } else { Mark::Doubtful };
    let skews = skews.iter().map(|(name, skew)| format!("{name} is off by {skew:+} ms"));
    report.judge(PROXIES_CLOCKS, mark, skews.collect());
}

async fn as_they_say(mesh: &Mesh, names: Vec<String>, report: &mut Report) {
    let ask = |id: String| async move {
        let certificates = mesh.proxy(&id, "/certs").await;
        let policy = match &certificates {
            Ok(_) => mesh.proxy(&id, "/policy").await,
            // One that is away is waited for once.
            Err(_) => Err(AskError::Timeout { place: id.clone(), waited: std::time::Duration::ZERO }),
        };
        Answer { id, certificates, policy }
    };
    let answers: Vec<Answer> = stream::iter(names).map(ask).buffered(ASKED_AT_ONCE).collect().await;
    let anchors: Vec<String> = match mesh.ca().await {
        Ok(ca) => roots(&ca).iter().map(|root| normal(&root.pem)).collect(),
        Err(_) => Vec::new(),
    };
    let mut broken: Vec<String> = Vec::new();
    for answer in &answers {
        match &answer.certificates {
            Ok(found) => {
                broken.extend(certificates(found, &anchors).map(|fault| format!("{}: {fault}", answer.id)))
            }
            Err(error) => broken.push(format!("{}: {}", answer.id, output::chain(error))),
        }
    }
    report.judge(PROXIES_CERTIFICATES, Mark::Bad, broken);
    let open = answers.iter().filter_map(|answer| {
        let policy = answer.policy.as_ref().ok()?;
        lenient(policy).map(|told| format!("{}: {told}", answer.id))
    });
    report.judge(PROXIES_STRICT, Mark::Doubtful, open.collect());
}

/// What is wrong with a proxy's certificates.
fn certificates(found: &[CertificateStatus], anchors: &[String]) -> Option<String> {
    let leaf = found.iter().find(|one| one.chain_index == 0 && !one.spiffe_id.is_empty());
    let Some(leaf) = leaf else { return Some("it has no certificate yet".to_owned()) };
    if !leaf.valid {
        return Some(format!("its certificate is not valid (until {})", leaf.not_after));
    }
    let trusted: Vec<String> =
        found.iter().filter(|one| one.resource_name == "ROOTCA").map(|one| normal(&one.pem)).collect();
    let is_trusted = |anchor: &String| trusted.iter().any(|one| one.contains(anchor.as_str()));
    (!anchors.is_empty() && !anchors.iter().any(is_trusted))
        .then(|| "it does not trust the authority's root".to_owned())
}

/// The modes that are not STRICT, in words.
fn lenient(policy: &PolicyStatus) -> Option<String> {
    let ports: Vec<String> = policy
        .mtls_ports
        .iter()
        .filter(|(_, mode)| **mode != MtlsMode::Strict)
        .map(|(port, mode)| format!("{} at port {port}", mode.as_str()))
        .collect();
    match (policy.mtls, ports.is_empty()) {
        (MtlsMode::Strict, true) => None,
        (MtlsMode::Strict, false) => Some(ports.join(", ")),
        (mode, _) => Some(mode.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_api::admin::SyncStatus;

    use super::*;

    fn proxy(name: &str, state: &str, skew: i64) -> ProxyStatus {
        let sync = SyncStatus { state: state.to_owned(), resources: 1, age_seconds: None, error: None };
        ProxyStatus {
            name: name.to_owned(),
            identity: String::new(),
            version: "1".to_owned(),
            connected: true,
            connected_at: String::new(),
            types: BTreeMap::from([("CDS".to_owned(), sync)]),
            clock_skew_ms: Some(skew),
            address: None,
        }
    }

    fn judged(proxies: Vec<ProxyStatus>, names: &[&str]) -> Vec<Mark> {
        let status = ControlStatus {
            version: "1".to_owned(),
            name: String::new(),
            trust_domain: String::new(),
            revision: 1,
            sources: Vec::new(),
            proxies,
            key_sources: Vec::new(),
            errors: 0,
            warnings: 0,
            objects: BTreeMap::new(),
        };
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut report = Report::default();
        as_seen_by_control(&status, &names, &mut report);
        report.marks()
    }

    #[test]
    fn a_proxy_that_had_time_and_is_not_ready_is_told() {
        let created: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let pod = PodView {
            name: "a".to_owned(),
            namespace: "n".to_owned(),
            created: Some(created),
            ..PodView::default()
        };
        let late = created + SignedDuration::from_secs(60);
        assert_eq!(idle(&pod, late).as_deref(), Some("a.n: it does not run"));
        assert_eq!(idle(&pod, created + SignedDuration::from_secs(5)), None);
        let waiting = PodView { proxy_runs: true, ..pod.clone() };
        assert_eq!(idle(&waiting, late).as_deref(), Some("a.n: it runs, and is not ready"));
        assert_eq!(idle(&PodView { proxy_is_ready: true, ..waiting }, late), None);
        assert_eq!(idle(&PodView { is_ending: true, ..pod }, late), None);
    }

    #[test]
    fn a_proxy_that_the_control_plane_does_not_know_is_not_connected() {
        assert_eq!(judged(vec![proxy("a.n", "SYNCED", 0)], &["a.n"]), [Mark::Good; 4]);
        assert_eq!(judged(vec![proxy("a.n", "SYNCED", 0)], &["a.n", "b.n"])[0], Mark::Bad);
    }

    #[test]
    fn what_is_behind_is_doubtful_and_what_refuses_is_bad() {
        assert_eq!(judged(vec![proxy("a.n", "STALE", 0)], &["a.n"])[1], Mark::Doubtful);
        assert_eq!(judged(vec![proxy("a.n", "ERROR", 0)], &["a.n"])[1], Mark::Bad);
        // Of other namespaces nothing is said.
        assert_eq!(judged(vec![proxy("a.n", "ERROR", 0)], &[])[1], Mark::Good);
    }

    #[test]
    fn clocks_may_differ_by_seconds_and_not_by_minutes() {
        for (skew, mark) in [(-4000, Mark::Good), (6000, Mark::Doubtful), (-61_000, Mark::Bad)] {
            assert_eq!(judged(vec![proxy("a.n", "SYNCED", skew)], &["a.n"])[3], mark, "{skew}");
        }
    }

    #[test]
    fn permissive_is_told_for_workloads_and_for_ports() {
        let policy = |mtls, ports: &[(u16, MtlsMode)]| PolicyStatus {
            version: String::new(),
            mtls,
            mtls_ports: ports.iter().copied().collect(),
            policies: mesh_api::model::WorkloadPolicies::default(),
        };
        assert_eq!(lenient(&policy(MtlsMode::Strict, &[(80, MtlsMode::Strict)])), None);
        assert_eq!(lenient(&policy(MtlsMode::Permissive, &[])).as_deref(), Some("PERMISSIVE"));
        assert_eq!(
            lenient(&policy(MtlsMode::Strict, &[(80, MtlsMode::Permissive)])).as_deref(),
            Some("PERMISSIVE at port 80")
        );
    }
}
