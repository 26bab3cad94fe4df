//! The cluster, by the programs that its users have.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// Namespace of the control plane.
pub const SYSTEM: &str = "istio-system";
/// The image names that manifests state; replaced by those that the cluster has.
const STATED_HUB: &str = "docker.io/mini-mesh/";

/// Programs and places, from the environment.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubectl: PathBuf,
    meshctl: PathBuf,
    /// The launcher of the local cluster, which can stop single components.
    launcher: Option<PathBuf>,
    /// Where the images are.
    pub hub: String,
    /// Their tag.
    pub tag: String,
    /// Where to leave what was measured.
    pub output: PathBuf,
}

impl Cluster {
    /// Reads `MESH_E2E_KUBECTL`, `MESH_E2E_MESHCTL`, `MESH_E2E_LAUNCHER`, `MESH_E2E_HUB`, `MESH_E2E_TAG` and
    /// `MESH_E2E_OUTPUT`; kubectl and meshctl read `KUBECONFIG`.
    ///
    /// # Errors
    /// When one that is needed is missing.
    pub fn of_environment() -> Result<Self> {
        let place = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set; run these tests by `cargo xtask e2e`"))
        };
        Ok(Self {
            kubectl: place("MESH_E2E_KUBECTL")?,
            meshctl: place("MESH_E2E_MESHCTL")?,
            launcher: std::env::var_os("MESH_E2E_LAUNCHER").map(PathBuf::from),
            hub: std::env::var("MESH_E2E_HUB").context("MESH_E2E_HUB")?,
            tag: std::env::var("MESH_E2E_TAG").context("MESH_E2E_TAG")?,
            output: place("MESH_E2E_OUTPUT")?,
        })
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message has what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        succeed("kubectl", arguments, &run(Command::new(&self.kubectl).args(arguments), None)?)
    }

    /// Runs kubectl with text on its standard input.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        succeed("kubectl", arguments, &run(Command::new(&self.kubectl).args(arguments), Some(input))?)
    }

    /// Runs kubectl, which is to fail, and returns what it printed.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn kubectl_refused(&self, arguments: &[&str], input: &str) -> Result<String> {
        refused("kubectl", arguments, &run(Command::new(&self.kubectl).args(arguments), Some(input))?)
    }

    /// Runs kubectl and returns its output whatever its exit status is, standard error last.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn kubectl_says(&self, arguments: &[&str]) -> Result<String> {
        Ok(both(&run(Command::new(&self.kubectl).args(arguments), None)?))
    }

    /// Runs meshctl and returns its standard output.
    ///
    /// # Errors
    /// When it fails; the message has what it printed.
    pub fn meshctl(&self, arguments: &[&str]) -> Result<String> {
        succeed("meshctl", arguments, &run(Command::new(&self.meshctl).args(arguments), None)?)
    }

    /// Runs meshctl, which is to fail, and returns its exit status and what it printed.
    ///
    /// # Errors
    /// When it succeeds.
    pub fn meshctl_refused(&self, arguments: &[&str]) -> Result<String> {
        refused("meshctl", arguments, &run(Command::new(&self.meshctl).args(arguments), None)?)
    }

    /// An object or a list, as JSON.
    ///
    /// # Errors
    /// When kubectl fails or prints something else.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.kubectl(&all)?).context("kubectl get -o json")
    }

    /// A manifest with the images that this cluster has.
    #[must_use]
    pub fn manifest(&self, text: &str) -> String {
        let lines = text.lines().map(|line| match line.split_once(STATED_HUB) {
            Some((before, image)) => {
                let name = image.split(':').next().unwrap_or(image);
                let rest: String = image.chars().skip_while(|c| !"\"' },".contains(*c)).collect();
                format!("{before}{}/{name}:{}{rest}\n", self.hub, self.tag)
            }
            None => format!("{line}\n"),
        });
        lines.collect()
    }

    /// Stops or starts a component of Kubernetes itself, such as `kube-apiserver`.
    ///
    /// # Errors
    /// When the cluster is none that can do so: `cargo xtask e2e` leaves such scenarios out there, and says so.
    pub fn component(&self, action: &str, name: &str) -> Result<()> {
        let launcher = self.launcher.as_ref().context("only the local cluster can stop its components")?;
        let arguments = [action, name];
        succeed("cluster", &arguments, &run(Command::new(launcher).args(arguments), None)?).map(drop)
    }

    /// Kills the processes of a pod in an instant, without a word to them; its containers start again in place.
    /// Where processes cannot be reached the pod is deleted without any grace instead.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn kill(&self, namespace: &str, pod: &str) -> Result<()> {
        let Some(launcher) = &self.launcher else {
            return self
                .kubectl(&["delete", "pod", "-n", namespace, pod, "--grace-period=0", "--force"])
                .map(drop);
        };
        let found = self.json(&["pod", "-n", namespace, pod])?;
        let statuses = found["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        for status in statuses {
            let id =
                status["containerID"].as_str().and_then(|id| id.rsplit('/').next()).context("a container")?;
            // The container's cgroup is named by its id.
            let script =
                "for p in $(grep -l \"$0\" /proc/[0-9]*/cgroup | cut -d/ -f3); do kill -KILL $p; done";
            let arguments = ["node", "sh", "-c", script, id];
            succeed("cluster", &arguments, &run(Command::new(launcher).args(arguments), None)?)?;
        }
        Ok(())
    }

    /// Names of the control plane's pods that are there and not ending, of any revision.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn control_pods(&self) -> Result<Vec<String>> {
        let pods = self.json(&["pods", "-n", SYSTEM, "-l", "mini-mesh.io/component=control"])?;
        let items = pods["items"].as_array().cloned().unwrap_or_default();
        let there = items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(there.filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }
}

fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    let program = command.get_program().to_owned();
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // One that does not read to the end says so by its exit status.
        let _closed = stdin.write_all(text.as_bytes());
    }
    child.wait_with_output().with_context(|| format!("cannot wait for {}", program.display()))
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn succeed(program: &str, arguments: &[&str], output: &Output) -> Result<String> {
    ensure!(
        output.status.success(),
        "{program} {}: {}: {}",
        arguments.join(" "),
        output.status,
        both(output).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn refused(program: &str, arguments: &[&str], output: &Output) -> Result<String> {
    if output.status.success() {
        bail!("{program} {} should have failed and said: {}", arguments.join(" "), both(output).trim());
    }
    Ok(both(output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_a_manifest_become_those_of_the_cluster() {
        let cluster = Cluster {
            kubectl: PathBuf::new(),
            meshctl: PathBuf::new(),
            launcher: None,
            hub: "localhost:5000/x".to_owned(),
            tag: "7".to_owned(),
            output: PathBuf::new(),
        };
        let stated =
            "a: docker.io/mini-mesh/shop:0.1.0\n- {image: \"docker.io/mini-mesh/shop:0.1.0\", x: y}\nz\n";
        let wanted = "a: localhost:5000/x/shop:7\n- {image: \"localhost:5000/x/shop:7\", x: y}\nz\n";
        assert_eq!(cluster.manifest(stated), wanted);
    }
}
