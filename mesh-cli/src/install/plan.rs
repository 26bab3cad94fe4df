//! What shall be in the cluster, from what was said: values, documents, and whether they fit together.

use serde_json::{Value, json};

use mesh_api::manifest::{self, LowerContext};
use mesh_api::problem::Severity;
use mesh_kube::crd::{DEFINITIONS, Definition};
use mesh_kube::inject::{InjectSettings, SettingsError};
use mesh_kube::name;

use super::chart::{Chart, ChartError};
use super::manifest::{Document, RenderError, render, stream};
use super::values::{self, ValuesError};

/// Why nothing can be installed with these values.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// A fault of the program.
    #[error("the chart of this program is damaged")]
    Chart(#[from] ChartError),
    /// A fault of the values.
    #[error(transparent)]
    Values(#[from] ValuesError),
    /// A template refuses them.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// MeshConfig.
    #[error("value meshConfig is not valid: {0}")]
    MeshConfig(String),
    /// Injection.
    #[error("the values injection and image give no settings of injection")]
    Injection(#[from] SettingsError),
    /// A tag that is the revision's own name.
    #[error("{0:?} is the name of the revision itself, and cannot be a tag of it")]
    TagIsRevision(String),
}

/// What shall be there.
#[derive(Debug)]
pub(crate) struct Plan {
    /// What the user said.
    pub(crate) stated: Value,
    /// All values.
    pub(crate) values: Value,
    /// The documents but for the definitions of resources.
    pub(crate) documents: Vec<Document>,
    /// Version of the control plane.
    pub(crate) version: String,
}

impl Plan {
    /// Of what was said.
    ///
    /// # Errors
    /// When something of it is not known or not valid.
    pub(crate) fn new(stated: Value) -> Result<Self, PlanError> {
        let chart = Chart::load()?;
        let mut values = values::effective(&chart, &stated)?;
        // Helm wants the namespace to be there before; nobody else makes it for us.
        if stated["namespace"]["create"].is_null() {
            values["namespace"]["create"] = json!(true);
        }
        let plan =
            Self { documents: render(&chart, &values)?, version: chart.version().to_owned(), stated, values };
        plan.check()?;
        Ok(plan)
    }

    /// The revision.
    pub(crate) fn revision(&self) -> &str {
        self.values["revision"].as_str().unwrap_or(name::DEFAULT_REVISION)
    }

    /// The tags that were asked for by name.
    pub(crate) fn tags(&self) -> Vec<&str> {
        self.values["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Everything as one stream, as Helm prints it: definitions first.
    pub(crate) fn text(&self) -> String {
        definitions() + &self.documents_text()
    }

    /// Everything as objects, definitions first.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let definitions = DEFINITIONS.iter().map(|definition| definition.object());
        definitions.chain(self.documents.iter().map(|document| document.object.clone())).collect()
    }

    /// As [`Self::text`], without the definitions.
    pub(crate) fn documents_text(&self) -> String {
        stream(self.documents.iter().map(|document| document.text.as_str()))
    }

    fn check(&self) -> Result<(), PlanError> {
        let revision = self.revision();
        if revision != name::DEFAULT_REVISION && self.tags().contains(&revision) {
            return Err(PlanError::TagIsRevision(revision.to_owned()));
        }
        let settings = self.documents.iter().filter(|document| document.kind() == "ConfigMap");
        for settings in settings {
            if let Some(inject) = settings.object["data"][name::CONFIG_INJECT].as_str() {
                InjectSettings::parse(inject)?;
            }
            let Some(mesh) = settings.object["data"][name::CONFIG_MESH].as_str() else { continue };
            let read = manifest::parse(name::CONFIG_MESH, mesh, &LowerContext::default());
            let wrong = read.problems().filter(|problem| problem.severity == Severity::Error);
            let wrong: Vec<String> = wrong.map(ToString::to_string).collect();
            if !wrong.is_empty() {
                return Err(PlanError::MeshConfig(wrong.join("; ")));
            }
        }
        Ok(())
    }
}

/// The definitions of resources as one stream.
pub(crate) fn definitions() -> String {
    let texts: Vec<String> = DEFINITIONS.iter().map(Definition::yaml).collect();
    stream(texts.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_config_that_the_control_plane_would_refuse_is_refused_before() {
        let error = Plan::new(json!({"meshConfig": {"trustDomian": "x"}})).expect_err("it is refused");
        assert!(error.to_string().contains("trustDomian"), "{error}");
    }

    #[test]
    fn settings_of_injection_that_the_webhook_would_refuse_are_refused_before() {
        for injection in [json!({"logLvel": "info"}), json!({"tokenTtlSeconds": 5})] {
            let error = Plan::new(json!({"injection": injection})).expect_err("it is refused");
            assert!(matches!(error, PlanError::Injection(_)), "{error}");
        }
    }

    #[test]
    fn a_revision_is_no_tag_of_itself() {
        let error = Plan::new(json!({"revision": "a", "tags": ["a"]})).expect_err("it is refused");
        assert!(matches!(error, PlanError::TagIsRevision(_)), "{error}");
    }
}
