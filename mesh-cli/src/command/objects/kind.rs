//! Kinds as one types them: `AuthorizationPolicy`, `authorizationpolicies`, `ap`, with the API group or
//! without, in any case (pure).

use mesh_api::model::{Kind, ObjectRef};

use crate::suggestion;

/// Why a text names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{written:?} is not a kind that the mesh knows")]
pub(crate) struct UnknownKind {
    written: String,
    nearest: Option<&'static str>,
}

impl UnknownKind {
    /// What to do about it.
    pub(crate) fn hint(&self) -> String {
        let all: Vec<&str> = Kind::ALL.into_iter().map(|kind| names(kind).plural).collect();
        match self.nearest {
            Some(nearest) => format!("Did you mean {nearest}? There are: {}.", all.join(", ")),
            None => format!("There are: {}.", all.join(", ")),
        }
    }
}

struct Names {
    singular: &'static str,
    plural: &'static str,
    short: &'static str,
    group: &'static str,
}

fn names(kind: Kind) -> Names {
    const SECURITY: &str = "security.istio.io";
    const NETWORKING: &str = "networking.istio.io";
    let (singular, plural, short, group) = match kind {
        Kind::AuthorizationPolicy => ("authorizationpolicy", "authorizationpolicies", "ap", SECURITY),
        Kind::PeerAuthentication => ("peerauthentication", "peerauthentications", "pa", SECURITY),
        Kind::RequestAuthentication => ("requestauthentication", "requestauthentications", "ra", SECURITY),
        Kind::Telemetry => ("telemetry", "telemetries", "telemetry", "telemetry.istio.io"),
        Kind::DestinationRule => ("destinationrule", "destinationrules", "dr", NETWORKING),
        Kind::VirtualService => ("virtualservice", "virtualservices", "vs", NETWORKING),
        Kind::ServiceEntry => ("serviceentry", "serviceentries", "se", NETWORKING),
        Kind::WorkloadEntry => ("workloadentry", "workloadentries", "we", NETWORKING),
        Kind::Pod => ("pod", "pods", "po", ""),
        Kind::Service => ("service", "services", "svc", ""),
        Kind::ServiceAccount => ("serviceaccount", "serviceaccounts", "sa", ""),
        Kind::Namespace => ("namespace", "namespaces", "ns", ""),
        Kind::MeshConfig => ("meshconfig", "meshconfigs", "mc", "mini-mesh.io"),
    };
    Names { singular, plural, short, group }
}

/// A kind as one types it in full, without its group.
pub(crate) fn plural(kind: Kind) -> &'static str {
    names(kind).plural
}

/// The kinds that `text` names: one, several separated by commas, or `all`.
///
/// # Errors
/// When a name is not known.
pub(crate) fn parse_many(text: &str) -> Result<Vec<Kind>, UnknownKind> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(Kind::ALL.to_vec());
    }
    text.split(',').map(|name| parse(name.trim())).collect()
}

/// The kind that `text` names.
///
/// # Errors
/// When the name is not known.
pub(crate) fn parse(text: &str) -> Result<Kind, UnknownKind> {
    let wanted = text.to_lowercase();
    let (name, group) = wanted.split_once('.').unwrap_or((&wanted, ""));
    let found = Kind::ALL.into_iter().find(|kind| {
        let names = names(*kind);
        [names.singular, names.plural, names.short].contains(&name)
            // kubectl takes `authorizationpolicies.v1.security.istio.io` too.
            && (group.is_empty() || (!names.group.is_empty() && group.ends_with(names.group)))
    });
    found.ok_or_else(|| {
        let known = Kind::ALL.into_iter().flat_map(|kind| [names(kind).singular, names(kind).plural]);
        UnknownKind { written: text.to_owned(), nearest: suggestion::nearest(name, known) }
    })
}

/// The kind as a resource: `authorizationpolicies.security.istio.io`.
pub(crate) fn resource(kind: Kind) -> String {
    let names = names(kind);
    if names.group.is_empty() { names.plural.to_owned() } else { format!("{}.{}", names.plural, names.group) }
}

/// The object as kubectl names it: `authorizationpolicy.security.istio.io/NAME`.
pub(crate) fn display(object: &ObjectRef) -> String {
    named(object.kind, object.name.as_str())
}

/// The object of this kind and name as kubectl names it.
pub(crate) fn named(kind: Kind, name: &str) -> String {
    let names = names(kind);
    match names.group {
        "" => format!("{}/{name}", names.singular),
        group => format!("{}.{group}/{name}", names.singular),
    }
}

/// Name of the file in which a new object is kept.
pub(crate) fn file_stem(object: &ObjectRef) -> String {
    let singular = names(object.kind).singular;
    match object.kind {
        Kind::Namespace => format!("{singular}-{}", object.name),
        _ => format!("{singular}-{}-{}", object.namespace, object.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_kind_is_known() {
        for text in [
            "AuthorizationPolicy",
            "authorizationpolicy",
            "authorizationpolicies",
            "ap",
            "AP",
            "authorizationpolicies.security.istio.io",
            "authorizationpolicy.v1.security.istio.io",
        ] {
            assert_eq!(parse(text), Ok(Kind::AuthorizationPolicy), "{text}");
        }
        assert_eq!(parse_many("pa,vs"), Ok(vec![Kind::PeerAuthentication, Kind::VirtualService]));
        assert_eq!(parse_many("all").map(|kinds| kinds.len()), Ok(Kind::ALL.len()));
    }

    #[test]
    fn no_two_kinds_share_a_name() {
        for kind in Kind::ALL {
            let names = names(kind);
            for name in [names.singular, names.plural, names.short] {
                assert_eq!(parse(name), Ok(kind), "{name}");
            }
            assert_eq!(parse(&resource(kind)), Ok(kind));
            assert_eq!(parse(kind.as_str()), Ok(kind));
        }
    }

    #[test]
    fn an_unknown_kind_brings_the_nearest() {
        let error = parse("authorizationpolicys").expect_err("a typo");
        assert!(error.hint().starts_with("Did you mean authorizationpolic"), "{}", error.hint());
        assert!(parse("services.security.istio.io").is_err(), "a group that is not its own");
        assert!(parse("gateways").is_err());
    }
}
