//! What a tree prints.

use serde_json::Value;

use super::function;
use super::parse::{Command, Node, Operand, Pipeline};
use super::{TemplateError, Templates};

/// Templates inside of each other at most, so that one that includes itself ends.
const DEPTH_MAX: usize = 64;

struct Scope<'a> {
    templates: &'a Templates,
    file: &'a str,
    depth: usize,
    dot: Value,
    variables: Vec<(String, Value)>,
}

pub(super) fn evaluate(
    templates: &Templates,
    file: &str,
    nodes: &[Node],
    context: &Value,
) -> Result<String, TemplateError> {
    let mut printed = String::new();
    let variables = vec![(String::new(), context.clone())];
    Scope { templates, file, depth: 0, dot: context.clone(), variables }.nodes(nodes, &mut printed)?;
    Ok(printed)
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], printed: &mut String) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            self.node(node, printed)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn node(&mut self, node: &Node, printed: &mut String) -> Result<(), TemplateError> {
        match node {
            Node::Text(text) => printed.push_str(text),
            Node::Output(pipeline) => {
                let value = self.pipeline(pipeline)?;
                let text = function::print(&value).map_err(|message| self.error(pipeline.line, message))?;
                printed.push_str(&text);
            }
            Node::Assign { name, declares: true, value } => {
                let value = self.pipeline(value)?;
                self.variables.push((name.clone(), value));
            }
            Node::Assign { name, declares: false, value } => {
                let line = value.line;
                let value = self.pipeline(value)?;
                let place = self.variables.iter_mut().rev().find(|(known, _)| known == name);
                match place {
                    Some((_, place)) => *place = value,
                    None => return Err(self.error(line, format!("${name} is not declared"))),
                }
            }
            Node::If { arms, otherwise } => return self.branches(arms, otherwise, printed),
            Node::With { value, body, otherwise } => {
                let value = self.pipeline(value)?;
                if !function::is_true(&value) {
                    return self.nodes(otherwise, printed);
                }
                let outer = std::mem::replace(&mut self.dot, value);
                self.nodes(body, printed)?;
                self.dot = outer;
            }
            Node::Range { names, value, body, otherwise } => {
                let line = value.line;
                let items: Vec<(Value, Value)> = match self.pipeline(value)? {
                    Value::Null => Vec::new(),
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(index, item)| (index.into(), item)).collect()
                    }
                    Value::Object(items) => items.into_iter().map(|(key, item)| (key.into(), item)).collect(),
                    Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                        return Err(self.error(line, "range wants a list or a map"));
                    }
                };
                if items.is_empty() {
                    return self.nodes(otherwise, printed);
                }
                for (key, item) in items {
                    self.item(names, (key, item), body, printed)?;
                }
            }
        }
        Ok(())
    }

    fn branches(
        &mut self,
        arms: &[(Pipeline, Vec<Node>)],
        otherwise: &[Node],
        printed: &mut String,
    ) -> Result<(), TemplateError> {
        for (condition, body) in arms {
            let condition = self.pipeline(condition)?;
            if function::is_true(&condition) {
                return self.nodes(body, printed);
            }
        }
        self.nodes(otherwise, printed)
    }

    fn item(
        &mut self,
        names: &[String],
        (key, item): (Value, Value),
        body: &[Node],
        printed: &mut String,
    ) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        match names {
            [one] => self.variables.push((one.clone(), item.clone())),
            [first, second] => {
                self.variables.push((first.clone(), key));
                self.variables.push((second.clone(), item.clone()));
            }
            _ => {}
        }
        let dot = std::mem::replace(&mut self.dot, item);
        self.nodes(body, printed)?;
        self.dot = dot;
        self.variables.truncate(outer);
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Value, TemplateError> {
        let mut passed = None;
        for command in &pipeline.commands {
            passed = Some(self.command(command, passed, pipeline.line)?);
        }
        Ok(passed.unwrap_or_default())
    }

    fn command(
        &mut self,
        command: &Command,
        passed: Option<Value>,
        line: usize,
    ) -> Result<Value, TemplateError> {
        match (command, passed) {
            (Command::Value(operand), None) => self.operand(operand, line),
            (Command::Value(_), Some(_)) => {
                Err(self.error(line, "only functions take what is piped to them"))
            }
            (Command::Call(name, operands), passed) if name == "and" || name == "or" => {
                self.first_that(name == "or", operands, passed, line)
            }
            (Command::Call(name, operands), passed) => {
                let arguments = operands.iter().map(|operand| self.operand(operand, line));
                let mut arguments = arguments.collect::<Result<Vec<Value>, TemplateError>>()?;
                arguments.extend(passed);
                if name == "include" {
                    return self.include(&arguments, line);
                }
                function::call(name, &arguments).map_err(|message| self.error(line, message))
            }
        }
    }

    /// `or` and `and`: the first value that decides, else the last; what follows is not looked at.
    fn first_that(
        &mut self,
        decides: bool,
        operands: &[Operand],
        passed: Option<Value>,
        line: usize,
    ) -> Result<Value, TemplateError> {
        let mut last = Value::Null;
        for operand in operands {
            last = self.operand(operand, line)?;
            if function::is_true(&last) == decides {
                return Ok(last);
            }
        }
        Ok(passed.unwrap_or(last))
    }

    fn include(&mut self, arguments: &[Value], line: usize) -> Result<Value, TemplateError> {
        let [Value::String(name), context] = arguments else {
            return Err(self.error(line, "include takes a name and a value"));
        };
        let Some((file, nodes)) = self.templates.defined.get(name) else {
            return Err(self.error(line, format!("nothing is defined as {name:?}")));
        };
        if self.depth >= DEPTH_MAX {
            return Err(self.error(line, format!("{name:?} includes itself without end")));
        }
        let variables = vec![(String::new(), context.clone())];
        let mut inner =
            Scope { templates: self.templates, file, depth: self.depth + 1, dot: context.clone(), variables };
        let mut printed = String::new();
        inner.nodes(nodes, &mut printed)?;
        Ok(Value::String(printed))
    }

    fn operand(&mut self, operand: &Operand, line: usize) -> Result<Value, TemplateError> {
        match operand {
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Field(fields) => self.field(&self.dot, fields, line),
            Operand::Variable(name, fields) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => self.field(value, fields, line),
                    None => Err(self.error(line, format!("${name} is not declared"))),
                }
            }
            Operand::Group(pipeline, fields) => {
                let value = self.pipeline(pipeline)?;
                self.field(&value, fields, line)
            }
        }
    }

    fn field(&self, value: &Value, fields: &[String], line: usize) -> Result<Value, TemplateError> {
        let mut found = value;
        for (position, name) in fields.iter().enumerate() {
            match found {
                Value::Object(map) => found = map.get(name).unwrap_or(&Value::Null),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                    let before = fields[..position].join(".");
                    return Err(self.error(line, format!(".{before} has no field {name}: it is no map")));
                }
            }
        }
        Ok(found.clone())
    }

    fn error(&self, line: usize, message: impl Into<String>) -> TemplateError {
        TemplateError { file: self.file.to_owned(), line, message: message.into() }
    }
}
