//! Who must prove itself: for the mesh, a namespace, a workload, a port.

use mesh_testkit::{LocalMesh, eventually};

use crate::layout::{CLIENT, CLIENTS, WEB, document, layout, mesh_of};

/// How a port answers: to the outsider's plaintext, and to the client behind its proxy.
#[derive(Debug, PartialEq, Eq)]
struct Reception {
    outsider: bool,
    client: bool,
    /// Whether the application was told the client's identity, which comes with mutual TLS only.
    is_identified: bool,
}

const PERMISSIVE: Reception = Reception { outsider: true, client: true, is_identified: true };
const STRICT: Reception = Reception { outsider: false, client: true, is_identified: true };
const DISABLE: Reception = Reception { outsider: true, client: true, is_identified: false };

fn reception(mesh: &LocalMesh, port: u16) -> Reception {
    let address = mesh.address("web");
    let outsider = mesh.curl("outsider.out", &[&format!("http://{address}:{port}/")]);
    let client = mesh.curl("client.edge", &[&format!("http://web.shop:{port}/")]);
    Reception {
        outsider: outsider.status == 200,
        client: client.status == 200,
        is_identified: client.body.ends_with(CLIENT),
    }
}

#[track_caller]
fn assert_becomes(mesh: &LocalMesh, what: &str, ports: [(u16, &Reception); 2]) {
    eventually(what, || {
        for (port, wanted) in ports {
            let found = reception(mesh, port);
            if found != *wanted {
                return Err(format!("{port}: {found:?}"));
            }
        }
        Ok(())
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn the_narrowest_mode_holds() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    assert_becomes(&mesh, "permissive by default", [(8080, &PERMISSIVE), (8081, &PERMISSIVE)]);
    let authentication =
        |namespace: &str, name: &str, spec: &str| document("PeerAuthentication", namespace, name, spec);
    mesh.configure("mesh.yaml", &authentication("istio-system", "default", "mtls: {mode: STRICT}"));
    assert_becomes(&mesh, "strict in the mesh", [(8080, &STRICT), (8081, &STRICT)]);
    mesh.configure("namespace.yaml", &authentication("shop", "default", "mtls: {mode: DISABLE}"));
    assert_becomes(&mesh, "disabled in the namespace", [(8080, &DISABLE), (8081, &DISABLE)]);
    let workload = "selector: {matchLabels: {app: web}}\nmtls: {mode: STRICT}\nportLevelMtls: {8081: {mode: PERMISSIVE}}";
    mesh.configure("workload.yaml", &authentication("shop", "web", workload));
    assert_becomes(&mesh, "strict at the workload, but for a port", [(8080, &STRICT), (8081, &PERMISSIVE)]);
    let unset =
        "selector: {matchLabels: {app: web}}\nmtls: {mode: UNSET}\nportLevelMtls: {8080: {mode: STRICT}}";
    mesh.configure("workload.yaml", &authentication("shop", "web", unset));
    assert_becomes(&mesh, "the namespace's, but for a port", [(8080, &STRICT), (8081, &DISABLE)]);
    mesh.deconfigure("workload.yaml");
    mesh.deconfigure("namespace.yaml");
    assert_becomes(&mesh, "the mesh's again", [(8080, &STRICT), (8081, &STRICT)]);
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn a_forged_or_foreign_certificate_is_no_identity() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    mesh.configure(
        "strict.yaml",
        &document("PeerAuthentication", "istio-system", "default", "mtls: {mode: STRICT}"),
    );
    assert_becomes(&mesh, "strict in the mesh", [(8080, &STRICT), (8081, &STRICT)]);
    // A certificate of an authority of its own with the right name in it.
    let script = "cd @FOLDER@/scratch && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                  -subj / -addext subjectAltName=URI:spiffe://cluster.local/ns/edge/sa/client \
                  -keyout key.pem -out certificate.pem 2>/dev/null";
    let script = script.replace("@FOLDER@", mesh.path("").to_str().expect("a path"));
    mesh.exec_must("outsider.out", &["sh", "-c", &script]);
    let (key, certificate) = (mesh.path("scratch/key.pem"), mesh.path("scratch/certificate.pem"));
    let address = mesh.address("web");
    let url = format!("https://{address}:8080/");
    let forged = ["--key", key.to_str().expect("a path"), "--cert", certificate.to_str().expect("a path")];
    for credentials in [&forged[..], &[]] {
        let answer = mesh.curl("outsider.out", &[credentials, &["-k", &url]].concat());
        assert_eq!((answer.status, answer.body.as_str()), (0, ""), "{credentials:?}");
    }
}
