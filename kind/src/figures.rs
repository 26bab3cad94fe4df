//! What was measured on the way: lines of a file that `cargo xtask e2e` prints at its end.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::{Context as _, Result};

use crate::Cluster;

/// Notes a figure, such as `install: 4.2 s`.
///
/// # Errors
/// When the file cannot be written.
pub fn note(cluster: &Cluster, line: &str) -> Result<()> {
    let path = cluster.output.join("figures.txt");
    let mut file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    writeln!(file, "{line}").with_context(|| path.display().to_string())
}
