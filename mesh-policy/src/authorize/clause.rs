//! One field of a rule, compiled: an attribute, a list of values, and whether the list excludes.

use ipnet::IpNet;
use std::net::IpAddr;

use super::attributes::Facts;
use super::field::Field;
use super::pattern::{Comparison, Glob, Pattern, Patterns};
use super::request_principal::RequestPrincipal;
use super::template::{self, Template};

/// A compiled field of a rule.
#[derive(Debug, Clone)]
pub(crate) struct Clause {
    pub(crate) field: Field,
    /// Holds when no value matches.
    pub(crate) negated: bool,
    pub(crate) test: Test,
    /// The field as the author wrote it, for instance `notPrincipals`.
    pub(crate) written: Box<str>,
    /// The values as the author wrote them.
    pub(crate) values: Box<[String]>,
}

/// The values, ORed, in the form that their attribute needs.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Texts(Patterns),
    Paths(Patterns, Box<[Template]>),
    /// Server names are lower case on the wire of a correct client; an odd one is folded before the test.
    ServerNames(Patterns),
    Globs(Box<[Glob]>),
    RequestPrincipals(Box<[RequestPrincipal]>),
    Networks(Box<[IpNet]>),
    /// Ascending.
    Ports(Box<[u16]>),
    Nothing,
}

/// How a clause is looked up, when there is more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum View {
    /// The only way of most clauses; templates by their start.
    Usual,
    /// Templates by their end.
    Ends,
}

/// What the index looks a clause up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Network(IpNet),
}

/// A value that its field cannot hold. Validation refuses such objects; should one come through, the rule is
/// dropped or widened as SEMANTICS 6.8 says for the action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{written} cannot hold {value:?}")]
pub(crate) struct ClauseError {
    pub(crate) written: String,
    pub(crate) value: String,
}

/// What values mean depends on these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The mesh's trust domain and its aliases.
    pub(crate) trust_domains: &'a [&'a str],
    /// Namespace of the policy.
    pub(crate) namespace: &'a str,
}

impl Clause {
    /// Compiles `values` for `field`.
    pub(crate) fn compile(
        context: Context<'_>,
        field: Field,
        written: &str,
        negated: bool,
        values: &[String],
    ) -> Result<Self, ClauseError> {
        let bad = |value: &str| ClauseError { written: written.to_owned(), value: value.to_owned() };
        let test = match &field {
            Field::Principal => Test::Texts(Patterns::parse(
                Comparison::Text,
                &values
                    .iter()
                    .flat_map(|value| expand_principal(context.trust_domains, value))
                    .collect::<Vec<_>>(),
            )),
            Field::TrustDomain => Test::Texts(Patterns::parse(
                Comparison::Text,
                &values
                    .iter()
                    .flat_map(|value| expand_domain(context.trust_domains, value))
                    .collect::<Vec<_>>(),
            )),
            Field::ServiceAccount => Test::Texts(Patterns::new(
                Comparison::Text,
                values.iter().map(|value| account(context.namespace, value)),
            )),
            Field::Namespace => Test::Globs(values.iter().map(|value| Glob::new(value)).collect()),
            Field::RequestPrincipal => Test::RequestPrincipals(
                values.iter().filter_map(|value| RequestPrincipal::parse(value)).collect(),
            ),
            Field::SourceIp | Field::RemoteIp | Field::DestinationIp => Test::Networks(
                values
                    .iter()
                    .map(|value| network(value).ok_or_else(|| bad(value)))
                    .collect::<Result<_, _>>()?,
            ),
            Field::DestinationPort => {
                let ports = values.iter().map(|value| port(value).ok_or_else(|| bad(value)));
                let mut ports: Box<[u16]> = ports.collect::<Result<_, _>>()?;
                ports.sort_unstable();
                Test::Ports(ports)
            }
            Field::Host => Test::Texts(Patterns::parse(Comparison::Authority, values)),
            Field::Header(name) if matches!(&**name, "host" | ":authority") => {
                Test::Texts(Patterns::parse(Comparison::Authority, values))
            }
            Field::Method | Field::Header(_) => Test::Texts(Patterns::parse(Comparison::Header, values)),
            Field::Path => {
                let (templates, plain): (Vec<_>, Vec<_>) =
                    values.iter().partition(|value| template::is_template(value));
                let templates =
                    templates.into_iter().map(|value| Template::parse(value).ok_or_else(|| bad(value)));
                Test::Paths(Patterns::parse(Comparison::Text, plain), templates.collect::<Result<_, _>>()?)
            }
            Field::Sni => Test::ServerNames(Patterns::parse(Comparison::Text, values)),
            Field::Claim(_) => Test::Texts(Patterns::parse(Comparison::Text, values)),
            Field::FilterMetadata => Test::Nothing,
        };
        Ok(Self { field, negated, test, written: written.into(), values: values.into() })
    }

    pub(crate) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.any_matches(facts) != self.negated
    }

    fn any_matches(&self, facts: &Facts<'_>) -> bool {
        match &self.test {
            Test::Texts(patterns) => self.field.any_text(facts, |value| patterns.matches(value)),
            Test::Paths(patterns, templates) => self.field.any_text(facts, |value| {
                patterns.matches(value)
                    || std::str::from_utf8(value)
                        .is_ok_and(|path| templates.iter().any(|template| template.matches(path)))
            }),
            Test::ServerNames(patterns) => facts.all.sni.is_some_and(|name| {
                let mut buffer = [0; super::pattern::LOWERED_BYTES_MAX];
                match super::pattern::lowered(name.as_bytes(), &mut buffer) {
                    Some(name) => patterns.matches(name),
                    None => patterns.matches(name.as_bytes()),
                }
            }),
            Test::Globs(globs) => {
                facts.workload.is_some_and(|(namespace, _)| globs.iter().any(|glob| glob.matches(namespace)))
            }
            Test::RequestPrincipals(principals) => facts
                .all
                .http
                .as_ref()
                .and_then(|http| http.claims)
                .is_some_and(|claims| principals.iter().any(|principal| principal.matches(claims))),
            Test::Networks(networks) => {
                let address = match self.field {
                    Field::RemoteIp => facts.remote_ip,
                    Field::DestinationIp => facts.destination_ip,
                    _ => facts.source_ip,
                };
                networks.iter().any(|network| network.contains(&address))
            }
            Test::Ports(ports) => ports.binary_search(&facts.all.destination_port).is_ok(),
            Test::Nothing => false,
        }
    }

    /// Whether it has other keys in [`View::Ends`].
    pub(crate) fn has_ends(&self) -> bool {
        matches!(&self.test, Test::Paths(_, templates) if !self.negated && !templates.is_empty())
    }

    /// Keys of which at least one must be found for the clause to hold, or `None` when there is no such set.
    pub(crate) fn keys(&self, view: View) -> Option<Vec<Key>> {
        if self.negated {
            return None;
        }
        match &self.test {
            Test::Texts(patterns) | Test::ServerNames(patterns) => patterns.iter().map(key).collect(),
            Test::Paths(patterns, templates) => {
                let mut keys: Vec<_> = patterns.iter().map(key).collect::<Option<_>>()?;
                keys.extend(templates.iter().map(|template| template_key(template, view)));
                Some(keys)
            }
            Test::Globs(globs) => globs
                .iter()
                .map(|glob| glob.literal().map(|text| Key::Exact(text.as_bytes().into())))
                .collect(),
            Test::RequestPrincipals(principals) => principals
                .iter()
                .map(|principal| principal.exact_subject().map(|sub| Key::Exact(sub.as_bytes().into())))
                .collect(),
            Test::Networks(networks) => Some(networks.iter().copied().map(Key::Network).collect()),
            Test::Ports(ports) => {
                Some(ports.iter().map(|port| Key::Exact(port.to_be_bytes().into())).collect())
            }
            Test::Nothing => Some(Vec::new()),
        }
    }
}

fn template_key(template: &Template, view: View) -> Key {
    match view {
        View::Usual => Key::Prefix(template.literal_prefix().as_bytes().into()),
        View::Ends => Key::Suffix(template.literal_suffix().as_bytes().into()),
    }
}

/// `*` is left to the verification: it holds for an empty header too, which no key can say.
fn key(pattern: Pattern) -> Option<Key> {
    match pattern {
        Pattern::Any => None,
        Pattern::Exact(text) => Some(Key::Exact(text)),
        Pattern::Prefix(text) => Some(Key::Prefix(text)),
        Pattern::Suffix(text) => Some(Key::Suffix(text)),
    }
}

/// A principal that names this mesh is taken for each of its trust domains (SEMANTICS 6.5).
fn expand_principal(trust_domains: &[&str], value: &str) -> Vec<String> {
    let parts: Vec<_> = value.split('/').collect();
    let [domain, rest @ ..] = &*parts else { return vec![value.to_owned()] };
    let is_ours = *domain == "cluster.local"
        || trust_domains.iter().any(|ours| half_matches(domain, ours) || half_matches(ours, domain));
    if parts.len() != 5 || *domain == "*" || !is_ours {
        return vec![value.to_owned()];
    }
    trust_domains.iter().map(|domain| format!("{domain}/{}", rest.join("/"))).collect()
}

/// A trust domain that is one of this mesh's stands for all of them.
fn expand_domain(trust_domains: &[&str], value: &str) -> Vec<String> {
    if trust_domains.contains(&value) {
        trust_domains.iter().map(|&domain| domain.to_owned()).collect()
    } else {
        vec![value.to_owned()]
    }
}

fn half_matches(pattern: &str, text: &str) -> bool {
    Patterns::parse(Comparison::Text, [pattern]).matches(text.as_bytes())
}

/// `NAMESPACE/sa/ACCOUNT`, as [`Facts::account_key`] gives it; a bare name is one of the policy's namespace.
fn account(policy_namespace: &str, value: &str) -> Pattern {
    let (namespace, account) = value.split_once('/').unwrap_or((policy_namespace, value));
    Pattern::Exact(format!("{namespace}/sa/{account}").into_bytes().into())
}

/// An address or block, masked, with an IPv4-mapped block folded to IPv4.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?),
    };
    if let IpNet::V6(block) = network
        && let Some(address) = block.addr().to_ipv4_mapped()
        && let Some(length) = block.prefix_len().checked_sub(96)
    {
        return IpNet::new(address.into(), length).ok().map(|folded| folded.trunc());
    }
    Some(network.trunc())
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn principals_of_the_mesh_are_taken_for_every_alias() {
        let domains = ["prod.example", "old.example"];
        let expand = |value| expand_principal(&domains, value);
        let both = ["prod.example/ns/a/sa/b", "old.example/ns/a/sa/b"];
        for value in ["cluster.local/ns/a/sa/b", "old.example/ns/a/sa/b", "*.example/ns/a/sa/b"] {
            assert_eq!(expand(value), both, "{value}");
        }
        for value in ["foreign/ns/a/sa/b", "*/ns/a/sa/b", "prod.example/ns/a", "*"] {
            assert_eq!(expand(value), [value], "{value}");
        }
    }

    #[test]
    fn blocks_are_masked_and_mapped_ones_folded() {
        for (text, expected) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(text).map(|n| n.to_string()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(network("10.0.0.0/33"), None);
    }
}
