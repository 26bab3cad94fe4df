//! Why a token is refused, in Envoy's words: the body of the answer is compared byte by byte by clients.

/// Why a token is refused. `Display` is the body of the answer (SEMANTICS 7.4; the texts are those of
/// Envoy's `source/common/jwt/status.cc`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderEncoding,
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    #[error("Jwt header [alg] field is required and must be a string")]
    AlgorithmMissing,
    #[error("Jwt header [alg] is not supported")]
    AlgorithmUnknown,
    #[error("Jwt header [kid] field is not a string")]
    KeyIdNotText,
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadEncoding,
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    #[error("Jwt payload [{0}] field is not a string")]
    NotText(&'static str),
    #[error("Jwt payload [{0}] field is not an integer")]
    NotInteger(&'static str),
    #[error("Jwt payload [{0}] field is not a positive 64 bit integer")]
    OutOfRange(&'static str),
    #[error("Jwt payload [aud] field is not a string or string list")]
    AudienceType,
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureEncoding,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt is expired")]
    Expired,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwks remote fetch is failed")]
    KeysNotFetched,
    #[error("Jwks doesn't have any valid public key")]
    NoValidKey,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoMatchingKey,
    #[error("Jwt ED25519 signature is wrong length")]
    SignatureLength,
    #[error("Jwt verification fails")]
    Signature,
    #[error("Found multiple Jwt tokens")]
    TooManyTokens,
}

impl Failure {
    /// Status of the answer.
    pub(super) fn status(self) -> u16 {
        if self == Self::Audience { 403 } else { 401 }
    }

    /// What an access log holds as `response_code_details`.
    pub(super) fn details(self) -> String {
        format!("jwt_authn_access_denied{{{}}}", self.to_string().replace(' ', "_"))
    }
}
