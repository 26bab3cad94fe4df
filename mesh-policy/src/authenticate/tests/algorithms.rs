//! Which key verifies which token.

use super::signer::encoded;
use super::*;

const FAILS: &str = "Jwt verification fails";
const NO_MATCH: &str = "Jwks doesn't have key to match kid or alg from Jwt";
const NO_KEY: &str = "Jwks doesn't have any valid public key";

fn with_keys(keys: &Value) -> Authenticator {
    let rule = JwtRule { jwks: json!({"keys": keys}).to_string(), ..rule(&[]) };
    compiled(vec![rule])
}

/// A key with more members, or others.
fn changed(mut key: Value, more: Value) -> Value {
    if let (Value::Object(all), Value::Object(more)) = (&mut key, more) {
        for (name, value) in more {
            if value.is_null() {
                all.remove(&name);
            } else {
                all.insert(name, value);
            }
        }
    }
    key
}

#[test]
fn every_algorithm_verifies_its_own_signature_and_no_other() {
    for algorithm in Signer::ALGORITHMS {
        let signer = Signer::new("k1", algorithm);
        let token = signer.token(&payload(json!({})));
        for key in [signer.jwk(), changed(signer.jwk(), json!({"alg": algorithm, "use": "sig"}))] {
            let authenticator = with_keys(&json!([key]));
            assert_eq!(authenticator.problems().count(), 0, "{algorithm}");
            assert_eq!(bearer(&token).subject(&authenticator), "alice", "{algorithm}");
            for other in Signer::ALGORITHMS {
                let header = json!({"alg": other, "kid": "k1"});
                let lying = signer.token_with(&header, &payload(json!({})));
                let outcome = bearer(&lying).subject(&authenticator);
                assert_eq!(outcome == "alice", other == algorithm, "{algorithm} as {other}");
            }
        }
        // Another message, the same signature.
        let (signed, signature) = token.rsplit_once('.').expect("three sections");
        let other = signer.token(&payload(json!({"sub": "mallory"})));
        let forged = format!("{}.{signature}", other.rsplit_once('.').expect("three sections").0);
        assert_ne!(signed, other);
        assert_eq!(bearer(&forged).subject(&with_keys(&json!([signer.jwk()]))), FAILS, "{algorithm}");
        // Another key of the same kind and name.
        let stranger = match algorithm {
            "HS256" | "HS384" | "HS512" => changed(signer.jwk(), json!({"k": encoded(b"another secret")})),
            _ => Signer::with_rsa("k1", algorithm, 1).jwk(),
        };
        assert_eq!(bearer(&token).subject(&with_keys(&json!([stranger]))), FAILS, "{algorithm}");
    }
}

#[test]
fn a_public_key_is_no_secret_whatever_the_token_says() {
    let rsa = Signer::new("k1", "RS256");
    let authenticator = with_keys(&json!([rsa.jwk()]));
    let signed = format!(
        "{}.{}",
        encoded(json!({"alg": "HS256", "kid": "k1"}).to_string().as_bytes()),
        encoded(payload(json!({})).to_string().as_bytes())
    );
    let modulus = rsa.jwk()["n"].as_str().expect("text").to_owned();
    let candidates: [&[u8]; 3] = [Signer::rsa_public_bytes(), modulus.as_bytes(), b""];
    for secret in candidates {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = encoded(aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref());
        assert_eq!(bearer(&format!("{signed}.{tag}")).subject(&authenticator), FAILS);
    }
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let token = rsa.token_with(&json!({"alg": none}), &payload(json!({})));
        assert_eq!(bearer(&token).subject(&authenticator), "Jwt header [alg] is not supported", "{none}");
    }
}

#[test]
fn key_ids_and_algorithms_choose_the_key() {
    let (a, b) = (Signer::new("a", "ES256"), Signer::new("b", "ES256"));
    let unnamed = Signer::new("", "ES256");
    let token = |signer: &Signer, header: Value| signer.token_with(&header, &payload(json!({})));
    let both = with_keys(&json!([a.jwk(), b.jwk()]));
    for (token, authenticator, expected) in [
        (token(&a, json!({"alg": "ES256", "kid": "a"})), &both, "alice"),
        (token(&a, json!({"alg": "ES256"})), &both, "alice"),
        (token(&b, json!({"alg": "ES256", "kid": ""})), &both, "alice"),
        (token(&a, json!({"alg": "ES256", "kid": "b"})), &both, FAILS),
        (token(&a, json!({"alg": "ES256", "kid": "c"})), &both, NO_MATCH),
        (token(&unnamed, json!({"alg": "ES256", "kid": "z"})), &with_keys(&json!([unnamed.jwk()])), "alice"),
        (
            token(&a, json!({"alg": "ES256", "kid": "a"})),
            &with_keys(&json!([changed(b.jwk(), json!({"kid": "a"})), a.jwk()])),
            "alice",
        ),
        (
            token(&a, json!({"alg": "ES256", "kid": "a"})),
            &with_keys(&json!([changed(a.jwk(), json!({"alg": "ES256", "kid": null}))])),
            "alice",
        ),
        (
            token(&a, json!({"alg": "RS256", "kid": "a"})),
            &with_keys(&json!([changed(a.jwk(), json!({"alg": "ES256"}))])),
            NO_MATCH,
        ),
        (token(&a, json!({"alg": "RS256", "kid": "a"})), &with_keys(&json!([a.jwk()])), FAILS),
    ] {
        assert_eq!(bearer(&token).subject(authenticator), expected);
    }
}

#[test]
fn keys_that_cannot_be_used_are_passed_over_with_their_reason() {
    let (ec, rsa) = (Signer::new("ec", "ES256"), Signer::new("rsa", "RS256"));
    let ed = Signer::new("ed", "EdDSA");
    let (ec, rsa, ed) = (ec.jwk(), rsa.jwk(), ed.jwk());
    let weak = encoded(&[0xc5; 128]);
    for (key, reason) in [
        (json!("x"), "key 0 is not a JSON object"),
        (json!({"kid": "a"}), "key 0 (\"a\") has no `kty`"),
        (json!({"kty": 1}), "key 0 has a `kty` that is not a string"),
        (json!({"kty": "rsa"}), "key 0 is of the unknown type \"rsa\""),
        (json!({"kty": "RSA", "kid": "c", "x5c": ["MIIB"]}), "key 0 (\"c\") has no `n`"),
        (changed(rsa.clone(), json!({"e": null})), "key 0 (\"rsa\") has no `e`"),
        (changed(rsa.clone(), json!({"n": 5})), "key 0 (\"rsa\") has a `n` that is not a string"),
        (changed(rsa.clone(), json!({"n": "a b"})), "key 0 (\"rsa\") has a `n` that is not base64url"),
        (
            changed(rsa.clone(), json!({"n": weak})),
            "key 0 (\"rsa\") is an RSA key of 1024 bits; 2048 to 8192 are accepted",
        ),
        (
            changed(rsa.clone(), json!({"n": ""})),
            "key 0 (\"rsa\") is an RSA key of 0 bits; 2048 to 8192 are accepted",
        ),
        (
            changed(rsa.clone(), json!({"e": "AQ"})),
            "key 0 (\"rsa\") is an RSA key with another exponent than 3 or 65537",
        ),
        (
            changed(rsa.clone(), json!({"n": encoded(&[0xfe; 256])})),
            "key 0 (\"rsa\") is not a valid key for RS256",
        ),
        (
            changed(rsa.clone(), json!({"alg": "ES256"})),
            "key 0 (\"rsa\") is an RSA key for the algorithm \"ES256\"",
        ),
        (changed(rsa.clone(), json!({"use": "enc"})), "key 0 (\"rsa\") is for encryption"),
        (
            changed(ec.clone(), json!({"alg": "ES384"})),
            "key 0 (\"ec\") is an elliptic key of curve \"P-256\" and algorithm \"ES384\", which is not supported",
        ),
        (
            changed(ec.clone(), json!({"crv": "secp256k1"})),
            "key 0 (\"ec\") is an elliptic key of curve \"secp256k1\" and algorithm \"\", which is not supported",
        ),
        (changed(ec.clone(), json!({"crv": 1})), "key 0 (\"ec\") has a `crv` that is not a string"),
        (changed(ec.clone(), json!({"y": null})), "key 0 (\"ec\") has no `y`"),
        (
            changed(ec.clone(), json!({"x": encoded(&[1; 33])})),
            "key 0 (\"ec\") has a `x` that is too long for its curve",
        ),
        (changed(ec.clone(), json!({"x": encoded(&[7; 32])})), "key 0 (\"ec\") is not a valid key for ES256"),
        (changed(ec.clone(), json!({"x": "", "y": ""})), "key 0 (\"ec\") is not a valid key for ES256"),
        (
            changed(ed.clone(), json!({"crv": "X25519"})),
            "key 0 (\"ed\") is of the curve \"X25519\", which is not supported",
        ),
        (changed(ed.clone(), json!({"crv": null})), "key 0 (\"ed\") has no `crv`"),
        (changed(ed.clone(), json!({"x": encoded(&[1; 31])})), "key 0 (\"ed\") is not a valid key for EdDSA"),
        (changed(ed, json!({"alg": "ES256"})), "key 0 (\"ed\") is an OKP key for the algorithm \"ES256\""),
        (json!({"kty": "oct", "k": ""}), "key 0 is an empty secret"),
        (json!({"kty": "oct"}), "key 0 has no `k`"),
        (
            json!({"kty": "oct", "k": "YQ", "alg": "RS256"}),
            "key 0 is a shared secret for the algorithm \"RS256\"",
        ),
    ] {
        let alone = with_keys(&json!([key]));
        let problems: Vec<_> = alone.problems().map(|problem| problem.message.as_str()).collect();
        assert_eq!(problems, [reason], "{key}");
        assert!(alone.problems().all(|problem| problem.verifies_nothing));
        let good = Signer::new("good", "ES384");
        let token = good.token(&payload(json!({})));
        assert_eq!(bearer(&token).subject(&alone), NO_KEY, "{key}");
        let beside = with_keys(&json!([key, good.jwk()]));
        assert_eq!(bearer(&token).subject(&beside), "alice", "{key}");
        assert!(beside.problems().all(|problem| !problem.verifies_nothing));
    }
}

#[test]
fn key_sets_that_are_none_verify_nothing() {
    let token = Signer::new("k", "ES256").token(&payload(json!({})));
    for text in ["{", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "null", "<html>"] {
        let authenticator = compiled(vec![JwtRule { jwks: text.to_owned(), ..rule(&[]) }]);
        assert_eq!(bearer(&token).subject(&authenticator), NO_KEY, "{text}");
        assert_eq!(ask().subject(&authenticator), "-", "{text}: a request without token passes");
        assert!(authenticator.problems().any(|problem| problem.verifies_nothing), "{text}");
    }
    let single = Signer::new("k", "ES256").jwk().to_string();
    let authenticator = compiled(vec![JwtRule { jwks: single, ..rule(&[]) }]);
    assert_eq!(bearer(&token).subject(&authenticator), NO_KEY);
}

#[test]
fn an_elliptic_key_without_curve_is_of_the_curve_of_its_algorithm() {
    for (algorithm, stated) in [("ES256", None), ("ES256", Some("ES256")), ("ES512", Some("ES512"))] {
        let signer = Signer::new("k", algorithm);
        let key = changed(signer.jwk(), json!({"crv": null, "alg": stated}));
        let token = signer.token(&payload(json!({})));
        assert_eq!(bearer(&token).subject(&with_keys(&json!([key]))), "alice", "{algorithm}");
    }
}

#[test]
fn private_members_of_a_key_change_nothing() {
    let signer = Signer::new("k", "ES256");
    let key = changed(signer.jwk(), json!({"d": signer.scalar().expect("elliptic")}));
    let token = signer.token(&payload(json!({})));
    assert_eq!(bearer(&token).subject(&with_keys(&json!([key]))), "alice");
}

#[test]
fn numbers_of_keys_may_have_zeros_in_front() {
    let signer = Signer::new("k", "RS256");
    let mut key = signer.jwk();
    for name in ["n", "e"] {
        let bytes = base64url::decode(key[name].as_str().expect("text").as_bytes()).expect("bytes");
        key[name] = json!(encoded(&[&[0, 0][..], &bytes].concat()));
    }
    let token = signer.token(&payload(json!({})));
    assert_eq!(bearer(&token).subject(&with_keys(&json!([key]))), "alice");
}

#[test]
fn sets_of_too_many_keys_are_cut_with_a_word() {
    let signer = Signer::new("k", "HS256");
    let filler = json!({"kty": "oct", "k": "YWJj", "kid": "other"});
    let mut keys = vec![filler; 256];
    keys.push(signer.jwk());
    let authenticator = with_keys(&json!(keys));
    assert_eq!(bearer(&signer.token(&payload(json!({})))).subject(&authenticator), NO_MATCH);
    assert!(authenticator.problems().any(|problem| problem.message.contains("257 keys")));
}

/// Tokens that another implementation signed (PyJWT with OpenSSL), with keys that were thrown away.
#[test]
fn tokens_that_others_signed_verify() {
    let foreign: Vec<Value> = serde_json::from_str(include_str!("foreign.json")).expect("JSON");
    assert_eq!(foreign.len(), Signer::ALGORITHMS.len());
    let all = with_keys(&foreign.iter().map(|entry| entry["key"].clone()).collect());
    for entry in &foreign {
        let token = entry["token"].as_str().expect("text");
        assert_eq!(bearer(token).subject(&all), "alice", "{entry}");
        assert_eq!(bearer(token).subject(&with_keys(&json!([entry["key"]]))), "alice", "{entry}");
    }
}

/// The examples of RFC 7515, appendices A.1 and A.3.
#[test]
fn the_examples_of_the_standard_verify() {
    let payload =
        "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    for (head, signature, key) in [
        (
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            json!({
                "kty": "oct",
                "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
            }),
        ),
        (
            "eyJhbGciOiJFUzI1NiJ9",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            json!({
                "kty": "EC",
                "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }),
        ),
    ] {
        let jwks = json!({"keys": [key]}).to_string();
        let authenticator = compiled(vec![JwtRule { issuer: "joe".to_owned(), jwks, ..JwtRule::default() }]);
        let request = bearer(&format!("{head}.{payload}.{signature}"));
        assert!(request.at(&authenticator, 1_300_819_380).is_ok(), "{head}");
        assert!(request.at(&authenticator, 1_300_819_441).is_err(), "{head}");
    }
}
