//! Values of `mesh.yaml` that may be written in a short and a long form.
//!
//! Each has a visitor of its own rather than an untagged enum, so that a mistake inside the long form is
//! reported as that mistake and not as "matches no variant".

use std::fmt;

use serde::de::{
    self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
};

use crate::local::command_line;

/// A text that may also be written as a number or boolean (`PORT: 8080`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text(pub(crate) String);

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Text, E> {
        Ok(Text(value.to_owned()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// A command: a list of words, or one string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandWords(pub(crate) Vec<String>);

struct CommandVisitor;

impl<'de> Visitor<'de> for CommandVisitor {
    type Value = CommandWords;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of words or one string")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<CommandWords, E> {
        let words = command_line::split(value).map_err(|error| E::custom(format!("{value:?}: {error}")))?;
        checked(words)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<CommandWords, A::Error> {
        let mut words = Vec::new();
        while let Some(Text(word)) = list.next_element()? {
            words.push(word);
        }
        checked(words)
    }
}

fn checked<E: de::Error>(words: Vec<String>) -> Result<CommandWords, E> {
    match words.first() {
        None => Err(E::custom("a command needs at least one word")),
        Some(program) if program.is_empty() => Err(E::custom("the program's name is empty")),
        Some(_) if words.iter().any(|word| word.contains('\0')) => Err(E::custom("a word holds a NUL")),
        Some(_) => Ok(CommandWords(words)),
    }
}

impl<'de> Deserialize<'de> for CommandWords {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CommandVisitor)
    }
}

/// A port: its number, or its number with more about it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Port {
    /// Number.
    pub(crate) port: u16,
    /// Target port, in services only; default: the number.
    pub(crate) target_port: Option<TargetPort>,
    /// Name, possibly empty.
    pub(crate) name: String,
    /// `TCP`, or a protocol of the application such as `http`.
    pub(crate) protocol: Option<String>,
    /// Protocol of the application.
    pub(crate) app_protocol: Option<String>,
}

/// The port of a workload that a service leads to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name that the workload gives it.
    Name(String),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LongPort {
    port: u16,
    target_port: Option<Text>,
    #[serde(default)]
    name: String,
    protocol: Option<String>,
    app_protocol: Option<String>,
}

struct PortVisitor;

impl<'de> Visitor<'de> for PortVisitor {
    type Value = Port;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number, or a mapping with `port`")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Port, E> {
        let port = u16::try_from(value).map_err(|_| E::custom(format!("{value} is not a port")))?;
        Ok(Port {
            port: nonzero(port)?,
            target_port: None,
            name: String::new(),
            protocol: None,
            app_protocol: None,
        })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Port, E> {
        let value = u64::try_from(value).map_err(|_| E::custom(format!("{value} is not a port")))?;
        self.visit_u64(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Port, A::Error> {
        let long = LongPort::deserialize(MapAccessDeserializer::new(map))?;
        let target_port = long.target_port.map(|Text(text)| match text.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_) => TargetPort::Name(text),
        });
        Ok(Port {
            port: nonzero(long.port)?,
            target_port,
            name: long.name,
            protocol: long.protocol,
            app_protocol: long.app_protocol,
        })
    }
}

fn nonzero<E: de::Error>(port: u16) -> Result<u16, E> {
    if port == 0 { Err(E::custom("0 is not a port")) } else { Ok(port) }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}
