//! Whatever happens to the configuration, what was good stays in force and what is wrong is told by its place.

use std::fs;

use mesh_testkit::{LocalMesh, eventually};

use crate::layout::{CLIENTS, WEB, document, layout, mesh_of};

const URL: &str = "http://web.shop:8080/";

/// Lets the client in, and nobody else.
fn good() -> String {
    document(
        "AuthorizationPolicy",
        "shop",
        "callers",
        "selector: {matchLabels: {app: web}}\nrules: [{from: [{source: {principals: [cluster.local/ns/edge/sa/client]}}]}]",
    )
}

fn is_in_force(mesh: &LocalMesh) -> Result<(), String> {
    let (client, guest) = (mesh.curl("client.edge", &[URL]), mesh.curl("guest.lab", &[URL]));
    if (client.status, guest.status) == (200, 403) { Ok(()) } else { Err(format!("{client:?} {guest:?}")) }
}

/// Waits until `meshctl status` and `meshctl analyze` name the place, and the good policy is in force still.
/// `place` is a file, a line and, behind a space, the field.
#[track_caller]
fn assert_held(mesh: &LocalMesh, what: &str, place: &str) {
    let is_named = |text: &str| place.split(' ').all(|part| text.contains(part));
    eventually(&format!("{what}: {place} is named"), || {
        let status = mesh.ask(&["status"]);
        if is_named(&status.out) { Ok(()) } else { Err(format!("{status:?}")) }
    });
    let analyze = mesh.ask(&["analyze"]);
    assert_eq!(analyze.status, Some(79), "{what}: {analyze:?}");
    assert!(is_named(&analyze.out), "{what}: {place}: {analyze:?}");
    let state = is_in_force(mesh);
    assert!(state.is_ok(), "{what}: {state:?}");
}

fn assert_well(mesh: &LocalMesh) {
    eventually("all is well again", || {
        let status = mesh.ask(&["status"]);
        if status.out.contains("all is well") { is_in_force(mesh) } else { Err(status.out) }
    });
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn what_was_good_stays_in_force() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    mesh.configure("callers.yaml", &good());
    eventually("the policy is in force", || is_in_force(&mesh));
    let text = good();
    let half = &text[..text.find("principals").expect("a field") + 12];
    let broken: [(&str, String, &str); 5] = [
        ("half-written", half.to_owned(), "config/callers.yaml:"),
        ("not YAML", text.replace("spec:", "spec: ]["), "config/callers.yaml:"),
        ("a field that is not known", text.replace("rules:", "ruels:"), "config/callers.yaml:9) spec.ruels"),
        (
            "a value that cannot be",
            text.replace("spec:", "spec:\n  action: PERMIT"),
            "config/callers.yaml:8) spec.action",
        ),
        ("empty", String::new(), "config/callers.yaml"),
    ];
    for (what, text, place) in &broken {
        mesh.configure("callers.yaml", text);
        assert_held(&mesh, what, place);
        mesh.configure("callers.yaml", &good());
        assert_well(&mesh);
    }
    // Files beside it disturb nothing.
    let junk: Vec<u8> = (0..=255_u8).cycle().take(100_000).collect();
    fs::write(mesh.path("config/junk.yaml"), junk).expect("a file");
    assert_held(&mesh, "a binary file", "config/junk.yaml");
    mesh.deconfigure("junk.yaml");
    assert_well(&mesh);
    fs::write(mesh.path("config/huge.yaml"), "# nothing but a comment\n".repeat(3_000_000)).expect("a file");
    assert_held(&mesh, "a huge file", "config/huge.yaml");
    mesh.deconfigure("huge.yaml");
    assert_well(&mesh);
    mesh.configure("twice.yaml", &good());
    assert_held(&mesh, "the same object twice", "config/twice.yaml");
    mesh.deconfigure("twice.yaml");
    assert_well(&mesh);
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn deleting_a_document_deletes_the_object_and_losing_the_folder_deletes_nothing() {
    let mesh = layout().up(&mesh_of(&[WEB, CLIENTS]));
    let closed = document("AuthorizationPolicy", "lab", "closed", "action: ALLOW");
    mesh.configure("both.yaml", &format!("{}{closed}", good()));
    mesh.configure(
        "strict.yaml",
        &document("PeerAuthentication", "istio-system", "default", "mtls: {mode: STRICT}"),
    );
    eventually("the policy is in force", || is_in_force(&mesh));
    // A folder that goes away, and one that empties at once.
    let (folder, aside) = (mesh.path("config"), mesh.path("config-aside"));
    fs::rename(&folder, &aside).expect("a folder");
    eventually("the loss is reported", || {
        let status = mesh.ask(&["status"]);
        if status.out.contains("all is well") { Err(status.out) } else { Ok(()) }
    });
    is_in_force(&mesh).expect("what was lost is held");
    fs::rename(&aside, &folder).expect("a folder");
    assert_well(&mesh);
    fs::rename(folder.join("both.yaml"), mesh.path("both.yaml")).expect("a file");
    fs::rename(folder.join("strict.yaml"), mesh.path("strict.yaml")).expect("a file");
    eventually("the emptying is reported", || {
        let status = mesh.ask(&["status"]);
        if status.out.contains("all is well") { Err(status.out) } else { Ok(()) }
    });
    is_in_force(&mesh).expect("what was lost is held");
    fs::rename(mesh.path("both.yaml"), folder.join("both.yaml")).expect("a file");
    fs::rename(mesh.path("strict.yaml"), folder.join("strict.yaml")).expect("a file");
    assert_well(&mesh);
    // One document of a file, which is meant.
    mesh.configure("both.yaml", &closed);
    eventually("everybody is let in again", || {
        let answer = mesh.curl("guest.lab", &[URL]);
        if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let listed = mesh.must(&["get", "authorizationpolicy", "-A"]);
    assert!(listed.contains("closed") && !listed.contains("callers"), "{listed}");
}
