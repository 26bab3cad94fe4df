//! What the access log says of a request for which no retry was left.

use std::path::{Path, PathBuf};

use super::*;
use crate::telemetry::access_log::AccessLogTarget;

/// Lets the next mesh of this thread log into a new file.
fn log_to_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    LOG.set(Some(AccessLog::open(&AccessLogTarget::File(path.clone())).expect("opened")));
    (folder, path)
}

/// `response_flags` of the lines of the client's proxy, once there are that many.
async fn flags(path: &Path, number: usize) -> Vec<String> {
    loop {
        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
        let flags: Vec<String> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|line| line["direction"] == "outbound")
            .map(|line| line["response_flags"].as_str().unwrap_or("-").to_owned())
            .collect();
        if flags.len() >= number {
            return flags;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn retries(attempts: u32) -> Option<Retries> {
    Some(Retries { attempts, per_try_timeout_ms: None, retry_on: vec!["5xx".to_owned()] })
}

#[test]
fn an_answer_for_which_no_retry_was_left_is_marked_and_others_are_not() {
    const FAILED: &str = "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n";
    let answers = &[FAILED, FAILED, FAILED, FAILED, FAILED, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
    let (folder, log) = log_to_file();
    run_test(Protocol::Http, MtlsMode::Strict, scripted(answers), async move |mesh| {
        let mut stream = mesh.dial().await;
        assert!(get(&mut stream, "/").await.0.starts_with("HTTP/1.1 503"));
        for (attempts, status) in [(0, 503), (1, 503), (1, 200)] {
            mesh.publish_route(None, retries(attempts));
            assert!(get(&mut stream, "/").await.0.starts_with(&format!("HTTP/1.1 {status}")));
        }
        assert_eq!(flags(&log, 4).await, ["-", "-", "URX", "-"]);
        drop(folder);
    });
}

#[test]
fn a_call_that_reaches_no_endpoint_says_that_all_attempts_failed() {
    for (protocol, path) in [(Protocol::Http, "/"), (Protocol::Tcp, "")] {
        let (folder, log) = log_to_file();
        run_test(protocol, MtlsMode::Strict, reflecting, async move |mut mesh| {
            // A port at which nobody listens.
            let free = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            mesh.inbound = free.local_addr().expect("address");
            drop(free);
            mesh.publish_client("server");
            let mut stream = mesh.dial().await;
            if path.is_empty() {
                let _either_way = stream.read(&mut [0; 8]).await;
            } else {
                assert!(get(&mut stream, path).await.0.starts_with("HTTP/1.1 503"));
            }
            assert_eq!(flags(&log, 1).await, ["UF,URX"]);
            drop(folder);
        });
    }
}
