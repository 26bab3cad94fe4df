//! The servers: gRPC over TLS for proxies ([`ads`], [`identity`], behind [`tls`]), plain HTTP for metrics
//! and readiness ([`metrics`]), a local socket for operators ([`admin`]). [`answer`] is the one place where
//! errors become status codes; [`farewell`] sends proxies elsewhere before the end.

pub mod admin;
pub mod ads;
pub mod answer;
pub mod farewell;
pub mod identity;
pub mod keys;
pub mod metrics;
pub mod replicas;
pub mod tls;
pub mod webhook;
