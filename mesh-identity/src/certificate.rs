//! Reading certificates for people: what the admin sockets and `meshctl proxy-config secret` show.
//!
//! Nothing here decides trust. [`crate::verify`] does, and uses only [`strict_leaf`] of this module, which
//! adds refusals to what `webpki` finds and never permits anything.

use std::time::{Duration, SystemTime};

use mesh_api::admin::CertificateStatus;
use mesh_api::name::{NameError, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// Why a certificate could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Not one whole X.509 certificate.
    #[error("the bytes are not one DER X.509 certificate")]
    Malformed,
    /// An extension is repeated or cannot be read.
    #[error("an extension of the certificate cannot be read")]
    Extension,
}

/// What a person wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// Subject, empty for a workload.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// The SPIFFE id, if there is exactly one URI name and it is a valid id.
    pub spiffe_id: Option<SpiffeId>,
    /// Serial number, lower-case hex without separators.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    /// For instance `ECDSA P-256` or `RSA 2048`.
    pub key_algorithm: String,
}

impl CertificateSummary {
    /// The certificate as admin sockets answer it, in force and first of its chain under no resource name:
    /// whoever lists it says what it is to them. `der` is the certificate that was read.
    #[must_use]
    pub fn status(&self, der: &[u8], trust_domain: &str, now: SystemTime) -> CertificateStatus {
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        let ttl_seconds = match self.not_after.duration_since(now) {
            Ok(left) => seconds(left),
            Err(past) => -seconds(past.duration()),
        };
        CertificateStatus {
            resource_name: String::new(),
            kind: String::new(),
            status: "ACTIVE".to_owned(),
            valid: self.not_before <= now && now <= self.not_after,
            chain_index: 0,
            spiffe_id: self.spiffe_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            trust_domain: trust_domain.to_owned(),
            subject: self.subject.clone(),
            serial_number: self.serial.clone(),
            not_before: timestamp(self.not_before),
            not_after: timestamp(self.not_after),
            ttl_seconds,
            next_rotation: None,
            pem: to_pem(der),
        }
    }
}

/// A time as RFC 3339 in UTC, in whole seconds: certificates have no finer ones. Empty when it is out of
/// range.
#[must_use]
pub fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .unwrap_or_default()
}

/// Reads one DER certificate.
///
/// # Errors
/// When the bytes are not exactly one well-formed certificate.
pub fn inspect(der: &[u8]) -> Result<CertificateSummary, InspectError> {
    let certificate = parse(der)?;
    let names = uri_names(&certificate)?;
    let spiffe_id = match names.as_slice() {
        [UriName::Text(text)] => SpiffeId::parse(text).ok(),
        [UriName::NotText] | [] | [_, _, ..] => None,
    };
    Ok(CertificateSummary {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        spiffe_id,
        serial: serial_hex(certificate.raw_serial()),
        not_before: system_time(certificate.validity().not_before.timestamp()),
        not_after: system_time(certificate.validity().not_after.timestamp()),
        is_ca: certificate.is_ca(),
        key_algorithm: key_algorithm(&certificate),
    })
}

/// One DER certificate as a PEM block.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    crate::pem::encode("CERTIFICATE", der)
}

/// Why a leaf is not an X.509-SVID
/// (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, sections 2 to 4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed(#[source] InspectError),
    /// A leaf has exactly one URI name.
    #[error("the certificate has {found} URI names where a workload's has exactly one")]
    UriCount {
        /// Number of URI names found.
        found: usize,
    },
    /// The URI is not a SPIFFE id.
    #[error("the URI name of the certificate is not a SPIFFE id")]
    SpiffeId(#[source] NameError),
    /// The URI holds bytes that are no text.
    #[error("the URI name of the certificate is not ASCII text")]
    NotText,
    /// The id of a trust domain and not of a workload in it (X.509-SVID section 5.2).
    #[error("the SPIFFE id of the certificate has no path")]
    NoPath,
    /// An authority's certificate.
    #[error("the certificate is an authority's and not a workload's")]
    Authority,
    /// A leaf signs handshakes and never certificates.
    #[error("the certificate's key usage is not that of a workload")]
    KeyUsage,
}

/// A leaf that keeps the rules of an X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) serial: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Reads a leaf by the rules of an X.509-SVID; says nothing about who signed it.
pub(crate) fn strict_leaf(der: &[u8]) -> Result<Leaf, LeafError> {
    let certificate = parse(der).map_err(LeafError::Malformed)?;
    let names = uri_names(&certificate).map_err(LeafError::Malformed)?;
    let id = match names.as_slice() {
        [UriName::Text(text)] => SpiffeId::parse(text).map_err(LeafError::SpiffeId)?,
        [UriName::NotText] => return Err(LeafError::NotText),
        several => return Err(LeafError::UriCount { found: several.len() }),
    };
    if id.path().is_empty() {
        return Err(LeafError::NoPath);
    }
    if certificate.is_ca() {
        return Err(LeafError::Authority);
    }
    let usage = certificate.key_usage().map_err(|_| LeafError::Malformed(InspectError::Extension))?;
    let signs_handshakes_only = usage.is_some_and(|usage| {
        usage.value.digital_signature() && !usage.value.key_cert_sign() && !usage.value.crl_sign()
    });
    if !signs_handshakes_only {
        return Err(LeafError::KeyUsage);
    }
    Ok(Leaf {
        id,
        serial: serial_hex(certificate.raw_serial()),
        not_before: system_time(certificate.validity().not_before.timestamp()),
        not_after: system_time(certificate.validity().not_after.timestamp()),
    })
}

/// A name in the subject alternative names that is, or claims to be, a URI.
enum UriName<'a> {
    Text(&'a str),
    NotText,
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, InspectError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(InspectError::Malformed),
    }
}

fn uri_names<'a>(certificate: &'a X509Certificate<'a>) -> Result<Vec<UriName<'a>>, InspectError> {
    let Some(names) = certificate.subject_alternative_name().map_err(|_| InspectError::Extension)? else {
        return Ok(Vec::new());
    };
    Ok(names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(text) => Some(UriName::Text(text)),
            GeneralName::Invalid(..) => Some(UriName::NotText),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::DNSName(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => None,
        })
        .collect())
}

fn key_algorithm(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA P-{}", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(_) | Err(_) => certificate.public_key().algorithm.algorithm.to_id_string(),
    }
}

/// A serial number for people: lower-case hex of the magnitude, without the sign octet of DER.
fn serial_hex(bytes: &[u8]) -> String {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        other => hex(other),
    }
}

/// Lower-case hex without separators, two digits an octet.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Seconds of the Unix epoch as a time; what lies before the epoch is taken as the epoch itself.
pub(crate) fn system_time(unix_seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_seconds).unwrap_or(0))
}
