//! The sidecar: takes a workload's traffic in and out, authenticates it, decides it, forwards it, records it.
//!
//! Reading order, which is the order in which a connection passes: [`accept`] (listeners, original
//! destination, detection), [`inbound`] and [`outbound`] (one page each: the stages), [`tls`], [`exchange`]
//! (what happens to one request: policy, route, plan), [`balance`], [`upstream`] (connect, pool), [`forward`]
//! (HTTP/1.1, HTTP/2, byte streams), [`respond`] (errors to answers), [`telemetry`] (one record per outcome).
//! Beside it: [`state`] (the snapshot that requests read), [`trial`] (policies that are tried on them),
//! [`control`] (discovery client that makes the snapshot),
//! [`identity`] (certificate rotation), [`dns`], [`admin`], [`app_probe`] (the kubelet's), [`intercept`] (nftables), [`runtime`] (workers,
//! tasks, drain), [`config`], [`wait`] (for who may not start before the proxy serves).
//!
//! Invariants: before its first identity and its first complete configuration a proxy admits nothing; the
//! request path takes no lock and waits for nothing without a deadline; forwarding needs a value that only
//! the authorizer makes; every accepted connection and every request ends in exactly one record.

pub mod accept;
pub mod admin;
pub mod app;
pub mod app_probe;
pub mod args;
pub mod authz;
pub mod balance;
pub mod config;
pub mod connection;
pub mod control;
pub mod dns;
pub mod exchange;
pub mod ext_authz;
pub mod forward;
pub mod identity;
pub mod inbound;
pub mod intercept;
pub mod outbound;
pub mod respond;
pub mod route;
pub mod runtime;
pub mod settings;
pub mod state;
pub mod telemetry;
pub mod tls;
pub mod trial;
pub mod upstream;
pub mod wait;
pub mod worker;
