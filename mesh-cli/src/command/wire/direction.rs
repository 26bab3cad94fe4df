//! One direction of a connection: is what flows TLS? (pure)
//!
//! TLS is a sequence of records, each with a header of five bytes that says how long it is (RFC 8446,
//! section 5.1). From the start of a connection every header must stand where the one before says. A
//! connection that was open before is joined at the first place where two headers in a row agree, or where a
//! record ends exactly with a packet. What is joined and then breaks the rule is not TLS; neither is what
//! shows no header within more bytes than a record can have.

/// Length of a record's header.
const HEADER_BYTES: usize = 5;
/// Longest record body (RFC 5246, section 6.2.3; TLS 1.3 allows less).
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
/// Bytes in a row without a header that prove that there are no records.
const SEARCHED_BYTES_MAX: usize = 2 * (RECORD_BYTES_MAX + HEADER_BYTES);
/// Packets in a row that begin with no header and hold none. Writers of records send each from its header
/// on, so that only the middle of a long one looks like this, and then [`SEARCHED_BYTES_MAX`] decides.
const SEARCHED_PACKETS_MAX: usize = 16;
/// Fewest bytes of which it is judged whether they are text.
const TEXT_BYTES_MIN: usize = 8;

/// What is known of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too little was seen.
    Open,
    /// Records, one after the other.
    Tls,
    /// Something else.
    Plaintext,
}

/// Follows one direction.
#[derive(Debug, Clone)]
pub(super) struct Direction {
    /// New payload bytes.
    pub(super) bytes: u64,
    pub(super) verdict: Verdict,
    /// Number of the next byte of the stream.
    next: Option<u32>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    /// A header stands after so many bytes; so many headers in a row were good, and the first was where a
    /// connection begins.
    Known { skip: usize, head: Vec<u8>, good: usize },
    /// The connection was open before, and no header was found in so many bytes and packets.
    Searching { bytes: usize, packets: usize },
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            bytes: 0,
            verdict: Verdict::Open,
            next: None,
            place: Place::Searching { bytes: 0, packets: 0 },
        }
    }
}

impl Direction {
    /// The connection begins: the first byte of the stream has this number.
    pub(super) fn open(&mut self, first: u32) {
        self.next = Some(first);
        self.place = Place::Known { skip: 0, head: Vec::new(), good: 0 };
        // What was once readable stays said, also when the ports are used again.
        if self.verdict == Verdict::Tls {
            self.verdict = Verdict::Open;
        }
    }

    /// Takes payload in. What was seen before (a packet passes several interfaces, and may be sent again) is
    /// passed over.
    pub(super) fn take(&mut self, sequence: u32, payload: &[u8]) {
        let mut payload = payload;
        if let Some(next) = self.next {
            let ahead = sequence.wrapping_sub(next);
            if ahead > u32::MAX / 2 {
                let seen = usize::try_from(next.wrapping_sub(sequence)).unwrap_or(usize::MAX);
                match payload.get(seen..) {
                    Some(rest) => payload = rest,
                    None => return,
                }
            } else if ahead > 0 {
                // Something was missed.
                self.place = Place::Searching { bytes: 0, packets: 0 };
            }
        }
        if payload.is_empty() {
            return;
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let start = match self.next {
            Some(next) if sequence.wrapping_sub(next) > u32::MAX / 2 => next,
            Some(_) | None => sequence,
        };
        self.next = Some(start.wrapping_add(length));
        self.bytes += u64::from(length);
        self.judge(payload);
    }

    fn judge(&mut self, payload: &[u8]) {
        match &mut self.place {
            Place::Known { skip, head, good } => match follow(payload, skip, head, good) {
                Follow::Holds if *good > 0 => {
                    if self.verdict == Verdict::Open {
                        self.verdict = Verdict::Tls;
                    }
                }
                Follow::Holds => {}
                Follow::Breaks => self.verdict = Verdict::Plaintext,
            },
            Place::Searching { bytes, packets } => {
                if let Some((skip, head, good)) = join(payload) {
                    self.place = Place::Known { skip, head, good };
                    if self.verdict == Verdict::Open {
                        self.verdict = Verdict::Tls;
                    }
                    return;
                }
                *bytes += payload.len();
                *packets += 1;
                let is_proven = *bytes > SEARCHED_BYTES_MAX
                    || (*packets > SEARCHED_PACKETS_MAX && *bytes < RECORD_BYTES_MAX);
                if is_text(payload) || is_proven {
                    self.verdict = Verdict::Plaintext;
                }
            }
        }
    }
}

enum Follow {
    Holds,
    Breaks,
}

/// Goes from header to header. `skip` bytes lie before the next one, of which `head` was seen already.
fn follow(payload: &[u8], skip: &mut usize, head: &mut Vec<u8>, good: &mut usize) -> Follow {
    let mut rest = payload;
    loop {
        if *skip >= rest.len() {
            *skip -= rest.len();
            return Follow::Holds;
        }
        rest = &rest[*skip..];
        *skip = 0;
        let missing = (HEADER_BYTES - head.len()).min(rest.len());
        head.extend_from_slice(&rest[..missing]);
        rest = &rest[missing..];
        if !could_be_header(head) {
            return Follow::Breaks;
        }
        if let Some(length) = record_bytes(head) {
            head.clear();
            *skip = length;
            *good += 1;
        }
        if rest.is_empty() {
            return Follow::Holds;
        }
    }
}

/// Looks for records in the middle of a stream: what the state is behind this payload if it holds some.
fn join(payload: &[u8]) -> Option<(usize, Vec<u8>, usize)> {
    for at in 0..payload.len().saturating_sub(HEADER_BYTES - 1) {
        let Some(length) = record_bytes(&payload[at..at + HEADER_BYTES]) else { continue };
        let end = at + HEADER_BYTES + length;
        // The record ends with the packet that begins with it, or another header follows it.
        let is_whole = at == 0 && end == payload.len();
        let is_followed =
            payload.get(end..end + HEADER_BYTES).is_some_and(|next| record_bytes(next).is_some());
        if !is_whole && !is_followed {
            continue;
        }
        let (mut skip, mut head, mut good) = (0, Vec::new(), 0);
        if let Follow::Holds = follow(&payload[at..], &mut skip, &mut head, &mut good) {
            return Some((skip, head, good));
        }
    }
    None
}

/// Length of a record's body, if these five bytes are a header.
fn record_bytes(header: &[u8]) -> Option<usize> {
    let [kind, major, minor, high, low] = *header else { return None };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_header =
        (20..=24).contains(&kind) && major == 3 && minor <= 4 && (1..=RECORD_BYTES_MAX).contains(&length);
    is_header.then_some(length)
}

/// Whether a header can begin like this.
fn could_be_header(head: &[u8]) -> bool {
    match head {
        [] => true,
        [kind] => (20..=24).contains(kind),
        [kind, major] => (20..=24).contains(kind) && *major == 3,
        [kind, major, minor, ..] if head.len() < HEADER_BYTES => {
            (20..=24).contains(kind) && *major == 3 && *minor <= 4
        }
        whole => record_bytes(whole).is_some(),
    }
}

/// Whether it reads as text, which encrypted bytes do not: of them two in five are printable.
fn is_text(payload: &[u8]) -> bool {
    let sample = &payload[..payload.len().min(256)];
    let printable = |byte: &&u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    sample.len() >= TEXT_BYTES_MIN && sample.iter().filter(printable).count() * 20 >= sample.len() * 19
}

#[cfg(test)]
mod tests;
