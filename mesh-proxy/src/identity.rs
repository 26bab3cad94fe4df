//! The own identity: makes a key, asks the control plane for a certificate, and again in good time.
//!
//! When to ask is decided by [`mesh_identity::rotation::Rotation`], which knows no clock and no network; this
//! is the shell that sleeps, asks, counts and publishes. A key is made for each renewal, stays in memory and is
//! dropped with the renewal that failed; the key of a first certificate is kept until there is one, because a
//! join token is good for one key only.
//!
//! With a valid certificate, that certificate is the proof (mutual TLS). Without one, a token is (a join token
//! or a service-account token of Kubernetes), on a connection in which only the control plane proves who it is;
//! token and roots are read from their files each time, because whoever supervises this process renews them.

mod request;
mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::error_chain::chain;
use mesh_identity::certificate::inspect;
use mesh_identity::rotation::{Effect, Input, Moment, Rotation};
use mesh_identity::svid::Svid;
use mesh_identity::tls::IdentitySource;
use tokio::time::{Instant, sleep, timeout};

pub use request::{FirstKey, Granted, RequestError, request};
pub use status::IdentityStatus;

use crate::settings::Settings;
use crate::state::State;
use crate::telemetry::process;

/// Longest sleep without a look at the clocks: after a jump (a suspension, NTP, an operator) identity is
/// looked at within this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Difference between the two clocks, from one look to the next, that wakes the machine before its time.
const JUMP: Duration = Duration::from_secs(2);

/// The task that keeps the identity.
#[derive(Debug)]
pub struct IdentityKeeper {
    settings: Arc<Settings>,
    source: Arc<IdentitySource>,
    status: Arc<IdentityStatus>,
    state: State,
    started: Instant,
    rotation: Rotation,
    first_key: FirstKey,
}

impl IdentityKeeper {
    /// A keeper that publishes into `source`.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        source: Arc<IdentitySource>,
        status: Arc<IdentityStatus>,
        state: State,
    ) -> Self {
        Self {
            settings,
            source,
            status,
            state,
            started: Instant::now(),
            rotation: Rotation::new(),
            first_key: FirstKey::default(),
        }
    }

    /// Runs for ever. Dropping the future gives up a request that is under way; the certificate stays.
    pub async fn run(mut self) {
        let mut input = Input::Tick;
        loop {
            let effects = self.rotation.handle(input, self.moment(), fastrand::f64());
            self.status.observe(self.rotation.plan().map(|plan| plan.renew_at), self.rotation.condition());
            input = Input::Tick;
            for effect in effects {
                match effect {
                    Effect::Renew { timeout } => input = self.renew(timeout).await,
                    Effect::Sleep(duration) => self.sleep(duration).await,
                    Effect::AlarmExpiring { not_after } => tracing::error!(
                        not_after = timestamp(not_after),
                        reason = self.status.failure(),
                        "THE CERTIFICATE OF THIS WORKLOAD EXPIRES SOON and could not be renewed"
                    ),
                    Effect::AlarmExpired { not_after } => tracing::error!(
                        not_after = timestamp(not_after),
                        reason = self.status.failure(),
                        "THE CERTIFICATE OF THIS WORKLOAD HAS EXPIRED: it serves nobody and calls nobody until there is a new one"
                    ),
                    Effect::ClockJumped { forward, by } => {
                        process::clock_jumped();
                        let by_seconds = by.as_secs();
                        let direction = if forward { "forward" } else { "back" };
                        tracing::warn!(by_seconds, direction, "the wall clock was set");
                    }
                }
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment { wall: SystemTime::now(), monotonic: self.started.elapsed() }
    }

    /// Sleeps, or less when the wall clock jumps meanwhile.
    async fn sleep(&self, duration: Duration) {
        let begin = self.moment();
        loop {
            let slept = self.started.elapsed().saturating_sub(begin.monotonic);
            let left = duration.saturating_sub(slept);
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_EVERY)).await;
            let now = self.moment();
            let expected = begin.wall + now.monotonic.saturating_sub(begin.monotonic);
            let off = now.wall.duration_since(expected).unwrap_or_else(|behind| behind.duration());
            if off > JUMP {
                return;
            }
        }
    }

    async fn renew(&mut self, limit: Duration) -> Input {
        let asking = request(&self.settings, &self.source, &mut self.first_key);
        let outcome = match timeout(limit, asking).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(RequestError::TimedOut),
        };
        match outcome {
            Ok(granted) => {
                self.publish(&granted);
                Input::Issued { not_before: granted.svid.not_before(), not_after: granted.svid.not_after() }
            }
            Err(error) => {
                let reason = chain(&error);
                process::rotation_failed(error.label());
                let has_valid = self.source.current().valid_svid(SystemTime::now()).is_some();
                if has_valid {
                    tracing::warn!(reason, "the certificate was not renewed; it is still valid");
                } else {
                    tracing::error!(reason, "no certificate");
                }
                self.status.failed(reason);
                Input::Failed
            }
        }
    }

    /// Takes a new certificate into use. Roots come with it, but once discovery is under way it is the one
    /// that says whom to trust: its answers are in order, and this one may have been made before the last.
    fn publish(&self, granted: &Granted) {
        if self.state.load().workload.is_none() {
            self.source.publish_bundle(granted.bundle.clone());
        }
        self.source.publish_svid(&granted.svid);
        self.status.succeeded();
        process::rotated();
        measure(&granted.svid);
        tracing::info!(
            id = %granted.svid.id(),
            serial = granted.svid.serial(),
            not_after = timestamp(granted.svid.not_after()),
            "certificate received"
        );
    }
}

fn measure(svid: &Svid) {
    process::expiry("leaf", svid.not_after());
    let issuers = svid.chain().iter().skip(1).filter_map(|der| inspect(der).ok());
    if let Some(first) = issuers.map(|issuer| issuer.not_after).min() {
        process::expiry("intermediate", first);
    }
}

/// A time for people.
fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "beyond all calendars".to_owned(), |time| time.to_string())
}
