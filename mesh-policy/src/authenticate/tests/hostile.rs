//! Bytes that nobody signed: they never panic and never verify.

use proptest::prelude::*;

use super::signer::encoded;
use super::*;

/// One authenticator with a key of every kind and every location.
fn authenticator() -> &'static (Authenticator, Vec<Signer>) {
    static FIXTURE: std::sync::OnceLock<(Authenticator, Vec<Signer>)> = std::sync::OnceLock::new();
    FIXTURE.get_or_init(|| {
        let signers: Vec<_> = ["RS256", "PS256", "ES256", "ES384", "ES512", "HS256", "EdDSA"]
            .map(|a| Signer::new("", a))
            .into();
        let keys: Vec<_> = signers.iter().collect();
        let rule = JwtRule {
            from_headers: vec![
                ("authorization".to_owned(), "Bearer ".to_owned()),
                ("x-t".to_owned(), String::new()),
            ],
            from_params: vec!["t".to_owned()],
            from_cookies: vec!["t".to_owned()],
            output_claim_to_headers: vec![("x-sub".to_owned(), "sub".to_owned())],
            ..rule(&keys)
        };
        (compiled(vec![rule]), signers)
    })
}

fn everywhere(token: &str) -> [Ask; 4] {
    [
        bearer(token),
        ask().header("x-t", token),
        ask().target(&format!("/?t={token}")),
        ask().header("cookie", &format!("t={token}")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_text_never_verifies(text in "\\PC{0,200}") {
        for request in everywhere(&text) {
            let outcome = request.of(&authenticator().0);
            prop_assert!(outcome.is_err() || outcome.is_ok_and(|passed| passed.claims.is_none()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_parsed_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Token::parse(&bytes).is_err() || bytes.is_ascii());
    }

    #[test]
    fn well_formed_tokens_that_nobody_signed_never_verify(
        algorithm in prop::sample::select(&Signer::ALGORITHMS[..]),
        signature in prop::collection::vec(any::<u8>(), 1..300),
        subject in "[a-z]{0,8}",
    ) {
        let head = encoded(json!({"alg": algorithm}).to_string().as_bytes());
        let body = encoded(payload(json!({"sub": subject})).to_string().as_bytes());
        for request in everywhere(&format!("{head}.{body}.{}", encoded(&signature))) {
            prop_assert!(request.of(&authenticator().0).is_err());
        }
    }

    #[test]
    fn a_token_with_one_byte_changed_never_verifies(
        which in 0..7_usize,
        at in any::<prop::sample::Index>(),
        other in prop::sample::select(&b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ "[..]),
    ) {
        let (authenticator, signers) = authenticator();
        let token = signers[which].token(&payload(json!({"scope": "a b"})));
        let mut bytes = token.clone().into_bytes();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != other);
        bytes[at] = other;
        let changed = String::from_utf8(bytes).expect("ASCII");
        prop_assert!(bearer(&changed).of(authenticator).is_err(), "{changed}");
    }

    #[test]
    fn arbitrary_key_sets_verify_nothing(text in "\\PC{0,120}", member in "[a-z]{1,3}", value in "\\PC{0,40}") {
        let token = Signer::new("k", "HS256").token(&payload(json!({})));
        let almost = json!({"keys": [{"kty": "RSA", "n": value, "e": "AQAB"}, {"kty": "EC", member: value}]}).to_string();
        for jwks in [text, almost] {
            let authenticator = compiled(vec![JwtRule { jwks, ..rule(&[]) }]);
            prop_assert!(bearer(&token).of(&authenticator).is_err());
        }
    }
}

#[test]
fn deep_and_large_tokens_are_refused() {
    let signer = &authenticator().1[2];
    let deep = format!("{{\"iss\":\"{ISSUER}\",\"a\":{}{}}}", "[".repeat(20_000), "]".repeat(20_000));
    let head = encoded(br#"{"alg":"ES256"}"#);
    let token = signer.token_of(&head, &encoded(deep.as_bytes()));
    assert_eq!(bearer(&token).subject(&authenticator().0), "Jwt payload is an invalid JSON");
    let large = signer.token(&payload(json!({"a": "x".repeat(60_000)})));
    assert!(large.len() > 65_536);
    assert!(bearer(&large).of(&authenticator().0).is_err());
    let fits = signer.token(&payload(json!({"a": "x".repeat(40_000)})));
    assert_eq!(bearer(&fits).subject(&authenticator().0), "alice");
}

#[test]
fn a_signature_has_one_spelling() {
    let (authenticator, signers) = authenticator();
    let token = signers[2].token(&payload(json!({})));
    assert_eq!(bearer(&format!("{token}==")).subject(authenticator), "alice", "padding as Envoy takes it");
    assert!(bearer(&format!("{token}=")).of(authenticator).is_err(), "half of the padding");
    // 64 bytes leave four free bits in the last character.
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = *token.as_bytes().last().expect("a signature");
    let at = alphabet.iter().position(|b| *b == last).expect("base64url");
    let twin = format!("{}{}", &token[..token.len() - 1], char::from(alphabet[at + 1]));
    assert_eq!(bearer(&twin).subject(authenticator), "Jwt verification fails");
}
