//! Values of sources, operations and conditions (SEMANTICS 6.1, 6.6).

use std::net::IpAddr;
use std::str::FromStr;

use super::report::{Report, shortened};
use super::scalar::ScalarType;
use super::tree::{Found, Place};

/// What values of a field must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueRule {
    /// Not empty.
    Text,
    /// A decimal port, as a string.
    Port,
    /// An address or CIDR; bits behind the prefix may be set.
    IpBlock,
    /// `NAME` or `NAMESPACE/NAME`, at most 16 of them.
    ServiceAccount,
    /// A trust domain with at most one star, at an end.
    TrustDomain,
    /// A path or path template.
    Path,
}

/// Most service accounts of one field, and the longest of them in bytes (SEMANTICS 6.1).
const ACCOUNTS_MAX: usize = 16;
const ACCOUNT_BYTES_MAX: usize = 320;

/// Reads the values of a field.
pub(super) fn list(place: Place<'_>, rule: ValueRule, report: &mut Report) -> Vec<String> {
    let items = place.items(report);
    if matches!(place.found(), Found::List) && items.is_empty() {
        report.warn(place, "is empty and restricts nothing", "Remove it, or list the values.");
    }
    if rule == ValueRule::ServiceAccount && items.len() > ACCOUNTS_MAX {
        let message = format!("may not have more than {ACCOUNTS_MAX} values, found {}", items.len());
        report.error(place, message, "Use several entries of `from`.");
        return Vec::new();
    }
    items.into_iter().filter_map(|item| value(item, rule, report)).collect()
}

fn value(place: Place<'_>, rule: ValueRule, report: &mut Report) -> Option<String> {
    if let (ValueRule::Port, Found::Scalar(ScalarType::Integer(port), _)) = (rule, place.found()) {
        report.error(place, "ports are strings here, found an integer", format!("Write \"{port}\"."));
        return None;
    }
    let text = place.non_empty(report)?;
    if let Err((message, hint)) = check(text, rule) {
        report.error(place, message, hint);
        return None;
    }
    Some(text.to_owned())
}

type Refusal = (String, &'static str);

fn check(text: &str, rule: ValueRule) -> Result<(), Refusal> {
    let quoted = || format!("{:?}", shortened(text));
    match rule {
        ValueRule::Text => Ok(()),
        ValueRule::Port => match text.parse::<u16>() {
            Ok(_) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(()),
            Ok(_) | Err(_) => Err((
                format!("{} is not a port from 0 to 65535", quoted()),
                "Ranges and names are not supported.",
            )),
        },
        ValueRule::IpBlock if is_ip_block(text) => Ok(()),
        ValueRule::IpBlock => Err((
            format!("{} is neither an IP address nor a CIDR range", quoted()),
            "Write 10.1.2.3, 10.0.0.0/8 or fd00::/8.",
        )),
        ValueRule::ServiceAccount => service_account(text)
            .map_err(|reason| (format!("{} {reason}", quoted()), "Write NAME, or NAMESPACE/NAME.")),
        ValueRule::TrustDomain => trust_domain(text)
            .map_err(|reason| (format!("{} {reason}", quoted()), "A star may stand at one end only.")),
        ValueRule::Path => path(text),
    }
}

/// An address, or an address with a prefix length; the mask is applied later (SEMANTICS 6.1).
pub(super) fn is_ip_block(text: &str) -> bool {
    IpAddr::from_str(text).is_ok() || ipnet::IpNet::from_str(text).is_ok()
}

fn service_account(text: &str) -> Result<(), &'static str> {
    let mut parts = text.split('/');
    if text.len() > ACCOUNT_BYTES_MAX {
        return Err("is too long: it cannot exceed 320 characters");
    }
    if text.contains('*') {
        return Err("has a wildcard: wildcards are not allowed in service accounts");
    }
    if parts.by_ref().take(2).any(str::is_empty) {
        return Err("has an empty namespace or service account");
    }
    match parts.next() {
        Some(_) => Err("has more than one slash"),
        None => Ok(()),
    }
}

fn trust_domain(text: &str) -> Result<(), &'static str> {
    if text.contains('/') {
        return Err("must not hold a slash");
    }
    match text.matches('*').count() {
        0 => Ok(()),
        1 if text.starts_with('*') || text.ends_with('*') => Ok(()),
        _ => Err("has a wildcard that is not at one end"),
    }
}

/// What every refusal of a path starts with, after the path.
const UNSUPPORTED: &str = "is not a supported path template:";
const TEMPLATE_HINT: &str =
    "{*} stands for one whole segment, {**} for any number of them and only once, last of the operators.";

/// A plain path, or a template (SEMANTICS 6.6).
fn path(text: &str) -> Result<(), Refusal> {
    let refuse = |reason: &str| Err((format!("{:?} {UNSUPPORTED} {reason}", shortened(text)), TEMPLATE_HINT));
    if !text.contains(['{', '}']) {
        return Ok(());
    }
    let Some(rest) = text.strip_prefix('/') else {
        return refuse("it must start with a slash");
    };
    let mut has_rest_operator = false;
    let segments: Vec<&str> = rest.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        match *segment {
            "{*}" | "{**}" if has_rest_operator => return refuse("{**} is not the last operator"),
            "{**}" => has_rest_operator = true,
            "{*}" => {}
            // A slash at the end is significant and no segment.
            "" if index + 1 == segments.len() => {}
            "" => return refuse("it has an empty segment"),
            literal if literal.contains(['{', '}']) => {
                return refuse("it contains '{' or '}' beyond a whole-segment {*} or {**}");
            }
            literal if !literal.bytes().all(is_template_byte) => {
                return refuse("it has a segment with an invalid literal character");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Characters of a template's literal segments: those of `mesh-policy`'s templates without the star.
fn is_template_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str, rule: ValueRule) -> bool {
        check(text, rule).is_ok()
    }

    #[test]
    fn ports_are_decimal_strings() {
        for good in ["0", "8080", "65535"] {
            assert!(accepts(good, ValueRule::Port), "{good}");
        }
        for bad in ["65536", "-1", "+1", "http", "80-90", "0x50", "*"] {
            assert!(!accepts(bad, ValueRule::Port), "{bad}");
        }
    }

    #[test]
    fn address_blocks_may_have_host_bits() {
        for good in ["10.1.2.3", "10.1.2.3/8", "::1", "fd00::1/8", "0.0.0.0/0"] {
            assert!(accepts(good, ValueRule::IpBlock), "{good}");
        }
        for bad in ["10.1.2", "10.1.2.3/33", "10.1.2.3/", "example.com", "*", "10.0.0.0/8 "] {
            assert!(!accepts(bad, ValueRule::IpBlock), "{bad}");
        }
    }

    #[test]
    fn accounts_and_trust_domains_have_their_forms() {
        for good in ["a", "ns/a"] {
            assert!(accepts(good, ValueRule::ServiceAccount), "{good}");
        }
        for bad in ["/a", "ns/", "a/b/c", "a*", &"a".repeat(321)] {
            assert!(!accepts(bad, ValueRule::ServiceAccount), "{bad}");
        }
        for good in ["td", "*", "*.example", "prod*"] {
            assert!(accepts(good, ValueRule::TrustDomain), "{good}");
        }
        for bad in ["a/b", "a*b", "*a*", "**"] {
            assert!(!accepts(bad, ValueRule::TrustDomain), "{bad}");
        }
    }

    #[test]
    fn templates_are_checked_and_plain_paths_are_not() {
        for good in ["/a*", "*x*", "/a/*/b", "relative", "/a/{*}/c", "/a/{**}", "/{*}/{**}/z", "/a/{*}/"] {
            assert!(accepts(good, ValueRule::Path), "{good}");
        }
        for bad in ["a/{*}", "/a{*}", "/{*}b", "/{**}/{*}", "/{**}/{**}", "/a//{*}", "/{*}/a*", "/{x}", "/a}"]
        {
            assert!(!accepts(bad, ValueRule::Path), "{bad}");
        }
    }
}
