//! The functions of templates: those of Go, sprig and Helm that the chart uses, and no more.
//!
//! `and`, `or`, `include` (in [`super::evaluate`]); `not`, `eq`, `ne`, `default`, `required`, `fail`, `quote`,
//! `toYaml`, `nindent`, `indent`, `printf` (`%s`, `%d`, `%v`), `trimSuffix`, `trunc`, `list`, `dict`, `concat`,
//! `has`, `hasKey`, `join`, `toString`.

use mesh_kube::yaml::to_yaml;
use serde_json::{Map, Value};

/// Numbers from here on are printed by Go in exponent form, depending on where they come from.
const PRINTED_BELOW: f64 = 1e6;

/// Whether a condition holds: everything does but false, zero, null and what is empty.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as an action prints it.
pub(super) fn print(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => {
            if number.as_f64().is_some_and(|number| number.abs() < PRINTED_BELOW) {
                Ok(number.to_string())
            } else {
                Err(format!("{number} is printed by toYaml: Go would choose between two forms of it"))
            }
        }
        Value::Array(_) | Value::Object(_) => Err("a list or a map is printed by toYaml".to_owned()),
    }
}

/// Calls a function.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    let text = match (name, arguments) {
        ("not", [value]) => return Ok(Value::Bool(!is_true(value))),
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            return Ok(Value::Bool(others.iter().any(|other| other == first)));
        }
        ("ne", [left, right]) => return Ok(Value::Bool(left != right)),
        ("default", [fallback, value]) => {
            return Ok(if is_true(value) { value.clone() } else { fallback.clone() });
        }
        ("required", [Value::String(message), Value::Null]) => return Err(message.clone()),
        ("required", [Value::String(message), Value::String(text)]) if text.is_empty() => {
            return Err(message.clone());
        }
        ("required", [Value::String(_), value]) => return Ok(value.clone()),
        ("fail", [Value::String(message)]) => return Err(message.clone()),
        ("list", items) => return Ok(Value::Array(items.to_vec())),
        ("dict", items) => return dict(items),
        ("concat", lists) => return concat(lists),
        ("has", [item, Value::Array(items)]) => return Ok(Value::Bool(items.contains(item))),
        ("has", [_, Value::Null]) => return Ok(Value::Bool(false)),
        ("hasKey", [Value::Object(fields), Value::String(key)]) => {
            return Ok(Value::Bool(fields.contains_key(key)));
        }
        ("quote", [Value::Null]) => String::new(),
        ("quote", [value]) => format!("{:?}", print(value)?),
        ("toString", [value]) => print(value)?,
        ("toYaml", [value]) => to_yaml(value),
        ("indent", [Value::Number(spaces), Value::String(text)]) => indent(spaces.as_u64(), text),
        ("nindent", [Value::Number(spaces), Value::String(text)]) => {
            format!("\n{}", indent(spaces.as_u64(), text))
        }
        ("trimSuffix", [Value::String(suffix), Value::String(text)]) => {
            text.strip_suffix(suffix.as_str()).unwrap_or(text).to_owned()
        }
        ("trunc", [Value::Number(length), Value::String(text)]) => {
            let length =
                length.as_u64().and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
            text.get(..length).unwrap_or(text).to_owned()
        }
        ("join", [Value::String(between), Value::Array(items)]) => {
            items.iter().map(print).collect::<Result<Vec<String>, String>>()?.join(between)
        }
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?,
        _ => return Err(format!("{name} is not known, or not with these {} arguments", arguments.len())),
    };
    Ok(Value::String(text))
}

fn dict(items: &[Value]) -> Result<Value, String> {
    let mut fields = Map::new();
    for pair in items.chunks(2) {
        let [Value::String(key), value] = pair else {
            return Err("dict takes names and values in turn".into());
        };
        fields.insert(key.clone(), value.clone());
    }
    Ok(Value::Object(fields))
}

fn concat(lists: &[Value]) -> Result<Value, String> {
    let mut all = Vec::new();
    for list in lists {
        match list {
            Value::Array(items) => all.extend(items.iter().cloned()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                return Err("concat takes lists".to_owned());
            }
        }
    }
    Ok(Value::Array(all))
}

/// Every line moved to the right, also empty ones: as sprig has it.
fn indent(spaces: Option<u64>, text: &str) -> String {
    let margin = " ".repeat(spaces.and_then(|spaces| usize::try_from(spaces).ok()).unwrap_or(0).min(200));
    format!("{margin}{}", text.replace('\n', &format!("\n{margin}")))
}

fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut parts = format.split('%');
    let mut printed = parts.next().unwrap_or_default().to_owned();
    let mut values = values.iter();
    for part in parts {
        if !part.starts_with(['s', 'd', 'v']) {
            return Err("printf knows %s, %d and %v".to_owned());
        }
        printed.push_str(&print(values.next().ok_or("printf has too few values")?)?);
        printed.push_str(&part[1..]);
    }
    if values.next().is_some() { Err("printf has too many values".to_owned()) } else { Ok(printed) }
}
