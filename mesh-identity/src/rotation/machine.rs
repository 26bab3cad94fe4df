//! The state machine of renewal, without IO.
//!
//! Two clocks are looked at. The wall clock says what peers will say of the certificate; the monotonic one
//! keeps running when somebody sets the wall clock back. Renewal is due when *either* reaches the plan. A
//! difference between the two is a jump (suspend, NTP, an operator), which leads to a look at once. No sleep
//! is longer than [`SLEEP_MAX`], so that a jump is noticed within that time.

use std::time::{Duration, SystemTime};

use super::RotationPlan;

/// Longest sleep between two looks.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// Shortest sleep, so that rounding never makes a busy loop.
const SLEEP_MIN: Duration = Duration::from_millis(10);
/// Difference of the two clocks that counts as a jump. NTP slews stay far below it between two looks.
const JUMP: Duration = Duration::from_secs(5);
/// First delay after a failure.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// Longest delay while the certificate lives.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Longest delay when there is no valid certificate: the workload serves nobody until there is one.
const BACKOFF_MAX_EXPIRED: Duration = Duration::from_secs(15);
/// Shortest of the longest delays, for lives of seconds.
const BACKOFF_MAX_FLOOR: Duration = Duration::from_millis(200);
/// A delay is at most this part of what is left of the life, so that retries become denser.
const BACKOFF_PART: u32 = 6;
/// Longest time that one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Time that one request is given while there is no valid certificate: a name is to be looked up, and a token may
/// have to be reviewed by somebody who is busy, as when many pods start. Nothing is lost by waiting for it.
const REQUEST_FIRST: Duration = Duration::from_secs(10);
/// Shortest time that one request is given.
const REQUEST_MIN: Duration = Duration::from_secs(1);

/// A reading of both clocks, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: SystemTime,
    /// A clock that is never set, from any start.
    pub monotonic: Duration,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Time passed: the start, or the end of a sleep.
    Tick,
    /// A request succeeded: this is the validity of the new certificate. One that is of no use by our
    /// clock (over, or not valid yet) is kept, and counts as a failure: asking again at once would only
    /// burden the authority, whose clock is another one.
    Issued {
        /// Start of validity.
        not_before: SystemTime,
        /// End of validity.
        not_after: SystemTime,
    },
    /// A request failed or took too long.
    Failed,
    /// Renew now, for a reason outside of the schedule: new roots, or an operator. While a request is under
    /// way, another follows it, since the first may have been answered before that reason came up.
    RenewNow,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Send a request; say [`Input::Failed`] if there is no answer within `timeout`. Never more than one at
    /// a time.
    Renew {
        /// Time for the whole request.
        timeout: Duration,
    },
    /// Come back with [`Input::Tick`] after this time, or earlier with anything else. Replaces a former one.
    Sleep(Duration),
    /// A fifth of the life is left and it has not been renewed. Once per certificate.
    AlarmExpiring {
        /// End of validity.
        not_after: SystemTime,
    },
    /// The certificate has ended: nobody accepts this workload. Once per certificate.
    AlarmExpired {
        /// End of validity.
        not_after: SystemTime,
    },
    /// The wall clock was set, or the machine slept.
    ClockJumped {
        /// Where to.
        forward: bool,
        /// By how much.
        by: Duration,
    },
}

/// How it stands, for status and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There has never been a certificate.
    None,
    /// Nothing to do.
    Fresh,
    /// A request is under way.
    Renewing,
    /// The last request failed; another follows.
    Retrying {
        /// Failures in a row.
        failures: u32,
    },
}

/// The machine. One per workload.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    certificate: Option<Certificate>,
    activity: Activity,
    failures: u32,
    last: Option<Moment>,
}

#[derive(Debug, Clone, Copy)]
struct Certificate {
    plan: RotationPlan,
    received: Moment,
    alarm: Alarm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Silent,
    Expiring,
    Expired,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Activity {
    /// Waiting for the plan.
    #[default]
    Waiting,
    /// Waiting for an answer, and perhaps asking again after it.
    Renewing { again: bool },
    /// Waiting for the next try, at this reading of the monotonic clock.
    Retrying { at: Duration },
}

impl Rotation {
    /// A machine without a certificate: it asks for one at the first tick.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in what happened and says what to do. `draw` is uniform in `0.0..1.0`, a new one each time.
    /// Effects are to be carried out in their order; there is a [`Effect::Sleep`] unless a request is under
    /// way or asked for.
    pub fn handle(&mut self, input: Input, now: Moment, draw: f64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let jumped = self.notice_jump(now, &mut effects);
        match input {
            Input::Tick => {}
            Input::Issued { not_before, not_after } => {
                let plan = RotationPlan::draw(not_before, not_after, now.wall, draw);
                self.certificate = Some(Certificate { plan, received: now, alarm: Alarm::Silent });
                if now.wall < plan.not_before || now.wall >= plan.renew_at {
                    self.fail(now, draw);
                } else {
                    self.failures = 0;
                    self.activity = match self.activity {
                        Activity::Renewing { again: true } => Activity::Retrying { at: now.monotonic },
                        Activity::Renewing { again: false }
                        | Activity::Waiting
                        | Activity::Retrying { .. } => Activity::Waiting,
                    };
                }
            }
            Input::Failed => self.fail(now, draw),
            Input::RenewNow => {
                self.activity = match self.activity {
                    Activity::Renewing { .. } => Activity::Renewing { again: true },
                    Activity::Waiting | Activity::Retrying { .. } => Activity::Retrying { at: now.monotonic },
                };
            }
        }
        self.raise_alarms(now, &mut effects);
        self.act(now, jumped, &mut effects);
        effects
    }

    /// How it stands.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match (self.activity, &self.certificate) {
            (Activity::Renewing { .. }, _) => Condition::Renewing,
            (Activity::Retrying { .. }, _) if self.failures > 0 => {
                Condition::Retrying { failures: self.failures }
            }
            (Activity::Waiting | Activity::Retrying { .. }, None) => Condition::None,
            (Activity::Waiting | Activity::Retrying { .. }, Some(_)) => Condition::Fresh,
        }
    }

    /// The plan of the current certificate.
    #[must_use]
    pub fn plan(&self) -> Option<&RotationPlan> {
        self.certificate.as_ref().map(|certificate| &certificate.plan)
    }

    /// Counts a failure and waits for the next try.
    fn fail(&mut self, now: Moment, draw: f64) {
        self.failures = self.failures.saturating_add(1);
        self.activity = Activity::Retrying { at: now.monotonic + self.backoff(now, draw) };
    }

    /// Asks, or sleeps until there is something to look at.
    fn act(&mut self, now: Moment, jumped: bool, effects: &mut Vec<Effect>) {
        let wait = match self.activity {
            Activity::Renewing { .. } => return,
            // A jump is often the end of a suspension, and the network is another one now: try at once.
            Activity::Retrying { .. } if jumped => Duration::ZERO,
            Activity::Retrying { at } => at.saturating_sub(now.monotonic),
            Activity::Waiting => self.until_due(now),
        };
        if wait.is_zero() {
            self.activity = Activity::Renewing { again: false };
            let left = self.left(now);
            let timeout =
                if left.is_zero() { REQUEST_FIRST } else { (left / 4).clamp(REQUEST_MIN, REQUEST_MAX) };
            effects.push(Effect::Renew { timeout });
        } else {
            let wait = wait.min(self.until_alarm(now)).clamp(SLEEP_MIN, SLEEP_MAX);
            effects.push(Effect::Sleep(wait));
        }
    }

    /// Until renewal is due by the clock that says so first; zero without a certificate, and when the
    /// certificate is not valid yet by our clock.
    fn until_due(&self, now: Moment) -> Duration {
        let Some(Certificate { plan, received, .. }) = &self.certificate else { return Duration::ZERO };
        if now.wall < plan.not_before {
            // Set back below the start: only a certificate signed now can be valid on this clock.
            return Duration::ZERO;
        }
        let by_wall = plan.renew_at.duration_since(now.wall).unwrap_or_default();
        by_wall.min(self.until_due_monotonic(plan, received, now))
    }

    fn until_due_monotonic(&self, plan: &RotationPlan, received: &Moment, now: Moment) -> Duration {
        let planned = plan.renew_at.duration_since(received.wall).unwrap_or_default();
        (received.monotonic + planned).saturating_sub(now.monotonic)
    }

    /// What is left of the life, by the clock that says less.
    fn left(&self, now: Moment) -> Duration {
        let Some(Certificate { plan, received, .. }) = &self.certificate else { return Duration::ZERO };
        let by_wall = plan.not_after.duration_since(now.wall).unwrap_or_default();
        let life = plan.not_after.duration_since(received.wall).unwrap_or_default();
        by_wall.min((received.monotonic + life).saturating_sub(now.monotonic))
    }

    fn until_alarm(&self, now: Moment) -> Duration {
        let Some(Certificate { plan, alarm, .. }) = &self.certificate else { return SLEEP_MAX };
        match alarm {
            Alarm::Silent => plan.warn_at.duration_since(now.wall).unwrap_or_default(),
            Alarm::Expiring => plan.not_after.duration_since(now.wall).unwrap_or_default(),
            Alarm::Expired => SLEEP_MAX,
        }
    }

    /// Exponential, with jitter over its upper half, bounded by what is left of the life.
    fn backoff(&self, now: Moment, draw: f64) -> Duration {
        let left = self.left(now);
        let most = if left.is_zero() {
            BACKOFF_MAX_EXPIRED
        } else {
            (left / BACKOFF_PART).clamp(BACKOFF_MAX_FLOOR, BACKOFF_MAX)
        };
        let doubled = BACKOFF_BASE.saturating_mul(1_u32 << self.failures.saturating_sub(1).min(10));
        doubled.min(most).mul_f64(0.5 + 0.5 * draw.clamp(0.0, 1.0))
    }

    fn raise_alarms(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let Some(Certificate { plan, alarm, .. }) = &mut self.certificate else { return };
        let not_after = plan.not_after;
        if *alarm < Alarm::Expiring && now.wall >= plan.warn_at {
            *alarm = Alarm::Expiring;
            effects.push(Effect::AlarmExpiring { not_after });
        }
        // The last second is still valid, so the end is what lies after it.
        if *alarm < Alarm::Expired && now.wall > not_after {
            *alarm = Alarm::Expired;
            effects.push(Effect::AlarmExpired { not_after });
        }
    }

    /// Compares how far both clocks have come since the last look.
    fn notice_jump(&mut self, now: Moment, effects: &mut Vec<Effect>) -> bool {
        let Some(last) = self.last.replace(now) else { return false };
        let expected = last.wall + now.monotonic.saturating_sub(last.monotonic);
        let (forward, by) = match now.wall.duration_since(expected) {
            Ok(by) => (true, by),
            Err(behind) => (false, behind.duration()),
        };
        if by > JUMP {
            effects.push(Effect::ClockJumped { forward, by });
        }
        by > JUMP
    }
}

#[cfg(test)]
mod tests;
