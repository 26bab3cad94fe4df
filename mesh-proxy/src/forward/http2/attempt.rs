//! One try on one upstream connection: send the request, get the head of the response.
//!
//! Nothing final has reached the client by the time an attempt fails, so another one can be made, as far as
//! what was sent can be sent again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};

use super::pipe::{Pipe, PipeError};
use crate::upstream::http2::Http2Lease;

/// Interim responses that one request may get; more are taken for a broken upstream.
const INTERIM_MAX: usize = 16;

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// The client took its request back, or went away.
    #[error("client ended its stream")]
    Client(Reason),
    /// The upstream said that it has not looked at the request, or it was never sent.
    #[error("request was not processed")]
    Unprocessed,
    /// The upstream ended the stream or the connection.
    #[error("upstream ended early")]
    Ended {
        /// Not a byte came from the upstream since the request was sent.
        is_untouched: bool,
        /// It reset the stream.
        is_reset: bool,
    },
    /// The attempt took longer than the route allows for one.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// The upstream broke the protocol.
    #[error("upstream protocol error")]
    Protocol,
}

/// A response whose head has come, and where the rest of the request goes.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<RecvStream>,
    /// Takes the rest of the request.
    pub sink: SendStream<Bytes>,
}

/// Sends `request` and as much of its body as there is, and waits for a final response head. Interim ones are
/// handed on at once.
///
/// Dropping the future resets the stream upstream.
///
/// # Errors
/// [`AttemptError`]; nothing final has been sent to the client then.
pub async fn response(
    lease: &Http2Lease,
    request: Request<()>,
    upload: &mut Pipe,
    respond: &mut SendResponse<Bytes>,
) -> Result<Answer, AttemptError> {
    let read = lease.bytes_read();
    let sent = lease.send(request, upload.is_empty());
    let (mut response, mut sink) = sent.map_err(|_| AttemptError::Unprocessed)?;
    let mut interims = 0;
    let got = poll_fn(|context| {
        if let Poll::Ready(reset) = respond.poll_reset(context) {
            return Poll::Ready(Err(AttemptError::Client(reset.unwrap_or(Reason::CANCEL))));
        }
        if let Poll::Ready(Err(PipeError::Source(error))) = upload.poll(context, &mut sink) {
            return Poll::Ready(Err(AttemptError::Client(error.reason().unwrap_or(Reason::CANCEL))));
        }
        poll_head(context, &mut response, respond, &mut interims)
            .map_err(|error| error.map_or(AttemptError::Protocol, |error| classify(&error, lease, read)))
    })
    .await;
    match got {
        Ok(response) => Ok(Answer { response, sink }),
        Err(error) => {
            if let AttemptError::Client(reason) = error {
                sink.send_reset(reason);
            }
            Err(error)
        }
    }
}

/// Polls for the head; no error means that there were too many interim ones.
fn poll_head(
    context: &mut Context<'_>,
    response: &mut ResponseFuture,
    respond: &mut SendResponse<Bytes>,
    interims: &mut usize,
) -> Poll<Result<Response<RecvStream>, Option<h2::Error>>> {
    loop {
        match response.poll_informational(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(interim))) => {
                *interims += 1;
                if *interims > INTERIM_MAX {
                    return Poll::Ready(Err(None));
                }
                if respond.send_informational(interim).is_err() {
                    tracing::trace!("stream was gone before its interim response");
                }
            }
            Poll::Ready(Some(Err(_)) | None) => {
                return Pin::new(&mut *response).poll(context).map_err(Some);
            }
        }
    }
}

fn classify(error: &h2::Error, lease: &Http2Lease, read_before: u64) -> AttemptError {
    if lease.is_foreign() {
        return AttemptError::Unprocessed;
    }
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    // A GOAWAY ends only those streams that its sender says it has not processed (RFC 9113 section 6.8).
    if error.is_remote() && (error.is_go_away() || is_refused) {
        return AttemptError::Unprocessed;
    }
    if error.is_library() {
        return AttemptError::Protocol;
    }
    let is_untouched = lease.bytes_read() == read_before;
    AttemptError::Ended { is_untouched, is_reset: error.is_reset() }
}
