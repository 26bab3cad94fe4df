//! A namespace of a scenario, and what is done in it.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{Answer, Cluster, Load};

/// Longest time until workloads are ready, on a machine that is busy with other scenarios.
const READY_LIMIT: &str = "--timeout=120s";

/// A namespace. It outlives a scenario that failed.
#[derive(Debug)]
pub struct Namespace<'a> {
    /// The cluster that it is in.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

/// Whether pods of a namespace get proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injection {
    /// By the label `istio-injection=enabled`.
    Enabled,
    /// No label.
    Absent,
}

impl<'a> Namespace<'a> {
    /// Makes a namespace; one of this name that an earlier run left is deleted before.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn new(cluster: &'a Cluster, name: &str, injection: Injection) -> Result<Self> {
        let name = format!("e2e-{name}");
        cluster.kubectl(&["delete", "namespace", &name, "--ignore-not-found", "--timeout=120s"])?;
        cluster.kubectl(&["create", "namespace", &name])?;
        let this = Self { cluster, name };
        match injection {
            Injection::Enabled => this.label("istio-injection=enabled")?,
            Injection::Absent => {}
        }
        Ok(this)
    }

    /// Sets a label of the namespace; `key-` removes it.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn label(&self, label: &str) -> Result<()> {
        self.cluster.kubectl(&["label", "--overwrite", "namespace", &self.name, label]).map(drop)
    }

    /// Deletes the namespace, at the end of a scenario that has succeeded.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn done(self) -> Result<()> {
        self.cluster.kubectl(&["delete", "namespace", &self.name, "--wait=false"]).map(drop)
    }

    /// Runs kubectl in the namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.kubectl(&self.here(arguments))
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.cluster.kubectl_with(&self.here(&["apply", "-f", "-"]), &self.cluster.manifest(manifest))
    }

    /// Applies a manifest that is to be refused, and returns what kubectl printed.
    ///
    /// # Errors
    /// When it is taken.
    pub fn apply_refused(&self, manifest: &str) -> Result<String> {
        self.cluster.kubectl_refused(&self.here(&["apply", "-f", "-"]), &self.cluster.manifest(manifest))
    }

    /// An object or a list of the namespace, as JSON.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        self.cluster.json(&self.here(arguments))
    }

    /// Waits until a workload such as `deployment/catalog` is rolled out.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn rolled_out(&self, workload: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", workload, READY_LIMIT]).map(drop)
    }

    /// Waits for a condition of an object, such as `condition=Complete` of `job/batch`.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait(&self, condition: &str, object: &str) -> Result<()> {
        self.kubectl(&["wait", &format!("--for={condition}"), object, READY_LIMIT]).map(drop)
    }

    /// Calls from a pod of a workload, as its application would.
    ///
    /// # Errors
    /// When the call cannot be made at all; whatever comes back is an answer.
    pub fn call(&self, from: &str, method: &str, target: &str) -> Result<Answer> {
        self.call_with(from, &[method, target])
    }

    /// As [`Self::call`], with further arguments of `shop call`.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub fn call_with(&self, from: &str, arguments: &[&str]) -> Result<Answer> {
        let mut all = self.here(&["exec", from, "-c", "app", "--", "/shop", "call"]);
        all.extend(arguments);
        let said = self.cluster.kubectl_says(&all)?;
        // kubectl adds a line of its own when the program's exit status is not 0.
        let own: Vec<&str> =
            said.lines().filter(|line| !line.starts_with("command terminated with exit code")).collect();
        Ok(Answer::of_output(&own.join("\n")))
    }

    /// Starts calls from a pod of their own until they are told to end.
    ///
    /// # Errors
    /// When the pod does not start.
    pub fn load(&self, name: &str, seconds: u64, arguments: &[&str]) -> Result<Load<'_>> {
        Load::start(self, name, seconds, arguments)
    }

    /// Names of the pods with a label, such as `app=catalog`.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn pods(&self, label: &str) -> Result<Vec<String>> {
        let pods = self.json(&["pods", "-l", label])?;
        let items = pods["items"].as_array().context("a list has items")?;
        Ok(items.iter().filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// Log of a container.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn log(&self, object: &str, container: &str) -> Result<String> {
        self.kubectl(&["logs", object, "-c", container])
    }

    /// Whether a pod has a proxy.
    ///
    /// # Errors
    /// When there is no such pod.
    pub fn is_meshed(&self, pod: &str) -> Result<bool> {
        let pod = self.json(&["pod", pod])?;
        let containers = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().cloned());
        let mut all = containers.into_iter().flatten().flatten();
        Ok(all.any(|container| container["name"] == "mesh-proxy"))
    }

    fn here<'s>(&'s self, arguments: &[&'s str]) -> Vec<&'s str> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        all
    }
}

/// How long a change may take to be in force everywhere.
pub const IN_FORCE: Duration = Duration::from_secs(30);

/// A server with two replicas, a caller, and a caller that is not of the mesh.
pub const PAIR: &str = include_str!("../manifests/pair.yaml");

/// Mutual TLS only, in the namespace in which it is applied.
pub const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
";
