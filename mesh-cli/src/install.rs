//! The control plane in a cluster: what is installed, as text and as objects, and how it gets there.
//!
//! The Helm chart is the one source. [`chart`] has it inside of this program, [`values`] makes one set of
//! values of the chart's own, a profile, files and `--set`, [`schema`] refuses what the chart does not know,
//! [`template`] evaluates the chart's templates, and [`manifest`] puts the documents in the order in which
//! they are applied. What comes out is what `helm template` prints, byte for byte, except for its
//! `# Source:` lines; a test holds the two together.
//!
//! In a cluster, [`plan`] is what shall be there, [`apply`] makes it so step by step and waits ([`wait`]),
//! [`record`] keeps what was said, [`installed`] reads it back with the tags, and [`removal`] takes it away.
//! [`server`] is the only one that asks the API server, through [`crate::cluster`].

pub(crate) mod apply;
pub(crate) mod chart;
pub(crate) mod compare;
pub(crate) mod foreign;
pub(crate) mod installed;
pub(crate) mod manifest;
pub(crate) mod object;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod removal;
pub(crate) mod schema;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod template;
pub(crate) mod values;
pub(crate) mod wait;
