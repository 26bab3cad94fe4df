//! What end-to-end tests are written with: a real local mesh that lives as long as the test, stock programs
//! in it, and the packets between its workloads.
//!
//! Nothing here knows the inside of the product. A test does what a user would do, with the same binaries,
//! so that it goes on meaning something when everything inside changes. Helpers end the test when something
//! that must work does not: a test that goes on without its mesh proves nothing. Every wait is for an event
//! and has a bound.

mod answer;
mod load;
mod local_mesh;
mod machine;
mod recording;
mod redis;

pub use answer::{Answer, HttpAnswer};
pub use load::{Load, LoadResult};
pub use local_mesh::{LocalMesh, MeshLayout};
pub use machine::{eventually, is_alive, signal};
pub use recording::{Recording, Segment};
pub use redis::RedisSession;
