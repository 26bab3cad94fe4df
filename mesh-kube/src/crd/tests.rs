//! The definitions take what the mesh takes, drop nothing, and are what the chart has.

use std::fs;
use std::path::{Path, PathBuf};

use mesh_api::manifest::{self, LowerContext};
use serde_json::Value;

use super::*;

/// Folders with objects of every kind, good and bad ones.
const CORPORA: [&str; 7] = [
    "mesh-api/tests/admission_cases",
    "mesh-api/tests/manifest_cases",
    "mesh-policy/tests/analyze",
    "mesh-policy/tests/policy",
    "examples/shop/policies",
    "examples/shop/config",
    "mesh-policy/tests/cases",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What an API server would refuse by the schema.
fn refusals(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if value.is_null() {
        if schema["nullable"] != true && path != "status" {
            found.push(format!("{path} is null"));
        }
        return;
    }
    let is_of_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !is_of_type {
        found.push(format!("{path} is {value}, no {}", schema["type"]));
        return;
    }
    if schema["enum"].as_array().is_some_and(|allowed| !allowed.contains(value)) {
        found.push(format!("{path} is {value}, none of {}", schema["enum"]));
    }
    if let Some(number) = value.as_f64() {
        let below = schema["minimum"].as_f64().is_some_and(|least| number < least);
        let above = schema["maximum"].as_f64().is_some_and(|most| number > most);
        if below || above {
            found.push(format!("{path} is {number}, out of bounds"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        refusals(&schema["items"], item, &format!("{path}[{index}]"), found);
    }
    let most = schema["maxItems"].as_u64().and_then(|most| usize::try_from(most).ok());
    if value.as_array().zip(most).is_some_and(|(items, most)| items.len() > most) {
        found.push(format!("{path} has too many items"));
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let known = &schema["properties"][name];
        let known = if known.is_null() { &schema["additionalProperties"] } else { known };
        refusals(known, inner, &format!("{path}.{name}"), found);
    }
}

/// Objects of the mesh anywhere in a document.
fn objects<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    if definition_of(value).is_some() {
        found.push(value);
        return;
    }
    value.as_array().into_iter().flatten().for_each(|item| objects(item, found));
    value.as_object().into_iter().flatten().for_each(|(_, inner)| objects(inner, found));
}

fn definition_of(object: &Value) -> Option<&'static Definition> {
    let (group, version) = object["apiVersion"].as_str()?.split_once('/')?;
    let kind = object["kind"].as_str()?;
    let mut all = DEFINITIONS.iter();
    all.find(|it| it.group == group && it.kind == kind && it.versions.contains(&version))
}

#[test]
fn whatever_the_mesh_takes_the_definitions_take() {
    let (mut taken, mut failures) = (0, Vec::new());
    for corpus in CORPORA {
        for entry in fs::read_dir(root().join(corpus)).expect(corpus) {
            let path = entry.expect("an entry").path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            // Files that are broken on purpose hold no object.
            let Ok(documents) = serde_saphyr::from_multiple::<Value>(&text) else { continue };
            let mut found = Vec::new();
            documents.iter().for_each(|document| objects(document, &mut found));
            for object in found {
                let read = manifest::parse("", &object.to_string(), &LowerContext::default());
                if read.documents.iter().any(|document| document.outcome.is_err()) {
                    continue;
                }
                taken += 1;
                let mut wrong = Vec::new();
                let definition = definition_of(object).expect("it was found by it");
                // Metadata is the API server's own.
                for part in ["spec", "status"] {
                    let schema = &definition.schema()["properties"][part];
                    refusals(schema, &object[part], part, &mut wrong);
                }
                failures.extend(
                    wrong.into_iter().map(|wrong| format!("{}: {wrong}\n  {object}", path.display())),
                );
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(taken > 250, "only {taken} objects were found: the corpora have moved");
}

#[test]
fn no_field_below_spec_is_dropped_or_made_absent() {
    fn look(schema: &Value, path: &str) {
        let Some(fields) = schema.as_object() else { return };
        assert_eq!(schema["nullable"], true, "{path} drops null");
        if fields.contains_key("properties") || !fields.contains_key("type") {
            assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{path} drops fields");
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            look(inner, &format!("{path}.{name}"));
        }
        look(&schema["items"], &format!("{path}[]"));
        look(&schema["additionalProperties"], &format!("{path}.*"));
    }
    for definition in DEFINITIONS {
        look(&definition.schema()["properties"]["spec"], definition.kind);
    }
}

#[test]
fn every_field_that_the_mesh_knows_is_in_the_definition() {
    // A field that is known is told apart from one that is not by what is said about a wrong value.
    fn look(definition: &Definition, schema: &Value, path: &mut Vec<String>, missing: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            path.push(name.clone());
            let mut value = serde_json::json!({(name): "wrong"});
            for step in path.iter().rev().skip(1) {
                value = match step.as_str() {
                    "[]" => serde_json::json!([value]),
                    "*" => serde_json::json!({"80": value}),
                    step => serde_json::json!({(step): value}),
                };
            }
            let object = serde_json::json!({
                "apiVersion": format!("{}/{}", definition.group, definition.versions[0]),
                "kind": definition.kind,
                "metadata": {"name": "x", "namespace": "x"},
                "spec": value,
            });
            let read = manifest::parse("", &object.to_string(), &LowerContext::default());
            let unknown = read.problems().any(|problem| {
                let said = problem.to_string();
                said.contains("unknown field") && said.contains(name.as_str())
            });
            if unknown {
                missing.push(format!("{}.{}", definition.kind, path.join(".")));
            }
            look(definition, inner, path, missing);
            path.pop();
        }
        for (step, below) in [("[]", &schema["items"]), ("*", &schema["additionalProperties"])] {
            if below.is_object() {
                path.push(step.to_owned());
                look(definition, below, path, missing);
                path.pop();
            }
        }
    }
    let mut missing = Vec::new();
    for definition in &DEFINITIONS {
        look(definition, &definition.schema()["properties"]["spec"], &mut Vec::new(), &mut missing);
    }
    assert!(missing.is_empty(), "the definitions have fields that the mesh does not know: {missing:#?}");
}

#[test]
fn every_served_kind_and_version_has_a_definition() {
    for definition in DEFINITIONS {
        for version in definition.versions {
            let text = format!(
                "apiVersion: {}/{version}\nkind: {}\nmetadata: {{name: x, namespace: x}}\nspec: {{}}\n",
                definition.group, definition.kind
            );
            let read = manifest::parse("", &text, &LowerContext::default());
            let refused = read.problems().any(|problem| problem.to_string().contains("apiVersion"));
            assert!(!refused, "{text}");
        }
        let stored = definition.object()["spec"]["versions"]
            .as_array()
            .expect("there are versions")
            .iter()
            .filter(|version| version["storage"] == true)
            .count();
        assert_eq!(stored, 1, "{}", definition.kind);
    }
}

#[test]
fn a_list_shows_what_became_of_each_object_and_conflicts_only_when_asked_for_more() {
    let columns = |definition: Definition, wide: bool| -> Vec<String> {
        let object = definition.object();
        let all = object["spec"]["versions"][0]["additionalPrinterColumns"].as_array().cloned();
        let all = all.expect("there are columns");
        let shown = all.iter().filter(|column| wide || column["priority"].as_i64().unwrap_or_default() == 0);
        shown.filter_map(|column| column["name"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(columns(security::AUTHORIZATION_POLICY, false), ["Action", "Accepted", "Enforced", "Age"]);
    for definition in DEFINITIONS {
        let short = columns(definition, false);
        assert!(short.ends_with(&["Accepted", "Enforced", "Age"].map(str::to_owned)), "{short:?}");
        assert_eq!(columns(definition, true), [short, vec!["Conflicted".to_owned()]].concat());
    }
}

#[test]
fn the_files_of_the_chart_are_these() {
    let folder = root().join("charts/mini-mesh/crds");
    let update = std::env::var_os("UPDATE_CRDS").is_some();
    for definition in DEFINITIONS {
        let path = folder.join(definition.file());
        if update {
            fs::write(&path, definition.yaml()).expect("the file is written");
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == definition.yaml(),
            "{} is not what it should be: run with UPDATE_CRDS=1",
            path.display()
        );
    }
    let files = fs::read_dir(&folder).expect("the folder is there").count();
    assert_eq!(files, DEFINITIONS.len(), "the folder has other files too");
}
