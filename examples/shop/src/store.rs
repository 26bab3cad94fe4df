//! A store that greets its client before the client says anything, as MySQL and SMTP servers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{say, told_to_end};

/// The greeting.
const GREETING: &str = "STORE 1 READY";
/// Entries kept.
const ENTRIES_MAX: usize = 10_000;
/// Time allowed for a client's whole exchange.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);

type Entries = Arc<Mutex<BTreeMap<String, String>>>;

/// Serves the store.
pub(crate) async fn serve(listen: SocketAddr) -> Result<()> {
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("store: cannot listen on {listen}"))?;
    say(&format!("store: serving on {listen}"));
    let entries = Entries::default();
    let end = told_to_end();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _peer)) = accepted else { continue };
        let entries = Arc::clone(&entries);
        tokio::spawn(async move {
            // A client that breaks off ends its own connection only.
            let _client_error = talk(stream, &entries).await;
        });
    }
}

async fn talk(stream: TcpStream, entries: &Entries) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(format!("{GREETING}\n").as_bytes()).await?;
    while let Some(line) = lines.next_line().await? {
        let mut words = line.splitn(3, ' ');
        let answer = match (words.next(), words.next(), words.next()) {
            (Some("PUT"), Some(key), Some(value)) => put_entry(entries, key, value),
            (Some("GET"), Some(key), None) => {
                let entries = entries.lock().expect("no holder panics");
                entries.get(key).map_or_else(|| "NONE".to_owned(), |value| format!("VALUE {value}"))
            }
            (Some("QUIT"), None, None) => return Ok(()),
            _ => "ERROR say PUT key value, GET key or QUIT".to_owned(),
        };
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn put_entry(entries: &Entries, key: &str, value: &str) -> String {
    let mut entries = entries.lock().expect("no holder panics");
    if entries.len() >= ENTRIES_MAX && !entries.contains_key(key) {
        return "ERROR full".to_owned();
    }
    entries.insert(key.to_owned(), value.to_owned());
    "OK".to_owned()
}

/// Waits for the greeting and puts one entry.
///
/// # Errors
/// When the store cannot be reached, says something else, or takes longer than ten seconds.
pub(crate) async fn put(authority: &str, key: &str, value: &str) -> Result<()> {
    let answer = exchange(authority, &format!("PUT {key} {value}")).await?;
    ensure!(answer == "OK", "it answered {answer:?}");
    Ok(())
}

/// Waits for the greeting, sends one line, returns the answer.
///
/// # Errors
/// As for [`put`].
pub(crate) async fn exchange(authority: &str, line: &str) -> Result<String> {
    let talk = async {
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        match lines.next_line().await?.as_deref() {
            Some(GREETING) => {}
            Some(other) => bail!("expected {GREETING:?}, got {other:?}"),
            None => bail!("closed without a greeting"),
        }
        write.write_all(format!("{line}\n").as_bytes()).await?;
        lines.next_line().await?.context("closed without an answer")
    };
    match tokio::time::timeout(PUT_TIMEOUT, talk).await {
        Ok(done) => done,
        Err(_elapsed) => bail!("{authority} did not answer within {} s", PUT_TIMEOUT.as_secs()),
    }
}
