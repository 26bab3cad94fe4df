//! `meshctl` as its users meet it: every table, every form and every message, against admin sockets that
//! answer what a mesh would.

mod admin;
mod analyze;
mod apply;
mod control;
mod fixtures;
mod policy;
mod policy_live;
mod policy_verify;
mod proxy_config;
mod usage;
mod why;
