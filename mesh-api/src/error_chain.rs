//! An error for an operator: what went wrong, and why, on one line.
//!
//! An error's `Display` prints its own level only, so that nothing is said twice; whoever shows it at an edge
//! (a log, a command line, an admin answer, a record) shows the causes with it by this one function.

use std::error::Error;

/// An error with everything that caused it: `what: why: why`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Level {
        #[error("inner")]
        Inner,
        #[error("outer")]
        Outer(#[source] Box<Self>),
    }

    #[test]
    fn every_cause_is_named_once_and_in_order() {
        assert_eq!(chain(&Level::Inner), "inner");
        assert_eq!(
            chain(&Level::Outer(Box::new(Level::Outer(Box::new(Level::Inner))))),
            "outer: outer: inner"
        );
    }
}
