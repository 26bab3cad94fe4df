//! Reads the ends of logs, and what is appended to them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// Most that is read of one log in one turn, in bytes, so that one busy log does not hold up the others.
const TURN_BYTES_MAX: u64 = 1 << 20;
/// Longest line that is waited for, in bytes; a longer one is printed in parts.
const LINE_BYTES_MAX: usize = 64 << 10;

/// A log that is followed.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Tail {
    /// A log from its beginning.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, partial: Vec::new() }
    }

    /// Lines that were appended since the last call. A log that is not there has none; one that became
    /// shorter is read from its beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(TURN_BYTES_MAX).read_to_end(&mut self.partial)?;
        self.offset += u64::try_from(read).unwrap_or(0);
        let mut lines = Vec::new();
        let mut rest = self.partial.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            lines.push(text(&rest[..end]));
            rest = &rest[end + 1..];
        }
        if rest.len() > LINE_BYTES_MAX {
            lines.push(text(rest));
            rest = &[];
        }
        self.partial = rest.to_vec();
        Ok(lines)
    }

    /// All lines there are, also one without an end; with `last`, only so many.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn all(&mut self, last: Option<usize>) -> io::Result<Vec<String>> {
        let mut all = Vec::new();
        loop {
            let before = self.offset;
            all.extend(self.lines()?);
            if let Some(last) = last {
                all.drain(..all.len().saturating_sub(last));
            }
            if self.offset == before {
                return Ok(all);
            }
        }
    }

    /// The begun line at the end, when nothing more is expected.
    pub(crate) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

/// Text as a terminal may be shown it: a log must not move the cursor about, but colours are wanted.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches('\r').chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\u{1b}')).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_come_whole_and_once_and_a_shortened_log_starts_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut tail = Tail::new(path.clone());
        assert!(tail.lines().expect("no log has no lines").is_empty());
        let mut writer = File::options().create(true).append(true).open(&path).expect("a log");
        writer.write_all(b"one\ntw").expect("written");
        assert_eq!(tail.lines().expect("read"), ["one"]);
        writer.write_all(b"o\nthree").expect("written");
        assert_eq!(tail.lines().expect("read"), ["two"]);
        assert_eq!(tail.rest().as_deref(), Some("three"));
        writer.set_len(0).expect("emptied");
        writer.write_all(b"new\n").expect("written");
        assert_eq!(tail.lines().expect("read"), ["new"]);
    }

    #[test]
    fn only_the_last_lines_are_kept_when_so_many_are_wanted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, "a\nb\nc\nd").expect("a log");
        assert_eq!(Tail::new(path.clone()).all(Some(2)).expect("read"), ["b", "c"]);
        assert_eq!(Tail::new(path).all(None).expect("read").len(), 3);
    }
}
