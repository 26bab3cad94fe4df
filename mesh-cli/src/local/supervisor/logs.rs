//! Keeps the logs of a mesh that runs for weeks from filling the disk.
//!
//! Programs hold their logs open, so that a log cannot be renamed away. One that is too long is copied and
//! then emptied; everything that writes here appends, and goes on at the new end. What is written between
//! the copy and the emptying is lost, which is why it happens at a large size only.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::context::Context;
use crate::output;

/// Longest log, in bytes. There is one former log of that size for each.
const BYTES_MAX: u64 = 32 << 20;
/// Between looks.
const PAUSE: Duration = Duration::from_secs(20);

/// Looks at the logs for ever.
pub(crate) async fn bound(context: Rc<Context>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let folder = context.directory.path().join("logs");
        let looked = tokio::task::spawn_blocking(move || look(&folder, BYTES_MAX)).await;
        if let Ok(Err(error)) = looked {
            output::note(&format!("the logs cannot be kept short: {error}"));
        }
    }
}

fn look(folder: &Path, bytes_max: u64) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        if is_log && path.metadata()?.len() > bytes_max {
            fs::copy(&path, former(&path))?;
            OpenOptions::new().write(true).truncate(true).open(&path)?;
        }
    }
    Ok(())
}

/// Where the former content of a log is.
fn former(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_long_log_is_emptied_under_its_writer_and_a_short_one_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let long = folder.path().join("a.app.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&long).expect("a log");
        writer.write_all(&[b'x'; 100]).expect("written");
        fs::write(folder.path().join("b.app.log"), "short").expect("written");
        look(folder.path(), 50).expect("looked");
        writer.write_all(b"after").expect("written");
        assert_eq!(fs::read(&long).expect("read"), b"after");
        assert_eq!(fs::read(former(&long)).expect("read").len(), 100);
        assert_eq!(fs::read(folder.path().join("b.app.log")).expect("read"), b"short");
    }
}
