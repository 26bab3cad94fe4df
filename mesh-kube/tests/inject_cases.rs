//! Runs the cases in `tests/inject_cases`. A file has two documents: what goes in, and what comes out.
//!
//! In: `pod` (or `object`, a workload), `namespace` (`name`, `labels`, `annotations`; default a namespace with
//! `istio-injection: enabled`), `settings`, `nativeSidecars` (default true), and `show`: JSON pointers of the
//! pod, when a case is about parts of it. Out: the decision, its reason, warnings, and what is shown; or the
//! error. `UPDATE_CASES=1 cargo test -p mesh-kube --test inject_cases` writes the second documents; read the
//! difference before it is committed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mesh_kube::inject::{
    self, Decision, InjectSettings, Injection, NamespaceMeta, Platform, inject_object, templates,
};
use serde_json::{Map, Value, json};

/// What goes in.
struct Case {
    object: Value,
    namespace: NamespaceMeta,
    settings: InjectSettings,
    platform: Platform,
    show: Vec<String>,
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.map(|(key, value)| (key.clone(), value.as_str().expect("a text").to_owned())).collect()
}

impl Case {
    fn read(document: &str) -> Self {
        let value: Value = serde_saphyr::from_str(document).expect("a case in YAML");
        let known = ["pod", "object", "namespace", "settings", "nativeSidecars", "show", "about"];
        for key in value.as_object().expect("a case").keys() {
            assert!(known.contains(&key.as_str()), "unknown key {key:?}");
        }
        let object = match value.get("pod") {
            Some(pod) => {
                let mut object = pod.clone();
                object["apiVersion"] = json!("v1");
                object["kind"] = json!("Pod");
                object
            }
            None => value.get("object").cloned().expect("a pod or an object"),
        };
        let namespace = match value.get("namespace") {
            None => NamespaceMeta {
                name: "shop".to_owned(),
                labels: BTreeMap::from([("istio-injection".to_owned(), "enabled".to_owned())]),
                annotations: BTreeMap::new(),
            },
            Some(namespace) => NamespaceMeta {
                name: namespace.get("name").and_then(Value::as_str).unwrap_or("shop").to_owned(),
                labels: texts(namespace.get("labels")),
                annotations: texts(namespace.get("annotations")),
            },
        };
        let settings = value.get("settings").cloned().unwrap_or_else(|| json!({})).to_string();
        let show = value.get("show").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Self {
            object,
            namespace,
            settings: InjectSettings::parse(&settings).expect("settings"),
            platform: Platform {
                native_sidecars: value.get("nativeSidecars").and_then(Value::as_bool).unwrap_or(true),
            },
            show: show.iter().map(|pointer| pointer.as_str().expect("a pointer").to_owned()).collect(),
        }
    }

    /// What comes out, and the injected object.
    fn run(&self) -> (Value, Option<Value>) {
        let found = templates(&self.object);
        assert_eq!(found.len(), 1, "a case is about one pod");
        let template = found.first().expect("a template");
        match inject_object(&self.object, template, &self.namespace, &self.settings, self.platform) {
            Err(error) => (json!({"error": error.to_string()}), None),
            Ok((object, injection)) => {
                self.check(template, &object, &injection);
                (self.told(&injection), injection.decision.is_inject().then_some(object))
            }
        }
    }

    fn told(&self, injection: &Injection) -> Value {
        let decision = match &injection.decision {
            Decision::Inject { .. } => "inject",
            Decision::Skip { .. } => "skip",
            Decision::Refuse { .. } => "refuse, which should have been an error",
        };
        let mut out = json!({"decision": decision, "reason": injection.decision.reason().to_string()});
        if !injection.warnings.is_empty() {
            out["warnings"] = json!(injection.warnings);
        }
        if self.show.is_empty() && injection.decision.is_inject() {
            out["pod"] = injection.pod.clone();
        } else if injection.decision.is_inject() {
            let shown = self.show.iter().map(|pointer| {
                (pointer.clone(), injection.pod.pointer(pointer).cloned().unwrap_or(Value::Null))
            });
            out["shown"] = Value::Object(shown.collect::<Map<_, _>>());
        }
        out
    }

    /// What holds for every case.
    fn check(&self, template: &inject::Template, object: &Value, injection: &Injection) {
        let mut patched = self.object.pointer(&template.pointer).expect("the pod").clone();
        json_patch::patch(&mut patched, &injection.patch).expect("a patch that fits");
        assert_eq!(patched, injection.pod, "the patch leads to the pod");
        if !injection.decision.is_inject() {
            assert_eq!(object, &self.object, "what is skipped stays as it is");
            return;
        }
        let again = inject::inject(&injection.pod, &self.namespace, &self.settings, self.platform)
            .expect("an injected pod is no error");
        assert_eq!(again.pod, injection.pod, "injected twice is injected once");
        assert!(!again.decision.is_inject());
    }
}

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject_cases");
    let is_update = std::env::var_os("UPDATE_CASES").is_some();
    let (mut run, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(&folder).expect("the folder of cases") {
        let path = entry.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a readable file");
        let (input, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
        let (told, _) = Case::read(input).run();
        run += 1;
        if is_update {
            let told = serde_saphyr::to_string(&told).expect("YAML");
            fs::write(&path, format!("{input}\n---\n{told}")).expect("a writable file");
            continue;
        }
        let expected: Value = serde_saphyr::from_str(expected).expect("what is expected, in YAML");
        if expected != told {
            let told = serde_saphyr::to_string(&told).expect("YAML");
            failures.push(format!("{}: found\n{told}", path.display()));
        }
    }
    assert!(run >= 60, "only {run} cases were found");
    assert!(failures.is_empty(), "{} of {run} cases:\n{}", failures.len(), failures.join("\n"));
}
