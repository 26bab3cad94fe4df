//! Calls in the background, from a pod of their own, so that neither kubectl nor the API server is on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::{Namespace, eventually};

/// What came of many calls.
#[derive(Debug, Clone, Deserialize)]
pub struct Totals {
    /// How many were made.
    pub calls: u64,
    /// How many had no answer, or none that is a success.
    pub failed: u64,
    /// How often which answer came.
    pub answers: BTreeMap<String, u64>,
}

impl Totals {
    /// Fails when one call did, or when there were too few to mean something.
    ///
    /// # Errors
    /// With all that was answered.
    pub fn expect_none_failed(&self, calls_min: u64) -> Result<()> {
        ensure!(self.failed == 0, "{} of {} calls failed: {:?}", self.failed, self.calls, self.answers);
        ensure!(self.calls >= calls_min, "only {} calls were made, {calls_min} were meant", self.calls);
        Ok(())
    }
}

/// A pod that calls.
#[derive(Debug)]
pub struct Load<'a> {
    namespace: &'a Namespace<'a>,
    pod: String,
    seconds: u64,
}

impl<'a> Load<'a> {
    /// Starts the pod and waits until it calls.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) fn start(
        namespace: &'a Namespace<'a>,
        name: &str,
        seconds: u64,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut all = vec!["call".to_owned(), "--for".to_owned(), seconds.to_string()];
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let pod = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "containers": [{ "name": "app", "image": "docker.io/mini-mesh/shop:0.1.0", "args": all }],
            },
        });
        // One line for each field, so that the image is found as in any manifest.
        namespace.apply(&serde_json::to_string_pretty(&pod)?)?;
        eventually(Duration::from_secs(120), "the load's pod calls", || {
            let pod = namespace.json(&["pod", name])?;
            let state = &pod["status"]["containerStatuses"][0]["state"]["running"];
            ensure!(!state.is_null(), "it is {}", pod["status"]);
            Ok(())
        })?;
        Ok(Self { namespace, pod: name.to_owned(), seconds })
    }

    /// Waits until the time is over, and reads what came of it.
    ///
    /// # Errors
    /// When the pod prints no totals.
    pub fn totals(self) -> Result<Totals> {
        let limit = Duration::from_secs(self.seconds + 60);
        let log = eventually(limit, "the load ends", || {
            let log = self.namespace.log(&format!("pod/{}", self.pod), "app")?;
            ensure!(log.contains("\"calls\""), "it has printed {log:?}");
            Ok(log)
        })?;
        let line = log.lines().rfind(|line| line.contains("\"calls\"")).context("no totals")?;
        serde_json::from_str(line).with_context(|| format!("totals: {line}"))
    }
}
