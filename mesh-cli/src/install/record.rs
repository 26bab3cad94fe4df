//! What was said at installation, kept in the cluster: for `upgrade` and `verify-install`, and whoever looks.
//!
//! A ConfigMap, so that it is read with the rights of a reader; values hold no secrets.

use mesh_kube::name;
use mesh_kube::yaml::to_yaml;
use serde_json::{Map, Value, json};

use super::object::{Wanted, label};

const VERSION: &str = "version";
const VALUES: &str = "values.yaml";

/// An installation, as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Its revision.
    pub(crate) revision: String,
    /// Version of the chart.
    pub(crate) version: String,
    /// What was said over the values of the chart.
    pub(crate) stated: Value,
}

/// Why a record cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("ConfigMap {name} does not hold what an installation records; `meshctl install` writes it anew")]
pub(crate) struct RecordError {
    name: String,
}

impl Record {
    /// Name of the ConfigMap of a revision.
    pub(crate) fn name(revision: &str) -> String {
        name::of_revision(name::INSTALLATION, revision)
    }

    /// As an object.
    pub(crate) fn to_object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": Self::name(&self.revision),
                "namespace": name::SYSTEM_NAMESPACE,
                "labels": {
                    "app.kubernetes.io/name": name::PART_OF,
                    (name::LABEL_PART_OF): name::PART_OF,
                    (name::LABEL_REVISION): self.revision,
                    (name::LABEL_COMPONENT): name::COMPONENT_INSTALLATION,
                },
            },
            "data": {(VERSION): self.version, (VALUES): to_yaml(&self.stated) + "\n"},
        })
    }

    /// As [`Self::to_object`], to be applied.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        Wanted::new(self.to_object())
    }

    /// Of an object.
    ///
    /// # Errors
    /// When somebody has written something else there.
    pub(crate) fn of(object: &Value) -> Result<Self, RecordError> {
        let error =
            || RecordError { name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned() };
        let text = |key: &str| object["data"][key].as_str();
        let revision = label(object, name::LABEL_REVISION).ok_or_else(error)?;
        let values = text(VALUES).ok_or_else(error)?;
        let stated: Value = match values.trim() {
            "" | "{}" => Value::Object(Map::new()),
            text => serde_saphyr::from_str(text).map_err(|_| error())?,
        };
        if !stated.is_object() {
            return Err(error());
        }
        Ok(Self {
            revision: revision.to_owned(),
            version: text(VERSION).ok_or_else(error)?.to_owned(),
            stated,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_read_back() {
        let record = Record {
            revision: "canary".to_owned(),
            version: "0.1.0".to_owned(),
            stated: json!({"control": {"replicas": 3}, "tags": ["a"], "image": {"tag": "1"}}),
        };
        assert_eq!(Record::of(&record.to_object()).expect("it is read"), record);
        assert!(Record::of(&json!({"metadata": {"name": "x"}})).is_err());
    }
}
