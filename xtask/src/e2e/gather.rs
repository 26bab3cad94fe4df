//! What is worth reading when a scenario has failed: objects, events, logs of the control plane, of proxies and
//! of applications.

use std::fs;
use std::path::Path;

use super::provider::Running;
use crate::output;
use crate::process::capture;

/// Lines of each log that are kept.
const LOG_LINES: &str = "--tail=2000";

/// Gathers; what cannot be had is left out, since something is broken already. Earlier findings are kept.
pub(crate) fn everything(cluster: &Running, results: &Path) {
    let folder = results.join("logs");
    if let Err(error) = fs::create_dir_all(&folder) {
        output::note(&format!("{}: {error}", folder.display()));
        return;
    }
    let ask = |arguments: &[&str]| {
        let said = capture(&mut cluster.kubectl_command(arguments)).ok()?;
        Some(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let keep = |name: &str, text: Option<String>| {
        if let Some(text) = text.filter(|text| !text.is_empty())
            && let Err(error) = fs::write(folder.join(name), text)
        {
            output::note(&format!("{name}: {error}"));
        }
    };
    keep("pods.txt", ask(&["get", "pods", "-A", "-o", "wide"]));
    keep("events.txt", ask(&["get", "events", "-A", "--sort-by=.lastTimestamp"]));
    keep("system.yaml", ask(&["get", "all,configmaps,leases", "-n", "istio-system", "-o", "yaml"]));
    let policies = "peerauthentications,authorizationpolicies,requestauthentications,destinationrules";
    keep("policies.yaml", ask(&["get", policies, "-A", "-o", "yaml"]));
    let names = "-o=jsonpath={range .items[*]}{.metadata.namespace}{\" \"}{.metadata.name}{\"\\n\"}{end}";
    let pods = ask(&["get", "pods", "-A", names]).unwrap_or_default();
    for line in pods.lines() {
        let Some((namespace, name)) = line.split_once(' ') else { continue };
        let logs = ["logs", "-n", namespace, name, "--all-containers", "--prefix", LOG_LINES];
        keep(&format!("{namespace}.{name}.log"), ask(&logs));
        let mut before = logs.to_vec();
        before.push("--previous");
        keep(&format!("{namespace}.{name}.before.log"), ask(&before));
    }
}
