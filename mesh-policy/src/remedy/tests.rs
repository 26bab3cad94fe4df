use mesh_api::manifest::{self, LowerContext, Object};
use mesh_api::name::{Namespace, ServiceAccount, SpiffeId};
use mesh_api::policy_test::HttpRequest;

use super::*;

/// Policies of namespace `foo`, each given as its `spec`.
fn policies(specs: &[&str]) -> Policies {
    let mut policies = Policies::default();
    for (index, spec) in specs.iter().enumerate() {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{index}, namespace: foo}}\nspec: {spec}\n"
        );
        for document in manifest::parse("p.yaml", &text, &LowerContext::default()).documents {
            match document.outcome {
                Ok(Object::AuthorizationPolicy(policy)) => policies.authorization.push(Arc::new(policy)),
                other => panic!("{other:?}"),
            }
        }
    }
    policies
}

/// `POST /orders` of `caller`, a service account of namespace web; empty for a caller without identity.
fn request(caller: &str) -> Request {
    let id = format!("spiffe://cluster.local/ns/web/sa/{caller}");
    let principal = (!caller.is_empty()).then(|| SpiffeId::parse(&id).expect("an id"));
    Request {
        protocol: Traffic::Http,
        tls: principal.is_some(),
        principal,
        source_ip: "10.0.0.7".parse().expect("an address"),
        remote_ip: "10.0.0.7".parse().expect("an address"),
        destination_ip: None,
        sni: None,
        port: 8080,
        http: HttpRequest {
            method: "POST".to_owned(),
            host: "orders.foo".to_owned(),
            path: "/orders?x=1".to_owned(),
            headers: vec![("x-tenant".to_owned(), "b".to_owned())],
            jwt_claims: None,
        },
    }
}

fn found(specs: &[&str], request: &Request) -> (Verdict, Remedy) {
    let (mesh, policies) = (MeshSettings::default(), policies(specs));
    let (namespace, account) =
        (Namespace::parse("foo").expect("valid"), ServiceAccount::parse("x").expect("valid"));
    let labels = Labels::from([("app".to_owned(), "orders".to_owned())]);
    let subject = Subject { namespace: &namespace, labels: &labels, service_account: &account };
    let case = Case { mesh: &mesh, subject, policies: &policies, request, now: 0 };
    let judgement = Judge::compile(&mesh, &subject, &policies).explain(request, 0);
    (judgement.decision, remedy(&case, &judgement))
}

fn told(specs: &[&str], request: &Request) -> Vec<String> {
    found(specs, request).1.edits.iter().map(ToString::to_string).collect()
}

#[test]
fn the_rule_that_lacks_least_is_completed() {
    let specs = [
        r#"{rules: [{from: [{source: {principals: ["cluster.local/ns/a/sa/b"]}}], to: [{operation: {methods: [GET], paths: [/x]}}]}]}"#,
        r#"{rules: [{to: [{operation: {methods: [GET], paths: ["/orders*"]}}]}]}"#,
    ];
    let expected =
        ["add \"POST\" to spec.rules[0].to[0].operation.methods of AuthorizationPolicy foo/p1 (p.yaml:1)"];
    assert_eq!(told(&specs, &request("shop")), expected);
}

#[test]
fn what_a_rule_excludes_is_taken_out_and_what_a_condition_wants_is_added() {
    let specs = [
        r#"{rules: [{from: [{source: {notNamespaces: [web]}}], when: [{key: "request.headers[x-tenant]", values: [a]}]}]}"#,
    ];
    let expected = [
        "take \"web\" out of spec.rules[0].from[0].source.notNamespaces of AuthorizationPolicy foo/p0 (p.yaml:1)",
        "add \"b\" to spec.rules[0].when, key request.headers[x-tenant], values of AuthorizationPolicy foo/p0 (p.yaml:1)",
    ];
    assert_eq!(told(&specs, &request("shop")), expected);
}

#[test]
fn deny_rules_get_an_exception_each_and_then_an_allow_rule_is_completed() {
    let specs = [
        "{action: DENY, rules: [{to: [{operation: {paths: [/orders]}}]}]}",
        "{action: DENY, rules: [{from: [{source: {namespaces: [web]}}]}]}",
        "{rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ];
    let edits = told(&specs, &request("shop"));
    assert_eq!(edits.len(), 3, "{edits:?}");
    assert!(edits[0].contains("notPrincipals of AuthorizationPolicy foo/p0"), "{edits:?}");
    assert!(edits[1].contains("notPrincipals of AuthorizationPolicy foo/p1"), "{edits:?}");
    assert!(edits[2].contains("methods of AuthorizationPolicy foo/p2"), "{edits:?}");
}

#[test]
fn a_caller_without_identity_is_told_so() {
    let specs = [r#"{rules: [{from: [{source: {principals: ["*"]}}]}]}"#];
    let (_, remedy) = found(&specs, &request(""));
    assert!(remedy.advice[0].contains("the caller has no identity"), "{remedy:?}");
    let [edit] = &remedy.edits[..] else { panic!("{remedy:?}") };
    assert!(edit.to_string().starts_with("add an AuthorizationPolicy in namespace foo: action ALLOW, selector app: orders, from ipBlocks \"10.0.0.7\""));
}

#[test]
fn what_allows_nothing_is_met_by_a_policy_for_just_this_request() {
    let edits = told(&["{}"], &request("shop"));
    let expected = "add an AuthorizationPolicy in namespace foo: action ALLOW, selector app: orders, from principals \
                    \"cluster.local/ns/web/sa/shop\", to ports \"8080\", methods \"POST\", paths \"/orders\"";
    assert_eq!(edits, [expected]);
}

#[test]
fn what_is_allowed_is_refused_by_a_policy_for_just_this_request() {
    let (verdict, remedy) = found(&[], &request("shop"));
    assert_eq!((verdict, remedy.edits.len()), (Verdict::Allow, 1));
    assert!(remedy.edits[0].to_string().contains("action DENY"));
}

#[test]
fn a_request_that_nobody_can_read_has_no_edit() {
    let mut odd = request("shop");
    odd.http.path = "/a%00".to_owned();
    let (verdict, remedy) = found(&[], &odd);
    assert_eq!((verdict, remedy.edits.len(), remedy.advice.len()), (Verdict::Deny, 0, 1));
}
