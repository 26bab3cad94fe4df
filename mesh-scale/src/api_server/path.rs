//! Which objects a request is about: its path, and the parameters that are understood.

use serde_json::Value;

/// A collection, and perhaps one object of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `group/version/plural`, with an empty group for the core.
    pub(super) collection: String,
    /// Namespace; empty for all of them, and for what has none.
    pub(super) namespace: String,
    /// Name, when one object is meant.
    pub(super) name: Option<String>,
}

impl Target {
    /// Reads a path; `None` when it is not one of an API. A subresource means the object itself.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut words = path.trim_matches('/').split('/').filter(|word| !word.is_empty());
        let (group, version) = match words.next()? {
            "api" => ("", words.next()?),
            "apis" => (words.next()?, words.next()?),
            _ => return None,
        };
        let words: Vec<&str> = words.collect();
        let (namespace, rest) = match words.as_slice() {
            // The resource `namespaces` itself has no further word but a name or its status.
            ["namespaces", namespace, rest @ ..]
                if !rest.is_empty() && !["status", "finalize"].contains(&rest[0]) =>
            {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let (plural, name) = match rest {
            [plural] => (*plural, None),
            [plural, name, ..] => (*plural, Some((*name).to_owned())),
            [] => return None,
        };
        Some(Self {
            collection: format!("{group}/{version}/{plural}"),
            namespace: namespace.to_owned(),
            name,
        })
    }

    /// Whether an object of the collection is in the namespace that is asked about.
    pub(super) fn holds(&self, object: &Value) -> bool {
        self.namespace.is_empty() || object["metadata"]["namespace"] == *self.namespace
    }

    /// `apiVersion` of the collection.
    pub(super) fn api_version(&self) -> &str {
        let group_and_version = self.collection.rsplit_once('/').map_or("", |(before, _)| before);
        group_and_version.trim_start_matches('/')
    }
}

/// Group and version of a path that asks which resources there are of them.
pub(super) fn group_version(path: &str) -> Option<(&str, &str)> {
    let words: Vec<&str> = path.trim_matches('/').split('/').collect();
    match words.as_slice() {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

/// The parameters of lists and watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// `watch`.
    pub(super) is_watch: bool,
    /// `limit`.
    pub(super) limit: Option<usize>,
    /// `continue`.
    pub(super) continued: Option<String>,
    /// `resourceVersion`.
    pub(super) version: Option<u64>,
    labels: Vec<(String, String)>,
    name: Option<String>,
}

impl Query {
    /// Reads a query; what is not understood does not matter.
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for pair in text.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            match key {
                "watch" => query.is_watch = value == "true" || value == "1",
                "limit" => query.limit = value.parse().ok().filter(|limit| *limit > 0),
                "continue" => query.continued = Some(value).filter(|token| !token.is_empty()),
                "resourceVersion" => query.version = value.parse().ok().filter(|version| *version > 0),
                "labelSelector" => {
                    let pairs = value.split(',').filter_map(|pair| pair.split_once('='));
                    query.labels = pairs
                        .map(|(key, value)| (key.to_owned(), value.trim_start_matches('=').to_owned()))
                        .collect();
                }
                "fieldSelector" => query.name = value.strip_prefix("metadata.name=").map(str::to_owned),
                _ => {}
            }
        }
        query
    }

    /// Whether an object is selected.
    pub(super) fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        self.name.as_ref().is_none_or(|name| metadata["name"] == **name)
            && self.labels.iter().all(|(key, value)| metadata["labels"][key] == **value)
    }
}

/// Undoes percent-encoding; what is broken stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'%'));
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_and_objects() {
        let target = |path: &str| Target::parse(path).map(|t| (t.collection, t.namespace, t.name));
        let some = |collection: &str, namespace: &str, name: Option<&str>| {
            Some((collection.to_owned(), namespace.to_owned(), name.map(str::to_owned)))
        };
        assert_eq!(target("/api/v1/pods"), some("/v1/pods", "", None));
        assert_eq!(target("/api/v1/namespaces/shop"), some("/v1/namespaces", "", Some("shop")));
        assert_eq!(target("/api/v1/namespaces/shop/status"), some("/v1/namespaces", "", Some("shop")));
        assert_eq!(target("/api/v1/namespaces/shop/pods/a"), some("/v1/pods", "shop", Some("a")));
        assert_eq!(
            target("/apis/security.istio.io/v1/namespaces/a/authorizationpolicies/b/status"),
            some("security.istio.io/v1/authorizationpolicies", "a", Some("b"))
        );
        assert_eq!(target("/metrics"), None);
    }

    #[test]
    fn selectors_select() {
        let query = Query::parse("labelSelector=app%3Dweb&limit=500&watch=true&resourceVersion=12");
        assert!(query.is_watch && query.limit == Some(500) && query.version == Some(12));
        assert!(query.selects(&serde_json::json!({ "metadata": { "labels": { "app": "web" } } })));
        assert!(!query.selects(&serde_json::json!({ "metadata": { "name": "web" } })));
    }
}
