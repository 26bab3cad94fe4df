//! What is left out: `--suppress CODE=RESOURCE`, and annotations on the objects themselves (pure).

use mesh_policy::analyze::Named;

/// Annotations that name the codes to leave out of an object's findings: ours and Istio's.
const ANNOTATIONS: [&str; 2] = ["mini-mesh.io/analyze-suppress", "galley.istio.io/analyze-suppress"];

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

    /// Whether it leaves a message out. Resources are written as istioctl has it, `KIND NAME.NAMESPACE`, or as
    /// messages print them, `KIND NAMESPACE/NAME`.
    pub(super) fn covers(&self, code: &str, subject: Option<&Named>) -> bool {
        let forms = match subject {
            None => vec![String::new()],
            Some(named) if named.namespace.is_empty() => vec![named.to_string()],
            Some(named) => {
                vec![format!("{} {}.{}", named.kind, named.name, named.namespace), named.to_string()]
            }
        };
        matches(&self.code, code) && forms.iter().any(|form| matches(&self.resource, form))
    }
}

/// Whether annotations of an object leave a code out of its findings.
pub(super) fn annotated<'l>(annotation: impl Fn(&str) -> Option<&'l str>, code: &str) -> bool {
    ANNOTATIONS
        .iter()
        .filter_map(|name| annotation(name))
        .any(|codes| codes.split(',').any(|pattern| matches(pattern.trim(), code)))
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
    fn a_resource_is_written_either_way() {
        let named = Named { kind: "Gateway".into(), namespace: "shop".into(), name: "web".into() };
        for (flag, covered) in [
            ("IST0145=Gateway web.shop", true),
            ("IST0145=Gateway shop/web", true),
            ("IST*=Gateway shop/*", true),
            ("*=*", true),
            ("IST0145=Gateway web", false),
            ("IST0101=Gateway web.shop", false),
        ] {
            let suppression = Suppression::parse(flag).expect("a flag");
            assert_eq!(suppression.covers("IST0145", Some(&named)), covered, "{flag}");
        }
        let cluster = Named { kind: "Namespace".into(), namespace: String::new(), name: "web".into() };
        assert!(
            Suppression::parse("IST0102=Namespace web").expect("a flag").covers("IST0102", Some(&cluster))
        );
    }

    #[test]
    fn an_annotation_lists_codes() {
        let of =
            |text: &'static str| move |name: &str| (name == "mini-mesh.io/analyze-suppress").then_some(text);
        assert!(annotated(of("MM0405, IST0127"), "IST0127") && annotated(of("*"), "MM0405"));
        assert!(annotated(of("MM04*"), "MM0405") && !annotated(of("MM0405"), "IST0127"));
        assert!(!annotated(|_| None, "IST0127"));
    }

    #[test]
    fn a_flag_without_a_resource_is_refused() {
        assert!(Suppression::parse("IST0127").is_err());
        assert!(Suppression::parse("=x").is_err());
        assert!(Suppression::parse("IST0127=*").is_ok());
    }
}
