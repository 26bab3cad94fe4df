//! The product as a user has it: real programs in a real mesh on this machine.

mod chaos;
mod configuration;
mod dry_run;
mod external_authorizer;
mod layout;
mod openid_provider;
mod peer_authentication;
mod policy;
mod real_applications;
mod traffic;
mod unprivileged;
mod wire;
