//! Nothing of the mesh is ever in the machine's own network, and nothing gets past a proxy.

use std::process::Command;

use crate::mesh::{Mesh, User, eventually, signal};

/// Links, routes and rules of the machine's own network.
fn machine() -> String {
    let commands: [&[&str]; 5] = [
        &["ip", "-o", "link"],
        &["ip", "route", "show", "table", "all"],
        &["ip", "-6", "route", "show", "table", "all"],
        &["ip", "rule"],
        &["nft", "list", "ruleset"],
    ];
    let show = |words: &&[&str]| {
        let done = Command::new(words[0]).args(&words[1..]).output().expect("it runs");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    // Lifetimes of addresses count down by themselves.
    let text: String = commands.iter().map(show).collect();
    text.lines().map(|line| line.split(" expires ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn the_machines_own_network_never_changes_and_the_mesh_has_no_way_out() {
    let before = machine();
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-d"]);
    assert_eq!(machine(), before, "during");
    for workload in ["frontend.web", "intruder.outside"] {
        for (family, address) in [("-4", "1.1.1.1"), ("-6", "2606:4700:4700::1111")] {
            let routes = mesh.must(&["exec", workload, "--", "ip", family, "route", "show", "default"]);
            assert_eq!(routes, "", "{workload} has no default route");
            let way = mesh.ask(&["exec", workload, "--", "ip", family, "route", "get", address]);
            assert_ne!(way.status, Some(0), "{workload} has a way to {address}: {}", way.out);
        }
    }
    mesh.must(&["down"]);
    assert_eq!(machine(), before, "after");
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn without_its_proxy_a_workload_has_no_network() {
    let text = "workloads:\n\
                - {name: caller, command: [sleep, infinity]}\n\
                - {name: server, mesh: false, command: [shop, catalog]}\n";
    let mesh = Mesh::of(text, User::Root);
    mesh.must(&["up", "-d"]);
    // The server would answer anybody, so that only interception stands between the two.
    let url = "http://10.77.0.11:8080/api/products";
    let is_answered = || mesh.call("caller", &["GET", url]).out.starts_with("200");
    eventually("the proxy passes it on", is_answered);
    let proxy = mesh.number("caller", "proxy_pid");
    signal("STOP", proxy);
    assert!(!is_answered(), "a proxy that hangs is not passed by");
    // With the supervisor halted nobody starts the proxy again: the rules are all there is.
    let supervisor = mesh.number("supervisor", "pid");
    signal("STOP", supervisor);
    signal("KILL", proxy);
    let answer = mesh.call("caller", &["GET", url]);
    signal("CONT", supervisor);
    assert_ne!(answer.status, Some(0), "a dead proxy is not passed by: {answer:?}");
    assert!(!answer.out.contains("products"), "a dead proxy is not passed by: {answer:?}");
    eventually("the next proxy passes it on", is_answered);
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn names_are_answered_by_the_mesh_and_by_nobody_outside_of_it() {
    let mesh = Mesh::shop(User::Root);
    mesh.must(&["up", "-d"]);
    let address =
        |workload: &str, name: &str| mesh.ask(&["exec", workload, "--", "getent", "ahostsv4", name]);
    for name in
        ["catalog.backend", "catalog.backend.svc", "catalog.backend.svc.cluster.local", "store.backend"]
    {
        let found = address("frontend.web", name);
        assert!(found.status == Some(0) && found.out.starts_with("240.240."), "{name}: {found:?}");
    }
    assert_eq!(address("orders.backend", "catalog").status, Some(0), "short names work within a namespace");
    assert_ne!(address("frontend.web", "catalog").status, Some(0), "and not from another");
    assert_ne!(address("frontend.web", "example.com").status, Some(0));
    assert_ne!(address("intruder.outside", "catalog.backend").status, Some(0));
}
