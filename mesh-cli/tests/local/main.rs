//! The local mesh end to end: real namespaces, real interception, the built binaries.
//!
//! Each test is a mesh of its own, in a folder of its own, and ends it when it ends. The binaries are those
//! of `MESH_BIN_DIR`, where `cargo xtask test` builds them.

mod failure;
mod isolation;
mod lifecycle;
mod mesh;
mod unprivileged;
