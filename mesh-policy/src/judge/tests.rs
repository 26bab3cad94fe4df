use mesh_api::model::{Action, Kind, ObjectMeta, Operation, Origin, Rule, Selector, Source};
use mesh_api::name::{Labels, Namespace, ObjectName, ServiceAccount};
use mesh_api::policy_test::HttpRequest;
use proptest::prelude::*;

use super::*;

fn policy(name: &str, action: Action, rule: Rule) -> Arc<AuthorizationPolicy> {
    let object = ObjectRef {
        kind: Kind::AuthorizationPolicy,
        namespace: Namespace::parse("default").expect("a name"),
        name: ObjectName::parse(name).expect("a name"),
    };
    Arc::new(AuthorizationPolicy {
        meta: ObjectMeta {
            object,
            labels: Labels::new(),
            annotations: Labels::new(),
            created: 0,
            origin: Origin::default(),
        },
        selector: Selector::default(),
        targets: Vec::new(),
        action,
        provider: None,
        rules: vec![rule],
        dry_run: false,
    })
}

fn judge(authorization: Vec<Arc<AuthorizationPolicy>>) -> Judge {
    let (namespace, account) =
        (Namespace::parse("default").expect("a name"), ServiceAccount::parse("default").expect("a name"));
    let labels = Labels::new();
    let subject = Subject { namespace: &namespace, labels: &labels, service_account: &account };
    let policies = Policies { authorization, ..Policies::default() };
    Judge::compile(&MeshSettings::default(), &subject, &policies)
}

fn paths(paths: &[&str]) -> Rule {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Rule { to: vec![Operation { paths, ..Operation::default() }], ..Rule::default() }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Z]{1,5}", "/[a-z./%\\\\;?#]{0,12}", "\\PC{0,8}", any::<String>(), Just(String::new())]
}

prop_compose! {
    fn request()(
        method in prop_oneof![Just("GET".to_owned()), Just("CONNECT".to_owned()), text()],
        host in prop_oneof!["[a-z.:\\[\\]0-9@,]{0,12}", text()],
        path in prop_oneof![
            "(http://[a-z@\\\\]{0,4})?/([a-z]|/|\\.|%2e|%2F|%00|;|#|\\?|\\\\){0,12}",
            text()
        ],
        headers in prop::collection::vec((prop_oneof!["[a-zA-Z-]{1,10}", text()], text()), 0..4),
        protocol in prop_oneof![3 => Just(Traffic::Http), 1 => Just(Traffic::Tcp)],
        is_known in any::<bool>(),
        port in any::<u16>(),
    ) -> Request {
        Request {
            protocol,
            principal: is_known.then(|| SpiffeId::parse("spiffe://cluster.local/ns/web/sa/frontend").expect("an id")),
            tls: is_known,
            source_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            remote_ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
            destination_ip: None,
            sni: None,
            port,
            http: HttpRequest { method, host, path, headers, jwt_claims: None },
        }
    }
}

proptest! {
    #[test]
    fn every_request_is_judged_and_the_account_agrees(request in request()) {
        let rule = Rule {
            from: vec![Source { principals: vec!["*".to_owned()], ..Source::default() }],
            ..paths(&["/a*", "/{*}/b"])
        };
        let judge = judge(vec![policy("p", Action::Allow, rule), policy("q", Action::Deny, paths(&["*/admin"]))]);
        let (short, long) = (judge.judge(&request, 0), judge.explain(&request, 0));
        prop_assert_eq!(short.decision, long.decision);
        prop_assert_eq!(&short.policy, &long.policy);
        prop_assert_eq!(&short.matched, &long.matched);
        if let Some(explanation) = &long.explanation {
            prop_assert_eq!(explanation.allowed, long.decision == Verdict::Allow);
        }
        // Who is refused gets nothing through, and an answer exactly where there is HTTP to answer.
        let is_refused = short.decision == Verdict::Deny;
        prop_assert!(!is_refused || short.headers.is_empty());
        prop_assert_eq!(short.answer.is_some(), is_refused && request.protocol == Traffic::Http);
    }

    #[test]
    fn what_is_forwarded_is_what_was_judged(request in request()) {
        let judgement = judge(Vec::new()).judge(&request, 0);
        if let (Some(path), Some(seen)) = (&judgement.path, &judgement.policy_path) {
            prop_assert!(path.starts_with('/') && path.starts_with(seen.as_str()));
            prop_assert!(!seen.contains(['?', '#']) && !path.contains('#'));
            let rest = &path[seen.len()..];
            prop_assert!(rest.is_empty() || rest.starts_with('?'));
        }
    }

    #[test]
    fn what_is_tried_only_decides_nothing_and_what_would_go_still_does(request in request()) {
        let deny = policy("deny", Action::Deny, paths(&["*b"]));
        let annotated = |value: &str| {
            let mut deny = AuthorizationPolicy::clone(&deny);
            deny.meta.annotations.insert(mesh_api::model::DRY_RUN.to_owned(), value.to_owned());
            judge(vec![Arc::new(deny)]).judge(&request, 0).decision
        };
        let decision = |policies: Vec<_>| judge(policies).judge(&request, 0).decision;
        prop_assert_eq!(annotated("true"), decision(Vec::new()));
        prop_assert_eq!(annotated("delete"), decision(vec![Arc::clone(&deny)]));
    }

    #[test]
    fn a_deny_more_never_lets_more_in(request in request()) {
        let allow = policy("allow", Action::Allow, paths(&["/a*"]));
        let deny = policy("deny", Action::Deny, paths(&["*b"]));
        let before = judge(vec![Arc::clone(&allow)]).judge(&request, 0).decision;
        let after = judge(vec![allow, deny]).judge(&request, 0).decision;
        prop_assert!(before == Verdict::Allow || after == Verdict::Deny);
    }
}
