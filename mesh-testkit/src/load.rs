//! Requests that go on while something happens: h2load inside a workload, for a stated time.

use std::process::Child;

use crate::answer::Answer;
use crate::local_mesh::LocalMesh;
use crate::machine::eventually;

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    child: Child,
}

/// What became of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadResult {
    /// Answered with 2xx.
    pub succeeded: u64,
    /// Answered with another status.
    pub refused: u64,
    /// Not answered.
    pub failed: u64,
}

impl Load {
    /// Starts HTTP/1.1 requests on 4 connections from a workload for `seconds`, and waits until the first has
    /// been answered.
    ///
    /// # Panics
    /// When it cannot be started, or nothing is answered.
    #[track_caller]
    pub fn start(mesh: &LocalMesh, workload: &str, url: &str, seconds: u32) -> Self {
        let before = mesh.access_log(workload).len();
        let duration = seconds.to_string();
        let words = ["h2load", "--h1", "-t1", "-c4", "-D", &duration, url];
        let child = mesh.exec_start(workload, &words);
        eventually("the first request of the load is answered", || {
            let now = mesh.access_log(workload).len();
            if now > before { Ok(()) } else { Err(format!("{now} records")) }
        });
        Self { child }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it did not end by itself, or ended before it should have.
    #[track_caller]
    pub fn end(self) -> LoadResult {
        let answer: Answer = self.child.wait_with_output().expect("an end").into();
        assert!(answer.is_success(), "h2load: {}{}", answer.out, answer.err);
        LoadResult::parse(&answer.out)
    }
}

impl LoadResult {
    /// Reads h2load's summary: `requests: 9 total, 9 started, 9 done, 9 succeeded, 0 failed, 0 errored, 0
    /// timeout` and `status codes: 9 2xx, 0 3xx, 0 4xx, 0 5xx`.
    fn parse(text: &str) -> Self {
        let line = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.expect("a line of h2load's summary").to_owned()
        };
        let number = |line: &str, word: &str| {
            let part = line.split(',').find_map(|part| part.trim().strip_suffix(word));
            part.and_then(|part| part.trim().parse::<u64>().ok()).expect("a number")
        };
        let (requests, codes) = (line("requests: "), line("status codes: "));
        Self {
            succeeded: number(&codes, "2xx"),
            refused: ["3xx", "4xx", "5xx"].iter().map(|class| number(&codes, class)).sum(),
            failed: number(&requests, "errored") + number(&requests, "timeout"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read() {
        let text = "finished in 1s\nrequests: 12 total, 12 started, 12 done, 9 succeeded, 3 failed, 2 errored, 1 timeout\n\
                    status codes: 7 2xx, 1 3xx, 0 4xx, 1 5xx\n";
        assert_eq!(LoadResult::parse(text), LoadResult { succeeded: 7, refused: 2, failed: 3 });
    }
}
