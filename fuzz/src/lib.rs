//! Hostile bytes for everything that reads what others wrote.
//!
//! Stable Rust measures no coverage, so the way into a parser is paved otherwise: inputs begin as real ones
//! ([`seeds`]), are changed where it hurts ([`mutate`]), and each [`targets`] says what an input came to, so that
//! one with a new outcome is kept and changed further ([`run`]). A target holds more than "no panic": what is
//! read, written and read again is the same, and so is what arrives in pieces.
//!
//! An input that breaks a target is written into `regressions`, made small, and from then on every build tries
//! it.

pub mod mutate;
pub mod run;
pub mod seeds;
pub mod targets;
