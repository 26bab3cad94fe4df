//! The source over API servers that are made up.
