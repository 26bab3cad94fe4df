//! The Helm chart, inside of this program.

use serde_json::Value;

use super::template::{TemplateError, Templates};

/// Templates by their names in the chart, in order.
const TEMPLATES: [(&str, &str); 12] = [
    ("templates/_names.tpl", include_str!("../../../charts/mini-mesh/templates/_names.tpl")),
    ("templates/autoscaling.yaml", include_str!("../../../charts/mini-mesh/templates/autoscaling.yaml")),
    ("templates/configmap.yaml", include_str!("../../../charts/mini-mesh/templates/configmap.yaml")),
    ("templates/deployment.yaml", include_str!("../../../charts/mini-mesh/templates/deployment.yaml")),
    ("templates/namespace.yaml", include_str!("../../../charts/mini-mesh/templates/namespace.yaml")),
    ("templates/networkpolicy.yaml", include_str!("../../../charts/mini-mesh/templates/networkpolicy.yaml")),
    (
        "templates/poddisruptionbudget.yaml",
        include_str!("../../../charts/mini-mesh/templates/poddisruptionbudget.yaml"),
    ),
    ("templates/rbac.yaml", include_str!("../../../charts/mini-mesh/templates/rbac.yaml")),
    ("templates/resourcequota.yaml", include_str!("../../../charts/mini-mesh/templates/resourcequota.yaml")),
    ("templates/service.yaml", include_str!("../../../charts/mini-mesh/templates/service.yaml")),
    (
        "templates/serviceaccount.yaml",
        include_str!("../../../charts/mini-mesh/templates/serviceaccount.yaml"),
    ),
    ("templates/webhooks.yaml", include_str!("../../../charts/mini-mesh/templates/webhooks.yaml")),
];
const VALUES: &str = include_str!("../../../charts/mini-mesh/values.yaml");
const SCHEMA: &str = include_str!("../../../charts/mini-mesh/values.schema.json");
const CHART: &str = include_str!("../../../charts/mini-mesh/Chart.yaml");
/// Profiles by name, with their files.
const PROFILES: [(&str, &str); 4] = [
    ("default", include_str!("../../../charts/mini-mesh/profiles/default.yaml")),
    ("demo", include_str!("../../../charts/mini-mesh/profiles/demo.yaml")),
    ("ha", include_str!("../../../charts/mini-mesh/profiles/ha.yaml")),
    ("minimal", include_str!("../../../charts/mini-mesh/profiles/minimal.yaml")),
];

/// Why the chart inside of this program cannot be read: a fault of the program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChartError {
    /// A template.
    #[error("a template of the chart cannot be read")]
    Template(#[from] TemplateError),
    /// A YAML file.
    #[error("{file} of the chart cannot be read")]
    Yaml {
        /// File.
        file: &'static str,
        /// Cause.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// The schema.
    #[error("values.schema.json of the chart cannot be read")]
    Schema(#[source] serde_json::Error),
}

/// The chart.
#[derive(Debug)]
pub(crate) struct Chart {
    /// Templates.
    pub(super) templates: Templates,
    /// Values where nothing else is said.
    pub(super) values: Value,
    /// What values there are.
    pub(super) schema: Value,
    /// Name and versions, as templates see them.
    pub(super) about: Value,
}

impl Chart {
    /// Reads it.
    ///
    /// # Errors
    /// When a file of it is not understood.
    pub(crate) fn load() -> Result<Self, ChartError> {
        let mut templates = Templates::default();
        for (file, text) in TEMPLATES {
            templates.add(file, text)?;
        }
        let about = yaml("Chart.yaml", CHART)?;
        let about = serde_json::json!({
            "Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"],
        });
        Ok(Self {
            templates,
            values: yaml("values.yaml", VALUES)?,
            schema: serde_json::from_str(SCHEMA).map_err(ChartError::Schema)?,
            about,
        })
    }

    /// The version that it installs.
    pub(crate) fn version(&self) -> &str {
        self.about["AppVersion"].as_str().unwrap_or_default()
    }
}

/// Names of the templates that print something.
pub(super) fn printing() -> impl Iterator<Item = &'static str> {
    TEMPLATES.iter().map(|(file, _)| *file).filter(|file| !file.contains("/_"))
}

/// The profiles by name, with the text of their files.
pub(crate) fn profiles() -> &'static [(&'static str, &'static str)] {
    &PROFILES
}

/// The values of the chart, with their comments.
pub(crate) fn values_text() -> &'static str {
    VALUES
}

fn yaml(file: &'static str, text: &str) -> Result<Value, ChartError> {
    serde_saphyr::from_str(text).map_err(|source| ChartError::Yaml { file, source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_chart_is_in_the_program() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/mini-mesh");
        let names = |folder: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(format!("{root}/{folder}")).expect("the folder is there");
            entries
                .map(|entry| format!("{folder}/{}", entry.expect("an entry").file_name().to_string_lossy()))
                .filter(|name| !name.ends_with("NOTES.txt"))
                .collect()
        };
        let known: BTreeSet<String> = TEMPLATES.iter().map(|(file, _)| (*file).to_owned()).collect();
        assert_eq!(names("templates"), known);
        let known: BTreeSet<String> =
            PROFILES.iter().map(|(name, _)| format!("profiles/{name}.yaml")).collect();
        assert_eq!(names("profiles"), known);
    }

    #[test]
    fn the_chart_has_the_version_of_the_program() {
        let chart = Chart::load().expect("the chart is read");
        assert_eq!(chart.version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(chart.about["Version"], chart.about["AppVersion"]);
    }
}
