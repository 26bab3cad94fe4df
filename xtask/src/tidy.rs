//! `cargo xtask tidy`: rules about the workspace that the compiler does not know.
//!
//! Which crate may depend on which, that every crate inherits the lints, how files may be called, which words
//! do not belong, what may be linked, and that the invariants of ARCHITECTURE.md have their tests. Everything is found in one go, so that one run names all there is.

mod invariants;
mod layering;
mod licences;
pub(crate) mod metadata;
mod names;
mod words;

use anyhow::{Result, bail};

use crate::output;

/// Checks everything.
///
/// # Errors
/// When a rule is broken; each breach is printed.
pub(crate) fn run() -> Result<()> {
    let metadata = metadata::read()?;
    let files = names::tracked_files()?;
    let mut breaches = layering::check(&metadata)?;
    breaches.extend(licences::check(&metadata)?);
    breaches.extend(names::check(&files));
    breaches.extend(words::check(&files)?);
    breaches.extend(invariants::check(&files)?);
    for breach in &breaches {
        output::note(&format!("   {breach}"));
    }
    match breaches.len() {
        0 => Ok(()),
        count => bail!("{count} rules of the workspace are broken; they stand above"),
    }
}
