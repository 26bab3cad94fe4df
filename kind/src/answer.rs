//! What `shop call` prints: a status and a text, or what went wrong.

use anyhow::{Result, ensure};

/// One answer to one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `200`, `grpc-ok`, `grpc-PermissionDenied`, `store`, or `error` when nothing came back.
    pub status: String,
    /// Body, message or reason.
    pub text: String,
}

impl Answer {
    /// Reads the last line that was printed.
    #[must_use]
    pub fn of_output(output: &str) -> Self {
        let line =
            output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("error nothing was printed");
        let (status, text) = line.split_once(' ').unwrap_or((line, ""));
        Self { status: status.to_owned(), text: text.to_owned() }
    }

    /// Fails unless the status is the given one.
    ///
    /// # Errors
    /// When it is another; the message has the whole answer.
    pub fn expect(self, status: &str) -> Result<Self> {
        ensure!(self.status == status, "expected {status}, got {} {}", self.status, self.text);
        Ok(self)
    }

    /// Fails unless nothing came back, as when a connection is closed or refused.
    ///
    /// # Errors
    /// When there was an answer.
    pub fn expect_none(self) -> Result<Self> {
        self.expect("error")
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn the_last_line_is_the_answer() {
        let answer = Answer::of_output("noise\n200 {\"a\": 1}\n\n");
        assert_eq!((answer.status.as_str(), answer.text.as_str()), ("200", "{\"a\": 1}"));
        assert!(answer.clone().expect("200").is_ok());
        assert!(answer.expect("403").is_err());
        assert!(Answer::of_output("").expect_none().is_ok());
    }
}
