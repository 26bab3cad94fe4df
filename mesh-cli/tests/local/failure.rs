//! What is killed comes back, what cannot work says why, and what is broken is cleaned up.

use std::fs;
use std::time::{Duration, Instant};

use crate::mesh::{Mesh, User, eventually, is_alive, signal};

const CATALOG: &str = "http://catalog.backend:8080/api/products";

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn whatever_is_killed_comes_back() {
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-d"]);
    for (name, field) in
        [("frontend", "pid"), ("frontend", "proxy_pid"), ("catalog-0", "proxy_pid"), ("mesh-control", "pid")]
    {
        let before = mesh.number(name, field);
        signal("KILL", before);
        let is_back = || {
            let rows = mesh.rows();
            let row = rows.iter().find(|row| row["name"] == name).expect("a row");
            let is_ready = row["status"] == "Running"
                && (row["proxy_status"].is_null() || row["proxy_status"] == "Running");
            is_ready && row[field].as_i64().is_some_and(|now| now != i64::from(before))
        };
        eventually(&format!("{field} of {name} is back"), is_back);
        eventually("calls work again", || {
            mesh.call("frontend.web", &["GET", CATALOG]).out.starts_with("200")
        });
    }
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn after_the_supervisor_was_killed_nothing_runs_and_down_cleans_up() {
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-d"]);
    let processes = mesh.processes();
    signal("KILL", mesh.number("supervisor", "pid"));
    eventually("the kernel ends all", || !processes.iter().any(|pid| is_alive(*pid)));
    let ps = mesh.ask(&["ps"]);
    assert!(ps.status == Some(1) && ps.err.contains("the mesh has ended"), "{ps:?}");
    mesh.must(&["down"]);
    mesh.assert_nothing_left(&processes);
    mesh.must(&["up", "-d"]);
    let supervisor = mesh.number("supervisor", "pid");
    signal("KILL", supervisor);
    eventually("the supervisor ends last", || !is_alive(supervisor));
    // Without a `down`, the next `up` cleans up itself.
    mesh.must(&["up", "-d"]);
    assert!(mesh.call("frontend.web", &["GET", CATALOG]).out.starts_with("200"));
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn what_does_not_start_is_named_with_its_reason_and_the_rest_runs() {
    let text = "workloads:\n\
                - {name: absent, command: [no-such-program]}\n\
                - {name: broken, command: [sh, -c, \"echo the reason; exit 3\"], restart: no}\n\
                - {name: fine, command: [sleep, infinity]}\n\
                - {name: job, command: [\"true\"]}\n";
    let mesh = Mesh::of(text, User::Root);
    let up = mesh.ask(&["up", "-d"]);
    assert_eq!(up.status, Some(1), "{up:?}");
    assert!(
        up.err.contains("absent.default: user") && up.err.contains("cannot execute no-such-program"),
        "{up:?}"
    );
    assert!(
        up.err.contains("broken.default: ended with status 3") && up.err.contains("| the reason"),
        "{up:?}"
    );
    assert!(!up.err.contains("fine.default") && !up.err.contains("job.default"), "{up:?}");
    let rows = mesh.rows();
    let status = |name: &str| rows.iter().find(|row| row["name"] == name).map(|row| row["status"].clone());
    assert_eq!(status("fine").expect("a row"), "Running");
    assert_eq!(status("job").expect("a row"), "Completed");
    let again = mesh.ask(&["up", "-d"]);
    assert!(again.status == Some(1) && again.err.contains("is up already"), "{again:?}");
}

#[test]
#[ignore = "needs the built binaries; run by cargo xtask test"]
fn a_broken_file_is_told_with_its_line_before_anything_starts() {
    let mesh = Mesh::of("", User::Root);
    for (text, expected) in [
        (
            "workloads:\n- name: a\n  comand: x\n",
            "mesh.yaml:3: there is no field `comand` here; did you mean `command`?",
        ),
        (
            "workloads:\n- name: a\n  command: x\n- name: B\n  command: x\n",
            "mesh.yaml:4: workloads[1].name: ",
        ),
        ("workloads:\n- name: a\n  command: x\n  ports: [70000]\n", "mesh.yaml:4: 70000 is not a port"),
        ("network: 8.8.0.0/16\n", "mesh.yaml:1: network: 8.8.0.0/16 is not a private network"),
        ("config: ./absent\n", "mesh.yaml: config: there is no folder "),
        ("workloads: [\n", "mesh.yaml:"),
    ] {
        fs::write(mesh.path("mesh.yaml"), text).expect("a file");
        let answer = mesh.ask(&["up", "-d"]);
        assert_eq!(answer.status, Some(65), "{text:?}: {answer:?}");
        assert!(answer.err.contains(expected), "{text:?}: {}", answer.err);
        assert!(!mesh.path("state").exists(), "{text:?} left something");
    }
    let absent = mesh.ask(&["up", "-f", "elsewhere.yaml"]);
    assert!(absent.status == Some(1) && absent.err.contains("there is no elsewhere.yaml"), "{absent:?}");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_proxy_that_slept_past_its_certificate_gets_another_token() {
    let text = "workloadTtl: 6s\n\
                workloads:\n\
                - {name: caller, command: [sleep, infinity]}\n\
                - {name: catalog, command: [shop, catalog], ports: [{port: 8080, name: http}]}\n";
    let mesh = Mesh::of(text, User::Root);
    mesh.must(&["up", "-d"]);
    let proxy = mesh.number("caller", "proxy_pid");
    signal("STOP", proxy);
    let asleep = Instant::now();
    // Its certificate and its used token are worth nothing then, as after a machine was suspended.
    eventually("the certificate has expired", || asleep.elapsed() > Duration::from_secs(8));
    signal("CONT", proxy);
    let url = "http://catalog:8080/api/products";
    eventually("calls work again", || mesh.call("caller", &["GET", url]).out.starts_with("200"));
    assert_eq!(mesh.number("caller", "proxy_pid"), proxy, "without a restart");
}
