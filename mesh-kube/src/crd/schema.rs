//! Structural schemas, written down in short.

use serde_json::{Map, Value, json};

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Anything.
    Any,
    /// A text.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number in a range.
    Integer(i64, i64),
    /// A number in a range.
    Number(f64, f64),
    /// A text such as `1h`, `30s`, `1.5s` or `10ms`.
    Duration,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// A list of at most this many.
    List(&'static Self, usize),
    /// A map with free keys.
    Map(&'static Self),
    /// A map with known fields.
    Object(&'static [Field]),
}

/// A field: name, what it may be, what it is for (nothing where the name says it).
pub(super) type Field = (&'static str, Shape, &'static str);

/// Whole numbers of 32 bits without a sign.
pub(super) const COUNT: Shape = Shape::Integer(0, 4_294_967_295);
/// A port.
pub(super) const PORT: Shape = Shape::Integer(1, 65_535);
/// A percentage.
pub(super) const PERCENT: Shape = Shape::Number(0.0, 100.0);
/// Lists without a bound of their own: the size of an object bounds them.
pub(super) const UNBOUNDED: usize = usize::MAX;
/// Texts.
pub(super) const TEXTS: Shape = Shape::List(&Shape::Text, UNBOUNDED);
/// Labels, and other texts by name.
pub(super) const TEXT_MAP: Shape = Shape::Map(&Shape::Text);
/// Workloads by their labels.
pub(super) const SELECTOR: Shape =
    Shape::Object(&[("matchLabels", TEXT_MAP, "Labels that a workload must have, all of them.")]);
/// What a policy is attached to.
pub(super) const TARGET: Shape = Shape::Object(&[
    ("group", Shape::Text, "API group; empty for core."),
    ("kind", Shape::Text, "Service, ServiceEntry, Gateway or GatewayClass."),
    ("name", Shape::Text, ""),
    ("namespace", Shape::Text, "Not supported: a policy is for its own namespace."),
]);
/// As [`TARGET`], several.
pub(super) const TARGETS: Shape = Shape::List(&TARGET, 16);

impl Shape {
    /// As OpenAPI.
    pub(super) fn to_json(self) -> Value {
        let mut schema = match self {
            Self::Any => json!({}),
            Self::Text => json!({"type": "string"}),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Integer(least, most) => {
                json!({"type": "integer", "format": "int64", "minimum": least, "maximum": most})
            }
            Self::Number(least, most) => {
                json!({"type": "number", "minimum": plain(least), "maximum": plain(most)})
            }
            Self::Duration => json!({"type": "string"}),
            Self::OneOf(names) => json!({"type": "string", "enum": names}),
            Self::List(item, most) => {
                let mut list = json!({"type": "array", "items": item.to_json()});
                if most != UNBOUNDED {
                    list["maxItems"] = most.into();
                }
                list
            }
            Self::Map(value) => json!({"type": "object", "additionalProperties": value.to_json()}),
            Self::Object(fields) => {
                let properties: Map<String, Value> = fields.iter().map(property).collect();
                json!({"type": "object", "properties": properties})
            }
        };
        schema["nullable"] = true.into();
        if matches!(self, Self::Any | Self::Object(_)) {
            schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        schema
    }
}

/// Bounds are whole, and written so.
fn plain(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "bounds are small whole numbers")]
    Value::from(number as i64)
}

fn property((name, shape, about): &Field) -> (String, Value) {
    let mut schema = shape.to_json();
    let about = match (shape, *about) {
        (Shape::Duration, "") => "A time such as 1h, 30s, 1.5s or 10ms.".to_owned(),
        (Shape::Duration, about) => format!("{about} A time such as 1h, 30s, 1.5s or 10ms."),
        (_, about) => about.to_owned(),
    };
    if !about.is_empty() {
        schema["description"] = about.into();
    }
    ((*name).to_owned(), schema)
}

/// What the control plane says of an object.
pub(super) fn status() -> Value {
    let text = || json!({"type": "string"});
    json!({
        "description": "What the control plane says of the object.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "observedGeneration": {"x-kubernetes-int-or-string": true},
            "validationMessages": {
                "type": "array",
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
            "conditions": {
                "description": "Accepted, Enforced and Conflicted, each with its reason.",
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "items": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {
                        "type": text(),
                        "status": text(),
                        "reason": text(),
                        "message": text(),
                        "lastTransitionTime": {"type": "string", "format": "date-time"},
                        "lastProbeTime": {"type": "string", "format": "date-time"},
                        "observedGeneration": {"x-kubernetes-int-or-string": true},
                    },
                },
            },
        },
    })
}
