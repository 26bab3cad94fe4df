//! Tokens to a tree: one function for each level of precedence.

use super::lexer::{self, Placed, Token};
use super::{Binary, DEPTH_MAX, Expression, Literal, Macro, NODES_MAX, SyntaxError, Unary};

/// Words that are no names of variables (langdef, "Syntax").
const RESERVED: [&str; 15] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
];
const RESERVED_MORE: [&str; 2] = ["void", "while"];
const RELATIONS: [(&str, Binary); 6] = [
    ("==", Binary::Equal),
    ("!=", Binary::NotEqual),
    ("<=", Binary::LessOrEqual),
    (">=", Binary::GreaterOrEqual),
    ("<", Binary::Less),
    (">", Binary::Greater),
];
const SUMS: [(&str, Binary); 2] = [("+", Binary::Add), ("-", Binary::Subtract)];
const PRODUCTS: [(&str, Binary); 3] =
    [("*", Binary::Multiply), ("/", Binary::Divide), ("%", Binary::Remainder)];

type Parsed = Result<Expression, SyntaxError>;

pub(super) fn parse(text: &str) -> Parsed {
    let mut parser = Parser { text, tokens: lexer::tokens(text)?, next: 0, depth: 0, nodes: 0 };
    let expression = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expression),
        other => parser.refuse(format!("{} does not belong", other.words())),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
    nodes: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |placed| &placed.token)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is_next(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(found) if *found == symbol)
    }

    fn accept(&mut self, symbol: &str) -> bool {
        let is_there = self.is_next(symbol);
        self.next += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), SyntaxError> {
        if self.accept(symbol) {
            return Ok(());
        }
        self.refuse(format!("{symbol:?} is missing before {}", self.peek().words()))
    }

    fn refuse<T>(&self, reason: impl Into<String>) -> Result<T, SyntaxError> {
        let at = self.tokens.get(self.next).map_or(self.text.len(), |placed| placed.at);
        Err(SyntaxError { reason: reason.into(), column: lexer::column(self.text, at) })
    }

    /// Counts a node.
    fn node(&mut self, expression: Expression) -> Parsed {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return self.refuse(format!("the expression has more than {NODES_MAX} parts,"));
        }
        Ok(expression)
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= DEPTH_MAX {
            return self.refuse(format!("the expression nests deeper than {DEPTH_MAX} levels,"));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn expression(&mut self) -> Parsed {
        self.deeper(|parser| {
            let condition = parser.chain("||")?;
            if !parser.accept("?") {
                return Ok(condition);
            }
            let then = parser.chain("||")?;
            parser.expect(":")?;
            let otherwise = parser.expression()?;
            parser.node(Expression::Conditional(Box::new((condition, then, otherwise))))
        })
    }

    /// `a || b || c`, or `a && b && c`, as one node.
    fn chain(&mut self, operator: &'static str) -> Parsed {
        let operand = |parser: &mut Self| match operator {
            "||" => parser.chain("&&"),
            _ => parser.relation(),
        };
        let first = operand(self)?;
        if !self.is_next(operator) {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.accept(operator) {
            operands.push(operand(self)?);
        }
        let node = if operator == "||" { Expression::Any(operands) } else { Expression::All(operands) };
        self.node(node)
    }

    fn relation(&mut self) -> Parsed {
        let mut left = self.sum()?;
        loop {
            let symbol = RELATIONS.into_iter().find(|(symbol, _)| self.is_next(symbol));
            let is_in = matches!(self.peek(), Token::Name(name) if name == "in");
            let operator = match symbol {
                Some((_, operator)) => operator,
                None if is_in => Binary::In,
                None => return Ok(left),
            };
            self.next += 1;
            let right = self.sum()?;
            left = self.node(Expression::Binary(operator, Box::new(left), Box::new(right)))?;
        }
    }

    fn sum(&mut self) -> Parsed {
        let mut left = self.product()?;
        while let Some((_, operator)) = SUMS.into_iter().find(|(symbol, _)| self.is_next(symbol)) {
            self.next += 1;
            let right = self.product()?;
            left = self.node(Expression::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed {
        let mut left = self.unary()?;
        while let Some((_, operator)) = PRODUCTS.into_iter().find(|(symbol, _)| self.is_next(symbol)) {
            self.next += 1;
            let right = self.unary()?;
            left = self.node(Expression::Binary(operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    /// Signs are all of one kind: `!!a` and `--a`, not `!-a`.
    fn unary(&mut self) -> Parsed {
        let (symbol, operator) = match self.peek() {
            Token::Symbol("!") => ("!", Unary::Not),
            Token::Symbol("-") => ("-", Unary::Minus),
            _ => return self.member(),
        };
        let mut count = 0;
        while self.accept(symbol) {
            count += 1;
        }
        if operator == Unary::Minus
            && count == 1
            && let Some(number) = self.negative()?
        {
            return self.members_of(number);
        }
        let mut operand = self.member()?;
        for _ in 0..count {
            operand = self.node(Expression::Unary(operator, Box::new(operand)))?;
        }
        Ok(operand)
    }

    /// A number behind its sign: the least integer has no positive twin.
    fn negative(&mut self) -> Result<Option<Expression>, SyntaxError> {
        let literal = match self.peek() {
            Token::Integer(digits) => match 0_i64.checked_sub_unsigned(*digits) {
                Some(number) => Literal::Int(number),
                None => return self.refuse("the integer is too large"),
            },
            Token::Constant(Literal::Double(number)) => Literal::Double(-number),
            _ => return Ok(None),
        };
        self.next += 1;
        self.node(Expression::Literal(literal)).map(Some)
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.members_of(primary)
    }

    fn members_of(&mut self, mut operand: Expression) -> Parsed {
        loop {
            if self.accept(".") {
                let Token::Name(field) = self.peek().clone() else {
                    return self.refuse("a field's name is missing");
                };
                if is_keyword(&field) {
                    return self.refuse(format!("{field:?} is no name of a field"));
                }
                self.next += 1;
                if self.accept("(") {
                    let arguments = self.listed(")")?;
                    operand = self.call(Some(operand), field, arguments)?;
                } else if self.is_next("{") && operand.dotted().is_some() {
                    let name = format!("{}.{field}", operand.dotted().unwrap_or_default());
                    operand = self.message(name)?;
                } else {
                    operand = self.node(Expression::Select(Box::new(operand), field))?;
                }
            } else if self.accept("[") {
                let index = self.expression()?;
                self.expect("]")?;
                operand = self.node(Expression::Index(Box::new(operand), Box::new(index)))?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        match self.peek().clone() {
            Token::Integer(digits) => {
                let Ok(number) = i64::try_from(digits) else {
                    return self.refuse("the integer is too large");
                };
                self.next += 1;
                self.node(Expression::Literal(Literal::Int(number)))
            }
            Token::Constant(literal) => {
                self.next += 1;
                self.node(Expression::Literal(literal))
            }
            Token::Symbol("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Symbol("[") => {
                self.next += 1;
                let items = self.listed_with_comma("]")?;
                self.node(Expression::List(items))
            }
            Token::Symbol("{") => {
                self.next += 1;
                self.map()
            }
            Token::Symbol(".") => {
                self.next += 1;
                match self.take() {
                    Token::Name(name) => self.named(name),
                    _ => {
                        self.next -= 1;
                        self.refuse("a name is missing")
                    }
                }
            }
            Token::Name(name) => {
                self.next += 1;
                self.named(name)
            }
            other => self.refuse(format!("an operand is missing before {}", other.words())),
        }
    }

    fn named(&mut self, name: String) -> Parsed {
        let literal = match name.as_str() {
            "null" => Some(Literal::Null),
            "true" => Some(Literal::Bool(true)),
            "false" => Some(Literal::Bool(false)),
            _ => None,
        };
        if let Some(literal) = literal {
            return self.node(Expression::Literal(literal));
        }
        if is_keyword(&name) || RESERVED.contains(&name.as_str()) || RESERVED_MORE.contains(&name.as_str()) {
            self.next -= 1;
            return self.refuse(format!("{name:?} is a reserved word"));
        }
        if self.accept("(") {
            let arguments = self.listed(")")?;
            return self.call(None, name, arguments);
        }
        if self.is_next("{") {
            return self.message(name);
        }
        self.node(Expression::Variable(name))
    }

    /// Expressions up to `end`.
    fn listed(&mut self, end: &'static str) -> Result<Vec<Expression>, SyntaxError> {
        let mut items = Vec::new();
        if self.accept(end) {
            return Ok(items);
        }
        loop {
            items.push(self.expression()?);
            if self.accept(end) {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    /// The same where a comma may stand after the last.
    fn listed_with_comma(&mut self, end: &'static str) -> Result<Vec<Expression>, SyntaxError> {
        let mut items = Vec::new();
        while !self.accept(end) {
            items.push(self.expression()?);
            if !self.accept(",") {
                self.expect(end)?;
                return Ok(items);
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Parsed {
        let mut entries = Vec::new();
        while !self.accept("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(Expression::Map(entries))
    }

    fn message(&mut self, name: String) -> Parsed {
        self.expect("{")?;
        let mut fields = Vec::new();
        while !self.accept("}") {
            let Token::Name(field) = self.peek().clone() else {
                return self.refuse("a field's name is missing");
            };
            self.next += 1;
            self.expect(":")?;
            fields.push((field, self.expression()?));
            if !self.accept(",") {
                self.expect("}")?;
                break;
            }
        }
        self.node(Expression::Message(name, fields))
    }

    /// A call, or the macro that its form makes it.
    fn call(
        &mut self,
        target: Option<Expression>,
        function: String,
        mut arguments: Vec<Expression>,
    ) -> Parsed {
        if target.is_none() && function == "has" && arguments.len() == 1 {
            let Some(Expression::Select(operand, field)) = arguments.pop() else {
                return self.refuse("has() takes a field, such as request.path,");
            };
            return self.node(Expression::Has(operand, field));
        }
        let kind = match (function.as_str(), arguments.len()) {
            ("all", 2) => Some(Macro::All),
            ("exists", 2) => Some(Macro::Exists),
            ("exists_one" | "existsOne", 2) => Some(Macro::ExistsOne),
            ("map", 2 | 3) => Some(Macro::Map),
            ("filter", 2) => Some(Macro::Filter),
            _ => None,
        };
        match (target, kind) {
            (Some(range), Some(kind)) => {
                let Expression::Variable(variable) = arguments.remove(0) else {
                    return self.refuse(format!("{kind}() takes a plain name first,"));
                };
                let range = Box::new(range);
                self.node(Expression::Macro { kind, range, variable, body: arguments })
            }
            (target, _) => {
                let target = target.map(Box::new);
                self.node(Expression::Call { target, function, arguments })
            }
        }
    }
}

/// Words that are neither variables nor fields.
fn is_keyword(name: &str) -> bool {
    matches!(name, "in" | "null" | "true" | "false")
}
