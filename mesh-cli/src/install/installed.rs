//! What is installed: records, and which revision each tag points to.

use std::collections::BTreeMap;

use mesh_kube::name;
use serde_json::{Value, json};

use super::object::{Kind, label};
use super::record::{Record, RecordError};
use super::server;
use crate::cluster::{Cluster, ClusterError};

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstalledError {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// One has to be named.
    #[error("several revisions are installed: {}", .installed.join(", "))]
    Several {
        /// They.
        installed: Vec<String>,
    },
    /// Nothing is.
    #[error("revision {revision:?} is not installed{}", others(.installed))]
    Revision {
        /// The revision that was meant.
        revision: String,
        /// Those that are.
        installed: Vec<String>,
    },
}

fn others(installed: &[String]) -> String {
    match installed {
        [] => "; no other is either".to_owned(),
        all => format!("; installed are {}", all.join(", ")),
    }
}

/// Every installation that recorded itself, by revision.
///
/// # Errors
/// When the API server does not say, or a record is damaged.
pub(crate) async fn records(cluster: &Cluster) -> Result<BTreeMap<String, Record>, InstalledError> {
    let labels = format!("{}={}", name::LABEL_COMPONENT, name::COMPONENT_INSTALLATION);
    let Some(kind) = Kind::named("ConfigMap") else { return Ok(BTreeMap::new()) };
    let found = server::list(cluster, kind, Some(name::SYSTEM_NAMESPACE), &labels).await?;
    let records =
        found.iter().map(|object| Record::of(object).map(|record| (record.revision.clone(), record)));
    Ok(records.collect::<Result<BTreeMap<String, Record>, RecordError>>()?)
}

/// The record of one revision.
///
/// # Errors
/// As [`records`], and when the revision is not installed.
pub(crate) async fn record(cluster: &Cluster, revision: &str) -> Result<Record, InstalledError> {
    let mut all = records(cluster).await?;
    all.remove(revision).ok_or_else(|| InstalledError::Revision {
        revision: revision.to_owned(),
        installed: all.into_keys().collect(),
    })
}

/// The revision of each tag.
///
/// # Errors
/// When the API server does not say.
pub(crate) async fn tags(cluster: &Cluster) -> Result<BTreeMap<String, String>, ClusterError> {
    let Some(kind) = Kind::named("MutatingWebhookConfiguration") else { return Ok(BTreeMap::new()) };
    let labels = format!("{}={},{}", name::LABEL_PART_OF, name::PART_OF, name::LABEL_TAG);
    let found = server::list(cluster, kind, None, &labels).await?;
    let pair = |object: &Value| {
        let tag = label(object, name::LABEL_TAG)?;
        Some((tag.to_owned(), label(object, name::LABEL_REVISION)?.to_owned()))
    };
    Ok(found.iter().filter_map(pair).collect())
}

/// What was said, with the tags that the revision has in the cluster: an installation takes no tag away and
/// takes none from another revision without being told (pure).
pub(crate) fn with_tags(mut stated: Value, tags: &BTreeMap<String, String>) -> Value {
    let revision = stated["revision"].as_str().unwrap_or(name::DEFAULT_REVISION).to_owned();
    let mut all: Vec<String> = stated["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let is_default = revision == name::DEFAULT_REVISION;
    let has_asked = all.iter().any(|tag| tag == name::DEFAULT_REVISION);
    for (tag, owner) in tags {
        let is_own_name = is_default && tag == name::DEFAULT_REVISION;
        if *owner == revision && !all.contains(tag) && !is_own_name {
            all.push(tag.clone());
        }
        if is_own_name && *owner != revision && !has_asked && stated["defaultTag"].is_null() {
            stated["defaultTag"] = json!(false);
        }
    }
    if !all.is_empty() {
        stated["tags"] = all.into();
    }
    stated
}

/// What was said, without a tag (pure).
pub(crate) fn without_tag(mut stated: Value, revision: &str, tag: &str) -> Value {
    if let Some(tags) = stated["tags"].as_array_mut() {
        tags.retain(|known| known != tag);
    }
    if revision == name::DEFAULT_REVISION && tag == name::DEFAULT_REVISION {
        stated["defaultTag"] = json!(false);
    }
    if let Some(fields) = stated.as_object_mut() {
        fields.retain(|_, value| !value.is_null() && *value != json!([]));
    }
    stated
}

/// What was said, with a tag (pure).
pub(crate) fn with_tag(mut stated: Value, revision: &str, tag: &str) -> Value {
    if revision == name::DEFAULT_REVISION && tag == name::DEFAULT_REVISION {
        if let Some(fields) = stated.as_object_mut() {
            fields.remove("defaultTag");
        }
        return stated;
    }
    let mut tags: Vec<Value> = stated["tags"].as_array().cloned().unwrap_or_default();
    if !tags.iter().any(|known| known == tag) {
        tags.push(tag.into());
    }
    stated["tags"] = tags.into();
    stated
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(tag, revision)| ((*tag).to_owned(), (*revision).to_owned())).collect()
    }

    #[test]
    fn an_installation_keeps_its_tags_and_takes_none() {
        let canary = with_tags(json!({"revision": "canary"}), &tags(&[("a", "canary"), ("b", "other")]));
        assert_eq!(canary, json!({"revision": "canary", "tags": ["a"]}));
        let default = with_tags(json!({}), &tags(&[("default", "canary"), ("c", "default")]));
        assert_eq!(default, json!({"defaultTag": false, "tags": ["c"]}));
        assert_eq!(with_tags(json!({}), &tags(&[("default", "default")])), json!({}));
        let asked = with_tags(json!({"tags": ["default"]}), &tags(&[("default", "canary")]));
        assert_eq!(asked, json!({"tags": ["default"]}));
    }

    #[test]
    fn tags_come_and_go() {
        let with = with_tag(json!({"revision": "canary"}), "canary", "default");
        assert_eq!(with, json!({"revision": "canary", "tags": ["default"]}));
        assert_eq!(without_tag(with, "canary", "default"), json!({"revision": "canary"}));
        assert_eq!(without_tag(json!({}), "default", "default"), json!({"defaultTag": false}));
        assert_eq!(with_tag(json!({"defaultTag": false}), "default", "default"), json!({}));
    }
}
