//! What the replicas of a cluster share through the API server, and what they ask it.
//!
//! [`client`] reaches it. [`authority`] is the one authority of all replicas, in a Secret; [`root_cert`] tells
//! every namespace whom to trust; [`addresses`] are those given to services that state none; [`token_review`]
//! asks whose a service-account token is. [`doorbell`] says when to look again at one object.
//!
//! RBAC that this needs, in the namespace of the control plane: Secrets `create`, and of `mini-mesh-ca`
//! `get`, `list`, `watch`, `update`; of Secret `cacerts` `get`; Leases `create`, and of `mesh-control-leader`
//! `get`, `update`; ConfigMaps `get`, `create`, and of `mini-mesh-virtual-addresses` `list`, `watch`, `update`. In the whole cluster: `tokenreviews` `create`; `namespaces` `list`, `watch`; ConfigMaps
//! `create`, and of `mini-mesh-ca-root-cert` `get`, `list`, `watch`, `patch`.

pub mod addresses;
pub mod authority;
pub mod client;
pub mod doorbell;
pub mod root_cert;
pub mod token_review;
