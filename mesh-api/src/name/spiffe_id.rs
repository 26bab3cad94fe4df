//! SPIFFE ids and trust domains, validated by the SPIFFE-ID specification
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>, sections 2.1 to 2.3).
//!
//! The id is kept as its canonical text with the offset of the path, so that comparing and printing cost
//! nothing and the trust domain needs no second parse.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::{NameError, Namespace, ServiceAccount, shared_name};

const SCHEME: &str = "spiffe://";
/// Longest id, in bytes (SPIFFE-ID section 2.3).
const ID_BYTES_MAX: usize = 2048;
/// Longest trust domain name, in bytes (SPIFFE-ID section 2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

shared_name! {
    /// A trust domain name: lower-case letters, digits, `.`, `-` and `_`; at most 255 bytes.
    TrustDomain, check_trust_domain
}

fn check_trust_domain(text: &str) -> Result<&str, NameError> {
    let what = "trust domain";
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(NameError::TooLong { what, length: text.len(), max: TRUST_DOMAIN_BYTES_MAX });
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if text.bytes().all(allowed) {
        Ok(text)
    } else {
        Err(NameError::Malformed {
            what,
            text: text.to_owned(),
            reason: "may hold only lower-case letters, digits, '.', '-' and '_'",
        })
    }
}

/// A SPIFFE id such as `spiffe://cluster.local/ns/web/sa/frontend`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    /// Offset of the path (its leading `/`), or the length of the text when there is none.
    path_at: usize,
}

impl SpiffeId {
    /// Parses an id and checks it against the specification.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let what = "SPIFFE id";
        let malformed = |reason| NameError::Malformed { what, text: text.to_owned(), reason };
        if text.is_empty() {
            return Err(NameError::Empty { what });
        }
        if text.len() > ID_BYTES_MAX {
            return Err(NameError::TooLong { what, length: text.len(), max: ID_BYTES_MAX });
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| malformed("must start with spiffe://"))?;
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        if !path.is_empty() {
            check_path(path).map_err(malformed)?;
        }
        Ok(Self { text: text.into(), path_at: SCHEME.len() + domain.len() })
    }

    /// The identity of a workload: `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn for_workload(domain: &TrustDomain, namespace: &Namespace, account: &ServiceAccount) -> Self {
        let text = format!("{SCHEME}{domain}/ns/{namespace}/sa/{account}");
        Self { text: text.into(), path_at: SCHEME.len() + domain.as_str().len() }
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// The path with its leading `/`, or the empty string.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// The id without `spiffe://`, the form that policies write as `principals`.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.text[SCHEME.len()..]
    }

    /// The namespace, if the id has exactly the form `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.workload_parts().map(|(namespace, _)| namespace)
    }

    /// The service account, if the id has exactly the form `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn service_account(&self) -> Option<&str> {
        self.workload_parts().map(|(_, account)| account)
    }

    /// Namespace and service account of an id of the form `/ns/NAMESPACE/sa/ACCOUNT`.
    #[must_use]
    pub fn workload_parts(&self) -> Option<(&str, &str)> {
        let rest = self.path().strip_prefix("/ns/")?;
        let (namespace, rest) = rest.split_once('/')?;
        let account = rest.strip_prefix("sa/")?;
        (!account.contains('/')).then_some((namespace, account))
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    for segment in path[1..].split('/') {
        match segment {
            "" => return Err("has an empty path segment"),
            "." | ".." => return Err("has a relative path segment"),
            _ => {}
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
            return Err("has a path segment with a character other than letters, digits, '.', '-' and '_'");
        }
    }
    Ok(())
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.text.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_id_is_taken_apart() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/web/sa/frontend").expect("valid id");
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/web/sa/frontend");
        assert_eq!(id.principal(), "cluster.local/ns/web/sa/frontend");
        assert_eq!(id.workload_parts(), Some(("web", "frontend")));
    }

    #[test]
    fn only_the_exact_workload_form_has_a_namespace() {
        for text in ["spiffe://d", "spiffe://d/ns/a", "spiffe://d/ns/a/sa/b/c", "spiffe://d/x/ns/a/sa/b"] {
            let id = SpiffeId::parse(text).expect("valid id");
            assert_eq!(id.workload_parts(), None, "{text}");
        }
    }

    #[test]
    fn ids_that_break_the_specification_are_refused() {
        for text in [
            "",
            "http://d/a",
            "SPIFFE://d/a",
            "spiffe://",
            "spiffe:///a",
            "spiffe://D/a",
            "spiffe://d:8080/a",
            "spiffe://u@d/a",
            "spiffe://d/",
            "spiffe://d/a/",
            "spiffe://d/a//b",
            "spiffe://d/a/../b",
            "spiffe://d/a/./b",
            "spiffe://d/a%20b",
            "spiffe://d/a?q",
            "spiffe://d/a#f",
            "spiffe://d/a\0b",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(SpiffeId::parse(&format!("spiffe://d/{}", "a".repeat(2048))).is_err());
    }
}
