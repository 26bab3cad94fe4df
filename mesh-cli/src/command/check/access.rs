//! Whether there is a cluster to ask, and of which version.

use super::catalogue::{KUBERNETES_API, KUBERNETES_VERSION};
use super::report::{Mark, Report};
use crate::cluster::{Cluster, Question};
use crate::output;

/// Minor version of Kubernetes 1 from which on sidecars are native.
const NATIVE_SIDECARS: u32 = 29;
/// Minor version below which the mesh does not run.
const OLDEST: u32 = 25;

/// Asks for the version, which everybody may.
pub(super) async fn look(cluster: &Cluster, report: &mut Report) -> Mark {
    let question = Question { verb: "get", resource: "/version", namespace: None, name: None };
    let version = match cluster.call(question, cluster.client.apiserver_version()).await {
        Ok(version) => version,
        Err(error) => {
            report.bad(KUBERNETES_API, vec![output::chain(&error)]);
            return Mark::Bad;
        }
    };
    report.good(KUBERNETES_API);
    let told = format!("the server is {}", version.git_version);
    match judge(&version.major, &version.minor) {
        Mark::Good => report.good(KUBERNETES_VERSION),
        Mark::Doubtful => report.doubtful(KUBERNETES_VERSION, vec![told]),
        Mark::Bad => report.bad(KUBERNETES_VERSION, vec![told]),
    }
    Mark::Good
}

/// Providers write minor versions such as `29+`.
fn judge(major: &str, minor: &str) -> Mark {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    match (major, digits.parse::<u32>()) {
        ("1", Ok(minor)) if minor >= NATIVE_SIDECARS => Mark::Good,
        ("1", Ok(minor)) if minor < OLDEST => Mark::Bad,
        _ => Mark::Doubtful,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_doubtful_and_very_old_ones_bad() {
        for (minor, mark) in [
            ("34", Mark::Good),
            ("29+", Mark::Good),
            ("28", Mark::Doubtful),
            ("24", Mark::Bad),
            ("", Mark::Doubtful),
        ] {
            assert_eq!(judge("1", minor), mark, "{minor}");
        }
    }
}
