//! Several rules and several tokens (SEMANTICS 7.5 and C3).

use super::*;

const UNKNOWN: &str = "Jwt issuer is not configured";

fn of_issuer(issuer: &str, signer: &Signer) -> JwtRule {
    JwtRule { issuer: issuer.to_owned(), ..rule(&[signer]) }
}

fn at_header(header: &str, rule: JwtRule) -> JwtRule {
    JwtRule { from_headers: vec![(header.to_owned(), String::new())], ..rule }
}

#[test]
fn without_rules_nothing_is_looked_at() {
    let authenticator = compiled(Vec::new());
    assert!(authenticator.is_empty() && Authenticator::default().is_empty());
    assert_eq!(bearer("junk").of(&authenticator), Ok(Authenticated::default()));
}

#[test]
fn at_a_shared_location_a_token_is_good_for_one_rule() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let authenticator = compiled(vec![of_issuer("b", &b), of_issuer("a", &a)]);
    let token = |signer: &Signer, issuer: &str, more: Value| {
        let mut claims = payload(json!({"iss": issuer, "sub": issuer}));
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more);
        }
        signer.token(&claims)
    };
    for (request, expected) in [
        (ask(), "-"),
        (bearer(&token(&a, "a", json!({}))), "a"),
        (bearer(&token(&b, "b", json!({}))), "b"),
        (bearer(&token(&a, "c", json!({}))), UNKNOWN),
        // The rule that knows the issuer says why, not the one that does not.
        (bearer(&token(&a, "a", json!({"exp": 1}))), "Jwt is expired"),
        (bearer(&token(&b, "b", json!({"exp": 1}))), "Jwt is expired"),
        (bearer(&token(&a, "b", json!({}))), "Jwks doesn't have key to match kid or alg from Jwt"),
        // Good for different rules, so that neither has only good ones.
        (
            bearer(&token(&a, "a", json!({})))
                .target(&format!("/?access_token={}", token(&b, "b", json!({})))),
            UNKNOWN,
        ),
        (
            bearer(&token(&a, "a", json!({})))
                .target(&format!("/?access_token={}", token(&a, "a", json!({})))),
            "a",
        ),
    ] {
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
}

#[test]
fn rules_of_one_issuer_accept_each_its_own_audience() {
    let signer = Signer::new("k", "ES256");
    let meant_for = |audience: &str| JwtRule {
        audiences: vec![audience.to_owned()],
        output_claim_to_headers: vec![("x-audience".to_owned(), "aud".to_owned())],
        ..rule(&[&signer])
    };
    let authenticator = compiled(vec![meant_for("one"), meant_for("two")]);
    for (audience, status) in [("one", None), ("two", None), ("three", Some(403))] {
        let token = signer.token(&payload(json!({"aud": audience})));
        let outcome = bearer(&token).of(&authenticator);
        assert_eq!(outcome.as_ref().err().map(|refused| refused.status), status, "{audience}");
    }
}

#[test]
fn a_bad_token_at_any_location_is_refused_beside_a_good_one() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let authenticator =
        compiled(vec![at_header("x-a", of_issuer("a", &a)), at_header("x-b", of_issuer("b", &b))]);
    let good = |signer: &Signer, issuer: &str| signer.token(&payload(json!({"iss": issuer, "sub": issuer})));
    let (of_a, of_b) = (good(&a, "a"), good(&b, "b"));
    let expired = b.token(&payload(json!({"iss": "b", "exp": 1})));
    for (request, expected) in [
        (ask().header("x-a", &of_a), "a"),
        (ask().header("x-b", &of_b), "b"),
        (ask().header("x-b", &of_b).header("x-a", &of_a), "a"),
        (ask().header("x-a", &of_a).header("x-b", &expired), "Jwt is expired"),
        (
            ask().header("x-a", "junk").header("x-b", &of_b),
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
        (ask().header("x-a", &of_b), UNKNOWN),
        (ask().header("x-a", &of_a).header("x-b", &of_a), UNKNOWN),
    ] {
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
    // Both are verified, so that neither is passed on where it is not to be.
    let both = ask().header("x-b", &of_b).header("x-a", &of_a).of(&authenticator).expect("two good tokens");
    assert!(both.effects.removes("x-a") && both.effects.removes("x-b"));
}

#[test]
fn one_line_that_two_rules_read_by_different_prefixes_is_one_token() {
    let signer = Signer::new("k", "ES256");
    let plain = at_header("authorization", of_issuer("zzz", &signer));
    let authenticator = compiled(vec![rule(&[&signer]), plain]);
    let token = signer.token(&payload(json!({})));
    assert_eq!(bearer(&token).subject(&authenticator), "alice");
    let other = ask().header("authorization", &signer.token(&payload(json!({"iss": "zzz"}))));
    assert_eq!(other.subject(&authenticator), "alice");
    assert!(ask().header("authorization", &token).of(&authenticator).is_err());
}

#[test]
fn a_rule_without_issuer_accepts_any() {
    let signer = Signer::new("k", "ES256");
    let authenticator = compiled(vec![of_issuer("", &signer)]);
    for (claims, subject) in
        [(json!({"iss": "x", "sub": "s"}), "s"), (json!({"sub": "s"}), "s"), (json!({"iss": "x"}), "?")]
    {
        assert_eq!(bearer(&signer.token(&claims)).subject(&authenticator), subject);
    }
}

#[test]
fn rules_of_all_policies_are_asked_in_the_order_of_their_issuers() {
    let signer = Signer::new("k", "ES256");
    let first = policy("z", vec![at_header("x-b", of_issuer("b", &signer))]);
    let second = policy(
        "a",
        vec![at_header("x-c", of_issuer("c", &signer)), at_header("x-a", of_issuer("a", &signer))],
    );
    let token = |issuer: &str| signer.token(&payload(json!({"iss": issuer, "sub": issuer})));
    let request = ask().header("x-c", &token("c")).header("x-b", &token("b")).header("x-a", &token("a"));
    for policies in [[Arc::clone(&first), Arc::clone(&second)], [second, first]] {
        let authenticator = Authenticator::compile(&policies, &KeySets::new());
        assert_eq!(request.subject(&authenticator), "a");
        let without = Ask { headers: request.headers[..2].to_vec(), ..request.clone() };
        assert_eq!(without.subject(&authenticator), "b");
        let refused = ask().header("x-c", "junk").of(&authenticator).expect_err("malformed");
        assert_eq!((refused.rule.policy.name.as_str(), refused.rule.index), ("a", 0));
    }
}

#[test]
fn four_thousand_rules_share_the_keys_of_one_provider() {
    let signer = Signer::new("k", "ES256");
    let url = "https://keys.example";
    let rules = (0..4_096).map(|number| JwtRule {
        jwks_uri: url.to_owned(),
        jwks: String::new(),
        ..of_issuer(&format!("issuer-{number}"), &signer)
    });
    let keys = mesh_api::model::KeySet { jwks: Some(set(&[&signer]).into()), problem: String::new() };
    let policies = [policy("many", rules.collect())];
    let authenticator = Authenticator::compile(&policies, &[(url.to_owned(), keys)].into());
    let token = signer.token(&payload(json!({"iss": "issuer-4095"})));
    assert_eq!(bearer(&token).subject(&authenticator), "alice");
    assert_eq!(bearer(&signer.token(&payload(json!({"iss": "x"})))).subject(&authenticator), UNKNOWN);
}

/// A token that names every audience and no key is checked once, and not by each of many rules.
#[test]
fn rules_with_the_same_keys_check_a_signature_once() {
    let signer = Signer::new("", "ES256");
    let meant_for = |number: usize| JwtRule { audiences: vec![format!("a{number}")], ..rule(&[&signer]) };
    let authenticator = compiled((0..2_000).map(meant_for).collect());
    let audiences: Vec<String> = (0..2_000).map(|number| format!("a{number}")).collect();
    let forged = Signer::new("", "ES256").token(&payload(json!({"aud": audiences})));
    let token = Token::parse(forged.as_bytes()).expect("of good form");
    let mut signatures = Signatures::default();
    for rule in &authenticator.rules {
        let keys = rule.check(&token, NOW).expect("good claims");
        assert_eq!(signatures.verify((0, &token), keys), Err(Failure::Signature));
    }
    assert_eq!(signatures.checked.len(), 1);
    assert_eq!(bearer(&forged).subject(&authenticator), "Jwt verification fails");
}
