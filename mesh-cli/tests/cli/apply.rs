//! `apply` and `delete`: against a control plane that has in force what stands in the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use insta::assert_snapshot;
use mesh_api::admin::{ObjectSummary, SourceStatus};
use mesh_api::manifest::{self, LowerContext};
use mesh_api::model::ObjectRef;

use crate::admin::{Answer, FakeMesh, json};
use crate::fixtures::{control_status, healthy_proxies, unhealthy_proxies};

fn policy(name: &str, action: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: backend\nspec:\n  action: {action}\n  rules: [{{}}]\n"
    )
}

fn in_folder(folder: &Path) -> Vec<ObjectSummary> {
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| !path.file_name().expect("a name").to_string_lossy().starts_with('.'));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let file = path.to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a text");
        for document in manifest::parse(&file, &text, &LowerContext::default()).documents {
            let Ok(object) = document.outcome else { continue };
            let object = object.object_ref();
            found.push(ObjectSummary {
                kind: object.kind,
                namespace: object.namespace.to_string(),
                name: object.name.to_string(),
                file: file.clone(),
                line: document.origin.line,
                yaml: document.text.to_string(),
                held: false,
                problems: Vec::new(),
                enforced: Some((2, 2)),
                tried: None,
            });
        }
    }
    found
}

/// Those that the query of a path names, as the control plane filters them.
fn asked_for(path: &str, mut objects: Vec<ObjectSummary>) -> Vec<ObjectSummary> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        objects.retain(|object| match key {
            "kind" => object.kind.as_str() == value,
            "namespace" => object.namespace == value,
            "name" => object.name == value,
            // The control plane knows no other filter, and what it does not know it refuses.
            _ => false,
        });
    }
    objects
}

/// Has in force what stands in the folder, and takes `change` on what it answers.
fn obedient(mesh: &FakeMesh, change: impl Fn(&mut Vec<ObjectSummary>) + Send + Sync + 'static) -> Answer {
    let folder = mesh.config();
    let status = control_status(&mesh.path("").to_string_lossy(), healthy_proxies());
    Arc::new(move |_, path| match path {
        _ if path.starts_with("/objects") => {
            let mut objects = in_folder(&folder);
            change(&mut objects);
            (200, json(&asked_for(path, objects)))
        }
        _ => (200, json(&status)),
    })
}

fn mesh() -> FakeMesh {
    let mesh = FakeMesh::new();
    mesh.control(obedient(&mesh, |_| {}));
    mesh
}

fn files(mesh: &FakeMesh) -> BTreeMap<String, String> {
    let entries = fs::read_dir(mesh.config()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a text"))
    };
    entries.map(read).collect()
}

#[test]
fn objects_are_created_changed_and_left_alone() {
    let mesh = mesh();
    mesh.write("a.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "DENY")));
    assert_snapshot!("created", mesh.run(&["apply", "-f", "a.yaml"]).all());
    mesh.write("a.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "ALLOW")));
    assert_snapshot!("configured", mesh.run(&["apply", "-f", "a.yaml"]).all());
    assert_eq!(files(&mesh).len(), 2);
    let from_stdin = mesh.run_with(&["apply", "-f", "-"], &policy("a", "DENY"), &[]);
    assert_eq!(from_stdin.all(), "authorizationpolicy.security.istio.io/a unchanged\n");
}

#[test]
fn programs_are_told_what_became_of_each_object() {
    let mesh = mesh();
    mesh.write("a.yaml", &policy("a", "DENY"));
    let asked = |args: &[&str]| -> serde_json::Value {
        let printed = mesh.run(args);
        assert_eq!(printed.status, 0, "{printed:?}");
        serde_json::from_str(&printed.stdout).expect("JSON")
    };
    let entry = |outcome: &str| serde_json::json!({"kind": "AuthorizationPolicy", "namespace": "backend", "name": "a", "outcome": outcome});
    let mut tried = entry("created");
    tried["dryRun"] = true.into();
    assert_eq!(asked(&["apply", "--dry-run", "-f", "a.yaml", "-o", "json"])[0], tried);
    assert_eq!(asked(&["apply", "-f", "a.yaml", "-o", "json"]), serde_json::json!([entry("created")]));
    assert_eq!(asked(&["apply", "-f", "a.yaml", "-o", "json"]), serde_json::json!([entry("unchanged")]));
    assert_eq!(asked(&["wait", "ap/a.backend", "-o", "json"]), serde_json::json!([entry("enforced")]));
    assert_eq!(asked(&["delete", "-f", "a.yaml", "-o", "json"]), serde_json::json!([entry("deleted")]));
    let nothing = ["delete", "--ignore-not-found", "-f", "a.yaml", "-o", "json"];
    assert_eq!(asked(&nothing), serde_json::json!([]));
}

#[test]
fn nothing_is_written_when_anything_is_wrong() {
    let mesh = mesh();
    mesh.write("a.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "DENNY")));
    assert_snapshot!("invalid", mesh.run(&["apply", "-f", "a.yaml"]).all());
    assert!(files(&mesh).is_empty());
}

#[test]
fn a_dry_run_writes_nothing() {
    let mesh = mesh();
    mesh.write("a.yaml", &policy("a", "DENY"));
    let printed = mesh.run(&["apply", "--dry-run", "-f", "a.yaml"]);
    assert_eq!(printed.all(), "authorizationpolicy.security.istio.io/a created (dry run)\n");
    assert!(files(&mesh).is_empty());
}

#[test]
fn a_namespace_from_the_flag_is_written_down() {
    let mesh = mesh();
    let text = policy("a", "DENY").replace("  namespace: backend\n", "");
    let printed = mesh.run_with(&["apply", "-n", "web", "-f", "-"], &text, &[]);
    assert_eq!(printed.status, 0, "{printed:?}");
    assert!(files(&mesh)["authorizationpolicy-web-a.yaml"].contains("  namespace: web\n"));
}

#[test]
fn what_proxies_do_not_acknowledge_is_a_failure_that_names_it() {
    let mesh = FakeMesh::new();
    mesh.control(obedient(&mesh, |objects| {
        objects.iter_mut().for_each(|object| object.enforced = Some((1, 2)))
    }));
    mesh.write("a.yaml", &policy("a", "DENY"));
    assert_snapshot!("late", mesh.run(&["apply", "--timeout", "1", "-f", "a.yaml"]).all());
    let printed = mesh.run_with(&["apply", "--wait=false", "-f", "-"], &policy("b", "DENY"), &[]);
    assert_eq!(printed.all(), "authorizationpolicy.security.istio.io/b created\n");
}

#[test]
fn a_proxy_that_refuses_is_a_failure_at_once() {
    let mesh = FakeMesh::new();
    let folder = mesh.config();
    let status = control_status(&mesh.path("").to_string_lossy(), unhealthy_proxies());
    mesh.control(Arc::new(move |_, path| match path {
        _ if path.starts_with("/objects") => (200, json(&asked_for(path, in_folder(&folder)))),
        _ => (200, json(&status)),
    }));
    assert_snapshot!("refused", mesh.run_with(&["apply", "-f", "-"], &policy("a", "DENY"), &[]).all());
}

#[test]
fn an_object_that_comes_from_elsewhere_is_not_shadowed() {
    let mesh = FakeMesh::new();
    mesh.control(obedient(&mesh, |objects| {
        objects.extend(in_text("/state/config/local/mesh.yaml", &policy("a", "DENY")));
    }));
    assert_snapshot!("foreign", mesh.run_with(&["apply", "-f", "-"], &policy("a", "ALLOW"), &[]).all());
    assert!(files(&mesh).is_empty());
}

fn in_text(file: &str, text: &str) -> Vec<ObjectSummary> {
    let parsed = manifest::parse(file, text, &LowerContext::default());
    let summary = |document: manifest::Document| {
        let object: ObjectRef = document.outcome.expect("valid").object_ref();
        ObjectSummary {
            kind: object.kind,
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
            file: file.to_owned(),
            line: 1,
            yaml: document.text.to_string(),
            held: false,
            problems: Vec::new(),
            enforced: None,
            tried: None,
        }
    };
    parsed.documents.into_iter().map(summary).collect()
}

#[test]
fn objects_are_deleted_by_name_and_by_file() {
    let mesh = mesh();
    mesh.write("config/all.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "DENY")));
    assert_snapshot!("absent_namespace", mesh.run(&["delete", "ap", "a"]).all());
    assert_snapshot!("deleted", mesh.run(&["delete", "authorizationpolicy", "a", "-n", "backend"]).all());
    assert_eq!(files(&mesh)["all.yaml"], policy("b", "DENY"));
    mesh.write("b.yaml", &policy("b", "DENY"));
    let printed = mesh.run(&["delete", "-f", "b.yaml"]);
    assert_eq!(printed.all(), "authorizationpolicy.security.istio.io/b deleted\n");
    assert!(files(&mesh).is_empty());
    assert_snapshot!("absent_object", mesh.run(&["delete", "ap/b", "-n", "backend"]).all());
    assert_eq!(mesh.run(&["delete", "--ignore-not-found", "ap/b", "-n", "backend"]).all(), "");
}

#[test]
fn emptying_the_folder_on_purpose_is_confirmed() {
    let mesh = FakeMesh::new();
    mesh.write("config/all.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "DENY")));
    let kept = in_folder(&mesh.config());
    let folder = mesh.config();
    let confirmed = mesh.path("confirmed");
    let status = control_status(&mesh.path("").to_string_lossy(), healthy_proxies());
    // Holds what vanished until it is told that this was meant.
    mesh.control(Arc::new(move |method, path| {
        let is_held = in_folder(&folder).is_empty() && !confirmed.exists();
        match (method, path) {
            ("POST", _) => {
                fs::write(&confirmed, "").expect("a file");
                (202, String::new())
            }
            (_, path) if path.starts_with("/objects") => {
                let objects = if is_held { kept.clone() } else { in_folder(&folder) };
                (200, json(&asked_for(path, objects)))
            }
            _ => {
                let mut status = status.clone();
                let held = match is_held {
                    true => ["a", "b"].map(reference).to_vec(),
                    false => Vec::new(),
                };
                let suspended = is_held.then(|| "everything disappeared".to_owned());
                status.sources = vec![SourceStatus {
                    path: folder.to_string_lossy().into_owned(),
                    files: 0,
                    objects: held.len(),
                    held,
                    suspended,
                    missing: None,
                }];
                (200, json(&status))
            }
        }
    }));
    let printed = mesh.run(&["delete", "ap", "a", "b", "-n", "backend"]);
    assert_eq!(printed.status, 0, "{printed:?}");
    assert!(mesh.path("confirmed").exists());
}

fn reference(name: &str) -> ObjectRef {
    ObjectRef {
        kind: mesh_api::model::Kind::AuthorizationPolicy,
        namespace: mesh_api::name::Namespace::parse("backend").expect("a name"),
        name: mesh_api::name::ObjectName::parse(name).expect("a name"),
    }
}
