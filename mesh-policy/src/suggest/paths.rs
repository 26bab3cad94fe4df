//! From the paths that were seen to the paths that are allowed: what varies becomes `{*}`.
//!
//! Paths are put into a tree of segments. A segment varies when it looks like an identifier, or when more
//! neighbours than the limit stand beside it and lead to the same. What cannot be said by a template (its
//! alphabet is SEMANTICS 6.6) stays as it was seen; what cannot be said at all is reported.

use std::collections::{BTreeMap, BTreeSet};

/// Characters that a template may hold and that its wildcards match, besides letters and digits.
const TEMPLATE_MARKS: &[u8] = b"-._~%!$&'()+,;:@=*";

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Node {
    /// Whether a path ends here.
    is_end: bool,
    fixed: BTreeMap<String, Self>,
    varying: Option<Box<Self>>,
}

/// Patterns for the paths of one workload.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    tree: Node,
    /// Paths that no template can say.
    exact: BTreeSet<String>,
}

impl Patterns {
    /// Patterns that allow every path of `seen`.
    pub(super) fn of<'a>(seen: impl IntoIterator<Item = &'a str>, siblings_max: usize) -> Self {
        let mut patterns = Self::default();
        for path in seen {
            if can_be_template(path) {
                patterns.tree.insert(path.split('/').skip(1));
            } else if can_be_exact(path) {
                patterns.exact.insert(path.to_owned());
            }
        }
        patterns.tree.collapse(siblings_max);
        patterns
    }

    /// The pattern that allows a path that was seen. `None` when none does: a star at an end makes a value
    /// a prefix or a suffix, and a brace is refused.
    pub(super) fn covering(&self, path: &str) -> Option<String> {
        if self.exact.contains(path) {
            return Some(path.to_owned());
        }
        let mut pattern = String::new();
        (can_be_template(path) && self.tree.find(path.split('/').skip(1), &mut pattern)).then_some(pattern)
    }
}

fn can_be_exact(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('*') && !path.ends_with('*') && !path.contains(['{', '}'])
}

fn can_be_template(path: &str) -> bool {
    let is_inner_empty = path.get(1..).is_some_and(|rest| rest.contains("//") || rest.starts_with('/'));
    path.starts_with('/')
        && !is_inner_empty
        && path
            .bytes()
            .all(|byte| byte == b'/' || byte.is_ascii_alphanumeric() || TEMPLATE_MARKS.contains(&byte))
}

impl Node {
    fn insert<'a>(&mut self, mut segments: impl Iterator<Item = &'a str>) {
        let Some(segment) = segments.next() else {
            self.is_end = true;
            return;
        };
        let next = if is_identifier(segment) || segment.contains('*') {
            self.varying.get_or_insert_default()
        } else {
            self.fixed.entry(segment.to_owned()).or_default()
        };
        next.insert(segments);
    }

    /// Makes one of more than `siblings_max` neighbours that lead to the same.
    fn collapse(&mut self, siblings_max: usize) {
        for child in self.fixed.values_mut().chain(self.varying.as_deref_mut()) {
            child.collapse(siblings_max);
        }
        let names: Vec<String> = self.fixed.keys().cloned().collect();
        for name in names {
            let Some(shape) = self.fixed.get(&name).cloned() else { continue };
            let alike = |(other, node): (&String, &Self)| {
                (!other.is_empty() && *node == shape).then(|| other.clone())
            };
            let alike: Vec<String> = self.fixed.iter().filter_map(alike).collect();
            if alike.len() > siblings_max {
                for other in &alike {
                    self.fixed.remove(other);
                }
                self.varying.get_or_insert_default().merge(shape);
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.is_end |= other.is_end;
        for (name, node) in other.fixed {
            self.fixed.entry(name).or_default().merge(node);
        }
        if let Some(node) = other.varying {
            self.varying.get_or_insert_default().merge(*node);
        }
    }

    /// Writes the pattern that a path took.
    fn find<'a>(&self, mut segments: impl Iterator<Item = &'a str> + Clone, pattern: &mut String) -> bool {
        let Some(segment) = segments.next() else { return self.is_end };
        let length = pattern.len();
        let varying = self.varying.iter().map(|node| ("{*}", &**node)).filter(|_| !segment.is_empty());
        let fixed = self.fixed.get(segment).map(|node| (segment, node));
        for (name, node) in fixed.into_iter().chain(varying) {
            pattern.push('/');
            pattern.push_str(name);
            if node.find(segments.clone(), pattern) {
                return true;
            }
            pattern.truncate(length);
        }
        false
    }
}

/// A path with `{*}` for every segment that looks like an identifier, so that alike requests are told as one.
#[must_use]
pub fn templated(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for (number, segment) in path.split('/').enumerate() {
        if number > 0 {
            pattern.push('/');
        }
        pattern.push_str(if is_identifier(segment) { "{*}" } else { segment });
    }
    pattern
}

/// Whether a segment looks like the name of one thing among many: a number, a UUID, a hash, a date, a token.
fn is_identifier(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 {
        return false;
    }
    let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    digits == segment.len()
        || (segment.len() >= 8 && segment.bytes().all(is_hex))
        || (segment.len() >= 16 && digits >= 3 && !segment.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(paths: &[&str], siblings_max: usize) -> Vec<String> {
        let patterns = Patterns::of(paths.iter().copied(), siblings_max);
        let stated: BTreeSet<String> = paths.iter().filter_map(|path| patterns.covering(path)).collect();
        stated.into_iter().collect()
    }

    #[test]
    fn identifiers_become_templates_and_words_stay() {
        let paths = ["/api/products/17", "/api/products/18/reviews", "/api/products", "/api/v1/health", "/"];
        let expected =
            ["/", "/api/products", "/api/products/{*}", "/api/products/{*}/reviews", "/api/v1/health"];
        assert_eq!(stated(&paths, 8), expected);
        assert_eq!(
            stated(&["/o/6f1c2f60-9b5e-4a41-8a55-3f2f6a0b6a11", "/d/2026-01-31", "/s/deadbeef"], 8),
            ["/d/{*}", "/o/{*}", "/s/deadbeef"]
        );
    }

    #[test]
    fn a_single_path_is_told_without_its_identifiers() {
        assert_eq!(templated("/o/6f1c2f60-9b5e-4a41-8a55-3f2f6a0b6a11/7/"), "/o/{*}/{*}/");
        assert_eq!(
            (templated("/"), templated("*"), templated("/v1")),
            ("/".into(), "*".into(), "/v1".into())
        );
    }

    #[test]
    fn many_neighbours_that_lead_to_the_same_become_one() {
        let paths = ["/u/anna/cart", "/u/bert/cart", "/u/cleo/cart", "/u/help"];
        assert_eq!(stated(&paths, 2), ["/u/help", "/u/{*}/cart"]);
        assert_eq!(stated(&paths, 3), ["/u/anna/cart", "/u/bert/cart", "/u/cleo/cart", "/u/help"]);
    }

    #[test]
    fn a_trailing_slash_is_kept() {
        assert_eq!(stated(&["/a/", "/a/7/"], 8), ["/a/", "/a/{*}/"]);
    }

    #[test]
    fn what_no_template_can_say_is_stated_as_seen_or_not_at_all() {
        let patterns = Patterns::of(["/a//7", "/b|7", "/x/{y}", "/end|*"], 8);
        assert_eq!(patterns.covering("/a//7").as_deref(), Some("/a//7"));
        assert_eq!(patterns.covering("/b|7").as_deref(), Some("/b|7"));
        assert_eq!((patterns.covering("/x/{y}"), patterns.covering("/end|*")), (None, None));
        assert_eq!(patterns.covering("/never/seen"), None);
    }

    #[test]
    fn a_star_in_a_path_is_covered_by_a_template_not_by_a_prefix() {
        assert_eq!(stated(&["/files/a*"], 8), ["/files/{*}"]);
    }
}
