//! Reading `mesh.yaml`.

use super::*;

fn parse(text: &str) -> Result<MeshFile, String> {
    MeshFile::parse(Path::new("mesh.yaml"), text).map_err(|error| error.to_string())
}

#[test]
fn short_and_long_forms_mean_the_same() {
    let file = parse(
        "workloads:\n\
         - name: a\n\
        \x20 command: sleep 'one day'\n\
        \x20 env: {PORT: 8080, DEBUG: true, NAME: x}\n\
        \x20 ports: [8080, {port: 9090, name: grpc, appProtocol: grpc}]\n\
        \x20 restart: no\n\
         services:\n\
         - {name: a, ports: [{port: 80, targetPort: 8080}, {port: 81, targetPort: grpc}]}\n",
    )
    .expect("a mesh");
    let workload = &file.workloads[0].value;
    assert_eq!(workload.command.0, ["sleep", "one day"]);
    assert_eq!(workload.env["PORT"].0, "8080");
    assert_eq!(workload.env["DEBUG"].0, "true");
    assert_eq!(workload.ports[0].port, 8080);
    assert_eq!(workload.ports[1].name, "grpc");
    assert_eq!(workload.restart, RestartPolicy::No);
    let ports = &file.services[0].value.ports;
    assert_eq!(ports[0].target_port, Some(TargetPort::Number(8080)));
    assert_eq!(ports[1].target_port, Some(TargetPort::Name("grpc".to_owned())));
}

#[test]
fn an_unknown_field_is_an_error_with_its_line_and_the_nearest_name() {
    let error = parse("workloads:\n- name: a\n  command: x\n  namespac: web\n").expect_err("misspelt");
    assert!(error.starts_with("mesh.yaml:4: "), "{error}");
    assert!(error.contains("`namespac`") && error.contains("did you mean `namespace`?"), "{error}");
    let error =
        parse("workloads:\n- name: a\n  command: x\n  ports: [{port: 1, nam: b}]\n").expect_err("misspelt");
    assert!(error.contains("did you mean `name`?"), "{error}");
    let error = parse("zzz: 1\n").expect_err("unknown");
    assert!(error.contains("`zzz`") && error.contains("workloads"), "{error}");
}

#[test]
fn what_cannot_be_is_refused() {
    for text in [
        "workloads: [{name: a}]",
        "workloads: [{name: a, command: []}]",
        "workloads: [{name: a, command: \"a 'b\"}]",
        "workloads: [{name: a, command: x, ports: [0]}]",
        "workloads: [{name: a, command: x, ports: [65536]}]",
        "workloads: [{name: a, command: x, ports: [-1]}]",
        "workloads: [{name: a, command: x, mesh: yes}]",
        "workloads: [{name: a, command: x, replicas: -1}]",
        "workloads: [{name: a, command: x, restart: sometimes}]",
        "name: a\nname: b",
        "- a list",
        "workloads: {",
    ] {
        assert!(parse(text).is_err(), "{text} was accepted");
    }
}
