//! One finding: what is wrong, where, what happens because of it, and what to do.

use std::fmt;

use mesh_api::model::{Kind, ObjectMeta, ObjectRef, Origin};
use mesh_api::name::{Namespace, ObjectName};
use mesh_api::problem::{Problem, Severity};

use super::catalogue::Code;

/// The object that a finding is about, of any kind, also one that the mesh does not serve.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    /// Kind, as YAML writes it.
    pub kind: String,
    /// Namespace; empty for kinds without one.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.is_empty() {
            true => write!(f, "{} {}", self.kind, self.name),
            false => write!(f, "{} {}/{}", self.kind, self.namespace, self.name),
        }
    }
}

impl From<&ObjectRef> for Named {
    fn from(object: &ObjectRef) -> Self {
        let namespace = match object.kind == Kind::Namespace {
            true => String::new(),
            false => object.namespace.to_string(),
        };
        Self { kind: object.kind.to_string(), namespace, name: object.name.to_string() }
    }
}

impl Named {
    /// The object as the model names it, if it is of a kind that the mesh serves.
    #[must_use]
    pub fn object(&self) -> Option<ObjectRef> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == self.kind)?;
        let namespace = if kind == Kind::Namespace { &self.name } else { &self.namespace };
        Some(ObjectRef {
            kind,
            namespace: Namespace::parse(namespace).ok()?,
            name: ObjectName::parse(&self.name).ok()?,
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which kind of finding.
    pub code: &'static Code,
    /// How bad this one is.
    pub severity: Severity,
    /// The object.
    pub subject: Named,
    /// Where the object stands.
    pub origin: Origin,
    /// The field, for instance `spec.rules[0].from[0].source.principals[1]`; empty for the whole.
    pub field: String,
    /// What is wrong, and what happens because of it. `⟨PATH⟩` stands for the line of a field of the object.
    pub message: String,
    /// What to do, in a sentence.
    pub hint: String,
    /// What to write, as YAML; empty when a sentence is all there is to say.
    pub fix: String,
}

impl Finding {
    /// A finding with the level and the fix of its code.
    pub(super) fn of(
        code: &'static Code,
        meta: &ObjectMeta,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::about(code, Named::from(&meta.object), &meta.origin, field, message)
    }

    /// A finding about an object of any kind.
    pub(super) fn about(
        code: &'static Code,
        subject: Named,
        origin: &Origin,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity: code.severity,
            subject,
            origin: origin.clone(),
            field: field.into(),
            message: message.into(),
            hint: code.fix.to_owned(),
            fix: String::new(),
        }
    }

    pub(super) fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// Puts the line of each field in place: in the origin, and in the message. `line_of` knows the lines of
    /// the object; a field that it does not know is that of the nearest parent.
    pub fn locate(&mut self, line_of: &dyn Fn(&str) -> Option<u32>) {
        if let Some(line) = line_of(&self.field) {
            self.origin.line = line;
        }
        self.message = rendered(&self.message, line_of);
    }

    /// The finding as the control plane keeps it. Without lines a field is named by its path.
    #[must_use]
    pub fn into_problem(self) -> Problem {
        Problem {
            code: self.code.id.to_owned(),
            severity: self.severity,
            object: self.subject.object(),
            origin: self.origin,
            field: self.field,
            message: rendered(&self.message, &|_| None),
            hint: self.hint,
        }
    }
}

fn rendered(message: &str, line_of: &dyn Fn(&str) -> Option<u32>) -> String {
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once('⟨') {
        text.push_str(before);
        let (path, behind) = after.split_once('⟩').unwrap_or((after, ""));
        text.push_str(path.strip_prefix("spec.").unwrap_or(path));
        if let Some(line) = line_of(path) {
            text.push_str(&format!(" (line {line})"));
        }
        rest = behind;
    }
    text.push_str(rest);
    text
}
