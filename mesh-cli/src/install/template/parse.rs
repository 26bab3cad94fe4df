//! Templates as trees.

use std::collections::BTreeMap;
use std::iter::{Cloned, Peekable};
use std::slice::Iter;
use std::vec::IntoIter;

use serde_json::Value;

use super::TemplateError;
use super::scan::{self, Piece, Token};

/// A part of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text as it stands.
    Text(String),
    /// What a pipeline prints.
    Output(Pipeline),
    /// `$x := …` or `$x = …`.
    Assign { name: String, declares: bool, value: Pipeline },
    /// `if … else if … else`.
    If { arms: Vec<(Pipeline, Vec<Self>)>, otherwise: Vec<Self> },
    /// `with`.
    With { value: Pipeline, body: Vec<Self>, otherwise: Vec<Self> },
    /// `range`.
    Range { names: Vec<String>, value: Pipeline, body: Vec<Self>, otherwise: Vec<Self> },
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Commands.
    pub(super) commands: Vec<Command>,
    /// Where it stands.
    pub(super) line: usize,
}

/// A function with arguments, or one value.
#[derive(Debug)]
pub(super) enum Command {
    /// A call.
    Call(String, Vec<Operand>),
    /// A value.
    Value(Operand),
}

/// What a command works on.
#[derive(Debug)]
pub(super) enum Operand {
    /// A value that stands there.
    Literal(Value),
    /// A field of `.`.
    Field(Vec<String>),
    /// A field of a variable.
    Variable(String, Vec<String>),
    /// A field of what is in parentheses.
    Group(Pipeline, Vec<String>),
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// What it prints.
    pub(super) nodes: Vec<Node>,
    /// What it defines for others.
    pub(super) defined: BTreeMap<String, Vec<Node>>,
}

/// What ended a list of nodes.
enum Ending {
    File,
    End,
    Else(Vec<Token>, usize),
}

struct Parser<'a> {
    file: &'a str,
    pieces: IntoIter<Piece>,
    defined: BTreeMap<String, Vec<Node>>,
    line: usize,
}

pub(super) fn parse(file: &str, text: &str) -> Result<Parsed, TemplateError> {
    let pieces = scan::scan(file, text)?.into_iter();
    let mut parser = Parser { file, pieces, defined: BTreeMap::new(), line: 1 };
    match parser.nodes()? {
        (nodes, Ending::File) => Ok(Parsed { nodes, defined: parser.defined }),
        (_, Ending::End | Ending::Else(..)) => Err(parser.error("end or else without its beginning")),
    }
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> TemplateError {
        TemplateError { file: self.file.to_owned(), line: self.line, message: message.into() }
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Ending), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let (tokens, line) = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(tokens, line) => (tokens, line),
            };
            self.line = line;
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match keyword {
                "end" => return Ok((nodes, Ending::End)),
                "else" => return Ok((nodes, Ending::Else(tokens[1..].to_vec(), line))),
                "if" => {
                    let node = self.branches(&tokens[1..])?;
                    nodes.push(node);
                }
                "with" => {
                    let value = self.pipeline(&tokens[1..])?;
                    let (body, otherwise) = self.body()?;
                    nodes.push(Node::With { value, body, otherwise });
                }
                "range" => {
                    let (names, value) = self.ranged(&tokens[1..])?;
                    let (body, otherwise) = self.body()?;
                    nodes.push(Node::Range { names, value, body, otherwise });
                }
                "define" => self.define(&tokens)?,
                "template" | "block" | "break" | "continue" => {
                    return Err(self.error(format!("`{keyword}` is not understood here")));
                }
                _ => nodes.push(self.action(&tokens)?),
            }
        }
        Ok((nodes, Ending::File))
    }

    fn action(&self, tokens: &[Token]) -> Result<Node, TemplateError> {
        match tokens {
            [Token::Variable(name, fields), sign @ (Token::Declare | Token::Assign), value @ ..]
                if fields.is_empty() =>
            {
                let declares = *sign == Token::Declare;
                Ok(Node::Assign { name: name.clone(), declares, value: self.pipeline(value)? })
            }
            _ => Ok(Node::Output(self.pipeline(tokens)?)),
        }
    }

    fn branches(&mut self, condition: &[Token]) -> Result<Node, TemplateError> {
        let mut arms = Vec::new();
        let mut condition = self.pipeline(condition)?;
        loop {
            let (body, end) = self.nodes()?;
            arms.push((condition, body));
            match end {
                Ending::End => return Ok(Node::If { arms, otherwise: Vec::new() }),
                Ending::Else(tokens, line) => {
                    self.line = line;
                    match tokens.as_slice() {
                        [] => return Ok(Node::If { arms, otherwise: self.rest()? }),
                        [Token::Word(word), next @ ..] if word == "if" => condition = self.pipeline(next)?,
                        _ => return Err(self.error("else is followed by nothing or by if")),
                    }
                }
                Ending::File => return Err(self.error("if without end")),
            }
        }
    }

    fn body(&mut self) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
        match self.nodes()? {
            (body, Ending::End) => Ok((body, Vec::new())),
            (body, Ending::Else(tokens, _)) if tokens.is_empty() => Ok((body, self.rest()?)),
            (_, Ending::Else(..) | Ending::File) => Err(self.error("with or range without end")),
        }
    }

    fn rest(&mut self) -> Result<Vec<Node>, TemplateError> {
        match self.nodes()? {
            (nodes, Ending::End) => Ok(nodes),
            (_, Ending::Else(..) | Ending::File) => Err(self.error("else without end")),
        }
    }

    fn define(&mut self, tokens: &[Token]) -> Result<(), TemplateError> {
        let [_, Token::Text(name)] = tokens else { return Err(self.error("define takes one text")) };
        let nodes = self.rest()?;
        self.defined.insert(name.clone(), nodes);
        Ok(())
    }

    fn ranged(&self, tokens: &[Token]) -> Result<(Vec<String>, Pipeline), TemplateError> {
        let (names, value) = match tokens {
            [Token::Variable(one, _), Token::Declare, value @ ..] => (vec![one.clone()], value),
            [Token::Variable(key, _), Token::Comma, Token::Variable(one, _), Token::Declare, value @ ..] => {
                (vec![key.clone(), one.clone()], value)
            }
            value => (Vec::new(), value),
        };
        Ok((names, self.pipeline(value)?))
    }

    fn pipeline(&self, tokens: &[Token]) -> Result<Pipeline, TemplateError> {
        let mut tokens = tokens.iter().cloned().peekable();
        let pipeline = self.commands(&mut tokens)?;
        if tokens.peek().is_some() {
            Err(self.error("more follows than is understood"))
        } else {
            Ok(pipeline)
        }
    }

    /// Up to a closing parenthesis, which is left there, or the end.
    fn commands(&self, tokens: &mut Peekable<Cloned<Iter<'_, Token>>>) -> Result<Pipeline, TemplateError> {
        let mut commands = vec![self.command(tokens)?];
        while tokens.next_if(|token| *token == Token::Pipe).is_some() {
            commands.push(self.command(tokens)?);
        }
        Ok(Pipeline { commands, line: self.line })
    }

    fn command(&self, tokens: &mut Peekable<Cloned<Iter<'_, Token>>>) -> Result<Command, TemplateError> {
        let function = match tokens.peek() {
            Some(Token::Word(word)) if !matches!(word.as_str(), "true" | "false" | "nil") => {
                Some(word.clone())
            }
            _ => None,
        };
        if function.is_some() {
            tokens.next();
        }
        let mut operands = Vec::new();
        while let Some(token) = tokens.next_if(|token| !matches!(token, Token::Pipe | Token::Close(_))) {
            operands.push(self.operand(token, tokens)?);
        }
        match (function, operands.len()) {
            (Some(name), _) => Ok(Command::Call(name, operands)),
            (None, 1) => Ok(Command::Value(operands.swap_remove(0))),
            (None, _) => Err(self.error("one value, or a function with its arguments, is expected")),
        }
    }

    fn operand(
        &self,
        token: Token,
        tokens: &mut Peekable<Cloned<Iter<'_, Token>>>,
    ) -> Result<Operand, TemplateError> {
        Ok(match token {
            Token::Field(fields) => Operand::Field(fields),
            Token::Variable(name, fields) => Operand::Variable(name, fields),
            Token::Text(text) => Operand::Literal(Value::String(text)),
            Token::Number(number) => Operand::Literal(number.into()),
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Literal(Value::Bool(true)),
                "false" => Operand::Literal(Value::Bool(false)),
                "nil" => Operand::Literal(Value::Null),
                // A function without arguments: none of ours is one.
                _ => return Err(self.error(format!("`{word}` stands where a value is expected"))),
            },
            Token::Open => {
                let pipeline = self.commands(tokens)?;
                match tokens.next() {
                    Some(Token::Close(fields)) => Operand::Group(pipeline, fields),
                    _ => return Err(self.error("a parenthesis is not closed")),
                }
            }
            Token::Close(_) | Token::Pipe | Token::Declare | Token::Assign | Token::Comma => {
                return Err(self.error("a value is expected"));
            }
        })
    }
}
