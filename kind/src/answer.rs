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
    /// Reads what was printed: the status is its first word, whatever the body looks like.
    #[must_use]
    pub fn of_output(output: &str) -> Self {
        let output = output.trim();
        let output = if output.is_empty() { "error nothing was printed" } else { output };
        let (status, text) = output.split_once(char::is_whitespace).unwrap_or((output, ""));
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
    fn the_first_word_is_the_status() {
        let answer = Answer::of_output("200 {\n \"a\": 1\n}\n\n");
        assert_eq!((answer.status.as_str(), answer.text.as_str()), ("200", "{\n \"a\": 1\n}"));
        assert!(answer.clone().expect("200").is_ok());
        assert!(answer.expect("403").is_err());
        assert!(Answer::of_output("").expect_none().is_ok());
    }
}
