//! `meshctl status`: the health of the mesh on one page.
//!
//! What cannot be asked is said, and the rest is shown all the same: this is the command for bad days. The
//! exit status is 1 when something needs attention now.

mod health;

use std::process::ExitCode;

use mesh_api::admin::{CaStatus, CertificateStatus, ControlStatus, KeySourceStatus, SourceStatus};
use mesh_api::problem::Severity;

use super::mesh::Mesh;
use super::proxy_config::left;
use super::proxy_status::remarks;
use super::{Outcome, block_on};
use crate::args::GlobalArgs;
use crate::local::client::Phase;
use crate::output::{self, Format};
use health::{Health, ProxyHealth};

/// Problems that the page lists; `analyze` lists all.
const PROBLEMS_SHOWN: usize = 10;

/// Flags.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
}

/// Runs the command.
///
/// # Errors
/// When there is no mesh. That something in it is not well is exit status 1.
pub(crate) fn run(global: &GlobalArgs, args: &StatusArgs) -> Outcome {
    let mesh = Mesh::locate(global)?;
    let health = block_on(async { Ok(health::ask(&mesh, global.namespace.as_deref()).await) })?;
    match args.output {
        Format::Table => page(&mesh, &health),
        format => output::value(&health, format),
    }
    Ok(if health.complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn page(mesh: &Mesh, health: &Health) {
    let section = |name: &str| output::line(&output::title(name));
    section("MESH");
    match mesh {
        Mesh::Local(mesh) => {
            output::line(&format!("  {} from {}", mesh.state.name, mesh.state.file.display()));
            output::line(&format!("  state in {}", mesh.directory.path().display()));
        }
        Mesh::Cluster(cluster) => {
            output::line(&format!(
                "  {}, control plane in namespace {}",
                cluster.server, cluster.system_namespace
            ));
        }
    }
    section("CONTROL PLANE");
    match &health.control {
        Some(control) => output::line(&format!(
            "  {} version {}, revision {}, trust domain {}",
            control.name, control.version, control.revision, control.trust_domain
        )),
        None => output::line(&format!(
            "  {}",
            output::bad("does not answer; proxies keep serving with what they have")
        )),
    }
    if let Some(processes) = &health.workloads {
        section("WORKLOADS");
        output::line(&format!("  {}", workloads(processes)));
    }
    if let Some(control) = &health.control {
        section("SOURCES");
        control.sources.iter().for_each(source);
        if !control.objects.is_empty() {
            let counts: Vec<String> =
                control.objects.iter().map(|(kind, number)| format!("{kind} {number}")).collect();
            output::line(&format!("  in force: {}", counts.join(", ")));
        }
        key_sources(&control.key_sources);
    }
    section("PROXIES");
    proxies(health);
    section("CERTIFICATES");
    certificates(health);
    problems(health);
    section("HEALTH");
    if health.complaints.is_empty() {
        output::line(&format!("  {}", output::good("✔ all is well")));
    }
    for complaint in &health.complaints {
        output::line(&format!("  {} {complaint}", output::bad("✘")));
    }
}

fn workloads(processes: &crate::local::client::MeshStatus) -> String {
    let mut counts: Vec<(Phase, usize)> = Vec::new();
    for workload in &processes.workloads {
        match counts.iter_mut().find(|(phase, _)| *phase == workload.app.phase) {
            Some((_, number)) => *number += 1,
            None => counts.push((workload.app.phase, 1)),
        }
    }
    let counts: Vec<String> =
        counts.iter().map(|(phase, number)| format!("{number} {}", phase.as_str())).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
}

fn source(source: &SourceStatus) {
    let objects = output::count(source.objects, "object", "objects");
    match source.watched() {
        Some(kind) => output::line(&format!("  {kind}: {objects}")),
        None => {
            let files = output::count(source.files, "file", "files");
            output::line(&format!("  {}: {files}, {objects}", source.path));
        }
    }
    if let Some(reason) = &source.missing {
        output::line(&format!("    {} {reason}", output::doubtful("not served:")));
    }
    if let Some(reason) = &source.suspended {
        let what = if source.watched().is_some() { "not watched" } else { "held for an accident:" };
        output::line(&format!("    {} {reason}", output::bad(what)));
    }
    for object in &source.held {
        output::line(&format!("    {} {object} (its last good version)", output::doubtful("held:")));
    }
}

/// Where keys of token issuers come from; one by one only where that does not work.
fn key_sources(sources: &[KeySourceStatus]) {
    if sources.is_empty() {
        return;
    }
    let keys = sources.iter().map(|source| source.keys).sum();
    let places = output::count(sources.len(), "issuer", "issuers");
    output::line(&format!("  {} of {places}", output::count(keys, "signing key", "signing keys")));
    let broken: Vec<_> = sources.iter().filter(|source| !source.problem.is_empty()).collect();
    for source in broken.iter().take(PROBLEMS_SHOWN) {
        output::line(&format!("    {}: {}", source.url, source.problem));
        output::line(&format!(
            "      {}",
            match source.age_seconds {
                Some(age) => output::doubtful(&format!(
                    "tokens are verified with keys seen {} ago",
                    output::duration(age)
                )),
                None => output::bad("there are no keys, so its tokens are refused"),
            }
        ));
    }
    if broken.len() > PROBLEMS_SHOWN {
        output::line(&format!("    and {} more: `meshctl status -o json`", broken.len() - PROBLEMS_SHOWN));
    }
}

fn proxies(health: &Health) {
    let known = health.proxies.len();
    let ready = health.proxies.iter().filter(|proxy| proxy.is_ready()).count();
    let mut text = format!("  {ready} of {} ready", output::count(known, "proxy", "proxies"));
    if let Some(control) = &health.control {
        let connected = control.proxies.iter().filter(|proxy| proxy.connected).count();
        text.push_str(&format!(", {connected} connected to the control plane"));
    }
    output::line(&text);
    for proxy in &health.proxies {
        match (&proxy.ready, &proxy.error) {
            (Some(ready), _) if ready.draining => output::line(&format!("  {}: draining", proxy.name)),
            (Some(ready), _) if !ready.ready => {
                output::line(&format!("  {}: waits for {}", proxy.name, ready.waiting_for.join(", ")));
            }
            (_, Some(error)) => output::line(&format!("  {}: {error}", proxy.name)),
            (Some(_), None) | (None, None) => {}
        }
    }
    for text in health.control.iter().flat_map(|control: &ControlStatus| &control.proxies).flat_map(remarks) {
        output::line(&format!("  {text}"));
    }
}

fn certificates(health: &Health) {
    let authority = |ca: &CaStatus| {
        for certificate in &ca.authorities {
            output::line(&format!(
                "  {}: {} left (until {})",
                certificate.resource_name,
                left(certificate.ttl_seconds),
                certificate.not_after
            ));
        }
        output::line(&format!(
            "  workloads: {} issued, {} refused, life {}",
            ca.issued,
            ca.refused,
            output::duration(ca.workload_ttl_seconds)
        ));
    };
    health.ca.iter().for_each(authority);
    let soonest = health
        .proxies
        .iter()
        .filter_map(|proxy| proxy.leaf.as_ref().map(|leaf| (leaf.ttl_seconds, proxy, leaf)));
    let soonest: Option<(i64, &ProxyHealth, &CertificateStatus)> =
        soonest.min_by_key(|(seconds, _, _)| *seconds);
    if let Some((seconds, proxy, leaf)) = soonest {
        let next =
            leaf.next_rotation.as_ref().map(|next| format!(", next rotation {next}")).unwrap_or_default();
        output::line(&format!("  first to end: {} with {} left{next}", proxy.name, left(seconds)));
    }
}

fn problems(health: &Health) {
    let Some(problems) = &health.problems else { return };
    let worth: Vec<_> = problems.iter().filter(|problem| problem.severity > Severity::Info).collect();
    output::line(&output::title("PROBLEMS"));
    if worth.is_empty() {
        output::line("  none");
    }
    for problem in worth.iter().take(PROBLEMS_SHOWN) {
        output::line(&format!("  {}", super::analyze::painted(problem)));
    }
    if worth.len() > PROBLEMS_SHOWN {
        output::line(&format!("  and {} more: `meshctl analyze`", worth.len() - PROBLEMS_SHOWN));
    }
}
