//! Properties of the manifest's reader that hold for every text.

use std::collections::BTreeSet;

use mesh_api::manifest::{self, Document, LowerContext, policy_test};
use mesh_api::problem::Severity;
use proptest::prelude::*;

fn read(text: &str) -> Vec<Document> {
    manifest::parse("f.yaml", text, &LowerContext::default()).documents
}

/// Valid documents of most kinds, one in each shape that YAML has for them.
const DOCUMENTS: [&str; 6] = [
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: catalog\n  namespace: backend\nspec:\n  \
     selector:\n    matchLabels:\n      app: catalog\n  rules:\n  - from:\n    - source:\n        principals: [\"a/b\", 'c*']\n    to:\n    \
     - operation:\n        methods: [GET]\n        paths:\n        - /x/{*}\n",
    "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"PeerAuthentication\",\n \"metadata\": {\"name\": \"default\", \"namespace\": \"backend\"},\n \
     \"spec\": {\"mtls\": {\"mode\": \"STRICT\"}}}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: catalog, namespace: backend}\nspec:\n  selector: {app: catalog}\n  ports:\n  \
     - name: http\n    port: 80\n    targetPort: 8080\n",
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: routes, namespace: backend}\nspec:\n  hosts: [catalog]\n  \
     http:\n  - match:\n    - uri: {regex: '/a.*'}\n    route:\n    - destination: {host: catalog}\n      weight: 1\n    timeout: 1s\n",
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: rule, namespace: backend}\nspec:\n  host: catalog\n  \
     subsets:\n  - name: v1\n    labels: {version: \"1\"}\n",
    "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: w, namespace: backend}\nspec:\n  address: 10.0.0.1\n  \
     serviceAccount: &s catalog\n  labels: {app: *s}\n",
];

/// Pieces that matter to a YAML reader.
fn noise() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\n".to_owned()),
        Just("\n---\n".to_owned()),
        Just("\n...\n".to_owned()),
        Just("- ".to_owned()),
        Just(": ".to_owned()),
        Just("  ".to_owned()),
        Just("\t".to_owned()),
        Just("\r\n".to_owned()),
        Just("|".to_owned()),
        Just("\"".to_owned()),
        Just("'".to_owned()),
        Just("&a ".to_owned()),
        Just("*a ".to_owned()),
        Just("<<: *a\n".to_owned()),
        Just("!!str ".to_owned()),
        Just("{[".to_owned()),
        Just("}]".to_owned()),
        Just("#".to_owned()),
        Just("spec:\n".to_owned()),
        Just("apiVersion: v1\nkind: List\nitems:\n- ".to_owned()),
        "[ -~]{0,8}",
        "\\PC{0,3}",
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

fn document() -> impl Strategy<Value = &'static str> {
    prop::sample::select(DOCUMENTS.to_vec())
}

/// A document with something else in it.
fn damaged() -> impl Strategy<Value = String> {
    (document(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), noise()).prop_map(
        |(text, from, to, noise)| {
            let (from, to) = (from.index(text.len()), to.index(text.len()));
            format!("{}{noise}{}", &text[..from.min(to)], &text[from.max(to)..])
        },
    )
}

fn check_whole(text: &str) -> Result<(), TestCaseError> {
    let lines = u32::try_from(text.lines().count()).expect("few lines") + 1;
    for document in read(text) {
        let problems = document.outcome.as_ref().err().into_iter().flatten().chain(&document.warnings);
        for problem in problems {
            prop_assert!((1..=lines).contains(&problem.origin.line), "{problem} is outside of the text");
        }
        let again = read(&document.text);
        match &document.outcome {
            Ok(object) => {
                prop_assert_eq!(Some(object.object_ref()), document.identity.clone());
                prop_assert_eq!(again.len(), 1, "{:?}", &document.text);
                let second = again[0].outcome.as_ref().map(manifest::Object::object_ref);
                prop_assert_eq!(second.ok(), Some(object.object_ref()), "{:?}", &document.text);
            }
            Err(problems) => prop_assert!(!problems.is_empty(), "refused without a reason"),
        }
    }
    Ok(())
}

/// Any JSON under the names that kinds know: what a program with a fault in it would send.
fn shapeless() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    const NAMES: [&str; 40] = [
        "selector",
        "matchLabels",
        "targetRef",
        "targetRefs",
        "action",
        "provider",
        "rules",
        "from",
        "source",
        "to",
        "operation",
        "when",
        "key",
        "values",
        "notValues",
        "principals",
        "ipBlocks",
        "serviceAccounts",
        "trustDomains",
        "ports",
        "paths",
        "notPaths",
        "mtls",
        "mode",
        "portLevelMtls",
        "jwtRules",
        "issuer",
        "jwks",
        "fromHeaders",
        "accessLogging",
        "providers",
        "name",
        "filter",
        "expression",
        "metrics",
        "overrides",
        "tagOverrides",
        "tracing",
        "customTags",
        "80",
    ];
    let text = prop_oneof![
        prop::sample::select(vec!["DENY", "CUSTOM", "STRICT", "*", "/a/{**}", "a/b", "10.0.0.1/8", "80", ""])
            .prop_map(str::to_owned),
        "\\PC{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| {
        let name =
            prop_oneof![8 => prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            prop::collection::vec((name, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A policy test with everything that one may state.
const POLICY_TEST: &str = "apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n  mesh: {trustDomain: td}\n  policies:\n  \
     - file: a/*.yaml\n  - apiVersion: security.istio.io/v1\n    kind: AuthorizationPolicy\n    metadata: {name: p}\n    spec: {rules: [{}]}\n  \
     cases:\n  - name: a\n    now: 2026-01-01T00:00:00Z\n    request: &r {principal: spiffe://td/a, headers: {x: [a, b]}, jwtClaims: {iss: i}}\n    \
     expect: {decision: allow, upstream: {headers: {x: a}}}\n  - {name: b, request: *r, expect: deny}\n  \
     admission:\n  - {name: c, document: {kind: X}, expect: reject, message: a}\n";

/// The policy test with something else in it.
fn damaged_test() -> impl Strategy<Value = String> {
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), noise()).prop_map(|(from, to, noise)| {
        let (from, to) = (from.index(POLICY_TEST.len()), to.index(POLICY_TEST.len()));
        format!("{}{noise}{}", &POLICY_TEST[..from.min(to)], &POLICY_TEST[from.max(to)..])
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A file without an error has tests, and each of them tests something.
    #[test]
    fn a_damaged_policy_test_tests_something_or_says_why(text in damaged_test()) {
        let read = policy_test::parse("t.yaml", &text);
        for test in read.tests.iter().filter(|_| !read.is_broken()) {
            prop_assert!(!test.cases.is_empty() || !test.admission.is_empty(), "{text}");
        }
        for problem in &read.problems {
            let last = text.lines().count() + 1;
            prop_assert!((1..=last).contains(&usize::try_from(problem.origin.line).expect("a line")), "{problem}\n{text}");
        }
    }

    #[test]
    fn no_text_is_too_strange(text in noise()) {
        check_whole(&text)?;
    }

    #[test]
    fn no_damage_is_too_strange(texts in prop::collection::vec(damaged(), 1..4)) {
        check_whole(&texts.join("\n---\n"))?;
    }

    /// Every shape of every kind ends in an object or in reasons, never in neither.
    #[test]
    fn no_shape_is_too_strange(
        kind in prop::sample::select(vec!["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "Telemetry"]),
        spec in shapeless(),
        metadata in shapeless(),
        is_named in any::<bool>(),
    ) {
        let group = if kind == "Telemetry" { "telemetry.istio.io/v1" } else { "security.istio.io/v1" };
        let metadata = if is_named { serde_json::json!({"name": "x"}) } else { metadata };
        let document = serde_json::json!({"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec});
        let documents = read(&document.to_string());
        prop_assert_eq!(documents.len(), 1);
        if let Err(problems) = &documents[0].outcome {
            prop_assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{:?}", problems);
        }
        check_whole(&document.to_string())?;
    }

    /// Whatever is wrong in one document, the one before and the one after are read as ever.
    #[test]
    fn a_document_never_spoils_its_neighbours(text in damaged()) {
        let (first, last) = (DOCUMENTS[0], DOCUMENTS[1]);
        let documents = read(&format!("{first}---\n{text}\n---\n{last}"));
        let name = |document: Option<&Document>| Some(document?.outcome.as_ref().ok()?.object_ref().to_string());
        prop_assert_eq!(name(documents.first()), Some("AuthorizationPolicy backend/catalog".to_owned()));
        prop_assert_eq!(name(documents.last()), Some("PeerAuthentication backend/default".to_owned()));
    }

    /// However a file is cut off, what is left names no object that the whole file does not.
    #[test]
    fn a_file_that_is_cut_off_names_nothing_new(
        texts in prop::collection::vec(document(), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let whole = texts.join("---\n");
        let names = |text: &str| read(text).into_iter().filter_map(|document| document.identity).collect::<BTreeSet<_>>();
        let rest = &whole[..end.index(whole.len())];
        prop_assert!(names(rest).is_subset(&names(&whole)), "{:?}", rest);
    }

    /// Wherever a field stands, the problem with it is told at its line.
    #[test]
    fn problems_are_told_at_the_line_of_their_field(
        text in document().prop_filter("block style", |text| text.starts_with('a')),
        at in any::<prop::sample::Index>(),
        gaps in prop::collection::vec(prop::sample::select(vec!["", "\n", "# a comment\n", "\n   \n# more\n\n"]), 24),
        before in prop::sample::select(vec!["", DOCUMENTS[1], "# nothing\n"]),
    ) {
        let rows: Vec<&str> = text.lines().collect();
        // Before a row that holds a key of a block map, a key beside it is one too many there.
        let fields: Vec<usize> = (0..rows.len())
            .filter(|row| rows[*row].trim_start().starts_with(|c: char| c.is_ascii_lowercase()) && rows[*row].contains(':'))
            .collect();
        let chosen = fields[at.index(fields.len())];
        let mut file = format!("{before}---\n");
        let mut expected = 0;
        for (index, row) in rows.iter().enumerate() {
            file.push_str(gaps[index % gaps.len()]);
            if index == chosen {
                let indent = row.len() - row.trim_start().len();
                expected = u32::try_from(file.lines().count()).expect("few lines") + 1;
                file.push_str(&format!("{}zzUnheardOf: x\n", " ".repeat(indent)));
            }
            file.push_str(row);
            file.push('\n');
        }
        let documents = read(&file);
        let document = documents.last().expect("a document");
        let problems: Vec<_> = document.outcome.as_ref().err().into_iter().flatten().collect();
        let found: Vec<_> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error && problem.field.ends_with("zzUnheardOf"))
            .map(|problem| problem.origin.line)
            .collect();
        let is_free = document.outcome.is_ok();
        prop_assert!(found == [expected] || is_free, "{problems:#?}\n{file}");
    }
}
