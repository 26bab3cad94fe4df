//! Certificates of every shape for the tests of this crate, also of shapes that our authority never signs.

use std::time::{Duration, SystemTime};

use mesh_api::name::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use crate::bundle::TrustBundle;
use crate::ca::{Authority, CaSettings, Issuer as _};
use crate::key::WorkloadKey;
use crate::svid::Svid;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);

/// A moment in 2027, for everything that takes the time as an argument.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect("a valid id")
}

pub(crate) fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).expect("a valid trust domain")
}

/// An authority that signs whatever a test wants.
pub(crate) struct Forge {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: Vec<u8>,
}

impl Forge {
    pub(crate) fn root(name: &str) -> Self {
        Self::of(authority_params(name), None)
    }

    pub(crate) fn intermediate(name: &str, root: &Self) -> Self {
        Self::of(authority_params(name), Some(root))
    }

    fn of(params: CertificateParams, parent: Option<&Self>) -> Self {
        let key = pair();
        let certificate = match parent {
            None => params.self_signed(&key),
            Some(parent) => params.signed_by(&key, &parent.issuer),
        };
        let der = certificate.expect("signed").der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Vec<u8> {
        params.signed_by(&pair(), &self.issuer).expect("signed").der().to_vec()
    }

    pub(crate) fn sign_for(&self, params: &CertificateParams, key: &WorkloadKey) -> Vec<u8> {
        params.signed_by(key, &self.issuer).expect("signed").der().to_vec()
    }

    /// A bundle in which this authority speaks for `trust_domain`.
    pub(crate) fn trusted_for(&self, trust_domain: &str) -> TrustBundle {
        let mut bundle = TrustBundle::new();
        bundle.insert(&domain(trust_domain), &self.der).expect("an anchor");
        bundle
    }
}

fn pair() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = dated(now() - HOUR, now() + 24 * HOUR);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// A leaf as the specification wants it, with these URI names, valid for an hour around [`now`].
pub(crate) fn leaf_params(uris: &[&str]) -> CertificateParams {
    let mut params = dated(now() - HOUR, now() + HOUR);
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII"))).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn dated(not_before: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = OffsetDateTime::from(not_before);
    params.not_after = OffsetDateTime::from(not_after);
    params
}

/// An authority of ours for `trust_domain`.
pub(crate) fn authority(trust_domain: &str, now: SystemTime) -> Authority {
    Authority::create(CaSettings::new(domain(trust_domain)), now).expect("an authority")
}

/// A workload of `authority`.
pub(crate) fn workload(authority: &Authority, id: &SpiffeId, ttl: Duration, now: SystemTime) -> Svid {
    let key = WorkloadKey::generate().expect("key");
    let request = crate::csr::build(&key).expect("request");
    let issued = authority.issue(&request, id, Some(ttl), now).expect("issued");
    Svid::new(issued.chain, &key).expect("an SVID")
}
