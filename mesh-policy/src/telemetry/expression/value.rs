//! Values of expressions.

use std::borrow::Cow;
use std::cmp::Ordering;

use mesh_api::cel::Literal;

/// A value.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is not negative.
    Uint(u64),
    /// Any other number.
    Double(f64),
    /// A text.
    Text(Cow<'a, str>),
    /// Bytes.
    Bytes(Cow<'a, [u8]>),
    /// A length of time, in nanoseconds.
    Duration(i64),
    /// A point in time, in nanoseconds of the Unix epoch.
    Timestamp(i64),
    /// Values in order.
    List(Vec<Self>),
    /// Values by key.
    Map(Vec<(Self, Self)>),
}

pub(super) fn of_literal(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::Text(value) => Value::Text(Cow::Borrowed(value)),
        Literal::Bytes(value) => Value::Bytes(Cow::Borrowed(value)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "numbers of different types are compared as the language does"
)]
fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Uint(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::Duration(_)
        | Value::Timestamp(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

impl<'a> Value<'a> {
    /// Whether two values are equal; those of different kinds are not, but for numbers.
    pub(super) fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::List(left), Value::List(right)) => {
                left.len() == right.len() && left.iter().zip(right).all(|(left, right)| left.equals(right))
            }
            (Self::Map(left), Value::Map(right)) => {
                left.len() == right.len()
                    && left.iter().all(|(key, value)| {
                        right.iter().any(|(other, found)| key.equals(other) && value.equals(found))
                    })
            }
            (left, right) => left.order(right) == Some(Ordering::Equal),
        }
    }

    /// How two values compare, where there is an order.
    pub(super) fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Self::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Self::Uint(left), Value::Uint(right)) => Some(left.cmp(right)),
            (Self::Int(left), Value::Uint(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::Uint(left), Value::Int(right)) => Some(i128::from(*left).cmp(&i128::from(*right))),
            (Self::Text(left), Value::Text(right)) => Some(left.as_ref().cmp(right.as_ref())),
            (Self::Bytes(left), Value::Bytes(right)) => Some(left.as_ref().cmp(right.as_ref())),
            (Self::Duration(left), Value::Duration(right))
            | (Self::Timestamp(left), Value::Timestamp(right)) => Some(left.cmp(right)),
            (left, right) => number(left)?.partial_cmp(&number(right)?),
        }
    }

    /// The value at a key of a map or an index of a list.
    pub(super) fn at(&self, key: &Value<'_>) -> Option<Self> {
        match self {
            Self::Map(entries) => {
                entries.iter().find(|(known, _)| known.equals(key)).map(|(_, value)| value.clone())
            }
            Self::List(items) => {
                let index = match key {
                    Value::Int(index) => usize::try_from(*index).ok()?,
                    Value::Uint(index) => usize::try_from(*index).ok()?,
                    _ => return None,
                };
                items.get(index).cloned()
            }
            _ => None,
        }
    }
}
