//! The authority's state as named parts, the form of a Kubernetes Secret (pure; whoever has an API client
//! reads and writes them).
//!
//! Root and intermediate stand side by side, each as certificate and key, so that a person can look at them
//! with the usual tools and a backup is one object. The names of root and bundle are those of Istio. What
//! is decoded is checked as a whole: keys belong to their certificates, the intermediate to the root, and all of
//! it to the configured trust domain. Parts that do not pass are damage, which is for the caller to report;
//! nothing here makes a new root.

use std::collections::BTreeMap;

use mesh_api::name::TrustDomain;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::CaSettings;
use super::authority::{AssembleError, Authority};
use super::stored::{self, StoredError};

/// Part: certificate of the root.
pub const ROOT_CERTIFICATE: &str = "ca-cert.pem";
/// Part: private key of the root.
pub const ROOT_KEY: &str = "ca-key.pem";
/// Part: certificate of the intermediate that signs now.
pub const INTERMEDIATE_CERTIFICATE: &str = "intermediate-cert.pem";
/// Part: private key of that intermediate.
pub const INTERMEDIATE_KEY: &str = "intermediate-key.pem";
/// Part: what proxies trust.
pub const BUNDLE: &str = "root-cert.pem";
/// Part: form and trust domain, as JSON.
pub const STATE: &str = "state.json";
/// Form of the parts.
const VERSION: u32 = 1;
/// Largest part that is read, in bytes; a real one has about 1 kB.
const PART_BYTES_MAX: usize = 64 * 1024;

/// The parts by name. They are wiped when dropped.
pub type Parts = BTreeMap<&'static str, Zeroizing<Vec<u8>>>;

/// Why parts are not an authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A part is not there.
    #[error("{part} is missing")]
    Missing {
        /// Which.
        part: &'static str,
    },
    /// A part is larger than any.
    #[error("{part} is larger than any part of an authority")]
    TooLarge {
        /// Which.
        part: &'static str,
    },
    /// The state is not JSON of its form.
    #[error("{STATE} is damaged")]
    State(#[source] serde_json::Error),
    /// The parts are of another program version.
    #[error("the parts have form {found}, this program reads form {VERSION}")]
    Version {
        /// Found.
        found: u32,
    },
    /// A part is not PEM of its kind.
    #[error("certificate or key of the {role} is damaged")]
    Pem {
        /// `root` or `intermediate`.
        role: &'static str,
    },
    /// The parts do not fit each other, or the mesh.
    #[error("the parts do not make an authority of this mesh")]
    Unusable(#[source] Box<AssembleError>),
    /// The state could not be put into words.
    #[error("the state of the authority could not be encoded")]
    Encode(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    version: u32,
    trust_domain: TrustDomain,
}

/// The parts of an authority.
///
/// # Errors
/// When the state cannot be encoded.
pub fn encode(authority: &Authority) -> Result<Parts, SecretError> {
    let (root, intermediate) = authority.signers();
    let state = State { version: VERSION, trust_domain: authority.settings().trust_domain.clone() };
    let state = serde_json::to_vec(&state).map_err(SecretError::Encode)?;
    let text = |text: String| Zeroizing::new(text.into_bytes());
    let key = |signer| Zeroizing::new(stored::private_key(signer).as_bytes().to_vec());
    Ok(BTreeMap::from([
        (ROOT_CERTIFICATE, text(stored::certificate(root))),
        (ROOT_KEY, key(root)),
        (INTERMEDIATE_CERTIFICATE, text(stored::certificate(&intermediate))),
        (INTERMEDIATE_KEY, key(&intermediate)),
        (BUNDLE, text(stored::certificate(root))),
        (STATE, Zeroizing::new(state)),
    ]))
}

/// The authority that parts are of. `part` answers the bytes of one, by name.
///
/// # Errors
/// What is missing or does not fit; see [`SecretError`].
pub fn decode<'a>(
    part: impl Fn(&str) -> Option<&'a [u8]>,
    settings: CaSettings,
) -> Result<Authority, SecretError> {
    /// Read first, so that parts of a later form are told from damaged ones.
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    let part = |name: &'static str| {
        let bytes = part(name).ok_or(SecretError::Missing { part: name })?;
        if bytes.len() > PART_BYTES_MAX { Err(SecretError::TooLarge { part: name }) } else { Ok(bytes) }
    };
    let state = part(STATE)?;
    let form: Form = serde_json::from_slice(state).map_err(SecretError::State)?;
    if form.version != VERSION {
        return Err(SecretError::Version { found: form.version });
    }
    let state: State = serde_json::from_slice(state).map_err(SecretError::State)?;
    if state.trust_domain != settings.trust_domain {
        return Err(SecretError::Unusable(Box::new(AssembleError::TrustDomain {
            stored: state.trust_domain.as_str().to_owned(),
            configured: settings.trust_domain.as_str().to_owned(),
        })));
    }
    let signer = |role, certificate, key| {
        stored::signer(role, part(certificate)?, part(key)?).map_err(|error| match error {
            StoredError::Pem => SecretError::Pem { role },
            StoredError::Unusable(source) => SecretError::Unusable(Box::new(source)),
        })
    };
    let root = signer("root", ROOT_CERTIFICATE, ROOT_KEY)?;
    let intermediate = signer("intermediate", INTERMEDIATE_CERTIFICATE, INTERMEDIATE_KEY)?;
    // Others read the bundle from here; one that says something else is damage too.
    if part(BUNDLE)? != stored::certificate(&root).as_bytes() {
        return Err(SecretError::Pem { role: "bundle" });
    }
    Authority::assemble(settings, root, intermediate).map_err(|e| SecretError::Unusable(Box::new(e)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Issuer as _;
    use crate::fixture::{domain, now};
    use std::time::Duration;

    fn settings() -> CaSettings {
        CaSettings::new(domain("cluster.local"))
    }

    fn decoded(parts: &Parts, settings: CaSettings) -> Result<Authority, SecretError> {
        decode(|name| parts.get(name).map(|bytes| bytes.as_slice()), settings)
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_authority() {
        let authority = Authority::create(settings(), now()).expect("made");
        let read = decoded(&encode(&authority).expect("encoded"), settings()).expect("decoded");
        assert_eq!(read.root_certificate(), authority.root_certificate());
        assert_eq!(read.intermediate_certificate(), authority.intermediate_certificate());
        assert_eq!(read.trust_bundle(), authority.trust_bundle());
    }

    #[test]
    fn every_part_is_needed_whole_and_of_the_same_authority() {
        let parts = encode(&Authority::create(settings(), now()).expect("made")).expect("encoded");
        let other = encode(&Authority::create(settings(), now()).expect("made")).expect("encoded");
        for name in parts.keys().copied() {
            let mut less = parts.clone();
            less.remove(name);
            assert!(matches!(decoded(&less, settings()), Err(SecretError::Missing { part }) if part == name));
            let mut cut = parts.clone();
            cut.get_mut(name).expect("there").truncate(20);
            assert!(decoded(&cut, settings()).is_err(), "{name} was taken though it is cut");
            if name != STATE {
                let mut mixed = parts.clone();
                mixed.insert(name, other[name].clone());
                assert!(decoded(&mixed, settings()).is_err(), "{name} of another authority was taken");
            }
        }
    }

    #[test]
    fn parts_of_another_mesh_or_form_are_told_from_damage() {
        let mut parts = encode(&Authority::create(settings(), now()).expect("made")).expect("encoded");
        let foreign = decoded(&parts, CaSettings::new(domain("prod.example")));
        assert!(matches!(foreign, Err(SecretError::Unusable(_))));
        parts.insert(STATE, Zeroizing::new(br#"{"version":2,"roots":[]}"#.to_vec()));
        assert!(matches!(decoded(&parts, settings()), Err(SecretError::Version { found: 2 })));
    }

    #[test]
    fn a_successor_is_taken_up_by_the_replicas_of_its_root_and_by_nobody_else() {
        const DAY: Duration = Duration::from_secs(86_400);
        let leader = Authority::create(settings(), now()).expect("made");
        let parts = encode(&leader).expect("encoded");
        let follower = decoded(&parts, settings()).expect("decoded");
        assert!(leader.successor(now() + DAY).expect("no failure").is_none(), "nothing is due yet");
        let next = leader.successor(now() + 16 * DAY).expect("no failure").expect("half of its life is over");
        assert_ne!(next.intermediate_certificate(), leader.intermediate_certificate());
        assert!(
            follower
                .take_up(&decoded(&encode(&next).expect("encoded"), settings()).expect("decoded"))
                .expect("same root")
        );
        assert_eq!(follower.intermediate_certificate(), next.intermediate_certificate());
        assert!(!follower.take_up(&next).expect("same root"), "it is the same already");
        let stranger = Authority::create(settings(), now()).expect("made");
        assert!(follower.take_up(&stranger).is_err());
        assert_eq!(follower.intermediate_certificate(), next.intermediate_certificate());
    }

    #[test]
    fn no_part_is_shown_by_debug_of_errors() {
        let mut parts = encode(&Authority::create(settings(), now()).expect("made")).expect("encoded");
        let key = parts[ROOT_KEY].clone();
        parts.insert(INTERMEDIATE_KEY, key);
        let error = decoded(&parts, settings()).expect_err("of two pairs");
        assert!(!format!("{error:?}").contains("PRIVATE"));
    }
}
