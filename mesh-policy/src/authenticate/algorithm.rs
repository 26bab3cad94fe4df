//! The signature algorithms of tokens (RFC 7518 section 3.1, RFC 8037 section 3.1), and none besides: `none`
//! is not among them.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, RsaParameters};

/// An algorithm that a token may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    const NAMES: [(&'static str, Self); 13] = [
        ("ES256", Self::Es256),
        ("ES384", Self::Es384),
        ("ES512", Self::Es512),
        ("HS256", Self::Hs256),
        ("HS384", Self::Hs384),
        ("HS512", Self::Hs512),
        ("RS256", Self::Rs256),
        ("RS384", Self::Rs384),
        ("RS512", Self::Rs512),
        ("PS256", Self::Ps256),
        ("PS384", Self::Ps384),
        ("PS512", Self::Ps512),
        ("EdDSA", Self::EdDsa),
    ];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    /// Algorithms that an RSA key serves, with their parameters.
    pub(super) fn of_rsa() -> [(Self, &'static RsaParameters); 6] {
        [
            (Self::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
            (Self::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
            (Self::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
            (Self::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
            (Self::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
            (Self::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
        ]
    }

    /// Algorithms that a shared secret serves.
    pub(super) fn of_secret() -> [(Self, hmac::Algorithm); 3] {
        [(Self::Hs256, hmac::HMAC_SHA256), (Self::Hs384, hmac::HMAC_SHA384), (Self::Hs512, hmac::HMAC_SHA512)]
    }
}
