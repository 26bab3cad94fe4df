//! The client of a request that is still being judged: its body can be read ahead of forwarding, and whether
//! it is still there can be seen.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::flow::{self, READ_AHEAD, Upload, UploadError};
use super::framing::Framing;
use super::head::RequestHead;
use crate::accept::downstream::Downstream;
use crate::ext_authz::{Client, Held};
use crate::respond::Refusal;

/// The client.
#[derive(Debug)]
pub struct Waiting<'a> {
    stream: &'a mut Downstream,
    buffer: &'a mut BytesMut,
    upload: &'a mut Upload,
    framing: Framing,
    is_upgrade: bool,
    expects_continue: bool,
    has_continued: bool,
}

impl<'a> Waiting<'a> {
    /// The client of `request`, whose body `upload` will carry.
    #[must_use]
    pub fn new(
        stream: &'a mut Downstream,
        buffer: &'a mut BytesMut,
        upload: &'a mut Upload,
        request: &RequestHead,
    ) -> Self {
        Self {
            stream,
            buffer,
            upload,
            framing: request.framing,
            is_upgrade: request.upgrade.is_some(),
            expects_continue: request.expects_continue,
            has_continued: false,
        }
    }

    /// Whether the client was told to send its body.
    #[must_use]
    pub fn has_continued(&self) -> bool {
        self.has_continued
    }
}

impl Client for Waiting<'_> {
    fn stated_length(&self) -> Option<u64> {
        match self.framing {
            _ if self.is_upgrade => Some(0),
            Framing::Empty => Some(0),
            Framing::Length(length) => Some(length),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    async fn hold(&mut self, limit: usize) -> Result<Held, Refusal> {
        if self.expects_continue && !self.has_continued {
            self.has_continued = true;
            let written = match self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await {
                Ok(()) => self.stream.flush().await,
                Err(error) => Err(error),
            };
            written.map_err(|_| Refusal::Abandoned)?;
        }
        let mut bytes = Vec::new();
        let (upload, stream, buffer) = (&mut *self.upload, &mut *self.stream, &mut *self.buffer);
        let held = poll_fn(|context| upload.poll_hold(context, stream, buffer, (limit, &mut bytes))).await;
        match held {
            Ok(is_whole) => Ok(Held { bytes, is_whole }),
            Err(UploadError::Disconnected) => Err(Refusal::Abandoned),
            Err(UploadError::Stalled) => Err(Refusal::BodyTimeout),
            Err(UploadError::Malformed(error)) => Err(Refusal::BadRequest { details: error.details() }),
        }
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.buffer.len() < READ_AHEAD {
            match flow::poll_fill(context, self.stream, self.buffer) {
                Poll::Ready(Ok(length)) if length > 0 => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}
