//! `meshctl x check-inject`: whether a pod is given a proxy, by which webhook, and why or why not.
//!
//! In a cluster it asks what the API server asks: the selectors of each webhook, then the control plane's
//! decision with the settings of that webhook's revision. A pod that has a proxy is looked at as it was before.
//! With files nothing is asked, and there is one line for each pod in them.

mod cluster;
mod selector;

use std::path::PathBuf;
use std::process::ExitCode;

use mesh_kube::inject::{Decision, InjectError, InjectSettings, NamespaceMeta, Platform, inject, uninject};
use mesh_kube::name;
use serde::Serialize;
use serde_json::{Value, json};

use super::inject::document::{self, Document};
use super::inject::namespaces::Namespaces;
use super::inject::source::{SettingsArgs, Source};
use super::objects::input;
use super::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::args::GlobalArgs;
use crate::output::{self, Format};

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct CheckInjectArgs {
    /// POD[.NAMESPACE], or KIND/NAME[.NAMESPACE] with deploy, sts, ds, rs, job, cronjob or pod.
    #[arg(value_name = "POD", required_unless_present_any = ["labels", "filename"])]
    pod: Option<String>,
    /// Labels of a pod that is not there, in the namespace of -n.
    #[arg(short, long, value_name = "KEY=VALUE", value_delimiter = ',', conflicts_with = "pod")]
    labels: Vec<String>,
    /// File, folder, or - for standard input: the pods in it.
    #[arg(
        short,
        long = "filename",
        visible_alias = "file",
        value_name = "FILE",
        conflicts_with_all = ["pod", "labels"]
    )]
    filename: Vec<PathBuf>,
    /// Labels of namespaces that are not among the files.
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',', requires = "filename")]
    namespace_labels: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
    /// Form of the result.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// The pod, when there may be several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pod: String,
    /// The webhook's configuration; of files, none.
    webhook: String,
    /// Its revision.
    revision: String,
    /// Whether it gives the pod a proxy.
    injected: bool,
    /// A word for the reason.
    code: String,
    /// The reason.
    reason: String,
    /// What injection warns of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Runs the command. Exit status 1 when the pod is given no proxy.
///
/// # Errors
/// When the pod is not found, or what is needed cannot be read.
pub(crate) fn run(global: &GlobalArgs, args: &CheckInjectArgs) -> Outcome {
    if !args.filename.is_empty() {
        return show(&of_files(global, args)?, None, args.output);
    }
    let answer = block_on(cluster::ask(global, args.pod.as_deref(), &pairs(&args.labels)?))?;
    show(&answer.rows, Some(&answer.found), args.output)
}

/// Labels as they are typed.
fn pairs(labels: &[String]) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new(format!("{text:?} is not KEY=VALUE")).status(EXIT_USAGE))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    labels.iter().map(pair).collect()
}

fn of_files(global: &GlobalArgs, args: &CheckInjectArgs) -> Result<Vec<Row>, Failure> {
    let mut documents: Vec<Document> = Vec::new();
    for input in input::read(&args.filename)? {
        documents.extend(document::read(&input)?);
    }
    let labels = pairs(&args.namespace_labels)?;
    let default = global.namespace.as_deref();
    let names = document::namespaces(&documents, default);
    let mut namespaces = Namespaces::of(&documents);
    let source = block_on(async {
        let source = Source::find(global, &args.settings).await?;
        if let Some(cluster) = &source.cluster {
            namespaces.ask(cluster, &names).await?;
        }
        Ok(source)
    })?;
    for name in names.iter().filter(|_| !labels.is_empty()) {
        let labels = labels.iter().cloned().collect();
        namespaces.add(NamespaceMeta { name: name.clone(), labels, ..NamespaceMeta::default() });
    }
    let mut rows = Vec::new();
    for object in documents.iter().filter_map(|document| document.object.as_ref()) {
        for template in mesh_kube::inject::templates(object) {
            let Some(pod) = object.pointer(&template.pointer) else { continue };
            let namespace = document::namespace_of(&template, default);
            let meta = namespaces.named(namespace);
            let mut row = judged("", &source.settings, source.platform, pod, &meta);
            row.pod = format!("{} of {namespace}", document::told(&template));
            if row.code == "NotAsked" && !namespaces.is_known(namespace) {
                row.reason
                    .push_str("; nothing is known of its namespace (--namespace-labels, or --from-cluster)");
            }
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Err(Failure::new("there are no pods in these files").status(super::EXIT_DATA));
    }
    Ok(rows)
}

/// What injection with some settings makes of a pod.
fn judged(
    webhook: &str,
    settings: &InjectSettings,
    platform: Platform,
    pod: &Value,
    namespace: &NamespaceMeta,
) -> Row {
    let before = uninject(pod);
    let result = inject(before.as_ref().unwrap_or(pod), namespace, settings, platform);
    let (injected, code, reason, warnings) = match result {
        Ok(injection) => {
            let reason = injection.decision.reason();
            let injected = matches!(injection.decision, Decision::Inject { .. });
            (injected, reason.code().to_owned(), reason.to_string(), injection.warnings)
        }
        Err(error) => {
            let code = match &error {
                InjectError::Refused(reason) => reason.code(),
                _ => "Refused",
            };
            (false, code.to_owned(), format!("refused: {error}"), Vec::new())
        }
    };
    Row {
        pod: String::new(),
        webhook: webhook.to_owned(),
        revision: settings.revision.clone(),
        injected,
        code,
        reason,
        warnings,
    }
}

/// What a pod has now, whatever a webhook would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    /// Whether there is a pod that can have a proxy.
    exists: bool,
    /// Whether it has one.
    has_proxy: bool,
    /// Revision that gave it.
    #[serde(skip_serializing_if = "String::is_empty")]
    revision: String,
    /// Image of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
}

impl Found {
    fn in_pod(pod: &Value) -> Self {
        let lists = ["initContainers", "containers"].map(|field| pod.pointer(&format!("/spec/{field}")));
        let containers = lists.into_iter().flatten().filter_map(Value::as_array).flatten();
        let is_proxy = |container: &&Value| container["name"].as_str() == Some(name::PROXY_CONTAINER);
        let proxy = containers.into_iter().find(is_proxy);
        let status = pod.pointer("/metadata/annotations").and_then(|map| map.get(name::ANNOTATION_STATUS));
        let status: Value = status
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        Self {
            exists: true,
            has_proxy: proxy.is_some(),
            revision: status["revision"].as_str().unwrap_or_default().to_owned(),
            image: proxy.and_then(|proxy| proxy["image"].as_str()).unwrap_or_default().to_owned(),
        }
    }

    fn told(&self, rows: &[Row]) -> String {
        let would = rows.iter().any(|row| row.injected);
        match (self.exists, self.has_proxy, would) {
            (false, _, true) => "A pod like this would be given a proxy.".to_owned(),
            (false, _, false) => "A pod like this would be given no proxy.".to_owned(),
            (true, true, true) => {
                format!("The pod has a proxy of revision {:?} ({}).", self.revision, self.image)
            }
            (true, true, false) => format!(
                "The pod has a proxy of revision {:?} ({}), and would be given none if it were created now.",
                self.revision, self.image
            ),
            (true, false, true) => {
                "The pod has no proxy: it was created before this applied. Restart its workload (kubectl rollout restart)."
                    .to_owned()
            }
            (true, false, false) => "The pod has no proxy.".to_owned(),
        }
    }
}

fn show(rows: &[Row], found: Option<&Found>, format: Format) -> Outcome {
    let is_injected = rows.iter().any(|row| row.injected);
    match (format, found) {
        (Format::Table, _) => {
            let mark = |row: &Row| if row.injected { output::good("✔") } else { output::bad("✘") };
            let has_pods = rows.iter().any(|row| !row.pod.is_empty());
            let cells = |row: &Row| {
                let first = if has_pods { &row.pod } else { &row.webhook };
                vec![first.clone(), row.revision.clone(), mark(row), row.reason.clone()]
            };
            let rows_of_cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
            let first = if has_pods { "POD" } else { "WEBHOOK" };
            output::table(&[first, "REVISION", "INJECTED", "REASON"], &rows_of_cells);
            for row in rows {
                for warning in &row.warnings {
                    output::note(&format!("{} {warning}", output::doubtful("warning:")));
                }
            }
            if let Some(found) = found {
                output::line(&format!("\n{}", found.told(rows)));
            }
        }
        (Format::Json | Format::Yaml, Some(found)) => {
            output::value(&json!({"webhooks": rows, "pod": found}), format);
        }
        (Format::Json | Format::Yaml, None) => output::value(&json!({"pods": rows}), format),
    }
    Ok(if is_injected { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injected_pod_is_looked_at_as_it_was_before() {
        let namespace = NamespaceMeta {
            name: "shop".to_owned(),
            labels: [("istio-injection".to_owned(), "enabled".to_owned())].into(),
            annotations: Default::default(),
        };
        let pod =
            json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "app", "image": "a"}]}});
        let (settings, platform) = (InjectSettings::default(), Platform { native_sidecars: true });
        let injected = inject(&pod, &namespace, &settings, platform).expect("a pod").pod;
        assert!(judged("w", &settings, platform, &injected, &namespace).injected);
        let found = Found::in_pod(&injected);
        assert!(found.has_proxy && found.revision == "default" && found.image.contains("mesh-proxy"));
        assert!(!Found::in_pod(&pod).has_proxy);
    }
}
