//! The attacker: what a hostile peer, a hostile application and a hostile client may do to a proxy as it is
//! shipped, with real interception, and what the other side gets to see of it.
//!
//! The proxies run in network namespaces; the application is this process, which keeps every byte that
//! reaches it. Each attack ends in one of two ways: it is refused with its status and nothing arrives behind
//! the proxy, or exactly the request that policy judged arrives.

#![expect(clippy::panic, reason = "a test fails by it, also in what several tests share")]

mod conformance;
mod dns;
mod floods;
mod frames;
mod heads;
#[path = "../support/lab.rs"]
mod lab;
mod mesh;
mod peers;
mod requests;
mod responses;
mod slow;
mod wire;
