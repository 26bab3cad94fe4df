//! Threads, tasks and their end.
//!
//! [`workers`] (one thread each, with a runtime of its own), [`tasks`] (what runs beside them: each has a
//! name, an owner and an end), [`drain`] (the one signal that all of them watch).

pub mod drain;
pub mod tasks;
pub mod workers;
