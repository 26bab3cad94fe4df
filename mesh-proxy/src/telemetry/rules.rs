//! What Telemetry makes of a record: whether it is logged, which metrics count it, and with which labels.
//!
//! Compiled once when the configuration arrives. Without a Telemetry every question here is answered by a look at
//! an empty list, so that a request pays nothing for it.

use std::collections::BTreeMap;

use mesh_api::model::AccessLogFormat;
use mesh_api::model::telemetry::{
    AccessLogRule, Side, SideTelemetry, StandardMetric, TagOverride, WorkloadTelemetry,
};
use mesh_policy::telemetry::{AttributeSource, Program};
use metrics::Label;

use crate::connection::Direction;

/// Most headers of requests that are kept for expressions, and the longest value of one in bytes.
const HEADERS_MAX: usize = 32;
pub(super) const HEADER_BYTES_MAX: usize = 1024;
/// Longest value of a label that an expression makes, in characters. A client may have chosen it.
const LABEL_CHARACTERS_MAX: usize = 128;
/// What Istio writes for what it does not know.
const UNKNOWN: &str = "unknown";

/// Telemetry of the own workload.
#[derive(Debug, Default)]
pub struct Rules {
    client: SideRules,
    server: SideRules,
    headers: Vec<String>,
}

/// Telemetry of one direction.
#[derive(Debug, Default)]
pub struct SideRules {
    log: LogRule,
    disabled: Vec<StandardMetric>,
    tags: BTreeMap<StandardMetric, Vec<(String, Tag)>>,
    programs: Vec<Program>,
}

#[derive(Debug, Default)]
enum LogRule {
    /// As the settings of the mesh have it.
    #[default]
    OfMesh,
    Off,
    /// When one holds; none stands for always.
    On(Vec<Program>),
}

#[derive(Debug, Clone, Copy)]
enum Tag {
    Remove,
    /// The value of the program at this place.
    Set(usize),
    /// The expression is none.
    Unknown,
}

impl Rules {
    /// Compiles what the workload is sent.
    #[must_use]
    pub fn compile(telemetry: &WorkloadTelemetry) -> Self {
        let client = SideRules::compile(telemetry.side(Side::Client));
        let server = SideRules::compile(telemetry.side(Side::Server));
        let mut headers: Vec<String> =
            client.all_programs().chain(server.all_programs()).flat_map(Program::headers).cloned().collect();
        headers.sort();
        headers.dedup();
        headers.truncate(HEADERS_MAX);
        Self { client, server, headers }
    }

    /// The rules of a direction.
    #[must_use]
    pub fn of(&self, direction: Direction) -> &SideRules {
        match direction {
            Direction::Outbound => &self.client,
            Direction::Inbound => &self.server,
        }
    }

    /// Headers of requests that expressions read, in lower case.
    #[must_use]
    pub fn headers(&self) -> &[String] {
        &self.headers
    }
}

impl SideRules {
    fn compile(telemetry: &SideTelemetry) -> Self {
        let log = match &telemetry.access_log {
            AccessLogRule::OfMesh => LogRule::OfMesh,
            AccessLogRule::Off => LogRule::Off,
            AccessLogRule::On(filters) => {
                let compiled: Vec<Program> =
                    filters.iter().filter_map(|filter| Program::compile(filter).ok()).collect();
                // A filter that is none holds for nothing; without this it would hold for everything.
                if compiled.is_empty() && !filters.is_empty() { LogRule::Off } else { LogRule::On(compiled) }
            }
        };
        let mut rules = Self {
            log,
            disabled: telemetry.disabled_metrics.iter().copied().collect(),
            tags: BTreeMap::new(),
            programs: Vec::new(),
        };
        let mut known: BTreeMap<&str, Tag> = BTreeMap::new();
        for (metric, changes) in &telemetry.tags {
            let changes = changes.iter().map(|(name, change)| {
                let tag = match change {
                    TagOverride::Remove => Tag::Remove,
                    TagOverride::Upsert(text) => *known.entry(text).or_insert_with(|| rules.program(text)),
                };
                (name.clone(), tag)
            });
            let changes = changes.collect();
            rules.tags.insert(*metric, changes);
        }
        rules
    }

    fn program(&mut self, text: &str) -> Tag {
        match Program::compile(text) {
            Ok(program) => {
                self.programs.push(program);
                Tag::Set(self.programs.len() - 1)
            }
            Err(_) => Tag::Unknown,
        }
    }

    fn all_programs(&self) -> impl Iterator<Item = &Program> {
        let filters = match &self.log {
            LogRule::On(filters) => filters.as_slice(),
            LogRule::OfMesh | LogRule::Off => &[],
        };
        filters.iter().chain(&self.programs)
    }

    /// The format in which a record is logged, if it is; `of_mesh` is that of the settings.
    #[must_use]
    pub fn log_format(
        &self,
        of_mesh: AccessLogFormat,
        record: &dyn AttributeSource,
    ) -> Option<AccessLogFormat> {
        match (&self.log, of_mesh) {
            (LogRule::Off, _) | (LogRule::OfMesh, AccessLogFormat::Off) => None,
            (LogRule::OfMesh, format) => Some(format),
            (LogRule::On(filters), format) => {
                let is_logged = filters.is_empty() || filters.iter().any(|filter| filter.holds(record));
                // The settings turn the log off and name no format then.
                let format = if format == AccessLogFormat::Off { AccessLogFormat::Json } else { format };
                is_logged.then_some(format)
            }
        }
    }

    /// Whether a metric counts nothing.
    #[must_use]
    pub fn is_disabled(&self, metric: StandardMetric) -> bool {
        self.disabled.contains(&metric)
    }

    /// Values that labels get from a record; they are a part of the label set.
    #[must_use]
    pub fn values(&self, record: &dyn AttributeSource) -> Vec<String> {
        let value = |program: &Program| match program.text(record) {
            Some(text) => text.chars().take(LABEL_CHARACTERS_MAX).collect(),
            None => UNKNOWN.to_owned(),
        };
        self.programs.iter().map(value).collect()
    }

    /// The labels of a metric: those that every metric has, changed.
    #[must_use]
    pub fn labels(&self, metric: StandardMetric, standard: &[Label], values: &[String]) -> Vec<Label> {
        let mut labels = standard.to_vec();
        for (name, tag) in self.tags.get(&metric).into_iter().flatten() {
            labels.retain(|label| label.key() != name);
            let value = match tag {
                Tag::Remove => continue,
                Tag::Set(place) => values.get(*place).map_or(UNKNOWN, String::as_str),
                Tag::Unknown => UNKNOWN,
            };
            labels.push(Label::new(name.clone(), value.to_owned()));
        }
        labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_policy::telemetry::{Attribute, Value};
    use std::borrow::Cow;

    #[derive(Debug)]
    struct Answered(i64);

    impl AttributeSource for Answered {
        fn attribute(&self, attribute: Attribute) -> Option<Value<'_>> {
            match attribute {
                Attribute::ResponseCode => Some(Value::Int(self.0)),
                Attribute::RequestHost => Some(Value::Text("x".repeat(1_000).into())),
                _ => None,
            }
        }

        fn request_header(&self, _name: &str) -> Option<Cow<'_, str>> {
            None
        }
    }

    fn logging(rule: AccessLogRule) -> Rules {
        let mut telemetry = WorkloadTelemetry::default();
        telemetry.server.access_log = rule;
        Rules::compile(&telemetry)
    }

    #[test]
    fn the_log_is_that_of_the_mesh_unless_telemetry_says_otherwise() {
        let (json, text, off) = (AccessLogFormat::Json, AccessLogFormat::Text, AccessLogFormat::Off);
        let on =
            |filters: &[&str]| AccessLogRule::On(filters.iter().map(|text| (*text).to_owned()).collect());
        for (rule, of_mesh, expected) in [
            (AccessLogRule::OfMesh, text, Some(text)),
            (AccessLogRule::OfMesh, off, None),
            (AccessLogRule::Off, json, None),
            (on(&[]), off, Some(json)),
            (on(&[]), text, Some(text)),
            (on(&["response.code >= 500"]), json, Some(json)),
            (on(&["response.code < 500"]), json, None),
            (on(&["response.code < 500", "response.code == 503"]), json, Some(json)),
            (on(&["unheard.of"]), json, None),
            (on(&["no expression"]), json, None),
        ] {
            let rules = logging(rule.clone());
            let found = rules.of(Direction::Inbound).log_format(of_mesh, &Answered(503));
            assert_eq!(found, expected, "{rule:?}");
            assert_eq!(
                rules.of(Direction::Outbound).log_format(of_mesh, &Answered(503)),
                Some(of_mesh).filter(|format| *format != off)
            );
        }
    }

    #[test]
    fn labels_are_left_out_and_set_metric_by_metric() {
        let mut telemetry = WorkloadTelemetry::default();
        let upsert = |text: &str| TagOverride::Upsert(text.to_owned());
        let tags = BTreeMap::from([
            ("source_app".to_owned(), TagOverride::Remove),
            ("code".to_owned(), upsert("string(response.code)")),
            ("host".to_owned(), upsert("request.host")),
            ("nothing".to_owned(), upsert("request.id")),
            ("broken".to_owned(), upsert("((")),
            ("reporter".to_owned(), upsert("'me'")),
        ]);
        telemetry.client.tags.insert(StandardMetric::RequestCount, tags);
        telemetry.client.disabled_metrics.insert(StandardMetric::RequestSize);
        let rules = Rules::compile(&telemetry);
        let rules = rules.of(Direction::Outbound);
        let standard = [Label::new("reporter", "source"), Label::new("source_app", "a")];
        let values = rules.values(&Answered(200));
        let labels = rules.labels(StandardMetric::RequestCount, &standard, &values);
        let value = |key: &str| labels.iter().find(|label| label.key() == key).map(Label::value);
        assert_eq!((value("source_app"), value("code"), value("reporter")), (None, Some("200"), Some("me")));
        assert_eq!((value("nothing"), value("broken")), (Some("unknown"), Some("unknown")));
        assert_eq!(value("host").map(str::len), Some(LABEL_CHARACTERS_MAX), "a client chose it");
        assert_eq!(rules.labels(StandardMetric::RequestDuration, &standard, &values), standard);
        assert!(rules.is_disabled(StandardMetric::RequestSize));
        assert!(!rules.is_disabled(StandardMetric::RequestCount));
    }

    #[test]
    fn headers_that_expressions_read_are_known() {
        let rule =
            AccessLogRule::On(vec!["request.headers['X-B'] == 'a' || 'x-a' in request.headers".to_owned()]);
        assert_eq!(logging(rule).headers(), ["x-a", "x-b"]);
    }
}
