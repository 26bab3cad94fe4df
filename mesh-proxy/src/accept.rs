//! Takes connections in: listeners, the address that was dialled, the first bytes.
//!
//! Reading order: [`listener`] (sockets, one per worker on the same port), [`original_destination`] (before
//! interception), [`detect`] (what the first bytes are; pure), [`peek`] (waits for them), [`downstream`] (the
//! stream that the rest works with).

pub mod detect;
pub mod downstream;
pub mod listener;
pub mod original_destination;
pub mod peek;
