//! Load: stock `h2load`, for all protocols, so that the client costs the same whoever is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::daemon::{inside, succeed};
use super::plan::Protocol;

/// Requests a second of the paced load.
pub(crate) const PACE: u64 = 1_000;
/// Connections of the paced load.
const PACED_CONNECTIONS: u64 = 10;
/// Connections under which loaded memory is read.
pub(crate) const MANY_CONNECTIONS: u64 = 128;

/// Whom to send load to, from where.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Namespace of the load generator.
    pub(crate) namespace: String,
    /// What the connections carry.
    pub(crate) protocol: Protocol,
    /// Scheme, address and port.
    pub(crate) base: String,
    /// Body of gRPC calls.
    pub(crate) message: PathBuf,
}

/// What came of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// How long it took.
    pub(crate) seconds: f64,
    /// Requests, all answered with success.
    pub(crate) requests: u64,
}

/// Latency in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Latency {
    /// Median.
    pub(crate) p50_us: f64,
    /// 99th percentile.
    pub(crate) p99_us: f64,
}

impl Target {
    /// As many requests as fast as they are answered: 32 in flight, for gRPC on 8 connections.
    ///
    /// # Errors
    /// When one of them was not answered with success.
    pub(crate) fn push(&self, requests: u64) -> Result<Outcome> {
        let (connections, streams) = match self.protocol {
            Protocol::Http1 | Protocol::Tcp => (32, 1),
            Protocol::Grpc => (8, 4),
        };
        self.run(requests, connections, &["-m", &format!("{streams}")])
    }

    /// As many requests on many connections.
    ///
    /// # Errors
    /// When one of them was not answered with success.
    pub(crate) fn push_many(&self, requests: u64) -> Result<Outcome> {
        self.run(requests, MANY_CONNECTIONS, &["-m", "1"])
    }

    /// Requests at [`PACE`]; the first tenth, on fresh connections, is not counted.
    ///
    /// # Errors
    /// When one of them was not answered with success.
    pub(crate) fn pace(&self, requests: u64, log: &Path) -> Result<Latency> {
        if log.exists() {
            fs::remove_file(log)?;
        }
        let rate = (PACE / PACED_CONNECTIONS).to_string();
        let log_file = format!("--log-file={}", log.display());
        // Connections start one after another, so that their clocks do not tick together.
        let options = ["-m", "1", "--rps", &rate, "-r", "1", "--rate-period", "3ms", &log_file];
        self.run(requests, PACED_CONNECTIONS, &options)?;
        let text = fs::read_to_string(log).context("h2load wrote no log")?;
        latency(&text).context("h2load's log holds no requests")
    }

    fn run(&self, requests: u64, connections: u64, options: &[&str]) -> Result<Outcome> {
        // Every connection gets the same share, and at least one request.
        let requests = requests.max(connections).next_multiple_of(connections);
        let mut h2load = inside(&self.namespace, "h2load");
        h2load.args(["-t", "1", "-c", &connections.to_string(), "-n", &requests.to_string()]);
        h2load.args(options);
        self.describe_request(&mut h2load);
        let outcome = parse(&succeed(&mut h2load)?)?;
        ensure!(outcome.requests == requests, "{} of {requests} requests succeeded", outcome.requests);
        Ok(outcome)
    }

    fn describe_request(&self, h2load: &mut Command) {
        match self.protocol {
            Protocol::Http1 | Protocol::Tcp => h2load.arg("--h1"),
            Protocol::Grpc => h2load
                .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"])
                .arg(&self.message),
        };
        h2load.arg(self.url());
    }

    /// What is requested.
    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.base, self.protocol.path())
    }

    /// Whether one request is answered, and properly: for gRPC with its status in the trailers.
    pub(crate) fn answers(&self, path: &str) -> bool {
        let url = format!("{}{path}", self.base);
        let mut ask = match self.protocol {
            Protocol::Http1 | Protocol::Tcp => {
                let mut curl = inside(&self.namespace, "curl");
                curl.args(["-s", "-m", "10", "-o", "/dev/null", "-w", "code %{http_code}"]);
                curl
            }
            Protocol::Grpc => {
                let mut nghttp = inside(&self.namespace, "nghttp");
                nghttp.args(["-nv", "-t", "10s", "-H", "content-type: application/grpc"]);
                nghttp.args(["-H", "te: trailers", "-d"]).arg(&self.message);
                nghttp
            }
        };
        let wanted = match self.protocol {
            Protocol::Http1 | Protocol::Tcp => "code 200",
            Protocol::Grpc => "grpc-status: 0",
        };
        succeed(ask.arg(url)).is_ok_and(|answer| answer.contains(wanted))
    }
}

/// Reads what `h2load` prints at the end.
fn parse(text: &str) -> Result<Outcome> {
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "));
    let seconds = finished.and_then(|rest| duration(rest.split(',').next()?));
    let codes = text.lines().find_map(|line| line.strip_prefix("status codes: "));
    let requests = codes.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match (seconds, requests) {
        (Some(seconds), Some(requests)) => Ok(Outcome { seconds: seconds.as_secs_f64(), requests }),
        _ => anyhow::bail!("h2load's answer is not understood: {}", text.trim()),
    }
}

/// `1.23s`, `175.21ms` or `37us`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// Percentiles of h2load's log: start, status and microseconds, one request a line.
fn latency(log: &str) -> Option<Latency> {
    let column = |line: &str| line.split('\t').nth(2)?.parse::<u32>().ok();
    let all: Vec<u32> = log.lines().filter_map(column).collect();
    let mut counted = all[all.len() / 10..].to_vec();
    counted.sort_unstable();
    let at = |percent: usize| counted.get(counted.len() * percent / 100).map(|us| f64::from(*us));
    Some(Latency { p50_us: at(50)?, p99_us: at(99)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_h2load_is_understood() {
        let text = "starting benchmark...\n\nfinished in 175.21ms, 114151.34 req/s, 5.34MB/s\n\
                    requests: 2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed\n\
                    status codes: 1999 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        let outcome = parse(text).expect("an outcome");
        assert_eq!(outcome.requests, 1999);
        assert!((outcome.seconds - 0.17521).abs() < 1e-9);
        assert!(parse("h2load: error").is_err());
    }

    #[test]
    fn percentiles_leave_out_the_first_tenth() {
        let log: String =
            (0..1000).map(|i| format!("1\t200\t{}\n", if i < 100 { 9999 } else { i })).collect();
        assert_eq!(latency(&log), Some(Latency { p50_us: 550.0, p99_us: 991.0 }));
        assert_eq!(latency(""), None);
    }
}
