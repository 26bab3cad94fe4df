//! Whether one test covers another: everything that the second takes, the first takes too.
//!
//! The answer is sound and not complete: "covers" is only ever said when it is certain, so that nothing is
//! called superfluous or unreachable that is not.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::model::{Condition, Operation, Rule, Source};

use crate::authorize::pattern::Pattern;
use crate::authorize::template::{Template, is_template};

/// How the values of a field are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Exact, prefix, suffix or presence.
    Text,
    /// As `Text`, without regard to case.
    Authority,
    /// As `Text`, and path templates.
    Path,
    /// Addresses and CIDRs.
    Address,
    /// As written, or `*` for any.
    Literal,
    /// Namespaces: a star anywhere stands for any characters.
    Glob,
}

/// A field of a source or operation: its name, form, and the two lists.
pub(super) type Field<'r> = (&'static str, Form, &'r [String], &'r [String]);

/// Fields of a source.
pub(super) fn source_fields(source: &Source) -> [Field<'_>; 7] {
    [
        ("principals", Form::Text, &source.principals, &source.not_principals),
        ("requestPrincipals", Form::Literal, &source.request_principals, &source.not_request_principals),
        ("namespaces", Form::Glob, &source.namespaces, &source.not_namespaces),
        ("serviceAccounts", Form::Literal, &source.service_accounts, &source.not_service_accounts),
        ("ipBlocks", Form::Address, &source.ip_blocks, &source.not_ip_blocks),
        ("remoteIpBlocks", Form::Address, &source.remote_ip_blocks, &source.not_remote_ip_blocks),
        ("trustDomains", Form::Text, &source.trust_domains, &source.not_trust_domains),
    ]
}

/// Fields of an operation.
pub(super) fn operation_fields(operation: &Operation) -> [Field<'_>; 4] {
    [
        ("hosts", Form::Authority, &operation.hosts, &operation.not_hosts),
        ("ports", Form::Literal, &operation.ports, &operation.not_ports),
        ("methods", Form::Text, &operation.methods, &operation.not_methods),
        ("paths", Form::Path, &operation.paths, &operation.not_paths),
    ]
}

/// Whether `wide` matches everything that `narrow` does. Both must be of policies in one namespace, because a
/// bare service account means one of the policy's own.
pub(super) fn rule(wide: &Rule, narrow: &Rule) -> bool {
    let sources = wide.from.is_empty()
        || !narrow.from.is_empty()
            && narrow.from.iter().all(|narrow| {
                wide.from.iter().any(|wide| fields(&source_fields(wide), &source_fields(narrow)))
            });
    let operations = || {
        wide.to.is_empty()
            || !narrow.to.is_empty()
                && narrow.to.iter().all(|narrow| {
                    wide.to.iter().any(|wide| fields(&operation_fields(wide), &operation_fields(narrow)))
                })
    };
    let conditions = || wide.when.iter().all(|wide| narrow.when.iter().any(|narrow| condition(wide, narrow)));
    sources && operations() && conditions()
}

fn condition(wide: &Condition, narrow: &Condition) -> bool {
    wide.key == narrow.key
        && (wide.values.is_empty()
            || !narrow.values.is_empty() && narrow.values.iter().all(|value| wide.values.contains(value)))
        && wide.not_values.iter().all(|value| narrow.not_values.contains(value))
}

fn fields(wide: &[Field<'_>], narrow: &[Field<'_>]) -> bool {
    wide.iter().zip(narrow).all(|((_, form, wide, wide_not), (_, _, narrow, narrow_not))| {
        let positive = wide.is_empty()
            || !narrow.is_empty()
                && narrow.iter().all(|narrow| wide.iter().any(|wide| value(*form, wide, narrow)));
        positive
            && wide_not.iter().all(|excluded| {
                narrow_not.iter().any(|narrow| value(*form, narrow, excluded))
                    || !narrow.is_empty() && narrow.iter().all(|narrow| disjoint(*form, narrow, excluded))
            })
    })
}

/// Whether the pattern `wide` matches everything that `narrow` matches.
pub(super) fn value(form: Form, wide: &str, narrow: &str) -> bool {
    if wide == narrow {
        return true;
    }
    match form {
        Form::Literal => wide == "*",
        Form::Text => text(wide, narrow),
        Form::Authority => text(&wide.to_ascii_lowercase(), &narrow.to_ascii_lowercase()),
        Form::Glob => wide == "*" || !narrow.contains('*') && glob(wide, narrow),
        Form::Address => match (block(wide), block(narrow)) {
            (Some(wide), Some(narrow)) => wide.contains(&narrow),
            (None, _) | (_, None) => false,
        },
        Form::Path => path(wide, narrow),
    }
}

fn path(wide: &str, narrow: &str) -> bool {
    match (is_template(wide), is_template(narrow)) {
        (false, false) => text(wide, narrow),
        (true, false) => {
            !narrow.contains('*') && Template::parse(wide).is_some_and(|template| template.matches(narrow))
        }
        (false, true) => match (Pattern::parse(wide), Template::parse(narrow)) {
            (Pattern::Any, Some(_)) => true,
            (Pattern::Prefix(prefix), Some(template)) => {
                template.literal_prefix().as_bytes().starts_with(&prefix)
            }
            (Pattern::Suffix(_) | Pattern::Exact(_), _) | (_, None) => false,
        },
        (true, true) => false,
    }
}

fn text(wide: &str, narrow: &str) -> bool {
    match (Pattern::parse(wide), Pattern::parse(narrow)) {
        (Pattern::Any, _) => true,
        (_, Pattern::Any) => false,
        (Pattern::Prefix(wide), Pattern::Prefix(narrow) | Pattern::Exact(narrow)) => {
            narrow.starts_with(&wide)
        }
        (Pattern::Suffix(wide), Pattern::Suffix(narrow) | Pattern::Exact(narrow)) => narrow.ends_with(&wide),
        (Pattern::Exact(wide), Pattern::Exact(narrow)) => wide == narrow,
        (Pattern::Prefix(_), Pattern::Suffix(_))
        | (Pattern::Suffix(_), Pattern::Prefix(_))
        | (Pattern::Exact(_), Pattern::Prefix(_) | Pattern::Suffix(_)) => false,
    }
}

/// Whether nothing matches both patterns.
pub(super) fn disjoint(form: Form, left: &str, right: &str) -> bool {
    match form {
        Form::Text => disjoint_text(left, right),
        Form::Authority => disjoint_text(&left.to_ascii_lowercase(), &right.to_ascii_lowercase()),
        Form::Path => match (is_template(left), is_template(right)) {
            (false, false) => disjoint_text(left, right),
            (true, false) => disjoint_template(left, right),
            (false, true) => disjoint_template(right, left),
            (true, true) => false,
        },
        Form::Address => match (block(left), block(right)) {
            (Some(left), Some(right)) => !left.contains(&right) && !right.contains(&left),
            (None, _) | (_, None) => false,
        },
        Form::Literal => left != right && !left.contains('*') && !right.contains('*'),
        Form::Glob => match (left.contains('*'), right.contains('*')) {
            (false, false) => left != right,
            (true, false) => !glob(left, right),
            (false, true) => !glob(right, left),
            (true, true) => false,
        },
    }
}

fn disjoint_template(template: &str, plain: &str) -> bool {
    let Some(template) = Template::parse(template) else { return false };
    match Pattern::parse(plain) {
        Pattern::Exact(text) => std::str::from_utf8(&text).is_ok_and(|text| !template.matches(text)),
        Pattern::Prefix(prefix) => {
            let literal = template.literal_prefix().as_bytes();
            !literal.starts_with(&prefix) && !prefix.starts_with(literal)
        }
        Pattern::Any | Pattern::Suffix(_) => false,
    }
}

fn disjoint_text(left: &str, right: &str) -> bool {
    match (Pattern::parse(left), Pattern::parse(right)) {
        (Pattern::Exact(left), Pattern::Exact(right)) => left != right,
        (Pattern::Exact(text), Pattern::Prefix(part)) | (Pattern::Prefix(part), Pattern::Exact(text)) => {
            !text.starts_with(&part)
        }
        (Pattern::Exact(text), Pattern::Suffix(part)) | (Pattern::Suffix(part), Pattern::Exact(text)) => {
            !text.ends_with(&part)
        }
        (Pattern::Prefix(left), Pattern::Prefix(right)) => {
            !left.starts_with(&right) && !right.starts_with(&left)
        }
        (Pattern::Suffix(left), Pattern::Suffix(right)) => !left.ends_with(&right) && !right.ends_with(&left),
        (Pattern::Any, _) | (_, Pattern::Any) => false,
        (Pattern::Prefix(_), Pattern::Suffix(_)) | (Pattern::Suffix(_), Pattern::Prefix(_)) => false,
    }
}

/// An address or CIDR; bits behind the prefix are masked.
pub(super) fn block(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().ok()?,
    };
    Some(net.trunc())
}

/// Whether `text` has the form of `pattern`, in which a star stands for any characters.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_takes() {
        for (form, wide, narrow, expected) in [
            (Form::Text, "*", "a", true),
            (Form::Text, "*", "*a", true),
            (Form::Text, "a*", "*", false),
            (Form::Text, "/api*", "/api/v1*", true),
            (Form::Text, "/api/v1*", "/api*", false),
            (Form::Text, "/api*", "/apix", true),
            (Form::Text, "*.com", "a.com", true),
            (Form::Text, "a*", "*a", false),
            (Form::Text, "abc", "ab*", false),
            (Form::Authority, "A.com", "a.COM", true),
            (Form::Path, "/a/{*}", "/a/b", true),
            (Form::Path, "/a/{*}", "/a/b*", false),
            (Form::Path, "/a/*", "/a/{*}/c", true),
            (Form::Path, "/a/b*", "/a/{*}", false),
            (Form::Address, "10.0.0.0/8", "10.1.2.3", true),
            (Form::Address, "10.1.2.3/8", "10.9.0.0/16", true),
            (Form::Address, "10.0.0.0/16", "10.0.0.0/8", false),
            (Form::Address, "0.0.0.0/0", "::1", false),
            (Form::Glob, "prod-*", "prod-a", true),
            (Form::Glob, "prod-*", "prod-*-x", false),
            (Form::Literal, "80", "8", false),
        ] {
            assert_eq!(value(form, wide, narrow), expected, "{form:?} {wide} {narrow}");
        }
    }

    #[test]
    fn disjoint_is_only_said_when_it_is_certain() {
        for (form, left, right, expected) in [
            (Form::Text, "a", "b", true),
            (Form::Text, "a*", "ab", false),
            (Form::Text, "a*", "*b", false),
            (Form::Text, "/a*", "/b*", true),
            (Form::Path, "/a/{*}", "/b*", true),
            (Form::Path, "/a/{*}", "/a/x*", false),
            (Form::Address, "10.0.0.0/8", "11.0.0.0/8", true),
            (Form::Glob, "a*", "b*", false),
            (Form::Literal, "i/*", "i/s", false),
        ] {
            assert_eq!(disjoint(form, left, right), expected, "{form:?} {left} {right}");
        }
    }

    /// Every text of up to three of these parts.
    fn texts(parts: &[&str]) -> Vec<String> {
        let mut all: Vec<String> = parts.iter().map(ToString::to_string).collect();
        for _ in 0..2 {
            let longer: Vec<String> =
                all.iter().flat_map(|text| parts.iter().map(move |part| format!("{text}{part}"))).collect();
            all.extend(longer);
        }
        all.sort();
        all.dedup();
        all
    }

    /// As the engine compares them.
    fn matches(form: Form, pattern: &str, text: &str) -> bool {
        use crate::authorize::pattern::{Comparison, Patterns};
        if form == Form::Path && is_template(pattern) {
            return Template::parse(pattern).is_some_and(|template| template.matches(text));
        }
        Patterns::parse(Comparison::Text, [pattern]).matches(text.as_bytes())
    }

    #[test]
    fn covers_and_disjoint_hold_for_every_short_text() {
        let plain = texts(&["a", "b", "*"]);
        let paths: Vec<String> = texts(&["/a", "/b", "/{*}", "/{**}", "/", "*"])
            .into_iter()
            .filter(|text| !is_template(text) || Template::parse(text).is_some())
            .collect();
        let requests: Vec<String> = texts(&["/a", "/b", "/", "a"]);
        for (form, patterns, values) in [(Form::Text, &plain, &plain), (Form::Path, &paths, &requests)] {
            for wide in patterns {
                for narrow in patterns {
                    let (covers, apart) = (value(form, wide, narrow), disjoint(form, wide, narrow));
                    for text in values.iter().filter(|_| covers || apart) {
                        let (by_wide, by_narrow) = (matches(form, wide, text), matches(form, narrow, text));
                        assert!(!covers || !by_narrow || by_wide, "{wide} covers {narrow}, but not {text}");
                        assert!(!(apart && by_wide && by_narrow), "{wide} and {narrow} both match {text}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_rule_covers_a_narrower_one_and_not_the_other_way() {
        let rule_of = |paths: &[&str], not: &[&str], methods: &[&str]| Rule {
            to: vec![Operation {
                paths: paths.iter().map(ToString::to_string).collect(),
                not_paths: not.iter().map(ToString::to_string).collect(),
                methods: methods.iter().map(ToString::to_string).collect(),
                ..Operation::default()
            }],
            ..Rule::default()
        };
        let wide = rule_of(&["/api*"], &["/api/admin*"], &[]);
        assert!(rule(&Rule::default(), &wide) && !rule(&wide, &Rule::default()));
        assert!(rule(&wide, &rule_of(&["/api/v1"], &[], &["GET"])), "disjoint from what is excluded");
        assert!(!rule(&wide, &rule_of(&["/api/*"], &[], &[])), "part of it is excluded");
        assert!(rule(&wide, &rule_of(&["/api/*"], &["/api/*"], &[])), "the excluded part is excluded too");
    }
}
