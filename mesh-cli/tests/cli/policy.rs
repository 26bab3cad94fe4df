//! `policy test`: what it says, in every form, and how it ends.

use std::path::Path;

use insta::assert_snapshot;

use crate::admin::FakeMesh;

const TEST: &str = "\
apiVersion: mini-mesh.io/v1alpha1
kind: PolicyTest
metadata: {name: catalog}
spec:
  policies:
  - file: policies/*.yaml
  cases:
  - name: frontend may read
    workload: {namespace: backend}
    request: {principal: spiffe://cluster.local/ns/web/sa/frontend, path: '/a/../read?x'}
    expect: {decision: allow, status: 200, policy: backend/readers, upstream: {path: '/read?x'}}
  - name: everybody may read
    workload: {namespace: backend}
    request: {path: /read, headers: {x-a: [one, two]}}
    expect: {decision: allow, status: 200, upstream: {headers: {x-a: one}}}
  admission:
  - name: a misspelt field is refused
    document: {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x}, spec: {ruels: []}}
    expect: reject
    message: did you mean RULES
  - name: a path is accepted
    document: {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: x}, spec: {rules: [{to: [{operation: {paths: ['/{a}']}}]}]}}
    expect: accept
";

const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: backend}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/web/sa/frontend]}}]
    to: [{operation: {paths: [/read]}}]
  - to: [{operation: {paths: [/open]}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: backend}
";

fn mesh() -> FakeMesh {
    let mesh = FakeMesh::new();
    mesh.write("tests/catalog.yaml", TEST);
    mesh.write("tests/policies/readers.yaml", POLICIES);
    mesh
}

#[test]
fn a_failure_is_told_in_every_form() {
    let mesh = mesh();
    for form in ["human", "json", "junit", "tap"] {
        let printed = mesh.run(&["policy", "test", "tests", "-o", form, "--coverage", "80"]);
        assert_eq!(printed.status, 1, "{printed:?}");
        assert_snapshot!(format!("test_{form}"), printed.all());
    }
}

#[test]
fn what_holds_ends_with_0_and_too_little_coverage_with_1() {
    let mesh = mesh();
    mesh.write(
        "tests/catalog.yaml",
        &TEST
            .replace("expect: accept", "expect: reject")
            .replace("{path: /read, headers", "{path: /open, headers")
            .replace("x-a: one}", "x-a: [one, two]}"),
    );
    let printed = mesh.run(&["policy", "test", "tests/catalog.yaml", "--coverage", "100"]);
    assert_eq!(
        (printed.status, printed.stdout.as_str()),
        (0, "✔ 2 cases passed, 2 admission tests passed\ncoverage: 2 rules, all exercised\n")
    );
    let few = TEST
        .replace("expect: accept", "expect: reject")
        .replace("{decision: allow, status: 200, upstream: {headers: {x-a: one}}}", "deny");
    mesh.write("tests/catalog.yaml", &few);
    assert_eq!(mesh.run(&["policy", "test", "tests"]).status, 0);
    assert_eq!(mesh.run(&["policy", "test", "tests", "--coverage", "50"]).status, 0);
    assert_eq!(mesh.run(&["policy", "test", "tests", "--coverage", "51"]).status, 1);
}

#[test]
fn what_cannot_run_ends_with_2_whatever_else_holds() {
    let mesh = mesh();
    let good = "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyTest\nspec: {cases: [{name: a, request: {}, expect: allow}]}\n";
    mesh.write("good.yaml", good);
    assert_eq!(mesh.run(&["policy", "test", "good.yaml"]).status, 0);
    let broken = [
        ("an unknown field", TEST.replace("cases:", "casse:")),
        ("a policy that is not valid", TEST.replace("- file: policies/*.yaml", "- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: p}, spec: {action: DENY}}")),
        ("a pattern that finds nothing", TEST.replace("policies/*.yaml", "nowhere/*.yaml")),
        ("a name that stands twice", TEST.replace("everybody may read", "frontend may read")),
        ("another kind", POLICIES.to_owned()),
        ("no YAML", "a: [".to_owned()),
        ("nothing", String::new()),
    ];
    for (what, text) in broken {
        mesh.write("tests/catalog.yaml", &text);
        let printed = mesh.run(&["policy", "test", "tests/catalog.yaml", "good.yaml"]);
        assert_eq!(printed.status, 2, "{what}: {printed:?}");
        assert!(printed.stdout.contains("1 case passed"), "{what}: {printed:?}");
        assert!(printed.stderr.contains("tests/catalog.yaml:"), "{what}: {printed:?}");
    }
    mesh.write("tests/catalog.yaml", TEST);
    mesh.write("tests/policies/broken.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: b}\nspec: {action: DENNY}\n");
    let printed = mesh.run(&["policy", "test", "tests/catalog.yaml"]);
    assert_eq!(printed.status, 2, "{printed:?}");
    assert!(printed.stderr.contains("tests/policies/broken.yaml:4"), "{printed:?}");
    assert_eq!(mesh.run(&["policy", "test", "absent.yaml"]).status, 2);
    assert_eq!(mesh.run(&["policy", "test", "tests/policies"]).status, 2, "a folder without tests");
    assert_eq!(mesh.run(&["policy", "test"]).status, 64);
}

#[test]
fn a_folder_may_hold_other_files() {
    let mesh = mesh();
    mesh.write("tests/notes.yaml", "a: [");
    mesh.write("tests/policies/other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n");
    let printed = mesh.run(&["policy", "test", "tests", "-o", "json"]);
    assert_eq!(printed.status, 1, "{printed:?}");
    let report: serde_json::Value = serde_json::from_str(&printed.stdout).expect("JSON");
    assert_eq!((&report["passed"], &report["failed"]), (&2.into(), &2.into()));
}

#[test]
fn tests_may_come_from_standard_input() {
    let mesh = FakeMesh::new();
    let text = "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyTest\nspec: {cases: [{name: a, request: {}, expect: deny}]}\n";
    let printed = mesh.run_with(&["policy", "test", "-"], text, &[]);
    assert_eq!(printed.status, 1);
    assert!(
        printed.stdout.starts_with("FAIL stdin:3 a: decision: expected deny, found allow"),
        "{printed:?}"
    );
}

/// The tests of the policy engine, and those of the example, through the program that users run.
#[test]
fn the_policy_tests_of_the_project_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mesh = FakeMesh::new();
    for folder in ["mesh-policy/tests/policy", "examples/shop/policy-tests"] {
        let folder = root.join(folder);
        let printed = mesh.run(&["policy", "test", &folder.to_string_lossy()]);
        assert_eq!(printed.status, 0, "{printed:?}");
    }
}
