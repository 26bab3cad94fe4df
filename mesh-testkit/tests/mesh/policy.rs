//! Policies as users write them, against HTTP and TCP servers that know nothing of them.

use mesh_testkit::{LocalMesh, RedisSession, eventually};

use crate::layout::{CACHE, CLIENTS, WEB, document, layout, mesh_of};

/// What Istio answers to HTTP requests that are denied.
const DENIED: &str = "RBAC: access denied";

/// What is tried: a request by curl, or a connection to redis.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// curl's arguments, split at spaces.
    Http(&'static str),
    /// A `PING`.
    Redis,
}

/// A probe, from which workload, and whether it is let through.
type Expectation = (&'static str, Probe, bool);

use Probe::{Http, Redis};

/// Workloads behind the names below.
const CLIENT: &str = "client.edge";
const GUEST: &str = "guest.lab";
const OUTSIDER: &str = "outsider.out";

struct Case {
    /// The rule that it is an example of.
    rule: &'static str,
    /// Documents: name, selected app or none, rest of the spec.
    policies: &'static [(&'static str, Option<&'static str>, &'static str)],
    expected: &'static [Expectation],
}

const ROOT: Probe = Http("http://web.shop:8080/");
const ADMIN: Probe = Http("http://web.shop:8081/");
const POST: Probe = Http("-XPOST http://web.shop:8080/");

const CASES: &[Case] = &[
    Case {
        rule: "principals name one service account; who has none is not let in",
        policies: &[(
            "a",
            Some("web"),
            "action: ALLOW\nrules:\n- from: [{source: {principals: [cluster.local/ns/edge/sa/client]}}]",
        )],
        expected: &[
            (CLIENT, ROOT, true),
            (GUEST, ROOT, false),
            (OUTSIDER, Http("http://@WEB@:8080/"), false),
            (GUEST, Redis, true),
        ],
    },
    Case {
        rule: "an ALLOW without rules lets nobody in; it holds for the whole namespace without a selector",
        policies: &[("b", None, "{}")],
        expected: &[(CLIENT, ROOT, false), (CLIENT, Redis, false), (GUEST, Redis, false)],
    },
    Case {
        rule: "a rule that says nothing lets everybody in",
        policies: &[("c", None, "rules: [{}]")],
        expected: &[(CLIENT, ROOT, true), (GUEST, Redis, true), (OUTSIDER, Http("http://@WEB@:8080/"), true)],
    },
    Case {
        rule: "namespaces, methods and paths of one rule must all hold, and any operation may",
        policies: &[(
            "d",
            Some("web"),
            "rules:\n- from: [{source: {namespaces: [edge]}}]\n  to:\n  - operation: {methods: [GET], paths: [/exact, '/prefix*', '*.css']}\n  - operation: {methods: [PUT]}",
        )],
        expected: &[
            (CLIENT, Http("http://web.shop:8080/exact"), true),
            (CLIENT, Http("http://web.shop:8080/exact?query"), true),
            (CLIENT, Http("http://web.shop:8080/exact/"), false),
            (CLIENT, Http("http://web.shop:8080/prefix/deep"), true),
            (CLIENT, Http("http://web.shop:8080/a/b.css"), true),
            (CLIENT, Http("-XPOST http://web.shop:8080/exact"), false),
            (CLIENT, Http("-XPUT http://web.shop:8080/anything"), true),
            (GUEST, Http("http://web.shop:8080/exact"), false),
        ],
    },
    Case {
        rule: "DENY wins over ALLOW, whatever way the path is written",
        policies: &[
            ("e1", Some("web"), "rules: [{}]"),
            ("e2", Some("web"), "action: DENY\nrules: [{to: [{operation: {paths: ['/admin*']}}]}]"),
        ],
        expected: &[
            (CLIENT, Http("http://web.shop:8080/admin"), false),
            (CLIENT, Http("--path-as-is http://web.shop:8080/x/../admin"), false),
            (CLIENT, Http("--path-as-is http://web.shop:8080/%61dmin"), false),
            (CLIENT, Http("--path-as-is http://web.shop:8080/x/%2e%2e/admin/1"), false),
            (CLIENT, Http("--path-as-is http://web.shop:8080/admin/../ok"), true),
            (CLIENT, Http("http://web.shop:8080/administrator"), false),
            (CLIENT, Http("http://web.shop:8080/ok"), true),
        ],
    },
    Case {
        rule: "ports are those of the workload",
        policies: &[("f", Some("web"), "rules: [{to: [{operation: {ports: ['8081']}}]}]")],
        expected: &[(CLIENT, ROOT, false), (CLIENT, ADMIN, true), (GUEST, ADMIN, true)],
    },
    Case {
        rule: "hosts are compared without regard to case, with the port that was asked for",
        policies: &[(
            "g",
            Some("web"),
            "rules: [{to: [{operation: {hosts: ['WEB.shop:*', public.example]}}]}]",
        )],
        expected: &[
            (CLIENT, ROOT, true),
            (CLIENT, Http("-H host:public.example http://web.shop:8080/"), true),
            (CLIENT, Http("-H host:PUBLIC.example http://web.shop:8080/"), true),
            (CLIENT, Http("-H host:other.example http://web.shop:8080/"), false),
            (CLIENT, Http("http://web.shop.svc:8080/"), false),
        ],
    },
    Case {
        rule: "conditions: headers, source, destination",
        policies: &[(
            "h",
            Some("web"),
            "rules:\n- when:\n  - {key: 'request.headers[x-team]', values: [blue, 'gre*']}\n  - {key: source.namespace, notValues: [lab]}\n  - {key: destination.port, values: ['8080']}",
        )],
        expected: &[
            (CLIENT, Http("-H x-team:blue http://web.shop:8080/"), true),
            (CLIENT, Http("-H X-Team:green http://web.shop:8080/"), true),
            (CLIENT, Http("-H x-team:red http://web.shop:8080/"), false),
            (CLIENT, ROOT, false),
            (GUEST, Http("-H x-team:blue http://web.shop:8080/"), false),
            (CLIENT, Http("-H x-team:blue http://web.shop:8081/"), false),
        ],
    },
    Case {
        rule: "address ranges, on HTTP and TCP",
        policies: &[
            ("i1", Some("web"), "rules: [{from: [{source: {ipBlocks: [@CLIENT@/32]}}]}]"),
            ("i2", Some("cache"), "rules: [{from: [{source: {notIpBlocks: [@CLIENT@]}}]}]"),
        ],
        expected: &[(CLIENT, ROOT, true), (GUEST, ROOT, false), (CLIENT, Redis, false), (GUEST, Redis, true)],
    },
    Case {
        rule: "what is excluded, in a DENY: everybody but the client, everything but GET",
        policies: &[
            (
                "j1",
                None,
                "action: DENY\nrules: [{from: [{source: {notPrincipals: [cluster.local/ns/edge/sa/client]}}]}]",
            ),
            (
                "j2",
                Some("web"),
                "action: DENY\nrules: [{to: [{operation: {notMethods: [GET]}}]}, {to: [{operation: {notPaths: ['/*'], methods: [GET]}}]}]",
            ),
        ],
        expected: &[
            (CLIENT, ROOT, true),
            (CLIENT, POST, false),
            (GUEST, ROOT, false),
            (GUEST, Redis, false),
            (CLIENT, Redis, true),
            (OUTSIDER, Http("http://@WEB@:8080/"), false),
        ],
    },
    Case {
        rule: "on TCP an ALLOW with a field of HTTP never matches, and a DENY loses the field and denies more",
        policies: &[
            (
                "k1",
                Some("cache"),
                "rules: [{to: [{operation: {methods: [GET]}}]}, {from: [{source: {namespaces: [lab]}}]}]",
            ),
            ("k2", Some("web"), "action: DENY\nrules: [{to: [{operation: {methods: [DELETE]}}]}]"),
        ],
        expected: &[
            (CLIENT, Redis, false),
            (GUEST, Redis, true),
            (CLIENT, ROOT, true),
            (CLIENT, Http("-XDELETE http://web.shop:8080/"), false),
        ],
    },
    Case {
        rule: "a DENY of a path closes TCP ports",
        policies: &[("l", None, "action: DENY\nrules: [{to: [{operation: {paths: [/admin]}}]}]")],
        expected: &[
            (CLIENT, Redis, false),
            (CLIENT, ROOT, true),
            (CLIENT, Http("http://web.shop:8080/admin"), false),
        ],
    },
    Case {
        rule: "service accounts are those of the policy's namespace unless they name one",
        policies: &[("m", None, "rules: [{from: [{source: {serviceAccounts: [edge/client, guest]}}]}]")],
        expected: &[(CLIENT, ROOT, true), (CLIENT, Redis, true), (GUEST, ROOT, false), (GUEST, Redis, false)],
    },
    Case {
        rule: "without a policy everybody is let in",
        policies: &[],
        expected: &[(CLIENT, ROOT, true), (GUEST, Redis, true), (OUTSIDER, Http("http://@WEB@:8080/"), true)],
    },
];

fn with_addresses(mesh: &LocalMesh, text: &str) -> String {
    text.replace("@WEB@", &mesh.address("web").to_string())
        .replace("@CLIENT@", &mesh.address("client").to_string())
}

/// Tries; `Err` tells what came instead of what was expected.
fn attempt(mesh: &LocalMesh, (from, probe, is_allowed): Expectation) -> Result<(), String> {
    let (is_right, came) = match probe {
        Http(args) => {
            let args = with_addresses(mesh, args);
            let answer = mesh.curl(from, &args.split(' ').collect::<Vec<_>>());
            let is_right = if is_allowed {
                answer.status == 200 && answer.body.starts_with("web|")
            } else {
                answer.status == 403 && answer.body == DENIED
            };
            (is_right, format!("{answer:?}"))
        }
        Redis => {
            let answer = mesh.exec(from, &["timeout", "10", "redis-cli", "-h", "cache.shop", "ping"]);
            let is_right = if is_allowed {
                answer.out.trim() == "PONG"
            } else {
                !answer.is_success() && answer.out.trim().is_empty()
            };
            (is_right, format!("{answer:?}"))
        }
    };
    if is_right { Ok(()) } else { Err(format!("{from} {probe:?}, allowed: {is_allowed}: {came}")) }
}

/// Names of the policies that the proxies of both servers say they enforce.
fn enforced(mesh: &LocalMesh, app: &str) -> Vec<String> {
    let status = mesh.json(&["proxy-config", "policy", &format!("{app}.shop")]);
    let text = status.to_string();
    let names: Vec<&str> = CASES.iter().flat_map(|case| case.policies).map(|(name, ..)| *name).collect();
    names
        .into_iter()
        .filter(|name| text.contains(&format!("\"name\":\"{name}\"")))
        .map(str::to_owned)
        .collect()
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn policies_decide_as_written() {
    let mesh = layout().up(&mesh_of(&[WEB, CACHE, CLIENTS]));
    for case in CASES {
        let mut text = "# Who may call whom.\n".to_owned();
        for (name, app, spec) in case.policies {
            let selector =
                app.map(|app| format!("selector: {{matchLabels: {{app: {app}}}}}\n")).unwrap_or_default();
            let spec = if *spec == "{}" { "action: ALLOW" } else { spec };
            let spec = with_addresses(&mesh, &format!("{selector}{spec}"));
            text.push_str(&document("AuthorizationPolicy", "shop", name, &spec));
        }
        if case.policies.is_empty() {
            mesh.deconfigure("policies.yaml");
        } else {
            mesh.configure("policies.yaml", &text);
        }
        for app in ["web", "cache"] {
            let concerned =
                case.policies.iter().filter(|(_, selected, _)| selected.is_none_or(|name| name == app));
            let wanted: Vec<&str> = concerned.map(|(name, ..)| *name).collect();
            eventually(&format!("{app} enforces {wanted:?}"), || {
                let found = enforced(&mesh, app);
                if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
            });
        }
        // The proxy says that it enforces them: from here on there is nothing to wait for.
        for expectation in case.expected {
            let outcome = attempt(&mesh, *expectation);
            assert!(outcome.is_ok(), "{}: {}\n{text}", case.rule, outcome.unwrap_err());
        }
    }
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_change_of_policy_cuts_what_is_open_and_no_longer_allowed() {
    const CHAT: &str = r#"
- name: chat
  namespace: shop
  command: [/usr/bin/python3, -u, "@FOLDER@/websocket_server.py"]
  ports: [{port: 8765, name: http}]
"#;
    let mesh = layout().up(&mesh_of(&[CACHE, CHAT, CLIENTS]));
    let mut session = RedisSession::open(&mesh, CLIENT, "cache.shop");
    let mut other = RedisSession::open(&mesh, GUEST, "cache.shop");
    assert_eq!(session.ask("ping").as_deref(), Some("+PONG"));
    assert_eq!(other.ask("ping").as_deref(), Some("+PONG"));
    let client = mesh.path("websocket_client.py");
    let client = client.to_str().expect("a path");
    let words = ["/usr/bin/python3", "-u", client, "ws://chat.shop:8765/", "wait"];
    let socket = mesh.exec_start(CLIENT, &words);
    eventually("the socket is open", || {
        let active =
            mesh.exec(CLIENT, &["sh", "-c", "ss -Htn state established '( dport = :8765 )' | wc -l"]);
        if active.out.trim() == "0" { Err(format!("{active:?}")) } else { Ok(()) }
    });
    let spec = "action: DENY\nrules: [{from: [{source: {namespaces: [edge]}}]}]";
    mesh.configure("deny.yaml", &document("AuthorizationPolicy", "shop", "deny", spec));
    session.until_cut();
    let said = socket.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.ends_with("cut\n"), "{said}");
    // Who may still call was not disturbed.
    assert_eq!(other.ask("ping").as_deref(), Some("+PONG"));
    let denied = mesh.must(&["x", "denied", "cache.shop"]);
    assert!(
        denied.contains("spiffe://cluster.local/ns/edge/sa/client")
            && denied.contains("ns[shop]-policy[deny]"),
        "{denied}"
    );
}
