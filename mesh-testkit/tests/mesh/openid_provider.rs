//! Tokens of a real OpenID provider, which is an application of the mesh like any other: found by discovery,
//! verified by the proxies, and its keys changed, lost and kept as they are in operation.
//!
//! It is a program for Node.js. It and everything that it needs are pinned by `fixtures/oidc/package-lock.json`.

use std::fs;
use std::path::Path;
use std::process::Command;

use mesh_testkit::{HttpAnswer, LocalMesh, MeshLayout, eventually, signal};
use serde_json::Value;

use crate::layout::{CLIENTS, WEB, document, layout, mesh_of};

/// The service's own name is that of the issuer, so the control plane finds it as workloads do.
const ISSUER: &str = "http://idp.auth.svc.cluster.local:9000";

/// With a new key at each start. It stays down when it ends by itself.
const PROVIDER: &str = r#"
- name: idp
  namespace: auth
  command: [node, "@FOLDER@/oidc/provider.js"]
  env: {HOST: idp.auth.svc.cluster.local}
  ports: [{port: 9000, name: http}]
  restart: "no"
"#;

/// Installs the provider into the layout.
fn install(layout: &MeshLayout) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/oidc");
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oidc");
    fs::create_dir_all(&installed).expect("a folder");
    for file in ["package.json", "package-lock.json", "provider.js"] {
        fs::copy(fixtures.join(file), installed.join(file)).expect(file);
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"])
        .current_dir(&installed);
    let answer = npm.output().expect("npm is installed");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let copy = Command::new("cp").arg("-r").arg(&installed).arg(layout.path("oidc")).status();
    assert!(copy.is_ok_and(|status| status.success()), "the provider is copied");
}

/// Only tokens of the issuer for this shop are let in, and the payload is passed on.
fn policies(subject: &str) -> String {
    let tokens = format!(
        "selector: {{matchLabels: {{app: web}}}}\njwtRules:\n- issuer: {ISSUER}\n  audiences: [https://shop.example]\n"
    );
    let required = format!(
        "selector: {{matchLabels: {{app: web}}}}\nrules:\n- from: [{{source: {{requestPrincipals: ['{ISSUER}/{subject}']}}}}]\n"
    );
    [
        document("RequestAuthentication", "shop", "tokens", &tokens),
        document("AuthorizationPolicy", "shop", "required", &required),
    ]
    .concat()
}

/// A token of the provider for an audience, fetched from inside the mesh.
fn token(mesh: &LocalMesh, audience: &str) -> String {
    let resource = format!("resource={audience}");
    let form = [
        "-u",
        "robot:robot-secret",
        "-d",
        "grant_type=client_credentials",
        "-d",
        "scope=read",
        "-d",
        &resource,
    ];
    eventually("a token", || {
        let answer = mesh.curl("client.edge", &[&form[..], &["http://idp.auth:9000/token"]].concat());
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        body["access_token"].as_str().map(ToOwned::to_owned).ok_or_else(|| format!("{answer:?}"))
    })
}

fn call(mesh: &LocalMesh, token: &str) -> HttpAnswer {
    let authorization = format!("authorization: Bearer {token}");
    mesh.curl("client.edge", &["-H", &authorization, "http://web.shop:8080/"])
}

fn until_status(mesh: &LocalMesh, what: &str, token: &str, status: u16) {
    eventually(what, || {
        let answer = call(mesh, token);
        if answer.status == status { Ok(()) } else { Err(format!("{answer:?}")) }
    });
}

/// What the control plane says of the source.
fn source(mesh: &LocalMesh) -> Value {
    let status = mesh.ask(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.out).expect("JSON");
    status["control"]["key_sources"][0].clone()
}

#[test]
#[ignore = "needs network namespaces; run by cargo xtask test"]
fn tokens_of_a_real_provider_are_verified_and_its_keys_may_change_and_its_process_may_end() {
    let layout = layout();
    install(&layout);
    let mesh = layout.up(&mesh_of(&[WEB, PROVIDER, CLIENTS]));
    let first = token(&mesh, "https://shop.example");
    mesh.configure("tokens.yaml", &policies("robot"));
    eventually("the policy is in force", || {
        let answer = mesh.curl("client.edge", &["http://web.shop:8080/"]);
        if answer.status == 403 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    until_status(&mesh, "a token is accepted", &first, 200);
    let found = source(&mesh);
    assert_eq!(found["url"], format!("{ISSUER}/.well-known/openid-configuration"));
    assert_eq!((&found["keys"], &found["problem"]), (&1.into(), &"".into()));
    what_is_no_good_token_is_refused(&mesh, &first);
    the_proxy_tells_which_keys_it_has(&mesh, &first);

    // The provider starts anew with another key: the first token of it makes the mesh look.
    mesh.must(&["restart", "idp.auth"]);
    let second = eventually("a token of the new key", || {
        let next = token(&mesh, "https://shop.example");
        if header(&next) == header(&first) { Err("it is still the old one".to_owned()) } else { Ok(next) }
    });
    until_status(&mesh, "a token of a key that was not known is accepted", &second, 200);
    until_status(&mesh, "a token of a key that is gone is refused", &first, 401);

    the_last_keys_stay_while_the_provider_is_away(&mesh, &second);
}

fn what_is_no_good_token_is_refused(mesh: &LocalMesh, good: &str) {
    let foreign = call(mesh, &token(mesh, "https://elsewhere.example"));
    assert_eq!((foreign.status, foreign.body.as_str()), (403, "Audiences in Jwt are not allowed"));
    let (head, signature) = good.rsplit_once('.').expect("three sections");
    let turned: String = signature.chars().rev().collect();
    let forged = call(mesh, &format!("{head}.{turned}"));
    assert_eq!(forged.status, 401, "{forged:?}");
    let mut sections = good.split('.');
    let (_, payload) = (sections.next(), sections.next().expect("three sections"));
    // {"alg":"none"}
    let unsigned = call(mesh, &format!("eyJhbGciOiJub25lIn0.{payload}."));
    assert_eq!(unsigned.status, 401, "{unsigned:?}");
}

fn the_proxy_tells_which_keys_it_has(mesh: &LocalMesh, token: &str) {
    let shown = mesh.must(&["proxy-config", "policy", "web.shop"]);
    assert!(shown.contains("/.well-known/openid-configuration: key-"), "{shown}");
    let dump = mesh.json(&["proxy-config", "policy", "web.shop"]).to_string();
    assert!(dump.contains("key_sets") && !dump.contains(token), "{dump}");
}

/// The provider ends, the control plane starts anew on its state, and configuration goes on to change.
fn the_last_keys_stay_while_the_provider_is_away(mesh: &LocalMesh, token: &str) {
    signal("KILL", mesh.pid("idp", "pid"));
    let control = mesh.pid("mesh-control", "pid");
    signal("KILL", control);
    mesh.until_replaced("mesh-control", "pid", control);
    eventually("the problem is told", || {
        let status = mesh.ask(&["status"]).out;
        let is_told = status.contains("/.well-known/openid-configuration:")
            && status.contains("tokens are verified with keys seen");
        if is_told { Ok(()) } else { Err(status) }
    });
    let accepted = call(mesh, token);
    assert_eq!(accepted.status, 200, "without its provider a token is refused: {accepted:?}");
    mesh.configure("tokens.yaml", &policies("somebody-else"));
    until_status(mesh, "another policy reaches the proxy", token, 403);
    mesh.configure("tokens.yaml", &policies("robot"));
    until_status(mesh, "and back", token, 200);
}

/// The header of a token, which names its key.
fn header(token: &str) -> &str {
    token.split('.').next().unwrap_or_default()
}
