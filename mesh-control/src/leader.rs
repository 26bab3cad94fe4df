//! Which replica has the duties of which there must be one: the holder of a Lease.
//!
//! Any replica serves proxies. Writing what all share (the authority's next intermediate, root certificates
//! in namespaces, conditions of objects) is for one at a time: the [`Candidate`] that holds the Lease by the
//! rules of [`election`]. Duties ask for [`Leadership::lead`], which runs them while this replica leads and
//! drops them when it does not; that is before another can, because a leader stops counting itself as one
//! earlier than others may take the lease over. A replica that ends gives the lease back, and the next takes
//! over within the time between two looks.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use mesh_api::error_chain::chain;
use mesh_kube::name;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::telemetry::metrics;

pub mod election;

use election::{Election, Record, Timing, Verdict};

/// Time for one request. A leader has room for several before its time is over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);
/// Time for giving the lease back: a replica that ends does not wait for an API server that is away.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether this replica leads, for those with duties.
#[derive(Debug, Clone)]
pub struct Leadership {
    leads: watch::Receiver<bool>,
}

impl Leadership {
    /// Whether this replica leads now.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        *self.leads.borrow()
    }

    /// A leadership that whoever holds `leads` decides: for tests, and where there is one replica.
    #[must_use]
    pub fn following(leads: watch::Receiver<bool>) -> Self {
        Self { leads }
    }

    /// The same as a channel, for those that wait in their own way.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// Returns when it has begun or ended since this was last asked. Dropping it loses nothing.
    pub async fn changed(&mut self) {
        if self.leads.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when this replica leads, at once if it does.
    pub async fn elected(&mut self) {
        if self.leads.wait_for(|leads| *leads).await.is_err() {
            // The candidate has ended, and this process ends with it.
            std::future::pending::<()>().await;
        }
    }

    /// Returns when this replica does not lead, at once if it does not.
    pub async fn lost(&mut self) {
        // A candidate that has ended leads no more.
        drop(self.leads.wait_for(|leads| !*leads).await);
    }

    /// Does a duty whenever this replica leads. It is begun anew each time, and dropped wherever it waits
    /// when leadership ends: what it wrote by then is done, what it was about to write is not.
    pub async fn lead<D>(mut self, name: &'static str, mut duty: impl FnMut() -> D) -> Infallible
    where
        D: Future<Output = Infallible>,
    {
        loop {
            self.elected().await;
            tracing::debug!(duty = name, "begins");
            let mut watching = self.clone();
            tokio::select! {
                biased;
                () = watching.lost() => tracing::debug!(duty = name, "ends with leadership"),
                never = duty() => match never {},
            }
        }
    }
}

/// Why a look at the lease failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("the API server did not answer in time")]
    Silent,
    #[error("the lease cannot be {action}")]
    Api { action: &'static str, source: kube::Error },
}

/// A replica that wants to lead.
pub struct Candidate {
    api: Api<Lease>,
    election: Election,
    leads: watch::Sender<bool>,
    /// The start of the own clock.
    epoch: Instant,
    /// The lease as it was last written by this replica.
    own: Option<Lease>,
    reported: String,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("election", &self.election).finish_non_exhaustive()
    }
}

impl Candidate {
    /// A candidate for the lease in `namespace`. `replica` is for people; what makes it unique is added, so
    /// that a process which starts anew under the same name is another candidate.
    #[must_use]
    pub fn new(client: Client, namespace: &str, replica: &str, timing: Timing) -> (Self, Leadership) {
        let me = format!("{replica}_{:016x}", fastrand::u64(..));
        let (leads, following) = watch::channel(false);
        let candidate = Self {
            api: Api::namespaced(client, namespace),
            election: Election::new(me, timing),
            leads,
            epoch: Instant::now(),
            own: None,
            reported: String::new(),
        };
        metrics::leader(false);
        (candidate, Leadership { leads: following })
    }

    /// Stands for election until told to `resign`, and gives the lease back then.
    pub async fn run(mut self, resign: CancellationToken) {
        loop {
            tokio::select! {
                () = resign.cancelled() => break,
                () = self.round() => {}
            }
        }
        let led = self.election.leads(self.clock());
        self.election.resign();
        self.publish();
        if led {
            match timeout(RELEASE_TIMEOUT, self.release()).await {
                Ok(Ok(())) => tracing::info!("the lease was given back"),
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "the lease could not be given back"),
                Err(_elapsed) => tracing::warn!("the lease could not be given back in time"),
            }
        }
    }

    fn clock(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// One look, and the rest after it. Dropping it loses nothing: a write without an answer is found at the
    /// next look.
    async fn round(&mut self) {
        let left = self.election.leads_until().map(|until| until.saturating_sub(self.clock()));
        let limit = left.filter(|left| !left.is_zero()).unwrap_or(REQUEST_TIMEOUT).min(REQUEST_TIMEOUT);
        let looked = timeout(limit, self.look()).await.unwrap_or(Err(LookError::Silent));
        match looked {
            Ok(()) => self.reported.clear(),
            Err(error) => {
                let reason = chain(&error).to_string();
                if reason != self.reported {
                    tracing::warn!(reason, leads = self.election.leads(self.clock()), "no look at the lease");
                    self.reported = reason;
                }
            }
        }
        self.publish();
        // Candidates that fail together do not come back together.
        let pause = self.election.timing().retry.mul_f64(0.8 + 0.4 * fastrand::f64());
        let left = self.election.leads_until().map(|until| until.saturating_sub(self.clock()));
        match left.filter(|left| !left.is_zero() && *left < pause) {
            Some(left) => {
                tokio::time::sleep(left).await;
                self.publish();
            }
            None => tokio::time::sleep(pause).await,
        }
    }

    async fn look(&mut self) -> Result<(), LookError> {
        let failed = |action| move |source| LookError::Api { action, source };
        let found = self.api.get_opt(name::LEADER_LEASE).await.map_err(failed("read"))?;
        let record = found.as_ref().map(record);
        let now = self.clock();
        let Verdict::Claim { transitions } = self.election.consider(record.as_ref(), now) else {
            return Ok(());
        };
        let lease = self.claim(found.as_ref(), transitions);
        let written = match &found {
            None => self.api.create(&PostParams::default(), &lease).await,
            Some(_) => self.api.replace(name::LEADER_LEASE, &PostParams::default(), &lease).await,
        };
        match written {
            Ok(written) => {
                // The time of the read, which was before the write.
                self.election.claimed(now);
                self.own = Some(written);
                Ok(())
            }
            // Another was quicker. What it wrote is seen at the next look.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => Err(failed("written")(source)),
        }
    }

    fn claim(&self, found: Option<&Lease>, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let former = found.and_then(|lease| lease.spec.as_ref());
        let is_mine = former.is_some_and(|spec| spec.holder_identity.as_deref() == Some(self.election.me()));
        let acquired = former.filter(|_| is_mine).and_then(|spec| spec.acquire_time.clone());
        let mut metadata = found.map(|lease| lease.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            name: Some(name::LEADER_LEASE.to_owned()),
            ..ObjectMeta::default()
        });
        metadata.managed_fields = None;
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(name::LABEL_PART_OF.to_owned(), name::PART_OF.to_owned());
        let seconds = i32::try_from(self.election.timing().lease.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(self.election.me().to_owned()),
                lease_duration_seconds: Some(seconds),
                acquire_time: acquired.or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn release(&mut self) -> Result<(), LookError> {
        let Some(mut lease) = self.own.take() else { return Ok(()) };
        lease.metadata.managed_fields = None;
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let written = self.api.replace(name::LEADER_LEASE, &PostParams::default(), &lease).await;
        written.map(drop).map_err(|source| LookError::Api { action: "written", source })
    }

    fn publish(&self) {
        let leads = self.election.leads(self.clock());
        let has_changed = self.leads.send_if_modified(|known| std::mem::replace(known, leads) != leads);
        if has_changed {
            metrics::leader(leads);
            match leads {
                true => tracing::info!(candidate = self.election.me(), "this replica leads"),
                false => {
                    tracing::warn!(candidate = self.election.me(), "this replica does not lead any more")
                }
            }
        }
    }
}

fn record(lease: &Lease) -> Record {
    let Some(spec) = &lease.spec else { return Record::default() };
    let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or_default()).unwrap_or_default();
    Record {
        holder: spec.holder_identity.clone(),
        lease: Duration::from_secs(seconds),
        renewed: spec.renew_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
