//! Configuration from the control plane: asks, takes in, and publishes the next [state](crate::state).
//!
//! [`session`] says what to say (pure), [`apply`] compiles what is sent, [`subscriptions`] decides what is
//! kept (pure), [`core`] puts these three together without any IO, [`ads_client`] carries it over a stream
//! that is opened again for as long as the process lives, [`address`] says where, [`channel`] connects, [`status`] tells operators, [`unknown_keys`] takes what the request path wants fetched.
//!
//! The control plane is never on the path of a request that is under way. When it is gone, everything stays
//! as it was and questions about new destinations end as "could not ask".

pub mod address;
pub mod ads_client;
pub mod apply;
pub mod backoff;
pub mod channel;
pub mod core;
pub mod session;
pub mod status;
pub mod subscriptions;
pub mod unknown_keys;
