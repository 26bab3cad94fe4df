//! The two directions of one exchange, each a small state machine that is polled.
//!
//! Both run in the task of their connection, over plain borrows of the two streams, so an exchange spawns
//! nothing, splits nothing and boxes nothing. Each holds at most one bounded run of bytes that the other side
//! has not taken yet; while it does, it reads no more, which is the backpressure.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{self, BodyDecoder, Framing, FramingError, Piece};
use super::head::{HeadError, HeadScanner, ResponseHead};

/// Bytes of a body that are gathered before they are written.
const GATHER: usize = 16 * 1024;
/// Bytes that a body of unknown length is given room for at first.
const BODY_GUESS: usize = 1024;
/// Bytes of a request body that are kept, so that the request can be sent once more.
pub const REPLAY_MAX: usize = 64 * 1024;
/// Bytes read ahead of the request in hand: pipelined requests wait in the socket beyond it.
pub const READ_AHEAD: usize = 16 * 1024;

/// Why the request's direction ended.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The client went away.
    #[error("client closed the connection")]
    Disconnected,
    /// The client owes the rest of its body and is silent.
    #[error("client does not go on with its request body")]
    Stalled,
    /// The client's framing is broken.
    #[error("request body is malformed")]
    Malformed(#[source] FramingError),
}

/// Why the response's direction ended.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The client went away.
    #[error("client closed the connection")]
    Disconnected,
    /// The upstream ended before its response did.
    #[error("upstream closed the connection early")]
    Truncated,
    /// The upstream failed.
    #[error("upstream connection failed")]
    Upstream(#[source] io::Error),
    /// The upstream's framing is broken.
    #[error("response body is malformed")]
    Malformed(#[source] FramingError),
    /// The upstream's head is broken.
    #[error("response head is malformed")]
    Head(#[source] HeadError),
}

/// Carries the body of a request upstream, and then watches for the client going away.
#[derive(Debug)]
pub struct Upload {
    decoder: BodyDecoder,
    framing: Framing,
    /// Encoded bytes that the upstream has not taken.
    pending: BytesMut,
    /// Everything encoded so far, while it is small enough.
    replay: Option<Vec<u8>>,
    is_flush_due: bool,
    /// The upstream takes no more; its response may still come.
    is_refused: bool,
    /// The end of the body has been encoded.
    is_ended: bool,
    received: u64,
    /// Longest silence of a client that owes the rest of its body.
    patience: Duration,
    silence: Option<Silence>,
}

/// A wait for more of a body. Not set anew with each piece: what had come when it began tells, at its end,
/// whether the client was silent all the time.
#[derive(Debug)]
struct Silence {
    timer: Pin<Box<Sleep>>,
    received: u64,
}

impl Upload {
    /// Starts with a request whose body is framed so, and whose client may be silent within it for `patience`.
    #[must_use]
    pub fn new(framing: Framing, patience: Duration) -> Self {
        let decoder = BodyDecoder::new(framing);
        let is_ended = decoder.is_done();
        Self {
            decoder,
            framing,
            pending: BytesMut::new(),
            replay: Some(Vec::new()),
            is_flush_due: false,
            is_refused: false,
            is_ended,
            received: 0,
            patience,
            silence: None,
        }
    }

    /// Ready once the client has been silent for too long.
    fn poll_silence(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let received = self.received;
            let silence = self.silence.get_or_insert_with(|| Silence {
                timer: Box::pin(tokio::time::sleep(self.patience)),
                received,
            });
            ready!(silence.timer.as_mut().poll(context));
            if silence.received == received {
                return Poll::Ready(());
            }
            silence.received = received;
            silence.timer.as_mut().reset(Instant::now() + self.patience);
        }
    }

    /// Takes what of the body is already in `buffer`, as far as it is small.
    ///
    /// # Errors
    /// When the client's framing is broken.
    pub fn prime(&mut self, buffer: &mut BytesMut) -> Result<(), FramingError> {
        while !self.is_ended && self.pending.len() < GATHER && self.encode(buffer)? {}
        Ok(())
    }

    /// Reads the body until it ends or more than `limit` bytes of it have come, keeps it for forwarding and
    /// copies it out; ready with whether it has ended.
    ///
    /// # Errors
    /// When the client goes away, is silent for too long, or breaks its framing.
    pub fn poll_hold<D: AsyncRead + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        downstream: &mut D,
        buffer: &mut BytesMut,
        (limit, held): (usize, &mut Vec<u8>),
    ) -> Poll<Result<bool, UploadError>> {
        loop {
            if self.is_ended || held.len() > limit {
                return Poll::Ready(Ok(self.is_ended));
            }
            match self.encode_into(buffer, Some(held)) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => return Poll::Ready(Err(UploadError::Malformed(error))),
            }
            match poll_fill(context, downstream, buffer) {
                Poll::Ready(Ok(length)) if length > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Err(UploadError::Disconnected)),
                Poll::Pending => {
                    ready!(self.poll_silence(context));
                    return Poll::Ready(Err(UploadError::Stalled));
                }
            }
        }
    }

    /// Whether anything of the body has been taken from the client.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        self.received > 0 || !self.pending.is_empty()
    }

    /// Starts a further attempt: everything sent so far is sent again. False when it is not kept any more.
    pub fn restart(&mut self) -> bool {
        self.is_refused = false;
        self.is_flush_due = false;
        match &self.replay {
            Some(replay) => {
                self.pending.clear();
                self.pending.extend_from_slice(replay);
                true
            }
            None => false,
        }
    }

    /// Whether everything sent so far could be sent again.
    #[must_use]
    pub fn can_restart(&self) -> bool {
        self.replay.is_some()
    }

    /// Moves what is pending behind a head that is about to be written.
    pub fn append_pending_to(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pending);
        self.pending.clear();
    }

    /// Gives up sending to the present upstream.
    pub fn refuse(&mut self) {
        self.is_refused = true;
        self.pending.clear();
    }

    /// Whether the client's body has been read to its end.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_ended
    }

    /// Whether the whole body has been handed to the upstream.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_ended && self.pending.is_empty() && !self.is_refused
    }

    /// Body bytes from the client.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Encodes one piece from `buffer`; false when more bytes are needed.
    fn encode(&mut self, buffer: &mut BytesMut) -> Result<bool, FramingError> {
        self.encode_into(buffer, None)
    }

    /// As [`Self::encode`], with the bytes of the body copied out too.
    fn encode_into(
        &mut self,
        buffer: &mut BytesMut,
        copy: Option<&mut Vec<u8>>,
    ) -> Result<bool, FramingError> {
        let from = self.pending.len();
        match self.decoder.advance(buffer)? {
            Piece::NeedMore => return Ok(false),
            Piece::Data(length) => {
                self.received += length as u64;
                encode_data(&mut self.pending, self.framing, &buffer[..length]);
                if let Some(copy) = copy {
                    copy.extend_from_slice(&buffer[..length]);
                }
                buffer.advance(length);
                if self.decoder.is_done() {
                    self.is_ended = true;
                }
            }
            Piece::End => {
                self.is_ended = true;
                encode_end(&mut self.pending, self.framing, &self.decoder);
            }
        }
        if let Some(replay) = &mut self.replay {
            let added = &self.pending[from..];
            if replay.len() + added.len() > REPLAY_MAX {
                self.replay = None;
            } else {
                replay.extend_from_slice(added);
            }
        }
        Ok(true)
    }

    /// Carries on. Never completes well: when the body is sent it keeps watching the client.
    pub fn poll<D, U>(
        &mut self,
        context: &mut Context<'_>,
        downstream: &mut D,
        buffer: &mut BytesMut,
        upstream: &mut U,
    ) -> Poll<UploadError>
    where
        D: AsyncRead + Unpin,
        U: AsyncWrite + Unpin,
    {
        loop {
            if self.is_refused {
                self.pending.clear();
                return Poll::Pending;
            }
            if !self.pending.is_empty() {
                match ready!(Pin::new(&mut *upstream).poll_write(context, &self.pending)) {
                    Ok(written) if written > 0 => {
                        self.pending.advance(written);
                        self.is_flush_due = true;
                    }
                    Ok(_) | Err(_) => self.is_refused = true,
                }
                continue;
            }
            let room = if self.is_ended { READ_AHEAD } else { usize::MAX };
            if !self.is_ended {
                match self.encode(buffer) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(UploadError::Malformed(error)),
                }
            }
            if buffer.len() >= room {
                return Poll::Pending;
            }
            match poll_fill(context, downstream, buffer) {
                Poll::Ready(Ok(length)) if length > 0 => {}
                Poll::Ready(_) => return Poll::Ready(UploadError::Disconnected),
                Poll::Pending => {
                    if self.is_flush_due {
                        match ready!(Pin::new(&mut *upstream).poll_flush(context)) {
                            Ok(()) => self.is_flush_due = false,
                            Err(_) => self.is_refused = true,
                        }
                    }
                    if !self.is_ended && self.poll_silence(context).is_ready() {
                        return Poll::Ready(UploadError::Stalled);
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Carries a response downstream.
#[derive(Debug)]
pub struct Download {
    decoder: BodyDecoder,
    framing: Framing,
    /// Encoded bytes that the downstream has not taken; begins with the head.
    pending: BytesMut,
    is_flush_due: bool,
    is_ended: bool,
    sent: u64,
}

impl Download {
    /// Starts with the encoded head, a body framed `upstream` as it comes and `downstream` as it goes.
    #[must_use]
    pub fn new(head: &[u8], upstream: Framing, downstream: Framing) -> Self {
        let decoder = BodyDecoder::new(upstream);
        let is_ended = decoder.is_done();
        // Room for a small body too, so that head and body are gathered with one allocation.
        let body = match upstream {
            Framing::Empty => 0,
            Framing::Length(length) => usize::try_from(length).unwrap_or(GATHER).min(GATHER),
            Framing::Chunked | Framing::UntilClose => BODY_GUESS,
        };
        let mut pending = BytesMut::with_capacity(head.len() + body);
        pending.extend_from_slice(head);
        if is_ended && downstream == Framing::Chunked {
            encode_end(&mut pending, downstream, &decoder);
        }
        Self { decoder, framing: downstream, pending, is_flush_due: false, is_ended, sent: 0 }
    }

    /// Body bytes handed to the downstream.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Trailers of the response.
    #[must_use]
    pub fn trailers(&self) -> &super::block::HeaderBlock {
        self.decoder.trailers()
    }

    /// Carries on to the end of the response.
    pub fn poll<D, U>(
        &mut self,
        context: &mut Context<'_>,
        upstream: &mut U,
        buffer: &mut BytesMut,
        downstream: &mut D,
    ) -> Poll<Result<(), DownloadError>>
    where
        D: AsyncWrite + Unpin,
        U: AsyncRead + Unpin,
    {
        loop {
            let is_starved = self.gather(buffer).map_err(DownloadError::Malformed)?;
            while !self.pending.is_empty() {
                let written = ready!(Pin::new(&mut *downstream).poll_write(context, &self.pending))
                    .map_err(|_| DownloadError::Disconnected)?;
                if written == 0 {
                    return Poll::Ready(Err(DownloadError::Disconnected));
                }
                self.pending.advance(written);
                self.is_flush_due = true;
            }
            if self.is_ended {
                ready!(Pin::new(&mut *downstream).poll_flush(context))
                    .map_err(|_| DownloadError::Disconnected)?;
                return Poll::Ready(Ok(()));
            }
            if !is_starved {
                continue;
            }
            match poll_fill(context, upstream, buffer) {
                Poll::Ready(Ok(0)) => {
                    if !self.decoder.may_end_with_connection() {
                        return Poll::Ready(Err(DownloadError::Truncated));
                    }
                    self.is_ended = true;
                    encode_end(&mut self.pending, self.framing, &self.decoder);
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(DownloadError::Upstream(error))),
                Poll::Pending => {
                    if self.is_flush_due {
                        ready!(Pin::new(&mut *downstream).poll_flush(context))
                            .map_err(|_| DownloadError::Disconnected)?;
                        self.is_flush_due = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Encodes what the buffer holds, up to a bound; true when only more bytes help.
    fn gather(&mut self, buffer: &mut BytesMut) -> Result<bool, FramingError> {
        while !self.is_ended && self.pending.len() < GATHER {
            match self.decoder.advance(buffer)? {
                Piece::NeedMore => return Ok(true),
                Piece::Data(length) => {
                    self.sent += length as u64;
                    encode_data(&mut self.pending, self.framing, &buffer[..length]);
                    buffer.advance(length);
                    if self.decoder.is_done() {
                        self.is_ended = true;
                        if self.framing == Framing::Chunked {
                            encode_end(&mut self.pending, self.framing, &self.decoder);
                        }
                    }
                }
                Piece::End => {
                    self.is_ended = true;
                    encode_end(&mut self.pending, self.framing, &self.decoder);
                }
            }
        }
        Ok(false)
    }
}

/// Body bytes, framed for the next hop.
fn encode_data(out: &mut BytesMut, framing: Framing, data: &[u8]) {
    if framing == Framing::Chunked {
        let mut start = Vec::with_capacity(20);
        framing::write_chunk_start(&mut start, data.len());
        out.extend_from_slice(&start);
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(data);
    }
}

/// The end of the body, framed for the next hop.
fn encode_end(out: &mut BytesMut, framing: Framing, decoder: &BodyDecoder) {
    if framing == Framing::Chunked {
        let mut end = Vec::with_capacity(8);
        framing::write_last_chunk(&mut end, decoder.trailers());
        out.extend_from_slice(&end);
    }
}

/// Reads once into `buffer`.
pub fn poll_fill<S: AsyncRead + Unpin>(
    context: &mut Context<'_>,
    stream: &mut S,
    buffer: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    use std::cell::RefCell;
    thread_local! {
        /// Read target of all connections of the thread: a connection owns memory only for what arrived.
        static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; GATHER]);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(stream).poll_read(context, &mut read))?;
        buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// Reads the next response head from `upstream` into `head`.
pub fn poll_head<U: AsyncRead + Unpin>(
    context: &mut Context<'_>,
    upstream: &mut U,
    buffer: &mut BytesMut,
    scanner: &mut HeadScanner,
    head: &mut ResponseHead,
) -> Poll<Result<(), DownloadError>> {
    loop {
        if let Some(end) = scanner.scan(buffer).map_err(DownloadError::Head)? {
            head.parse(&buffer[..end]).map_err(DownloadError::Head)?;
            buffer.advance(end);
            scanner.reset();
            return Poll::Ready(Ok(()));
        }
        match ready!(poll_fill(context, upstream, buffer)) {
            Ok(0) => return Poll::Ready(Err(DownloadError::Truncated)),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(DownloadError::Upstream(error))),
        }
    }
}
