//! Moves bytes between downstream and upstream, once everything is decided.

pub mod http1;
pub mod tcp;
