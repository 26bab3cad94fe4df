//! What commands and servers answered.

use std::process::Output;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Answer {
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Whether it ended with status 0.
    pub fn is_success(&self) -> bool {
        self.status == Some(0)
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

/// What an HTTP server answered to curl.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Status; 0 when there was no answer, as curl writes it.
    pub status: u16,
    /// Body.
    pub body: String,
}

impl HttpAnswer {
    /// Reads what curl wrote with `--write-out '\n%{http_code}'`.
    pub(crate) fn of_curl(answer: &Answer) -> Self {
        let (body, status) = answer.out.rsplit_once('\n').unwrap_or(("", "0"));
        Self { status: status.trim().parse().unwrap_or(0), body: body.to_owned() }
    }
}
