//! Hands a transaction to the kernel and waits for its verdict.
//!
//! No program is needed for it, so an image that holds nothing but the proxy can install the rules. The kernel
//! obeys all messages of a batch or none; it answers each one, and the first refusal is what is told.

use std::io::{self, Read as _};
use std::time::Duration;

use nix::libc::{AF_NETLINK, NETLINK_NETFILTER};
use socket2::{Domain, Protocol, Socket, Type};

use super::message::{Batch, Part};

/// Longest wait for the kernel, which may have to load modules first.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Room for answers that wait, in bytes; each takes some tens of bytes and repeats what was refused.
const RECEIVE_BYTES: usize = 1 << 20;
/// Bytes of the header of a message.
const HEADER_BYTES: usize = 16;
/// Kind of a message that is an answer.
const ANSWER: u16 = 2;

/// Why the kernel did not take a transaction; nothing has changed then.
#[derive(Debug)]
pub(super) enum SendError {
    /// There is no way to the kernel's netfilter.
    Socket(io::Error),
    /// It refused.
    Refused {
        /// Which part of the transaction.
        part: Part,
        /// Why.
        reason: io::Error,
    },
}

/// Hands the transaction over; blocks until the kernel has obeyed or refused.
///
/// # Errors
/// What was refused and why.
pub(super) fn send(batch: &Batch) -> Result<(), SendError> {
    let mut socket = open().map_err(SendError::Socket)?;
    let sent = socket.send(batch.bytes()).map_err(SendError::Socket)?;
    if sent != batch.bytes().len() {
        return Err(SendError::Socket(io::ErrorKind::WriteZero.into()));
    }
    let mut left = batch.acknowledgements();
    let mut buffer = vec![0; RECEIVE_BYTES];
    while left > 0 {
        let length = socket.read(&mut buffer).map_err(SendError::Socket)?;
        for (number, code) in answers(&buffer[..length]) {
            if code != 0 {
                let reason = io::Error::from_raw_os_error(code.saturating_neg());
                return Err(SendError::Refused { part: batch.part(number), reason });
            }
            left = left.saturating_sub(1);
        }
    }
    Ok(())
}

fn open() -> io::Result<Socket> {
    let socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    // The system may allow less, which is enough for rules of the usual number.
    let _kept = socket.set_recv_buffer_size(RECEIVE_BYTES);
    let _kept = socket.set_send_buffer_size(RECEIVE_BYTES);
    Ok(socket)
}

/// Number and code of each answer; a code other than 0 is the negative of an error number. What cannot be read
/// ends the list.
fn answers(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let mut found = Vec::new();
    while let Some(length) = number(bytes, 0).and_then(|length| usize::try_from(length).ok()) {
        if length < HEADER_BYTES || length > bytes.len() {
            break;
        }
        let kind = bytes.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(ANSWER)
            && let (Some(code), Some(of)) = (number(bytes, HEADER_BYTES), number(bytes, HEADER_BYTES + 12))
        {
            found.push((of, code.cast_signed()));
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32, code: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&36_u32.to_ne_bytes());
        bytes.extend_from_slice(&ANSWER.to_ne_bytes());
        bytes.extend_from_slice(&[0; 10]);
        bytes.extend_from_slice(&code.to_ne_bytes());
        // Length, kind and flags of the message that is answered; its number; its sender.
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&number.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    #[test]
    fn each_answer_tells_which_message_it_is_for() {
        let bytes = [answer(3, 0), answer(4, -2)].concat();
        assert_eq!(answers(&bytes), [(3, 0), (4, -2)]);
    }

    #[test]
    fn what_is_cut_or_absurd_ends_the_list() {
        assert_eq!(answers(&[]), []);
        assert_eq!(answers(&[0; 64]), []);
        assert_eq!(answers(&[0xff; 64]), []);
        assert_eq!(answers(&answer(1, 0)[..20]), []);
    }
}
