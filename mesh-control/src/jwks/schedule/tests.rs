use super::*;
use mesh_api::model::JwtRule;

const URL: &str = "https://idp.example/keys";
const INTERVALS: Intervals =
    Intervals { refresh: Duration::from_secs(1_200), pause: Duration::from_secs(10) };

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn wanted(urls: &[&str]) -> BTreeMap<String, Spec> {
    let rule = |url: &&str| JwtRule { jwks_uri: (*url).to_owned(), ..JwtRule::default() };
    urls.iter().filter_map(|url| Spec::of(&rule(url))).collect()
}

fn fetched(key_id: &str) -> Fetched {
    let body = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"1","y":"2","kid":"{key_id}"}}]}}"#);
    Fetched { keys: PublicKeys::parse(body.as_bytes()).expect("a key set"), fresh_for: None }
}

fn of(urls: &[&str]) -> Schedule {
    let mut schedule = Schedule::new(INTERVALS);
    schedule.want(&wanted(urls), at(0));
    schedule
}

fn due(schedule: &mut Schedule, now: Duration) -> Vec<String> {
    schedule.take_due(now, 8).into_iter().map(|(url, _)| url).collect()
}

/// Ends a fetch with the longest delay that chance allows.
fn finish(schedule: &mut Schedule, result: Result<Fetched, String>, now: Duration) -> Outcome {
    schedule.finish(URL, result, (now, SystemTime::UNIX_EPOCH), 1.0)
}

fn fail(schedule: &mut Schedule, now: Duration) -> Outcome {
    finish(schedule, Err("no connection".to_owned()), now)
}

#[test]
fn a_new_source_is_asked_at_once_and_then_in_the_interval() {
    let mut schedule = of(&[URL]);
    assert_eq!(schedule.key_set(URL), Some(KeySet { jwks: None, problem: NOT_YET.to_owned() }));
    assert_eq!(due(&mut schedule, at(0)), [URL]);
    assert!(due(&mut schedule, at(5)).is_empty(), "it is asked twice at once");
    assert_eq!(schedule.next_due(), None);
    assert_eq!(finish(&mut schedule, Ok(fetched("a")), at(1)), Outcome::Changed);
    assert_eq!(schedule.next_due(), Some(at(1_201)));
    assert_eq!(due(&mut schedule, at(1_201)), [URL]);
    assert_eq!(finish(&mut schedule, Ok(fetched("a")), at(1_202)), Outcome::Unchanged);
}

#[test]
fn a_provider_may_shorten_the_interval_but_not_below_a_minute_nor_lengthen_it() {
    for (says, expected) in [(5, 60), (300, 300), (86_400, 1_200)] {
        let mut schedule = of(&[URL]);
        due(&mut schedule, at(0));
        let answer = Fetched { fresh_for: Some(at(says)), ..fetched("a") };
        finish(&mut schedule, Ok(answer), at(0));
        assert_eq!(schedule.next_due(), Some(at(expected)), "{says}");
    }
}

#[test]
fn chance_only_brings_forward() {
    let delay = |draw| {
        let mut schedule = of(&[URL]);
        due(&mut schedule, at(0));
        schedule.finish(URL, Ok(fetched("a")), (at(0), SystemTime::UNIX_EPOCH), draw);
        schedule.next_due().expect("due")
    };
    assert_eq!((delay(0.0), delay(1.0)), (at(1_080), at(1_200)));
}

#[test]
fn failures_keep_the_keys_and_back_off_to_an_hour() {
    let mut schedule = of(&[URL]);
    due(&mut schedule, at(0));
    finish(&mut schedule, Ok(fetched("a")), at(0));
    let good = schedule.key_set(URL);
    let mut now = at(1_200);
    let mut delays = Vec::new();
    for failures in 1..=8 {
        assert_eq!(due(&mut schedule, now), [URL]);
        assert_eq!(fail(&mut schedule, now), Outcome::Failed { failures, has_keys: true });
        assert_eq!(schedule.key_set(URL), good, "a provider that is down changes something for proxies");
        let next = schedule.next_due().expect("due");
        delays.push((next - now).as_secs() / 60);
        now = next;
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(schedule.status(SystemTime::UNIX_EPOCH)[0].problem, "no connection");
    due(&mut schedule, now);
    assert_eq!(finish(&mut schedule, Ok(fetched("a")), now), Outcome::Unchanged);
    assert!(schedule.status(SystemTime::UNIX_EPOCH)[0].problem.is_empty());
}

#[test]
fn a_source_that_never_had_keys_is_tried_sooner_and_says_why_it_has_none() {
    let mut schedule = of(&[URL]);
    let (mut now, mut delays) = (at(0), Vec::new());
    for failures in 1..=14 {
        due(&mut schedule, now);
        assert_eq!(fail(&mut schedule, now), Outcome::Failed { failures, has_keys: false });
        let next = schedule.next_due().expect("due");
        delays.push((next - now).as_secs());
        now = next;
    }
    assert_eq!(delays[..4], [1, 2, 4, 8]);
    assert_eq!(delays[11..], [2_048, 3_600, 3_600]);
    assert_eq!(schedule.key_set(URL), Some(KeySet { jwks: None, problem: "no connection".to_owned() }));
}

#[test]
fn an_unknown_key_has_its_source_asked_after_a_pause_that_grows_while_nothing_comes_of_it() {
    let mut schedule = of(&[URL]);
    due(&mut schedule, at(0));
    assert_eq!(schedule.ask(URL, "b", at(0)), Asked::Granted, "a fetch is under way");
    finish(&mut schedule, Ok(fetched("a")), at(0));
    assert_eq!(schedule.ask(URL, "a", at(1)), Asked::Known);
    let (mut now, mut pauses) = (at(0), Vec::new());
    for number in 0..7 {
        // Many questions are one.
        for key in 0..100 {
            assert_eq!(schedule.ask(URL, &format!("{number}-{key}"), now), Asked::Granted);
        }
        let next = schedule.next_due().expect("due");
        pauses.push((next - now).as_secs());
        now = next;
        assert_eq!(due(&mut schedule, now), [URL]);
        assert_eq!(finish(&mut schedule, Ok(fetched("a")), now), Outcome::Unchanged);
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(schedule.ask(URL, "b", now), Asked::Granted);
    now = schedule.next_due().expect("due");
    due(&mut schedule, now);
    assert_eq!(finish(&mut schedule, Ok(fetched("b")), now), Outcome::Changed);
    assert_eq!(schedule.ask(URL, "c", now), Asked::Granted);
    assert_eq!(schedule.next_due(), Some(now + at(10)), "a rotation does not end the long pause");
}

#[test]
fn a_token_without_a_key_id_asks_too_and_nobody_asks_for_what_no_policy_uses() {
    let mut schedule = of(&[URL]);
    due(&mut schedule, at(0));
    finish(&mut schedule, Ok(fetched("")), at(0));
    assert_eq!(schedule.ask(URL, "", at(20)), Asked::Granted);
    assert_eq!(schedule.next_due(), Some(at(20)));
    assert_eq!(schedule.ask("https://other.example/", "a", at(20)), Asked::Unused);
    schedule.want(&wanted(&[]), at(21));
    assert_eq!(schedule.ask(URL, "a", at(22)), Asked::Unused);
}

#[test]
fn questions_share_a_budget_over_all_sources() {
    let urls: Vec<String> = (0..100).map(|number| format!("https://{number}.example/")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut schedule = of(&urls);
    for (url, _) in schedule.take_due(at(0), urls.len()) {
        schedule.finish(&url, Ok(fetched("a")), (at(0), SystemTime::UNIX_EPOCH), 1.0);
    }
    let granted = |schedule: &mut Schedule, now| {
        urls.iter().filter(|url| schedule.ask(url, "b", now) == Asked::Granted).count()
    };
    assert_eq!(granted(&mut schedule, at(100)), 30);
    // Those that are granted already cost nothing; five more have come back.
    assert_eq!(granted(&mut schedule, at(105)), 35);
}

#[test]
fn what_no_policy_uses_is_not_asked_and_forgotten_after_a_week() {
    let mut schedule = of(&[URL]);
    due(&mut schedule, at(0));
    finish(&mut schedule, Ok(fetched("a")), at(0));
    assert!(schedule.want(&wanted(&[]), at(100)).is_empty());
    assert_eq!(schedule.next_due(), None);
    assert!(schedule.status(SystemTime::UNIX_EPOCH).is_empty());
    // Used again, its keys are there at once, and are looked at.
    schedule.want(&wanted(&[URL]), at(200));
    assert!(schedule.key_set(URL).expect("known").jwks.is_some());
    assert_eq!(due(&mut schedule, at(200)), [URL]);
    schedule.want(&wanted(&[]), at(300));
    assert_eq!(finish(&mut schedule, Ok(fetched("b")), at(301)), Outcome::Changed);
    assert!(schedule.forget(at(299) + UNUSED_FOR).is_empty());
    assert_eq!(schedule.forget(at(300) + UNUSED_FOR), [URL]);
    assert_eq!(schedule.key_set(URL), None);
    assert_eq!(finish(&mut schedule, Ok(fetched("c")), at(400)), Outcome::Forgotten);
}

#[test]
fn the_number_of_sources_is_bounded_and_newcomers_displace_nobody() {
    let all: Vec<String> = (0..SOURCES_MAX).map(|number| format!("https://m{number}.example/")).collect();
    let mut urls: Vec<&str> = all.iter().map(String::as_str).collect();
    let mut schedule = of(&urls);
    urls.push("https://a.example/");
    schedule.want(&wanted(&urls), at(1));
    let refused = schedule.key_set("https://a.example/").expect("known");
    assert!(refused.jwks.is_none() && refused.problem.contains("no room"), "{refused:?}");
    assert_eq!(schedule.status(SystemTime::UNIX_EPOCH).len(), SOURCES_MAX + 1);
    assert!(schedule.key_set(&all[0]).is_some_and(|set| set.problem == NOT_YET));
    // Room is given when somebody goes, and of the unused only some are kept.
    let forgotten = schedule.want(&wanted(&["https://a.example/"]), at(2));
    assert_eq!(forgotten.len(), SOURCES_MAX - UNUSED_MAX);
    assert_eq!(due(&mut schedule, at(2)), ["https://a.example/"]);
}

#[test]
fn restored_keys_are_used_until_their_source_answers() {
    let mut schedule = Schedule::new(INTERVALS);
    let good = Good { keys: fetched("a").keys, seen: SystemTime::UNIX_EPOCH };
    schedule.restore(URL.to_owned(), good, at(0));
    assert!(due(&mut schedule, at(0)).is_empty(), "what no policy uses is asked");
    schedule.want(&wanted(&[URL]), at(0));
    assert_eq!(due(&mut schedule, at(0)), [URL]);
    assert_eq!(fail(&mut schedule, at(1)), Outcome::Failed { failures: 1, has_keys: true });
    assert!(schedule.key_set(URL).expect("known").jwks.is_some());
    let clock = SystemTime::UNIX_EPOCH + at(90);
    assert_eq!(schedule.status(clock)[0].age_seconds, Some(90));
}

#[test]
fn a_problem_is_cut_to_what_is_shown() {
    let mut schedule = of(&[URL]);
    due(&mut schedule, at(0));
    finish(&mut schedule, Err("ä".repeat(10_000)), at(0));
    assert!(schedule.key_set(URL).expect("known").problem.len() <= PROBLEM_BYTES_MAX);
}
