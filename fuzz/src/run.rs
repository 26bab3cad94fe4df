//! Drives one target: seeds, regressions, then changed inputs until the end.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fastrand::Rng;

use crate::mutate::mutate;
use crate::seeds;
use crate::targets::Target;

/// Time in which any input has to be read; a parser that takes longer lets its sender stop others.
const SLOW: Duration = Duration::from_secs(2);
/// Inputs that are kept to be changed further.
const KEPT_MAX: usize = 4096;

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After that many changed inputs.
    Inputs(u64),
    /// After that time.
    Time(Duration),
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Inputs tried.
    pub inputs: u64,
    /// Different outcomes seen.
    pub outcomes: usize,
    /// The input that broke the target, made small, and what it did.
    pub broken: Option<(Vec<u8>, String)>,
}

/// Tries inputs on a target.
#[must_use]
pub fn run(target: &Target, until: Until, seed: u64) -> Outcome {
    let begun = Instant::now();
    let mut rng = Rng::with_seed(seed);
    let mut kept = (target.seeds)();
    kept.push(Vec::new());
    let first = seeds::below(&seeds::regressions(target.name)).into_iter().chain(kept.clone());
    let mut outcomes = BTreeSet::new();
    let mut inputs = 0;
    for input in first {
        inputs += 1;
        match try_one(target, &input) {
            Ok(outcome) => drop(outcomes.insert(outcome)),
            Err(what) => return broken(target, inputs, outcomes.len(), input, what),
        }
    }
    let mut changed = 0;
    loop {
        let is_over = match until {
            Until::Inputs(most) => changed >= most,
            Until::Time(time) => begun.elapsed() >= time,
        };
        if is_over {
            return Outcome { inputs, outcomes: outcomes.len(), broken: None };
        }
        changed += 1;
        inputs += 1;
        let (at, other) = (rng.usize(..kept.len()), rng.usize(..kept.len()));
        let input = mutate(&kept[at], &kept[other], &mut rng);
        match try_one(target, &input) {
            Ok(outcome) => {
                if outcomes.len() < KEPT_MAX && outcomes.insert(outcome) {
                    kept.push(input);
                }
            }
            Err(what) => return broken(target, inputs, outcomes.len(), input, what),
        }
    }
}

/// What one input comes to, or how it breaks the target.
///
/// # Errors
/// The text of the panic, or that it took too long.
pub fn try_one(target: &Target, input: &[u8]) -> Result<u64, String> {
    let begun = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(input))).map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
    })?;
    let took = begun.elapsed();
    if took > SLOW { Err(format!("took {took:?}")) } else { Ok(outcome) }
}

fn broken(target: &Target, inputs: u64, outcomes: usize, input: Vec<u8>, what: String) -> Outcome {
    let small = shrink(target, input);
    Outcome { inputs, outcomes, broken: Some((small, what)) }
}

/// Takes runs of bytes out as long as the rest still breaks the target.
fn shrink(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let begun = Instant::now();
    let mut run = input.len() / 2;
    while run > 0 && begun.elapsed() < Duration::from_secs(20) {
        let mut at = 0;
        while at < input.len() {
            let mut less = input.clone();
            less.drain(at..(at + run).min(input.len()));
            if try_one(target, &less).is_err() {
                input = less;
            } else {
                at += run;
            }
        }
        run /= 2;
    }
    input
}

/// Writes an input among the regressions.
///
/// # Errors
/// When the disk refuses.
pub fn keep(target: &Target, input: &[u8]) -> Result<PathBuf> {
    let folder = seeds::regressions(target.name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let path = folder.join(format!("{hash:016x}"));
    std::fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_target_is_found_and_made_small() {
        let target = Target {
            name: "example",
            seeds: || vec![b"some text with a % in it".to_vec()],
            read: |bytes| {
                assert!(!bytes.windows(3).any(|window| window == b"%00"), "a zero");
                bytes.len() as u64
            },
        };
        let outcome = run(&target, Until::Inputs(100_000), 1);
        let (input, what) = outcome.broken.expect("broken");
        assert_eq!((input.as_slice(), what.as_str()), (&b"%00"[..], "a zero"));
    }
}
