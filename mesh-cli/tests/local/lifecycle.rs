//! Up, looked at, added to, and down.

use std::fs;
use std::time::{Duration, Instant};

use crate::mesh::{Mesh, User, eventually, is_alive, signal};

const CATALOG: &str = "http://catalog.backend:8080/api/products";

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn the_shop_comes_up_works_and_leaves_nothing_behind() {
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-f", "mesh.yaml", "-d"]);
    let answer = mesh.call("frontend.web", &["GET", CATALOG]);
    assert!(answer.out.starts_with("200"), "{answer:?}");
    let answer =
        mesh.call("frontend.web", &["POST", "http://frontend.web:8080/buy", "--body", "{\"product\":1}"]);
    assert!(answer.out.starts_with("201"), "{answer:?}");
    // A server that speaks first.
    let answer = mesh.call("orders.backend", &["STORE", "store.backend:7000", "--body", "GET order-1"]);
    assert!(answer.out.starts_with("store VALUE"), "{answer:?}");
    let rows = mesh.rows();
    let frontend = rows.iter().find(|row| row["name"] == "frontend").expect("the frontend");
    assert_eq!(frontend["namespace"], "web");
    assert_eq!(frontend["status"], "Running");
    assert_eq!(frontend["proxy_status"], "Running");
    let processes = mesh.processes();
    assert!(processes.len() > 12 && processes.iter().all(|pid| is_alive(*pid)), "{processes:?}");
    assert!(mesh.must(&["logs", "batch.backend"]).contains("4 products"));
    let is_recorded = || mesh.must(&["logs", "--access", "frontend.web"]).contains("/api/products");
    eventually("the call is in the access log", is_recorded);
    assert!(mesh.must(&["logs", "--control"]).contains("certificate issued"));
    mesh.must(&["down"]);
    mesh.assert_nothing_left(&processes);
    let again = mesh.ask(&["down"]);
    assert_eq!(again.status, Some(0), "twice down is down: {again:?}");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn ten_workloads_start_in_five_seconds() {
    let text = "workloads:\n- {name: w, replicas: 10, command: [sleep, infinity], ports: [8080]}\n";
    // The machine may be busy with other tests, which is not what is measured: the best of three counts.
    let start = || {
        let mesh = Mesh::of(text, User::Root);
        let begun = Instant::now();
        mesh.must(&["up", "-d"]);
        begun.elapsed()
    };
    let best = (0..3).map(|_| start()).min().expect("three starts");
    assert!(best < Duration::from_secs(5), "ten workloads took {} ms", best.as_millis());
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_program_runs_as_the_workload_and_its_status_is_passed_on() {
    let mesh = Mesh::of("workloads:\n- {name: web, namespace: a, command: [sleep, infinity]}\n", User::Root);
    mesh.must(&["up", "-d"]);
    let answer = mesh.ask(&[
        "exec",
        "web.a",
        "--",
        "sh",
        "-c",
        "hostname; id -u; grep CapEff /proc/self/status; exit 7",
    ]);
    assert_eq!(answer.status, Some(7), "{answer:?}");
    let lines: Vec<&str> = answer.out.lines().collect();
    assert_eq!(lines[0], "web");
    assert_ne!(lines[1], "0", "applications are not root");
    assert!(lines[2].ends_with("\t0000000000000000"), "applications have no capability: {lines:?}");
    let addresses = mesh.must(&["exec", "web", "--", "ip", "-o", "-4", "address", "show", "eth0"]);
    assert!(addresses.contains("10.77.0.10/16"), "{addresses}");
    assert_eq!(mesh.ask(&["exec", "web.a", "--", "no-such-program"]).status, Some(127));
    assert_eq!(mesh.ask(&["exec", "web.a", "--", "sh", "-c", "kill -KILL $$"]).status, Some(137));
    let unknown = mesh.ask(&["exec", "wep.a", "--", "true"]);
    assert!(unknown.status == Some(1) && unknown.err.contains("Did you mean web.a?"), "{unknown:?}");
    let state = mesh.path("state");
    let seen = mesh.must(&["exec", "web.a", "--", "ls", "-A", state.to_str().expect("a path")]);
    assert_eq!(seen, "", "applications do not see the mesh's state");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn one_more_workload_joins_and_goes_with_its_command() {
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-d"]);
    let out = mesh.must(&["run", "--service-account", "backend/batch", "--", "shop", "batch"]);
    assert!(out.contains("4 products"), "{out}");
    let is_job =
        |row: &serde_json::Value| row["name"].as_str().is_some_and(|name| name.starts_with("batch-"));
    eventually("the job's workload goes with it", || !mesh.rows().iter().any(is_job));

    let mut attached =
        mesh.start(&["run", "--service-account", "web/tester", "--name", "t", "--", "sleep", "600"]);
    let has_joined = || mesh.rows().iter().any(|row| row["name"] == "t" && row["status"] == "Running");
    eventually("it joins", has_joined);
    let meshctl = child_of(i32::try_from(attached.id()).expect("a number"));
    signal("KILL", meshctl);
    attached.wait().expect("it ends");
    eventually("it goes with its command", || mesh.rows().iter().all(|row| row["name"] != "t"));

    mesh.must(&[
        "run",
        "-d",
        "--service-account",
        "web/extra",
        "--name",
        "extra",
        "--port",
        "8080",
        "--",
        "shop",
        "catalog",
    ]);
    let url = "http://extra.web:8080/api/products";
    eventually("it serves", || mesh.call("frontend.web", &["GET", url]).out.starts_with("200"));
    mesh.must(&["down", "extra.web"]);
    assert!(mesh.rows().iter().all(|row| row["name"] != "extra"));
    assert!(mesh.call("frontend.web", &["GET", CATALOG]).out.starts_with("200"), "the mesh is still up");
}

/// The child of a process: `timeout` runs the command as one.
fn child_of(pid: i32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).expect("the kernel lists children");
    children.split_whitespace().next().expect("a child").parse().expect("a number")
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn in_the_foreground_logs_are_shown_and_the_end_takes_the_mesh_down() {
    let text = "workloads:\n- {name: talker, command: [sh, -c, \"echo hello from me; sleep 600\"]}\n";
    let mesh = Mesh::of(text, User::Root);
    let up = mesh.start(&["up"]);
    eventually("it is up", || {
        mesh.ask(&["logs", "talker"]).out.contains("hello from me") && is_running(&mesh, "talker")
    });
    let processes = mesh.processes();
    signal("INT", child_of(i32::try_from(up.id()).expect("a number")));
    let done = up.wait_with_output().expect("it ends");
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(out.contains("talker.default | hello from me"), "{out}");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    mesh.assert_nothing_left(&processes);
}

fn is_running(mesh: &Mesh, name: &str) -> bool {
    mesh.rows().iter().any(|row| row["name"] == name && row["status"] == "Running")
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn restarting_changes_one_process_and_no_other() {
    let mesh = Mesh::of("workloads:\n- {name: web, command: [sleep, infinity]}\n", User::Root);
    mesh.must(&["up", "-d"]);
    let numbers =
        || [mesh.number("web", "pid"), mesh.number("web", "proxy_pid"), mesh.number("mesh-control", "pid")];
    for (args, changed) in
        [(&["restart", "web"][..], 0), (&["restart", "web", "--proxy"], 1), (&["restart", "--control"], 2)]
    {
        let before = numbers();
        mesh.must(args);
        let after = numbers();
        for position in 0..3 {
            assert_eq!(
                before[position] != after[position],
                position == changed,
                "{args:?} {before:?} {after:?}"
            );
        }
    }
}
