//! What an authority agrees to sign, and for how long: functions over values, the same for every signer.
//!
//! Times in certificates are whole seconds. A validity starts [`BACKDATE`] before the moment of signing; the
//! lifetime counts from that moment. A leaf never outlives its signer: it is shortened, since the owner
//! renews at half of what it got anyway.

use std::time::{Duration, SystemTime};

use mesh_api::name::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::{BACKDATE, CaSettings, IssueError};

/// Ten thousand years: past the year 9999, where certificates end (RFC 5280 section 4.1.2.5), and far from
/// where times overflow.
const TTL_MAX: Duration = Duration::from_secs(10_000 * 366 * 24 * 60 * 60);

/// The validity of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First valid second.
    pub not_before: SystemTime,
    /// Last valid second.
    pub not_after: SystemTime,
}

impl Validity {
    /// A life of `ttl` from `now` on, back-dated, in whole seconds. A life beyond [`TTL_MAX`] becomes
    /// [`TTL_MAX`], which no certificate can hold and signing refuses.
    #[must_use]
    pub fn starting(now: SystemTime, ttl: Duration) -> Self {
        let now = whole_seconds(now);
        Self {
            not_before: now.checked_sub(BACKDATE).unwrap_or(SystemTime::UNIX_EPOCH),
            not_after: whole_seconds(now + ttl.min(TTL_MAX)),
        }
    }

    /// The same, but ending no later than `end`.
    #[must_use]
    pub fn ending_by(self, end: SystemTime) -> Self {
        Self { not_after: self.not_after.min(end), ..self }
    }

    /// Whether `now` lies within.
    #[must_use]
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Half of the life that remained when it was signed.
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        let signed_at = self.not_before + BACKDATE;
        signed_at + self.not_after.duration_since(signed_at).unwrap_or_default() / 2
    }
}

/// The lifetime that is granted: the default when none is asked for, a refusal outside the bounds.
///
/// # Errors
/// When the lifetime is too long or too short.
pub fn granted_ttl(settings: &CaSettings, requested: Option<Duration>) -> Result<Duration, IssueError> {
    let requested = requested.filter(|ttl| !ttl.is_zero()).unwrap_or(settings.workload_ttl);
    if requested > settings.workload_ttl_max {
        return Err(IssueError::TtlTooLong { requested, max: settings.workload_ttl_max });
    }
    if requested < settings.workload_ttl_min {
        return Err(IssueError::TtlTooShort { requested, min: settings.workload_ttl_min });
    }
    Ok(requested)
}

/// The leaf for `id`: no subject (which makes the name critical, RFC 5280 section 4.2.1.6), the id as its
/// only name, no authority, server and client.
///
/// # Errors
/// When a value cannot be written in a certificate.
pub(super) fn leaf(
    id: &SpiffeId,
    validity: Validity,
    serial: [u8; 16],
) -> Result<CertificateParams, IssueError> {
    let mut params = dated(validity, serial)?;
    params.subject_alt_names = vec![uri(id.as_str())?];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// An authority's certificate. `depth` is how many authorities may stand below it: 1 for the root, 0 for an
/// intermediate.
///
/// # Errors
/// When a value cannot be written in a certificate.
pub(super) fn authority(
    settings: &CaSettings,
    common_name: &str,
    depth: u8,
    validity: Validity,
    serial: [u8; 16],
) -> Result<CertificateParams, IssueError> {
    let mut params = dated(validity, serial)?;
    params.distinguished_name.push(DnType::OrganizationName, settings.name.as_str());
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![uri(&format!("spiffe://{}", settings.trust_domain))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// A positive serial number of 16 octets from the system's random source; 126 bits of it are random
/// (RFC 5280 section 4.1.2.2 asks for a positive number of at most 20 octets).
///
/// # Errors
/// When the random source fails.
pub(super) fn random_serial() -> Result<[u8; 16], IssueError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Random)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

pub(super) fn dated(validity: Validity, serial: [u8; 16]) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = certificate_time(validity.not_before)?;
    params.not_after = certificate_time(validity.not_after)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    text.try_into().map(SanType::URI).map_err(IssueError::Sign)
}

/// Years up to 9999 can be written (RFC 5280 section 4.1.2.5).
fn certificate_time(time: SystemTime) -> Result<OffsetDateTime, IssueError> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| IssueError::Time)?.as_secs();
    let seconds = i64::try_from(seconds).map_err(|_| IssueError::Time)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| IssueError::Time)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::name::TrustDomain;

    fn settings() -> CaSettings {
        CaSettings::new(TrustDomain::parse("cluster.local").expect("valid"))
    }

    #[test]
    fn a_request_without_a_lifetime_gets_the_default() {
        for requested in [None, Some(Duration::ZERO)] {
            let ttl = granted_ttl(&settings(), requested).expect("granted");
            assert_eq!(ttl, Duration::from_secs(24 * 3600));
        }
    }

    #[test]
    fn a_lifetime_outside_the_bounds_is_refused_and_not_clamped() {
        let settings = settings();
        let second = Duration::from_secs(1);
        assert_eq!(
            granted_ttl(&settings, Some(settings.workload_ttl_max)).ok(),
            Some(settings.workload_ttl_max)
        );
        assert!(matches!(
            granted_ttl(&settings, Some(settings.workload_ttl_max + second)),
            Err(IssueError::TtlTooLong { .. })
        ));
        assert_eq!(
            granted_ttl(&settings, Some(settings.workload_ttl_min)).ok(),
            Some(settings.workload_ttl_min)
        );
        assert!(matches!(
            granted_ttl(&settings, Some(settings.workload_ttl_min - second)),
            Err(IssueError::TtlTooShort { .. })
        ));
    }

    #[test]
    fn serials_are_positive_sixteen_octets_and_differ() {
        let serials: std::collections::BTreeSet<_> =
            (0..1000).map(|_| random_serial().expect("random")).collect();
        assert_eq!(serials.len(), 1000);
        assert!(serials.iter().all(|serial| (0x40..0x80).contains(&serial[0])));
    }

    #[test]
    fn a_validity_is_whole_seconds_and_never_overflows() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let validity = Validity::starting(now, Duration::from_millis(5_900));
        let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        assert_eq!(validity.not_before, second - BACKDATE);
        assert_eq!(validity.not_after, second + Duration::from_secs(5));
        let endless = Validity::starting(now, Duration::MAX);
        assert!(matches!(certificate_time(endless.not_after), Err(IssueError::Time)));
    }

    #[test]
    fn half_of_a_life_does_not_count_the_back_dating() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let validity = Validity::starting(now, Duration::from_secs(10));
        assert_eq!(validity.half_life(), now + Duration::from_secs(5));
    }
}
