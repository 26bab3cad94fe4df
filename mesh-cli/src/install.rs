//! The control plane in a cluster: what is installed, as text and as objects, and how it gets there.
//!
//! The Helm chart is the one source. [`chart`] has it inside of this program, [`values`] makes one set of
//! values of the chart's own, a profile, files and `--set`, [`schema`] refuses what the chart does not know,
//! [`template`] evaluates the chart's templates, and [`manifest`] puts the documents in the order in which
//! they are applied. What comes out is what `helm template` prints, byte for byte, except for its
//! `# Source:` lines; a test holds the two together.

pub(crate) mod chart;
pub(crate) mod manifest;
pub(crate) mod plan;
pub(crate) mod schema;
pub(crate) mod set;
pub(crate) mod template;
pub(crate) mod values;
