//! The attributes that a policy can test, and how each is read from a request.

use std::fmt;

use serde_json::Value;

use super::attributes::Facts;

/// One attribute of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    Principal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    RequestPrincipal,
    SourceIp,
    RemoteIp,
    DestinationIp,
    DestinationPort,
    Sni,
    Host,
    Method,
    Path,
    /// By lower-case name.
    Header(Box<str>),
    /// By path of names.
    Claim(Box<[Box<str>]>),
    /// `experimental.envoy.filters.*`: nothing in this proxy produces it, so it is always absent.
    FilterMetadata,
}

impl Field {
    /// Whether the attribute exists for HTTP requests only (SEMANTICS 6.8).
    pub(crate) fn is_http_only(&self) -> bool {
        match self {
            Self::RequestPrincipal
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::Claim(_) => true,
            Self::Principal
            | Self::Namespace
            | Self::ServiceAccount
            | Self::TrustDomain
            | Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::Sni
            | Self::FilterMetadata => false,
        }
    }

    /// Whether `each` says yes to any value of a text-like attribute. An absent attribute has no value, and
    /// so has one that is not text.
    pub(crate) fn any_text(&self, facts: &Facts<'_>, mut each: impl FnMut(&[u8]) -> bool) -> bool {
        let all = facts.all;
        let http = all.http.as_ref();
        let mut one = |value: Option<&str>| value.is_some_and(|value| each(value.as_bytes()));
        match self {
            Self::Principal => one(all.peer.map(|peer| peer.principal())),
            Self::TrustDomain => one(all.peer.map(|peer| peer.trust_domain())),
            Self::Namespace => one(facts.workload.map(|(namespace, _)| namespace)),
            Self::ServiceAccount => one(facts.account_key()),
            Self::Sni => one(all.sni),
            Self::Host => one(http.map(|http| http.authority)),
            Self::Method => one(http.map(|http| http.method)),
            Self::Path => one(http.map(|http| http.path).filter(|path| !path.is_empty())),
            Self::RequestPrincipal => {
                one(http.and_then(|http| http.claims).and_then(|claims| claims.text("sub")))
            }
            Self::Header(name) => http.is_some_and(|http| match &**name {
                ":authority" | "host" => each(http.authority.as_bytes()),
                ":method" => each(http.method.as_bytes()),
                name => {
                    let mut found = false;
                    http.headers.visit(name, &mut |value| {
                        found = each(value);
                        !found
                    });
                    found
                }
            }),
            Self::Claim(path) => {
                match http
                    .and_then(|http| http.claims)
                    .and_then(|claims| claims.at(path.iter().map(|name| &**name)))
                {
                    Some(Value::String(text)) => each(text.as_bytes()),
                    Some(Value::Array(list)) => {
                        list.iter().filter_map(Value::as_str).any(|text| each(text.as_bytes()))
                    }
                    Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => false,
                }
            }
            Self::SourceIp
            | Self::RemoteIp
            | Self::DestinationIp
            | Self::DestinationPort
            | Self::FilterMetadata => false,
        }
    }

    /// The value or values as text, for `explain`; empty when the attribute is absent.
    pub(crate) fn found(&self, facts: &Facts<'_>) -> Vec<String> {
        match self {
            Self::SourceIp => vec![facts.source_ip.to_string()],
            Self::RemoteIp => vec![facts.remote_ip.to_string()],
            Self::DestinationIp => vec![facts.destination_ip.to_string()],
            Self::DestinationPort => vec![facts.all.destination_port.to_string()],
            Self::ServiceAccount => facts
                .workload
                .map(|(namespace, account)| format!("{namespace}/{account}"))
                .into_iter()
                .collect(),
            Self::RequestPrincipal => {
                let claims = facts.all.http.as_ref().and_then(|http| http.claims);
                let pair = claims.and_then(|claims| Some((claims.text("iss")?, claims.text("sub")?)));
                pair.map(|(iss, sub)| format!("{iss}/{sub}")).into_iter().collect()
            }
            Self::Principal
            | Self::Namespace
            | Self::TrustDomain
            | Self::Sni
            | Self::Host
            | Self::Method
            | Self::Path
            | Self::Header(_)
            | Self::Claim(_)
            | Self::FilterMetadata => {
                let mut found = Vec::new();
                self.any_text(facts, |value| {
                    found.push(String::from_utf8_lossy(value).into_owned());
                    false
                });
                found
            }
        }
    }
}

/// The key under which `when` names the attribute.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Principal => "source.principal",
            Self::Namespace => "source.namespace",
            Self::ServiceAccount => "source.serviceAccount",
            Self::TrustDomain => "source.trustDomain",
            Self::RequestPrincipal => "request.auth.principal",
            Self::SourceIp => "source.ip",
            Self::RemoteIp => "remote.ip",
            Self::DestinationIp => "destination.ip",
            Self::DestinationPort => "destination.port",
            Self::Sni => "connection.sni",
            Self::Host => "request.host",
            Self::Method => "request.method",
            Self::Path => "request.path",
            Self::Header(name) => return write!(f, "request.headers[{name}]"),
            Self::Claim(path) => {
                f.write_str("request.auth.claims")?;
                return path.iter().try_for_each(|name| write!(f, "[{name}]"));
            }
            Self::FilterMetadata => "experimental.envoy.filters",
        })
    }
}

/// Reads the key of a `when` entry; `None` is an unknown attribute.
pub(crate) fn parse_key(key: &str) -> Option<Field> {
    Some(match key {
        "source.ip" => Field::SourceIp,
        "remote.ip" => Field::RemoteIp,
        "source.namespace" => Field::Namespace,
        "source.serviceAccount" => Field::ServiceAccount,
        "source.trustDomain" => Field::TrustDomain,
        "source.principal" => Field::Principal,
        "request.auth.principal" => Field::RequestPrincipal,
        "request.auth.audiences" => Field::Claim(["aud".into()].into()),
        "request.auth.presenter" => Field::Claim(["azp".into()].into()),
        "destination.ip" => Field::DestinationIp,
        "destination.port" => Field::DestinationPort,
        "connection.sni" => Field::Sni,
        _ => {
            if let Some(rest) = key.strip_prefix("request.headers") {
                let [name] = &*brackets(rest)? else { return None };
                return Some(Field::Header(name.to_ascii_lowercase().into()));
            }
            if let Some(rest) = key.strip_prefix("request.auth.claims") {
                return Some(Field::Claim(brackets(rest)?));
            }
            let rest = key.strip_prefix("experimental.envoy.filters.")?;
            brackets(&rest[rest.find('[')?..])?;
            Field::FilterMetadata
        }
    })
}

/// The names in `[a][b]`, at least one and none empty.
fn brackets(text: &str) -> Option<Box<[Box<str>]>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Box<[Box<str>]> = inner.split("][").map(Into::into).collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_printed() {
        for key in [
            "source.principal",
            "request.headers[x-tenant]",
            "request.auth.claims[a]",
            "request.auth.claims[a.b][c]",
            "connection.sni",
        ] {
            assert_eq!(parse_key(key).map(|field| field.to_string()).as_deref(), Some(key));
        }
    }

    #[test]
    fn unknown_and_malformed_keys_are_refused() {
        for key in [
            "destination.labels[app]",
            "destination.user",
            "request.headers",
            "request.headers[]",
            "request.headers[a][b]",
            "request.auth.claims[a",
            "request.auth.claims[a]b",
            "experimental.envoy.filters.x",
            "source",
            "",
        ] {
            assert_eq!(parse_key(key), None, "{key}");
        }
    }
}
