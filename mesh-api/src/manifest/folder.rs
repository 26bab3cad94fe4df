//! What a folder of manifests is, for everybody who reads one: `meshctl` checks and writes exactly the files
//! that the control plane watches.

/// Largest file that is read, in bytes (16 MiB). Ten thousand policies are about 6 MiB.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Most files in one folder and its sub-folders.
pub const FILES_MAX: usize = 100_000;
/// Deepest sub-folder that is looked into; links can make a folder contain itself.
pub const DEPTH_MAX: usize = 32;

/// Whether a file of this name holds manifests, unless it [`is_hidden`].
#[must_use]
pub fn is_manifest(name: &str) -> bool {
    [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending))
}

/// Whether a file or folder of this name is passed over, whatever it holds.
#[must_use]
pub fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}
