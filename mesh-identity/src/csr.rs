//! Certificate signing requests (PKCS#10, RFC 2986): made by a workload, judged by the authority.
//!
//! A request proves one thing: that its sender holds the private key. So [`check`] keeps the public key and
//! nothing else. Names, usages and the `is_ca` flag in a request are the sender's wishes; they are not even
//! read. Key types are an allow-list, judged on the key itself and not on the signature's algorithm, since
//! the two may disagree in a hostile request.

use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rcgen::{CertificateParams, DistinguishedName, PublicKeyData, SignatureAlgorithm};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_PKCS1_SHA256WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::key::WorkloadKey;

/// Largest request that is looked at, in bytes. One with RSA 4096 and a few names is under 3 kB.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// RSA sizes that are accepted, in bits: 2048 is what Istio's agents send by default.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why a request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the certificate signing request could not be signed")]
pub struct BuildError(#[source] rcgen::Error);

/// Why a request was refused; always the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Too large to be looked at.
    #[error("the request is {length} bytes long, at most {REQUEST_BYTES_MAX} are accepted")]
    TooLarge {
        /// Length found.
        length: usize,
    },
    /// Not a PKCS#10 request, or followed by more bytes.
    #[error("the request is not a DER PKCS#10 certification request")]
    Malformed,
    /// A key type, curve or size outside the allow-list.
    #[error("the key is of a kind that is not accepted: ECDSA P-256 or P-384, or RSA of 2048 to 4096 bits")]
    KeyNotAllowed,
    /// The signature's algorithm does not belong to the key.
    #[error("the signature's algorithm does not fit the key")]
    AlgorithmMismatch,
    /// The signature does not verify: the sender does not hold the key.
    #[error("the request is not signed by the key that it names")]
    Signature,
}

/// A request whose sender holds the private key of the public key in it.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
    public_key: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl CheckedRequest {
    /// The SubjectPublicKeyInfo of the key, as DER: what two requests of one key have in common.
    #[must_use]
    pub fn public_key_info(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }
}

impl PublicKeyData for CheckedRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.public_key
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// A request for `key` with an empty subject and no names, as DER.
///
/// # Errors
/// When the cryptographic library fails to sign.
pub fn build(key: &WorkloadKey) -> Result<Vec<u8>, BuildError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(BuildError)?;
    Ok(request.der().to_vec())
}

/// Checks that the request is well formed, of an accepted key, and signed by that key.
///
/// # Errors
/// The rule that the request breaks.
pub fn check(der: &[u8]) -> Result<CheckedRequest, CsrError> {
    if der.len() > REQUEST_BYTES_MAX {
        return Err(CsrError::TooLarge { length: der.len() });
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let kind = KeyKind::of(&request)?;
    if request.signature_algorithm.algorithm != kind.signature_oid() {
        return Err(CsrError::AlgorithmMismatch);
    }
    let info = &request.certification_request_info;
    let public_key = info.subject_pki.subject_public_key.data.as_ref();
    UnparsedPublicKey::new(kind.verification(), public_key)
        .verify(info.raw, request.signature_value.data.as_ref())
        .map_err(|_| CsrError::Signature)?;
    Ok(CheckedRequest { public_key: public_key.to_vec(), algorithm: kind.algorithm() })
}

/// The accepted kinds of keys.
#[derive(Debug, Clone, Copy)]
enum KeyKind {
    P256,
    P384,
    Rsa,
}

impl KeyKind {
    fn of(request: &X509CertificationRequest<'_>) -> Result<Self, CsrError> {
        let info = &request.certification_request_info.subject_pki;
        let key = info.subject_public_key.data.as_ref();
        if info.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            // Only the uncompressed form (0x04, X, Y): the one that RFC 5480 section 2.2 makes mandatory.
            let uncompressed = |bytes: usize| key.len() == 1 + 2 * bytes && key[0] == 4;
            return match curve {
                Some(curve) if curve == OID_EC_P256 && uncompressed(32) => Ok(Self::P256),
                Some(curve) if curve == OID_NIST_EC_P384 && uncompressed(48) => Ok(Self::P384),
                Some(_) | None => Err(CsrError::KeyNotAllowed),
            };
        }
        if info.algorithm.algorithm == OID_PKCS1_RSAENCRYPTION {
            let Ok(PublicKey::RSA(rsa)) = info.parsed() else { return Err(CsrError::Malformed) };
            return if RSA_BITS.contains(&rsa.key_size()) {
                Ok(Self::Rsa)
            } else {
                Err(CsrError::KeyNotAllowed)
            };
        }
        Err(CsrError::KeyNotAllowed)
    }

    fn signature_oid(self) -> x509_parser::asn1_rs::Oid<'static> {
        match self {
            Self::P256 => OID_SIG_ECDSA_WITH_SHA256,
            Self::P384 => OID_SIG_ECDSA_WITH_SHA384,
            Self::Rsa => OID_PKCS1_SHA256WITHRSA,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            Self::P384 => &signature::ECDSA_P384_SHA384_ASN1,
            Self::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
        }
    }

    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::KeyPair;

    fn request_of(pair: &KeyPair) -> Vec<u8> {
        CertificateParams::default().serialize_request(pair).expect("request").der().to_vec()
    }

    #[test]
    fn an_own_request_is_accepted_and_keeps_the_public_key() {
        let key = WorkloadKey::generate().expect("key");
        let checked = check(&build(&key).expect("request")).expect("accepted");
        assert_eq!(checked.subject_public_key_info(), key.public_key_info());
    }

    #[test]
    fn an_own_request_has_an_empty_subject_and_asks_for_nothing() {
        let der = build(&WorkloadKey::generate().expect("key")).expect("request");
        let (_, request) = X509CertificationRequest::from_der(&der).expect("parses");
        assert_eq!(request.certification_request_info.subject.iter().count(), 0);
        assert!(request.requested_extensions().is_none());
    }

    #[test]
    fn accepted_kinds_are_p256_p384_and_rsa() {
        for algorithm in
            [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256]
        {
            let pair = KeyPair::generate_for(algorithm).expect("key");
            let checked = check(&request_of(&pair)).expect("accepted");
            assert_eq!(checked.subject_public_key_info(), pair.subject_public_key_info());
        }
    }

    #[test]
    fn other_kinds_are_refused() {
        for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P521_SHA512] {
            let pair = KeyPair::generate_for(algorithm).expect("key");
            assert_eq!(check(&request_of(&pair)).err(), Some(CsrError::KeyNotAllowed));
        }
    }

    #[test]
    fn a_key_of_another_curve_than_its_signature_algorithm_is_refused() {
        // A P-384 key whose request claims ecdsa-with-SHA256.
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key");
        let mut der = request_of(&pair);
        let sha384 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        let at = der.windows(8).position(|window| window == sha384).expect("algorithm");
        der[at + 7] = 0x02;
        assert_eq!(check(&der).err(), Some(CsrError::AlgorithmMismatch));
    }

    #[test]
    fn trailing_bytes_and_oversize_are_refused() {
        let mut der = build(&WorkloadKey::generate().expect("key")).expect("request");
        der.push(0);
        assert_eq!(check(&der).err(), Some(CsrError::Malformed));
        let large = vec![0x30; REQUEST_BYTES_MAX + 1];
        assert_eq!(check(&large).err(), Some(CsrError::TooLarge { length: REQUEST_BYTES_MAX + 1 }));
    }

    /// Header and content of the DER value at the start of `der`, in bytes.
    fn extent(der: &[u8]) -> (usize, usize) {
        match der[1] {
            0x81 => (3, usize::from(der[2])),
            0x82 => (4, usize::from(der[2]) << 8 | usize::from(der[3])),
            short => (2, usize::from(short)),
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_where_it_is_signed_and_never_changes_the_key() {
        let key = WorkloadKey::generate().expect("key");
        let der = build(&key).expect("request");
        let begin = extent(&der).0;
        let (header, content) = extent(&der[begin..]);
        let signed = begin..begin + header + content;
        for at in 0..der.len() {
            for bit in 0..8 {
                let mut flipped = der.clone();
                flipped[at] ^= 1 << bit;
                // Around the signed part there are a few bits that nothing depends on.
                if let Ok(checked) = check(&flipped) {
                    assert!(!signed.contains(&at), "{at}.{bit} of {signed:?} was accepted");
                    assert_eq!(checked.subject_public_key_info(), key.public_key_info(), "{at}.{bit}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_judged_without_a_panic(der in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(check(&der).is_err());
        }
    }
}
