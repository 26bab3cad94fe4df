//! Keys made for the tests, and tokens signed with them.

use std::sync::OnceLock;

use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// A private key with its name and the algorithm that it signs with.
pub(super) struct Signer {
    pub(super) id: &'static str,
    pub(super) algorithm: &'static str,
    key: Private,
}

enum Private {
    Rsa(&'static RsaKeyPair, &'static dyn RsaEncoding),
    Elliptic(EcdsaKeyPair, &'static str),
    Edwards(Ed25519KeyPair),
    Secret(hmac::Algorithm, Vec<u8>),
}

/// Making RSA keys takes long, so that all signers share these two.
fn rsa_keys() -> &'static [RsaKeyPair; 2] {
    static KEYS: OnceLock<[RsaKeyPair; 2]> = OnceLock::new();
    KEYS.get_or_init(|| {
        let make = || RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        [make(), make()]
    })
}

impl Signer {
    /// Every algorithm that is supported.
    pub(super) const ALGORITHMS: [&str; 13] = [
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384",
        "HS512", "EdDSA",
    ];

    pub(super) fn new(id: &'static str, algorithm: &'static str) -> Self {
        Self::with_rsa(id, algorithm, 0)
    }

    /// As [`Self::new`]; RSA algorithms use this one of the two keys.
    pub(super) fn with_rsa(id: &'static str, algorithm: &'static str, which: usize) -> Self {
        let rsa = |encoding| Private::Rsa(&rsa_keys()[which], encoding);
        let elliptic = |kind, curve| Private::Elliptic(EcdsaKeyPair::generate(kind).expect("a key"), curve);
        let secret = |kind| Private::Secret(kind, format!("the secret of {id}").into_bytes());
        let key = match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => elliptic(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => elliptic(&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            "ES512" => elliptic(&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
            "HS256" => secret(hmac::HMAC_SHA256),
            "HS384" => secret(hmac::HMAC_SHA384),
            "HS512" => secret(hmac::HMAC_SHA512),
            "EdDSA" => Private::Edwards(Ed25519KeyPair::generate().expect("a key")),
            other => unreachable!("no algorithm {other}"),
        };
        Self { id, algorithm, key }
    }

    /// The key that verifies, without `alg`.
    pub(super) fn jwk(&self) -> Value {
        let mut key = match &self.key {
            Private::Rsa(pair, _) => {
                let [n, e] = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": encoded(&n), "e": encoded(&e)})
            }
            Private::Elliptic(pair, curve) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                json!({"kty": "EC", "crv": curve, "x": encoded(x), "y": encoded(y)})
            }
            Private::Edwards(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref())})
            }
            Private::Secret(_, secret) => json!({"kty": "oct", "k": encoded(secret)}),
        };
        if !self.id.is_empty() {
            key["kid"] = json!(self.id);
        }
        key
    }

    /// A token with the usual header.
    pub(super) fn token(&self, payload: &Value) -> String {
        self.token_with(&self.header(), payload)
    }

    /// The usual header.
    pub(super) fn header(&self) -> Value {
        let mut header = json!({"alg": self.algorithm, "typ": "JWT"});
        if !self.id.is_empty() {
            header["kid"] = json!(self.id);
        }
        header
    }

    /// A token with this header, whatever it says.
    pub(super) fn token_with(&self, header: &Value, payload: &Value) -> String {
        self.token_of(&encoded(header.to_string().as_bytes()), &encoded(payload.to_string().as_bytes()))
    }

    /// A token of these two sections.
    pub(super) fn token_of(&self, header: &str, payload: &str) -> String {
        let signed = format!("{header}.{payload}");
        let signature = encoded(&self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Private::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).expect("a signature");
                signature
            }
            Private::Elliptic(pair, _) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Private::Edwards(pair) => pair.sign(message).as_ref().to_vec(),
            Private::Secret(kind, secret) => {
                hmac::sign(&hmac::Key::new(*kind, secret), message).as_ref().to_vec()
            }
        }
    }

    /// The DER bytes of an RSA public key, as somebody might use them for a secret.
    pub(super) fn rsa_public_bytes() -> &'static [u8] {
        rsa_keys()[0].public_key().as_ref()
    }

    /// The scalar of an elliptic key, which no key set should hold.
    pub(super) fn scalar(&self) -> Option<String> {
        match &self.key {
            Private::Elliptic(pair, _) => {
                Some(encoded(pair.private_key().as_be_bytes().expect("a scalar").as_ref()))
            }
            Private::Rsa(..) | Private::Edwards(_) | Private::Secret(..) => None,
        }
    }
}

pub(super) fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Modulus and exponent of a DER RSAPublicKey: a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> [Vec<u8>; 2] {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, start) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            long => {
                let bytes = usize::from(long & 0x7f);
                let length = der[2..2 + bytes].iter().fold(0, |all, b| all << 8 | usize::from(*b));
                (length, 2 + bytes)
            }
        };
        der[start..].split_at(length)
    }
    let (numbers, _) = value(der);
    let (n, rest) = value(numbers);
    let (e, _) = value(rest);
    [n, e].map(|number| number.iter().copied().skip_while(|b| *b == 0).collect())
}
