//! The mesh on one machine: what `meshctl up` starts.
//!
//! Reading order, which is the order in which a mesh comes to be: [`mesh_file`] (what the user wrote),
//! [`plan`] (what follows from it: instances, addresses, users), [`documents`] (what the control plane is
//! told), [`state`] (where everything lies), [`privilege`] (root, or a user namespace), [`supervisor`] (the
//! process that starts and keeps the others), [`launch`] (how one process is confined and started),
//! [`enter`] (how a later command gets into the running mesh), [`attached`] (a program on this terminal in a workload), [`client`] and [`host_process`] (how
//! commands talk about it), [`tail`] (its logs), [`ending`] (how it ends).
//!
//! Everything runs in namespaces of its own: the supervisor is the first process of a PID namespace, so that
//! the kernel ends all others with it, whatever ended it; and the network of the mesh hangs together in the
//! supervisor's network namespace, which has no way out. Nothing is ever created in the machine's own
//! network namespace, so that no packet of the mesh can take the machine's routes, and nothing is left there.

pub(crate) mod address;
pub(crate) mod attached;
pub(crate) mod client;
pub(crate) mod command_line;
pub(crate) mod documents;
pub(crate) mod ending;
pub(crate) mod enter;
pub(crate) mod host_process;
pub(crate) mod launch;
pub(crate) mod mesh_file;
pub(crate) mod plan;
pub(crate) mod privilege;
pub(crate) mod program;
pub(crate) mod state;
pub(crate) mod supervisor;
pub(crate) mod tail;
