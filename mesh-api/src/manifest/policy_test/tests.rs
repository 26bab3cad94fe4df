use super::*;
use crate::model::{Action, PathNormalization};
use crate::policy_test::{Traffic, Verdict};

/// A test with these lines below `spec`.
fn read(spec: &str) -> PolicyTests {
    parse(
        "t.yaml",
        &format!("apiVersion: mini-mesh.io/v1alpha1\nkind: PolicyTest\nmetadata: {{name: t}}\nspec:\n{spec}"),
    )
}

fn one(spec: &str) -> PolicyTest {
    let read = read(spec);
    assert_eq!(read.problems, [], "{spec}");
    read.tests.into_iter().next().expect("a test")
}

/// `LINE FIELD: MESSAGE (HINT)` of every problem.
fn problems(spec: &str) -> Vec<String> {
    let told = |problem: &Problem| {
        format!("{} {}: {} ({})", problem.origin.line, problem.field, problem.message, problem.hint)
    };
    read(spec).problems.iter().map(told).collect()
}

#[test]
fn what_is_not_stated_has_its_default() {
    let test = one("  cases:\n  - {name: a, request: {}, expect: deny}\n");
    let case = &test.cases[0].case;
    let request = case.request.as_ref().expect("a request");
    assert_eq!(request.protocol, Traffic::Http);
    assert_eq!((request.principal.as_ref(), request.tls, request.port), (None, false, 8080));
    assert_eq!(
        (request.source_ip.to_string(), request.remote_ip.to_string()),
        ("10.0.0.1".into(), "10.0.0.1".into())
    );
    assert_eq!((request.destination_ip, request.sni.as_ref()), (None, None));
    assert_eq!((request.http.method.as_str(), request.http.path.as_str()), ("GET", "/"));
    assert_eq!(request.http.host, "default.default.svc.cluster.local");
    assert_eq!(case.expect.decision, Some(Verdict::Deny));
    assert_eq!((case.now, case.origin.line), (None, 6));
}

#[test]
fn remote_address_and_tls_follow_what_is_stated() {
    let test = one(
        "  cases:\n  - name: a\n    request: {sourceIp: 10.1.1.1, principal: spiffe://td/ns/a/sa/b}\n    expect: allow\n\
         \x20 - {name: b, request: {principal: '', tls: true, sni: ''}, expect: allow}\n",
    );
    let request = |at: usize| test.cases[at].case.request.clone().expect("a request");
    assert_eq!((request(0).remote_ip.to_string(), request(0).tls), ("10.1.1.1".to_owned(), true));
    assert_eq!((request(1).principal, request(1).tls, request(1).sni), (None, true, None));
}

#[test]
fn settings_of_a_case_replace_those_of_the_test_one_by_one() {
    let test = one(
        "  mesh: {rootNamespace: root, trustDomain: a@example, pathNormalization: NONE}\n  cases:\n\
         \x20 - {name: a, mesh: {pathNormalization: DEFAULT, trustDomainAliases: [b]}, request: {}, expect: allow}\n",
    );
    let mesh = &test.cases[0].case.mesh;
    assert_eq!(mesh.root_namespace.as_ref().map(AsRef::as_ref), Some("root"));
    assert_eq!(mesh.trust_domain.as_ref().map(AsRef::as_ref), Some("a.example"));
    assert_eq!(mesh.path_normalization, Some(PathNormalization::Base));
    assert_eq!(mesh.trust_domain_aliases.as_ref().map(Vec::len), Some(1));
}

#[test]
fn header_lines_keep_their_order_and_numbers_need_no_quotes() {
    let test = one(
        "  cases:\n  - {name: a, request: {headers: {x-b: [two, 1], x-a: true, Host: h}}, expect: allow}\n",
    );
    let request = test.cases[0].case.request.as_ref().expect("a request");
    let lines = [("x-b", "two"), ("x-b", "1"), ("x-a", "true")];
    assert_eq!(request.http.headers, lines.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(request.http.host, "h");
}

#[test]
fn policies_are_read_where_they_stand() {
    let test = one(
        "  policies:\n  - file: ../p/*.yaml\n  - apiVersion: security.istio.io/v1\n    kind: AuthorizationPolicy\n\
         \x20   metadata: {name: p, namespace: a}\n    spec:\n      action: DENY\n      rules:\n      - {}\n      - to: [{operation: {ports: ['1']}}]\n\
         \x20 cases: [{name: a, request: {}, expect: deny, policies: []}]\n",
    );
    assert_eq!(test.cases[0].policies.as_ref().map(Vec::len), Some(0));
    let [PolicySource::Files { pattern, origin }, PolicySource::Inline(inline)] = &*test.policies else {
        unreachable!("{:?}", test.policies)
    };
    assert_eq!((pattern.as_str(), origin.line), ("../p/*.yaml", 6));
    let Object::AuthorizationPolicy(policy) = &inline.object else { unreachable!("a policy") };
    assert_eq!((policy.action, policy.meta.origin.line), (Action::Deny, 7));
    assert_eq!(inline.rule_lines, [13, 14]);
}

#[test]
fn rules_of_a_file_are_found_behind_comments_and_other_documents() {
    let text = "# first\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n# second\n\napiVersion: security.istio.io/v1\n\
                kind: AuthorizationPolicy\nmetadata: {name: p}\nspec:\n  rules:\n  # a rule\n  - {}\n  - from:\n    - source: {namespaces: [a]}\n";
    let objects = parse_policies("p.yaml", text, &LowerContext::default()).expect("valid");
    let lines: Vec<_> = objects.iter().map(|object| object.rule_lines.clone()).collect();
    assert_eq!(lines, [vec![], vec![14, 15]]);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let cases: &[(&str, &str)] = &[
        ("  case: []\n", "5 spec.case: unknown field (Did you mean cases?)"),
        ("  cases: []\n", "4 spec: tests nothing"),
        (
            "  cases: [{name: a, request: {mehtod: GET}, expect: allow}]\n",
            "5 spec.cases[0].request.mehtod: unknown field (Did you mean method?)",
        ),
        ("  cases: [{request: {}, expect: allow}]\n", "5 spec.cases[0].name: is missing"),
        ("  cases: [{name: a, request: {}}]\n", "5 spec.cases[0].expect: is missing"),
        (
            "  cases: [{name: a, request: {}, expect: Allow}]\n",
            "spec.cases[0].expect: \"Allow\" is not allow or deny (Write allow; case matters.)",
        ),
        ("  cases: [{name: a, request: {}, expect: {}}]\n", "spec.cases[0].expect: expects nothing"),
        ("  cases: [{name: a, request: {}, expect: {decison: allow}}]\n", "Did you mean decision?"),
        ("  cases: [{name: a, request: {}, expect: {upstream: {paths: /}}}]\n", "Did you mean path?"),
        ("  cases: [{name: a, expect: allow}]\n", "5 spec.cases[0].request: is missing"),
        ("  cases: [{name: a, expect: {mtls: strict}}]\n", "Write STRICT; case matters."),
        (
            "  cases: [{name: a, request: {}, expect: allow}, {name: a, request: {}, expect: deny}]\n",
            "stands twice in the file",
        ),
        ("  cases: [{name: a, now: yesterday, request: {}, expect: allow}]\n", "is not a time such as"),
        ("  cases: [{name: a, request: {sourceIp: 10.0.0.1/8}, expect: allow}]\n", "is not an IP address"),
        (
            "  cases: [{name: a, request: {principal: cluster.local/ns/a/sa/b}, expect: allow}]\n",
            "must start with spiffe://",
        ),
        (
            "  cases: [{name: a, request: {port: '80'}, expect: allow}]\n",
            "must be an integer, found a string (Remove the quotes.)",
        ),
        ("  cases: [{name: a, request: {protocol: HTTP}, expect: allow}]\n", "Write http; case matters."),
        ("  cases: [{name: a, request: {jwtClaims: []}, expect: allow}]\n", "must be a map, found a list"),
        ("  cases: [{name: a, request: {headers: {'': x}}, expect: allow}]\n", "a key must not be empty"),
        ("  cases: [{name: a, request: {}, expect: {policy: p}}]\n", "is not NAMESPACE/NAME"),
        (
            "  mesh: {pathNormalisation: NONE}\n  cases: [{name: a, request: {}, expect: allow}]\n",
            "Did you mean pathNormalization?",
        ),
        (
            "  policies: [{kind: AuthorizationPolicy}]\n  cases: [{name: a, request: {}, expect: allow}]\n",
            "5 spec.policies[0].apiVersion: is missing",
        ),
        (
            "  policies: [{file: a, fiel: b}]\n  cases: [{name: a, request: {}, expect: allow}]\n",
            "Did you mean file?",
        ),
        (
            "  admission: [{name: a, document: {}, expect: refuse}]\n",
            "\"refuse\" is not accept, warn or reject",
        ),
        ("  admission: [{name: a, expect: reject}]\n", "spec.admission[0].document: is missing"),
    ];
    for (spec, expected) in cases {
        let found = problems(spec);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{spec}\n{expected}\n{found:#?}");
    }
}

#[test]
fn an_invalid_policy_makes_the_file_unusable() {
    let read = read(
        "  policies:\n  - apiVersion: security.istio.io/v1\n    kind: AuthorizationPolicy\n    metadata: {name: p}\n    spec: {ruels: []}\n\
         \x20 cases: [{name: a, request: {}, expect: allow}]\n",
    );
    assert!(read.is_broken());
    assert_eq!(
        (read.problems[0].origin.line, read.problems[0].field.as_str()),
        (9, "spec.policies[0].spec.ruels")
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    for request in ["{protocol: tcp, path: /}", "{principal: 'spiffe://a/ns/b/sa/c', tls: false}"] {
        let read = read(&format!("  cases: [{{name: a, request: {request}, expect: allow}}]\n"));
        assert!(!read.is_broken(), "{:?}", read.problems);
        assert_eq!(read.problems.len(), 1, "{request}");
    }
}

#[test]
fn an_applied_document_is_judged_and_not_obeyed() {
    let test = one(
        "  admission:\n  - name: a\n    expect: reject\n    message: rules\n    document:\n      apiVersion: security.istio.io/v1\n\
         \x20     kind: AuthorizationPolicy\n      metadata: {name: p}\n      spec: {ruels: []}\n\
         \x20 - {name: b, expect: accept, document: {apiVersion: v1, kind: Namespace, metadata: {name: n}}}\n\
         \x20 - {name: c, expect: reject, document: 'a: ['}\n  - {name: d, expect: reject, document: null}\n",
    );
    let found: Vec<_> = test.admission.iter().map(|case| case.found).collect();
    assert_eq!(found, [Admission::Reject, Admission::Accept, Admission::Reject, Admission::Reject]);
    assert_eq!(test.admission[0].problems[0].field, "spec.ruels");
    assert_eq!(test.admission[0].problems[0].origin.line, 13);
}

#[test]
fn documents_of_other_kinds_are_told_apart() {
    let read = parse("t.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n");
    assert_eq!((read.tests.len(), read.others.len(), read.is_broken()), (0, 1, false));
    let read = parse("t.yaml", "a: [\n");
    assert!(read.is_broken());
    let read = parse("t.yaml", "kind: PolicyTest\n");
    assert!(read.is_broken());
}

#[test]
fn cases_may_share_their_parts_by_aliases() {
    let mut spec = "  policies: &p\n  - apiVersion: security.istio.io/v1\n    kind: AuthorizationPolicy\n    metadata: {name: p}\n    spec: {rules: [{}]}\n  cases:\n".to_owned();
    for number in 0..2000 {
        spec.push_str(&format!("  - {{name: c{number}, policies: *p, request: {{}}, expect: allow}}\n"));
    }
    assert_eq!(one(&spec).cases.len(), 2000);
}

#[test]
fn names_and_labels_need_no_quotes_and_null_is_not_stated() {
    let test = one(
        "  mesh:\n  policies:\n  cases:\n  - name: 5.1\n    workload: {labels: {version: 1}}\n    request: {principal: null, sni: ~, headers: }\n\
         \x20   expect: {policy: null, requestPrincipal: null}\n",
    );
    let case = &test.cases[0].case;
    assert_eq!((case.name.as_str(), case.workload.labels["version"].as_str()), ("5.1", "1"));
    assert_eq!(case.expect.policy.as_deref(), Some(""));
    assert_eq!(case.expect.request_principal.as_deref(), Some(""));
}

#[test]
fn keys_that_are_no_json_are_refused() {
    let found =
        problems("  keySets: {'https://a/keys': 'x'}\n  cases: [{name: a, request: {}, expect: allow}]\n");
    assert!(found[0].contains("spec.keySets[https://a/keys]: is not JSON"), "{found:?}");
}
