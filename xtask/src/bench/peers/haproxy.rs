//! haproxy. Its rules name callers by the common name of their certificates, because this release cannot
//! fetch alternative names of the kind that SPIFFE uses; that is cheaper, and in its favour.

use std::fmt::Write as _;
use std::fs;
use std::time::Instant;

use anyhow::Result;

use super::{Launched, PORT_A, PORT_B, Rule, rules};
use crate::bench::daemon::{Daemon, inside};
use crate::bench::lab::Lab;
use crate::bench::plan::{Peer, Protocol, Scenario};

/// Starts both.
///
/// # Errors
/// When a process cannot be started.
pub(super) fn launch(scenario: Scenario, lab: &Lab) -> Result<Launched> {
    let folder = lab.fresh_folder(Peer::Haproxy)?;
    let pair = lab.pair(Peer::Haproxy)?;
    let begun = Instant::now();
    let start = |name: &str, namespace: &str, text: String| -> Result<Daemon> {
        let file = folder.join(format!("{name}.cfg"));
        fs::write(&file, text)?;
        let mut command = inside(namespace, "sh");
        // Its access log goes to standard output, here a file that is emptied between turns.
        let script = format!("exec haproxy -db -f {name}.cfg >> {name}.log");
        command.args(["-c", &script]).current_dir(&folder);
        Daemon::start(name, &folder, &mut command)
    };
    let b = start("b", &pair.server, side_b(scenario, lab))?;
    let a = start("a", &pair.client, side_a(scenario, lab, &pair.at_server(PORT_B).to_string()))?;
    Ok(Launched::explicit(begun, [a, b]))
}

fn side_a(scenario: Scenario, lab: &Lab, upstream: &str) -> String {
    let (front, alpn) = match scenario.protocol {
        Protocol::Http1 => ("", " alpn http/1.1"),
        Protocol::Grpc => (" proto h2", " alpn h2 proto h2"),
        Protocol::Tcp => ("", ""),
    };
    format!(
        "{head}frontend a\n  bind 127.0.0.1:{PORT_A}{front}\n  default_backend b\n\
         backend b\n  server b {upstream} ssl crt {bundle} ca-file {authority} verify required \
         ssl-min-ver TLSv1.3{alpn}\n",
        head = head(scenario, lab.workers),
        bundle = lab.certificates.client.bundle.display(),
        authority = lab.certificates.authority.display(),
    )
}

fn side_b(scenario: Scenario, lab: &Lab) -> String {
    let (alpn, server) = match scenario.protocol {
        Protocol::Http1 => (" alpn http/1.1", ""),
        Protocol::Grpc => (" alpn h2", " proto h2"),
        Protocol::Tcp => ("", ""),
    };
    let mut text = format!(
        "{head}frontend b\n  bind *:{PORT_B} ssl crt {bundle} ca-file {authority} verify required \
         ssl-min-ver TLSv1.3{alpn}\n",
        head = head(scenario, lab.workers),
        bundle = lab.certificates.server.bundle.display(),
        authority = lab.certificates.authority.display(),
    );
    let what = if scenario.protocol == Protocol::Tcp { "tcp-request session" } else { "http-request" };
    let (yes, no) = if scenario.protocol == Protocol::Tcp { ("accept", "reject") } else { ("allow", "deny") };
    for Rule { account, method, path } in rules(scenario) {
        let request = match scenario.protocol {
            Protocol::Tcp => String::new(),
            Protocol::Http1 | Protocol::Grpc => format!(" {{ method {method} }} {{ path {path} }}"),
        };
        let _infallible = writeln!(text, "  {what} {yes} if {{ ssl_c_s_dn(CN) -m str {account} }}{request}");
    }
    let port = scenario.protocol.app_port();
    let _infallible = write!(
        text,
        "  {what} {no}\n  default_backend app\nbackend app\n  server app 127.0.0.1:{port}{server}\n"
    );
    text
}

fn head(scenario: Scenario, workers: u16) -> String {
    let (mode, log) = match scenario.protocol {
        Protocol::Http1 | Protocol::Grpc => ("http", "httplog"),
        Protocol::Tcp => ("tcp", "tcplog"),
    };
    let reuse = if scenario.protocol == Protocol::Tcp { "" } else { "  http-reuse always\n" };
    format!(
        "global\n  nbthread {workers}\n  maxconn 4096\n  log stdout len 2048 format raw local0 info\n\
         defaults\n  mode {mode}\n  log global\n  option {log}\n{reuse}  retries 0\n  timeout connect 5s\n  \
         timeout client 1h\n  timeout server 1h\n"
    )
}
