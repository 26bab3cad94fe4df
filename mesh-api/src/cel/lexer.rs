//! Text to tokens.

use super::{Literal, SyntaxError};

/// A token and where it starts, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name; keywords too.
    Name(String),
    /// A constant other than `null`, `true` and `false`.
    Constant(Literal),
    /// Digits of an integer, whose sign may stand before them.
    Integer(u64),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

impl Token {
    /// The token in words.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Name(name) => format!("{name:?}"),
            Self::Constant(Literal::Text(_) | Literal::Bytes(_)) => "a string".to_owned(),
            Self::Constant(_) | Self::Integer(_) => "a number".to_owned(),
            Self::Symbol(symbol) => format!("{symbol:?}"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// Symbols, the longer ones first.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "(", ")", "[", "]", "{", "}", ".", ",", "-", "!", "?", ":",
    "+", "*", "/", "%",
];

/// The position in characters from 1.
pub(super) fn column(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.chars().count() + 1)
}

pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, SyntaxError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        let placed = lexer.next()?;
        let is_end = placed.token == Token::End;
        tokens.push(placed);
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn refuse<T>(&self, at: usize, reason: impl Into<String>) -> Result<T, SyntaxError> {
        Err(SyntaxError { reason: reason.into(), column: column(self.text, at) })
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\x0c']);
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn next(&mut self) -> Result<Placed, SyntaxError> {
        self.skip_blank();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Placed { token: Token::End, at }) };
        let token = if let Some(prefix) = string_prefix(rest) {
            self.at += prefix.len();
            self.string(at, prefix)?
        } else if first.is_ascii_digit()
            || first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())
        {
            self.number(at)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
            self.at += end;
            Token::Name(rest[..end].to_owned())
        } else if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            self.at += symbol.len();
            Token::Symbol(symbol)
        } else {
            return self.refuse(at, format!("the character {first:?} has no meaning"));
        };
        Ok(Placed { token, at })
    }

    fn digits(&mut self, is_digit: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !is_digit(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn number(&mut self, at: usize) -> Result<Token, SyntaxError> {
        let is_hexadecimal =
            self.rest().starts_with("0x") && self.rest()[2..].starts_with(|c: char| c.is_ascii_hexdigit());
        let integer = if is_hexadecimal {
            self.at += 2;
            let digits = self.digits(|c| c.is_ascii_hexdigit());
            u64::from_str_radix(digits, 16)
        } else {
            self.digits(|c| c.is_ascii_digit());
            if self.is_fraction() {
                return self.fraction(at);
            }
            self.text[at..self.at].parse()
        };
        let Ok(integer) = integer else { return self.refuse(at, "the integer is too large") };
        let is_unsigned = self.rest().starts_with(['u', 'U']);
        if is_unsigned {
            self.at += 1;
        }
        if self.rest().starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return self.refuse(at, "a name cannot start with a digit");
        }
        Ok(if is_unsigned { Token::Constant(Literal::Uint(integer)) } else { Token::Integer(integer) })
    }

    /// Whether a point with digits or an exponent follows.
    fn is_fraction(&self) -> bool {
        let rest = self.rest();
        let has_point =
            rest.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        has_point || is_exponent(rest)
    }

    fn fraction(&mut self, at: usize) -> Result<Token, SyntaxError> {
        if self.rest().starts_with('.') {
            self.at += 1;
            self.digits(|c| c.is_ascii_digit());
        }
        if is_exponent(self.rest()) {
            self.at += 1;
            if self.rest().starts_with(['+', '-']) {
                self.at += 1;
            }
            self.digits(|c| c.is_ascii_digit());
        }
        match self.text[at..self.at].parse() {
            Ok(number) => Ok(Token::Constant(Literal::Double(number))),
            Err(_) => self.refuse(at, "the number cannot be read"),
        }
    }

    fn string(&mut self, at: usize, prefix: &str) -> Result<Token, SyntaxError> {
        let is_raw = prefix.contains(['r', 'R']);
        let is_bytes = prefix.contains(['b', 'B']);
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| self.rest().starts_with(quote));
        let Some(quote) = quote else { return self.refuse(at, "the string has no quote") };
        self.at += quote.len();
        let mut bytes = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            match rest.chars().next() {
                None => return self.refuse(at, "the string has no end"),
                Some('\n' | '\r') if quote.len() == 1 => return self.refuse(at, "the string has no end"),
                Some('\\') if !is_raw => self.escape(is_bytes, &mut bytes)?,
                Some(character) => {
                    self.at += character.len_utf8();
                    let mut encoded = [0; 4];
                    bytes.extend_from_slice(character.encode_utf8(&mut encoded).as_bytes());
                }
            }
        }
        if is_bytes {
            return Ok(Token::Constant(Literal::Bytes(bytes)));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Token::Constant(Literal::Text(text))),
            Err(_) => self.refuse(at, "the string is not UTF-8"),
        }
    }

    /// One escape; of bytes it states a byte, of a string a character.
    fn escape(&mut self, is_bytes: bool, bytes: &mut Vec<u8>) -> Result<(), SyntaxError> {
        let at = self.at;
        let rest = &self.rest()[1..];
        let kind = rest.chars().next().unwrap_or_default();
        let plain = match kind {
            'a' => Some(0x07),
            'b' => Some(0x08),
            'f' => Some(0x0c),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(0x0b),
            '\\' => Some(b'\\'),
            '?' => Some(b'?'),
            '"' => Some(b'"'),
            '\'' => Some(b'\''),
            '`' => Some(b'`'),
            _ => None,
        };
        if let Some(byte) = plain {
            self.at += 2;
            bytes.push(byte);
            return Ok(());
        }
        let (skip, length, radix) = match kind {
            'x' | 'X' => (2, 2, 16),
            'u' if !is_bytes => (2, 4, 16),
            'U' if !is_bytes => (2, 8, 16),
            '0'..='3' => (1, 3, 8),
            _ => return self.refuse(at, "the escape has no meaning"),
        };
        let digits = self.text.get(at + skip..at + skip + length);
        let code = digits
            .filter(|digits| digits.chars().all(|c| c.is_digit(radix)))
            .and_then(|digits| u32::from_str_radix(digits, radix).ok());
        let Some(code) = code else { return self.refuse(at, "the escape is cut short") };
        self.at = at + skip + length;
        if is_bytes {
            bytes.push(u8::try_from(code).unwrap_or_default());
            return Ok(());
        }
        let Some(character) = char::from_u32(code) else {
            return self.refuse(at, "the escape names no character");
        };
        let mut encoded = [0; 4];
        bytes.extend_from_slice(character.encode_utf8(&mut encoded).as_bytes());
        Ok(())
    }
}

fn is_exponent(rest: &str) -> bool {
    rest.strip_prefix(['e', 'E']).is_some_and(|rest| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        digits.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// What stands before the quote of a string, if a string starts here.
fn string_prefix(rest: &str) -> Option<&str> {
    let length = ["", "r", "R", "b", "B", "br", "bR", "Br", "BR"]
        .into_iter()
        .find(|prefix| rest.strip_prefix(prefix).is_some_and(|after| after.starts_with(['"', '\''])))?
        .len();
    Some(&rest[..length])
}
