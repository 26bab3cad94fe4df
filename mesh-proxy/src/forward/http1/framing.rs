//! Where a message's body ends (RFC 9112 section 6), and the decoder that finds out.
//!
//! Two parties that disagree on the end of a body are how requests are smuggled, so only what can be read in
//! one way is taken: one Content-Length of plain digits, or one `Transfer-Encoding: chunked`, never both.
//! Chunks are decoded and written anew, which leaves their extensions behind.

use bytes::{Buf, BytesMut};

use super::block::HeaderBlock;

/// Longest line of a chunk's size with its extensions. Extensions are legal and unused; the bound keeps them
/// from being a way to send for ever without sending a body.
const CHUNK_LINE_MAX: usize = 256;
/// Longest trailer section.
const TRAILERS_MAX: usize = 8 * 1024;
/// Most trailer lines.
const TRAILER_LINES_MAX: usize = 32;

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    Empty,
    /// This many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Up to the end of the connection; responses only.
    UntilClose,
}

/// Why the framing of a message cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Content-Length and Transfer-Encoding together.
    #[error("content-length beside transfer-encoding")]
    LengthAndCoding,
    /// More than one Content-Length line, or a list of values.
    #[error("more than one content-length")]
    RepeatedLength,
    /// A Content-Length that is not a plain decimal number.
    #[error("content-length is not a number")]
    InvalidLength,
    /// A Transfer-Encoding that is not exactly `chunked`.
    #[error("transfer-encoding is not chunked")]
    UnknownCoding,
    /// A Transfer-Encoding in an HTTP/1.0 message.
    #[error("transfer-encoding in an HTTP/1.0 message")]
    CodingInOldVersion,
    /// A chunk's size line is broken.
    #[error("invalid chunk size")]
    InvalidChunkSize,
    /// A chunk's size line with its extensions is too long.
    #[error("chunk extension is too long")]
    ChunkLineTooLong,
    /// A chunk does not end with a line break.
    #[error("chunk does not end with a line break")]
    ChunkNotTerminated,
    /// The trailer section is broken.
    #[error("invalid trailer")]
    InvalidTrailer,
    /// The trailer section is too large.
    #[error("trailers are too large")]
    TrailersTooLarge,
}

impl FramingError {
    /// The word for `response_code_details`.
    #[must_use]
    pub fn details(self) -> &'static str {
        match self {
            Self::LengthAndCoding => "http1.content_length_and_chunked_not_allowed",
            Self::RepeatedLength => "http1.multiple_content_length",
            Self::InvalidLength => "http1.invalid_content_length",
            Self::UnknownCoding | Self::CodingInOldVersion => "http1.invalid_transfer_encoding",
            Self::InvalidChunkSize => "http1.invalid_chunk_size",
            Self::ChunkLineTooLong => "http1.chunk_extension_too_long",
            Self::ChunkNotTerminated => "http1.chunk_not_terminated",
            Self::InvalidTrailer => "http1.invalid_trailer",
            Self::TrailersTooLarge => "http1.trailers_too_large",
        }
    }
}

/// Which minor version a message states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// The framing that the headers state: `None` when they state none.
///
/// # Errors
/// When they state more than one, or one that can be read in more than one way.
pub fn stated(headers: &HeaderBlock, version: Version) -> Result<Option<Framing>, FramingError> {
    let mut lengths = headers.values("content-length");
    let mut codings = headers.values("transfer-encoding");
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(FramingError::LengthAndCoding),
        (Some(value), None) => {
            if lengths.next().is_some() || value.contains(&b',') {
                return Err(FramingError::RepeatedLength);
            }
            decimal(value).map(|length| Some(Framing::Length(length))).ok_or(FramingError::InvalidLength)
        }
        (None, Some(value)) => {
            if version == Version::Http10 {
                Err(FramingError::CodingInOldVersion)
            } else if codings.next().is_some() || !value.eq_ignore_ascii_case(b"chunked") {
                Err(FramingError::UnknownCoding)
            } else {
                Ok(Some(Framing::Chunked))
            }
        }
    }
}

/// A number of digits only, below 2^63 so that no peer reads it as negative.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text
        .iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    i64::try_from(number).ok().map(|_| number)
}

/// Finds the end of one body in the bytes as they arrive.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    trailers: HeaderBlock,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data { left: u64 },
    ChunkLine,
    ChunkData { left: u64 },
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// What the front of the buffer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of the body; the caller takes them from the buffer.
    Data(usize),
    /// Nothing that can be used; more bytes are needed.
    NeedMore,
    /// The body is complete.
    End,
}

impl BodyDecoder {
    /// A decoder at the start of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(left) => State::Data { left },
            Framing::Chunked => State::ChunkLine,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: HeaderBlock::default(), trailer_bytes: 0 }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Trailer lines; complete when the body is.
    #[must_use]
    pub fn trailers(&self) -> &HeaderBlock {
        &self.trailers
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn may_end_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done)
    }

    /// Says what the front of `buffer` holds. Framing bytes are taken from it; after [`Piece::Data`] the
    /// caller takes exactly that many bytes before the next call.
    ///
    /// # Errors
    /// When the framing is broken; the decoder is of no use afterwards.
    pub fn advance(&mut self, buffer: &mut BytesMut) -> Result<Piece, FramingError> {
        loop {
            let available = buffer.len();
            match &mut self.state {
                State::Done => return Ok(Piece::End),
                _ if available == 0 => return Ok(Piece::NeedMore),
                State::UntilClose => return Ok(Piece::Data(available)),
                State::Data { left } => {
                    let taken = take(left, available);
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(Piece::Data(taken));
                }
                State::ChunkData { left } => {
                    let taken = take(left, available);
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Piece::Data(taken));
                }
                State::ChunkEnd => {
                    if !take_line_break(buffer)? {
                        return Ok(Piece::NeedMore);
                    }
                    self.state = State::ChunkLine;
                }
                State::ChunkLine => match take_line(buffer, CHUNK_LINE_MAX)? {
                    None => return Ok(Piece::NeedMore),
                    Some(line) => {
                        let size = chunk_size(&line)?;
                        self.state =
                            if size == 0 { State::Trailers } else { State::ChunkData { left: size } };
                    }
                },
                State::Trailers => match take_line(buffer, TRAILERS_MAX) {
                    Err(FramingError::ChunkLineTooLong) => return Err(FramingError::TrailersTooLarge),
                    Err(_) => return Err(FramingError::InvalidTrailer),
                    Ok(None) => return Ok(Piece::NeedMore),
                    Ok(Some(line)) if line.is_empty() => self.state = State::Done,
                    Ok(Some(line)) => self.take_trailer(&line)?,
                },
            }
        }
    }

    fn take_trailer(&mut self, line: &[u8]) -> Result<(), FramingError> {
        self.trailer_bytes += line.len();
        if self.trailer_bytes > TRAILERS_MAX || self.trailers.len() >= TRAILER_LINES_MAX {
            return Err(FramingError::TrailersTooLarge);
        }
        let colon = line.iter().position(|&byte| byte == b':').ok_or(FramingError::InvalidTrailer)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|&byte| is_token(byte)) || !value.iter().all(|&b| is_field(b))
        {
            return Err(FramingError::InvalidTrailer);
        }
        // RFC 9110 section 6.5.1: what delimits, routes or authenticates a message has no business here, and
        // a recipient that merges trailers into headers must not be handed a second opinion of them.
        const FORBIDDEN: [&str; 9] = [
            "transfer-encoding",
            "content-length",
            "host",
            "connection",
            "te",
            "trailer",
            "upgrade",
            "authorization",
            "x-forwarded-client-cert",
        ];
        if !FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden.as_bytes())) {
            self.trailers.push(name, value);
        }
        Ok(())
    }
}

fn take(left: &mut u64, available: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left -= taken as u64;
    taken
}

/// Takes one line without its line break from the front, when it is there. A bare LF or CR is refused.
fn take_line(buffer: &mut BytesMut, longest: usize) -> Result<Option<BytesMut>, FramingError> {
    let window = &buffer[..buffer.len().min(longest + 2)];
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        if buffer.len() > longest + 1 {
            return Err(FramingError::ChunkLineTooLong);
        }
        return Ok(None);
    };
    if end == 0 || window[end - 1] != b'\r' || window[..end - 1].contains(&b'\r') {
        return Err(FramingError::InvalidChunkSize);
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

/// Takes the line break behind a chunk's data; false when it is not there yet.
fn take_line_break(buffer: &mut BytesMut) -> Result<bool, FramingError> {
    match buffer.as_ref() {
        [b'\r', b'\n', ..] => {
            buffer.advance(2);
            Ok(true)
        }
        [b'\r'] => Ok(false),
        _ => Err(FramingError::ChunkNotTerminated),
    }
}

/// The size of a chunk: hex digits alone, or with an extension behind a semicolon. White space is legal only
/// inside an extension here: "bad white space" before the semicolon is read differently by different servers.
fn chunk_size(line: &[u8]) -> Result<u64, FramingError> {
    let (digits, extension) = match line.iter().position(|&byte| byte == b';') {
        Some(at) => line.split_at(at),
        None => (line, &[][..]),
    };
    if digits.is_empty() || digits.len() > 15 || !extension.iter().all(|&byte| is_field(byte)) {
        return Err(FramingError::InvalidChunkSize);
    }
    digits.iter().try_fold(0_u64, |size, &byte| {
        let digit = char::from(byte).to_digit(16).ok_or(FramingError::InvalidChunkSize)?;
        Ok(size << 4 | u64::from(digit))
    })
}

/// Writes the start of a chunk of `size` bytes.
pub fn write_chunk_start(out: &mut Vec<u8>, size: usize) {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    let mut rest = size;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk and the trailers.
pub fn write_last_chunk(out: &mut Vec<u8>, trailers: &HeaderBlock) {
    out.extend_from_slice(b"0\r\n");
    trailers.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may stand in a field value (RFC 9110 section 5.5): visible, space, tab, or above ASCII.
#[must_use]
pub fn is_field(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests;
