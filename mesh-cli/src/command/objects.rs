//! What `apply`, `get`, `delete`, `validate` and `analyze` share: kinds by name, documents from files, the
//! user's configuration folder, and waiting until the mesh has taken a change.

pub(crate) mod collected;
pub(crate) mod folder;
pub(crate) mod input;
pub(crate) mod kind;
pub(crate) mod outcome;
pub(crate) mod piece;
pub(crate) mod server;
pub(crate) mod settle;
pub(crate) mod spread;

use serde_json::Value;

/// The value that a document's text stands for; `None` when it is not YAML.
pub(crate) fn value(text: &str) -> Option<Value> {
    serde_saphyr::from_str(text).ok()
}

/// Whether two documents say the same, whatever their order, spacing and comments.
pub(crate) fn say_the_same(left: &str, right: &str) -> bool {
    left.trim() == right.trim() || value(left).is_some_and(|left| Some(left) == value(right))
}

#[cfg(test)]
mod tests {
    use super::say_the_same;

    #[test]
    fn spacing_order_and_comments_make_no_difference() {
        assert!(say_the_same("a: 1\nb: [x, y]\n", "# hello\nb:\n- x\n- y\na: 1\n"));
        assert!(!say_the_same("a: [x, y]", "a: [y, x]"));
        assert!(!say_the_same("a: {", "a: ["));
    }
}
