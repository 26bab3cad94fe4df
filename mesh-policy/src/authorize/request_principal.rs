//! `requestPrincipals` values: issuer and subject, compared apart (SEMANTICS 6.5).
//!
//! Joining the two claims and comparing once would let `iss = "https://a/b"`, `sub = "c"` pass for
//! `iss = "https://a"`, `sub = "b/c"` (TRAP 22).

use super::attributes::Claims;

/// A test of one claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    NonEmpty,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
}

impl Part {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::NonEmpty => !value.is_empty(),
            Self::Exact(text) => value == &**text,
            Self::Prefix(text) => value.starts_with(&**text),
            Self::Suffix(text) => value.ends_with(&**text),
        }
    }
}

/// A compiled value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestPrincipal {
    pub(crate) issuer: Part,
    pub(crate) subject: Part,
}

impl RequestPrincipal {
    /// Compiles a value; `None` when it names no subject and so never matches.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        if value == "*" {
            return Some(Self { issuer: Part::NonEmpty, subject: Part::NonEmpty });
        }
        if let Some(rest) = value.strip_prefix('*') {
            return Some(match rest.rsplit_once('/') {
                Some(("", subject)) => Self { issuer: Part::NonEmpty, subject: Part::Exact(subject.into()) },
                Some((issuer, subject)) => {
                    Self { issuer: Part::Suffix(issuer.into()), subject: Part::Exact(subject.into()) }
                }
                None => Self { issuer: Part::NonEmpty, subject: Part::Suffix(rest.into()) },
            });
        }
        if let Some(rest) = value.strip_suffix('*') {
            return Some(match rest.rsplit_once('/') {
                Some((issuer, "")) => Self { issuer: Part::Exact(issuer.into()), subject: Part::NonEmpty },
                Some((issuer, subject)) => {
                    Self { issuer: Part::Exact(issuer.into()), subject: Part::Prefix(subject.into()) }
                }
                None => Self { issuer: Part::Prefix(rest.into()), subject: Part::NonEmpty },
            });
        }
        let (issuer, subject) = value.rsplit_once('/')?;
        Some(Self { issuer: Part::Exact(issuer.into()), subject: Part::Exact(subject.into()) })
    }

    /// The subject, if it is exact.
    pub(crate) fn exact_subject(&self) -> Option<&str> {
        match &self.subject {
            Part::Exact(subject) => Some(subject),
            Part::NonEmpty | Part::Prefix(_) | Part::Suffix(_) => None,
        }
    }

    /// A token without both claims has no request principal.
    pub(crate) fn matches(&self, claims: &Claims) -> bool {
        match (claims.text("iss"), claims.text("sub")) {
            (Some(issuer), Some(subject)) => self.issuer.matches(issuer) && self.subject.matches(subject),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(value: &str, issuer: &str, subject: &str) -> bool {
        let serde_json::Value::Object(payload) = json!({"iss": issuer, "sub": subject}) else { return false };
        let claims = Claims::from_verified(payload, &[]);
        RequestPrincipal::parse(value).is_some_and(|principal| principal.matches(&claims))
    }

    #[test]
    fn every_form_of_value_is_cut_as_specified() {
        for (value, issuer, subject, expected) in [
            ("*", "i", "s", true),
            ("*", "i", "", false),
            ("*.example/bob", "a.example", "bob", true),
            ("*.example/bob", "a.example", "bobby", false),
            ("*/bob", "any", "bob", true),
            ("*/*", "any", "bob", false),
            ("*/*", "any", "*", true),
            ("*bob", "any", "xbob", true),
            ("https://a/b*", "https://a", "bob", true),
            ("https://a/*", "https://a", "x", true),
            ("https://*", "https://a", "x", false),
            ("https://*", "https:/", "x", true),
            ("iss*", "issuer", "x", true),
            ("https://a/b/c", "https://a/b", "c", true),
            ("https://a/b/c", "https://a", "b/c", false),
            ("nosubject", "nosubject", "", false),
        ] {
            assert_eq!(matches(value, issuer, subject), expected, "{value} on {issuer} and {subject}");
        }
    }
}
