//! Definitions that are there already and are not ours: Istio's. They are used as they are (pure).

use serde_json::Value;

/// Fields that are named in one sentence.
const NAMED_MAX: usize = 6;

/// What a definition lacks of what ours would have; one sentence for each.
pub(crate) fn lacks(theirs: &Value, ours: &Value) -> Vec<String> {
    let versions = |object: &Value| object["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let (theirs, ours) = (versions(theirs), versions(ours));
    let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
    let pairs: Vec<(&Value, &Value)> = theirs
        .iter()
        .filter(|version| version["served"] == true)
        .filter_map(|version| Some((version, ours.iter().find(|ours| ours["name"] == version["name"])?)))
        .collect();
    if pairs.is_empty() {
        let known: Vec<String> = ours.iter().map(name).collect();
        let known = known.join(", ");
        return vec![format!("none of the versions {known} is served; objects of this kind are not read")];
    }
    // Versions mostly lack the same, which is said once.
    let mut lacks: Vec<(String, Vec<String>)> = Vec::new();
    for (version, ours) in pairs {
        for lack in of_version(version, ours) {
            match lacks.iter_mut().find(|(known, _)| *known == lack) {
                Some((_, names)) => names.push(name(version)),
                None => lacks.push((lack, vec![name(version)])),
            }
        }
    }
    lacks.into_iter().map(|(lack, names)| format!("in {}, {lack}", names.join(", "))).collect()
}

fn of_version(theirs: &Value, ours: &Value) -> Vec<String> {
    let mut lacks = Vec::new();
    if theirs["subresources"]["status"].is_null() {
        lacks.push("there is no status; conditions cannot be written".to_owned());
    }
    let spec = |version: &Value| version["schema"]["openAPIV3Schema"]["properties"]["spec"].clone();
    let mut missing = Vec::new();
    walk(&spec(theirs), &spec(ours), "spec", &mut missing);
    if !missing.is_empty() {
        let more = match missing.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        missing.truncate(NAMED_MAX);
        let named = missing.join(", ");
        lacks.push(format!(
            "these fields are not known: {named}{more}; the API server drops them in silence, and what they say does not hold"
        ));
    }
    lacks
}

/// Fields of ours that an API server would drop by their schema, at any depth: a source of a rule without the one
/// field that it has matches everybody.
fn walk(theirs: &Value, ours: &Value, path: &str, missing: &mut Vec<String>) {
    let is_kept = theirs["x-kubernetes-preserve-unknown-fields"] == true;
    for (field, ours) in ours["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{field}");
        let theirs = match &theirs["properties"][field] {
            Value::Null => &theirs["additionalProperties"],
            known => known,
        };
        match theirs {
            Value::Null | Value::Bool(false) if is_kept => {}
            Value::Null | Value::Bool(false) => missing.push(path),
            // Any value is kept.
            Value::Bool(true) => {}
            theirs => walk(theirs, ours, &path, missing),
        }
    }
    for (part, step) in [("items", "[]"), ("additionalProperties", ".*")] {
        if ours[part].is_object() && theirs[part].is_object() {
            walk(&theirs[part], &ours[part], &format!("{path}{step}"), missing);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    use mesh_kube::crd::DEFINITIONS;

    /// Our definition of a kind, changed to be as Istio's are: no null, no unknown field, a mark of whose it is.
    fn as_of_istio(kind: &str) -> (Value, Value) {
        fn strict(schema: &mut Value) {
            match schema {
                Value::Object(fields) => {
                    fields.remove("x-kubernetes-preserve-unknown-fields");
                    fields.remove("nullable");
                    fields.values_mut().for_each(strict);
                }
                Value::Array(items) => items.iter_mut().for_each(strict),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        let ours = DEFINITIONS.iter().find(|it| it.kind == kind).expect("a kind").object();
        let mut theirs = ours.clone();
        strict(&mut theirs);
        theirs["metadata"]["labels"] = json!({"app": "istio-pilot", "release": "istio"});
        (theirs, ours)
    }

    fn versions(definition: &mut Value) -> &mut Vec<Value> {
        definition["spec"]["versions"].as_array_mut().expect("it has versions")
    }

    #[test]
    fn definitions_that_know_every_field_lack_nothing_though_they_drop_others() {
        for definition in DEFINITIONS {
            let (mut theirs, ours) = as_of_istio(definition.kind);
            // They serve more versions, store another one, know more and show less.
            for version in versions(&mut theirs) {
                version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["more"] =
                    json!({"type": "string"});
                version["additionalPrinterColumns"] = Value::Null;
            }
            versions(&mut theirs).push(json!({"name": "v9", "served": true}));
            assert_eq!(lacks(&theirs, &ours), [""; 0], "{}", definition.kind);
        }
    }

    #[test]
    fn a_field_that_is_dropped_at_any_depth_is_named_once_for_all_versions() {
        let (mut theirs, ours) = as_of_istio("AuthorizationPolicy");
        const SOURCE: &str = "/schema/openAPIV3Schema/properties/spec/properties/rules/items/properties/from/items/properties/source/properties";
        for version in versions(&mut theirs) {
            let source = version.pointer_mut(SOURCE).and_then(Value::as_object_mut).expect("a source");
            assert!(source.remove("serviceAccounts").is_some());
        }
        let said = lacks(&theirs, &ours);
        assert_eq!(said.len(), 1, "{said:?}");
        let begin = "in v1, v1beta1, these fields are not known: spec.rules[].from[].source.serviceAccounts;";
        assert!(said[0].starts_with(begin), "{said:?}");
    }

    #[test]
    fn fields_that_are_kept_without_being_known_are_not_missed() {
        let (mut theirs, ours) = as_of_istio("Telemetry");
        for version in versions(&mut theirs) {
            version["schema"]["openAPIV3Schema"]["properties"]["spec"] =
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        }
        assert_eq!(lacks(&theirs, &ours), [""; 0]);
        for version in versions(&mut theirs) {
            version["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({"type": "object"});
        }
        assert!(lacks(&theirs, &ours)[0].contains("spec.accessLogging"), "{:?}", lacks(&theirs, &ours));
    }

    #[test]
    fn a_kind_without_status_and_one_without_a_known_version_are_told() {
        let (mut theirs, ours) = as_of_istio("PeerAuthentication");
        versions(&mut theirs)[1]["subresources"] = Value::Null;
        let said = lacks(&theirs, &ours);
        assert!(said.len() == 1 && said[0].contains("in v1beta1, there is no status"), "{said:?}");
        versions(&mut theirs).iter_mut().for_each(|version| version["served"] = false.into());
        assert!(lacks(&theirs, &ours)[0].contains("none of the versions v1, v1beta1"));
    }
}
