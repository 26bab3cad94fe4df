//! Envoy: the filters that Istio gives a sidecar (RBAC, router, access log in Istio's format), without
//! Istio's own telemetry filter, which the stock binary does not have.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Launched, PORT_A, PORT_B, rules};
use crate::bench::certificates::{CLIENT_ID, Credential, SERVER_ID};
use crate::bench::daemon::{Daemon, inside};
use crate::bench::lab::Lab;
use crate::bench::plan::{Peer, Protocol, Scenario};

/// Prefix of the types of Envoy's configuration.
const TYPE: &str = "type.googleapis.com/envoy";
/// A record for each request, with Istio's fields.
const HTTP_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
    \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME%\n";
/// A record for each connection.
const TCP_LOG: &str = "[%START_TIME%] %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS%\n";

/// Starts both.
///
/// # Errors
/// When a process cannot be started.
pub(super) fn launch(scenario: Scenario, lab: &Lab) -> Result<Launched> {
    let folder = lab.fresh_folder(Peer::Envoy)?;
    let pair = lab.pair(Peer::Envoy)?;
    let side_a = Side {
        scenario,
        log: &folder.join("a.log"),
        listen: ("127.0.0.1", PORT_A),
        upstream: (&pair.server_address.to_string(), PORT_B),
    };
    let side_b = Side {
        scenario,
        log: &folder.join("b.log"),
        listen: ("0.0.0.0", PORT_B),
        upstream: ("127.0.0.1", scenario.protocol.app_port()),
    };
    let a = side_a.configuration(Vec::new(), None, Some(upstream_tls(lab, scenario.protocol)));
    let b = side_b.configuration(vec![side_b.rbac()], Some(downstream_tls(lab, scenario.protocol)), None);
    let envoy = lab.programs.envoy.as_ref().context("there is no Envoy")?;
    let begun = Instant::now();
    let start = |name: &str, namespace: &str, configuration: &Value| -> Result<Daemon> {
        let file = folder.join(format!("{name}.json"));
        fs::write(&file, configuration.to_string())?;
        let mut command = inside(namespace, envoy);
        command.args(["--disable-hot-restart", "--log-level", "warn", "--concurrency"]);
        command.arg(lab.workers.to_string()).arg("-c").arg(&file);
        Daemon::start(name, &folder, &mut command)
    };
    let b = start("b", &pair.server, &b)?;
    Ok(Launched::explicit(begun, [start("a", &pair.client, &a)?, b]))
}

struct Side<'a> {
    scenario: Scenario,
    log: &'a Path,
    listen: (&'a str, u16),
    upstream: (&'a str, u16),
}

impl Side<'_> {
    fn configuration(&self, policy: Vec<Value>, downstream: Option<Value>, upstream: Option<Value>) -> Value {
        let mut chain = json!({"filters": self.filters(policy)});
        if let Some(tls) = downstream {
            chain["transport_socket"] = tls;
        }
        let mut cluster = json!({
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [{
                "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
            }]},
            "load_assignment": {
                "cluster_name": "upstream",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(self.upstream)}}]}],
            },
        });
        if let Some(tls) = upstream {
            cluster["transport_socket"] = tls;
        }
        if self.scenario.protocol == Protocol::Grpc {
            cluster["typed_extension_protocol_options"] = json!({
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            });
        }
        json!({"static_resources": {
            "listeners": [{"name": "l", "address": address(self.listen), "filter_chains": [chain]}],
            "clusters": [cluster],
        }})
    }

    fn filters(&self, mut policy: Vec<Value>) -> Vec<Value> {
        if self.scenario.protocol == Protocol::Tcp {
            policy.push(json!({"name": "tcp", "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "tcp",
                "cluster": "upstream",
                "access_log": [self.access_log(TCP_LOG)],
            }}));
            return policy;
        }
        policy.push(json!({"name": "router", "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.http.router.v3.Router"),
        }}));
        vec![json!({"name": "http", "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "http",
            "access_log": [self.access_log(HTTP_LOG)],
            "http_filters": policy,
            "forward_client_cert_details": "APPEND_FORWARD",
            "set_current_client_cert_details": {"subject": true, "uri": true},
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
            }]},
        }})]
    }

    fn access_log(&self, format: &str) -> Value {
        json!({"name": "file", "typed_config": {
            "@type": format!("{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"),
            "path": self.log,
            "log_format": {"text_format_source": {"inline_string": format}},
        }})
    }

    /// One policy for each rule, named so that the order of names is the order of rules.
    fn rbac(&self) -> Value {
        let is_stream = self.scenario.protocol == Protocol::Tcp;
        let policies: serde_json::Map<String, Value> = rules(self.scenario)
            .enumerate()
            .map(|(index, rule)| {
                let id = format!("spiffe://cluster.local/ns/bench/sa/{}", rule.account);
                let permission = if is_stream {
                    json!({"any": true})
                } else {
                    json!({"and_rules": {"rules": [
                        {"header": {"name": ":method", "string_match": {"exact": rule.method}}},
                        {"url_path": {"path": {"exact": rule.path}}},
                    ]}})
                };
                let principal = json!({"authenticated": {"principal_name": {"exact": id}}});
                (format!("rule-{index:05}"), json!({"permissions": [permission], "principals": [principal]}))
            })
            .collect();
        let layer = if is_stream { "network" } else { "http" };
        let mut configuration = json!({
            "@type": format!("{TYPE}.extensions.filters.{layer}.rbac.v3.RBAC"),
            "rules": {"action": "ALLOW", "policies": policies},
        });
        if is_stream {
            configuration["stat_prefix"] = json!("rbac");
        }
        json!({"name": "rbac", "typed_config": configuration})
    }
}

fn address((address, port): (&str, u16)) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn upstream_tls(lab: &Lab, protocol: Protocol) -> Value {
    let certificates = &lab.certificates;
    json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": "server",
        "common_tls_context": tls(&certificates.client, &certificates.authority, SERVER_ID, protocol),
    }})
}

fn downstream_tls(lab: &Lab, protocol: Protocol) -> Value {
    let certificates = &lab.certificates;
    json!({"name": "tls", "typed_config": {
        "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": tls(&certificates.server, &certificates.authority, CLIENT_ID, protocol),
    }})
}

fn tls(own: &Credential, authority: &Path, peer: &str, protocol: Protocol) -> Value {
    let alpn: &[&str] = match protocol {
        Protocol::Http1 => &["http/1.1"],
        Protocol::Grpc => &["h2"],
        Protocol::Tcp => &["istio"],
    };
    json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": own.certificate},
            "private_key": {"filename": own.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": authority},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
        "alpn_protocols": alpn,
    })
}
