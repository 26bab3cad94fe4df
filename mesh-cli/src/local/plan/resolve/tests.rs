//! From the file to the plan.

use super::*;
use crate::local::mesh_file::TargetPort;
use crate::local::plan::Service;

fn plan(text: &str) -> Result<Plan, String> {
    let surroundings = Surroundings {
        file: PathBuf::from("/srv/My Shop/mesh.yaml"),
        name: None,
        privilege: Privilege::Root,
        environment: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
    };
    let file = MeshFile::parse(&surroundings.file, text).map_err(|error| error.to_string())?;
    resolve(&file, &surroundings).map_err(|error| error.to_string())
}

fn service<'a>(plan: &'a Plan, name: &str) -> &'a Service {
    plan.services.iter().find(|service| service.name.as_str() == name).expect("the service")
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let plan = plan("workloads: [{name: web, command: x, ports: [8080], user: 1000}]").expect("a plan");
    assert_eq!(plan.name, "my-shop");
    assert_eq!(plan.config, Path::new("/srv/My Shop/config"));
    assert_eq!(plan.workload_ttl, "24h");
    let web = &plan.workloads[0];
    assert_eq!(web.id(), "web.default");
    assert_eq!(web.service_account.as_str(), "web");
    assert_eq!(web.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    assert_eq!(web.directory, Path::new("/srv/My Shop"));
    assert!(web.is_meshed && !web.is_directory_required);
    assert_eq!(web.addresses.v4.to_string(), "10.77.0.10/16");
    let implied = service(&plan, "web");
    assert!(implied.selects(web));
    assert_eq!(implied.ports[0].target, TargetPort::Number(8080));
}

#[test]
fn replicas_are_numbered_and_share_one_service() {
    let plan = plan("workloads: [{name: c, replicas: 3, command: x, ports: [1]}, {name: d, command: x}]")
        .expect("a plan");
    let ids: Vec<String> = plan.workloads.iter().map(Workload::id).collect();
    assert_eq!(ids, ["c-0.default", "c-1.default", "c-2.default", "d.default"]);
    let addresses: BTreeSet<String> =
        plan.workloads.iter().map(|workload| workload.addresses.v6.addr().to_string()).collect();
    assert_eq!(addresses.len(), 4);
    assert_eq!(plan.services.len(), 1);
    assert!(plan.workloads[..3].iter().all(|workload| plan.services[0].selects(workload)));
}

#[test]
fn a_stated_service_takes_the_place_of_the_implied_one_in_its_namespace_only() {
    let text = "services: [{name: front, namespace: a, selector: {tier: web}, ports: [{port: 80, targetPort: http}]}]\n\
                workloads:\n\
                - {name: w, namespace: a, labels: {tier: web}, command: x, ports: [{port: 8080, name: http}]}\n\
                - {name: w, namespace: b, labels: {tier: web}, command: x, ports: [8080]}\n";
    let plan = plan(text).expect("a plan");
    let names: Vec<String> =
        plan.services.iter().map(|service| format!("{}.{}", service.name, service.namespace)).collect();
    assert_eq!(names, ["front.a", "w.b"]);
    assert_eq!(service(&plan, "front").ports[0].target, TargetPort::Name("http".to_owned()));
}

#[test]
fn protocols_are_understood_where_either_field_states_them() {
    let text = "workloads: [{name: a, command: x, ports: [{port: 1, protocol: http}, {port: 2, protocol: udp}, \
                {port: 3, protocol: TCP, appProtocol: grpc}, 4]}]";
    let plan = plan(text).expect("a plan");
    let ports: Vec<(&str, Option<&str>, &str)> = plan.services[0]
        .ports
        .iter()
        .map(|port| (port.transport.as_str(), port.app_protocol.as_deref(), port.name.as_str()))
        .collect();
    assert_eq!(
        ports,
        [
            ("TCP", Some("http"), "port-1"),
            ("UDP", None, "port-2"),
            ("TCP", Some("grpc"), "port-3"),
            ("TCP", None, "port-4")
        ]
    );
}

#[test]
fn a_workload_outside_the_mesh_gets_no_service() {
    let plan = plan("workloads: [{name: a, command: x, ports: [1], mesh: false}]").expect("a plan");
    assert_eq!(plan.services, []);
}

#[test]
fn mistakes_name_their_line_and_field() {
    let error = plan("workloads:\n- {name: a, command: x}\n- {name: a, command: x}\n").expect_err("twice");
    assert!(error.contains("mesh.yaml:3: workloads[1].name: "), "{error}");
    let error = plan("network: 8.0.0.0/8\n").expect_err("not private");
    assert!(error.contains("mesh.yaml:1: network: "), "{error}");
    for text in [
        "workloads: [{name: A, command: x}]",
        "workloads: [{name: a.b, command: x}]",
        "workloads: [{name: a, namespace: a.b, command: x}]",
        "workloads: [{name: a, serviceAccount: A, command: x}]",
        "workloads: [{name: a, replicas: 1001, command: x}]",
        "workloads: [{name: a, command: x, env: {\"a=b\": c}}]",
        "workloads: [{name: a, command: x, user: no-such-user-here}]",
        "workloads: [{name: a, command: x, ports: [{port: 1, name: p}, {port: 2, name: p}]}]",
        "services: [{name: a, ports: []}]",
        "services: [{name: a, ports: [1]}, {name: a, ports: [2]}]",
        "workloadTtl: 0s",
        "workloadTtl: soon",
        "trustDomain: Example.org",
        "name: Shop",
        "network: 10.0.0.0/24\nworkloads: [{name: a, command: x, replicas: 400}]",
    ] {
        assert!(plan(text).is_err(), "{text} was accepted");
    }
}
