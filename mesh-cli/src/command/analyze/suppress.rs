//! `--suppress CODE=KIND NAME.NAMESPACE`, with `*` for any run of characters (pure).

use mesh_api::problem::Problem;

/// Messages that are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Suppression {
    code: String,
    resource: String,
}

impl Suppression {
    /// Parses the flag.
    ///
    /// # Errors
    /// When it is not of the form `CODE=RESOURCE`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((code, resource)) if !code.trim().is_empty() && !resource.trim().is_empty() => {
                Ok(Self { code: code.trim().to_owned(), resource: resource.trim().to_owned() })
            }
            _ => Err("write CODE=KIND NAME.NAMESPACE, for instance \"IST0127=AuthorizationPolicy *.web\""
                .to_owned()),
        }
    }

    /// Whether it leaves a message out.
    pub(super) fn covers(&self, problem: &Problem) -> bool {
        let resource = problem.object.as_ref().map_or_else(String::new, |object| {
            format!("{} {}.{}", object.kind, object.name, object.namespace)
        });
        matches(&self.code, &problem.code) && matches(&self.resource, &resource)
    }
}

/// Whether a text has the form of a pattern. Linear but for the last `*`, to which it goes back.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
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
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, text, is_match) in [
            ("IST0127", "IST0127", true),
            ("IST0127", "IST01270", false),
            ("*", "", true),
            ("AuthorizationPolicy *.web", "AuthorizationPolicy a.web", true),
            ("AuthorizationPolicy *.web", "AuthorizationPolicy a.backend", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn a_flag_without_a_resource_is_refused() {
        assert!(Suppression::parse("IST0127").is_err());
        assert!(Suppression::parse("=x").is_err());
        assert!(Suppression::parse("IST0127=*").is_ok());
    }
}
