//! The header lines of one message, held as one run of bytes and the places of the lines in it.
//!
//! A connection keeps one block for requests and one for responses and refills them, so that a message in
//! the steady state allocates nothing. Order, case and repetition of the lines are kept as they came. A line
//! that is removed is gone for every reader: policy judges the block that is forwarded and nothing else.

use mesh_policy::authorize::HeaderValues;

/// Header lines in order.
#[derive(Debug, Default)]
pub struct HeaderBlock {
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, Copy)]
struct Line {
    name: Span,
    value: Span,
}

/// A range of the block's bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

impl HeaderBlock {
    /// Empties the block and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }

    /// Number of lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a line at the end. What is added here must already be free of line breaks; heads that were parsed
    /// are, and so is everything that the proxy writes itself. A value that holds one anyway is cut there.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let clean = value.iter().position(|byte| matches!(byte, b'\r' | b'\n' | 0)).unwrap_or(value.len());
        let name = self.store(name);
        let value = self.store(&value[..clean]);
        self.lines.push(Line { name, value });
    }

    /// Replaces every line of that name by one.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.push(name.as_bytes(), value);
    }

    /// Removes every line of that name.
    pub fn remove(&mut self, name: &str) {
        let bytes = &self.bytes;
        self.lines.retain(|line| !line.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
    }

    /// Removes every line for whose name and value `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let bytes = &self.bytes;
        self.lines.retain(|line| keep(line.name.of(bytes), line.value.of(bytes)));
    }

    /// Name and value of every line, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| (line.name.of(&self.bytes), line.value.of(&self.bytes)))
    }

    /// Values of the lines of that name, in order.
    pub fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b [u8]> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Value of the first line of that name.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Value of the first line of that name when it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.first(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Whether a line of that name lists `token` among its comma-separated values, whatever the case.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| tokens(value).any(|item| item.eq_ignore_ascii_case(token.as_bytes())))
    }

    /// Writes the lines as HTTP/1.1 does.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn store(&mut self, text: &[u8]) -> Span {
        // A head is at most a few hundred kilobytes, far below what 32 bits hold; saturating keeps the
        // conversion total and would at worst lose the line.
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(text);
        let end = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        Span { start, end }
    }
}

/// The comma-separated items of a header value, without their surrounding white space, empty ones left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

impl HeaderValues for HeaderBlock {
    fn visit(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) {
        for value in self.values(name) {
            if !each(value) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_case_and_repetition_are_kept() {
        let mut block = HeaderBlock::default();
        for (name, value) in [("X-B", "1"), ("x-a", "2"), ("X-b", "3")] {
            block.push(name.as_bytes(), value.as_bytes());
        }
        let mut out = Vec::new();
        block.write_to(&mut out);
        assert_eq!(out, b"X-B: 1\r\nx-a: 2\r\nX-b: 3\r\n");
        assert_eq!(block.values("x-B").collect::<Vec<_>>(), [b"1", b"3"]);
    }

    #[test]
    fn a_removed_line_is_gone_for_every_reader() {
        let mut block = HeaderBlock::default();
        block.push(b"X-Secret", b"1");
        block.push(b"x-secret", b"2");
        block.remove("X-SECRET");
        assert!(block.is_empty());
        let mut seen = 0;
        block.visit("x-secret", &mut |_| {
            seen += 1;
            true
        });
        assert_eq!(seen, 0);
    }

    #[test]
    fn a_value_cannot_bring_a_line_of_its_own() {
        let mut block = HeaderBlock::default();
        block.push(b"x-reason", b"fine\r\nx-admin: 1");
        let mut out = Vec::new();
        block.write_to(&mut out);
        assert_eq!(out, b"x-reason: fine\r\n");
    }
}
