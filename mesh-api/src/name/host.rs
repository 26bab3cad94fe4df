//! Host names of services, in canonical form: lower case, no trailing dot.

use super::{NameError, shared_name};

/// Longest host name, in bytes (RFC 1035 section 2.3.4, without the trailing dot).
const HOST_BYTES_MAX: usize = 253;

shared_name! {
    /// A fully qualified host such as `catalog.backend.svc.cluster.local`, or a wildcard `*.example.com`.
    Host, check_host
}

fn check_host(text: &str) -> Result<String, NameError> {
    let what = "host";
    let trimmed = text.strip_suffix('.').unwrap_or(text);
    if trimmed.is_empty() {
        return Err(NameError::Empty { what });
    }
    if trimmed.len() > HOST_BYTES_MAX {
        return Err(NameError::TooLong { what, length: trimmed.len(), max: HOST_BYTES_MAX });
    }
    let named = trimmed.strip_prefix("*.").unwrap_or(trimmed);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if trimmed == "*" || named.split('.').all(label) {
        Ok(trimmed.to_ascii_lowercase())
    } else {
        Err(NameError::Malformed { what, text: text.to_owned(), reason: "is not a DNS name" })
    }
}

impl Host {
    /// Whether the name starts with `*`.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.as_str().starts_with('*')
    }

    /// Whether `name` (canonical, without port) is this host or is covered by this wildcard.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        match self.as_str().strip_prefix('*') {
            None => self.as_str() == name,
            Some("") => true,
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_canonical() {
        assert_eq!(Host::parse("A.Example.Com.").expect("valid").as_str(), "a.example.com");
        for bad in ["", ".", "a..b", "-a.b", "a b", "a.*.b", "a/b"] {
            assert!(Host::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_wildcard_covers_names_below_it_only() {
        let wildcard = Host::parse("*.example.com").expect("valid");
        assert!(wildcard.covers("a.example.com"));
        assert!(wildcard.covers("a.b.example.com"));
        assert!(!wildcard.covers("example.com"));
        assert!(!wildcard.covers(".example.com"));
    }
}
