//! Processes are killed, replaced and reconfigured while requests go on.

use mesh_testkit::{Load, LocalMesh, eventually, is_alive, signal};
use serde_json::Value;

use crate::layout::{CACHE, CLIENT, CLIENTS, WEB, document, layout, mesh_of};

const URL: &str = "http://web.shop:8080/";

/// Two instances of a server.
const SITE: &str = r#"
- name: site
  namespace: shop
  replicas: 2
  command: [nginx, -e, stderr, -p, "@FOLDER@", -c, "@FOLDER@/nginx.conf", -g, "daemon off; pid scratch/site.pid;"]
  ports: [{port: 8080, name: http}]
"#;

fn strict(mesh: &LocalMesh) {
    mesh.configure(
        "strict.yaml",
        &document("PeerAuthentication", "istio-system", "default", "mtls: {mode: STRICT}"),
    );
}

/// Whether every proxy has what the control plane wants it to have.
fn until_in_sync(mesh: &LocalMesh, proxies: usize) {
    eventually("all proxies are connected and in sync", || {
        let status = mesh.json(&["status"]);
        let list = status["control"]["proxies"].as_array().cloned().unwrap_or_default();
        let is_well = |proxy: &Value| {
            let mut types = proxy["types"].as_object().into_iter().flat_map(|types| types.values());
            proxy["connected"] == true && types.all(|state| state["state"] == "SYNCED")
        };
        if list.len() == proxies && list.iter().all(is_well) { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn no_request_fails_while_the_control_plane_is_killed_and_certificates_rotate() {
    let mesh = layout().up(&format!("workloadTtl: 10s\n{}", mesh_of(&[WEB, CLIENTS])));
    strict(&mesh);
    let serial = |mesh: &LocalMesh| {
        let secrets = mesh.json(&["proxy-config", "secret", "web.shop"]);
        let leaf = secrets.as_array().and_then(|list| list.first()).cloned().unwrap_or(secrets);
        leaf["serial_number"].clone()
    };
    let load = Load::start(&mesh, "client.edge", URL, 14);
    let before = serial(&mesh);
    assert!(before.is_string(), "{before}");
    for _ in 0..2 {
        let control = mesh.pid("mesh-control", "pid");
        signal("KILL", control);
        mesh.until_replaced("mesh-control", "pid", control);
        until_in_sync(&mesh, 3);
    }
    // What is decided after the kill arrives.
    let deny = "action: DENY\nrules: [{from: [{source: {namespaces: [lab]}}]}]";
    mesh.configure("deny.yaml", &document("AuthorizationPolicy", "shop", "deny", deny));
    eventually("the new policy is in force", || {
        let answer = mesh.curl("guest.lab", &[URL]);
        if answer.status == 403 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let result = load.end();
    assert!(result.succeeded > 0 && result.refused == 0 && result.failed == 0, "{result:?}");
    assert_ne!(serial(&mesh), before, "the certificate was replaced under the load");
    let answer = mesh.curl("client.edge", &[URL]);
    assert!(answer.body.ends_with(CLIENT), "{answer:?}");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_killed_proxy_fails_closed_and_comes_back_by_itself() {
    let mesh = layout().up(&mesh_of(&[WEB, CACHE, CLIENTS]));
    strict(&mesh);
    for name in ["client", "web"] {
        let load = Load::start(&mesh, "client.edge", URL, 3);
        let before = mesh.pid(name, "proxy_pid");
        let application = mesh.pid(name, "pid");
        // While its proxy cannot answer, a workload is reached and reaches others by no other way.
        signal("STOP", before);
        let address = mesh.address("web");
        for (from, url) in
            [("outsider.out", format!("http://{address}:8080/")), ("client.edge", URL.to_owned())]
        {
            let answer = mesh.exec(from, &["curl", "-sS", "--max-time", "1", &url]);
            assert!(!answer.out.contains("web|"), "around the proxy of {name}: {answer:?}");
        }
        signal("KILL", before);
        let answer = mesh
            .exec("outsider.out", &["curl", "-sS", "--max-time", "1", &format!("http://{address}:8080/")]);
        assert!(!answer.out.contains("web|"), "without the proxy of {name}: {answer:?}");
        mesh.until_replaced(name, "proxy_pid", before);
        let answer = eventually("requests are answered again", || {
            let answer = mesh.curl("client.edge", &[URL]);
            if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
        });
        assert!(answer.body.ends_with(CLIENT), "{answer:?}");
        assert_eq!(mesh.pid(name, "pid"), application, "the application was left alone");
        // Some of its requests failed, and it ended: nothing hangs.
        assert!(load.end().succeeded > 0);
    }
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn no_request_fails_while_one_of_two_instances_is_restarted() {
    let mesh = layout().up(&mesh_of(&[SITE, CLIENTS]));
    strict(&mesh);
    let site = "http://site.shop:8080/";
    for words in
        [&["restart", "site-0.shop"][..], &["restart", "site-1.shop", "--proxy"], &["restart", "--control"]]
    {
        let load = Load::start(&mesh, "client.edge", site, 5);
        mesh.must(words);
        let result = load.end();
        assert!(result.succeeded > 0 && result.refused == 0 && result.failed == 0, "{words:?}: {result:?}");
    }
    // Both serve again.
    let mut seen = std::collections::BTreeSet::new();
    eventually("both instances answer", || {
        let answer = mesh.curl("client.edge", &[site]);
        seen.insert(answer.body.split('|').next().unwrap_or_default().to_owned());
        if ["site-0", "site-1"].iter().all(|name| seen.contains(*name)) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_killed_application_comes_back_and_its_callers_are_told_whose_fault_it_was() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    let load = Load::start(&mesh, "client.edge", URL, 4);
    let before = mesh.pid("web", "pid");
    let proxy = mesh.pid("web", "proxy_pid");
    signal("KILL", before);
    mesh.until_replaced("web", "pid", before);
    let answer = eventually("requests are answered again", || {
        let answer = mesh.curl("client.edge", &[URL]);
        if answer.status == 200 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(answer.body.ends_with(CLIENT), "{answer:?}");
    assert_eq!(mesh.pid("web", "proxy_pid"), proxy, "the proxy was left alone");
    let result = load.end();
    assert!(result.succeeded > 0 && result.failed == 0, "every request has an answer: {result:?}");
    let blamed = mesh.access_log("web.shop").into_iter().filter(|record| {
        record["direction"] == "inbound" && record["response_code"].as_u64().is_some_and(|code| code >= 500)
    });
    for record in blamed {
        assert_eq!(record["fault_domain"], "app", "{record}");
    }
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn policy_edits_under_load_fail_no_request_that_was_always_allowed() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    let load = Load::start(&mesh, "client.edge", URL, 6);
    for round in 0..6 {
        let guest = if round % 2 == 0 { ", lab" } else { "" };
        let spec = format!("rules: [{{from: [{{source: {{namespaces: [edge{guest}]}}}}]}}]");
        mesh.configure("allow.yaml", &document("AuthorizationPolicy", "shop", "allow", &spec));
        let wanted = if round % 2 == 0 { 200 } else { 403 };
        eventually("the edit takes effect", || {
            let answer = mesh.curl("guest.lab", &[URL]);
            if answer.status == wanted { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
    let result = load.end();
    assert!(result.succeeded > 0 && result.refused == 0 && result.failed == 0, "{result:?}");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_killed_supervisor_takes_everything_with_it_under_load() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    let rows = mesh.json(&["ps", "--all"]);
    let rows = rows.as_array().expect("rows");
    let numbers = rows.iter().flat_map(|row| [&row["pid"], &row["proxy_pid"]]).filter_map(Value::as_i64);
    let all: Vec<i32> = numbers.map(|number| i32::try_from(number).expect("a number")).collect();
    assert!(all.len() >= 8, "{rows:?}");
    let mut load = mesh.exec_start("client.edge", &["h2load", "--h1", "-c2", "-D", "30", URL]);
    signal("KILL", mesh.pid("supervisor", "pid"));
    eventually("nothing of it runs", || {
        let left: Vec<&i32> = all.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    eventually("what was run in it has ended", || match load.try_wait() {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // `down`, which every mesh of a test ends with, finds what is left and removes it.
}
