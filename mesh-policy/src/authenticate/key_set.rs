//! Key sets (RFC 7517), parsed once and then asked for each signature.
//!
//! The type of a key, and not the token, says which algorithms it serves: a public RSA key is no HMAC secret
//! whatever the header claims (TRAP 32), and an elliptic key serves the one algorithm of its curve. A key
//! that cannot be used is passed over with its reason and leaves the others alone.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents, VerificationAlgorithm};
use aws_lc_rs::{hmac, signature::EcdsaVerificationAlgorithm};
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::base64url;
use super::failure::Failure;
use super::token::Token;

/// Largest key set, in bytes, and most keys of one; providers publish a handful of keys of about 2 KiB.
const SET_BYTES_MAX: usize = 1024 * 1024;
const KEYS_MAX: usize = 256;
/// Sizes of RSA keys, in bits: the least that RFC 7518 section 3.3 allows, and the most that is sensible to
/// compute with on each request.
const RSA_BITS_MIN: usize = 2048;
const RSA_BITS_MAX: usize = 8192;

/// The usable keys of a set.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
    /// What is wrong with the others, or with the whole.
    pub(super) problems: Vec<String>,
}

#[derive(Debug)]
struct Key {
    /// `kid` and `alg` of the key; empty without one.
    id: Box<str>,
    algorithm: Box<str>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    /// A public key, parsed for each algorithm that it serves.
    Public(Vec<(Algorithm, ParsedPublicKey)>),
    /// A shared secret.
    Secret(Vec<(Algorithm, hmac::Key)>),
}

impl KeySet {
    /// Reads a set. Never fails: what is unusable verifies nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut set = Self::default();
        if text.len() > SET_BYTES_MAX {
            set.problems
                .push(format!("the key set has {} bytes, at most {SET_BYTES_MAX} are read", text.len()));
            return set;
        }
        let entries = match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(mut members)) => members.remove("keys"),
            Ok(_) | Err(_) => None,
        };
        let Some(Value::Array(entries)) = entries else {
            set.problems.push("the key set is not a JSON object with a list `keys`".to_owned());
            return set;
        };
        if entries.len() > KEYS_MAX {
            set.problems
                .push(format!("the key set has {} keys, only the first {KEYS_MAX} are used", entries.len()));
        }
        for (index, entry) in entries.iter().take(KEYS_MAX).enumerate() {
            match Key::parse(entry) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.problems.push(format!("key {index}{} {reason}", named(entry))),
            }
        }
        set
    }

    /// Whether no signature can be verified.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Checks the signature of a token, with the first key that both its `kid` and its `alg` admit and that
    /// made it.
    pub(super) fn verify(&self, token: &Token) -> Result<(), Failure> {
        if self.keys.is_empty() {
            return Err(Failure::NoValidKey);
        }
        let mut has_candidate = false;
        for key in self.keys.iter().filter(|key| key.admits(token)) {
            has_candidate = true;
            if key.made(token)? {
                return Ok(());
            }
        }
        Err(if has_candidate { Failure::Signature } else { Failure::NoMatchingKey })
    }
}

impl Key {
    fn parse(entry: &Value) -> Result<Self, String> {
        let Value::Object(members) = entry else { return Err("is not a JSON object".to_owned()) };
        let optional = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
        if optional("use") == "enc" {
            return Err("is for encryption".to_owned());
        }
        let algorithm = optional("alg");
        let material = match required(members, "kty")? {
            "RSA" => rsa(members, algorithm)?,
            "EC" => elliptic(members, algorithm)?,
            "OKP" => edwards(members, algorithm)?,
            "oct" => secret(members, algorithm)?,
            kind => return Err(format!("is of the unknown type {kind:?}")),
        };
        Ok(Self { id: optional("kid").into(), algorithm: algorithm.into(), material })
    }

    /// Whether the key may be meant: `kid` is compared when both have one, `alg` when the key has one.
    fn admits(&self, token: &Token) -> bool {
        (self.id.is_empty() || token.key_id.is_empty() || *self.id == *token.key_id)
            && (self.algorithm.is_empty() || *self.algorithm == *token.algorithm.name())
    }

    /// Whether the key made the signature of the token.
    fn made(&self, token: &Token) -> Result<bool, Failure> {
        // An unknown critical extension may change what the signature means, so it is never good.
        let Some(signature) = token.signature.as_deref().filter(|_| !token.has_critical) else {
            return Ok(false);
        };
        let wanted = token.algorithm;
        match &self.material {
            Material::Secret(keys) => Ok(keys
                .iter()
                .find(|(algorithm, _)| *algorithm == wanted)
                .is_some_and(|(_, key)| hmac::verify(key, token.signed(), signature).is_ok())),
            Material::Public(keys) => match keys.iter().find(|(algorithm, _)| *algorithm == wanted) {
                Some((Algorithm::EdDsa, _)) if signature.len() != 64 => Err(Failure::SignatureLength),
                Some((_, key)) => Ok(key.verify_sig(token.signed(), signature).is_ok()),
                None => Ok(false),
            },
        }
    }
}

/// ` ("KID")`, when the key has one.
fn named(entry: &Value) -> String {
    let id = entry.get("kid").and_then(Value::as_str);
    id.map(|id| format!(" ({:?})", id.chars().take(80).collect::<String>())).unwrap_or_default()
}

fn required<'m>(members: &'m Map<String, Value>, name: &str) -> Result<&'m str, String> {
    match members.get(name) {
        None => Err(format!("has no `{name}`")),
        Some(value) => value.as_str().ok_or_else(|| format!("has a `{name}` that is not a string")),
    }
}

/// A member in base64url.
fn bytes(members: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = required(members, name)?;
    base64url::decode(text.as_bytes()).ok_or_else(|| format!("has a `{name}` that is not base64url"))
}

/// A number in big-endian bytes, without the zeros in front of it.
fn number(members: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let mut bytes = bytes(members, name)?;
    let zeros = bytes.iter().take_while(|&&b| b == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}

fn rsa(members: &Map<String, Value>, stated: &str) -> Result<Material, String> {
    if !stated.is_empty() && !stated.starts_with("RS") && !stated.starts_with("PS") {
        return Err(format!("is an RSA key for the algorithm {stated:?}"));
    }
    let (n, e) = (number(members, "n")?, number(members, "e")?);
    let leading = n.first().map_or(8, |first| first.leading_zeros() as usize);
    let bits = (n.len() * 8).saturating_sub(leading);
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(format!("is an RSA key of {bits} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted"));
    }
    // Envoy accepts these two exponents alone.
    if e != [3] && e != [1, 0, 1] {
        return Err("is an RSA key with another exponent than 3 or 65537".to_owned());
    }
    let der: PublicKeyX509Der<'_> =
        RsaPublicKeyComponents { n, e }.as_der().map_err(|_| "is not a valid RSA key".to_owned())?;
    // An algorithm beside ours, such as RSA-OAEP, serves none of them: the key then stands for its `kid`.
    let served = Algorithm::of_rsa().into_iter();
    let served = served.filter(|(algorithm, _)| stated.is_empty() || algorithm.name() == stated);
    let keys = served.map(|(algorithm, parameters)| public(algorithm, parameters, der.as_ref()));
    keys.collect::<Result<_, _>>().map(Material::Public)
}

/// Curve, algorithm, its parameters, and bytes of a coordinate (RFC 7518 section 3.4).
const CURVES: [(&str, Algorithm, &EcdsaVerificationAlgorithm, usize); 3] = [
    ("P-256", Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
    ("P-384", Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
    ("P-521", Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
];

fn elliptic(members: &Map<String, Value>, stated: &str) -> Result<Material, String> {
    let curve = match members.get("crv") {
        None => None,
        Some(_) => Some(required(members, "crv")?),
    };
    // As Envoy does: the algorithm names the curve when `crv` does not, and P-256 is the default of both.
    let found = CURVES.iter().find(|(name, algorithm, ..)| match curve {
        Some(curve) => *name == curve && (stated.is_empty() || algorithm.name() == stated),
        None => algorithm.name() == if stated.is_empty() { "ES256" } else { stated },
    });
    let Some((_, algorithm, parameters, size)) = found else {
        let curve = curve.unwrap_or_default();
        return Err(format!(
            "is an elliptic key of curve {curve:?} and algorithm {stated:?}, which is not supported"
        ));
    };
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = number(members, name)?;
        let padding = size.checked_sub(coordinate.len());
        let padding = padding.ok_or_else(|| format!("has a `{name}` that is too long for its curve"))?;
        point.resize(point.len() + padding, 0);
        point.extend_from_slice(&coordinate);
    }
    Ok(Material::Public(vec![public(*algorithm, *parameters, &point)?]))
}

fn edwards(members: &Map<String, Value>, stated: &str) -> Result<Material, String> {
    if !stated.is_empty() && stated != "EdDSA" {
        return Err(format!("is an OKP key for the algorithm {stated:?}"));
    }
    let curve = required(members, "crv")?;
    if curve != "Ed25519" {
        return Err(format!("is of the curve {curve:?}, which is not supported"));
    }
    Ok(Material::Public(vec![public(Algorithm::EdDsa, &signature::ED25519, &bytes(members, "x")?)?]))
}

fn secret(members: &Map<String, Value>, stated: &str) -> Result<Material, String> {
    let served = Algorithm::of_secret().into_iter();
    let served: Vec<_> =
        served.filter(|(algorithm, _)| stated.is_empty() || algorithm.name() == stated).collect();
    if served.is_empty() {
        return Err(format!("is a shared secret for the algorithm {stated:?}"));
    }
    let secret = bytes(members, "k")?;
    if secret.is_empty() {
        return Err("is an empty secret".to_owned());
    }
    let keys = served.into_iter().map(|(algorithm, kind)| (algorithm, hmac::Key::new(kind, &secret)));
    Ok(Material::Secret(keys.collect()))
}

fn public(
    algorithm: Algorithm,
    parameters: &'static dyn VerificationAlgorithm,
    key: &[u8],
) -> Result<(Algorithm, ParsedPublicKey), String> {
    let parsed = ParsedPublicKey::new(parameters, key);
    parsed.map(|key| (algorithm, key)).map_err(|_| format!("is not a valid key for {}", algorithm.name()))
}
