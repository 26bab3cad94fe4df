//! The same without root.

use std::fs;

use crate::mesh::{Mesh, User, eventually, is_alive, signal};

/// A user without an account.
const STRANGER: u32 = 61_234;
const CATALOG: &str = "http://catalog.backend:8080/api/products";

#[test]
#[ignore = "needs user namespaces; run by cargo xtask test"]
fn an_ordinary_user_has_the_whole_mesh() {
    let mesh = Mesh::shop(User::Ordinary(STRANGER));
    mesh.must(&["up", "-d"]);
    let processes = mesh.processes();
    assert!(processes.len() > 12, "{processes:?}");
    for pid in &processes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
        assert!(uid.split_whitespace().all(|id| id == STRANGER.to_string()), "process {pid} runs as {uid}");
    }
    assert!(mesh.call("frontend.web", &["GET", CATALOG]).out.starts_with("200"));
    let answer =
        mesh.ask(&["exec", "frontend.web", "--", "sh", "-c", "id -u; grep CapEff /proc/self/status; exit 3"]);
    assert_eq!(answer.status, Some(3), "{answer:?}");
    assert!(
        answer.out.starts_with(&STRANGER.to_string()) && answer.out.contains("0000000000000000"),
        "{answer:?}"
    );
    let out = mesh.must(&["run", "--service-account", "backend/batch", "--", "shop", "batch"]);
    assert!(out.contains("4 products"), "{out}");
    let state = mesh.path("state");
    let keys =
        mesh.ask(&["exec", "frontend.web", "--", "find", state.to_str().expect("a path"), "-type", "f"]);
    assert_eq!(keys.out, "", "an application of the same user does not see the authority's keys");
    mesh.must(&["down"]);
    mesh.assert_nothing_left(&processes);
}

#[test]
#[ignore = "needs user namespaces; run by cargo xtask test"]
fn kills_leave_nothing_behind_without_root_too() {
    let mesh = Mesh::shop(User::Ordinary(STRANGER + 1));
    mesh.must(&["up", "-d"]);
    let proxy = mesh.number("frontend", "proxy_pid");
    signal("KILL", proxy);
    eventually("the proxy is back", || mesh.call("frontend.web", &["GET", CATALOG]).out.starts_with("200"));
    let processes = mesh.processes();
    signal("KILL", mesh.number("supervisor", "pid"));
    eventually("the kernel ends all", || !processes.iter().any(|pid| is_alive(*pid)));
    mesh.must(&["down"]);
    mesh.assert_nothing_left(&processes);
}
