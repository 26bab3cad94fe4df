//! nginx, without authorization rules: it could compare certificates only by its scripting of variables.

use std::fs;
use std::time::Instant;

use anyhow::Result;

use super::{Launched, PORT_A, PORT_B};
use crate::bench::certificates::Credential;
use crate::bench::daemon::{Daemon, inside};
use crate::bench::lab::Lab;
use crate::bench::plan::{Peer, Protocol, Scenario};
use crate::tools::NGINX_STREAM_MODULE;

/// Starts both.
///
/// # Errors
/// When a process cannot be started.
pub(super) fn launch(scenario: Scenario, lab: &Lab) -> Result<Launched> {
    let folder = lab.fresh_folder(Peer::Nginx)?;
    let pair = lab.pair(Peer::Nginx)?;
    let protocol = scenario.protocol;
    let begun = Instant::now();
    let start = |name: &str, namespace: &str, server: String, upstream: String| -> Result<Daemon> {
        let file = folder.join(format!("{name}.conf"));
        let log = folder.join(format!("{name}.log")).display().to_string();
        let pid = folder.join(format!("{name}.pid")).display().to_string();
        fs::write(&file, configuration(protocol, lab.workers, &[&log, &pid, &server, &upstream]))?;
        let mut command = inside(namespace, "nginx");
        command.args(["-e", "stderr", "-c"]).arg(&file);
        Daemon::start(name, &folder, &mut command)
    };
    let b = start("b", &pair.server, side_b(protocol, lab), format!("127.0.0.1:{}", protocol.app_port()))?;
    let a = start("a", &pair.client, side_a(protocol, lab), pair.at_server(PORT_B).to_string())?;
    Ok(Launched::explicit(begun, [a, b]))
}

fn side_a(protocol: Protocol, lab: &Lab) -> String {
    let prefix = if protocol == Protocol::Grpc { "grpc_ssl" } else { "proxy_ssl" };
    let own = credential(prefix, &lab.certificates.client);
    let listen = if protocol == Protocol::Grpc { " http2" } else { "" };
    let tls = format!(
        "{own} {prefix}_protocols TLSv1.3; {prefix}_trusted_certificate {authority}; \
         {prefix}_verify on; {prefix}_name server;",
        authority = lab.certificates.authority.display(),
    );
    let pass = match protocol {
        Protocol::Http1 => "location / { proxy_pass https://upstream; }",
        Protocol::Grpc => "location / { grpc_pass grpcs://upstream; }",
        Protocol::Tcp => "proxy_ssl on; proxy_pass upstream;",
    };
    format!("listen 127.0.0.1:{PORT_A}{listen}; {tls} {pass}")
}

fn side_b(protocol: Protocol, lab: &Lab) -> String {
    let own = credential("ssl", &lab.certificates.server);
    let listen = if protocol == Protocol::Grpc { " http2" } else { "" };
    let pass = match protocol {
        Protocol::Http1 => "location / { proxy_pass http://upstream; }",
        Protocol::Grpc => "location / { grpc_pass grpc://upstream; }",
        Protocol::Tcp => "proxy_pass upstream;",
    };
    format!(
        "listen {PORT_B} ssl{listen}; {own} ssl_protocols TLSv1.3; ssl_client_certificate {authority}; \
         ssl_verify_client on; {pass}",
        authority = lab.certificates.authority.display(),
    )
}

fn credential(prefix: &str, credential: &Credential) -> String {
    format!(
        "{prefix}_certificate {}; {prefix}_certificate_key {};",
        credential.certificate.display(),
        credential.key.display()
    )
}

/// The whole file; `parts` are the access log, the pid file, the inside of the server, and the upstream.
fn configuration(protocol: Protocol, workers: u16, parts: &[&str; 4]) -> String {
    let [log, pid, server, upstream] = parts;
    let head = format!(
        "daemon off;\nuser root;\nworker_processes {workers};\npid {pid};\nerror_log stderr crit;\n\
         events {{ worker_connections 4096; }}\n"
    );
    match protocol {
        Protocol::Tcp => format!(
            "load_module {NGINX_STREAM_MODULE};\n{head}stream {{\n  \
             log_format records '$remote_addr [$time_local] $status $bytes_sent $bytes_received $session_time';\n  \
             access_log {log} records;\n  upstream upstream {{ server {upstream}; }}\n  server {{ {server} }}\n}}\n"
        ),
        Protocol::Http1 | Protocol::Grpc => format!(
            "{head}http {{\n  access_log {log};\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n  \
             proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n  upstream upstream {{ server {upstream}; \
             keepalive 256; keepalive_requests 1000000000; keepalive_timeout 1h; }}\n  server {{ {server} }}\n}}\n"
        ),
    }
}
