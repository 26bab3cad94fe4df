//! Moves bytes between downstream and upstream, once everything is decided.

pub mod headers;
pub mod http1;
pub mod http2;
pub mod stream;
pub mod tcp;
