//! `policy verify` and `policy diff`: what they say of the classic mistakes, in every form, and how they end.

use insta::assert_snapshot;

use crate::admin::{FakeMesh, Printed};

/// Payments of which the stray dash makes two rules: orders may call anything, anybody may post.
const STRAY_DASH: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payments, namespace: payments}
spec:
  rules:
  - from: [{source: {namespaces: [payments]}}]
  - from: [{source: {principals: [cluster.local/ns/orders/sa/orders]}}]
  - to: [{operation: {methods: [POST], paths: [/api/payments]}}]
";

/// What was meant.
const MENDED: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payments, namespace: payments}
spec:
  rules:
  - from: [{source: {namespaces: [payments]}}]
  - from: [{source: {principals: [cluster.local/ns/orders/sa/orders]}}]
    to: [{operation: {methods: [POST], paths: [/api/payments]}}]
";

const ASSERTIONS: &str = "\
apiVersion: mini-mesh.io/v1alpha1
kind: PolicyAssertion
metadata: {name: payments-isolated}
spec:
  assertions:
  - name: only orders may post from outside
    workloads: {namespace: payments}
    verdict: deny
    requests: {from: [{source: {notNamespaces: [payments]}}]}
    except:
    - from: [{source: {principals: [cluster.local/ns/orders/sa/orders]}}]
      to: [{operation: {methods: [POST], paths: [/api/payments]}}]
  - name: payments may call itself
    workloads: {namespace: payments}
    verdict: allow
    requests: {from: [{source: {namespaces: [payments]}}]}
";

/// The answer about one assertion, with these lines below it, and these lines below `spec` of a policy of
/// namespace `backend`.
fn ask(policy: &str, assertion: &str) -> Printed {
    let mesh = FakeMesh::new();
    mesh.write(
        "policy.yaml",
        &format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: backend}}\nspec: {policy}\n"),
    );
    mesh.write(
        "assertion.yaml",
        &format!(
            "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyAssertion\nspec:\n  assertions:\n  - {{name: a, workloads: {{namespace: backend}}, {assertion}}}\n"
        ),
    );
    mesh.run(&["policy", "verify", "-f", "assertion.yaml", "policy.yaml"])
}

#[test]
fn a_stray_dash_is_found_by_what_was_meant() {
    let mesh = FakeMesh::new();
    mesh.write("payments.yaml", STRAY_DASH);
    mesh.write("mended.yaml", MENDED);
    mesh.write("assertions.yaml", ASSERTIONS);
    let verify =
        |file: &str, form: &str| mesh.run(&["policy", "verify", "-f", "assertions.yaml", file, "-o", form]);
    assert_snapshot!("verify_broken", verify("payments.yaml", "human").all());
    assert_snapshot!("verify_broken_json", verify("payments.yaml", "json").all());
    assert_snapshot!("verify_holds", verify("mended.yaml", "human").all());
}

#[test]
fn a_counter_example_is_a_case_of_a_policy_test() {
    let mesh = FakeMesh::new();
    mesh.write("payments.yaml", STRAY_DASH);
    mesh.write("assertions.yaml", ASSERTIONS);
    let printed = mesh.run(&["policy", "verify", "-f", "assertions.yaml", "payments.yaml"]);
    let request =
        printed.stdout.lines().find_map(|line| line.trim().strip_prefix("request: ")).expect("an example");
    mesh.write(
        "test.yaml",
        &format!(
            "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyTest\nspec:\n  policies: [{{file: payments.yaml}}]\n  cases:\n  - name: hole\n    \
             workload: {{namespace: payments}}\n    request: {request}\n    expect: allow\n"
        ),
    );
    let tested = mesh.run(&["policy", "test", "test.yaml"]);
    assert_eq!(tested.status, 0, "{tested:?}");
}

#[test]
fn classic_mistakes_are_told_apart_from_what_holds() {
    let deny_all = "verdict: deny";
    let outside = "verdict: deny, requests: {from: [{source: {notNamespaces: [backend]}}]}";
    let cases: &[(&str, &str, i32, &str)] = &[
        // Default deny.
        ("{}", deny_all, 0, "HOLDS"),
        ("{action: DENY, rules: [{}]}", deny_all, 0, "HOLDS"),
        ("{action: DENY, rules: [{from: [{source: {namespaces: ['*']}}]}]}", deny_all, 1, "in plaintext"),
        // Isolation of a namespace; anonymous callers are outside (TRAP 23).
        ("{rules: [{from: [{source: {namespaces: [backend]}}]}]}", outside, 0, "HOLDS"),
        ("{rules: [{from: [{source: {notNamespaces: [web]}}]}]}", outside, 1, "is allowed"),
        ("{rules: [{from: [{source: {principals: ['cluster.local/ns/backend/*']}}]}]}", outside, 0, "HOLDS"),
        (
            "{rules: [{from: [{source: {principals: ['cluster.local/ns/backend*']}}]}]}",
            outside,
            1,
            "/ns/backend",
        ),
        // A host with a port is another host (TRAP 24).
        (
            "{action: DENY, rules: [{to: [{operation: {hosts: [a.com]}}]}]}",
            "verdict: deny, protocol: http, requests: {to: [{operation: {hosts: [a.com, 'a.com:*']}}]}",
            1,
            "Host: a.com:",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {hosts: [a.com, 'a.com:*']}}]}]}",
            "verdict: deny, protocol: http, requests: {to: [{operation: {hosts: [A.com, 'a.com:*']}}]}",
            0,
            "HOLDS",
        ),
        // A prefix is textual, and a directory is not what is below it.
        (
            "{action: DENY, rules: [{to: [{operation: {paths: ['/admin*']}}]}]}",
            "verdict: allow, protocol: http, requests: {to: [{operation: {notPaths: [/admin, '/admin/*']}}]}",
            1,
            "/admin",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {paths: ['/admin/*']}}]}]}",
            "verdict: deny, protocol: http, requests: {to: [{operation: {paths: ['/admin*']}}]}",
            1,
            "/admin",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {paths: [/admin, '/admin/{**}']}}]}]}",
            "verdict: deny, protocol: http, requests: {to: [{operation: {paths: ['/admin/{*}']}}]}",
            0,
            "HOLDS",
        ),
        // DENY on paths refuses every TCP connection (TRAP 28).
        (
            "{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}",
            "verdict: deny, protocol: tcp",
            0,
            "HOLDS",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}",
            "verdict: allow, protocol: tcp",
            1,
            "nc WORKLOAD",
        ),
        // Without RequestAuthentication nobody has a request principal.
        ("{rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}", deny_all, 0, "HOLDS"),
        // One address family is not the other (TRAP 21).
        (
            "{action: DENY, rules: [{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}]}",
            deny_all,
            1,
            "\"sourceIp\":\"fd00::1\"",
        ),
        (
            "{rules: [{when: [{key: 'request.headers[x-tenant]', notValues: [a]}]}]}",
            "verdict: deny, requests: {when: [{key: 'request.headers[x-tenant]', values: ['*']}]}",
            1,
            "x-tenant",
        ),
    ];
    for (policy, assertion, status, told) in cases {
        let printed = ask(policy, assertion);
        assert_eq!(printed.status, *status, "{policy}\n{assertion}\n{printed:?}");
        assert!(printed.stdout.contains(told), "{policy}\n{assertion}\n{printed:?}");
    }
}

#[test]
fn mutual_tls_tokens_and_declared_ports_are_part_of_the_answer() {
    let mesh = FakeMesh::new();
    mesh.write(
        "policies/all.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: backend}\nspec: {mtls: {mode: STRICT}}\n---\n\
         apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: backend}\n\
         spec: {jwtRules: [{issuer: 'https://idp', jwksUri: 'https://idp/keys'}]}\n---\n\
         apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: backend}\n\
         spec: {action: DENY, rules: [{from: [{source: {notRequestPrincipals: ['https://idp/*']}}], to: [{operation: {ports: ['80']}}]}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: backend}\n\
         spec: {selector: {app: api}, ports: [{name: http-web, port: 80}]}\n",
    );
    mesh.write(
        "a.yaml",
        "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyAssertion\nspec:\n  assertions:\n\
         \x20 - {name: nobody without identity, verdict: deny, requests: {from: [{source: {notPrincipals: ['*']}}]}}\n\
         \x20 - {name: tokens of others, verdict: deny, protocol: http, requests: {from: [{source: {requestPrincipals: ['*']}}], to: [{operation: {ports: ['80']}}]},\n\
         \x20    except: {from: [{source: {requestPrincipals: ['https://idp/*']}}]}}\n\
         \x20 - {name: no bytes on 80, verdict: deny, protocol: tcp, requests: {to: [{operation: {ports: ['80']}}]}}\n\
         \x20 - {name: other ports, verdict: deny, requests: {to: [{operation: {notPorts: ['80']}}]}}\n",
    );
    let printed = mesh.run(&["policy", "verify", "-f", "a.yaml", "policies"]);
    assert_snapshot!("verify_pipeline", printed.all());
}

#[test]
fn what_cannot_be_answered_ends_with_2() {
    let mesh = FakeMesh::new();
    mesh.write("payments.yaml", MENDED);
    mesh.write("broken.yaml", &ASSERTIONS.replace("requests:", "request:"));
    mesh.write("assertions.yaml", ASSERTIONS);
    mesh.write("bad.yaml", &MENDED.replace("paths", "path"));
    for (arguments, told) in [
        (["-f", "broken.yaml", "payments.yaml"], "Did you mean requests?"),
        (["-f", "assertions.yaml", "bad.yaml"], "Did you mean paths?"),
        (["-f", "assertions.yaml", "nowhere.yaml"], "cannot read nowhere.yaml"),
        (["-f", "payments.yaml", "payments.yaml"], "kind"),
    ] {
        let printed = mesh.run(&[&["policy", "verify"], &arguments[..]].concat());
        assert_eq!(printed.status, 2, "{printed:?}");
        assert!(printed.stderr.contains(told), "{told}: {printed:?}");
    }
    let forwarded = ask(
        "{rules: [{when: [{key: 'request.headers[x-forwarded-client-cert]', values: [a]}]}]}",
        "verdict: deny",
    );
    assert_eq!(forwarded.status, 2, "{forwarded:?}");
    assert!(forwarded.stdout.contains("UNDECIDED"), "{forwarded:?}");
}

#[test]
fn differences_are_told_with_an_example_each() {
    let mesh = FakeMesh::new();
    mesh.write("old/payments.yaml", MENDED);
    mesh.write("new/payments.yaml", STRAY_DASH);
    mesh.write(
        "strict/payments.yaml",
        &format!("{MENDED}---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p, namespace: payments}}\nspec: {{mtls: {{mode: STRICT}}}}\n"),
    );
    std::fs::create_dir(mesh.path("none")).expect("a folder");
    for (name, old, new) in [
        ("diff_stray_dash", "old", "new"),
        ("diff_deleted", "old", "none"),
        ("diff_same", "old", "old"),
        // Whoever has no certificate was refused before.
        ("diff_strict", "old", "strict"),
        ("diff_strict_alone", "none", "strict"),
    ] {
        assert_snapshot!(name, mesh.run(&["policy", "diff", old, new]).all());
    }
    assert_snapshot!("diff_json", mesh.run(&["policy", "diff", "old", "new", "-o", "json"]).all());
    assert_eq!(mesh.run(&["policy", "diff", "old", "nowhere"]).status, 2);
}

#[test]
fn recorded_requests_are_judged_by_both() {
    let mesh = FakeMesh::new();
    mesh.write("old/payments.yaml", STRAY_DASH);
    mesh.write("new/payments.yaml", MENDED);
    let line = |method: &str, account: &str, decision: &str| {
        format!(
            r#"{{"direction":"inbound","method":"{method}","path":"/api/payments","authority":"payments.payments","downstream_remote_address":"10.0.0.7:4000","downstream_local_address":"10.0.0.9:8080","connection_security_policy":"mutual_tls","source_principal":"spiffe://cluster.local/ns/orders/sa/{account}","destination_principal":"spiffe://cluster.local/ns/payments/sa/payments","destination_workload":"payments","decision":"{decision}","policy":""}}"#
        )
    };
    let lines = [
        line("POST", "orders", "allow"),
        line("GET", "orders", "allow"),
        line("GET", "orders", "allow"),
        line("POST", "stranger", "deny"),
    ];
    mesh.write("access.log", &(lines.join("\n") + "\nno line\n"));
    let diff =
        |form: &str| mesh.run(&["policy", "diff", "old", "new", "--traffic", "access.log", "-o", form]).all();
    assert_snapshot!("diff_traffic", diff("human"));
    assert_snapshot!("diff_traffic_json", diff("json"));
    let same = mesh.run(&["policy", "diff", "old", "old", "--traffic", "access.log"]);
    assert_eq!(same.status, 0, "{same:?}");
}
