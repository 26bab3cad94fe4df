//! Byte streams: copies both ways until both ends are done, or one of them fails, or leave to copy ends.
//!
//! Bytes are read into a buffer that the whole thread shares and written at once, so an idle stream holds no
//! buffer at all; only what the other side did not take is kept, which is also the whole of the backpressure.
//! The end of one direction is handed on as such and leaves the other open. A stream that ends by a reset is
//! ended by a reset on the other side too, because some protocols tell the two apart.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Size of the shared buffer: four TLS records.
const SCRATCH: usize = 64 * 1024;

thread_local! {
    static SCRATCH_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Counts what passes, so that a stream that is cut still knows what it carried.
pub trait Count {
    /// Bytes from the downstream.
    fn received(&mut self, bytes: u64);
    /// Bytes to the downstream.
    fn sent(&mut self, bytes: u64);
}

impl Count for crate::telemetry::TcpRecord {
    fn received(&mut self, bytes: u64) {
        self.bytes_received += bytes;
        self.report_if_due();
    }

    fn sent(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
        self.report_if_due();
    }
}

impl Count for crate::telemetry::HttpRecord {
    fn received(&mut self, bytes: u64) {
        self.bytes_received += bytes;
    }

    fn sent(&mut self, bytes: u64) {
        self.bytes_sent += bytes;
    }
}

/// How a stream ended.
#[derive(Debug)]
pub enum Ended<E> {
    /// Both directions came to their end.
    Complete,
    /// The downstream failed.
    Downstream(io::Error),
    /// The upstream failed.
    Upstream(io::Error),
    /// Leave to copy ended.
    Stopped(E),
}

/// Copies both ways until the end. `early` holds bytes that were already read from the downstream.
///
/// Dropping the future stops copying; what was counted is counted.
pub async fn copy<D, U, C, E>(
    downstream: &mut D,
    upstream: &mut U,
    early: BytesMut,
    count: &mut C,
    stop: impl Future<Output = E>,
) -> Ended<E>
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
    C: Count,
{
    count.received(early.len() as u64);
    let mut to_upstream = Half { rest: early, ..Half::default() };
    let mut to_downstream = Half::default();
    let mut stop = std::pin::pin!(stop);
    std::future::poll_fn(|context| {
        if let Poll::Ready(reason) = stop.as_mut().poll(context) {
            return Poll::Ready(Ended::Stopped(reason));
        }
        let up = to_upstream.poll(context, downstream, upstream, &mut |bytes| count.received(bytes));
        if let Poll::Ready(Err(failure)) = up {
            return Poll::Ready(match failure {
                Failure::Reading(error) => Ended::Downstream(error),
                Failure::Writing(error) => Ended::Upstream(error),
            });
        }
        let down = to_downstream.poll(context, upstream, downstream, &mut |bytes| count.sent(bytes));
        if let Poll::Ready(Err(failure)) = down {
            return Poll::Ready(match failure {
                Failure::Reading(error) => Ended::Upstream(error),
                Failure::Writing(error) => Ended::Downstream(error),
            });
        }
        if up.is_ready() && down.is_ready() { Poll::Ready(Ended::Complete) } else { Poll::Pending }
    })
    .await
}

enum Failure {
    Reading(io::Error),
    Writing(io::Error),
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    /// What the writer did not take yet.
    rest: BytesMut,
    is_flush_due: bool,
    is_read_done: bool,
    is_done: bool,
}

impl Half {
    fn poll<R, W>(
        &mut self,
        context: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        count: &mut dyn FnMut(u64),
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !self.rest.is_empty() {
                ready!(self.poll_write_rest(context, writer)).map_err(Failure::Writing)?;
            }
            if self.is_read_done {
                ready!(Pin::new(&mut *writer).poll_shutdown(context))
                    .or_else(ended_before)
                    .map_err(Failure::Writing)?;
                self.is_done = true;
                return Poll::Ready(Ok(()));
            }
            let step = SCRATCH_BUFFER.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *reader).poll_read(context, &mut buffer)).map_err(Failure::Reading)?;
                let bytes = buffer.filled();
                count(bytes.len() as u64);
                if bytes.is_empty() {
                    self.is_read_done = true;
                } else {
                    self.is_flush_due = true;
                    self.write_or_keep(context, writer, bytes).map_err(Failure::Writing)?;
                }
                Poll::Ready(Ok(()))
            });
            match step {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.is_flush_due {
                        ready!(Pin::new(&mut *writer).poll_flush(context)).map_err(Failure::Writing)?;
                        self.is_flush_due = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes what the writer takes at once and keeps what it does not.
    fn write_or_keep<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
        mut bytes: &[u8],
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut *writer).poll_write(context, bytes) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => bytes = &bytes[written..],
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.rest.extend_from_slice(bytes);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn poll_write_rest<W: AsyncWrite + Unpin>(
        &mut self,
        context: &mut Context<'_>,
        writer: &mut W,
    ) -> Poll<io::Result<()>> {
        self.is_flush_due = true;
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut *writer).poll_write(context, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(written);
        }
        self.rest = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

/// A peer that is gone already needs no shutdown.
fn ended_before(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

/// Whether an error is the peer's reset, which is handed on as one.
#[must_use]
pub fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[derive(Default)]
    struct Counted {
        received: u64,
        sent: u64,
    }

    impl Count for Counted {
        fn received(&mut self, bytes: u64) {
            self.received += bytes;
        }

        fn sent(&mut self, bytes: u64) {
            self.sent += bytes;
        }
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut client, mut downstream) = duplex(64);
        let (mut upstream, mut server) = duplex(64);
        let mut counted = Counted::default();
        let early = BytesMut::from(&b"he"[..]);
        let copying = copy(&mut downstream, &mut upstream, early, &mut counted, std::future::pending::<()>());
        let talk = async {
            client.write_all(b"llo").await.expect("written");
            client.shutdown().await.expect("shut down");
            let mut request = Vec::new();
            server.read_to_end(&mut request).await.expect("read");
            assert_eq!(request, b"hello");
            server.write_all(b"goodbye").await.expect("written after the client's end");
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.expect("read");
            assert_eq!(answer, b"goodbye");
        };
        let (ended, ()) = tokio::join!(copying, talk);
        assert!(matches!(ended, Ended::Complete), "{ended:?}");
        assert_eq!((counted.received, counted.sent), (5, 7));
    }

    #[tokio::test]
    async fn more_than_the_other_side_takes_is_held_back_and_arrives_whole() {
        let (mut client, mut downstream) = duplex(1024);
        let (mut upstream, mut server) = duplex(7);
        let mut counted = Counted::default();
        let copying =
            copy(&mut downstream, &mut upstream, BytesMut::new(), &mut counted, std::future::pending::<()>());
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let talk = async {
            let write = async {
                client.write_all(&sent).await.expect("written");
                client.shutdown().await.expect("shut down");
            };
            let read = async {
                let mut got = Vec::new();
                server.read_to_end(&mut got).await.expect("read");
                server.shutdown().await.expect("shut down");
                got
            };
            tokio::join!(write, read).1
        };
        let (_, got) = tokio::join!(copying, talk);
        assert_eq!(got, sent);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_leave_does() {
        let (_client, mut downstream) = duplex(64);
        let (mut upstream, _server) = duplex(64);
        let stop = tokio::time::sleep(Duration::from_secs(5));
        let ended =
            copy(&mut downstream, &mut upstream, BytesMut::new(), &mut Counted::default(), stop).await;
        assert!(matches!(ended, Ended::Stopped(())), "{ended:?}");
    }
}
