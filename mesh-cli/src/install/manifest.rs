//! What is installed, as documents in the order of Helm.

use serde_json::{Value, json};

use super::chart::{self, Chart};
use super::template::TemplateError;
use mesh_kube::name;

/// Kinds in the order in which Helm applies them. Others follow, by name.
const ORDER: [&str; 14] = [
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "PodDisruptionBudget",
    "ServiceAccount",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "Deployment",
    "HorizontalPodAutoscaler",
];

/// Why the chart with some values gives no documents.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenderError {
    /// A template.
    #[error("the chart cannot be rendered with these values")]
    Template(#[from] TemplateError),
    /// What a template printed is no YAML.
    #[error("{file} gives no YAML with these values")]
    Yaml {
        /// Template.
        file: &'static str,
        /// Cause.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A document without kind or name.
    #[error("{0} gives a document without kind or name with these values")]
    Nameless(&'static str),
}

/// A document of the chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document {
    /// As the template printed it.
    pub(crate) text: String,
    /// As it is read.
    pub(crate) object: Value,
}

impl Document {
    /// `kind` of the object.
    pub(crate) fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }
}

/// The documents of the chart with `values`, without the definitions of resources.
///
/// # Errors
/// When a template refuses the values.
pub(crate) fn render(chart: &Chart, values: &Value) -> Result<Vec<Document>, RenderError> {
    let context = json!({
        "Values": values,
        "Chart": chart.about,
        "Release": {
            "Name": name::PART_OF, "Namespace": name::SYSTEM_NAMESPACE, "Service": "Helm",
            "Revision": 1, "IsInstall": true, "IsUpgrade": false,
        },
    });
    let mut documents = Vec::new();
    for file in chart::printing() {
        let text = chart.templates.render(file, &context)?;
        for text in split(&text) {
            let object: Value = serde_saphyr::from_str(text)
                .map_err(|source| RenderError::Yaml { file, source: Box::new(source) })?;
            if !object["kind"].is_string() || !object["metadata"]["name"].is_string() {
                return Err(RenderError::Nameless(file));
            }
            documents.push(Document { text: text.to_owned(), object });
        }
    }
    documents.sort_by(|left, right| order(left.kind()).cmp(&order(right.kind())));
    Ok(documents)
}

/// One stream of documents, as Helm prints it.
pub(crate) fn stream<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(|text| format!("---\n{text}\n")).collect()
}

fn order(kind: &str) -> (usize, &str) {
    let known = ORDER.iter().position(|known| *known == kind);
    known.map_or((ORDER.len(), kind), |position| (position, ""))
}

/// Documents of a stream, without white space around them.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let separators = text.match_indices("---").filter(|(at, _)| *at == 0 || text[..*at].ends_with('\n'));
    let mut starts: Vec<(usize, usize)> = vec![(0, 0)];
    starts.extend(separators.map(|(at, mark)| (at, at + mark.len())));
    let ends: Vec<usize> = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]).collect();
    let parts: Vec<&str> =
        starts.into_iter().zip(ends).map(|((_, start), end)| text[start..end].trim()).collect();
    parts.into_iter().filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests;
