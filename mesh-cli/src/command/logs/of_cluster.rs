//! Logs of a cluster's pods: applications, proxies, access logs and the control plane, read through the API server
//! and put together line by line.
//!
//! A proxy writes its access log and its own log to one stream. They are told apart by their form: an access
//! log line has a response code or the flags of a connection, in JSON or in Envoy's text format, and a line of
//! the proxy's own log begins with its time and level.

use std::process::ExitCode;

use futures::io::AsyncBufReadExt as _;
use futures::stream::{self, SelectAll};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use mesh_kube::name;
use owo_colors::OwoColorize as _;
use serde::Serialize;

use super::{COLOURS, LogForm, LogsArgs};
use crate::args::GlobalArgs;
use crate::cluster::pod::PodView;
use crate::cluster::{Cluster, ClusterError, Question};
use crate::command::mesh::ASKED_AT_ONCE;
use crate::command::{EXIT_USAGE, Failure, Outcome, block_on};
use crate::output;

/// Most logs that are read at once.
const STREAMS_MAX: usize = 100;
/// Lines of each that are shown when several are read and nothing was said.
const TAIL_OF_MANY: i64 = 10;
/// Most that is read of one log as a whole, in bytes: more than a kubelet keeps by default (10 MiB a file).
const LOG_BYTES_MAX: i64 = 64 << 20;
/// Field of every access log line in JSON.
const ACCESS_FIELD: &str = "\"response_flags\"";

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    All,
    Access,
    Own,
}

/// A container whose log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    pod: String,
    namespace: String,
    container: String,
}

/// A line, and when it was written if that was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Stamped {
    time: Option<String>,
    text: String,
}

impl Stamped {
    /// A line as the kubelet gives it: behind its time when times were asked for.
    fn of(line: String, has_time: bool) -> Self {
        match line.split_once(' ').filter(|_| has_time) {
            Some((time, text)) => Self { time: Some(time.to_owned()), text: text.to_owned() },
            None if has_time => Self { time: Some(line), text: String::new() },
            None => Self { time: None, text: line },
        }
    }

    /// In the form that is wanted.
    fn printed(self, source: &Source, prefix: &str, form: LogForm) -> String {
        match (form, &self.time) {
            (LogForm::Text, None) => format!("{prefix}{}", self.text),
            (LogForm::Text, Some(time)) => format!("{prefix}{time} {}", self.text),
            (LogForm::Json, time) => {
                let Source { pod, namespace, container } = source;
                let line = Line { namespace, pod, container, time: time.as_deref(), text: &self.text };
                serde_json::to_string(&line).unwrap_or_default()
            }
        }
    }
}

/// A line for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    text: &'a str,
}

/// A time such as `90s`, `10m`, `2h`, or seconds alone, in seconds.
///
/// # Errors
/// When it is none, or not more than nothing.
pub(crate) fn seconds(text: &str) -> Result<i64, String> {
    let wrong = || "write a time such as 90s, 10m or 2h".to_owned();
    let (number, unit) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

/// Prints the logs.
///
/// # Errors
/// When there is no such pod, or its log cannot be read.
pub(super) fn run(global: &GlobalArgs, args: &LogsArgs, cluster: &Cluster) -> Outcome {
    if args.supervisor {
        return Err(Failure::new("a cluster has no supervisor: Kubernetes starts and restarts everything")
            .hint("`kubectl get events -A` tells what it did.")
            .status(EXIT_USAGE));
    }
    let sources = block_on(sources(global, args, cluster))?;
    if sources.len() > STREAMS_MAX {
        return Err(Failure::new(format!("{} logs are too many to read at once", sources.len()))
            .hint("Name workloads, or a namespace with -n.")
            .status(EXIT_USAGE));
    }
    let lines = match (args.access, args.proxy) {
        (true, _) => Lines::Access,
        (false, true) => Lines::Own,
        (false, false) => Lines::All,
    };
    block_on(print(args, cluster, &sources, lines))?;
    Ok(ExitCode::SUCCESS)
}

/// The access logs of all proxies, or of those of one namespace, as far as the kubelets keep them: the pod of each
/// and its lines in JSON.
///
/// # Errors
/// When no log can be read.
pub(crate) async fn access_logs(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<(String, String)>, Failure> {
    let pods = cluster.meshed_pods(namespace).await?;
    let read = |pod: PodView| async move {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace);
        let params = LogParams {
            container: Some(name::PROXY_CONTAINER.to_owned()),
            limit_bytes: Some(LOG_BYTES_MAX),
            ..LogParams::default()
        };
        let question = Question {
            verb: "get",
            resource: "pods/log",
            namespace: Some(&pod.namespace),
            name: Some(&pod.name),
        };
        let text = cluster.call(question, api.logs(&pod.name, &params)).await?;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{') && is_access(line)).collect();
        Ok::<_, ClusterError>((pod.id(), lines.join("\n")))
    };
    let answers: Vec<_> = stream::iter(pods).map(read).buffered(ASKED_AT_ONCE).collect().await;
    let mut logs = Vec::new();
    for answer in answers {
        match answer {
            Ok(log) => logs.push(log),
            Err(error) => output::note(&format!("a log is missing: {}", output::chain(&error))),
        }
    }
    Ok(logs)
}

async fn sources(global: &GlobalArgs, args: &LogsArgs, cluster: &Cluster) -> Result<Vec<Source>, Failure> {
    if args.control {
        let replicas = cluster.replicas().await?;
        return Ok(replicas.iter().flat_map(|pod| of_containers(pod, &pod.containers)).collect());
    }
    let namespace = global.namespace.as_deref();
    let mut pods = Vec::new();
    for text in &args.workloads {
        // All pods of a Deployment, not one: what happened is in any of their logs.
        pods.extend(cluster.resolve(text, namespace).await?.pods);
    }
    if args.workloads.is_empty() {
        pods = cluster.meshed_pods(namespace).await?;
    }
    pods.retain(|pod| pod.phase != "Pending" || pod.has_proxy);
    let proxy = [name::PROXY_CONTAINER.to_owned()];
    let mut found: Vec<Source> = Vec::new();
    for pod in &pods {
        match args.proxy || args.access {
            true if pod.has_proxy => found.extend(of_containers(pod, &proxy)),
            true => output::note(&format!("{} has no proxy", pod.id())),
            false => found.extend(of_containers(pod, &pod.containers)),
        }
    }
    if found.is_empty() {
        let place = namespace.map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default();
        return Err(Failure::new(format!("there is no log to read{place}"))
            .hint("`meshctl proxy-status` lists the proxies; --control prints the control plane's log."));
    }
    Ok(found)
}

fn of_containers<'p>(pod: &'p PodView, containers: &'p [String]) -> impl Iterator<Item = Source> + 'p {
    containers.iter().map(|container| Source {
        pod: pod.name.clone(),
        namespace: pod.namespace.clone(),
        container: container.clone(),
    })
}

async fn print(args: &LogsArgs, cluster: &Cluster, sources: &[Source], lines: Lines) -> Result<(), Failure> {
    let is_one = sources.len() == 1;
    let tail = match (args.tail, args.since, is_one) {
        (Some(tail), _, _) => Some(i64::try_from(tail).unwrap_or(i64::MAX)),
        (None, None, false) => Some(TAIL_OF_MANY),
        (None, Some(_), _) | (None, None, true) => None,
    };
    // Lines of one stream are chosen from afterwards: its last ten hold perhaps none that is wanted.
    let asked = if lines == Lines::All { tail } else { None };
    let names = labels(sources);
    let has_times = args.timestamps;
    let opened = stream::iter(sources).map(|source| open(args, cluster, source, asked));
    let opened: Vec<_> = opened.buffered(ASKED_AT_ONCE).collect().await;
    let mut readers = SelectAll::new();
    let mut failures = Vec::new();
    for ((source, answer), (label, colour)) in
        sources.iter().zip(opened).zip(names.into_iter().zip(COLOURS.iter().cycle()))
    {
        let reader = match answer {
            Ok(reader) => reader,
            Err(error) => {
                failures.push(format!("{}.{}: {}", source.pod, source.namespace, output::chain(&error)));
                continue;
            }
        };
        let prefix = if is_one { String::new() } else { format!("{} ", label.color(*colour)) };
        let split = move |line: String| Stamped::of(line, has_times);
        let wanted = reader.lines().map_ok(split).try_filter(move |line| {
            let is_wanted = is_wanted(&line.text, lines);
            std::future::ready(is_wanted)
        });
        let form = args.output;
        let prefixed = wanted.map_ok(move |line| line.printed(source, &prefix, form));
        // The last so many of those wanted, which can be known only of a log that has an end.
        match tail.filter(|_| lines != Lines::All && !args.follow) {
            Some(tail) => {
                let all: Vec<_> = prefixed.collect().await;
                let from = all.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX));
                readers.push(stream::iter(all.into_iter().skip(from)).boxed());
            }
            None => readers.push(prefixed.boxed()),
        }
    }
    while let Some(line) = readers.next().await {
        match line {
            Ok(line) => output::line(&line),
            Err(error) => output::note(&format!("a log broke off: {error}")),
        }
    }
    match failures.len() {
        0 => Ok(()),
        number if number < sources.len() => {
            failures.iter().for_each(|failure| output::note(failure));
            Ok(())
        }
        _ => Err(Failure::new(failures.join("; "))),
    }
}

async fn open(
    args: &LogsArgs,
    cluster: &Cluster,
    source: &Source,
    tail: Option<i64>,
) -> Result<impl futures::io::AsyncBufRead + Unpin + use<>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &source.namespace);
    let params = LogParams {
        container: Some(source.container.clone()),
        follow: args.follow,
        since_seconds: args.since,
        tail_lines: tail,
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let question = Question {
        verb: "get",
        resource: "pods/log",
        namespace: Some(&source.namespace),
        name: Some(&source.pod),
    };
    let reader = cluster.call(question, api.log_stream(&source.pod, &params)).await?;
    Ok(Box::pin(reader))
}

/// What stands in front of the lines of each, all of one width. The container is told where a pod has several.
fn labels(sources: &[Source]) -> Vec<String> {
    let label = |source: &Source| {
        let same_pod = |other: &&Source| (&other.pod, &other.namespace) == (&source.pod, &source.namespace);
        match sources.iter().filter(same_pod).count() {
            1 => format!("{}.{}", source.pod, source.namespace),
            _ => format!("{}.{}/{}", source.pod, source.namespace, source.container),
        }
    };
    let labels: Vec<String> = sources.iter().map(label).collect();
    let width = labels.iter().map(String::len).max().unwrap_or(0);
    labels.into_iter().map(|label| format!("{label:width$} |")).collect()
}

fn is_wanted(line: &str, lines: Lines) -> bool {
    match lines {
        Lines::All => true,
        Lines::Access => is_access(line),
        Lines::Own => !is_access(line),
    }
}

/// Whether a proxy's line is of its access log.
fn is_access(line: &str) -> bool {
    let line = line.trim_start();
    match line.as_bytes().first() {
        Some(b'{') => line.contains(ACCESS_FIELD),
        // Envoy's text format begins with the time in brackets, and then the request in quotes.
        Some(b'[') => line.split_once("] ").is_some_and(|(_, rest)| rest.starts_with('"')),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit_or_are_seconds() {
        assert_eq!(
            [seconds("90"), seconds("90s"), seconds("2m"), seconds("1h")],
            [Ok(90), Ok(90), Ok(120), Ok(3600)]
        );
        for text in ["", "s", "-1s", "0", "1w", "x", "9223372036854775807d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn access_logs_are_told_from_the_proxys_own_log() {
        for line in [
            r#"{"start_time":"2026-01-01T00:00:00Z","response_flags":"-","response_code":200}"#,
            r#"[2026-01-01T00:00:00.000Z] "GET / HTTP/1.1" 200 - via_upstream"#,
        ] {
            assert!(is_access(line), "{line}");
        }
        for line in [
            "2026-01-01T00:00:00Z  INFO mesh_proxy: ready",
            r#"{"level":"INFO","message":"ready"}"#,
            "[x] y",
            "",
        ] {
            assert!(!is_access(line), "{line}");
        }
    }

    #[test]
    fn a_line_for_programs_says_where_and_when_it_was_written() {
        let source = Source { pod: "a".to_owned(), namespace: "n".to_owned(), container: "c".to_owned() };
        let printed = |line: &str, has_time, form| {
            Stamped::of(line.to_owned(), has_time).printed(&source, "a.n | ", form)
        };
        assert_eq!(
            printed("2026-01-01T00:00:00Z x \"y\"", true, LogForm::Json),
            r#"{"namespace":"n","pod":"a","container":"c","time":"2026-01-01T00:00:00Z","text":"x \"y\""}"#
        );
        assert_eq!(
            printed("x y", false, LogForm::Json),
            r#"{"namespace":"n","pod":"a","container":"c","text":"x y"}"#
        );
        assert_eq!(printed("t x y", true, LogForm::Text), "a.n | t x y");
        // An empty line has a time and nothing else.
        assert_eq!(Stamped::of("t".to_owned(), true).text, "");
    }

    #[test]
    fn containers_are_named_where_a_pod_has_several() {
        let source = |pod: &str, container: &str| Source {
            pod: pod.to_owned(),
            namespace: "n".to_owned(),
            container: container.to_owned(),
        };
        assert_eq!(
            labels(&[source("a", "x"), source("a", "y"), source("b", "x")]),
            ["a.n/x |", "a.n/y |", "b.n   |"]
        );
    }
}
