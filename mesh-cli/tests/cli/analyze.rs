//! `analyze` and `validate`, with files and without.

use insta::assert_snapshot;

use crate::admin::FakeMesh;
use crate::fixtures::{SHOP, healthy_proxies, shop};

const BROKEN: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: broken
  namespace: backend
spec:
  action: DENNY
  rules:
  - to:
    - operation:
        notPath: [/x]
";

/// Selects nothing, which is a warning.
const IDLE: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: idle, namespace: backend}
spec:
  selector: {matchLabels: {app: nobody}}
  action: DENY
  rules: [{}]
";

#[test]
fn errors_in_files_are_named_with_file_line_and_field() {
    let mesh = FakeMesh::new();
    mesh.write("policies/broken.yaml", BROKEN);
    mesh.write("policies/good.yaml", SHOP);
    assert_snapshot!("broken", mesh.run(&["analyze", "policies"]).all());
    assert_snapshot!("validate_broken", mesh.run(&["validate", "-f", "policies"]).all());
    assert_snapshot!("validate_good", mesh.run(&["validate", "-f", "policies/good.yaml"]).all());
}

#[test]
fn good_files_are_good() {
    let mesh = FakeMesh::new();
    mesh.write("good.yaml", SHOP);
    let printed = mesh.run(&["analyze", "good.yaml"]);
    assert_eq!(printed.status, 0, "{printed:?}");
}

#[test]
fn nothing_to_say_is_said() {
    let mesh = FakeMesh::new();
    mesh.write("ns.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n");
    let printed = mesh.run(&["analyze", "ns.yaml"]);
    assert_eq!(printed.all(), "✔ No validation issues found when analyzing ns.yaml.\n");
}

#[test]
fn the_exit_status_follows_the_threshold() {
    let mesh = FakeMesh::new();
    mesh.write("idle.yaml", IDLE);
    let statuses = [("Error", 0), ("Warning", 79), ("warning", 79), ("Info", 79)].map(|(level, expected)| {
        let printed = mesh.run(&["analyze", "idle.yaml", "--failure-threshold", level]);
        assert!(printed.stdout.contains("IST0127"), "{printed:?}");
        (printed.status, expected)
    });
    assert!(statuses.iter().all(|(status, expected)| status == expected), "{statuses:?}");
    let suppressed = mesh.run(&["analyze", "idle.yaml", "-S", "IST0127=AuthorizationPolicy *.backend"]);
    assert!(!suppressed.stdout.contains("IST0127"), "{suppressed:?}");
    let hidden = mesh.run(&["analyze", "idle.yaml", "--output-threshold", "Error"]);
    assert!(!hidden.stdout.contains("IST0127"), "{hidden:?}");
}

#[test]
fn json_has_istioctls_fields() {
    let mesh = FakeMesh::new();
    mesh.write("broken.yaml", BROKEN);
    let printed = mesh.run(&["analyze", "broken.yaml", "-o", "json"]);
    let messages: Vec<serde_json::Value> = serde_json::from_str(&printed.stdout).expect("JSON alone");
    assert_eq!(messages[0]["code"], "IST0106");
    assert_eq!(messages[0]["level"], "Error");
    assert_eq!(messages[0]["origin"], "AuthorizationPolicy backend/broken");
    assert_eq!(messages[0]["reference"], "broken.yaml:7");
    assert_eq!(printed.status, 79);
}

#[test]
fn an_object_that_stands_twice_is_an_error() {
    let mesh = FakeMesh::new();
    mesh.write("a.yaml", IDLE);
    mesh.write("b.yaml", IDLE);
    assert_snapshot!("twice", mesh.run(&["validate", "-f", "a.yaml", "-f", "b.yaml"]).all());
}

#[test]
fn the_running_mesh_is_asked_when_no_file_is_named() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("live", mesh.run(&["analyze"]).all());
    assert_snapshot!("live_namespace", mesh.run(&["analyze", "-n", "web"]).all());
}

#[test]
fn files_can_be_looked_at_as_part_of_the_running_mesh() {
    let mesh = shop(healthy_proxies());
    mesh.write("idle.yaml", &IDLE.replace("nobody", "catalog"));
    assert!(mesh.run(&["analyze", "idle.yaml"]).stdout.contains("IST0127"), "alone it selects nothing");
    let printed = mesh.run(&["analyze", "-k", "idle.yaml"]);
    assert!(!printed.stdout.contains("IST0127"), "in the mesh it does: {printed:?}");
}

#[test]
fn a_mesh_file_says_which_workloads_there_would_be() {
    let mesh = FakeMesh::new();
    mesh.write("shop/idle.yaml", &IDLE.replace("nobody", "catalog"));
    mesh.write(
        "shop/mesh.yaml",
        "name: shop\nworkloads:\n- {name: catalog, namespace: backend, command: x}\n",
    );
    let printed = mesh.run(&["analyze", "shop"]);
    assert!(printed.status == 0 && !printed.stdout.contains("IST0127"), "{printed:?}");
    mesh.write(
        "shop/mesh.yaml",
        "name: shop\nworkloads:\n- {name: catalog, nmaespace: backend, command: x}\n",
    );
    let printed = mesh.run(&["analyze", "shop/mesh.yaml"]);
    assert!(printed.stdout.starts_with("Error [IST0106] (shop/mesh.yaml:3)"), "{printed:?}");
    assert!(printed.stdout.contains("nmaespace") && printed.status == 79, "{printed:?}");
}

#[test]
fn what_cannot_be_read_is_a_failure() {
    let mesh = FakeMesh::new();
    assert_snapshot!("absent", mesh.run(&["analyze", "absent.yaml"]).all());
    std::fs::create_dir(mesh.path("empty")).expect("a folder");
    assert_snapshot!("empty", mesh.run(&["analyze", "empty"]).all());
}
