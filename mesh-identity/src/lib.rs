//! SPIFFE identity of the mesh: keys, requests, certificates, the authority, trust, and TLS made of them.
//!
//! Reading order, which is the order in which an identity comes to be: [`key`] (made in memory by the
//! proxy), [`csr`] (the request for a certificate), [`attest`] (who is asking), [`ca`] (what is signed, for
//! how long, and the authority that signs), [`bundle`] (whom to trust), [`svid`] (a chain and its key,
//! whole or not at all), [`rotation`] (when to ask again), [`verify`] (who the peer is, or why it is
//! refused), [`tls`] (rustls configurations that read all of this while they live).
//!
//! Invariants: no sockets; files only in [`ca::disk`]; decisions take the time as an argument; a private
//! key is never printed and never leaves memory, except the authority's own, which [`ca::disk`] keeps. The
//! one cryptographic provider is aws-lc-rs.

pub mod attest;
pub mod bundle;
pub mod ca;
pub mod certificate;
pub mod csr;
pub mod key;
pub mod rotation;
pub mod svid;
pub mod tls;
pub mod verify;

mod pem;

#[cfg(test)]
mod fixture;
