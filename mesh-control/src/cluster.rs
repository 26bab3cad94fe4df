//! What the replicas of a cluster share through the API server.
//!
//! [`client`] reaches it and [`mesh_settings`] reads the settings of the mesh, which come before everything
//! else.

pub mod client;
pub mod mesh_settings;
