//! The Common Expression Language, as far as its form goes: a text becomes a tree, or is refused with the place.
//!
//! Telemetry chooses log records, and makes the values of metric labels, by such expressions. Istio demands of
//! them only that they parse, so the whole grammar is read here
//! (<https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>); what an expression comes to is the
//! business of whoever evaluates it. Length, depth and number of nodes are bounded, so that a tree can be walked
//! without care.

use std::fmt;

mod lexer;
mod parser;

/// Longest expression, in bytes.
pub const SOURCE_BYTES_MAX: usize = 16 * 1024;
/// Most nodes of an expression, which bounds its depth too.
pub const NODES_MAX: usize = 1024;
/// Deepest nesting of brackets, operators that stand before their operand, and conditionals.
pub const DEPTH_MAX: usize = 64;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at character {column}")]
pub struct SyntaxError {
    /// What is wrong: one clause.
    pub reason: String,
    /// Where, in characters from 1.
    pub column: usize,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression {
    /// A constant.
    Literal(Literal),
    /// A variable.
    Variable(String),
    /// `operand.field`.
    Select(Box<Self>, String),
    /// `has(operand.field)`.
    Has(Box<Self>, String),
    /// `operand[index]`.
    Index(Box<Self>, Box<Self>),
    /// `function(arguments)`, or `target.function(arguments)`.
    Call {
        /// What the function is called on.
        target: Option<Box<Self>>,
        /// Its name.
        function: String,
        /// What it is called with.
        arguments: Vec<Self>,
    },
    /// `range.all(variable, condition)` and its like.
    Macro {
        /// Which.
        kind: Macro,
        /// What is gone through.
        range: Box<Self>,
        /// The variable that stands for each.
        variable: String,
        /// Condition, or what each becomes.
        body: Vec<Self>,
    },
    /// `[a, b]`.
    List(Vec<Self>),
    /// `{a: b}`.
    Map(Vec<(Self, Self)>),
    /// `Name{field: value}`.
    Message(String, Vec<(String, Self)>),
    /// `!a` or `-a`.
    Unary(Unary, Box<Self>),
    /// `a + b` and its like.
    Binary(Binary, Box<Self>, Box<Self>),
    /// `a && b && c`.
    All(Vec<Self>),
    /// `a || b || c`.
    Any(Vec<Self>),
    /// `a ? b : c`.
    Conditional(Box<(Self, Self, Self)>),
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `1`, `-1`, `0x1f`.
    Int(i64),
    /// `1u`.
    Uint(u64),
    /// `1.5`, `1e3`.
    Double(f64),
    /// `"a"`, `'a'`, `r"a"`, `"""a"""`.
    Text(String),
    /// `b"a"`.
    Bytes(Vec<u8>),
}

/// An operator with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unary {
    /// `!`.
    Not,
    /// `-`.
    Minus,
}

/// An operator with two operands, but for `&&` and `||`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `==`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessOrEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterOrEqual,
    /// `in`.
    In,
    /// `+`.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Remainder,
}

/// A macro that goes through a list or the keys of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macro {
    /// Whether all fulfil the condition.
    All,
    /// Whether some do.
    Exists,
    /// Whether exactly one does.
    ExistsOne,
    /// What each becomes, of those that fulfil the condition if there is one.
    Map,
    /// Those that fulfil the condition.
    Filter,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// When the text is none, or is larger than the bounds of this module.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        if text.len() > SOURCE_BYTES_MAX {
            let reason = format!("the expression is longer than {SOURCE_BYTES_MAX} bytes,");
            return Err(SyntaxError { reason, column: 1 });
        }
        parser::parse(text)
    }

    /// The name that a chain of variable and fields spells, such as `request.path`.
    #[must_use]
    pub fn dotted(&self) -> Option<String> {
        match self {
            Self::Variable(name) => Some(name.clone()),
            Self::Select(operand, field) => Some(format!("{}.{field}", operand.dotted()?)),
            _ => None,
        }
    }
}

impl fmt::Display for Macro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "all",
            Self::Exists => "exists",
            Self::ExistsOne => "exists_one",
            Self::Map => "map",
            Self::Filter => "filter",
        })
    }
}

#[cfg(test)]
mod tests;
