//! CUSTOM policies with the authorizer that Istio ships as its sample: a stock server, itself in the mesh, in
//! both of the protocols that it speaks.
//!
//! It is a program in Go. Its module and everything that it needs are pinned by `fixtures/extauthz/go.sum`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use mesh_testkit::{LocalMesh, MeshLayout, eventually};
use serde_json::Value;

use crate::layout::{CACHE, CLIENTS, WEB, document, layout, mesh_of};

/// What the sample says to those whom it refuses.
const REFUSED: &str = "denied by ext_authz for not found header `x-ext-authz: allow` in the request";

/// Without the header it goes by the service account of the caller.
const AUTHORIZER: &str = r#"
- name: authz
  namespace: shop
  command: ["@FOLDER@/scratch/extauthz", -http, "8000", -grpc, "9000", -allow_service_account, guest]
  ports: [{port: 8000, name: http}, {port: 9000, name: grpc}]
"#;

const PROVIDERS: &str = r#"
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc: {service: shop/authz, port: 9000, timeout: 5s}
- name: by-http
  envoyExtAuthzHttp:
    service: authz.shop.svc.cluster.local
    port: 8000
    timeout: 5s
    statusOnError: "503"
    includeRequestHeadersInCheck: [x-ext-authz]
    headersToUpstreamOnAllow: [x-ext-authz-check-result]
"#;

/// Builds the sample into the layout.
fn build(layout: &MeshLayout) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/extauthz");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("extauthz");
    let program = "istio.io/istio/samples/extauthz/cmd/extauthz";
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-o"]).arg(&built).arg(program);
    go.current_dir(folder).env("GOFLAGS", "").env("CGO_ENABLED", "0");
    let answer = go.output().expect("Go is installed");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let copied = layout.path("scratch/extauthz");
    fs::copy(&built, &copied).expect("a copy");
    fs::set_permissions(copied, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// Has `provider` asked about some paths of the web server and about every connection to the cache, and lets
/// pass there only what it has marked.
fn policies(provider: &str) -> String {
    let custom = |app: &str, rules: &str| {
        format!(
            "selector: {{matchLabels: {{app: {app}}}}}\naction: CUSTOM\nprovider: {{name: {provider}}}\nrules: {rules}"
        )
    };
    let marked = "selector: {matchLabels: {app: web}}\nrules:\n- to: [{operation: {notPaths: ['/ext*']}}]\n\
                  - when: [{key: 'request.headers[x-ext-authz-check-result]', values: [allowed]}]";
    let on_web = custom("web", "[{to: [{operation: {paths: ['/ext*']}}]}]");
    [
        document("AuthorizationPolicy", "shop", &format!("{provider}-web"), &on_web),
        document("AuthorizationPolicy", "shop", &format!("{provider}-cache"), &custom("cache", "[{}]")),
        document("AuthorizationPolicy", "shop", "marked", marked),
    ]
    .concat()
}

fn enforce(mesh: &LocalMesh, provider: &str) {
    mesh.configure("policies.yaml", &policies(provider));
    for app in ["web", "cache"] {
        eventually(&format!("{app} asks {provider}"), || {
            let status = mesh.json(&["proxy-config", "policy", &format!("{app}.shop")]).to_string();
            if status.contains(&format!("\"name\":\"{provider}-{app}\"")) { Ok(()) } else { Err(status) }
        });
    }
}

fn ping(mesh: &LocalMesh, from: &str) -> bool {
    mesh.exec(from, &["timeout", "10", "redis-cli", "-h", "cache.shop", "ping"]).out.trim() == "PONG"
}

fn requests_are_judged(mesh: &LocalMesh) {
    let url = "http://web.shop:8080/ext/a?b";
    let free = mesh.curl("client.edge", &["http://web.shop:8080/free"]);
    assert_eq!(free.status, 200, "{free:?}");
    for spoofed in [&["-H", "x-ext-authz-check-result: allowed"][..], &[]] {
        let refused = mesh.curl("client.edge", &[spoofed, &["-H", "x-ext-authz: no", url]].concat());
        assert_eq!((refused.status, refused.body.as_str()), (403, REFUSED), "{refused:?}");
    }
    let passed = mesh.curl("client.edge", &["-H", "x-ext-authz: allow", url]);
    assert!(passed.status == 200 && passed.body.starts_with("web|GET|/ext/a?b|"), "{passed:?}");
}

/// Records are written in a moment, not at once.
fn records_tell(mesh: &LocalMesh) {
    eventually("refusals of the authorizer are recorded as its own", || {
        let records = mesh.access_log("web.shop");
        let details = |record: &Value| record["response_code_details"] == "ext_authz_denied";
        let refusals: Vec<_> = records.into_iter().filter(details).collect();
        let is_flagged = refusals.iter().all(|record| record["response_flags"] == "UAEX");
        let first = "istio-ext-authz-by-grpc-ns[shop]-policy[by-grpc-web]-rule[0]";
        let names = refusals.iter().any(|record| record["policy"] == first);
        if refusals.len() == 4 && is_flagged && names { Ok(()) } else { Err(format!("{refusals:?}")) }
    });
    eventually("the authorizer was asked over mutual TLS by those that it decides for", || {
        let records = mesh.access_log("authz.shop");
        let by = |path: &str| {
            let asked = records.iter().filter(|record| record["path"] == path);
            asked.filter(|record| record["connection_security_policy"] == "mutual_tls").count()
        };
        let (grpc, http) = (by("/envoy.service.auth.v3.Authorization/Check"), by("/ext/a?b"));
        if (grpc, http) == (5, 3) { Ok(()) } else { Err(format!("{grpc} by gRPC, {http} by HTTP")) }
    });
}

#[test]
#[ignore = "needs network namespaces and Go; run by cargo xtask test"]
fn istios_sample_authorizer_decides_in_both_of_its_protocols() {
    let strict = document("PeerAuthentication", "istio-system", "default", "mtls: {mode: STRICT}");
    let settings = document("MeshConfig", "istio-system", "default", PROVIDERS);
    let layout = layout().file("config/strict.yaml", &strict).file("config/mesh.yaml", &settings);
    build(&layout);
    let mesh = layout.up(&mesh_of(&[WEB, CACHE, AUTHORIZER, CLIENTS]));
    enforce(&mesh, "by-grpc");
    requests_are_judged(&mesh);
    assert!(ping(&mesh, "guest.lab") && !ping(&mesh, "client.edge"), "the stream's caller decides");
    enforce(&mesh, "by-http");
    requests_are_judged(&mesh);
    assert!(ping(&mesh, "client.edge"), "an authorizer that speaks HTTP is not asked about a stream");

    records_tell(&mesh);

    // Without it nothing passes that it was to judge, and the rest goes on.
    let pid = mesh.pid("authz", "pid");
    let stopped = Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill runs");
    assert!(stopped.success());
    let answer = mesh.curl("client.edge", &["-H", "x-ext-authz: allow", "http://web.shop:8080/ext"]);
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    assert_eq!(mesh.curl("client.edge", &["http://web.shop:8080/free"]).status, 200);
    let resumed = Command::new("kill").args(["-CONT", &pid.to_string()]).status().expect("kill runs");
    assert!(resumed.success());
    let text = mesh.exec_must("web.shop", &["curl", "-sS", "http://127.0.0.1:15021/stats/prometheus"]);
    let series =
        "mesh_authz_decisions_total{policy=\"shop/by-http-web\",action=\"CUSTOM\",verdict=\"error\"} 1";
    assert!(text.contains(series), "{text}");
}
