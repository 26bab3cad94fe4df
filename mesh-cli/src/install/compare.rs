//! What of an object is not as it shall be (pure).
//!
//! The API server says what an object would be after an apply; this says where that differs from what it is.

use std::collections::BTreeSet;

use serde_json::Value;

/// Fields that the API server keeps for itself.
const BOOKKEEPING: [&str; 6] =
    ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"];

/// One field.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Difference {
    /// Where: `spec.replicas`.
    pub(crate) path: String,
    /// What it is; nothing when it is not there.
    pub(crate) live: Option<Value>,
    /// What it shall be.
    pub(crate) wanted: Option<Value>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.live, &self.wanted) {
            (Some(live), Some(wanted)) => {
                write!(f, "{} is {}, shall be {}", self.path, short(live), short(wanted))
            }
            (Some(live), None) => write!(f, "{} is {}, shall not be there", self.path, short(live)),
            (None, Some(wanted)) => write!(f, "{} is missing, shall be {}", self.path, short(wanted)),
            (None, None) => write!(f, "{} is as it shall be", self.path),
        }
    }
}

/// Longest value that is printed, in characters.
const SHOWN_MAX: usize = 120;

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain("…".chars()).collect()
}

/// Every field in which two states of an object differ.
pub(crate) fn differences(live: &Value, wanted: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(Some(live), Some(wanted), "", &mut found);
    found
}

fn walk(live: Option<&Value>, wanted: Option<&Value>, path: &str, found: &mut Vec<Difference>) {
    match (live, wanted) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let is_kept = path == "metadata" && BOOKKEEPING.contains(&name.as_str());
                if is_kept || path.is_empty() && name == "status" {
                    continue;
                }
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(one.get(name), other.get(name), &below, found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for index in 0..one.len().max(other.len()) {
                walk(one.get(index), other.get(index), &format!("{path}[{index}]"), found);
            }
        }
        (live, wanted) if live != wanted => {
            found.push(Difference { path: path.to_owned(), live: live.cloned(), wanted: wanted.cloned() })
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_keeps_for_itself_is_no_difference() {
        let live =
            json!({"metadata": {"name": "a", "resourceVersion": "1"}, "status": {"x": 1}, "spec": {"a": 1}});
        let wanted = json!({"metadata": {"name": "a", "resourceVersion": "2"}, "spec": {"a": 1}});
        assert_eq!(differences(&live, &wanted), []);
    }

    #[test]
    fn each_field_that_differs_is_named() {
        let live = json!({"spec": {"replicas": 5, "list": [1, 2], "more": true}});
        let wanted = json!({"spec": {"replicas": 1, "list": [1], "less": true}});
        let said: Vec<String> = differences(&live, &wanted).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "spec.less is missing, shall be true",
                "spec.list[1] is 2, shall not be there",
                "spec.more is true, shall not be there",
                "spec.replicas is 5, shall be 1"
            ]
        );
    }
}
