//! Text and actions of a template.

use super::TemplateError;

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Text between actions, without what `{{-` and `-}}` took away.
    Text(String),
    /// An action.
    Action(Vec<Token>, usize),
}

/// A word of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `if`, `toYaml`.
    Word(String),
    /// `.`, or `.a.b` with the names in it.
    Field(Vec<String>),
    /// `$`, or `$x.a`: name and fields.
    Variable(String, Vec<String>),
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// `(`.
    Open,
    /// `)`, with the fields that follow it.
    Close(Vec<String>),
    /// `|`.
    Pipe,
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
    /// `,`.
    Comma,
}

/// The pieces of a template.
pub(super) fn scan(file: &str, text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let (mut rest, mut line, mut trims) = (text, 1, false);
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let trims_before = action.is_some_and(|action| action.starts_with("- ") || action.starts_with("-\n"));
        let mut kept = before;
        if trims {
            kept = kept.trim_start();
        }
        if trims_before {
            kept = kept.trim_end();
        }
        if !kept.is_empty() {
            pieces.push(Piece::Text(kept.to_owned()));
        }
        line += before.matches('\n').count();
        let Some(action) = action else { return Ok(pieces) };
        let error =
            |message: &str| TemplateError { file: file.to_owned(), line, message: message.to_owned() };
        let body = if trims_before { &action[1..] } else { action };
        let length = length(body).ok_or_else(|| error("an action without }}"))?;
        let inside = &body[..length];
        rest = &body[length + 2..];
        trims = inside.ends_with(" -") || inside.ends_with("\n-");
        let inside = if trims { &inside[..inside.len() - 1] } else { inside }.trim();
        if !inside.starts_with("/*") {
            pieces.push(Piece::Action(tokens(inside).map_err(|message| error(&message))?, line));
        } else if !inside.ends_with("*/") {
            return Err(error("a comment stands alone in its action"));
        }
        line += body[..length].matches('\n').count();
    }
}

/// Where `}}` is that is in no text and no comment.
fn length(body: &str) -> Option<usize> {
    if body.trim_start().starts_with("/*") {
        let comment = body.find("*/")?;
        return body[comment..].find("}}").map(|end| comment + end);
    }
    let (mut quote, mut escaped) = (None, false);
    for (at, character) in body.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if character == '\\' => escaped = true,
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if character == '"' || character == '`' => quote = Some(character),
            None if body[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn tokens(mut text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    while let Some(first) = text.chars().next() {
        let (token, length) = match first {
            ' ' | '\n' | '\t' => {
                text = &text[1..];
                continue;
            }
            '|' => (Token::Pipe, 1),
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => {
                let (fields, length) = fields(&text[1..]);
                (Token::Close(fields), 1 + length)
            }
            ':' if text.starts_with(":=") => (Token::Declare, 2),
            '=' => (Token::Assign, 1),
            '"' => quoted(text)?,
            '`' => {
                let end = text[1..].find('`').ok_or("a text without its closing backtick")?;
                (Token::Text(text[1..=end].to_owned()), end + 2)
            }
            '.' => {
                let (fields, length) = fields(text);
                (Token::Field(fields), length.max(1))
            }
            '$' => {
                let name = name(&text[1..]);
                let (fields, length) = fields(&text[1 + name.len()..]);
                (Token::Variable(name.to_owned(), fields), 1 + name.len() + length)
            }
            '-' | '0'..='9' => {
                let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count() + 1;
                let number =
                    text[..digits].parse().map_err(|_| format!("{} is no number", &text[..digits]))?;
                (Token::Number(number), digits)
            }
            _ if first.is_alphabetic() => {
                let name = name(text);
                (Token::Word(name.to_owned()), name.len())
            }
            _ => return Err(format!("`{first}` is not understood here")),
        };
        tokens.push(token);
        text = &text[length..];
    }
    Ok(tokens)
}

fn name(text: &str) -> &str {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_');
    &text[..end.unwrap_or(text.len())]
}

/// `.a.b` at the beginning of a text, and its length.
fn fields(text: &str) -> (Vec<String>, usize) {
    let (mut fields, mut length) = (Vec::new(), 0);
    while let Some(rest) = text[length..].strip_prefix('.') {
        let name = name(rest);
        if name.is_empty() {
            break;
        }
        length += 1 + name.len();
        fields.push(name.to_owned());
    }
    (fields, length)
}

fn quoted(text: &str) -> Result<(Token, usize), String> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Token::Text(value), at + 1)),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, plain @ ('"' | '\\'))) => value.push(plain),
                _ => return Err("an escape that is not understood".to_owned()),
            },
            _ => value.push(character),
        }
    }
    Err("a text without its closing quote".to_owned())
}
