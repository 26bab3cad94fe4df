//! Helm, with which the chart is rendered and compared.
//!
//! Built from its Go module by the Go that the other tests need too, once for each version and target folder.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::output;
use crate::process::{command, run, target_directory};

/// The version whose output `meshctl manifest generate` equals.
const VERSION: &str = "v3.22.0";

/// The program: `HELM`, or one that is built here.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn program() -> Result<PathBuf> {
    if let Some(program) = std::env::var_os("HELM") {
        return Ok(PathBuf::from(program));
    }
    let folder = target_directory()?.join("tools").join(format!("helm-{VERSION}"));
    let program = folder.join("helm");
    if !program.is_file() {
        output::note("building helm");
        let module = format!("helm.sh/helm/v3/cmd/helm@{VERSION}");
        let mut go = command("go", &["install", &module]);
        // A module cache that can be deleted, and whatever Go the module asks for.
        go.env("GOBIN", &folder).env("GOFLAGS", "-modcacherw").env("GOTOOLCHAIN", "auto");
        run(&mut go).context("helm cannot be built")?;
    }
    Ok(program)
}
