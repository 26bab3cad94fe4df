//! A plain HTTP/1.1 server and client, and the shop's log.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// Largest body that the shop reads, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Time allowed for what was begun when the process is told to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Time allowed for one call to a neighbour.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes one line to the log. A closed pipe is no reason to stop serving.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _closed_pipe = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// An answer: status and JSON.
pub(crate) type Answer = (StatusCode, serde_json::Value);

/// Resolves when the process is told to end. As the first process of a container it has no default action for
/// signals, so that one that did not listen would be killed at the end of its grace period.
pub(crate) async fn told_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Serves HTTP/1.1 until the process is told to end, and what was begun to its end; `answer` is asked once per
/// request.
pub(crate) async fn serve<F, A>(name: &str, listen: SocketAddr, answer: F) -> Result<()>
where
    F: Fn(Method, String, Bytes) -> A + Clone + 'static,
    A: Future<Output = Answer> + 'static,
{
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("{name}: cannot listen on {listen}"))?;
    say(&format!("{name}: serving on {listen}"));
    tokio::task::LocalSet::new()
        .run_until(async move {
            let connections = GracefulShutdown::new();
            let end = told_to_end();
            tokio::pin!(end);
            loop {
                let accepted = tokio::select! {
                    () = &mut end => break,
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, _peer)) = accepted else { continue };
                let answer = answer.clone();
                let service = service_fn(move |request| respond(request, answer.clone()));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new());
                let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
                tokio::task::spawn_local(async move {
                    // A peer that breaks the protocol ends its own connection only.
                    let _peer_error = connection.await;
                });
            }
            drop(listener);
            let _unfinished = tokio::time::timeout(END_TIMEOUT, connections.shutdown()).await;
            Ok(())
        })
        .await
}

async fn respond<F, A>(request: Request<Incoming>, answer: F) -> Result<Response<Full<Bytes>>, Infallible>
where
    F: Fn(Method, String, Bytes) -> A,
    A: Future<Output = Answer>,
{
    let (head, body) = request.into_parts();
    let (status, json) = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => answer(head.method, head.uri.path().to_owned(), body.to_bytes()).await,
        Err(error) => (StatusCode::BAD_REQUEST, serde_json::json!({ "error": error.to_string() })),
    };
    let mut response = Response::new(Full::from(format!("{json}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Calls a neighbour over a connection of its own.
///
/// # Errors
/// When it cannot be reached or does not answer within ten seconds. Any status is an answer.
pub(crate) async fn call(
    method: Method,
    authority: &str,
    path: &str,
    headers: &[(String, String)],
    body: String,
) -> Result<(StatusCode, Bytes)> {
    let exchange = async {
        let stream =
            TcpStream::connect(authority).await.with_context(|| format!("cannot connect to {authority}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("HTTP handshake")?;
        let mut request = Request::builder().method(method).uri(path).header("host", authority);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(body))).context("invalid request")?;
        let answered = async {
            let response = sender.send_request(request).await.context("no answer")?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("answer broke off: {error}"))?.to_bytes();
            Ok::<_, anyhow::Error>((status, body))
        };
        tokio::pin!(answered);
        tokio::select! {
            answer = &mut answered => answer,
            _closed = connection => answered.await,
        }
    };
    match tokio::time::timeout(CALL_TIMEOUT, exchange).await {
        Ok(answer) => answer,
        Err(_elapsed) => bail!("{authority} did not answer within {} s", CALL_TIMEOUT.as_secs()),
    }
}
