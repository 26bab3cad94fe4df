//! Installation against a real API server, named by `KUBECONFIG`: what is applied, kept, found and taken away.
//!
//! Nothing is waited for, so that a cluster without images will do. One test, because there is one cluster; it
//! leaves nothing behind, and begins by taking away what an earlier run left.

use std::process::{Command, Output};

use assert_cmd::cargo::CommandCargoExt as _;

fn run(args: &[&str]) -> Output {
    let mut command = Command::cargo_bin("meshctl").expect("it is built");
    command.args(args).output().expect("it runs")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", words(&output));
    words(&output)
}

fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?}: {}", words(&output));
    words(&output)
}

fn tags() -> Vec<(String, String)> {
    let text = String::from_utf8(run(&["tag", "list", "-o", "json"]).stdout).expect("it is text");
    let all: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    all.as_array().into_iter().flatten().map(|tag| (text(&tag["tag"]), text(&tag["revision"]))).collect()
}

fn is_tagged(tag: &str, revision: &str) -> bool {
    tags().contains(&(tag.to_owned(), revision.to_owned()))
}

#[test]
#[ignore = "needs a cluster: KUBECONFIG"]
fn an_installation_is_applied_once_found_again_and_leaves_nothing() {
    run(&["uninstall", "--purge", "--yes"]);
    gone();

    let said = ok(&["install", "--yes", "--wait=false"]);
    assert!(said.contains("8 created") && said.contains("is installed"), "{said}");
    let said = ok(&["install", "--yes", "--wait=false"]);
    assert!(said.contains("nothing had to change") && !said.contains("created"), "{said}");
    ok(&["verify-install"]);
    ok(&["manifest", "diff"]);

    let said = refused(&["manifest", "diff", "--set", "control.replicas=2"]);
    assert!(said.contains("spec.replicas is 1, shall be 2"), "{said}");
    let said = refused(&["install", "--yes", "--set", "control.replcas=2"]);
    assert!(said.contains("did you mean `replicas`"), "{said}");

    let said = ok(&["upgrade", "--yes", "--wait=false", "--set", "networkPolicy.enabled=false"]);
    assert!(said.contains("1 deleted"), "{said}");
    let said = ok(&["upgrade", "--yes", "--wait=false"]);
    assert!(said.contains("nothing had to change"), "an upgrade keeps what was said: {said}");

    assert!(is_tagged("default", "default"), "{:?}", tags());
    ok(&["install", "--revision", "canary", "--yes", "--wait=false"]);
    ok(&["tag", "set", "default", "--revision", "canary", "--wait=false"]);
    ok(&["tag", "set", "stable", "--revision", "canary", "--wait=false"]);
    assert!(is_tagged("default", "canary") && is_tagged("stable", "canary"), "{:?}", tags());
    ok(&["install", "--yes", "--wait=false"]);
    ok(&["install", "--revision", "canary", "--yes", "--wait=false"]);
    assert!(is_tagged("default", "canary") && is_tagged("stable", "canary"), "tags outlast: {:?}", tags());
    ok(&["verify-install", "--revision", "canary"]);
    let said = refused(&["install", "--revision", "stable", "--yes", "--wait=false"]);
    assert!(said.contains("name of a tag"), "{said}");
    ok(&["tag", "remove", "stable", "--yes"]);
    assert!(!is_tagged("stable", "canary"), "{:?}", tags());

    refused(&["uninstall", "--yes"]);
    ok(&["uninstall", "--revision", "canary", "--yes"]);
    ok(&["verify-install"]);
    ok(&["uninstall", "--purge", "--yes"]);
    gone();
}

/// Nothing is there any more.
fn gone() {
    let said = words(&run(&["manifest", "diff"]));
    assert!(said.lines().count() > 10, "{said}");
    assert!(said.lines().all(|line| line.starts_with("+ ")), "something is left: {said}");
}
