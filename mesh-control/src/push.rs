//! Sending: what one proxy knows ([`session`]), who is woken when something changes ([`fanout`]), and how
//! bursts of changes are gathered ([`debounce`]).

pub mod debounce;
pub mod fanout;
pub mod session;
