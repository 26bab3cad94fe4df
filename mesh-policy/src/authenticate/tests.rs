//! Tokens of every algorithm, signed here; every message; every location; every effect; hostile bytes.

mod algorithms;
mod effects;
mod hostile;
mod locations;
mod messages;
mod rules;
mod signer;

use std::time::Duration;

use mesh_api::model::{JwtRule, Kind, ObjectMeta, ObjectRef, Origin, Selector};
use mesh_api::name::{Namespace, ObjectName};
use serde_json::{Value, json};

use super::*;
use crate::authorize::HeaderList;
use signer::Signer;

/// The clock of all tests, in seconds.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";

fn policy(name: &str, jwt_rules: Vec<JwtRule>) -> Arc<RequestAuthentication> {
    let object = ObjectRef {
        kind: Kind::RequestAuthentication,
        namespace: Namespace::parse("shop").expect("valid"),
        name: ObjectName::parse(name).expect("valid"),
    };
    let origin = Origin { file: "jwt.yaml".into(), line: 1 };
    let meta = ObjectMeta {
        object,
        labels: Default::default(),
        annotations: Default::default(),
        created: 0,
        origin,
    };
    Arc::new(RequestAuthentication { meta, selector: Selector::default(), targets: Vec::new(), jwt_rules })
}

/// A rule of [`ISSUER`] whose keys are those of `signers`.
fn rule(signers: &[&Signer]) -> JwtRule {
    JwtRule { issuer: ISSUER.to_owned(), jwks: set(signers), ..JwtRule::default() }
}

fn set(signers: &[&Signer]) -> String {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string()
}

fn compiled(rules: Vec<JwtRule>) -> Authenticator {
    Authenticator::compile(&[policy("jwt", rules)], &KeySets::new())
}

/// A payload that is valid for [`rule`], with more members.
fn payload(more: Value) -> Value {
    let mut members = json!({"iss": ISSUER, "sub": "alice", "exp": NOW + 600});
    if let (Value::Object(all), Value::Object(more)) = (&mut members, more) {
        all.extend(more);
    }
    members
}

/// A request to put questions with.
#[derive(Debug, Clone)]
struct Ask {
    method: &'static str,
    target: String,
    headers: Vec<(String, String)>,
}

fn ask() -> Ask {
    Ask { method: "GET", target: "/api".to_owned(), headers: Vec::new() }
}

/// A request with `authorization: Bearer TOKEN`.
fn bearer(token: &str) -> Ask {
    ask().header("authorization", &format!("Bearer {token}"))
}

impl Ask {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    fn at(&self, authenticator: &Authenticator, seconds: u64) -> Result<Authenticated, Refused> {
        let request = TokenRequest {
            method: self.method,
            scheme: "http",
            authority: "shop.example:8080",
            target: &self.target,
            headers: &HeaderList(&self.headers),
        };
        authenticator.authenticate(&request, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn of(&self, authenticator: &Authenticator) -> Result<Authenticated, Refused> {
        self.at(authenticator, NOW)
    }

    /// The subject of the verified token, `-` without one, or the message of the refusal.
    fn subject(&self, authenticator: &Authenticator) -> String {
        match self.of(authenticator) {
            Ok(Authenticated { claims: Some(claims), .. }) => claims.text("sub").unwrap_or("?").to_owned(),
            Ok(Authenticated { claims: None, .. }) => "-".to_owned(),
            Err(refused) => refused.message,
        }
    }
}
