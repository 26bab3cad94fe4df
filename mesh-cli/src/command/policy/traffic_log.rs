//! Access logs as commands read them: line by line, with what cannot be read named and counted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use mesh_api::traffic_record::{RecordError, Traffic};

use crate::command::Failure;
use crate::output;

/// Lines that cannot be read and are named; more are counted.
const BAD_LINES_TOLD: usize = 3;
/// Longest line of a log, in bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// What was read of logs.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) traffic: Traffic,
    pub(super) bad_lines: usize,
}

impl Reading {
    /// Reads a log, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be read, or holds too many records that differ.
    pub(super) fn read(&mut self, log: &Path) -> Result<(), Failure> {
        let name = if log.as_os_str() == "-" { "standard input".into() } else { log.display().to_string() };
        let unreadable = |error: &io::Error| Failure::new(format!("cannot read {name}: {error}"));
        let mut lines: Box<dyn BufRead> = if log.as_os_str() == "-" {
            Box::new(io::stdin().lock())
        } else {
            Box::new(BufReader::new(File::open(log).map_err(|error| unreadable(&error))?))
        };
        self.read_lines(&name, &mut lines)
    }

    /// Reads a log that is in hand.
    ///
    /// # Errors
    /// When it holds too many records that differ.
    pub(super) fn read_text(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        self.read_lines(name, &mut text.as_bytes())
    }

    fn read_lines(&mut self, name: &str, lines: &mut dyn BufRead) -> Result<(), Failure> {
        let unreadable = |error: &io::Error| Failure::new(format!("cannot read {name}: {error}"));
        let mut lines = lines;
        let mut number = 0_usize;
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if read.map_err(|error| unreadable(&error))? == 0 {
                return Ok(());
            }
            number += 1;
            match self.traffic.add_line(&String::from_utf8_lossy(&line)) {
                Ok(()) => {}
                Err(error @ RecordError::TooMany) => {
                    return Err(Failure::new(format!("{name}:{number}: {error}")));
                }
                Err(error) => self.bad(name, number, &error),
            }
        }
    }

    fn bad(&mut self, name: &str, number: usize, error: &RecordError) {
        self.bad_lines += 1;
        if self.bad_lines <= BAD_LINES_TOLD {
            output::note(&format!("{} {name}:{number}: {error}", output::doubtful("passed over:")));
        }
    }
}
