//! One try at one upstream connection: send the request, get the head of the response.
//!
//! Nothing has reached the client by the time an attempt fails, so another one can be made, as far as what
//! was sent can be sent again.

use std::future::poll_fn;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::flow::{self, DownloadError, Upload, UploadError};
use super::framing::{Framing, Version};
use super::head::{HeadScanner, Keeping, RequestHead, ResponseHead};

/// Interim responses that one request may get; more are taken for a broken upstream.
const INTERIM_MAX: usize = 16;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The client went away, or broke its own body.
    #[error("request failed")]
    Request(#[source] UploadError),
    /// The upstream ended the connection. `is_untouched` says that not a byte of a response had come.
    #[error("upstream connection ended early")]
    Ended {
        /// Not a byte of a response had come.
        is_untouched: bool,
        /// It was reset, and not closed in order.
        is_reset: bool,
    },
    /// The attempt took longer than the route allows for one.
    #[error("upstream did not answer in time")]
    TimedOut,
    /// The upstream broke the protocol.
    #[error("upstream protocol error")]
    Protocol(#[source] DownloadError),
}

/// The client's side of an exchange.
#[derive(Debug)]
pub struct Client<'a, D> {
    /// Its stream.
    pub stream: &'a mut D,
    /// Bytes that were read from it and not used yet.
    pub buffer: &'a mut BytesMut,
    /// Its request.
    pub request: &'a RequestHead,
}

/// Sends `head` and as much of the body as there is, and waits for a final response head. Interim ones are
/// handed on at once, to a client that knows them.
///
/// # Errors
/// [`AttemptError`]; nothing final has been sent to the client then.
pub async fn response_head<D, U>(
    client: &mut Client<'_, D>,
    upload: &mut Upload,
    upstream: &mut U,
    upstream_buffer: &mut BytesMut,
    sending: &mut Vec<u8>,
    response: &mut ResponseHead,
) -> Result<(), AttemptError>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    upload.append_pending_to(sending);
    // A failed write is not the end: an upstream that refuses a request may answer and close at once.
    let written = match upstream.write_all(sending).await {
        Ok(()) => upstream.flush().await,
        Err(error) => Err(error),
    };
    if written.is_err() {
        upload.refuse();
    }
    let mut scanner = HeadScanner::default();
    for _ in 0..=INTERIM_MAX {
        let read = poll_fn(|context| {
            let uploading = upload.poll(context, client.stream, client.buffer, upstream);
            if let Poll::Ready(error) = uploading {
                return Poll::Ready(Err(AttemptError::Request(error)));
            }
            flow::poll_head(context, upstream, upstream_buffer, &mut scanner, response)
                .map_err(|error| classify(error, upstream_buffer.is_empty()))
        });
        read.await?;
        if !response.is_interim() {
            return Ok(());
        }
        if client.request.version == Version::Http11 {
            sending.clear();
            response.write_to(sending, Framing::Empty, Keeping::Default);
            let written = match client.stream.write_all(sending).await {
                Ok(()) => client.stream.flush().await,
                Err(error) => Err(error),
            };
            written.map_err(|_| AttemptError::Request(UploadError::Disconnected))?;
        }
    }
    Err(AttemptError::Protocol(DownloadError::Head(super::head::HeadError::Malformed)))
}

fn classify(error: DownloadError, is_untouched: bool) -> AttemptError {
    match error {
        DownloadError::Truncated => AttemptError::Ended { is_untouched, is_reset: false },
        DownloadError::Upstream(error) => {
            AttemptError::Ended { is_untouched, is_reset: crate::forward::tcp::is_reset(&error) }
        }
        DownloadError::Disconnected => AttemptError::Request(UploadError::Disconnected),
        error @ (DownloadError::Malformed(_) | DownloadError::Head(_)) => AttemptError::Protocol(error),
    }
}
