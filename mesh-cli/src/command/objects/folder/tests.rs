//! What `apply` and `delete` leave in a folder.

use std::collections::BTreeMap;

use mesh_api::model::Kind;
use mesh_api::name::{Namespace, ObjectName};

use super::*;

fn policy(name: &str, action: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  namespace: web\nspec:\n  action: {action}\n  rules: [{{}}]\n"
    )
}

fn object(name: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::AuthorizationPolicy,
        namespace: Namespace::parse("web").expect("a name"),
        name: ObjectName::parse(name).expect("a name"),
    }
}

fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}

fn files(folder: &tempfile::TempDir) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).expect("a text"))
    };
    entries.map(read).collect()
}

fn open(folder: &tempfile::TempDir) -> ConfigFolder {
    ConfigFolder::open(folder.path(), &LowerContext::default()).expect("a folder")
}

fn put(folder: &tempfile::TempDir, name: &str, text: &str) -> Change {
    let mut config = open(folder);
    let change = config.put(&object(name), text, &LowerContext::default()).expect("put");
    config.write().expect("written");
    change
}

fn delete(folder: &tempfile::TempDir, name: &str) -> bool {
    let mut config = open(folder);
    let was_there = config.remove(&object(name), &LowerContext::default());
    config.write().expect("written");
    was_there
}

#[test]
fn a_new_object_gets_its_own_file_and_the_same_again_changes_nothing() {
    let folder = with(&[]);
    assert_eq!(put(&folder, "a", &policy("a", "DENY")), Change::Created);
    assert_eq!(
        files(&folder),
        BTreeMap::from([("authorizationpolicy-web-a.yaml".to_owned(), policy("a", "DENY"))])
    );
    assert_eq!(put(&folder, "a", &format!("# again\n{}", policy("a", "DENY"))), Change::Unchanged);
    assert_eq!(files(&folder).len(), 1);
}

#[test]
fn an_object_in_a_file_of_the_user_changes_in_place() {
    let user = format!("# mine\n{}---\n# b stays\n{}", policy("a", "DENY"), policy("b", "DENY"));
    let folder = with(&[("all.yaml", &user)]);
    assert_eq!(put(&folder, "a", &policy("a", "ALLOW")), Change::Configured);
    let expected = user.replacen("DENY", "ALLOW", 1);
    assert_eq!(files(&folder), BTreeMap::from([("all.yaml".to_owned(), expected)]));
}

#[test]
fn a_broken_version_of_the_object_is_replaced_too() {
    let broken = policy("a", "DENY").replace("action", "actoin");
    let folder = with(&[("a.yaml", &broken)]);
    assert_eq!(put(&folder, "a", &policy("a", "DENY")), Change::Configured);
    assert_eq!(files(&folder), BTreeMap::from([("a.yaml".to_owned(), policy("a", "DENY"))]));
}

#[test]
fn an_object_that_stands_twice_is_not_guessed_at() {
    let folder = with(&[("a.yaml", &policy("a", "DENY")), ("b.yaml", &policy("a", "ALLOW"))]);
    let mut config = open(&folder);
    let error = config.put(&object("a"), &policy("a", "AUDIT"), &LowerContext::default());
    let error = error.expect_err("two places").to_string();
    assert!(error.contains("a.yaml:1") && error.contains("b.yaml:1"), "{error}");
    drop(config);
    assert!(delete(&folder, "a"), "deleting takes both");
    assert!(files(&folder).is_empty());
}

#[test]
fn deleting_takes_the_document_and_the_file_when_nothing_is_left() {
    let folder = with(&[("all.yaml", &format!("{}---\n{}", policy("a", "DENY"), policy("b", "DENY")))]);
    assert!(!delete(&folder, "c"));
    assert!(delete(&folder, "a"));
    assert_eq!(files(&folder), BTreeMap::from([("all.yaml".to_owned(), policy("b", "DENY"))]));
    assert!(delete(&folder, "b"));
    assert!(files(&folder).is_empty());
}

#[test]
fn an_item_of_a_list_changes_and_the_others_stay() {
    let item = |name: &str| policy(name, "DENY").replace('\n', "\n  ").trim_end().to_owned();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n", item("a"), item("b"));
    let folder = with(&[("list.yaml", &list)]);
    assert_eq!(put(&folder, "b", &policy("b", "ALLOW")), Change::Configured);
    let config = open(&folder);
    assert_eq!((config.places(&object("a")).len(), config.places(&object("b")).len()), (1, 1));
    assert_eq!(files(&folder).len(), 1);
    assert!(files(&folder)["list.yaml"].contains("ALLOW"));
}

#[test]
fn a_json_file_stays_json() {
    let json = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "a", "namespace": "web"},
        "spec": {"action": "DENY", "rules": [{}]},
    });
    let folder = with(&[("a.json", &json.to_string())]);
    assert_eq!(put(&folder, "a", &policy("a", "ALLOW")), Change::Configured);
    let text = &files(&folder)["a.json"];
    let value: Value = serde_json::from_str(text).expect("still JSON");
    assert_eq!(value["spec"]["action"], "ALLOW");
}

#[test]
fn the_mode_of_a_file_and_a_link_to_it_stay() {
    let folder = with(&[("real.yaml", &policy("a", "DENY"))]);
    let real = folder.path().join("real.yaml");
    fs::set_permissions(&real, Permissions::from_mode(0o600)).expect("a mode");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let target = elsewhere.path().join("target.yaml");
    fs::write(&target, policy("b", "DENY")).expect("a file");
    std::os::unix::fs::symlink(&target, folder.path().join("link.yaml")).expect("a link");
    put(&folder, "a", &policy("a", "ALLOW"));
    put(&folder, "b", &policy("b", "ALLOW"));
    assert_eq!(fs::metadata(&real).expect("there").mode() & 0o777, 0o600);
    assert!(folder.path().join("link.yaml").is_symlink());
    assert!(fs::read_to_string(&target).expect("a text").contains("ALLOW"));
}
