//! Definitions that are there already and are not ours: Istio's. They are used as they are (pure).

use serde_json::Value;

/// What a definition lacks of what ours would have; one sentence for each.
pub(crate) fn lacks(theirs: &Value, ours: &Value) -> Vec<String> {
    let versions = |object: &Value| object["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let (theirs, ours) = (versions(theirs), versions(ours));
    let mut lacks = Vec::new();
    let known: Vec<&Value> = ours.iter().map(|version| &version["name"]).collect();
    let served: Vec<&Value> = theirs
        .iter()
        .filter(|version| version["served"] == true && known.contains(&&version["name"]))
        .collect();
    if served.is_empty() {
        let known: Vec<&str> = known.iter().filter_map(|name| name.as_str()).collect();
        lacks.push(format!(
            "none of the versions {} is served; objects of this kind are not read",
            known.join(", ")
        ));
        return lacks;
    }
    for version in served {
        let name = version["name"].as_str().unwrap_or_default();
        if version["subresources"]["status"].is_null() {
            lacks.push(format!("version {name} has no status; conditions cannot be written"));
        }
        let spec = |version: &Value| version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
        let theirs = spec(version);
        if theirs["x-kubernetes-preserve-unknown-fields"] == true {
            continue;
        }
        let ours = ours.iter().find(|ours| ours["name"] == version["name"]).map(spec).unwrap_or_default();
        let missing: Vec<&str> = ours["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(field, _)| field.as_str())
            .filter(|field| theirs["properties"][*field].is_null())
            .collect();
        if !missing.is_empty() {
            lacks.push(format!(
                "version {name} does not know {}; the API server drops them",
                missing.join(", ")
            ));
        }
    }
    lacks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(version: &str, fields: &[&str], status: bool) -> Value {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let subresources = if status { json!({"status": {}}) } else { json!({}) };
        json!({"spec": {"versions": [{
            "name": version, "served": true, "subresources": subresources,
            "schema": {"openAPIV3Schema": {"properties": {"spec": {"properties": fields}}}},
        }]}})
    }

    #[test]
    fn what_is_missing_is_said_and_what_is_more_is_not() {
        let ours = definition("v1", &["a", "b"], true);
        assert_eq!(lacks(&definition("v1", &["a", "b", "c"], true), &ours), [""; 0]);
        let said = lacks(&definition("v1", &["a"], false), &ours);
        assert!(said[0].contains("no status") && said[1].contains("does not know b"), "{said:?}");
        assert!(lacks(&definition("v9", &[], true), &ours)[0].contains("none of the versions v1"));
    }
}
