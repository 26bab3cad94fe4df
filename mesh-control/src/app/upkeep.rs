//! What is done from time to time: the authority, the own certificate, the metric recorder.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::error_chain::chain;
use mesh_api::name::SpiffeId;
use mesh_identity::ca::Event;
use mesh_identity::certificate::{self, timestamp};

use crate::issue::IssueService;
use crate::plane::Plane;
use crate::telemetry::metrics;

/// How often the authority and the own certificate are looked after, at least.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);
/// How often the metric recorder tidies up; without it samples pile up until the next scrape.
const METRICS_UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Keeps the authority and the own certificate in order.
pub(super) async fn upkeep(plane: Arc<Plane>, own: SpiffeId) -> Infallible {
    loop {
        let now = SystemTime::now();
        let next = plane.issue.authority().next_maintenance(now);
        let wait = next.duration_since(now).unwrap_or_default().clamp(Duration::from_secs(1), UPKEEP_EVERY);
        tokio::time::sleep(wait).await;
        let (plane, own) = (Arc::clone(&plane), own.clone());
        let work = tokio::task::spawn_blocking(move || upkeep_once(&plane, &own));
        if let Err(error) = work.await {
            tracing::error!(%error, "upkeep was not finished");
        }
    }
}

fn upkeep_once(plane: &Plane, own: &SpiffeId) {
    match plane.issue.maintain(SystemTime::now()) {
        Ok(events) => {
            report(&events);
            plane.take_bundle();
        }
        Err(error) => tracing::error!(error = chain(&error), "the authority needs attention"),
    }
    renew_own(plane, own);
}

/// Says what maintenance of the authority did or found.
fn report(events: &[Event]) {
    for event in events {
        match event {
            Event::IntermediateRotated { serial, not_after } => {
                let not_after = timestamp(*not_after);
                tracing::info!(serial, not_after, "a new intermediate signs from now on");
            }
            Event::RootExpiring { not_after } => {
                let not_after = timestamp(*not_after);
                tracing::warn!(not_after, "the root ends soon; plan its replacement");
            }
        }
    }
}

/// Keeps the own certificate in order, where somebody else keeps the authority.
pub(super) async fn renew_regularly(plane: Arc<Plane>, own: SpiffeId) -> Infallible {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        let (plane, own) = (Arc::clone(&plane), own.clone());
        let work = tokio::task::spawn_blocking(move || renew_own(&plane, &own));
        if let Err(error) = work.await {
            tracing::error!(%error, "upkeep was not finished");
        }
    }
}

fn renew_own(plane: &Plane, own: &SpiffeId) {
    match plane.issue.renew_own(&plane.identity, own, SystemTime::now()) {
        Ok(true) => tracing::info!("the serving certificate was renewed"),
        Ok(false) => {}
        Err(error) => tracing::error!(error = chain(&error), "no new serving certificate"),
    }
    measure_expiry(&plane.issue);
}

/// Brings the gauges of the authority's certificates up to date.
pub(super) fn measure_expiry(issue: &IssueService) {
    let authority = issue.authority();
    let intermediate = authority.intermediate_certificate();
    for (level, der) in [("root", authority.root_certificate()), ("intermediate", &intermediate)] {
        if let Ok(summary) = certificate::inspect(der) {
            metrics::expiry(level, summary.not_after);
        }
    }
}

/// Keeps the metric recorder small.
pub(super) async fn metrics_upkeep() -> Infallible {
    let mut tick = tokio::time::interval(METRICS_UPKEEP_EVERY);
    loop {
        tick.tick().await;
        if let Some(handle) = metrics::install() {
            handle.run_upkeep();
        }
    }
}
