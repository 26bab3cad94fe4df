//! Names that Kubernetes defines: namespaces, object names, service accounts, labels.
//!
//! Rules: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/> (RFC 1123 label, RFC 1123
//! subdomain) and `/labels/` for label keys and values.

use std::collections::BTreeMap;

use super::{NameError, shared_name};

/// Longest RFC 1123 label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// Longest RFC 1123 subdomain, in bytes.
const SUBDOMAIN_BYTES_MAX: usize = 253;

shared_name! {
    /// A namespace: an RFC 1123 label of at most 63 bytes.
    Namespace, check_namespace
}
shared_name! {
    /// The name of an object: an RFC 1123 subdomain of at most 253 bytes.
    ObjectName, check_object_name
}
shared_name! {
    /// The name of a service account: an RFC 1123 subdomain of at most 253 bytes.
    ServiceAccount, check_service_account
}

/// Labels of a workload or object. Keys and values are validated by the manifest.
pub type Labels = BTreeMap<String, String>;

fn check_namespace(text: &str) -> Result<&str, NameError> {
    dns_label("namespace", text)
}

fn check_object_name(text: &str) -> Result<&str, NameError> {
    dns_subdomain("name", text)
}

fn check_service_account(text: &str) -> Result<&str, NameError> {
    dns_subdomain("service account", text)
}

/// Accepts an RFC 1123 label: lower-case letters, digits and `-`, starting and ending alphanumeric.
pub(crate) fn dns_label<'a>(what: &'static str, text: &'a str) -> Result<&'a str, NameError> {
    bounded(what, text, LABEL_BYTES_MAX)?;
    if is_label(text) {
        Ok(text)
    } else {
        Err(NameError::Malformed {
            what,
            text: text.to_owned(),
            reason: "must consist of lower-case letters, digits and '-', and start and end with a letter or digit",
        })
    }
}

/// Accepts an RFC 1123 subdomain: labels joined by dots.
pub(crate) fn dns_subdomain<'a>(what: &'static str, text: &'a str) -> Result<&'a str, NameError> {
    bounded(what, text, SUBDOMAIN_BYTES_MAX)?;
    if text.split('.').all(is_label) {
        Ok(text)
    } else {
        Err(NameError::Malformed {
            what,
            text: text.to_owned(),
            reason: "must consist of lower-case letters, digits, '-' and '.', and each part must start and end with a letter or digit",
        })
    }
}

fn bounded(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > max {
        return Err(NameError::TooLong { what, length: text.len(), max });
    }
    Ok(())
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_is_a_dns_label() {
        assert!(Namespace::parse("istio-system").is_ok());
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(Namespace::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn object_name_is_a_dns_subdomain() {
        assert!(ObjectName::parse("a.b-c.d").is_ok());
        for bad in ["", ".", "a..b", "a/b", "a."] {
            assert!(ObjectName::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
