//! A whole control plane in this process, asked over its own sockets.

mod admin;
mod keys;
mod provider;
mod replicas;
mod serving;
mod support;
