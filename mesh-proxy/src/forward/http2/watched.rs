//! The byte stream below an HTTP/2 connection, with an eye on its frames.
//!
//! `h2` answers a PING or a SETTINGS frame without counting it. Frames have a length in front, so walking
//! over their heads costs a few instructions each and copies nothing; that is done here as bytes are read,
//! and a peer that sends more control frames than its traffic explains is not read any further. What it has
//! sent in the read at hand still reaches the codec, which is a bounded amount.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{Abuse, Purse};

/// Length of the client's preface (RFC 9113 section 3.4).
const PREFACE: u32 = 24;
/// Length of a frame's head (RFC 9113 section 4.1).
const FRAME_HEAD: usize = 9;
/// Type of the frame that a server begins with.
const SETTINGS: u8 = 0x4;
/// Bytes written that earn one control frame. A PING is answered with 17 bytes, so answers alone never pay
/// for the next.
const BYTES_PER_FRAME: usize = 64;

/// What is known about a connection from watching it.
#[derive(Debug)]
pub struct Watch {
    read: Cell<u64>,
    is_flooded: Cell<bool>,
    is_foreign: Cell<bool>,
    control: RefCell<Purse>,
}

impl Watch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Rc<Self> {
        let control = RefCell::new(Purse::control(Instant::now()));
        Rc::new(Self {
            read: Cell::new(0),
            is_flooded: Cell::new(false),
            is_foreign: Cell::new(false),
            control,
        })
    }

    /// Bytes read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }

    /// Whether a server has answered the preface with something that is not HTTP/2.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.is_foreign.get()
    }

    /// Whether the peer floods the connection, which then is not read any more.
    #[must_use]
    pub fn abuse(&self) -> Option<Abuse> {
        self.is_flooded.get().then_some(Abuse::ControlFrames)
    }
}

/// Walks over frames.
#[derive(Debug)]
struct Walker {
    /// Bytes to skip before the next frame's head.
    skip: u32,
    head: [u8; FRAME_HEAD],
    filled: usize,
}

impl Walker {
    /// Goes on over `bytes`; calls `frame` with the type of each frame whose head is complete.
    fn walk(&mut self, mut bytes: &[u8], mut frame: impl FnMut(u8)) {
        while !bytes.is_empty() {
            let skipped = (self.skip as usize).min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= u32::try_from(skipped).expect("at most the number skipped from");
            if self.skip > 0 || bytes.is_empty() {
                return;
            }
            let wanted = (FRAME_HEAD - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + wanted].copy_from_slice(&bytes[..wanted]);
            self.filled += wanted;
            bytes = &bytes[wanted..];
            if self.filled == FRAME_HEAD {
                self.filled = 0;
                let [high, middle, low, kind, ..] = self.head;
                self.skip = u32::from_be_bytes([0, high, middle, low]);
                frame(kind);
            }
        }
    }
}

/// A stream that is watched, with bytes in front that were already read from it.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    early: BytesMut,
    walker: Walker,
    /// The first frame has not come, of a server: it must be its SETTINGS (RFC 9113 section 3.4).
    awaits_settings: bool,
    watch: Rc<Watch>,
}

impl<S> Watched<S> {
    /// A connection from a client, whose preface comes first; `early` was read from it before.
    #[must_use]
    pub fn from_client(stream: S, early: BytesMut, watch: Rc<Watch>) -> Self {
        let walker = Walker { skip: PREFACE, head: [0; FRAME_HEAD], filled: 0 };
        Self { stream, early, walker, awaits_settings: false, watch }
    }

    /// A connection to a server.
    #[must_use]
    pub fn to_server(stream: S, watch: Rc<Watch>) -> Self {
        let walker = Walker { skip: 0, head: [0; FRAME_HEAD], filled: 0 };
        Self { stream, early: BytesMut::new(), walker, awaits_settings: true, watch }
    }

    fn see(&mut self, bytes: &[u8]) {
        self.watch.read.set(self.watch.read.get() + bytes.len() as u64);
        let control = &mut *self.watch.control.borrow_mut();
        let (is_flooded, is_foreign) = (&self.watch.is_flooded, &self.watch.is_foreign);
        let awaits_settings = &mut self.awaits_settings;
        self.walker.walk(bytes, |kind| {
            if std::mem::take(awaits_settings) && kind != SETTINGS {
                is_foreign.set(true);
            }
            match kind {
                // DATA, HEADERS, PUSH_PROMISE, GOAWAY and CONTINUATION are work, or counted by the codec.
                0x0 | 0x1 | 0x5 | 0x7 | 0x9 => control.earn(2),
                _ => {
                    if !control.pay(Instant::now) {
                        is_flooded.set(true);
                    }
                }
            }
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.is_flooded.get() {
            // Whoever polls the connection looks at the watch next; no more of the flood is let in.
            return Poll::Pending;
        }
        let from = buffer.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        } else {
            let length = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..length]);
            this.early.advance(length);
            if this.early.is_empty() {
                this.early = BytesMut::new();
            }
        }
        this.see(&buffer.filled()[from..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, slices))?;
        this.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

impl<S> Watched<S> {
    fn wrote(&self, bytes: usize) {
        let earned = u32::try_from(bytes / BYTES_PER_FRAME).unwrap_or(u32::MAX);
        self.watch.control.borrow_mut().earn(earned);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 1];
        frame.resize(FRAME_HEAD + usize::from(length), 0xff);
        frame
    }

    #[test]
    fn frames_are_found_however_their_bytes_arrive() {
        let mut bytes = vec![b'P'; PREFACE as usize];
        for (kind, length) in [(4, 6), (1, 200), (0, 0), (6, 8), (3, 4)] {
            bytes.extend(frame(kind, length));
        }
        for size in 1..bytes.len() {
            let mut walker = Walker { skip: PREFACE, head: [0; FRAME_HEAD], filled: 0 };
            let mut kinds = Vec::new();
            for chunk in bytes.chunks(size) {
                walker.walk(chunk, |kind| kinds.push(kind));
            }
            assert_eq!(kinds, [4, 1, 0, 6, 3], "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn a_flood_of_pings_is_not_read_to_its_end() {
        use tokio::io::AsyncReadExt;
        let flood: Vec<u8> = (0..20_000).flat_map(|_| frame(6, 8)).collect();
        let watch = Watch::new();
        let mut watched = Watched::to_server(flood.as_slice(), Rc::clone(&watch));
        let mut sink = vec![0; 4096];
        let mut read = 0;
        while watch.abuse().is_none() {
            read += watched.read(&mut sink).await.expect("read");
        }
        assert!(read < 25_000, "{read}");
        assert_eq!(watch.abuse(), Some(Abuse::ControlFrames));
    }

    #[tokio::test]
    async fn pings_along_with_work_are_no_flood() {
        use tokio::io::AsyncReadExt;
        let traffic: Vec<u8> = (0..20_000).flat_map(|_| [frame(0, 4), frame(6, 8)].concat()).collect();
        let watch = Watch::new();
        let mut watched = Watched::to_server(traffic.as_slice(), Rc::clone(&watch));
        tokio::io::copy(&mut watched.take(u64::MAX), &mut tokio::io::sink()).await.expect("read");
        assert_eq!((watch.abuse(), watch.bytes_read()), (None, traffic.len() as u64));
        watched = Watched::to_server(&[], watch);
        let _ = &mut watched;
    }
}
