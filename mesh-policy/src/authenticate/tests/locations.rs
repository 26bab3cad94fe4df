//! Where tokens are looked for, and where not.

use super::*;

const FORM: &str = "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections";

fn fixture() -> (Signer, String) {
    let signer = Signer::new("k", "ES256");
    let token = signer.token(&payload(json!({})));
    (signer, token)
}

#[test]
fn the_default_is_the_bearer_header_and_the_access_token_parameter() {
    let (signer, token) = fixture();
    let authenticator = compiled(vec![rule(&[&signer])]);
    for (request, expected) in [
        (ask(), "-"),
        (bearer(&token), "alice"),
        (ask().header("Authorization", &format!("Bearer   {token}")), "alice"),
        (ask().header("authorization", &format!("bearer {token}")), "-"),
        (ask().header("authorization", &format!("Basic {token}")), "-"),
        (ask().header("authorization", &token), "-"),
        (ask().header("authorization", "Bearer"), "-"),
        (ask().header("authorization", "Bearer "), FORM),
        (ask().header("x-token", &token), "-"),
        (ask().target(&format!("/api?access_token={token}")), "alice"),
        (ask().target(&format!("/api?a=b&access%5Ftoken={}", token.replace('.', "%2E"))), "alice"),
        (ask().target("/api?access_token="), FORM),
        (ask().target("/api?access_token"), FORM),
        (ask().target(&format!("/api?Access_Token={token}")), "-"),
        (ask().target(&format!("/access_token={token}")), "-"),
        (ask().header("cookie", &format!("access_token={token}")), "-"),
    ] {
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
}

#[test]
fn a_rule_that_names_locations_uses_only_those() {
    let (signer, token) = fixture();
    let pairs =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    let header = JwtRule { from_headers: pairs(&[("X-Token", "")]), ..rule(&[&signer]) };
    let prefixed = JwtRule { from_headers: pairs(&[("x-token", "Token ")]), ..rule(&[&signer]) };
    let parameter = JwtRule { from_params: vec!["jwt".to_owned()], ..rule(&[&signer]) };
    let cookie = JwtRule { from_cookies: vec!["session".to_owned()], ..rule(&[&signer]) };
    let in_query = |name: &str| ask().target(&format!("/api?{name}={token}"));
    for (rule, request, expected) in [
        (&header, ask().header("x-token", &token), "alice"),
        (
            &header,
            ask().header("x-token", &format!("Bearer {token}")),
            "Jwt header is an invalid Base64url encoded",
        ),
        (&header, ask().header("x-token", ""), FORM),
        (&header, bearer(&token), "-"),
        (&header, in_query("access_token"), "-"),
        (&prefixed, ask().header("X-TOKEN", &format!("Token {token}")), "alice"),
        (&prefixed, ask().header("x-token", &format!("token {token}")), "-"),
        (&prefixed, ask().header("x-token", &token), "-"),
        (&parameter, in_query("jwt"), "alice"),
        (&parameter, in_query("access_token"), "-"),
        (&parameter, bearer(&token), "-"),
        (&cookie, ask().header("cookie", &format!("a=b; session={token}; c=d")), "alice"),
        (&cookie, ask().header("cookie", "a=b").header("cookie", &format!("session=\"{token}\"")), "alice"),
        (&cookie, ask().header("cookie", "session="), FORM),
        (&cookie, ask().header("cookie", "session"), "-"),
        (&cookie, ask().header("cookie", &format!("xsession={token}")), "-"),
        (&cookie, bearer(&token), "-"),
    ] {
        let authenticator = compiled(vec![rule.clone()]);
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
}

#[test]
fn every_token_that_a_rule_finds_must_verify() {
    let (signer, token) = fixture();
    let second = signer.token(&payload(json!({"sub": "bob"})));
    let expired = signer.token(&payload(json!({"exp": 1})));
    let everywhere = JwtRule {
        from_headers: vec![
            ("authorization".to_owned(), "Bearer ".to_owned()),
            ("x-a".to_owned(), String::new()),
        ],
        from_params: vec!["t".to_owned()],
        from_cookies: vec!["c".to_owned()],
        ..rule(&[&signer])
    };
    let authenticator = compiled(vec![everywhere]);
    for (request, expected) in [
        (bearer(&token).header("x-a", &second), "alice"),
        (bearer(&second).header("x-a", &token), "bob"),
        (bearer(&token).header("authorization", &format!("Bearer {expired}")), "Jwt is expired"),
        (bearer(&expired).header("authorization", &format!("Bearer {token}")), "Jwt is expired"),
        (bearer(&token).header("x-a", &expired), "Jwt is expired"),
        (bearer(&token).target(&format!("/api?t={expired}")), "Jwt is expired"),
        (bearer(&token).target(&format!("/api?t={token}&t={expired}")), "Jwt is expired"),
        (bearer(&token).header("cookie", &format!("c={token}; c={expired}")), "Jwt is expired"),
        (bearer(&token).header("cookie", &format!("c={token}")), "alice"),
        // The last token found is the first that is told of.
        (bearer(&expired).header("x-a", "junk"), FORM),
    ] {
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
}

#[test]
fn a_flood_of_tokens_is_refused_unseen() {
    let (signer, token) = fixture();
    let authenticator = compiled(vec![rule(&[&signer])]);
    let many = |count: usize| {
        (0..count).fold(ask(), |all, _| all.header("authorization", &format!("Bearer {token}")))
    };
    assert_eq!(many(16).subject(&authenticator), "alice");
    assert_eq!(many(17).subject(&authenticator), "Found multiple Jwt tokens");
    assert_eq!(many(1_000).subject(&authenticator), "Found multiple Jwt tokens");
}
