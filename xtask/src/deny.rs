//! `cargo xtask deny`: everything that `deny.toml` says, by cargo-deny itself.
//!
//! Not a part of the tests, because building cargo-deny takes several minutes of CPU; `cargo xtask tidy`
//! holds the workspace to the same file's licences, bans and sources meanwhile.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::output;
use crate::process::{cargo, run as run_command};
use crate::tools;

/// The release of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Installs cargo-deny unless it is there, and runs it. Advisories need a database from the network; where
/// that can be had, `cargo deny check advisories` reads it.
///
/// # Errors
/// When it cannot be installed or something is denied.
pub(crate) fn run() -> Result<()> {
    if tools::find("cargo-deny").is_none() && !in_cargo_home("cargo-deny") {
        output::note(&format!("installing cargo-deny {CARGO_DENY}"));
        run_command(&mut cargo(&["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY]))
            .context("cargo-deny is missing; install it with `cargo install --locked cargo-deny`")?;
    }
    let check = ["deny", "--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
    run_command(&mut cargo(&check))
}

fn in_cargo_home(program: &str) -> bool {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")).unwrap_or_default(),
        Into::into,
    );
    home.join("bin").join(program).is_file()
}
