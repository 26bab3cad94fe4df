//! What becomes of the request.

use super::*;

const FORGED: &str = "forged";

/// What the application receives: header lines in order, and the target.
fn forwarded(request: &Ask, authenticated: &Authenticated) -> (Vec<(String, String)>, String) {
    let effects = &authenticated.effects;
    let kept = request.headers.iter().filter(|(name, _)| !effects.removes(name)).cloned();
    let added = effects.added().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let target = effects.target().unwrap_or(&request.target).to_owned();
    (kept.chain(added).collect(), target)
}

fn lines(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    lines(pairs)
}

#[test]
fn a_token_is_taken_off_unless_it_is_to_be_forwarded() {
    let signer = Signer::new("k", "ES256");
    let token = signer.token(&payload(json!({})));
    let value = format!("Bearer {token}");
    let cookie = format!("a=b; c={token}");
    for forward_original_token in [false, true] {
        let base = JwtRule { forward_original_token, ..rule(&[&signer]) };
        let plain = compiled(vec![base.clone()]);
        let by_cookie = compiled(vec![JwtRule { from_cookies: vec!["c".to_owned()], ..base }]);
        let header = bearer(&token).header("x-other", "1").header("Authorization", &value);
        let query = ask().target(&format!("/a%2Fb?x=%20&access_token={token}&y&access%5Ftoken={token}"));
        let in_cookie = ask().header("cookie", &cookie);
        for (authenticator, request, without) in [
            (&plain, &header, (lines(&[("x-other", "1")]), "/api".to_owned())),
            (&plain, &query, (Vec::new(), "/a%2Fb?x=%20&y".to_owned())),
            (&by_cookie, &in_cookie, (lines(&[("cookie", &cookie)]), "/api".to_owned())),
        ] {
            let authenticated = request.of(authenticator).expect("a good token");
            let expected = if forward_original_token {
                (request.headers.clone(), request.target.clone())
            } else {
                without
            };
            assert_eq!(forwarded(request, &authenticated), expected);
            let claims = authenticated.claims.expect("claims");
            assert_eq!((claims.text("iss"), claims.text("sub")), (Some(ISSUER), Some("alice")));
        }
    }
    let only = ask().target(&format!("/api?access_token={token}"));
    let authenticated = only.of(&compiled(vec![rule(&[&signer])])).expect("a good token");
    assert_eq!(authenticated.effects.target(), Some("/api"));
}

#[test]
fn headers_are_filled_from_the_token() {
    let signer = Signer::new("k", "ES256");
    let claims = json!({
        "name": "Zoë", "n": 7, "f": 1.5, "minus": -2, "yes": true, "no": false, "nothing": null,
        "empty": "", "list": ["a"], "map": {"deep": {"x": "y", "n": 3}}, "a.b": "dotted",
        "evil": "x\r\nx-admin: true", "nul": "a\u{0}b",
    });
    let token = signer.token(&payload(claims));
    let section = token.split('.').nth(1).expect("a payload").to_owned();
    let outputs = [
        ("X-Sub", "sub"),
        ("x-name", "name"),
        ("x-n", "n"),
        ("x-f", "f"),
        ("x-minus", "minus"),
        ("x-yes", "yes"),
        ("x-no", "no"),
        ("x-nothing", "nothing"),
        ("x-empty", "empty"),
        ("x-list", "list"),
        ("x-map", "map"),
        ("x-deep", "map.deep.x"),
        ("x-deep-n", "map.deep.n"),
        ("x-dotted", "a.b"),
        ("x-missing", "missing"),
        ("x-under-text", "sub.x"),
        ("x-evil", "evil"),
        ("x-nul", "nul"),
        ("x-sub", "iss"),
        ("host", "sub"),
        ("content-length", "n"),
    ];
    let authenticator = compiled(vec![JwtRule {
        output_payload_to_header: "X-Payload".to_owned(),
        output_claim_to_headers: pairs(&outputs),
        ..rule(&[&signer])
    }]);
    let request = bearer(&token).header("x-kept", "1");
    let authenticated = request.of(&authenticator).expect("a good token");
    let expected = lines(&[
        ("x-kept", "1"),
        ("x-payload", &section),
        ("x-sub", "alice"),
        ("x-name", "Zoë"),
        ("x-n", "7"),
        ("x-f", "1.500000"),
        ("x-minus", "-2.000000"),
        ("x-yes", "true"),
        ("x-no", "false"),
        ("x-deep", "y"),
        ("x-deep-n", "3"),
        ("x-sub", ISSUER),
    ]);
    assert_eq!(forwarded(&request, &authenticated).0, expected);
}

#[test]
fn what_a_client_writes_in_a_filled_header_never_arrives() {
    let signer = Signer::new("k", "ES256");
    let authenticator = compiled(vec![
        JwtRule {
            output_payload_to_header: "x-payload".to_owned(),
            output_claim_to_headers: pairs(&[("x-sub", "sub"), ("x-role", "role")]),
            ..rule(&[&signer])
        },
        JwtRule {
            issuer: "https://other.example".to_owned(),
            output_claim_to_headers: pairs(&[("x-other", "sub")]),
            ..rule(&[&signer])
        },
    ]);
    let spoof = |request: Ask| {
        ["X-Payload", "x-sub", "X-SUB", "x-role", "x-other"]
            .iter()
            .fold(request, |all, name| all.header(name, FORGED))
    };
    let preflight = Ask { method: "OPTIONS", ..ask() };
    let preflight = preflight.header("origin", "https://x").header("access-control-request-method", "GET");
    for (request, is_filled) in [
        (ask(), false),
        (bearer(&signer.token(&payload(json!({})))), true),
        (preflight, false),
        (ask().header("authorization", "Basic x"), false),
    ] {
        let request = spoof(request);
        let authenticated = request.of(&authenticator).expect("allowed");
        let (headers, _) = forwarded(&request, &authenticated);
        assert!(headers.iter().all(|(_, value)| value != FORGED), "{headers:?}");
        assert_eq!(headers.iter().any(|(name, value)| name == "x-sub" && value == "alice"), is_filled);
        // Policies see the same lines as the application.
        let lines = HeaderList(&request.headers);
        let judged = EffectiveHeaders::new(&lines, &authenticated.effects);
        for name in ["x-payload", "x-sub", "x-role", "x-other", "authorization"] {
            let mut seen = Vec::new();
            judged.visit(name, &mut |value| {
                seen.push(String::from_utf8_lossy(value).into_owned());
                true
            });
            let arrived = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
            assert_eq!(seen, arrived.map(|(_, value)| value.clone()).collect::<Vec<_>>(), "{name}");
        }
    }
    // Nothing is said of headers that are not there.
    assert!(ask().of(&authenticator).expect("allowed").effects.is_empty());
}

#[test]
fn effective_headers_show_the_rewritten_target_and_stop_when_told() {
    let effects = Effects {
        removed: vec!["x-a".into()],
        added: vec![("x-b".into(), "2".to_owned()), ("x-b".into(), "3".to_owned())],
        target: Some("/p".to_owned()),
    };
    let lines = [("x-a", "0"), ("x-b", "1"), (":path", "/p?t=1")];
    let lines = lines.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let list = HeaderList(&lines);
    let judged = EffectiveHeaders::new(&list, &effects);
    let first = |name: &str, most: usize| {
        let mut seen = Vec::new();
        judged.visit(name, &mut |value| {
            seen.push(String::from_utf8_lossy(value).into_owned());
            seen.len() < most
        });
        seen.join(",")
    };
    assert_eq!(
        (first("x-a", 9), first("x-b", 9), first(":path", 9)),
        (String::new(), "1,2,3".into(), "/p".into())
    );
    assert_eq!((first("x-b", 1), first("x-b", 2)), ("1".into(), "1,2".into()));
}

#[test]
fn a_preflight_is_not_checked_and_has_no_principal() {
    let signer = Signer::new("k", "ES256");
    let authenticator = compiled(vec![rule(&[&signer])]);
    let good = signer.token(&payload(json!({})));
    let preflight = |method: &'static str, origin: &str, asked: &str| {
        let request = Ask { method, ..ask() };
        request.header("origin", origin).header("access-control-request-method", asked)
    };
    let with = |request: Ask, token: &str| request.header("authorization", &format!("Bearer {token}"));
    for (request, expected) in [
        (with(preflight("OPTIONS", "https://x", "GET"), "junk"), "-"),
        (with(preflight("OPTIONS", "https://x", "GET"), &good), "-"),
        (with(preflight("OPTIONS", "", "GET"), &good), "alice"),
        (with(preflight("OPTIONS", "https://x", ""), &good), "alice"),
        (with(preflight("GET", "https://x", "GET"), &good), "alice"),
        (with(preflight("options", "https://x", "GET"), &good), "alice"),
    ] {
        assert_eq!(request.subject(&authenticator), expected, "{request:?}");
    }
    let plain = with(Ask { method: "OPTIONS", ..ask() }, "junk");
    assert!(plain.of(&authenticator).is_err(), "OPTIONS alone is no preflight");
}

#[test]
fn a_header_that_a_rule_fills_holds_no_token_for_it() {
    let signer = Signer::new("k", "ES256");
    let authenticator =
        compiled(vec![JwtRule { output_payload_to_header: "Authorization".to_owned(), ..rule(&[&signer]) }]);
    let token = signer.token(&payload(json!({})));
    let request = bearer(&token);
    let authenticated = request.of(&authenticator).expect("no token");
    assert_eq!(authenticated.claims, None);
    assert_eq!(forwarded(&request, &authenticated).0, []);
}

#[test]
fn claims_that_are_lists_of_words_are_split() {
    let signer = Signer::new("k", "ES256");
    let token = signer.token(&payload(json!({"scope": "read write", "roles": "a b", "other": "a b"})));
    let authenticator =
        compiled(vec![JwtRule { space_delimited_claims: vec!["roles".to_owned()], ..rule(&[&signer]) }]);
    let claims = bearer(&token).of(&authenticator).expect("a good token").claims.expect("claims");
    for (name, expected) in
        [("scope", json!(["read", "write"])), ("roles", json!(["a", "b"])), ("other", json!("a b"))]
    {
        assert_eq!(claims.at([name]), Some(&expected), "{name}");
    }
}
