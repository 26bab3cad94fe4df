//! HTTP/2 and gRPC, on the `h2` crate: its frames and its flow control, our limits, our two directions.
//!
//! One task serves a downstream connection and all its streams: it polls the connection and a
//! [`futures::stream::FuturesUnordered`] of exchanges that borrow from it. Against a task per stream this
//! spares an allocation and a trip through the scheduler for each call, what the exchanges queue is written
//! in the same poll, and the end of the connection is the end of every exchange on it, so that none of their
//! records can be lost. Connections upstream are shared between downstream connections and have a task of
//! their own ([`crate::upstream::http2`]).
//!
//! Reading order: [`limits`] (what one peer may ask for), [`watched`] (the stream below, and who floods it),
//! [`head`] (one request head), [`pipe`] (one direction of a body), [`attempt`] (one try upstream), `exchange`
//! (one stream from its head to its record), `answer` (refusals), `serve` (a connection).

pub mod answer;
pub mod attempt;
pub mod exchange;
pub mod head;
pub mod limits;
pub mod pipe;
mod serve;
pub mod waiting;
pub mod watched;

pub use serve::serve;
