//! Static binaries that do not tell where they were built.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::ImageProfile;
use crate::process::{cargo, run, target_directory, workspace};

/// Between flags in `CARGO_ENCODED_RUSTFLAGS`, so that paths may hold spaces.
const FLAG_SEPARATOR: &str = "\u{1f}";

/// Builds packages and returns the folder of their binaries.
///
/// # Errors
/// When cargo fails.
pub(crate) fn build(packages: &[&str], profile: ImageProfile) -> Result<PathBuf> {
    // The C library's static form resolves names and needs no plug-ins for files and DNS, which is all that
    // a container has.
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = target_directory()?.join("images-build");
    let mut arguments = vec!["build", "--quiet", "--locked", "--bins", "--target", &target];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    if profile == ImageProfile::Release {
        arguments.push("--release");
    }
    let prefixes = prefixes(&folder);
    let remapped = prefixes.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()));
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(remapped);
    let mapped: Vec<String> =
        prefixes.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect();
    let mut build = cargo(&arguments);
    build
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(FLAG_SEPARATOR))
        .env("CFLAGS", mapped.join(" "))
        .env("CXXFLAGS", mapped.join(" "))
        .env("CARGO_INCREMENTAL", "0")
        // Debugging information would be three quarters of an image for tests.
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        .env("CARGO_PROFILE_DEV_STRIP", "symbols")
        .env_remove("RUSTFLAGS");
    run(&mut build)?;
    let profile = match profile {
        ImageProfile::Dev => "debug",
        ImageProfile::Release => "release",
    };
    Ok(folder.join(target).join(profile))
}

/// Folders of this machine, and what stands for them. Where several fit, rustc and gcc take the last.
fn prefixes(target: &Path) -> Vec<(PathBuf, &'static str)> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".cargo")));
    let mut all = vec![(workspace(), "/mini-mesh"), (target.to_owned(), "/target")];
    all.extend(cargo_home.map(|folder| (folder, "/cargo")));
    all
}

/// Refuses a binary that needs a loader or names a folder of the machine that built it.
///
/// # Errors
/// When it is not fit for an image.
pub(crate) fn check(name: &str, binary: &[u8]) -> Result<()> {
    ensure!(binary.starts_with(b"\x7fELF"), "{name} is no Linux program");
    ensure!(
        !has_interpreter(binary).with_context(|| format!("{name} is cut short"))?,
        "{name} is linked dynamically, and an image FROM scratch has no loader"
    );
    for (folder, _) in prefixes(&target_directory()?.join("images-build")) {
        let needle = folder.display().to_string();
        ensure!(
            !holds(binary, needle.as_bytes()),
            "{name} holds the path {needle} of this machine, so that its digest would differ elsewhere"
        );
    }
    Ok(())
}

/// Whether a 64-bit little-endian ELF file has a program header PT_INTERP (System V ABI, chapter 5).
fn has_interpreter(binary: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, width: usize| -> Option<usize> {
        let bytes = binary.get(at..at.checked_add(width)?)?;
        let value = bytes.iter().rev().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
        usize::try_from(value).ok()
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let at = table.checked_add(index.checked_mul(size)?)?;
        if u32::try_from(number(at, 4)?).ok()? == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn holds(text: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && text.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        let own = std::fs::read("/proc/self/exe").expect("the test's own program");
        assert_eq!(has_interpreter(&own), Some(cfg!(not(target_feature = "crt-static"))));
        assert_eq!(has_interpreter(&own[..60]), None);
        assert!(check("x", b"#!/bin/sh\n").is_err());
    }

    #[test]
    fn a_path_is_found_wherever_it_stands() {
        assert!(holds(b"\0/place/src/main.rs\0", b"/place"));
        assert!(!holds(b"\0/plac", b"/place"));
        assert!(!holds(b"x", b""));
    }
}
