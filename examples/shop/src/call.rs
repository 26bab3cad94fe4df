//! Makes requests from a shell: HTTP, gRPC, or a line to the store; one line of output each.
//!
//! With `--for` it repeats for a time and prints only totals, which is how the demo shows that a change
//! happened under load without an error.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use http::Method;

use crate::{catalog, server, store};

/// What to call.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Method, or `GRPC` for the catalog's GetProduct, or `STORE` for a line to the store.
    method: String,
    /// `http://HOST:PORT/PATH`; for GRPC `HOST:PORT`; for STORE `HOST:PORT`.
    target: String,
    /// Body; for GRPC the product's id, for STORE the line.
    #[arg(long, default_value = "")]
    body: String,
    /// Header as `name: value`; may be repeated.
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// Repeat for this many seconds and print totals as JSON.
    #[arg(long = "for", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Pause between repeated calls, in milliseconds.
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
}

/// Calls, prints, and exits 0 when every answer was a success (2xx, gRPC OK, a line from the store).
pub(crate) async fn run(args: &CallArgs) -> ExitCode {
    let Some(seconds) = args.seconds else {
        return match once(args).await {
            Ok(outcome) => {
                server::say(&format!("{} {}", outcome.status, outcome.text));
                if outcome.is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                server::say(&format!("error {error:#}"));
                ExitCode::FAILURE
            }
        };
    };
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = 0_u64;
    while Instant::now() < until {
        let key = match once(args).await {
            Ok(outcome) => {
                failed += u64::from(!outcome.is_success);
                outcome.status
            }
            Err(error) => {
                failed += 1;
                format!("error {error:#}")
            }
        };
        *totals.entry(key).or_default() += 1;
        tokio::time::sleep(Duration::from_millis(args.pause_ms)).await;
    }
    let calls: u64 = totals.values().sum();
    server::say(&serde_json::json!({ "calls": calls, "failed": failed, "answers": totals }).to_string());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Outcome {
    status: String,
    text: String,
    is_success: bool,
}

async fn once(args: &CallArgs) -> Result<Outcome> {
    match args.method.as_str() {
        "GRPC" => {
            let id = if args.body.is_empty() {
                1
            } else {
                args.body.parse().context("--body is not a product id")?
            };
            Ok(match catalog::get_over_grpc(&args.target, id).await? {
                Ok(name) => Outcome { status: "grpc-ok".into(), text: name, is_success: true },
                Err(status) => Outcome {
                    status: format!("grpc-{:?}", status.code()),
                    text: status.message().to_owned(),
                    is_success: false,
                },
            })
        }
        "STORE" => {
            let text = store::exchange(&args.target, &args.body).await?;
            Ok(Outcome { status: "store".into(), text, is_success: true })
        }
        method => http_once(method, args).await,
    }
}

async fn http_once(method: &str, args: &CallArgs) -> Result<Outcome> {
    let method: Method = method.parse().context("not a method")?;
    let rest = args.target.strip_prefix("http://").context("the target must start with http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    let headers = args.headers.iter().map(|header| {
        let (name, value) = header.split_once(':').context("a header is written `name: value`")?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    let headers = headers.collect::<Result<Vec<_>>>()?;
    let (status, body) = server::call(method, authority, path, &headers, args.body.clone()).await?;
    Ok(Outcome {
        status: status.as_u16().to_string(),
        text: String::from_utf8_lossy(&body).trim_end().to_owned(),
        is_success: status.is_success(),
    })
}
