use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn record(holder: &str, renewed: &str) -> Record {
    Record {
        holder: Some(holder.to_owned()),
        lease: 15 * SECOND,
        renewed: renewed.to_owned(),
        transitions: 3,
    }
}

#[test]
fn a_lease_of_nobody_is_taken_and_that_of_another_only_after_its_whole_time_unchanged() {
    let mut candidate = Election::new("b".to_owned(), Timing::default());
    assert_eq!(candidate.consider(None, SECOND), Verdict::Claim { transitions: 0 });
    assert_eq!(candidate.consider(Some(&record("", "1")), SECOND), Verdict::Claim { transitions: 4 });
    let held = record("a", "1");
    assert_eq!(candidate.consider(Some(&held), SECOND), Verdict::Wait);
    assert_eq!(candidate.consider(Some(&held), 15 * SECOND), Verdict::Wait);
    assert_eq!(candidate.consider(Some(&record("a", "2")), 16 * SECOND), Verdict::Wait);
    assert_eq!(candidate.consider(Some(&record("a", "2")), 30 * SECOND), Verdict::Wait);
    let over = candidate.consider(Some(&record("a", "2")), 31 * SECOND);
    assert_eq!(over, Verdict::Claim { transitions: 4 });
}

#[test]
fn leadership_ends_by_itself_before_others_may_claim_and_at_once_when_another_holds_the_lease() {
    let mut leader = Election::new("a".to_owned(), Timing::default());
    leader.claimed(5 * SECOND);
    assert!(leader.leads(14 * SECOND) && !leader.leads(15 * SECOND));
    leader.claimed(15 * SECOND);
    assert_eq!(leader.consider(Some(&record("b", "1")), 16 * SECOND), Verdict::Wait);
    assert!(!leader.leads(16 * SECOND));
}

#[test]
fn a_lease_whose_holder_asks_for_more_time_is_waited_for_longer() {
    let mut candidate = Election::new("b".to_owned(), Timing::default());
    let held = Record { lease: 60 * SECOND, ..record("a", "1") };
    candidate.consider(Some(&held), SECOND);
    assert_eq!(candidate.consider(Some(&held), 60 * SECOND), Verdict::Wait);
    assert_ne!(candidate.consider(Some(&held), 61 * SECOND), Verdict::Wait);
}

/// A lease that the API server keeps: writes name the version that they replace.
#[derive(Default)]
struct Store {
    record: Option<Record>,
    version: u64,
}

/// A candidate in a simulated world, with a clock that starts anywhere and runs fast or slow.
struct Simulated {
    election: Election,
    offset: Duration,
    rate: f64,
    /// When its present step ends, in true time.
    wakes: Duration,
    step: Step,
    renewals: u64,
}

enum Step {
    Rest,
    /// A read was begun; the answer is of the moment at which it ends.
    Read,
    /// A write was begun at this moment of the own clock, against this version.
    Write {
        started: Duration,
        version: u64,
        record: Record,
    },
    /// The answer of a write, which is on its way.
    Answer {
        started: Duration,
        is_done: bool,
    },
}

impl Simulated {
    fn clock(&self, now: Duration) -> Duration {
        self.offset + now.mul_f64(self.rate)
    }
}

/// What the world does to one step of one candidate.
#[derive(Debug, Clone)]
struct Weather {
    /// How long requests and answers take, in milliseconds.
    delay_ms: u64,
    /// Whether the API server is not reached.
    is_cut: bool,
    /// Whether the answer is lost though the write is done.
    is_deaf: bool,
}

fn weather() -> impl Strategy<Value = Weather> {
    let delay = prop_oneof![4 => 1_u64..200, 1 => 200_u64..6_000, 1 => 6_000_u64..40_000];
    (delay, prop::bool::weighted(0.15), prop::bool::weighted(0.1))
        .prop_map(|(delay_ms, is_cut, is_deaf)| Weather { delay_ms, is_cut, is_deaf })
}

fn advance(who: &mut Simulated, store: &mut Store, weather: &Weather, now: Duration) {
    let timing = who.election.timing();
    let clock = who.clock(now);
    let delay = Duration::from_millis(weather.delay_ms);
    let rest = timing.retry.mul_f64(1.0 / who.rate);
    let (step, wait) = match std::mem::replace(&mut who.step, Step::Rest) {
        Step::Rest => (Step::Read, delay),
        Step::Read if weather.is_cut => (Step::Rest, delay.max(rest)),
        Step::Read => match who.election.consider(store.record.as_ref(), clock) {
            Verdict::Wait => (Step::Rest, rest),
            Verdict::Claim { transitions } => {
                who.renewals += 1;
                let record = Record {
                    holder: Some(who.election.me().to_owned()),
                    lease: timing.lease,
                    renewed: who.renewals.to_string(),
                    transitions,
                };
                (Step::Write { started: clock, version: store.version, record }, delay)
            }
        },
        Step::Write { started, version, record } => {
            let is_done = !weather.is_cut && version == store.version;
            if is_done {
                store.record = Some(record);
                store.version += 1;
            }
            (Step::Answer { started, is_done: is_done && !weather.is_deaf }, delay)
        }
        Step::Answer { started, is_done } => {
            if is_done {
                who.election.claimed(started);
            }
            (Step::Rest, rest)
        }
    };
    who.step = step;
    who.wakes = now + wait.max(Duration::from_millis(1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Candidates whose clocks start anywhere and differ in rate by up to a tenth either way, whose requests
    /// are slow, cut off, or done without an answer.
    #[test]
    fn there_are_never_two_leaders(
        clocks in prop::collection::vec((0_u64..1_000_000, 0.9_f64..1.1), 2..4),
        weather in prop::collection::vec(weather(), 300..900),
    ) {
        let mut store = Store::default();
        let mut candidates: Vec<_> = clocks
            .iter()
            .enumerate()
            .map(|(number, (offset, rate))| Simulated {
                election: Election::new(number.to_string(), Timing::default()),
                offset: Duration::from_millis(*offset),
                rate: *rate,
                wakes: Duration::from_millis(number as u64),
                step: Step::Rest,
                renewals: 0,
            })
            .collect();
        for weather in &weather {
            let Some(next) = candidates.iter_mut().min_by_key(|who| who.wakes) else { break };
            let now = next.wakes;
            advance(next, &mut store, weather, now);
            // Leadership begins with a step, and otherwise only ends.
            let leaders = candidates.iter().filter(|who| who.election.leads(who.clock(now))).count();
            prop_assert!(leaders <= 1, "{leaders} leaders at {now:?}");
        }
    }

    /// Where the weather is fair somebody leads almost all the time, also after the leader is gone for good.
    #[test]
    fn a_leader_that_is_gone_is_followed_within_the_time_of_its_lease(seed in 0_u64..1_000) {
        let fair = Weather { delay_ms: 5 + seed % 100, is_cut: false, is_deaf: false };
        let mut store = Store { record: Some(record("gone", "1")), version: 1 };
        let mut who = Simulated {
            election: Election::new("next".to_owned(), Timing::default()),
            offset: Duration::from_millis(seed),
            rate: 1.0,
            wakes: Duration::ZERO,
            step: Step::Rest,
            renewals: 0,
        };
        while !who.election.leads(who.clock(who.wakes)) {
            let now = who.wakes;
            prop_assert!(now < 19 * SECOND, "nobody leads after {now:?}");
            advance(&mut who, &mut store, &fair, now);
        }
    }
}
