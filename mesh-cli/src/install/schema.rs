//! The part of JSON Schema that `values.schema.json` uses: type, properties, additionalProperties, required,
//! items, enum, minimum, maximum, minLength, maxLength, pattern, uniqueItems.
//!
//! Helm checks with the same file. This one says in addition what was probably meant.

use std::fmt;

use serde_json::Value;

use crate::suggestion;

/// A value that is not as the schema says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Where: `control.replicas`.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.path, self.message)
    }
}

/// Everything in `value` that is not as `schema` says.
pub(crate) fn check(schema: &Value, value: &Value) -> Vec<Mismatch> {
    let mut found = Vec::new();
    walk(schema, value, "", &mut found);
    found
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<Mismatch>) {
    let mut wrong = |message: String| found.push(Mismatch { path: path.to_owned(), message });
    if !is_of_type(&schema["type"], value) {
        wrong(format!("is {value}, and must be {}", kinds(&schema["type"])));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        wrong(format!("is {value}, and must be one of {}", allowed.join(", ")));
    }
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
                wrong(format!("is {value}, and must be at least {least}"));
            }
            if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
                wrong(format!("is {value}, and must be at most {most}"));
            }
        }
        Value::String(text) => {
            let length = text.chars().count() as u64;
            if schema["minLength"].as_u64().is_some_and(|least| length < least) {
                wrong("is empty".to_owned());
            } else if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
                wrong(format!("is longer than {most} characters"));
            } else if let Some(pattern) = schema["pattern"].as_str()
                && !regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
            {
                wrong(format!("is {value}, and must be like {pattern}"));
            }
        }
        Value::Array(items) => {
            let twice = items.iter().enumerate().find(|(at, item)| items[..*at].contains(item));
            if let Some((_, item)) = twice.filter(|_| schema["uniqueItems"] == true) {
                wrong(format!("has {item} twice"));
            }
            if schema["items"].is_object() {
                for (index, item) in items.iter().enumerate() {
                    walk(&schema["items"], item, &format!("{path}[{index}]"), found);
                }
            }
        }
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    wrong(format!("has no {name}"));
                }
            }
            for (name, inner) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Bool(false)) => {
                        found.push(Mismatch { path: below, message: unknown(schema, name) });
                    }
                    (Value::Null, rest @ Value::Object(_)) => walk(rest, inner, &below, found),
                    (Value::Null, _) => {}
                    (known, _) => walk(known, inner, &below, found),
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn unknown(schema: &Value, name: &str) -> String {
    let known = schema["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    match suggestion::nearest(name, known) {
        Some(nearest) => format!("is not known; did you mean `{nearest}`?"),
        None => "is not known".to_owned(),
    }
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match (name, value) {
        ("object", Value::Object(_))
        | ("array", Value::Array(_))
        | ("string", Value::String(_))
        | ("boolean", Value::Bool(_))
        | ("number", Value::Number(_)) => true,
        ("integer", Value::Number(number)) => {
            number.is_i64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn kinds(types: &Value) -> String {
    let name = |kind: &str| match kind {
        "object" => "a map",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "a number",
    };
    match types {
        Value::String(kind) => name(kind).to_owned(),
        Value::Array(all) => {
            let all: Vec<&str> = all.iter().filter_map(Value::as_str).map(name).collect();
            all.join(" or ")
        }
        _ => "something".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 14] = [
        "$schema",
        "title",
        "type",
        "properties",
        "additionalProperties",
        "required",
        "items",
        "enum",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "uniqueItems",
    ];

    fn assert_known(schema: &Value) {
        let Some(fields) = schema.as_object() else { return };
        for (keyword, inner) in fields {
            assert!(KNOWN.contains(&keyword.as_str()), "{keyword} is not checked");
            match keyword.as_str() {
                "properties" => {
                    inner.as_object().into_iter().flatten().for_each(|(_, inner)| assert_known(inner))
                }
                "additionalProperties" | "items" => assert_known(inner),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_of_the_schema_is_checked() {
        assert_known(&super::super::chart::Chart::load().expect("the chart is read").schema);
    }
}
