//! Installation as a life: applied once, found again, upgraded, tagged by revision, taken away.
//!
//! Nothing is waited for, so that this asks the API server alone. It wants a cluster without a mesh and leaves one.

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::Cluster;
use serde_json::{Value, json};

/// Where each tag points, as `meshctl tag list` says.
fn is_tagged(cluster: &Cluster, tag: &str, revision: &str) -> Result<bool> {
    let all: Value = serde_json::from_str(&cluster.meshctl(&["tag", "list", "-o", "json"])?)?;
    let mut tags = all.as_array().into_iter().flatten();
    Ok(tags.any(|found| found["tag"] == tag && found["revision"] == revision))
}

/// Whether every object of an installation is missing.
fn is_gone(cluster: &Cluster) -> Result<bool> {
    let said = cluster.meshctl_refused(&["manifest", "diff"])?;
    let objects = said.lines().filter(|line| line.starts_with(['+', '~']));
    Ok(said.lines().count() > 10 && objects.into_iter().all(|line| line.starts_with('+')))
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn an_installation_is_applied_once_found_again_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let said = cluster.meshctl(&["install", "--yes", "--wait=false"])?;
    ensure!(said.contains("8 created") && said.contains("is installed"), "{said}");
    let said = cluster.meshctl(&["install", "--yes", "--wait=false"])?;
    ensure!(said.contains("nothing had to change") && !said.contains("created"), "{said}");
    cluster.meshctl(&["verify-install"])?;
    cluster.meshctl(&["manifest", "diff"])?;
    let said = cluster.meshctl_refused(&["manifest", "diff", "--set", "control.replicas=2"])?;
    ensure!(said.contains("spec.replicas is 1, shall be 2"), "{said}");
    let said = cluster.meshctl_refused(&["install", "--yes", "--set", "control.replcas=2"])?;
    ensure!(said.contains("did you mean `replicas`"), "{said}");

    let said =
        cluster.meshctl(&["upgrade", "--yes", "--wait=false", "--set", "networkPolicy.enabled=false"])?;
    ensure!(said.contains("1 deleted"), "{said}");
    let said = cluster.meshctl(&["upgrade", "--yes", "--wait=false"])?;
    ensure!(said.contains("nothing had to change"), "an upgrade keeps what was said: {said}");

    ensure!(is_tagged(&cluster, "default", "default")?, "the default revision has the default tag");
    cluster.meshctl(&["install", "--revision", "canary", "--yes", "--wait=false"])?;
    cluster.meshctl(&["tag", "set", "default", "--revision", "canary", "--wait=false"])?;
    cluster.meshctl(&["tag", "set", "stable", "--revision", "canary", "--wait=false"])?;
    cluster.meshctl(&["install", "--yes", "--wait=false"])?;
    cluster.meshctl(&["install", "--revision", "canary", "--yes", "--wait=false"])?;
    for tag in ["default", "stable"] {
        ensure!(is_tagged(&cluster, tag, "canary")?, "tag {tag} outlasts installations");
    }
    cluster.meshctl(&["verify-install", "--revision", "canary"])?;
    let said = cluster.meshctl_refused(&["install", "--revision", "stable", "--yes", "--wait=false"])?;
    ensure!(said.contains("name of a tag"), "{said}");
    cluster.meshctl(&["tag", "remove", "stable", "--yes"])?;
    ensure!(!is_tagged(&cluster, "stable", "canary")?, "a tag that was removed is gone");

    let said = cluster.meshctl_refused(&["uninstall", "--yes"])?;
    ensure!(said.contains("canary, default"), "{said}");
    let said = cluster.meshctl_refused(&["uninstall", "--revision", "canary", "--yes"])?;
    ensure!(said.contains("tag default points to it"), "{said}");
    cluster.meshctl(&["tag", "set", "default", "--revision", "default", "--wait=false"])?;
    cluster.meshctl(&["uninstall", "--revision", "canary", "--yes"])?;
    cluster.meshctl(&["verify-install"])?;
    cluster.meshctl(&["uninstall", "--purge", "--yes"])?;
    ensure!(is_gone(&cluster)?, "{}", cluster.meshctl_refused(&["manifest", "diff"])?);
    Ok(())
}

/// The definitions of the mesh's kinds that the cluster has, by name.
fn definitions(cluster: &Cluster) -> Result<Vec<Value>> {
    let all = cluster.json(&["customresourcedefinitions"])?;
    let items = all["items"].as_array().context("a list has items")?;
    let is_ours = |item: &&Value| item["spec"]["group"].as_str().is_some_and(|it| it.ends_with(".istio.io"));
    Ok(items.iter().filter(is_ours).cloned().collect())
}

/// Takes from a schema what keeps null and unknown fields, as Istio's have it.
fn strict(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            // What may be anything has no type, and is kept whole there too.
            if fields.get("type").is_some_and(Value::is_string) {
                fields.remove("x-kubernetes-preserve-unknown-fields");
                fields.remove("nullable");
            }
            fields.values_mut().for_each(strict);
        }
        Value::Array(items) => items.iter_mut().for_each(strict),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
#[ignore = "needs a cluster: cargo xtask e2e"]
fn definitions_of_others_are_used_as_they_are_and_outlast_the_mesh() -> Result<()> {
    let cluster = Cluster::of_environment()?;
    let ours = cluster.meshctl(&["install", "--crds"])?;
    cluster.kubectl_with(&["apply", "--server-side", "--field-manager=others", "-f", "-"], &ours)?;
    // The API server notes on new definitions that it serves them, and a write that is made meanwhile is refused.
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "customresourcedefinitions",
        "--all",
        "--timeout=60s",
    ])?;
    let mut written = Ok(String::new());
    for _ in 0..WRITES_MAX {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": foreign(&cluster)?});
        written = cluster.kubectl_with(&["replace", "-f", "-"], &list.to_string());
        if written.is_ok() {
            break;
        }
    }
    written?;
    let states = || -> Result<Vec<Value>> {
        let all = definitions(&cluster)?;
        Ok(all.iter().map(|it| json!([it["metadata"]["uid"], it["metadata"]["generation"]])).collect())
    };
    let before = states()?;

    cluster.meshctl(&["check", "--pre"])?;
    let said = cluster.meshctl(&["install", "--yes", "--wait=false"])?;
    ensure!(said.contains("8 of others, used unchanged"), "{said}");
    let said = cluster.meshctl(&["install", "--yes", "--wait=false"])?;
    ensure!(said.contains("nothing had to change"), "{said}");
    let said = cluster.meshctl(&["verify-install"])?;
    ensure!(said.matches("is somebody else's").count() == 8, "{said}");
    cluster.meshctl(&["uninstall", "--purge", "--yes"])?;
    ensure!(states()? == before, "the definitions are not as they were");

    let theirs = definitions(&cluster)?;
    let mut delete = vec!["delete", "customresourcedefinitions"];
    delete.extend(theirs.iter().filter_map(|definition| definition["metadata"]["name"].as_str()));
    cluster.kubectl(&delete)?;
    ensure!(is_gone(&cluster)?, "{}", cluster.meshctl_refused(&["manifest", "diff"])?);
    Ok(())
}

/// Times that definitions are written before a conflict is a failure.
const WRITES_MAX: usize = 5;

/// The definitions as they are, made into somebody else's.
fn foreign(cluster: &Cluster) -> Result<Vec<Value>> {
    let mut theirs = definitions(cluster)?;
    ensure!(theirs.len() == 8, "{} definitions", theirs.len());
    for definition in &mut theirs {
        definition["metadata"]["labels"] = json!({"app": "istio-pilot", "release": "istio"});
        for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
            version["additionalPrinterColumns"] = json!([]);
            strict(&mut version["schema"]);
        }
    }
    Ok(theirs)
}
