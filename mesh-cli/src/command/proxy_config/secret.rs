//! `proxy-config secret`: istioctl's columns, then identity, time left and the next rotation.

use mesh_api::admin::CertificateStatus;

use crate::output;

/// Prints the certificates. Private keys are not among what a proxy tells.
pub(super) fn table(certificates: &[CertificateStatus]) {
    let row = |certificate: &CertificateStatus| {
        let identity = match certificate.spiffe_id.as_str() {
            "" => certificate.subject.clone(),
            id => id.to_owned(),
        };
        vec![
            certificate.resource_name.clone(),
            certificate.kind.clone(),
            certificate.status.clone(),
            certificate.valid.to_string(),
            certificate.serial_number.clone(),
            certificate.not_after.clone(),
            certificate.not_before.clone(),
            certificate.trust_domain.clone(),
            left(certificate.ttl_seconds),
            certificate.next_rotation.clone().unwrap_or_else(|| "-".to_owned()),
            identity,
        ]
    };
    let rows: Vec<Vec<String>> = certificates.iter().map(row).collect();
    let header = [
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
        "TRUST DOMAIN",
        "TTL LEFT",
        "NEXT ROTATION",
        "SPIFFE ID / SUBJECT",
    ];
    output::table(&header, &rows);
}

/// Time left of a validity.
pub(in crate::command) fn left(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(left) => output::duration(left),
        Err(_) => format!("expired {} ago", output::duration(seconds.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::left;

    #[test]
    fn what_has_ended_is_not_shown_as_time_left() {
        assert_eq!(
            (left(90).as_str(), left(0).as_str(), left(-90).as_str()),
            ("1m30s", "0s", "expired 1m30s ago")
        );
    }
}
