//! The webhooks' own certificate: made by the mesh's authority, renewed at half of its life, made anew when
//! the authority signs with another certificate. Connections that are open stay open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::error_chain::chain;
use mesh_api::name::{Host, NameError};
use mesh_identity::ca::{Authority, ServingError};
use mesh_identity::certificate::timestamp;
use mesh_identity::key::{KeyError, WorkloadKey};
use mesh_identity::tls::{Serving, ServingSource, ServingUseError};
use mesh_kube::name::{CONTROL, DEFAULT_REVISION};

use crate::plane::Plane;
use crate::telemetry::metrics::webhook as metrics;

/// Life of the certificate. Long beside an outage of everything, short beside a leak of the key.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The key.
    #[error("no key for the certificate of the webhooks")]
    Key(#[source] KeyError),
    /// The certificate.
    #[error("no certificate for the webhooks")]
    Sign(#[source] ServingError),
    /// Both together.
    #[error("the certificate of the webhooks is not usable")]
    Use(#[source] ServingUseError),
}

/// Names by which an API server and people reach the webhooks of a revision
/// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>).
///
/// # Errors
/// When namespace, revision or cluster domain are no names.
pub fn names(namespace: &str, revision: &str, cluster_domain: &str) -> Result<Vec<Host>, NameError> {
    let service = match revision {
        DEFAULT_REVISION => CONTROL.to_owned(),
        other => format!("{CONTROL}-{other}"),
    };
    let short = format!("{service}.{namespace}");
    let long = format!("{short}.svc.{cluster_domain}");
    [service, short.clone(), format!("{short}.svc"), long].iter().map(|name| Host::parse(name)).collect()
}

/// Gives `source` a certificate unless the one that it has is good still. Says whether it did.
///
/// # Errors
/// When none can be made; the source keeps what it has.
pub fn renew(
    authority: &Authority,
    source: &ServingSource,
    names: &[Host],
    now: SystemTime,
) -> Result<bool, RenewError> {
    let is_good = source.current().is_some_and(|serving| {
        let issued = serving.issued();
        let is_of_signer = issued.chain.get(1) == Some(&authority.intermediate_certificate());
        serving.is_valid_at(now) && now < issued.renew_at && is_of_signer
    });
    if is_good {
        return Ok(false);
    }
    let key = WorkloadKey::generate().map_err(RenewError::Key)?;
    let issued = authority.issue_serving(&key, names, TTL, now).map_err(RenewError::Sign)?;
    source.publish(Serving::new(issued, &key).map_err(RenewError::Use)?);
    Ok(true)
}

/// Keeps the certificate good.
pub(super) async fn keep(plane: &Arc<Plane>, source: &Arc<ServingSource>, names: &[Host]) -> Infallible {
    loop {
        renew_once(plane, source, names);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks at the certificate once.
pub(super) fn renew_once(plane: &Plane, source: &ServingSource, names: &[Host]) {
    match renew(plane.issue.authority(), source, names, SystemTime::now()) {
        Ok(true) => {
            if let Some(serving) = source.current() {
                let issued = serving.issued();
                metrics::certificate_expiry(issued.not_after);
                let not_after = timestamp(issued.not_after);
                tracing::info!(serial = issued.serial, not_after, "the webhooks have a new certificate");
            }
        }
        Ok(false) => {}
        Err(error) => tracing::error!(error = chain(&error), "the webhooks keep their old certificate"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::name::TrustDomain;
    use mesh_identity::ca::CaSettings;

    fn authority(now: SystemTime) -> Authority {
        let domain = TrustDomain::parse("cluster.local").expect("valid");
        Authority::create(CaSettings::new(domain), now).expect("an authority")
    }

    #[test]
    fn a_revision_is_reached_by_its_own_service() {
        let all = |revision| {
            let names = names("istio-system", revision, "cluster.local").expect("valid");
            names.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            all("default"),
            [
                "mesh-control",
                "mesh-control.istio-system",
                "mesh-control.istio-system.svc",
                "mesh-control.istio-system.svc.cluster.local"
            ]
        );
        assert!(all("canary").contains(&"mesh-control-canary.istio-system.svc".to_owned()));
    }

    #[test]
    fn the_certificate_is_renewed_at_half_of_its_life_and_not_before() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (authority, source) = (authority(now), ServingSource::new());
        let names = names("istio-system", "default", "cluster.local").expect("valid");
        assert!(renew(&authority, &source, &names, now).expect("made"));
        let first = source.current().expect("there").issued().serial.clone();
        assert!(!renew(&authority, &source, &names, now + TTL / 2 - Duration::from_secs(1)).expect("good"));
        assert!(renew(&authority, &source, &names, now + TTL / 2).expect("made"));
        assert_ne!(source.current().expect("there").issued().serial, first);
    }

    #[test]
    fn another_intermediate_makes_another_certificate_at_once() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (authority, source) = (authority(now), ServingSource::new());
        let names = names("istio-system", "default", "cluster.local").expect("valid");
        let later = now + Duration::from_secs(15 * 24 * 3600);
        assert!(renew(&authority, &source, &names, later - Duration::from_secs(60)).expect("made"));
        authority.maintain(later).expect("maintained");
        assert!(renew(&authority, &source, &names, later).expect("made"));
    }

    #[test]
    fn without_an_authority_that_can_sign_the_old_certificate_stays() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let (authority, source) = (authority(now), ServingSource::new());
        let names = names("istio-system", "default", "cluster.local").expect("valid");
        renew(&authority, &source, &names, now).expect("made");
        let serial = source.current().expect("there").issued().serial.clone();
        let late = now + Duration::from_secs(31 * 24 * 3600);
        assert!(matches!(renew(&authority, &source, &names, late), Err(RenewError::Sign(_))));
        assert_eq!(source.current().expect("there").issued().serial, serial);
    }
}
