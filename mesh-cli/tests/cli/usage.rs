//! Wrong usage, absent meshes, colours and closed pipes.

use std::io::Read as _;
use std::process::{Command, Stdio};

use insta::assert_snapshot;

use crate::admin::FakeMesh;
use crate::fixtures::{healthy_proxies, shop};

#[test]
fn wrong_usage_ends_with_64() {
    let mesh = FakeMesh::new();
    for args in
        [&["frobnicate"][..], &["proxy-config"], &["get"], &["delete"], &["apply"], &["get", "nonsense"]]
    {
        assert_eq!(mesh.run(args).status, 64, "{args:?}");
    }
    assert_eq!(mesh.run(&["--help"]).status, 0);
    assert_eq!(mesh.run(&["--version"]).stdout, "meshctl 0.1.0\n");
}

#[test]
fn commands_of_the_supervisor_are_hidden() {
    let help = FakeMesh::new().run(&["--help"]).stdout;
    assert!(help.contains("proxy-status") && help.contains("analyze"), "{help}");
    for hidden in ["local-init", "local-supervisor", "launch"] {
        assert!(!help.contains(hidden), "{hidden} is shown");
    }
}

#[test]
fn a_mesh_that_is_not_there_is_said_with_what_to_do() {
    let mesh = FakeMesh::new();
    assert_snapshot!("not_up", mesh.run(&["--state-dir", "elsewhere", "proxy-status"]).all());
    assert_snapshot!("silent", mesh.run(&["proxy-status"]).all());
}

#[test]
fn a_mesh_that_has_ended_is_said_to_have() {
    let mesh = FakeMesh::new();
    let state = std::fs::read_to_string(mesh.path("state/mesh.json")).expect("a file");
    let ended = state.replace(&format!("\"pid\":{}", std::process::id()), "\"pid\":4194305");
    mesh.write("state/mesh.json", &ended);
    let printed = mesh.run(&["proxy-status"]);
    assert!(printed.stderr.starts_with("mesh shop has ended; `meshctl down` cleans up"), "{printed:?}");
}

#[test]
fn colours_are_for_terminals_and_for_those_who_ask() {
    let mesh = shop(healthy_proxies());
    let has_colour = |printed: &str| printed.contains('\u{1b}');
    assert!(!has_colour(&mesh.run(&["status"]).stdout));
    assert!(has_colour(&mesh.run(&["status", "--color", "always"]).stdout));
    assert!(!has_colour(&mesh.run_with(&["status"], "", &[("NO_COLOR", "1")]).stdout));
    let forced = mesh.run_with(&["status"], "", &[("CLICOLOR_FORCE", "1")]).stdout;
    assert!(has_colour(&forced), "the usual variables are honoured");
    assert!(!has_colour(
        &mesh.run_with(&["status", "--color", "never"], "", &[("CLICOLOR_FORCE", "1")]).stdout
    ));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin("meshctl"))
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // The reader goes before anything is read.
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("a text");
    assert!(child.wait().expect("ends").success(), "{stderr}");
    assert_eq!(stderr, "");
}

#[test]
fn completion_scripts_name_the_commands() {
    let mesh = FakeMesh::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(mesh.run(&["completion", shell]).stdout.contains("proxy-config"), "{shell}");
    }
}

#[test]
fn names_are_completed_where_they_are_wanted_and_nothing_is_said_where_they_are_not() {
    let mesh = shop(healthy_proxies());
    let complete = |words: &[&str]| {
        let printed = mesh.run(&[&["__complete", "--"], words].concat());
        assert_eq!((printed.status, printed.stderr.as_str()), (0, ""), "{printed:?}");
        printed.stdout
    };
    let state = mesh.path("state");
    let state = state.to_string_lossy();
    assert!(complete(&["logs", ""]).contains("catalog-0.backend\n"));
    assert_eq!(complete(&["proxy-config", "cluster", "catalog-0"]), "catalog-0.backend\n");
    assert_eq!(complete(&["get", "peer"]), "peerauthentications\n");
    assert!(complete(&["logs", "-n", "ba"]).contains("backend\n"));
    assert_eq!(complete(&["logs", "--fo"]), "");
    assert_eq!(complete(&["--state-dir", &format!("{state}/elsewhere"), "logs", ""]), "");
    assert_eq!(complete(&["exec", "catalog-0", "--", "l"]), "");
    assert_eq!(complete(&[]), "");
}
