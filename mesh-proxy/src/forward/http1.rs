//! HTTP/1.1, by an own codec on `httparse`: strictness and cost are the product here.
//!
//! Reading order: [`block`] (header lines), [`framing`] (where a body ends), [`head`] (one reading of a head or
//! none).

pub mod block;
pub mod framing;
pub mod head;
