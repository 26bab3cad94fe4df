//! A whole control plane in this process, asked over its own sockets.

mod admin;
mod serving;
mod support;
