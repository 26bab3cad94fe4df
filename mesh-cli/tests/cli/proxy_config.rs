//! What proxies have been told, and which proxy is meant.

use insta::assert_snapshot;

use crate::fixtures::{healthy_proxies, shop};

#[test]
fn every_table_has_istioctls_columns() {
    let mesh = shop(healthy_proxies());
    for name in ["secret", "cluster", "listener", "route", "endpoint", "log"] {
        assert_snapshot!(name, mesh.run(&["proxy-config", name, "frontend.web"]).all());
    }
    assert_snapshot!("policy", mesh.run(&["proxy-config", "policy", "catalog-0.backend"]).all());
}

#[test]
fn the_short_forms_are_the_same_commands() {
    let mesh = shop(healthy_proxies());
    for (long, short) in
        [("secret", "s"), ("cluster", "c"), ("listener", "l"), ("route", "r"), ("endpoint", "ep")]
    {
        let long = mesh.run(&["proxy-config", long, "frontend.web", "-o", "table"]).all();
        assert_eq!(long, mesh.run(&["pc", short, "frontend.web", "-o", "short"]).all(), "{short}");
    }
}

#[test]
fn filters_and_brief_forms() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!(
        "cluster_filtered",
        mesh.run(&["pc", "c", "frontend.web", "--direction", "inbound"]).all()
    );
    assert_snapshot!(
        "endpoint_filtered",
        mesh.run(&["pc", "ep", "frontend.web", "--status", "draining"]).all()
    );
    assert_snapshot!("listener_brief", mesh.run(&["pc", "l", "frontend.web", "--verbose=false"]).all());
    assert_snapshot!("route_brief", mesh.run(&["pc", "r", "frontend.web", "--verbose=false"]).all());
}

#[test]
fn json_and_yaml_are_what_the_proxy_answers_and_hold_no_key() {
    let mesh = shop(healthy_proxies());
    let json = mesh.run(&["pc", "secret", "frontend.web", "-o", "json"]);
    let certificates: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).expect("JSON alone");
    assert_eq!(certificates[0]["resource_name"], "default");
    assert_eq!(certificates[0]["serial_number"], "3a0f");
    assert!(!json.stdout.contains("PRIVATE"));
    let yaml = mesh.run(&["pc", "endpoint", "frontend.web", "-o", "yaml"]);
    assert!(yaml.stdout.contains("outlier_check: OK"), "{yaml:?}");
}

#[test]
fn a_workload_is_found_by_its_short_name_its_replicas_and_with_a_prefix() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("target_replicas", mesh.run(&["pc", "log", "catalog.backend"]).all());
    assert_eq!(
        mesh.run(&["pc", "log", "deploy/catalog", "-n", "backend"]).stdout,
        "catalog-0.backend: info\n"
    );
    assert_eq!(mesh.run(&["pc", "log", "frontend"]).stdout, "frontend.web: info\n");
    assert_snapshot!("target_typo", mesh.run(&["pc", "log", "frontent.web"]).all());
    assert_snapshot!("target_stranger", mesh.run(&["pc", "log", "intruder.outside"]).all());
    assert_snapshot!("target_prefix", mesh.run(&["pc", "log", "svc/frontend"]).all());
}

#[test]
fn who_was_refused_and_by_which_rule() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("denied", mesh.run(&["x", "denied", "catalog-0.backend"]).all());
    assert_snapshot!("authz_check", mesh.run(&["x", "authz", "check", "catalog-0.backend"]).all());
}

#[test]
fn how_configuration_applies() {
    let mesh = shop(healthy_proxies());
    assert_snapshot!("describe_workload", mesh.run(&["x", "describe", "pod", "catalog-0.backend"]).all());
    assert_snapshot!("describe_stranger", mesh.run(&["describe", "intruder.outside"]).all());
    assert_snapshot!("describe_service", mesh.run(&["describe", "svc/catalog.backend"]).all());
    assert_snapshot!("describe_unknown", mesh.run(&["describe", "svc", "catalogue", "-n", "backend"]).all());
}
