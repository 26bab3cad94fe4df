//! Rules that every set of policies keeps, over generated policies and requests.

mod generate;
mod naive;

use std::sync::Arc;

use mesh_api::model::{Action, AuthorizationPolicy, Operation, Rule};
use mesh_policy::authorize::{
    Attributes, Authorizer, Claims, Decision, DenyReason, DryRunAllow, External, HeaderList, HttpAttributes,
    RuleId,
};
use naive::{Custom, Request};
use proptest::prelude::*;

fn compile(policies: &[AuthorizationPolicy]) -> Authorizer {
    let policies: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
    Authorizer::compile(&generate::mesh(), &policies)
}

/// Lends the request to `judge` in the form that the engine takes.
fn with_attributes<T>(request: &Request, judge: impl FnOnce(&Attributes<'_>) -> T) -> T {
    let claims = request
        .http
        .as_ref()
        .and_then(|http| http.claims.clone())
        .map(|claims| Claims::from_verified(claims, &[]));
    let headers = request.http.as_ref().map(|http| HeaderList(&http.headers));
    judge(&Attributes {
        peer: request.peer.as_ref(),
        source_ip: request.source_ip,
        remote_ip: request.remote_ip,
        destination_ip: request.destination_ip,
        destination_port: request.port,
        sni: request.sni.as_deref(),
        http: request.http.as_ref().zip(headers.as_ref()).map(|(http, headers)| HttpAttributes {
            method: &http.method,
            authority: &http.authority,
            path: &http.path,
            headers,
            claims: claims.as_ref(),
        }),
    })
}

fn decide(authorizer: &Authorizer, request: &Request) -> Decision {
    with_attributes(request, |attributes| authorizer.authorize(attributes))
}

fn named(authorizer: &Authorizer, id: Option<RuleId>) -> Option<(String, usize)> {
    id.map(|id| authorizer.rule(id)).map(|rule| (rule.object().to_string(), rule.index() as usize))
}

/// Seeds of failures are printed, not written into the tree. A soak asks for more cases than a build.
#[expect(
    clippy::disallowed_methods,
    reason = "the policy reads no environment; whoever runs its tests may ask by it"
)]
fn config(cases: u32) -> ProptestConfig {
    let asked = std::env::var("MESH_POLICY_CASES").ok();
    let cases = asked.map_or(cases, |asked| asked.parse().expect("MESH_POLICY_CASES is a number"));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(3_000))]

    #[test]
    fn the_index_answers_as_the_naive_evaluator(
        policies in generate::policies(),
        requests in prop::collection::vec(generate::request(), 4),
    ) {
        let authorizer = compile(&policies);
        for request in requests {
            let expected = naive::judge(&generate::mesh(), &policies, &request);
            let decision = decide(&authorizer, &request);
            prop_assert_eq!(decision.is_allowed(), expected.allowed, "{:?}", request);
            let (by, aside) = (named(&authorizer, decision.by()), decision.aside());
            let reason = match decision {
                Decision::Allowed { .. } => None,
                Decision::Denied { reason, .. } => Some(reason),
            };
            with_attributes(&request, |attributes| {
                let (leads_to, rule) = match authorizer.external(attributes) {
                    External::NotAsked => (Custom::Nothing, None),
                    External::Ask { provider, rule } => {
                        assert_eq!(Some(provider), authorizer.provider());
                        (Custom::Asking, Some(rule))
                    }
                    External::Refuse { rule, .. } => (Custom::Refusal, Some(rule)),
                };
                if expected.custom.is_none() || expected.custom_leads_to == Custom::Nothing {
                    prop_assert_eq!(leads_to, Custom::Nothing);
                } else {
                    prop_assert_eq!(leads_to, expected.custom_leads_to);
                    prop_assert_eq!(named(&authorizer, rule), expected.custom.clone());
                }
                Ok(())
            })?;
            prop_assert_eq!(named(&authorizer, aside.audit), expected.audit);
            prop_assert_eq!(named(&authorizer, aside.dry_run_deny), expected.dry_run_deny);
            if expected.deny.is_some() {
                prop_assert_eq!(reason, Some(DenyReason::MatchedDeny));
                prop_assert_eq!(by, expected.deny);
                continue;
            }
            prop_assert_eq!(by, expected.allow);
            let has_dry_run_allow = policies.iter().any(|p| p.action == Action::Allow && p.dry_run);
            match aside.dry_run_allow {
                DryRunAllow::Silent => prop_assert!(!has_dry_run_allow),
                DryRunAllow::WouldDeny => prop_assert!(has_dry_run_allow && expected.dry_run_allow.is_none()),
                DryRunAllow::WouldAllow(id) => {
                    prop_assert_eq!(named(&authorizer, Some(id)), expected.dry_run_allow);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn explain_agrees_with_decide(policies in generate::policies(), request in generate::request()) {
        let authorizer = compile(&policies);
        let decision = decide(&authorizer, &request);
        let explanation = with_attributes(&request, |attributes| authorizer.explain(attributes));
        let external = with_attributes(&request, |attributes| match authorizer.external(attributes) {
            External::NotAsked => (None, None),
            External::Ask { rule, .. } => (Some(authorizer.rule(rule).to_string()), None),
            External::Refuse { rule, reason } => (Some(authorizer.rule(rule).to_string()), Some(reason)),
        });
        let (asking, refused) = external;
        prop_assert_eq!(explanation.allowed, refused.is_none() && decision.is_allowed());
        let by = decision.by().map(|id| authorizer.rule(id).to_string());
        prop_assert_eq!(&explanation.decided_by, if refused.is_some() { &asking } else { &by });
        prop_assert_eq!(explanation.external.map(|external| external.rule), asking);
        if refused.is_some() {
            prop_assert_eq!(explanation.deny_reason, refused);
        }
        for policy in &explanation.policies {
            for rule in &policy.rules {
                // The tree itself must add up to what it says about the rule.
                let entries = |e: &[mesh_policy::authorize::EntryExplanation]| {
                    e.is_empty() || e.iter().any(|e| e.matched)
                };
                let adds_up = rule.not_in_force.is_none()
                    && entries(&rule.from)
                    && entries(&rule.to)
                    && rule.when.iter().all(|clause| clause.holds);
                prop_assert_eq!(rule.matched, adds_up);
            }
            if policy.matched && policy.action == Action::Deny && !policy.dry_run {
                prop_assert!(!explanation.allowed, "deny wins");
            }
        }
        if let Some(miss) = explanation.nearest_miss {
            prop_assert!(!explanation.allowed);
            prop_assert!(!miss.unmet.is_empty());
            prop_assert!(miss.unmet.iter().all(|clause| !clause.holds));
        }
    }

    #[test]
    fn the_order_of_policies_and_rules_is_irrelevant(
        mut policies in generate::policies(),
        request in generate::request(),
        rotation in 0..8_usize,
    ) {
        let forward = decide(&compile(&policies), &request).is_allowed();
        let ids = |policies: &[AuthorizationPolicy]| {
            let authorizer = compile(policies);
            named(&authorizer, decide(&authorizer, &request).by())
        };
        let decided = ids(&policies);
        let length = policies.len().max(1);
        policies.rotate_left(if length > 1 { rotation % length } else { 0 });
        prop_assert_eq!(ids(&policies), decided, "the same model decides by the same rule");
        policies.reverse();
        policies.iter_mut().for_each(|policy| policy.rules.reverse());
        prop_assert_eq!(decide(&compile(&policies), &request).is_allowed(), forward);
    }

    #[test]
    fn adding_a_deny_never_grants(
        policies in generate::policies(),
        more in generate::policies(),
        request in generate::request(),
    ) {
        let before = decide(&compile(&policies), &request).is_allowed();
        let denies = more.into_iter().enumerate().map(|(number, policy)| AuthorizationPolicy {
            action: Action::Deny,
            dry_run: false,
            ..generate::policy_named(&format!("deny{number}"), "web", Action::Deny, false, policy.rules)
        });
        let all: Vec<_> = policies.into_iter().chain(denies).collect();
        prop_assert!(before || !decide(&compile(&all), &request).is_allowed());
    }

    #[test]
    fn dry_run_changes_no_verdict(
        policies in generate::policies(),
        request in generate::request(),
    ) {
        let enforced: Vec<_> = policies.iter().filter(|policy| !policy.dry_run).cloned().collect();
        prop_assert_eq!(
            decide(&compile(&policies), &request).is_allowed(),
            decide(&compile(&enforced), &request).is_allowed()
        );
    }

    #[test]
    fn an_http_field_never_allows_tcp_and_always_denies_it(
        request in generate::request(),
        path in prop::sample::select(vec!["/admin", "*", "/{**}"]),
        negated in any::<bool>(),
    ) {
        let operation = if negated {
            Operation { not_paths: vec![path.to_owned()], ..Operation::default() }
        } else {
            Operation { paths: vec![path.to_owned()], ..Operation::default() }
        };
        let rules = vec![Rule { to: vec![operation], ..Rule::default() }];
        let tcp = Request { http: None, ..request };
        for action in [Action::Allow, Action::Deny] {
            let policy = generate::policy_named("p", "web", action, false, rules.clone());
            prop_assert!(!decide(&compile(&[policy]), &tcp).is_allowed());
        }
    }
}

/// One change to a set of policies.
#[derive(Debug, Clone)]
enum Change {
    Remove(prop::sample::Index),
    Add(AuthorizationPolicy),
    /// Takes over rules and action of another policy.
    Edit(prop::sample::Index, AuthorizationPolicy),
    /// Says something that compiling does not look at.
    Touch(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let deny_nothing = || generate::policy_named("p", "web", Action::Deny, false, Vec::new());
    let policy = || {
        generate::policies()
            .prop_map(move |policies| policies.into_iter().next().unwrap_or_else(deny_nothing))
    };
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Change::Remove),
        policy().prop_map(Change::Add),
        (any::<prop::sample::Index>(), policy()).prop_map(|(at, policy)| Change::Edit(at, policy)),
        any::<prop::sample::Index>().prop_map(Change::Touch),
    ]
}

fn apply(policies: &mut Vec<AuthorizationPolicy>, change: Change, number: usize) {
    let at = |index: prop::sample::Index| (!policies.is_empty()).then(|| index.index(policies.len()));
    match change {
        Change::Add(policy) => {
            let name = format!("added{number}");
            let namespace = policy.meta.object.namespace.as_str();
            let added =
                generate::policy_named(&name, namespace, policy.action, policy.dry_run, policy.rules.clone());
            policies.insert(number % (policies.len() + 1), added);
        }
        Change::Remove(index) => drop(at(index).map(|at| policies.remove(at))),
        Change::Edit(index, other) => {
            if let Some(at) = at(index) {
                let meta = policies[at].meta.clone();
                policies[at] = AuthorizationPolicy { meta, ..other };
            }
        }
        Change::Touch(index) => {
            if let Some(at) = at(index) {
                policies[at].meta.created += 1;
            }
        }
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn what_is_compiled_anew_after_changes_is_what_is_compiled_from_nothing(
        mut policies in generate::policies(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let mesh = generate::mesh();
        let mut authorizer = compile(&policies);
        for (number, change) in changes.into_iter().enumerate() {
            apply(&mut policies, change, number);
            let shared: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
            authorizer = authorizer.recompile(&mesh, &shared);
            // Everything that it holds, the index included.
            prop_assert_eq!(format!("{authorizer:?}"), format!("{:?}", compile(&policies)));
        }
        // Other trust domains change what rules mean.
        let mut renamed = mesh;
        renamed.trust_domain_aliases.clear();
        let shared: Vec<_> = policies.iter().cloned().map(Arc::new).collect();
        let recompiled = authorizer.recompile(&renamed, &shared);
        prop_assert_eq!(format!("{recompiled:?}"), format!("{:?}", Authorizer::compile(&renamed, &shared)));
    }

    #[test]
    fn a_value_that_cannot_be_evaluated_never_widens_access(
        policies in generate::policies(),
        request in generate::request(),
        place in any::<prop::sample::Index>(),
        broken in prop::sample::select(vec![
            ("source.ip", "10.0.0.0/99"),
            ("destination.port", "http"),
            ("request.nothing", "x"),
            ("experimental.envoy.filters.a[b]", "x"),
        ]),
    ) {
        // A condition that nothing can be said about is added to one rule: an ALLOW rule loses by it, the others
        // do not, and so nobody gets in who was not let in before.
        if policies.iter().all(|policy| policy.rules.is_empty()) {
            return Ok(());
        }
        let before = decide(&compile(&policies), &request);
        let mut broken_ones = policies;
        let mut rules: Vec<&mut Rule> = broken_ones.iter_mut().flat_map(|policy| &mut policy.rules).collect();
        let at = place.index(rules.len());
        let (key, value) = broken;
        rules[at].when.push(mesh_api::model::Condition {
            key: key.to_owned(),
            values: vec![value.to_owned()],
            not_values: Vec::new(),
        });
        // What is absent is no error: a DENY rule that asks for it does not match, as in Istio.
        let mut actions = broken_ones.iter().flat_map(|policy| policy.rules.iter().map(|_| policy.action));
        if key.starts_with("experimental") && actions.nth(at) != Some(Action::Allow) {
            return Ok(());
        }
        let after = decide(&compile(&broken_ones), &request);
        prop_assert!(before.is_allowed() || !after.is_allowed(), "{:?}", request);
    }
}

#[test]
fn a_rule_beyond_the_first_dimensions_is_still_found() {
    // More header names than the index has dimensions, and more values than one look-up takes.
    let rules = (0..40)
        .map(|number| Rule {
            when: vec![mesh_api::model::Condition {
                key: format!("request.headers[x-{number}]"),
                values: vec!["yes".to_owned()],
                not_values: Vec::new(),
            }],
            ..Rule::default()
        })
        .collect();
    let authorizer = compile(&[generate::policy_named("p", "web", Action::Allow, false, rules)]);
    for number in 0..41 {
        let mut headers = vec![(format!("x-{number}"), "no".to_owned()); 30];
        headers.push((format!("x-{number}"), "yes".to_owned()));
        let request = Request {
            peer: None,
            source_ip: [10, 0, 0, 1].into(),
            remote_ip: [10, 0, 0, 1].into(),
            destination_ip: [10, 0, 0, 2].into(),
            port: 80,
            sni: None,
            http: Some(naive::Http {
                method: "GET".to_owned(),
                authority: "a".to_owned(),
                path: "/".to_owned(),
                headers,
                claims: None,
            }),
        };
        assert_eq!(decide(&authorizer, &request).is_allowed(), number < 40, "x-{number}");
    }
}
