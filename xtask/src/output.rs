//! The only place of xtask that writes to the terminal. Results go to standard output, progress to standard
//! error, so that `--json` can be piped.

use std::io::Write as _;

/// Prints a line of the result.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    // A closed pipe (`| head`) is the reader's choice, not a failure.
    let _closed_pipe = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Prints a line of progress.
pub(crate) fn note(text: &str) {
    let mut out = std::io::stderr().lock();
    let _closed_pipe = writeln!(out, "{text}").and_then(|()| out.flush());
}
