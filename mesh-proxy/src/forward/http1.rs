//! HTTP/1.1, by an own codec on `httparse`: strictness and cost are the product here.
//!
//! Reading order: [`block`] (header lines), [`framing`] (where a body ends), [`head`] (one reading of a head or
//! none), [`flow`] (the two directions of an exchange), [`attempt`] (one try at one upstream connection),
//! [`upstreams`] (which one, and whether another), [`answer`] (refusals), [`serve`] (a connection from its
//! first request to its last).

pub mod answer;
pub mod attempt;
pub mod block;
pub mod flow;
pub mod framing;
pub mod head;
pub mod serve;
pub mod upstreams;
pub mod waiting;
