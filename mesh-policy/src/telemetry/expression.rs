//! Expressions over one record: whether it is logged, and values of metric labels.
//!
//! Names are Envoy's attributes
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/advanced/attributes>), as far as a record has
//! them. An expression is resolved once, when configuration arrives. What cannot be evaluated (an absent
//! attribute, a wrong type, a function that is not known) is an error as in the language: it spreads, except past
//! `&&` and `||` whose other side decides. A record is logged only when its filter is true, as in Envoy.
//!
//! Walking is bounded by the size of the tree, and by [`STEPS_MAX`] where macros go through lists.

use std::borrow::Cow;
use std::cell::Cell;
use std::cmp::Ordering;

use mesh_api::cel::{Binary, Expression, Literal, Macro, SyntaxError, Unary};
use regex::Regex;

mod function;
mod value;

pub use value::Value;

/// Most nodes that one evaluation visits.
const STEPS_MAX: u32 = 10_000;
/// Largest compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// Something that a record knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// `request.path`: with the query.
    RequestPath,
    /// `request.url_path`: without.
    RequestUrlPath,
    /// `request.query`.
    RequestQuery,
    /// `request.host`.
    RequestHost,
    /// `request.scheme`.
    RequestScheme,
    /// `request.method`.
    RequestMethod,
    /// `request.useragent`.
    RequestUserAgent,
    /// `request.id`.
    RequestId,
    /// `request.protocol`.
    RequestProtocol,
    /// `request.time`.
    RequestTime,
    /// `request.duration`.
    RequestDuration,
    /// `request.size`: bytes of the body.
    RequestSize,
    /// `request.total_size`.
    RequestTotalSize,
    /// `response.code`.
    ResponseCode,
    /// `response.code_details`.
    ResponseCodeDetails,
    /// `response.flags`: Envoy's bits.
    ResponseFlags,
    /// `response.grpc_status`.
    ResponseGrpcStatus,
    /// `response.size`: bytes of the body.
    ResponseSize,
    /// `response.total_size`.
    ResponseTotalSize,
    /// `response.backend_latency`.
    ResponseBackendLatency,
    /// `source.address`.
    SourceAddress,
    /// `source.port`.
    SourcePort,
    /// `destination.address`.
    DestinationAddress,
    /// `destination.port`.
    DestinationPort,
    /// `connection.id`.
    ConnectionId,
    /// `connection.mtls`.
    ConnectionMtls,
    /// `connection.requested_server_name`.
    ConnectionServerName,
    /// `connection.uri_san_peer_certificate`.
    ConnectionPeerUri,
    /// `connection.termination_details`.
    ConnectionTerminationDetails,
    /// `upstream.address`.
    UpstreamAddress,
    /// `upstream.port`.
    UpstreamPort,
    /// `upstream.transport_failure_reason`.
    UpstreamTransportFailureReason,
    /// `xds.cluster_name`.
    ClusterName,
    /// `xds.route_name`.
    RouteName,
}

impl Attribute {
    /// Every one, with its name.
    pub const ALL: [(&'static str, Self); 34] = [
        ("request.path", Self::RequestPath),
        ("request.url_path", Self::RequestUrlPath),
        ("request.query", Self::RequestQuery),
        ("request.host", Self::RequestHost),
        ("request.scheme", Self::RequestScheme),
        ("request.method", Self::RequestMethod),
        ("request.useragent", Self::RequestUserAgent),
        ("request.id", Self::RequestId),
        ("request.protocol", Self::RequestProtocol),
        ("request.time", Self::RequestTime),
        ("request.duration", Self::RequestDuration),
        ("request.size", Self::RequestSize),
        ("request.total_size", Self::RequestTotalSize),
        ("response.code", Self::ResponseCode),
        ("response.code_details", Self::ResponseCodeDetails),
        ("response.flags", Self::ResponseFlags),
        ("response.grpc_status", Self::ResponseGrpcStatus),
        ("response.size", Self::ResponseSize),
        ("response.total_size", Self::ResponseTotalSize),
        ("response.backend_latency", Self::ResponseBackendLatency),
        ("source.address", Self::SourceAddress),
        ("source.port", Self::SourcePort),
        ("destination.address", Self::DestinationAddress),
        ("destination.port", Self::DestinationPort),
        ("connection.id", Self::ConnectionId),
        ("connection.mtls", Self::ConnectionMtls),
        ("connection.requested_server_name", Self::ConnectionServerName),
        ("connection.uri_san_peer_certificate", Self::ConnectionPeerUri),
        ("connection.termination_details", Self::ConnectionTerminationDetails),
        ("upstream.address", Self::UpstreamAddress),
        ("upstream.port", Self::UpstreamPort),
        ("upstream.transport_failure_reason", Self::UpstreamTransportFailureReason),
        ("xds.cluster_name", Self::ClusterName),
        ("xds.route_name", Self::RouteName),
    ];

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, attribute)| attribute)
    }
}

/// A record, as expressions see it.
pub trait AttributeSource {
    /// What it knows; `None` when it has no such thing.
    fn attribute(&self, attribute: Attribute) -> Option<Value<'_>>;
    /// A header of the request by its name in lower case; `None` when it had none, or it was not kept.
    fn request_header(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// An expression whose names are resolved.
#[derive(Debug, Clone)]
pub struct Program {
    root: Node,
    headers: Vec<String>,
}

/// The map that `request.headers` is.
const HEADERS: &str = "request.headers";

#[derive(Debug, Clone)]
enum Node {
    Constant(Literal),
    Attribute(Attribute),
    /// A variable of a macro, by its depth from the outermost.
    Local(usize),
    Header(Box<Self>),
    HasAttribute(Attribute),
    HasHeader(Box<Self>),
    Field(Box<Self>, String),
    HasField(Box<Self>, String),
    Index(Box<Self>, Box<Self>),
    List(Vec<Self>),
    Map(Vec<(Self, Self)>),
    Unary(Unary, Box<Self>),
    Binary(Binary, Box<Self>, Box<Self>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Conditional(Box<(Self, Self, Self)>),
    Matches(Box<Self>, Regex),
    Call(function::Function, Vec<Self>),
    Macro {
        kind: Macro,
        range: Box<Self>,
        body: Vec<Self>,
    },
    /// What can never be evaluated.
    Unknown,
}

/// That an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NoValue;

type Evaluated<'a> = Result<Value<'a>, NoValue>;

impl Program {
    /// Resolves an expression.
    ///
    /// # Errors
    /// When the text is none. Names that are not known are no error here: whatever reads them has no value.
    pub fn compile(text: &str) -> Result<Self, SyntaxError> {
        let expression = Expression::parse(text)?;
        let mut headers = Vec::new();
        let root = resolve(&expression, &mut Vec::new(), &mut headers);
        headers.sort();
        headers.dedup();
        Ok(Self { root, headers })
    }

    /// Headers of the request that it reads by a constant name, in lower case.
    #[must_use]
    pub fn headers(&self) -> &[String] {
        &self.headers
    }

    /// Whether it is true for a record. What has no value is not.
    #[must_use]
    pub fn holds(&self, source: &dyn AttributeSource) -> bool {
        matches!(self.value(source), Some(Value::Bool(true)))
    }

    /// Its value for a record, as text: of a text, number or truth value.
    #[must_use]
    pub fn text<'a>(&'a self, source: &'a dyn AttributeSource) -> Option<Cow<'a, str>> {
        function::to_text(self.value(source)?)
    }

    fn value<'a>(&'a self, source: &'a dyn AttributeSource) -> Option<Value<'a>> {
        Evaluation { source, steps: Cell::new(0) }.node(&self.root, &[]).ok()
    }
}

fn boxed(expression: &Expression, locals: &mut Vec<String>, headers: &mut Vec<String>) -> Box<Node> {
    Box::new(resolve(expression, locals, headers))
}

fn resolve(expression: &Expression, locals: &mut Vec<String>, headers: &mut Vec<String>) -> Node {
    let each = |expressions: &[Expression], locals: &mut Vec<String>, headers: &mut Vec<String>| {
        expressions.iter().map(|expression| resolve(expression, locals, headers)).collect::<Vec<_>>()
    };
    match expression {
        Expression::Literal(literal) => Node::Constant(literal.clone()),
        Expression::Variable(name) => match locals.iter().rposition(|local| local == name) {
            Some(depth) => Node::Local(depth),
            None => Node::Unknown,
        },
        Expression::Select(operand, field) => match free_name(operand, locals) {
            Some(name) if name == HEADERS => header(Node::Constant(Literal::Text(field.clone())), headers),
            Some(name) => Attribute::parse(&format!("{name}.{field}")).map_or(Node::Unknown, Node::Attribute),
            None => Node::Field(boxed(operand, locals, headers), field.clone()),
        },
        Expression::Has(operand, field) => match free_name(operand, locals) {
            Some(name) if name == HEADERS => {
                Node::HasHeader(header_name(Node::Constant(Literal::Text(field.clone())), headers))
            }
            Some(name) if format!("{name}.{field}") == HEADERS => Node::Constant(Literal::Bool(true)),
            Some(name) => {
                Attribute::parse(&format!("{name}.{field}")).map_or(Node::Unknown, Node::HasAttribute)
            }
            None => Node::HasField(boxed(operand, locals, headers), field.clone()),
        },
        Expression::Index(operand, index) => {
            let index = resolve(index, locals, headers);
            match free_name(operand, locals) {
                Some(name) if name == HEADERS => header(index, headers),
                Some(_) | None => Node::Index(boxed(operand, locals, headers), Box::new(index)),
            }
        }
        Expression::Call { target, function, arguments } => {
            let operands = target.iter().map(|target| &**target).chain(arguments);
            let all = operands.map(|operand| resolve(operand, locals, headers)).collect();
            call(target.is_some(), function, all)
        }
        Expression::Macro { kind, range, variable, body } => {
            let range = boxed(range, locals, headers);
            locals.push(variable.clone());
            let body = each(body, locals, headers);
            locals.pop();
            Node::Macro { kind: *kind, range, body }
        }
        Expression::List(items) => Node::List(each(items, locals, headers)),
        Expression::Map(entries) => Node::Map(
            entries
                .iter()
                .map(|(key, value)| (resolve(key, locals, headers), resolve(value, locals, headers)))
                .collect(),
        ),
        Expression::Message(..) => Node::Unknown,
        Expression::Unary(operator, operand) => Node::Unary(*operator, boxed(operand, locals, headers)),
        Expression::Binary(Binary::In, key, range)
            if free_name(range, locals).is_some_and(|name| name == HEADERS) =>
        {
            Node::HasHeader(header_name(resolve(key, locals, headers), headers))
        }
        Expression::Binary(operator, left, right) => {
            Node::Binary(*operator, boxed(left, locals, headers), boxed(right, locals, headers))
        }
        Expression::All(operands) => Node::All(each(operands, locals, headers)),
        Expression::Any(operands) => Node::Any(each(operands, locals, headers)),
        Expression::Conditional(parts) => {
            let (condition, then, otherwise) = &**parts;
            Node::Conditional(Box::new((
                resolve(condition, locals, headers),
                resolve(then, locals, headers),
                resolve(otherwise, locals, headers),
            )))
        }
    }
}

/// The dotted name of an expression whose first part is no variable of a macro.
fn free_name(expression: &Expression, locals: &[String]) -> Option<String> {
    let name = expression.dotted()?;
    let first = name.split('.').next().unwrap_or_default();
    (!locals.iter().any(|local| local == first)).then_some(name)
}

fn header(name: Node, headers: &mut Vec<String>) -> Node {
    Node::Header(header_name(name, headers))
}

/// Notes the name of a header, if it is a constant.
fn header_name(name: Node, headers: &mut Vec<String>) -> Box<Node> {
    if let Node::Constant(Literal::Text(name)) = &name {
        headers.push(name.to_ascii_lowercase());
    }
    Box::new(name)
}

fn call(has_target: bool, function: &str, mut arguments: Vec<Node>) -> Node {
    if function == "matches" && arguments.len() == 2 {
        let pattern = arguments.pop();
        let text = arguments.pop();
        return match (text, pattern) {
            (Some(text), Some(Node::Constant(Literal::Text(pattern)))) => {
                let regex = regex::RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build();
                regex.map_or(Node::Unknown, |regex| Node::Matches(Box::new(text), regex))
            }
            _ => Node::Unknown,
        };
    }
    function::Function::parse(function, has_target, arguments.len())
        .map_or(Node::Unknown, |function| Node::Call(function, arguments))
}

struct Evaluation<'a> {
    source: &'a dyn AttributeSource,
    steps: Cell<u32>,
}

impl<'a> Evaluation<'a> {
    fn node(&self, node: &'a Node, locals: &[Value<'a>]) -> Evaluated<'a> {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return Err(NoValue);
        }
        match node {
            Node::Constant(literal) => Ok(value::of_literal(literal)),
            Node::Attribute(attribute) => self.source.attribute(*attribute).ok_or(NoValue),
            Node::Local(depth) => locals.get(*depth).cloned().ok_or(NoValue),
            Node::Header(name) => self.header(name, locals)?.map(Value::Text).ok_or(NoValue),
            Node::HasHeader(name) => Ok(Value::Bool(self.header(name, locals)?.is_some())),
            Node::HasAttribute(attribute) => Ok(Value::Bool(self.source.attribute(*attribute).is_some())),
            Node::Field(operand, field) => {
                self.node(operand, locals)?.at(&Value::Text(Cow::Borrowed(field))).ok_or(NoValue)
            }
            Node::HasField(operand, field) => match self.node(operand, locals)? {
                map @ Value::Map(_) => Ok(Value::Bool(map.at(&Value::Text(Cow::Borrowed(field))).is_some())),
                _ => Err(NoValue),
            },
            Node::Index(operand, index) => {
                let index = self.node(index, locals)?;
                self.node(operand, locals)?.at(&index).ok_or(NoValue)
            }
            Node::List(items) => Ok(Value::List(self.all_of(items, locals)?)),
            Node::Map(entries) => {
                let each = entries.iter();
                let each = each.map(|(key, value)| Ok((self.node(key, locals)?, self.node(value, locals)?)));
                each.collect::<Result<_, NoValue>>().map(Value::Map)
            }
            Node::Unary(operator, operand) => function::unary(*operator, &self.node(operand, locals)?),
            Node::Binary(operator, left, right) => {
                binary(*operator, self.node(left, locals)?, self.node(right, locals)?)
            }
            Node::All(operands) => self.junction(operands, locals, false),
            Node::Any(operands) => self.junction(operands, locals, true),
            Node::Conditional(parts) => match self.node(&parts.0, locals)? {
                Value::Bool(true) => self.node(&parts.1, locals),
                Value::Bool(false) => self.node(&parts.2, locals),
                _ => Err(NoValue),
            },
            Node::Matches(text, regex) => match self.node(text, locals)? {
                Value::Text(text) => Ok(Value::Bool(regex.is_match(&text))),
                _ => Err(NoValue),
            },
            Node::Call(function, arguments) => function.call(self.all_of(arguments, locals)?),
            Node::Macro { kind, range, body } => self.go_through(*kind, (range, body), locals),
            Node::Unknown => Err(NoValue),
        }
    }

    fn all_of(&self, nodes: &'a [Node], locals: &[Value<'a>]) -> Result<Vec<Value<'a>>, NoValue> {
        nodes.iter().map(|node| self.node(node, locals)).collect()
    }

    fn header(&self, name: &'a Node, locals: &[Value<'a>]) -> Result<Option<Cow<'a, str>>, NoValue> {
        match self.node(name, locals)? {
            Value::Text(name) => Ok(self.source.request_header(&name.to_ascii_lowercase())),
            _ => Err(NoValue),
        }
    }

    /// `&&` (whose `decisive` value is false) or `||` (true): an operand that decides does so past others
    /// without a value.
    fn junction(&self, operands: &'a [Node], locals: &[Value<'a>], decisive: bool) -> Evaluated<'a> {
        let mut outcome = Ok(Value::Bool(!decisive));
        for operand in operands {
            match self.node(operand, locals) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) | Err(NoValue) => outcome = Err(NoValue),
            }
        }
        outcome
    }

    fn go_through(
        &self,
        kind: Macro,
        (range, body): (&'a Node, &'a [Node]),
        locals: &[Value<'a>],
    ) -> Evaluated<'a> {
        let items = match self.node(range, locals)? {
            Value::List(items) => items,
            Value::Map(entries) => entries.into_iter().map(|(key, _)| key).collect(),
            _ => return Err(NoValue),
        };
        let mut inner = locals.to_vec();
        let depth = inner.len();
        let (mut count, mut has_error, mut kept) = (0, false, Vec::new());
        for item in items {
            inner.truncate(depth);
            inner.push(item.clone());
            let (condition, result) = match body {
                [condition, result] => (Some(condition), Some(result)),
                [only] if kind == Macro::Map => (None, Some(only)),
                [only] => (Some(only), None),
                _ => return Err(NoValue),
            };
            let is_true = match condition.map(|condition| self.node(condition, &inner)) {
                None | Some(Ok(Value::Bool(true))) => true,
                Some(Ok(Value::Bool(false))) => false,
                Some(Ok(_) | Err(NoValue)) if matches!(kind, Macro::All | Macro::Exists) => {
                    has_error = true;
                    continue;
                }
                Some(Ok(_) | Err(NoValue)) => return Err(NoValue),
            };
            match kind {
                Macro::All if !is_true => return Ok(Value::Bool(false)),
                Macro::Exists if is_true => return Ok(Value::Bool(true)),
                Macro::Filter if is_true => kept.push(item),
                Macro::Map if is_true => {
                    kept.push(self.node(result.ok_or(NoValue)?, &inner)?);
                }
                Macro::All | Macro::Exists | Macro::ExistsOne | Macro::Filter | Macro::Map => {}
            }
            count += usize::from(is_true);
        }
        match kind {
            Macro::All | Macro::Exists if has_error => Err(NoValue),
            Macro::All => Ok(Value::Bool(true)),
            Macro::Exists => Ok(Value::Bool(false)),
            Macro::ExistsOne => Ok(Value::Bool(count == 1)),
            Macro::Filter | Macro::Map => Ok(Value::List(kept)),
        }
    }
}

fn binary<'a>(operator: Binary, left: Value<'a>, right: Value<'a>) -> Evaluated<'a> {
    let order = |holds: fn(Ordering) -> bool| {
        left.order(&right).map(|order| Value::Bool(holds(order))).ok_or(NoValue)
    };
    match operator {
        Binary::Equal => Ok(Value::Bool(left.equals(&right))),
        Binary::NotEqual => Ok(Value::Bool(!left.equals(&right))),
        Binary::Less => order(Ordering::is_lt),
        Binary::LessOrEqual => order(Ordering::is_le),
        Binary::Greater => order(Ordering::is_gt),
        Binary::GreaterOrEqual => order(Ordering::is_ge),
        Binary::In => match &right {
            Value::List(items) => Ok(Value::Bool(items.iter().any(|item| item.equals(&left)))),
            Value::Map(_) => Ok(Value::Bool(right.at(&left).is_some())),
            _ => Err(NoValue),
        },
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            function::arithmetic(operator, left, right)
        }
    }
}

#[cfg(test)]
mod tests;
