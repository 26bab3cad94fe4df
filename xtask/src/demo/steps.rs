//! The steps of the demo, in order. Each checks what it claims and returns one sentence of what it found.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::mesh::{Answer, DemoMesh};
use crate::process::capture;

/// A step: name, what it shows, what it does.
type Step = (&'static str, &'static str, fn(&DemoMesh) -> Result<String>);

/// All steps.
pub(crate) const ALL: &[Step] = &[
    ("up", "The shop starts, each service in a network of its own with its proxy.", up),
    ("permissive", "Everything works, even for a stranger: plaintext is still served.", permissive),
    ("wire", "Between members the wire carries only TLS.", wire),
    ("strict", "STRICT shuts the stranger out; members notice nothing.", strict),
    ("default-deny", "Then nobody may call anything, and only what is allowed comes back.", default_deny),
    ("edit", "A policy edit takes effect at once, and nothing restarts.", edit),
    ("rotate", "Certificates rotate under load without an error.", rotate),
    ("who", "Who was denied, and by which rule.", who),
];

const CATALOG: &str = "http://catalog.backend:8080/api/products";
const FRONT: &str = "http://frontend.web:8080/";

fn up(mesh: &DemoMesh) -> Result<String> {
    let begun = Instant::now();
    mesh.must(&["up", "-f", "mesh.yaml", "-d"])?;
    let took = begun.elapsed();
    mesh.must(&["ps"])?;
    mesh.must(&["proxy-status"])?;
    Ok(format!("all workloads are ready after {:.1} s", took.as_secs_f64()))
}

fn permissive(mesh: &DemoMesh) -> Result<String> {
    expect(&mesh.call("frontend.web", &["GET", CATALOG])?, "200")?;
    expect(
        &mesh.call("frontend.web", &["POST", "http://frontend.web:8080/buy", "--body", "{\"product\":1}"])?,
        "201",
    )?;
    expect(
        &mesh.call("orders.backend", &["STORE", "store.backend:7000", "--body", "GET order-1"])?,
        "store VALUE",
    )?;
    let job = ["run", "--service-account", "backend/batch", "--", "shop", "batch"];
    let batch = mesh.must(&job)?;
    ensure!(batch.text.contains("4 products"), "the job read something else: {}", batch.text.trim());
    expect(&mesh.call("intruder.outside", &["GET", &stranger_url(mesh)?])?, "200")?;
    Ok("HTTP, gRPC and a server that speaks first all work, and the stranger gets in too".into())
}

fn wire(mesh: &DemoMesh) -> Result<String> {
    let load = mesh.start(&["exec", "frontend.web", "--", "shop", "call", "GET", FRONT, "--for", "4"])?;
    let seen = mesh.ask_quietly(&["x", "wire", "--seconds", "3", "-o", "json"])?;
    finished(load)?;
    ensure!(seen.ok, "cannot look at the wire: {}", seen.text.trim());
    let flows: Vec<Value> = serde_json::from_str(&seen.stdout).context("meshctl x wire -o json")?;
    ensure!(!flows.is_empty(), "no packets were seen");
    let plain: Vec<&Value> = flows.iter().filter(|flow| flow["security"] == "plaintext").collect();
    ensure!(plain.is_empty(), "plaintext on the wire: {plain:?}");
    let bytes: u64 = flows.iter().filter_map(|flow| flow["bytes"].as_u64()).sum();
    Ok(format!("{bytes} bytes in {} connections, all of them TLS", flows.len()))
}

fn strict(mesh: &DemoMesh) -> Result<String> {
    mesh.must(&["apply", "-f", "policies/strict.yaml"])?;
    let stranger = stranger_url(mesh)?;
    let took = mesh.until("intruder.outside", &["GET", &stranger], |answer| !answer.ok)?;
    expect(&mesh.call("frontend.web", &["GET", CATALOG])?, "200")?;
    Ok(format!("the stranger is out after {} ms, the frontend still gets 200", took.as_millis()))
}

fn default_deny(mesh: &DemoMesh) -> Result<String> {
    mesh.must(&["apply", "-f", "policies/deny-all.yaml"])?;
    mesh.until("frontend.web", &["GET", CATALOG], |answer| answer.text.contains("RBAC: access denied"))?;
    mesh.must(&["apply", "-f", "policies/allow.yaml"])?;
    mesh.until("frontend.web", &["GET", CATALOG], |answer| answer.text.starts_with("200"))?;
    expect(&mesh.call("frontend.web", &["POST", CATALOG])?, "403 RBAC: access denied")?;
    let pay = "http://payments.backend:8080/api/payments";
    expect(&mesh.call("frontend.web", &["POST", pay, "--body", "{}"])?, "403 RBAC: access denied")?;
    expect(&mesh.call("orders.backend", &["GET", "http://payments.backend:8080/admin/ledger"])?, "403")?;
    expect(
        &mesh.call("frontend.web", &["POST", "http://frontend.web:8080/buy", "--body", "{\"product\":2}"])?,
        "201",
    )?;
    Ok("the frontend may GET the catalog, only orders may POST payments, an order still goes through".into())
}

fn edit(mesh: &DemoMesh) -> Result<String> {
    let before = pids(mesh)?;
    mesh.must(&["apply", "-f", "policies/deny-frontend.yaml"])?;
    let closed = mesh.until("frontend.web", &["GET", CATALOG], |answer| answer.text.starts_with("403"))?;
    mesh.must(&["delete", "-f", "policies/deny-frontend.yaml"])?;
    let opened = mesh.until("frontend.web", &["GET", CATALOG], |answer| answer.text.starts_with("200"))?;
    ensure!(pids(mesh)? == before, "a process restarted");
    Ok(format!(
        "closed {} ms after the command, open again {} ms after the next, and no process restarted",
        closed.as_millis(),
        opened.as_millis()
    ))
}

fn rotate(mesh: &DemoMesh) -> Result<String> {
    let first = serial(mesh)?;
    let load = mesh.start(&["exec", "frontend.web", "--", "shop", "call", "GET", FRONT, "--for", "24"])?;
    let begun = Instant::now();
    let second = loop {
        let now = serial_quietly(mesh)?;
        if now != first {
            break now;
        }
        ensure!(begun.elapsed() < Duration::from_secs(40), "the certificate did not rotate in 40 s");
        std::thread::park_timeout(Duration::from_millis(250));
    };
    mesh.must(&["proxy-config", "secret", "frontend.web"])?;
    let totals = finished(load)?;
    let totals: Value = serde_json::from_str(totals.trim()).context("totals of the load")?;
    ensure!(totals["failed"] == 0, "calls failed: {totals}");
    Ok(format!("serial {first:.8}… became {second:.8}…; {} calls meanwhile, none failed", totals["calls"]))
}

fn who(mesh: &DemoMesh) -> Result<String> {
    let denied = mesh.must(&["x", "denied", "payments.backend"])?;
    ensure!(
        denied.text.contains("cluster.local/ns/web/sa/frontend") && denied.text.contains("/api/payments"),
        "the refusal of the frontend is not listed"
    );
    mesh.must(&["x", "authz", "check", "payments.backend"])?;
    Ok("every refusal names its caller, its request and its rule".into())
}

fn expect(answer: &Answer, start: &str) -> Result<()> {
    ensure!(answer.text.starts_with(start), "expected {start:?}, got {:?}", answer.text.trim());
    Ok(())
}

/// The stranger has no mesh DNS: it dials a catalog instance by its address.
fn stranger_url(mesh: &DemoMesh) -> Result<String> {
    let workloads = workloads(mesh)?;
    let catalog = workloads.iter().find(|workload| workload["name"] == "catalog-0");
    let address = catalog.and_then(|catalog| catalog["address"].as_str());
    Ok(format!("http://{}:8080/api/products", address.context("meshctl ps shows no catalog-0")?))
}

fn workloads(mesh: &DemoMesh) -> Result<Vec<Value>> {
    let done = capture(&mut mesh.meshctl(&["ps", "-o", "json"]))?;
    serde_json::from_slice(&done.stdout).context("meshctl ps -o json")
}

fn pids(mesh: &DemoMesh) -> Result<Vec<String>> {
    let shown = workloads(mesh)?;
    Ok(shown.iter().map(|w| format!("{} {} {}", w["name"], w["pid"], w["proxy_pid"])).collect())
}

fn serial(mesh: &DemoMesh) -> Result<String> {
    mesh.must(&["proxy-config", "secret", "frontend.web"])?;
    serial_quietly(mesh)
}

fn serial_quietly(mesh: &DemoMesh) -> Result<String> {
    let done = capture(&mut mesh.meshctl(&["proxy-config", "secret", "frontend.web", "-o", "json"]))?;
    let certificates: Vec<Value> =
        serde_json::from_slice(&done.stdout).context("meshctl proxy-config secret -o json")?;
    let leaf = certificates.iter().find(|c| c["resource_name"] == "default" && c["chain_index"] == 0);
    let serial = leaf.and_then(|leaf| leaf["serial_number"].as_str());
    Ok(serial.context("no certificate is shown")?.to_owned())
}

fn finished(load: Child) -> Result<String> {
    let done = load.wait_with_output()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("the load saw failures: {text}{}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(text)
}
