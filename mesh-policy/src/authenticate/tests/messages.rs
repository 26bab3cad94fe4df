//! Every message, and which of two faults is told.

use super::signer::encoded;
use super::*;

/// The faults of a token, told as Envoy tells them.
#[test]
fn every_message_is_the_one_of_envoy() {
    let signer = Signer::new("k", "ES256");
    let authenticator = compiled(vec![JwtRule { audiences: vec!["api".to_owned()], ..rule(&[&signer]) }]);
    let good = payload(json!({"aud": "api"}));
    let with = |more: Value| {
        signer.token(&payload(json!({"aud": "api"}).as_object().map_or(json!({}), |base| {
            let mut all = base.clone();
            if let Value::Object(more) = more {
                all.extend(more);
            }
            Value::Object(all)
        })))
    };
    let header = |header: Value| signer.token_with(&header, &good);
    let sections = |head: &str, body: &str| signer.token_of(head, body);
    let (head, body) = (encoded(br#"{"alg":"ES256"}"#), encoded(good.to_string().as_bytes()));
    let form = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";
    let valid = signer.token(&good);
    for (token, status, message) in [
        ("x".to_owned(), 401, form),
        ("a.b".to_owned(), 401, form),
        ("a.b.c.d".to_owned(), 401, form),
        ("a..c".to_owned(), 401, form),
        (".b.c".to_owned(), 401, form),
        ("a.b.".to_owned(), 401, form),
        (format!("{valid}.x"), 401, form),
        (format!("{head}.{body}.{}", "A".repeat(70_000)), 401, form),
        (sections("a b", &body), 401, "Jwt header is an invalid Base64url encoded"),
        (sections("a+/b", &body), 401, "Jwt header is an invalid Base64url encoded"),
        (sections("A", &body), 401, "Jwt header is an invalid Base64url encoded"),
        (sections(&encoded(b"x"), &body), 401, "Jwt header is an invalid JSON"),
        (sections(&encoded(b"[]"), &body), 401, "Jwt header is an invalid JSON"),
        (
            sections(&encoded(br#"{"alg":"ES256","alg":"HS256"}"#), &body),
            401,
            "Jwt header is an invalid JSON",
        ),
        (header(json!({"kid": "k"})), 401, "Jwt header [alg] field is required and must be a string"),
        (header(json!({"alg": 256})), 401, "Jwt header [alg] field is required and must be a string"),
        (header(json!({"alg": "none"})), 401, "Jwt header [alg] is not supported"),
        (header(json!({"alg": "es256"})), 401, "Jwt header [alg] is not supported"),
        (header(json!({"alg": "ES256K"})), 401, "Jwt header [alg] is not supported"),
        (header(json!({"alg": "ES256", "kid": 1})), 401, "Jwt header [kid] field is not a string"),
        (header(json!({"alg": "ES256", "kid": null})), 401, "Jwt header [kid] field is not a string"),
        (sections(&head, "a!b"), 401, "Jwt payload is an invalid Base64url encoded"),
        (sections(&head, &encoded(b"{")), 401, "Jwt payload is an invalid JSON"),
        (sections(&head, &encoded(b"\"text\"")), 401, "Jwt payload is an invalid JSON"),
        (sections(&head, &encoded(b"{\"iss\":\"\xff\"}")), 401, "Jwt payload is an invalid JSON"),
        (sections(&head, &encoded(br#"{"iss":"a","iss":"b"}"#)), 401, "Jwt payload is an invalid JSON"),
        (with(json!({"iss": 1})), 401, "Jwt payload [iss] field is not a string"),
        (with(json!({"iss": null})), 401, "Jwt payload [iss] field is not a string"),
        (with(json!({"sub": ["a"]})), 401, "Jwt payload [sub] field is not a string"),
        (with(json!({"iat": "1"})), 401, "Jwt payload [iat] field is not an integer"),
        (with(json!({"iat": -1})), 401, "Jwt payload [iat] field is not a positive 64 bit integer"),
        (with(json!({"nbf": true})), 401, "Jwt payload [nbf] field is not an integer"),
        (with(json!({"nbf": 1e30})), 401, "Jwt payload [nbf] field is not a positive 64 bit integer"),
        (with(json!({"exp": "1800000600"})), 401, "Jwt payload [exp] field is not an integer"),
        (with(json!({"exp": null})), 401, "Jwt payload [exp] field is not an integer"),
        (with(json!({"exp": -12345})), 401, "Jwt payload [exp] field is not a positive 64 bit integer"),
        (with(json!({"exp": 2.001e206})), 401, "Jwt payload [exp] field is not a positive 64 bit integer"),
        (with(json!({"jti": 7})), 401, "Jwt payload [jti] field is not a string"),
        (with(json!({"aud": 7})), 401, "Jwt payload [aud] field is not a string or string list"),
        (with(json!({"aud": ["api", 7]})), 401, "Jwt payload [aud] field is not a string or string list"),
        (format!("{head}.{body}.a!"), 401, "Jwt signature is an invalid Base64url encoded"),
        (with(json!({"iss": "https://other.example"})), 401, "Jwt issuer is not configured"),
        (with(json!({"iss": "https://issuer.example/"})), 401, "Jwt issuer is not configured"),
        (with(json!({"iss": ""})), 401, "Jwt issuer is not configured"),
        (with(json!({"nbf": NOW + 61})), 401, "Jwt not yet valid"),
        (with(json!({"exp": NOW - 61})), 401, "Jwt is expired"),
        (with(json!({"exp": 0})), 401, "Jwt is expired"),
        (with(json!({"aud": "other"})), 403, "Audiences in Jwt are not allowed"),
        (with(json!({"aud": []})), 403, "Audiences in Jwt are not allowed"),
        (signer.token(&payload(json!({}))), 403, "Audiences in Jwt are not allowed"),
        (
            header(json!({"alg": "ES256", "kid": "other"})),
            401,
            "Jwks doesn't have key to match kid or alg from Jwt",
        ),
        (format!("{head}.{body}.{}", encoded(&[1; 64])), 401, "Jwt verification fails"),
        (format!("{head}.{body}.{}", encoded(&[1; 63])), 401, "Jwt verification fails"),
        (header(json!({"alg": "ES256", "crit": ["b64"], "b64": false})), 401, "Jwt verification fails"),
        (header(json!({"alg": "ES256", "crit": []})), 401, "Jwt verification fails"),
    ] {
        let refused = bearer(&token).of(&authenticator).expect_err(message);
        assert_eq!((refused.status, refused.message.as_str()), (status, message), "{token}");
        let details = format!("jwt_authn_access_denied{{{}}}", message.replace(' ', "_"));
        assert_eq!(refused.details, details);
        let challenge = "Bearer realm=\"http://shop.example:8080/api\", error=\"invalid_token\"";
        assert_eq!(refused.www_authenticate, challenge);
        assert_eq!(refused.rule.index, 0);
    }
    assert_eq!(bearer(&valid).subject(&authenticator), "alice");
}

#[test]
fn an_ed25519_signature_of_another_length_has_its_own_message() {
    let signer = Signer::new("k", "EdDSA");
    let token = signer.token(&payload(json!({})));
    let signed = token.rsplit_once('.').expect("three sections").0;
    let short = format!("{signed}.{}", encoded(&[1; 63]));
    let authenticator = compiled(vec![rule(&[&signer])]);
    assert_eq!(bearer(&short).subject(&authenticator), "Jwt ED25519 signature is wrong length");
}

#[test]
fn of_two_faults_the_first_in_order_is_told() {
    let signer = Signer::new("k", "ES256");
    let strict = JwtRule { audiences: vec!["api".to_owned()], ..rule(&[&signer]) };
    let authenticator = compiled(vec![strict]);
    let stranger = Signer::new("k", "ES256");
    let mut claims = json!({"iss": "x", "exp": 1, "nbf": NOW + 1000, "aud": "other"});
    let mut told = Vec::new();
    for repair in [
        json!({"iss": ISSUER}),
        json!({"nbf": NOW}),
        json!({"exp": NOW + 1}),
        json!({"aud": ["x", "https://api/"]}),
        json!({}),
    ] {
        told.push(bearer(&stranger.token(&claims)).subject(&authenticator));
        if let (Value::Object(claims), Value::Object(repair)) = (&mut claims, repair) {
            claims.extend(repair);
        }
    }
    let expected = [
        "Jwt issuer is not configured",
        "Jwt not yet valid",
        "Jwt is expired",
        "Audiences in Jwt are not allowed",
        "Jwt verification fails",
    ];
    assert_eq!(told, expected);
}

#[test]
fn times_have_a_minute_of_leeway_and_may_be_missing_or_fractions() {
    let signer = Signer::new("k", "ES256");
    let authenticator = compiled(vec![rule(&[&signer])]);
    let token = |claims: Value| signer.token(&claims);
    let base = |more: Value| {
        let mut claims = json!({"iss": ISSUER, "sub": "alice"});
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more);
        }
        claims
    };
    for (claims, expected) in [
        (json!({}), "alice"),
        (json!({"exp": NOW}), "alice"),
        (json!({"exp": NOW - 60}), "alice"),
        (json!({"exp": NOW - 61}), "Jwt is expired"),
        (json!({"exp": 1_799_999_940.9}), "alice"),
        (json!({"exp": 1_799_999_939.9}), "Jwt is expired"),
        (json!({"exp": 1.8e9}), "alice"),
        (json!({"exp": u64::MAX}), "alice"),
        (json!({"nbf": NOW + 60}), "alice"),
        (json!({"nbf": NOW + 61}), "Jwt not yet valid"),
        (json!({"nbf": 0}), "alice"),
        (json!({"nbf": u64::MAX}), "Jwt not yet valid"),
        (json!({"iat": NOW + 100_000}), "alice"),
    ] {
        assert_eq!(bearer(&token(base(claims.clone()))).subject(&authenticator), expected, "{claims}");
    }
    assert!(bearer(&token(base(json!({"exp": 10})))).at(&authenticator, 70).is_ok());
    assert!(bearer(&token(base(json!({"exp": 10})))).at(&authenticator, 71).is_err());
}

#[test]
fn audiences_are_a_string_or_a_list_and_compared_bare() {
    let signer = Signer::new("k", "ES256");
    let of = |audiences: &[&str]| {
        let audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        compiled(vec![JwtRule { audiences, ..rule(&[&signer]) }])
    };
    for (configured, claim, is_allowed) in [
        (&["api"][..], json!("api"), true),
        (&["api"], json!(["x", "api"]), true),
        (&["api"], json!("https://api"), true),
        (&["api"], json!("http://api/"), true),
        (&["https://api/"], json!("api"), true),
        (&["http://api"], json!("https://api/"), true),
        (&["a", "b"], json!("b"), true),
        (&["api"], json!("API"), false),
        (&["api"], json!("api//"), false),
        (&["api"], json!("api2"), false),
        (&[], json!("whatever"), true),
        (&[], json!([]), true),
    ] {
        let token = signer.token(&payload(json!({"aud": claim})));
        assert_eq!(bearer(&token).of(&of(configured)).is_ok(), is_allowed, "{configured:?} and {claim}");
    }
}

#[test]
fn keys_that_were_not_fetched_refuse_tokens_and_say_which_are_missing() {
    let signer = Signer::new("k", "ES256");
    let url = "https://issuer.example/keys";
    let remote = JwtRule { jwks_uri: url.to_owned(), jwks: String::new(), ..rule(&[]) };
    let sets =
        |set: Option<mesh_api::model::KeySet>| set.map(|set| (url.to_owned(), set)).into_iter().collect();
    let compile = |set| Authenticator::compile(&[policy("jwt", vec![remote.clone()])], &sets(set));
    let token = signer.token(&payload(json!({})));
    let failed = mesh_api::model::KeySet { jwks: None, problem: "timed out".to_owned() };
    for (set, problem) in [
        (None, "the keys of https://issuer.example/keys have not been fetched yet"),
        (Some(failed), "the keys of https://issuer.example/keys could not be fetched: timed out"),
    ] {
        let authenticator = compile(set);
        let refused = bearer(&token).of(&authenticator).expect_err("no keys");
        assert_eq!((refused.status, refused.message.as_str()), (401, "Jwks remote fetch is failed"));
        let wanted = UnknownKey { source: url.to_owned(), kid: String::new() };
        assert_eq!(refused.unknown_key.as_deref(), Some(&wanted));
        assert_eq!(ask().subject(&authenticator), "-");
        let problems: Vec<_> = authenticator.problems().collect();
        assert_eq!((problems.len(), problems[0].message.as_str()), (1, problem));
        assert!(problems[0].verifies_nothing);
    }
    let fetched = |problem: &str| mesh_api::model::KeySet {
        jwks: Some(set(&[&signer]).into()),
        problem: problem.to_owned(),
    };
    let authenticator = compile(Some(fetched("")));
    assert_eq!(
        (bearer(&token).subject(&authenticator).as_str(), authenticator.problems().count()),
        ("alice", 0)
    );
    let rotated = Signer::new("k2", "ES256").token(&payload(json!({})));
    let refused = bearer(&rotated).of(&authenticator).expect_err("another key");
    let wanted = UnknownKey { source: url.to_owned(), kid: "k2".to_owned() };
    assert_eq!(refused.unknown_key.as_deref(), Some(&wanted));
    let forged = Signer::new("k", "ES256").token(&payload(json!({})));
    assert_eq!(bearer(&forged).of(&authenticator).expect_err("forged").unknown_key, None);
    let header = json!({"alg": "ES256", "kid": "x".repeat(257)});
    let long = signer.token_with(&header, &payload(json!({})));
    assert_eq!(bearer(&long).of(&authenticator).expect_err("no such key").unknown_key, None);
    let stale = compile(Some(fetched("timed out")));
    assert_eq!(bearer(&token).subject(&stale), "alice");
    assert!(stale.problems().all(|problem| !problem.verifies_nothing && problem.message.contains("old")));
    let inline = compiled(vec![rule(&[&signer])]);
    assert_eq!(bearer(&rotated).of(&inline).expect_err("another key").unknown_key, None);
}

#[test]
fn the_place_of_keys_is_the_first_that_is_stated() {
    let signer = Signer::new("k", "ES256");
    let token = signer.token(&payload(json!({})));
    let good = mesh_api::model::KeySet { jwks: Some(set(&[&signer]).into()), problem: String::new() };
    let discovery = "https://issuer.example/.well-known/openid-configuration";
    for (rule, url) in [
        (JwtRule { jwks: String::new(), ..rule(&[]) }, discovery),
        (
            JwtRule { jwks_uri: "https://keys.example".to_owned(), jwks: String::new(), ..rule(&[]) },
            "https://keys.example",
        ),
    ] {
        let policies = [policy("jwt", vec![rule])];
        let with_keys = Authenticator::compile(&policies, &[(url.to_owned(), good.clone())].into());
        assert_eq!(bearer(&token).subject(&with_keys), "alice", "{url}");
        let elsewhere =
            Authenticator::compile(&policies, &[("https://x.example".to_owned(), good.clone())].into());
        assert_eq!(bearer(&token).subject(&elsewhere), "Jwks remote fetch is failed", "{url}");
    }
    let slash = JwtRule { issuer: format!("{ISSUER}/"), jwks: String::new(), ..rule(&[]) };
    let sets = [(discovery.to_owned(), good)].into();
    let authenticator = Authenticator::compile(&[policy("jwt", vec![slash])], &sets);
    let token = signer.token(&payload(json!({"iss": format!("{ISSUER}/")})));
    assert_eq!(bearer(&token).subject(&authenticator), "alice");
}

#[test]
fn the_realm_is_cut_and_cannot_break_out_of_its_quotes() {
    let authenticator = compiled(vec![rule(&[])]);
    let realm = |target: &str| {
        let refused = bearer("x").target(target).of(&authenticator).expect_err("malformed");
        refused.www_authenticate
    };
    let expected =
        "Bearer realm=\"http://shop.example:8080/a?b=%22%5C%0D%0A%C3%A4\", error=\"invalid_token\"";
    assert_eq!(realm("/a?b=\"\\\r\nä"), expected);
    let long = realm(&format!("/{}", "a".repeat(1_000)));
    let inner = long
        .strip_prefix("Bearer realm=\"")
        .and_then(|rest| rest.strip_suffix("\", error=\"invalid_token\""));
    assert_eq!(inner.map(str::len), Some(256));
    assert!(inner.is_some_and(|inner| inner.starts_with("http://shop.example:8080/aaaa")));
}
