//! A request that was found, as one that somebody can send.

use std::net::{IpAddr, Ipv4Addr};

use mesh_api::model::MeshSettings;
use mesh_api::name::SpiffeId;
use mesh_api::policy_test::{HttpRequest, PORT_DEFAULT, Request, Traffic};
use serde_json::{Map, Value as Json};

use super::Undecided;
use super::atom::{Atoms, Dimension, Test};
use super::domain;
use super::scenario::Scenario;
use super::search::Found;
use super::side::Transport;
use super::space::Value;

/// Address of a caller of whom nothing else is known, as in policy tests.
const SOURCE_DEFAULT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// Puts a request together from its dimensions.
pub(super) fn request(
    atoms: &Atoms,
    mesh: &MeshSettings,
    scenario: &Scenario,
    found: &Found,
    host: &str,
) -> Result<Request, Undecided> {
    let whole = scenario.whole();
    let mut request = Request {
        protocol: scenario.traffic,
        principal: None,
        tls: scenario.transport != Transport::Plain,
        source_ip: SOURCE_DEFAULT,
        remote_ip: SOURCE_DEFAULT,
        destination_ip: None,
        sni: None,
        port: default_port(scenario),
        http: HttpRequest {
            method: if whole.path || !whole.http { "GET" } else { "CONNECT" }.to_owned(),
            host: host.to_owned(),
            path: "/".to_owned(),
            headers: Vec::new(),
            jwt_claims: None,
        },
    };
    let mut principal = format!("{}/ns/other/sa/other", mesh.trust_domain);
    let mut claims = Map::new();
    let mut remote = None;
    for (dimension, value) in &found.values {
        match (atoms.dimension(*dimension), &**value) {
            (Dimension::Peer, Value::Text(peer)) => principal = text(peer)?,
            (Dimension::Addresses, Value::Addresses { source, destination }) => {
                request.source_ip = *source;
                request.destination_ip = tests_destination(atoms).then_some(*destination);
            }
            (Dimension::Remote, Value::Address(address)) => remote = Some(*address),
            (Dimension::Port, Value::Port(port)) => request.port = *port,
            (Dimension::ServerName, Value::Texts(names)) => {
                request.sni =
                    names.first().filter(|_| whole.server_name).map(|name| text(name)).transpose()?;
            }
            (Dimension::Authority, Value::Text(authority)) => request.http.host = text(authority)?,
            (Dimension::Method, Value::Text(method)) => request.http.method = text(method)?,
            (Dimension::Target, Value::Text(target)) if whole.path => {
                request.http.path = domain::written(&text(target)?, mesh.path_normalization);
            }
            (Dimension::Header(name), Value::Texts(lines)) => {
                for line in lines {
                    request.http.headers.push((name.to_string(), text(line)?));
                }
            }
            (Dimension::Token, Value::Token { issuer, subject }) => {
                claims.insert("iss".to_owned(), text(issuer)?.into());
                if let Some(subject) = subject {
                    claims.insert("sub".to_owned(), text(subject)?.into());
                }
            }
            (Dimension::Claim(path), Value::Texts(texts)) => put_claim(&mut claims, path, texts)?,
            _ => {}
        }
    }
    request.remote_ip = remote.unwrap_or(request.source_ip);
    if whole.peer {
        let id = format!("spiffe://{principal}");
        let id = SpiffeId::parse(&id).map_err(|error| Undecided::Untold(error.to_string()))?;
        request.principal = Some(id);
    }
    if let Some(token) = &scenario.token {
        if !token.issuer.is_empty() {
            claims.insert("iss".to_owned(), token.issuer.clone().into());
        }
        request.http.jwt_claims = Some(claims);
    }
    if scenario.traffic == Traffic::Tcp {
        request.http.headers.clear();
    }
    Ok(request)
}

/// Any port of the scenario, when no rule looks at ports.
fn default_port(scenario: &Scenario) -> u16 {
    let any = || (1..=u16::MAX).find(|port| scenario.ports.has(*port));
    if scenario.ports.has(PORT_DEFAULT) { PORT_DEFAULT } else { any().unwrap_or(PORT_DEFAULT) }
}

fn tests_destination(atoms: &Atoms) -> bool {
    atoms.atoms.iter().any(|atom| matches!(atom.test, Test::Destination(_)))
}

fn text(bytes: &[u8]) -> Result<String, Undecided> {
    String::from_utf8(bytes.to_vec())
        .map_err(|_| Undecided::Untold("a value that is no text would be needed".to_owned()))
}

/// Puts strings at a path of names. One alone stands as a string, unless it would be split at spaces.
fn put_claim(claims: &mut Map<String, Json>, path: &[Box<str>], texts: &[Vec<u8>]) -> Result<(), Undecided> {
    let texts: Vec<String> = texts.iter().map(|text| self::text(text)).collect::<Result<_, _>>()?;
    let value = match &*texts {
        [] => return Ok(()),
        [only] if !only.contains(' ') && !only.is_empty() => Json::String(only.clone()),
        texts => Json::Array(texts.iter().cloned().map(Json::String).collect()),
    };
    let Some((last, outer)) = path.split_last() else { return Ok(()) };
    let mut place = claims;
    for name in outer {
        let inner = place.entry(name.to_string()).or_insert_with(|| Json::Object(Map::new()));
        match inner {
            Json::Object(inner) => place = inner,
            _ => return Err(Undecided::Untold("a claim would have to be text and an object".to_owned())),
        }
    }
    place.insert(last.to_string(), value);
    Ok(())
}
