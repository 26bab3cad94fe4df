//! The certificates in use, as operators are shown them. Private keys have no way here.

use std::time::SystemTime;

use mesh_api::admin::CertificateStatus;
use mesh_identity::certificate::{CertificateSummary, inspect, timestamp};

use super::Admin;

/// Istio's names of the two secrets.
const OWN: &str = "default";
const ROOTS: &str = "ROOTCA";

impl Admin {
    /// The own chain, leaf first, then every root.
    #[must_use]
    pub fn certificates(&self, now: SystemTime) -> Vec<CertificateStatus> {
        let current = self.identity.current();
        let own_domain = self.settings.trust_domain.as_str();
        let mut list = Vec::new();
        match &current.svid {
            Some(svid) => {
                for (index, der) in svid.chain().iter().enumerate() {
                    let Ok(summary) = inspect(der) else { continue };
                    let mut status = status(&summary, der, own_domain, now);
                    status.resource_name = OWN.to_owned();
                    status.kind = "Cert Chain".to_owned();
                    status.chain_index = index;
                    if index == 0 {
                        status.next_rotation = self.identity_status.next_rotation().map(timestamp);
                    }
                    list.push(status);
                }
            }
            None => list.push(warming(own_domain)),
        }
        for domain in current.bundle.trust_domains() {
            for (index, der) in current.bundle.certificates(domain.as_str()).iter().enumerate() {
                let Ok(summary) = inspect(der) else { continue };
                let mut status = status(&summary, der, domain.as_str(), now);
                status.resource_name = ROOTS.to_owned();
                status.kind = "CA".to_owned();
                status.chain_index = index;
                list.push(status);
            }
        }
        list
    }
}

fn status(
    summary: &CertificateSummary,
    der: &[u8],
    trust_domain: &str,
    now: SystemTime,
) -> CertificateStatus {
    let mut status = summary.status(der, trust_domain, now);
    // An authority's certificate names its trust domain, which is nobody's identity.
    if summary.is_ca {
        status.spiffe_id.clear();
    }
    status
}

fn warming(trust_domain: &str) -> CertificateStatus {
    CertificateStatus {
        resource_name: OWN.to_owned(),
        kind: "Cert Chain".to_owned(),
        status: "WARMING".to_owned(),
        valid: false,
        chain_index: 0,
        spiffe_id: String::new(),
        trust_domain: trust_domain.to_owned(),
        subject: String::new(),
        serial_number: String::new(),
        not_before: String::new(),
        not_after: String::new(),
        ttl_seconds: 0,
        next_rotation: None,
        pem: String::new(),
    }
}
