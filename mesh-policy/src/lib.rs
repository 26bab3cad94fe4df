//! The policy engine: model in, decisions out, every one explainable.
//!
//! Reading order, which is the order in which a request meets it: [`select`] (which policies concern a
//! workload), [`peer_authentication`] (which transport security a port demands), [`normalize`] (the one form
//! of a path that is judged and forwarded), [`authenticate`] (whose token a request carries), [`authorize`]
//! (may it pass, and by which rule), [`route`] (where a request goes), [`judge`] (all of it for one request,
//! offline), [`policy_test`] (whether what becomes of requests is what was expected), [`analyze`] (what the
//! author of a set of objects probably did not mean), [`remedy`] (which edit would change a verdict), [`suggest`]
//! (which policies recorded traffic needs), [`trial`] (the policies that are tried beside those in force),
//! [`telemetry`] (what a workload logs, counts and traces).
//!
//! Invariants: nothing here reads a clock, a file, the environment or a source of randomness, and nothing
//! opens a socket; what is needed of them comes as an argument. The same model compiles to the same index,
//! whatever the order of its objects. When in doubt, the answer is no, with its reason.

pub mod analyze;
pub mod authenticate;
pub mod authorize;
pub mod judge;
pub mod normalize;
pub mod peer_authentication;
pub mod policy_test;
pub mod remedy;
pub mod route;
pub mod select;
pub mod suggest;
pub mod symbolic;
pub mod telemetry;
pub mod trial;
