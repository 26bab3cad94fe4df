//! What the control plane knows.

use std::sync::{Arc, Mutex};

use insta::assert_snapshot;

use crate::admin::{FakeMesh, json};
use crate::fixtures::{
    control_answers, control_status, healthy_proxies, held_source, key_sources, proxy_answers, shop,
    unhealthy_proxies,
};

#[test]
fn proxies_are_listed_with_their_types() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("proxy_status", mesh.run(&["proxy-status"]).all());
    assert_eq!(mesh.run(&["pstat"]).all(), mesh.run(&["proxy-status"]).all());
    assert_snapshot!("proxy_status_namespace", mesh.run(&["proxy-status", "-n", "web"]).all());
    assert_snapshot!("proxy_status_one", mesh.run(&["proxy-status", "frontend.web"]).all());
}

#[test]
fn a_proxy_that_is_behind_is_named_with_the_reason() {
    let mesh = shop(unhealthy_proxies());
    assert_snapshot!("proxy_status_unhealthy", mesh.run(&["proxy-status"]).all());
    assert_snapshot!("proxy_status_verbose", mesh.run(&["proxy-status", "-v", "1"]).all());
}

#[test]
fn status_is_one_page_and_says_whether_all_is_well() {
    assert_snapshot!("status", shop(healthy_proxies()).run(&["status"]).all());
    let mesh = FakeMesh::new();
    let folder = mesh.path("").to_string_lossy().trim_end_matches('/').to_owned();
    let mut status = control_status(&folder, unhealthy_proxies());
    status.sources = vec![held_source(&folder)];
    status.key_sources = key_sources();
    mesh.control(control_answers(&mesh, &status));
    mesh.proxy("frontend.web", proxy_answers());
    mesh.proxy(
        "catalog-0.backend",
        Arc::new(|_, path| match path {
            "/ready" => (503, r#"{"ready":false,"waiting_for":["a certificate"],"draining":false,"control_plane_silent_seconds":null,"control_plane_connected":false}"#.to_owned()),
            _ => (200, "[]".to_owned()),
        }),
    );
    assert_snapshot!("status_unhealthy", mesh.run(&["status"]).all());
}

#[test]
fn status_shows_what_it_can_when_nothing_answers() {
    let mesh = FakeMesh::new();
    mesh.proxy("frontend.web", proxy_answers());
    assert_snapshot!("status_down", mesh.run(&["status"]).all());
}

#[test]
fn objects_are_listed_in_every_form() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("get", mesh.run(&["get", "ap"]).all());
    assert_snapshot!("get_namespace", mesh.run(&["get", "authorizationpolicies", "-n", "backend"]).all());
    assert_snapshot!("get_kinds", mesh.run(&["get", "pa,vs", "-o", "wide"]).all());
    assert_snapshot!("get_yaml", mesh.run(&["get", "authorizationpolicy", "deny-all", "-o", "yaml"]).all());
    assert_snapshot!("get_json", mesh.run(&["get", "ap/deny-all", "-o", "json"]).all());
    assert_snapshot!("get_name", mesh.run(&["get", "svc,pa", "-o", "name"]).all());
    assert_snapshot!("get_none", mesh.run(&["get", "ra", "-n", "web"]).all());
    assert_snapshot!("get_typo", mesh.run(&["get", "ap", "deny-al"]).all());
    assert_snapshot!("get_kind_typo", mesh.run(&["get", "authorizationpolicie"]).all());
}

#[test]
fn versions_of_all_parts() {
    assert_snapshot!("version", shop(healthy_proxies()).run(&["version"]).all());
    assert_eq!(FakeMesh::new().run(&["version", "--short"]).stdout, "0.1.0\n");
}

#[test]
fn what_is_held_is_confirmed_by_the_folder_that_status_names() {
    let mesh = FakeMesh::new();
    let folder = mesh.path("").to_string_lossy().trim_end_matches('/').to_owned();
    let mut status = control_status(&folder, healthy_proxies());
    let calls = Arc::new(Mutex::new(Vec::new()));
    assert_eq!(mesh.run(&["confirm"]).status, 1, "nobody answers");
    status.sources = vec![held_source(&folder)];
    let (seen, answer) = (Arc::clone(&calls), json(&status));
    mesh.control(Arc::new(move |method, path| {
        seen.lock().expect("unpoisoned").push(format!("{method} {path}"));
        (
            if method == "POST" { 202 } else { 200 },
            if method == "POST" { String::new() } else { answer.clone() },
        )
    }));
    assert_eq!(mesh.run(&["confirm"]).all(), "[FOLDER]/config is obeyed again\n");
    let calls = calls.lock().expect("unpoisoned").clone();
    assert_eq!(calls, ["GET /status".to_owned(), format!("POST /sources/confirm?path={folder}/config")]);
}
