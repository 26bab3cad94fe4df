//! Waits for the proxy beside it, as another process: a pod's application must not start before its traffic is
//! served, and where Kubernetes has no sidecars of its own the kubelet starts containers one after the other
//! and waits for each one's `postStart`, which this is.
//!
//! It is asked over the status listener, as probes do, since the image holds no other program that could.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);
/// Time allowed for one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest part of an answer that is read, in bytes: what the proxy waits for fits.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

/// Why the wait was given up.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Nobody answered.
    #[error("no proxy answers at {address} within {seconds} s")]
    Silent {
        /// Where it was asked.
        address: SocketAddr,
        /// For how long.
        seconds: u64,
        /// What became of the last question.
        source: io::Error,
    },
    /// It answered that it does not serve yet.
    #[error("the proxy at {address} is not ready within {seconds} s: {answer}")]
    NotReady {
        /// Where it was asked.
        address: SocketAddr,
        /// For how long.
        seconds: u64,
        /// Its last answer.
        answer: String,
    },
}

/// Blocks until the proxy whose status is served at `address` is ready, at most for `limit`.
///
/// # Errors
/// When it is not, with what it said last.
pub fn until_ready(address: SocketAddr, limit: Duration) -> Result<(), WaitError> {
    let begin = Instant::now();
    let seconds = limit.as_secs();
    loop {
        let answered = ask(address);
        if matches!(&answered, Ok(answer) if is_ready(answer)) {
            return Ok(());
        }
        if begin.elapsed() >= limit {
            return Err(match answered {
                Ok(answer) => WaitError::NotReady { address, seconds, answer: gist(&answer) },
                Err(source) => WaitError::Silent { address, seconds, source },
            });
        }
        std::thread::park_timeout(PAUSE.min(limit));
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, QUESTION_TIMEOUT)?;
    stream.set_read_timeout(Some(QUESTION_TIMEOUT))?;
    stream.set_write_timeout(Some(QUESTION_TIMEOUT))?;
    stream.write_all(b"GET /healthz/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_ready(answer: &str) -> bool {
    answer.split_whitespace().nth(1) == Some("200")
}

/// The body on one line.
fn gist(answer: &str) -> String {
    let body = answer.split_once("\r\n\r\n").map_or(answer, |(_, body)| body);
    body.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers each of `answers` to one connection.
    fn serve(answers: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("accepted");
                let mut request = [0; 512];
                let length = stream.read(&mut request).expect("read");
                assert!(request[..length].starts_with(b"GET /healthz/ready HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).expect("written");
            }
        });
        address
    }

    #[test]
    fn the_wait_ends_with_the_first_answer_that_says_ready() {
        let address = serve(&["HTTP/1.1 503 Service Unavailable\r\n\r\n{}", "HTTP/1.1 200 OK\r\n\r\n"]);
        until_ready(address, Duration::from_secs(10)).expect("ready at the second question");
    }

    #[test]
    fn a_wait_in_vain_says_what_the_proxy_waits_for() {
        let address = serve(&["HTTP/1.1 503 No\r\n\r\n{\n  \"waiting_for\": [\"identity\"]\n}"]);
        match until_ready(address, Duration::ZERO) {
            Err(WaitError::NotReady { answer, .. }) => {
                assert_eq!(answer, "{ \"waiting_for\": [\"identity\"] }")
            }
            other => panic!("{other:?}"),
        }
        let nobody = TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
        assert!(matches!(until_ready(nobody, Duration::ZERO), Err(WaitError::Silent { .. })));
    }
}
