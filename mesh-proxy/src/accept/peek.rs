//! Waits for the first bytes of a connection without taking them.
//!
//! The bytes stay in the socket, so that whoever serves the connection afterwards (a TLS handshake, a codec,
//! the application) gets it untouched. The kernel reports a socket as readable while anything is unread, so
//! when what is there does not decide yet, the next look waits a moment that doubles; that happens only to
//! peers that send their first line in pieces.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::detect::{FirstBytes, look};

/// Bytes looked at. A ClientHello with a hybrid key share and a long ticket fits.
const WINDOW: usize = 4096;
/// First wait between two looks at an incomplete start.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// Longest wait between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What waiting came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// The start is known. [`FirstBytes::NeedMore`] is never given.
    Start(FirstBytes),
    /// The peer said nothing in the time given.
    Silent,
    /// The peer ended its side before it said anything.
    Ended,
}

/// Waits at most `silence` for a first byte, and then at most `completion` for enough to tell.
///
/// A start that is still undecided then is taken for a byte stream.
///
/// # Errors
/// When the socket fails.
pub async fn first_bytes(stream: &TcpStream, silence: Duration, completion: Duration) -> io::Result<Peeked> {
    // The window is made once there is something to see: thousands of connections may be silent.
    let first = async {
        stream.readable().await?;
        let mut window = vec![0; WINDOW];
        let length = stream.peek(&mut window).await?;
        io::Result::Ok((window, length))
    };
    let Ok(first) = tokio::time::timeout(silence, first).await else {
        return Ok(Peeked::Silent);
    };
    let (mut window, mut length) = first?;
    if length == 0 {
        return Ok(Peeked::Ended);
    }
    let deadline = Instant::now() + completion;
    let mut pause = FIRST_PAUSE;
    loop {
        match look(&window[..length]) {
            FirstBytes::NeedMore if length < WINDOW && Instant::now() < deadline => {}
            FirstBytes::NeedMore => return Ok(Peeked::Start(FirstBytes::Other)),
            known => return Ok(Peeked::Start(known)),
        }
        tokio::time::sleep(pause).await;
        let before = length;
        length = stream.peek(&mut window).await?;
        pause = if length > before { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("address");
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.expect("connected"), server.expect("accepted").0)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_start_in_pieces_is_waited_for_and_left_in_the_socket() {
        let (mut client, mut server) = pair().await;
        let write = async {
            for byte in b"GET / HTTP/1.1\r\n" {
                client.write_all(&[*byte]).await.expect("written");
                tokio::task::yield_now().await;
            }
        };
        let (peeked, ()) = tokio::join!(first_bytes(&server, LONG, LONG), write);
        assert_eq!(peeked.expect("peeked"), Peeked::Start(FirstBytes::Http1));
        let mut line = [0; 16];
        server.read_exact(&mut line).await.expect("still there");
        assert_eq!(&line, b"GET / HTTP/1.1\r\n");
    }

    #[tokio::test]
    async fn silence_and_end_are_told_apart() {
        let (client, server) = pair().await;
        let silent = first_bytes(&server, Duration::from_millis(1), LONG).await.expect("peeked");
        assert_eq!(silent, Peeked::Silent);
        drop(client);
        assert_eq!(first_bytes(&server, LONG, LONG).await.expect("peeked"), Peeked::Ended);
    }
}
