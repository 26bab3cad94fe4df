//! One direction of an exchange: data and trailers, taken from one stream as the other has room for them.
//!
//! What was read is not given back to the sender's window before the other side has taken it, so a slow
//! reader slows its writer and nobody else, and a direction never holds more than one window.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::forward::http1::flow::REPLAY_MAX;

/// Why a direction ended early.
#[derive(Debug)]
pub enum PipeError {
    /// The side that sends ended or broke its stream.
    Source(h2::Error),
    /// The side that receives takes no more.
    Sink,
}

/// How the source ended.
#[derive(Debug)]
enum End {
    Data,
    Trailers(HeaderMap),
}

/// One direction of an exchange.
#[derive(Debug)]
pub struct Pipe {
    source: RecvStream,
    /// Data that the sink has not taken.
    pending: Bytes,
    /// How many bytes of it the source still waits for.
    owed: usize,
    end: Option<End>,
    /// The head said that nothing follows it.
    is_empty: bool,
    is_sent: bool,
    is_refused: bool,
    /// Everything read so far, while it is small enough; `None` when it cannot be sent again.
    replay: Option<Vec<Bytes>>,
    replayed: usize,
    moved: u64,
}

impl Pipe {
    /// A direction whose data can be sent once.
    #[must_use]
    pub fn once(source: RecvStream) -> Self {
        let is_empty = source.is_end_stream();
        Self {
            source,
            pending: Bytes::new(),
            owed: 0,
            end: is_empty.then_some(End::Data),
            is_empty,
            is_sent: false,
            is_refused: false,
            replay: None,
            replayed: 0,
            moved: 0,
        }
    }

    /// A direction whose data can be sent again, as long as it is small.
    #[must_use]
    pub fn replayable(source: RecvStream) -> Self {
        Self { replay: Some(Vec::new()), ..Self::once(source) }
    }

    /// Whether the head said that nothing follows it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Bytes of data read so far.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }

    /// Trailers, once they have been read.
    #[must_use]
    pub fn trailers(&self) -> Option<&HeaderMap> {
        match &self.end {
            Some(End::Trailers(trailers)) => Some(trailers),
            Some(End::Data) | None => None,
        }
    }

    /// Whether everything sent so far could be sent again.
    #[must_use]
    pub fn can_restart(&self) -> bool {
        self.replay.is_some()
    }

    /// Starts over for another sink.
    pub fn restart(&mut self) {
        self.settle(self.owed);
        self.pending = Bytes::new();
        self.replayed = 0;
        self.is_sent = false;
        self.is_refused = false;
    }

    /// No other sink will come: what was kept for it is let go.
    pub fn commit(&mut self) {
        if self.replayed == self.replay.as_ref().map_or(0, Vec::len) {
            self.replay = None;
            self.replayed = 0;
        }
    }

    /// Reads the body until it ends or more than `limit` bytes of it have come, keeps it for forwarding and
    /// copies it into `held`; says whether it has ended. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the sender ends or breaks its stream.
    pub async fn hold(&mut self, limit: usize, held: &mut Vec<u8>) -> Result<bool, h2::Error> {
        while self.end.is_none() && held.len() <= limit {
            match poll_fn(|context| self.source.poll_data(context)).await {
                Some(data) => {
                    let data = data?;
                    self.moved += data.len() as u64;
                    held.extend_from_slice(&data);
                    // What is held is bounded by `limit`, and its sender must be able to go on to there.
                    self.owed = data.len();
                    self.settle(data.len());
                    if !data.is_empty() {
                        self.replay.get_or_insert_default().push(data);
                    }
                    if self.source.is_end_stream() {
                        self.end = Some(End::Data);
                    }
                }
                None => {
                    let trailers = poll_fn(|context| self.source.poll_trailers(context)).await?;
                    self.end = Some(trailers.map_or(End::Data, End::Trailers));
                }
            }
        }
        // It is sent from what is kept, as after a restart.
        self.replayed = 0;
        Ok(self.end.is_some())
    }

    /// Carries on to the end of this direction. A sink that takes no more is not an error of the source: the
    /// other direction may still come to its end.
    pub fn poll(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), PipeError>> {
        if self.is_empty || self.is_sent || self.is_refused {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(self.poll_to_end(context, sink));
        if matches!(result, Err(PipeError::Sink)) {
            self.is_refused = true;
        }
        Poll::Ready(result)
    }

    fn poll_to_end(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), PipeError>> {
        while !self.is_sent {
            if !self.pending.is_empty() {
                ready!(self.poll_push(context, sink))?;
                continue;
            }
            if let Some(kept) = self.replay.as_ref().and_then(|kept| kept.get(self.replayed)) {
                self.pending = kept.clone();
                self.replayed += 1;
                sink.reserve_capacity(self.pending.len());
                continue;
            }
            match &self.end {
                None => ready!(self.poll_pull(context, sink))?,
                Some(End::Data) => {
                    sink.send_data(Bytes::new(), true).map_err(|_| PipeError::Sink)?;
                    self.is_sent = true;
                }
                Some(End::Trailers(trailers)) => {
                    sink.send_trailers(trailers.clone()).map_err(|_| PipeError::Sink)?;
                    self.is_sent = true;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the source.
    fn poll_pull(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), PipeError>> {
        match ready!(self.source.poll_data(context)) {
            Some(Ok(data)) => {
                self.moved += data.len() as u64;
                self.owed = data.len();
                self.keep(&data);
                sink.reserve_capacity(data.len());
                self.pending = data;
                if self.source.is_end_stream() {
                    self.end = Some(End::Data);
                }
            }
            Some(Err(error)) => return Poll::Ready(Err(PipeError::Source(error))),
            None => {
                let trailers = ready!(self.source.poll_trailers(context)).map_err(PipeError::Source)?;
                self.end = Some(trailers.map_or(End::Data, End::Trailers));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Hands on as much as the sink has room for.
    fn poll_push(
        &mut self,
        context: &mut Context<'_>,
        sink: &mut SendStream<Bytes>,
    ) -> Poll<Result<(), PipeError>> {
        let mut room = sink.capacity();
        if room == 0 {
            room = match ready!(sink.poll_capacity(context)) {
                Some(Ok(room)) => room,
                Some(Err(_)) | None => return Poll::Ready(Err(PipeError::Sink)),
            };
        }
        let part = self.pending.split_to(room.min(self.pending.len()));
        let is_last = self.pending.is_empty()
            && matches!(self.end, Some(End::Data))
            && self.replay.as_ref().is_none_or(|kept| kept.len() == self.replayed);
        let length = part.len();
        sink.send_data(part, is_last).map_err(|_| PipeError::Sink)?;
        self.is_sent = is_last;
        self.settle(length);
        Poll::Ready(Ok(()))
    }

    /// Gives the source room for what the sink has taken.
    fn settle(&mut self, length: usize) {
        let length = length.min(self.owed);
        self.owed -= length;
        if length > 0 && self.source.flow_control().release_capacity(length).is_err() {
            tracing::debug!("a stream's window was given back already");
        }
    }

    fn keep(&mut self, data: &Bytes) {
        let Some(kept) = &mut self.replay else { return };
        if self.moved > REPLAY_MAX as u64 {
            self.replay = None;
            self.replayed = 0;
        } else if !data.is_empty() {
            kept.push(data.clone());
            self.replayed = kept.len();
        }
    }
}
