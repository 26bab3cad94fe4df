//! Placeholder until the next file.
fn main() {}
