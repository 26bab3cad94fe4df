//! The archive: tar in gzip.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::gather::Report;

/// Writes the report below a folder; the number of bytes of the archive.
pub(super) fn write(file: std::fs::File, folder: &str, report: &Report) -> std::io::Result<u64> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, content) in &report.files {
        add(&mut archive, &format!("{folder}/{name}"), content.as_bytes())?;
    }
    if !report.missing.is_empty() {
        add(&mut archive, &format!("{folder}/missing.txt"), (report.missing.join("\n") + "\n").as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    Ok(file.metadata()?.len())
}

fn add(archive: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}
