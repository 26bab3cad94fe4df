//! A request as flags state it.

use std::io::Read as _;
use std::net::IpAddr;

use mesh_api::name::{Namespace, ServiceAccount, SpiffeId, TrustDomain};
use mesh_api::policy_test::{HttpRequest, Request, Traffic};

use crate::args::GlobalArgs;
use crate::command::objects::input;
use crate::command::{EXIT_USAGE, Failure};

/// Longest token that is read from standard input, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// `WORKLOAD.NAMESPACE:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `WORKLOAD.NAMESPACE`, or the name alone.
    pub(super) workload: String,
    /// Target port.
    pub(super) port: u16,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (workload, port) = text.rsplit_once(':').ok_or("must be WORKLOAD.NAMESPACE:PORT")?;
        let port = port.parse().map_err(|_| format!("{port:?} is no port from 1 to 65535"))?;
        if port == 0 || workload.is_empty() {
            return Err("must be WORKLOAD.NAMESPACE:PORT, with a port from 1 to 65535".to_owned());
        }
        Ok(Self { workload: workload.to_owned(), port })
    }

    /// The workload as a host: without the kind that may stand before it.
    fn host(&self) -> &str {
        self.workload.split_once('/').map_or(self.workload.as_str(), |(_, name)| name)
    }

    /// Name and namespace.
    pub(super) fn name(&self, global: &GlobalArgs) -> Result<(String, Namespace), Failure> {
        let (name, namespace) = match (self.workload.rsplit_once('.'), &global.namespace) {
            (Some((name, namespace)), _) => (name, namespace),
            (None, Some(namespace)) => (self.workload.as_str(), namespace.as_str()),
            (None, None) => (self.workload.as_str(), "default"),
        };
        Ok((name.to_owned(), input::namespace(namespace)?))
    }
}

/// `NAME=VALUE`.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// Flags of a request.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The request")]
pub(super) struct RequestArgs {
    /// Who calls: SERVICEACCOUNT.NAMESPACE or a SPIFFE id; default: somebody without identity.
    #[arg(long, value_name = "CALLER")]
    from: Option<String>,
    /// A byte stream instead of a request.
    #[arg(long, conflicts_with_all = ["method", "path", "host", "header", "jwt"])]
    tcp: bool,
    /// Method.
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Path and query, as sent.
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: String,
    /// Authority; default: the name of the workload.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Header line, as often as needed.
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Token that is sent as `Authorization: Bearer`, or - for standard input, which keeps it off the list of
    /// processes.
    #[arg(long, value_name = "TOKEN")]
    jwt: Option<String>,
    /// Address of the caller.
    #[arg(long, value_name = "ADDRESS", default_value = "10.0.0.1")]
    source_ip: IpAddr,
}

impl RequestArgs {
    /// The request.
    ///
    /// # Errors
    /// When the caller is no identity, or a token cannot be read.
    pub(super) fn build(
        &self,
        global: &GlobalArgs,
        to: &Target,
        domain: &TrustDomain,
    ) -> Result<Request, Failure> {
        let principal = self.from.as_deref().map(|from| caller(from, global, domain)).transpose()?;
        let mut headers = self.header.clone();
        if let Some(token) = &self.jwt {
            headers.push(("authorization".to_owned(), format!("Bearer {}", read_token(token)?)));
        }
        Ok(Request {
            protocol: if self.tcp { Traffic::Tcp } else { Traffic::Http },
            tls: principal.is_some(),
            principal,
            source_ip: self.source_ip,
            remote_ip: self.source_ip,
            destination_ip: None,
            sni: None,
            port: to.port,
            http: HttpRequest {
                method: self.method.clone(),
                host: self.host.clone().unwrap_or_else(|| to.host().to_owned()),
                path: self.path.clone(),
                headers,
                jwt_claims: None,
            },
        })
    }
}

fn read_token(stated: &str) -> Result<String, Failure> {
    if stated != "-" {
        return Ok(stated.to_owned());
    }
    let mut token = String::new();
    let read = std::io::stdin().lock().take(TOKEN_BYTES_MAX).read_to_string(&mut token);
    read.map_err(|error| Failure::new(format!("cannot read a token from standard input: {error}")))?;
    Ok(token.trim().to_owned())
}

fn caller(text: &str, global: &GlobalArgs, domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{text:?} is no caller: {error}"))
            .hint("Write SERVICEACCOUNT.NAMESPACE, or spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT.")
            .status(EXIT_USAGE)
    };
    if text.starts_with("spiffe://") {
        return SpiffeId::parse(text).map_err(|error| wrong(&error));
    }
    let (account, namespace) = match (text.rsplit_once('.'), global.namespace.as_deref()) {
        (Some(pair), _) => pair,
        (None, Some(namespace)) => (text, namespace),
        (None, None) => return Err(wrong(&"it has no namespace")),
    };
    let namespace = Namespace::parse(namespace).map_err(|error| wrong(&error))?;
    let account = ServiceAccount::parse(account).map_err(|error| wrong(&error))?;
    Ok(SpiffeId::for_workload(domain, &namespace, &account))
}

/// A request in one line.
pub(super) fn told(request: &Request, to: &str) -> String {
    let caller = request.principal.as_ref().map_or_else(
        || format!("a caller without identity ({})", request.source_ip),
        |principal| principal.to_string(),
    );
    match request.protocol {
        Traffic::Tcp => format!("{caller} -> {to}:{} (bytes)", request.port),
        Traffic::Http => {
            format!("{caller} -> {to}:{} {} {}", request.port, request.http.method, request.http.path)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_workload_and_a_port() {
        let target = Target::parse("catalog-0.backend:8080").expect("a target");
        assert_eq!((target.workload.as_str(), target.port), ("catalog-0.backend", 8080));
        for text in ["catalog", "catalog:", "catalog:0", ":80", "catalog:70000"] {
            assert!(Target::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("X-Tenant: a:b"), Ok(("x-tenant".to_owned(), "a:b".to_owned())));
        assert!(header("x-tenant").is_err());
    }
}
