//! Every code of `meshctl analyze` by example: the files in `tests/analyze`.
//!
//! A file holds a mistake and its neighbours that are none. A line on which something must be found ends in
//! `# ! CODE…`; nothing else may be found. A comment `# clean` on the first line is not needed: a file without
//! marks is one in which nothing may be found at all.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_api::manifest::{self, Lines, LowerContext, Object};
use mesh_api::model::MeshSettings;
use mesh_policy::analyze::{self, Document, Finding, catalogue};

type Mark = (u32, String);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/analyze")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of cases is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What is found in a text, in order of line.
fn found(name: &str, text: &str) -> Vec<Finding> {
    let parse = |context: &LowerContext| manifest::parse(name, text, context);
    let mut context = LowerContext::default();
    let mut parsed = parse(&context);
    let settings = parsed.documents.iter().find_map(|document| match &document.outcome {
        Ok(Object::MeshConfig(config)) => Some(config.settings.clone()),
        Ok(_) | Err(_) => None,
    });
    let mesh: MeshSettings = settings.unwrap_or_default();
    context.root_namespace = mesh.root_namespace.clone();
    parsed = parse(&context);
    let (mut services, mut workloads, mut authorization) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peer, mut request) = (Vec::new(), Vec::new());
    let (mut virtual_services, mut destination_rules) = (Vec::new(), Vec::new());
    let mut documents = Vec::new();
    let mut texts = Vec::new();
    for document in parsed.documents {
        let value = serde_saphyr::from_str(&document.text).ok();
        documents.extend(value.and_then(|value| Document::read(value, document.origin.clone(), "default")));
        texts.push((document.origin.clone(), Lines::of(&document.text, document.origin.line)));
        match document.outcome {
            Ok(Object::AuthorizationPolicy(object)) => authorization.push(Arc::new(object)),
            Ok(Object::PeerAuthentication(object)) => peer.push(Arc::new(object)),
            Ok(Object::RequestAuthentication(object)) => request.push(Arc::new(object)),
            Ok(Object::DestinationRule(object)) => destination_rules.push(Arc::new(object)),
            Ok(Object::VirtualService(object)) => virtual_services.push(Arc::new(object)),
            Ok(Object::Service(object)) => services.push(Arc::new(object)),
            Ok(Object::Workload(object)) => workloads.push(Arc::new(object)),
            Ok(_) => {}
            Err(problems) => {
                let refusals: Vec<String> = problems
                    .iter()
                    .filter(|problem| {
                        problem.code == "IST0106" && !problem.message.contains("TLS to hosts outside")
                    })
                    .map(ToString::to_string)
                    .collect();
                assert!(refusals.is_empty(), "a case must be valid: {refusals:#?}");
            }
        }
    }
    let mut findings = analyze::findings(&analyze::Model {
        mesh: &mesh,
        services: &services,
        workloads: &workloads,
        authorization: &authorization,
        peer: &peer,
        request: &request,
        virtual_services: &virtual_services,
        destination_rules: &destination_rules,
        documents: &documents,
    });
    for finding in &mut findings {
        let lines =
            texts.iter().find(|(origin, _)| *origin == finding.origin).map(|(_, lines)| lines.clone());
        let lines = lines.expect("a finding stands in a document");
        finding.locate(&|field| lines.line(field));
    }
    findings.sort_by_key(|finding| (finding.origin.line, finding.code.id));
    findings
}

fn expected(text: &str) -> BTreeSet<Mark> {
    let mut marks = BTreeSet::new();
    for (index, line) in (1..).zip(text.lines()) {
        if let Some((_, codes)) = line.split_once("# ! ") {
            marks.extend(codes.split_whitespace().map(|code| (index, code.to_owned())));
        }
    }
    marks
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the engine reads no files; this test reads its cases")]
fn every_case_is_found_where_it_stands_and_nothing_else_is() {
    let mut failures = Vec::new();
    for path in files(&folder()) {
        let text = fs::read_to_string(&path).expect("a case can be read");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let findings = found(&name, &text);
        let marks: BTreeSet<Mark> =
            findings.iter().map(|finding| (finding.origin.line, finding.code.id.to_owned())).collect();
        let expected = expected(&text);
        for (line, code) in expected.difference(&marks) {
            failures.push(format!("{name}:{line}: {code} was not found"));
        }
        for finding in findings {
            if !expected.contains(&(finding.origin.line, finding.code.id.to_owned())) {
                failures.push(format!(
                    "{name}:{}: {} [{}] {} {}",
                    finding.origin.line, finding.code.id, finding.subject, finding.field, finding.message
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the engine reads no files; this test reads its cases")]
fn every_code_of_analysis_has_a_case() {
    // Found elsewhere: while reading files, in the control plane, or in a mesh too large for a file.
    const ELSEWHERE: [&str; 17] = [
        "IST0106", "IST0133", "MM0001", "MM0101", "MM0102", "MM0103", "MM0104", "MM0105", "MM0106", "MM0107",
        "MM0108", "MM0109", "MM0110", "MM0111", "MM0301", "MM0601", "MM0602",
    ];
    let marked: BTreeSet<String> = files(&folder())
        .iter()
        .flat_map(|path| expected(&fs::read_to_string(path).expect("a case can be read")))
        .map(|(_, code)| code)
        .collect();
    let missing: Vec<&str> = catalogue::CATALOGUE
        .iter()
        .map(|code| code.id)
        .filter(|id| !marked.contains(*id) && !ELSEWHERE.contains(id))
        .collect();
    assert!(missing.is_empty(), "without a case: {missing:?}");
    let unknown: Vec<&String> = marked.iter().filter(|code| catalogue::find(code).is_none()).collect();
    assert!(unknown.is_empty(), "not in the catalogue: {unknown:?}");
}
