use super::*;
use proptest::prelude::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BACKDATE: Duration = Duration::from_secs(120);

fn start() -> Moment {
    Moment { wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), monotonic: HOUR }
}

/// Numbers for `draw` that depend on nothing but the seed.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> f64 {
        // Knuth's MMIX generator; the upper bits are good enough to spread retries.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).expect("31 bits")) / f64::from(1_u32 << 31)
    }
}

/// A workload, its clocks, and an authority that gives certificates of `life`.
struct World {
    rotation: Rotation,
    now: Moment,
    draws: Draws,
    life: Duration,
    /// How far the authority's clock is ahead of ours.
    authority_ahead: Duration,
    /// Time that a request takes.
    latency: Duration,
    /// When requests were sent.
    asked: Vec<Moment>,
    /// Other effects, in order.
    seen: Vec<Effect>,
}

impl World {
    fn new(life: Duration, seed: u64) -> Self {
        Self {
            rotation: Rotation::new(),
            now: start(),
            draws: Draws(seed),
            life,
            authority_ahead: Duration::ZERO,
            latency: Duration::from_millis(20),
            asked: Vec::new(),
            seen: Vec::new(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.wall += time;
        self.now.monotonic += time;
    }

    /// Does what the machine says until `end`; `is_up` says whether the authority answers.
    fn run(&mut self, end: Duration, mut is_up: impl FnMut(Moment) -> bool) {
        let mut input = Input::Tick;
        while self.now.monotonic < end {
            let draw = self.draws.next();
            let effects = self.rotation.handle(input, self.now, draw);
            input = Input::Tick;
            let mut step = None;
            for effect in effects {
                match effect {
                    Effect::Renew { timeout } => {
                        assert!(step.is_none(), "a request and something else");
                        assert!((REQUEST_MIN..=REQUEST_MAX).contains(&timeout));
                        self.asked.push(self.now);
                        step = Some(self.latency);
                        input = if is_up(self.now) { self.issued() } else { Input::Failed };
                    }
                    Effect::Sleep(time) => {
                        assert!(step.is_none(), "two sleeps");
                        assert!((SLEEP_MIN..=SLEEP_MAX).contains(&time), "{time:?}");
                        step = Some(time);
                    }
                    Effect::AlarmExpiring { .. }
                    | Effect::AlarmExpired { .. }
                    | Effect::ClockJumped { .. } => self.seen.push(effect),
                }
            }
            let step = step.expect("there is always something to wait for");
            self.pass(step);
        }
    }

    fn issued(&self) -> Input {
        let signed = self.now.wall + self.authority_ahead;
        Input::Issued { not_before: signed - BACKDATE, not_after: signed + self.life }
    }

    fn expired(&self) -> usize {
        self.seen.iter().filter(|effect| matches!(effect, Effect::AlarmExpired { .. })).count()
    }

    fn gaps(&self) -> Vec<Duration> {
        self.asked.windows(2).map(|pair| pair[1].monotonic - pair[0].monotonic).collect()
    }
}

fn sent(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Renew { .. }))
}

/// A machine with a certificate of `life`, received at the start.
fn holding(life: Duration) -> Rotation {
    let mut rotation = Rotation::new();
    assert!(sent(&rotation.handle(Input::Tick, start(), 0.5)));
    let issued = Input::Issued { not_before: start().wall - BACKDATE, not_after: start().wall + life };
    rotation.handle(issued, start(), 0.5);
    rotation
}

fn after(moment: Moment, time: Duration) -> Moment {
    Moment { wall: moment.wall + time, monotonic: moment.monotonic + time }
}

#[test]
fn the_first_tick_asks_at_once() {
    let mut rotation = Rotation::new();
    assert_eq!(rotation.condition(), Condition::None);
    assert!(matches!(rotation.handle(Input::Tick, start(), 0.5)[..], [Effect::Renew { .. }]));
    assert_eq!(rotation.condition(), Condition::Renewing);
    assert_eq!(rotation.handle(Input::Tick, start(), 0.5), [], "a second request while one is under way");
}

#[test]
fn jitter_is_drawn_once_per_certificate() {
    let mut rotation = holding(DAY);
    let plan = *rotation.plan().expect("a certificate");
    for (minute, draw) in [(1, 0.0), (2, 1.0), (3, 0.3)] {
        rotation.handle(Input::Tick, after(start(), minute * MINUTE), draw);
        assert_eq!(rotation.plan(), Some(&plan));
    }
    rotation.handle(Input::RenewNow, after(start(), HOUR), 0.9);
    rotation.handle(Input::Failed, after(start(), HOUR), 0.1);
    assert_eq!(rotation.plan(), Some(&plan), "a failure draws nothing");
}

#[test]
fn failures_are_counted_until_a_success() {
    let mut rotation = holding(DAY);
    let mut now = after(start(), 13 * HOUR);
    assert!(sent(&rotation.handle(Input::Tick, now, 0.5)));
    for failures in 1..5 {
        let effects = rotation.handle(Input::Failed, now, 0.5);
        assert!(matches!(effects[..], [Effect::Sleep(_)]), "{effects:?}");
        assert_eq!(rotation.condition(), Condition::Retrying { failures });
        now = after(now, MINUTE);
        assert!(sent(&rotation.handle(Input::Tick, now, 0.5)));
    }
    let issued = Input::Issued { not_before: now.wall - BACKDATE, not_after: now.wall + DAY };
    rotation.handle(issued, now, 0.5);
    assert_eq!(rotation.condition(), Condition::Fresh);
}

#[test]
fn renew_now_asks_at_once_and_a_request_under_way_is_followed_by_another() {
    let mut rotation = holding(DAY);
    let now = after(start(), MINUTE);
    assert!(sent(&rotation.handle(Input::RenewNow, now, 0.5)));
    assert!(!sent(&rotation.handle(Input::RenewNow, now, 0.5)), "two at a time");
    let issued = Input::Issued { not_before: now.wall - BACKDATE, not_after: now.wall + DAY };
    assert!(sent(&rotation.handle(issued, now, 0.5)), "the answer may be older than the reason");
    assert!(!sent(&rotation.handle(issued, now, 0.5)), "once");
    assert_eq!(rotation.condition(), Condition::Fresh);
}

#[test]
fn a_suspended_laptop_asks_when_it_wakes() {
    let mut rotation = holding(DAY);
    let before = after(start(), MINUTE);
    rotation.handle(Input::Tick, before, 0.5);
    // The monotonic clock stands still in a suspension, the wall clock does not.
    let awake = Moment { wall: before.wall + 14 * HOUR, monotonic: before.monotonic + SLEEP_MAX };
    let effects = rotation.handle(Input::Tick, awake, 0.5);
    assert!(matches!(effects[..], [Effect::ClockJumped { forward: true, .. }, Effect::Renew { .. }]));
}

#[test]
fn a_suspension_past_the_end_says_so_and_does_not_wait_for_the_backoff() {
    let mut rotation = holding(HOUR);
    let due = after(start(), 40 * MINUTE);
    rotation.handle(Input::Tick, due, 0.5);
    rotation.handle(Input::Failed, due, 1.0);
    let awake = Moment { wall: due.wall + DAY, monotonic: due.monotonic + Duration::from_millis(1) };
    let effects = rotation.handle(Input::Tick, awake, 0.5);
    assert!(
        matches!(
            effects[..],
            [
                Effect::ClockJumped { forward: true, .. },
                Effect::AlarmExpiring { .. },
                Effect::AlarmExpired { .. },
                Effect::Renew { .. },
            ]
        ),
        "{effects:?}"
    );
}

#[test]
fn a_clock_set_back_does_not_put_renewal_off() {
    let mut world = World::new(DAY, 1);
    world.run(start().monotonic + HOUR, |_| true);
    // Not below the start of the validity, so that nothing but the monotonic clock is left to notice.
    world.now.wall -= 50 * MINUTE;
    world.run(start().monotonic + 14 * HOUR, |_| true);
    assert_eq!(world.asked.len(), 2);
    assert!(world.gaps()[0] <= DAY.mul_f64(0.55) + SLEEP_MAX, "{:?}", world.gaps());
    assert!(matches!(world.seen[..], [Effect::ClockJumped { forward: false, .. }]), "{:?}", world.seen);
}

#[test]
fn a_clock_set_below_the_start_of_the_validity_leads_to_a_new_certificate_at_once() {
    let mut rotation = holding(DAY);
    let before = after(start(), MINUTE);
    rotation.handle(Input::Tick, before, 0.5);
    let back = Moment { wall: before.wall - HOUR, monotonic: before.monotonic + SLEEP_MAX };
    let effects = rotation.handle(Input::Tick, back, 0.5);
    assert!(matches!(effects[..], [Effect::ClockJumped { forward: false, .. }, Effect::Renew { .. }]));
}

#[test]
fn small_steps_of_a_clock_are_no_jumps() {
    let mut rotation = holding(DAY);
    let step = Moment { wall: start().wall + 34 * MINUTE / 60, monotonic: start().monotonic + SLEEP_MAX };
    assert!(matches!(rotation.handle(Input::Tick, step, 0.5)[..], [Effect::Sleep(_)]));
}

#[test]
fn an_authority_with_another_clock_is_not_asked_in_a_loop() {
    // Ours is a day behind: whatever it signs is not valid yet.
    let mut world = World::new(HOUR, 2);
    world.authority_ahead = DAY;
    world.run(start().monotonic + HOUR, |_| true);
    assert!(world.asked.len() < 130, "{} requests in an hour", world.asked.len());
    assert!(matches!(world.rotation.condition(), Condition::Retrying { .. } | Condition::Renewing));
    // Ours is a day ahead: whatever it signs has ended.
    let mut rotation = Rotation::new();
    rotation.handle(Input::Tick, start(), 0.5);
    let over = Input::Issued { not_before: start().wall - DAY, not_after: start().wall - HOUR };
    assert!(!sent(&rotation.handle(over, start(), 0.5)));
    assert_eq!(rotation.condition(), Condition::Retrying { failures: 1 });
}

#[test]
fn the_end_is_announced_once_with_a_fifth_left_and_once_when_it_comes() {
    let mut world = World::new(HOUR, 3);
    let mut first = true;
    world.run(start().monotonic + 3 * HOUR, |_| std::mem::take(&mut first));
    let not_after = start().wall + HOUR;
    assert_eq!(world.seen, [Effect::AlarmExpiring { not_after }, Effect::AlarmExpired { not_after }]);
    // Retries go on after the end, and not less than four times a minute.
    let last = world.asked.last().expect("requests");
    assert!(world.now.monotonic - last.monotonic <= BACKOFF_MAX_EXPIRED + world.latency);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_certificate_is_renewed_around_half_of_its_life(seed in any::<u64>(), life in 60_u64..600_000) {
        let life = Duration::from_secs(life);
        let mut world = World::new(life, seed);
        world.run(start().monotonic + 6 * life, |_| true);
        prop_assert_eq!(world.expired(), 0);
        prop_assert!(world.seen.is_empty(), "{:?}", world.seen);
        for gap in world.gaps() {
            let ratio = gap.as_secs_f64() / life.as_secs_f64();
            // The answer arrives a little after the question, and rounding costs a shortest sleep.
            let slack = (world.latency + SLEEP_MIN).as_secs_f64() / life.as_secs_f64();
            prop_assert!((0.4499..=0.5501 + slack).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn lives_of_seconds_are_renewed_in_time_too(seed in any::<u64>(), life in 5_u64..60) {
        let life = Duration::from_secs(life);
        let mut world = World::new(life, seed);
        world.run(start().monotonic + 20 * life, |_| true);
        prop_assert_eq!(world.expired(), 0);
        prop_assert!(world.asked.len() <= 60, "{}", world.asked.len());
    }

    #[test]
    fn an_outage_that_ends_with_a_fifth_of_the_life_left_is_survived(
        seed in any::<u64>(), life in 60_u64..200_000, from in 0.0_f64..0.5,
    ) {
        let life = Duration::from_secs(life);
        let mut world = World::new(life, seed);
        let (begin, end) = (start().monotonic + life.mul_f64(from), start().monotonic + life.mul_f64(0.8));
        world.run(start().monotonic + 2 * life, |at| at.monotonic <= begin.max(start().monotonic) || at.monotonic >= end);
        prop_assert_eq!(world.expired(), 0);
    }

    #[test]
    fn retries_never_stop_and_never_come_in_a_burst(
        seed in any::<u64>(), life in 60_u64..100_000, answers in any::<u64>(),
    ) {
        let life = Duration::from_secs(life);
        let mut world = World::new(life, seed);
        let mut draws = Draws(answers);
        world.run(start().monotonic + 3 * life, |_| draws.next() < 0.3);
        let shortest = BACKOFF_MAX_FLOOR.mul_f64(0.5);
        for gap in world.gaps() {
            prop_assert!(gap >= shortest, "{gap:?}");
            prop_assert!(gap <= life.mul_f64(0.55) + BACKOFF_MAX + world.latency + SLEEP_MIN, "{gap:?}");
        }
    }

    #[test]
    fn waits_become_longer_with_failures_and_shorter_towards_the_end(draw in 0.0_f64..1.0, failures in 1_u32..40) {
        let now = after(start(), 13 * HOUR);
        let mut rotation = holding(DAY);
        rotation.failures = failures;
        let wait = rotation.backoff(now, draw);
        let full = BACKOFF_BASE.saturating_mul(1 << (failures - 1).min(6)).min(BACKOFF_MAX);
        prop_assert!(wait >= full.mul_f64(0.4999) && wait <= full, "{wait:?} of {full:?}");
        let late = rotation.backoff(after(start(), DAY - MINUTE), draw);
        prop_assert!(late <= MINUTE / BACKOFF_PART);
    }

    #[test]
    fn any_history_leaves_at_most_one_request_and_always_a_next_look(
        events in proptest::collection::vec((0_u8..5, 0_u64..100_000, -100_000_i64..100_000, 0.0_f64..1.0), 1..60),
    ) {
        let mut rotation = Rotation::new();
        let mut now = Moment { wall: start().wall + DAY, monotonic: start().monotonic };
        let mut is_open = false;
        for (kind, seconds, jump, draw) in events {
            now = after(now, Duration::from_secs(seconds));
            let by = Duration::from_secs(jump.unsigned_abs());
            let input = match kind {
                0 => Input::Tick,
                1 if is_open => Input::Failed,
                2 if is_open => Input::Issued { not_before: now.wall - BACKDATE, not_after: now.wall + by },
                3 => Input::RenewNow,
                4 => {
                    now.wall = if jump < 0 { now.wall - by } else { now.wall + by };
                    Input::Tick
                }
                _ => Input::Tick,
            };
            is_open &= !matches!(input, Input::Failed | Input::Issued { .. });
            let effects = rotation.handle(input, now, draw);
            let requests = effects.iter().filter(|effect| matches!(effect, Effect::Renew { .. })).count();
            let sleeps = effects.iter().filter(|effect| matches!(effect, Effect::Sleep(_))).count();
            prop_assert!(requests <= usize::from(!is_open));
            is_open |= requests == 1;
            prop_assert_eq!(sleeps, usize::from(!is_open));
        }
    }
}
