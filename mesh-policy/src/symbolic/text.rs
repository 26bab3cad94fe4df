//! Is there a text of a domain that is in some languages and not in others? Exactly, with the shortest one.
//!
//! Words that read well are tried first, then those that the smallest set names outright, and only then a
//! breadth-first search through the product of all machines; states that are dead or have lost are not
//! entered, so that thousands of patterns that share no beginning cost little. The search counts its steps
//! and gives up with an error, never with a wrong answer.

use std::collections::{BTreeMap, BTreeSet};

use super::Undecided;
use super::domain::{Domain, START};
use super::lang::{Lang, Run};

/// Steps that may still be taken.
#[derive(Debug)]
pub(super) struct Budget(pub(super) u64);

impl Budget {
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Undecided> {
        let steps = u64::try_from(steps).unwrap_or(u64::MAX);
        self.0 = self.0.checked_sub(steps).ok_or(Undecided::TooLarge)?;
        Ok(())
    }
}

/// What is looked for: a text in one language of each of `holds` and in none of `fails`.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) domain: &'a Domain,
    pub(super) holds: Vec<&'a [Lang]>,
    pub(super) fails: Vec<&'a [Lang]>,
    /// Tried first.
    pub(super) preferred: &'a [Vec<u8>],
}

/// Languages of `fails`, those of one text apart.
struct Fails<'a> {
    exact: BTreeSet<&'a [u8]>,
    others: Vec<&'a Lang>,
}

impl<'a> Fails<'a> {
    fn of(sets: &[&'a [Lang]]) -> Self {
        let mut fails = Self { exact: BTreeSet::new(), others: Vec::new() };
        for lang in sets.iter().copied().flatten() {
            match lang.only() {
                Some(text) => {
                    fails.exact.insert(text);
                }
                None => fails.others.push(lang),
            }
        }
        fails
    }

    fn has(&self, text: &[u8]) -> bool {
        self.exact.contains(text) || self.others.iter().any(|lang| lang.matches(text))
    }

    /// Whether it is plain to see that everything that starts so is in one of the languages.
    fn covers_prefix(&self, start: &[u8]) -> bool {
        self.others.iter().any(|lang| match lang {
            Lang::All => true,
            Lang::NonEmpty => !start.is_empty(),
            Lang::Prefix(prefix) => start.starts_with(prefix),
            _ => false,
        })
    }
}

impl Wanted<'_> {
    /// Finds such a text.
    pub(super) fn find(&self, budget: &mut Budget) -> Result<Option<Vec<u8>>, Undecided> {
        let fails = Fails::of(&self.fails);
        if fails.covers_prefix(b"") {
            return Ok(None);
        }
        budget.spend(1 + self.fails.iter().map(|set| set.len()).sum::<usize>() / 16)?;
        if let Some(word) = self.preferred.iter().find(|word| self.is_found(word, &fails)) {
            return Ok(Some(word.clone()));
        }
        let Some((smallest, rest)) = self.split() else {
            return self.search(None, &[], &fails, budget);
        };
        let mut open = Vec::new();
        for lang in smallest {
            match lang {
                Lang::Exact(text) => {
                    budget.spend(1)?;
                    if self.is_found(text, &fails) {
                        return Ok(Some(text.to_vec()));
                    }
                }
                Lang::Prefix(start) if fails.covers_prefix(start) => {}
                lang => open.push(lang),
            }
        }
        for lang in open {
            if let Some(found) = self.search(Some(lang), &rest, &fails, budget)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The smallest set of `holds`, and the others.
    fn split(&self) -> Option<(&[Lang], Vec<&[Lang]>)> {
        let at = (0..self.holds.len()).min_by_key(|at| self.holds[*at].len())?;
        let mut rest = self.holds.clone();
        let smallest = rest.swap_remove(at);
        Some((smallest, rest))
    }

    fn is_found(&self, text: &[u8], fails: &Fails<'_>) -> bool {
        self.is_in_domain(text)
            && self.holds.iter().all(|set| set.iter().any(|lang| lang.matches(text)))
            && !fails.has(text)
    }

    fn is_in_domain(&self, text: &[u8]) -> bool {
        let end = text.iter().try_fold(START, |state, byte| self.domain.step(state, *byte));
        end.is_some_and(|state| self.domain.accepts(state))
    }

    /// Searches the product of the domain, `first`, the sets of `rest` and all of `fails`.
    fn search(
        &self,
        first: Option<&Lang>,
        rest: &[&[Lang]],
        fails: &Fails<'_>,
        budget: &mut Budget,
    ) -> Result<Option<Vec<u8>>, Undecided> {
        let mut machines: Vec<(Part, &Lang)> = Vec::new();
        machines.extend(first.map(|lang| (Part::Holds(0), lang)));
        for (set, at) in rest.iter().zip(1..) {
            machines.extend(set.iter().map(|lang| (Part::Holds(at), lang)));
        }
        let sets = rest.len() + 1;
        if sets > 64 {
            return Err(Undecided::TooLarge);
        }
        let exact: Vec<Lang> = fails.exact.iter().map(|text| Lang::Exact((*text).into())).collect();
        machines.extend(fails.others.iter().map(|lang| (Part::Fails, *lang)));
        machines.extend(exact.iter().map(|lang| (Part::Fails, lang)));
        let mut alphabet = self.domain.alphabet();
        let mut known: BTreeSet<u8> = alphabet.iter().copied().collect();
        for (_, lang) in &machines {
            lang.bytes(&mut |byte| {
                if known.insert(byte) {
                    alphabet.push(byte);
                }
            });
        }
        let all = if sets == 64 { u64::MAX } else { (1 << sets) - 1 };
        let undone = if first.is_some() { all } else { all & !1 };
        Product { domain: self.domain, machines, alphabet, undone }.search(budget)
    }
}

/// What a machine is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// One of this set must take the text.
    Holds(u32),
    /// None may.
    Fails,
}

struct Product<'a> {
    domain: &'a Domain,
    machines: Vec<(Part, &'a Lang)>,
    alphabet: Vec<u8>,
    /// Sets of `holds` that are not met at the start.
    undone: u64,
}

/// A state: of the domain, of what is still to be met, and of every machine that is neither dead nor sure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    domain: u64,
    undone: u64,
    live: Vec<(u32, u64)>,
}

impl Product<'_> {
    fn search(&self, budget: &mut Budget) -> Result<Option<Vec<u8>>, Undecided> {
        let starts = self.machines.iter().zip(0_u32..).map(|((_, lang), at)| (at, lang.start()));
        let Some(start) = self.state(START, self.undone, starts) else { return Ok(None) };
        let mut seen: BTreeMap<State, usize> = BTreeMap::new();
        let mut reached: Vec<(State, usize, u8)> = vec![(start.clone(), 0, 0)];
        seen.insert(start, 0);
        let mut next = 0;
        while next < reached.len() {
            let state = reached[next].0.clone();
            if self.is_end(&state) {
                return Ok(Some(text_of(&reached, next)));
            }
            for byte in &self.alphabet {
                budget.spend(1 + state.live.len() / 4)?;
                let Some(after) = self.step(&state, *byte) else { continue };
                if !seen.contains_key(&after) {
                    seen.insert(after.clone(), reached.len());
                    reached.push((after, next, *byte));
                }
            }
            next += 1;
        }
        Ok(None)
    }

    fn step(&self, state: &State, byte: u8) -> Option<State> {
        let domain = self.domain.step(state.domain, byte)?;
        let runs = state.live.iter().map(|(at, inner)| {
            let (_, lang) = &self.machines[*at as usize];
            (*at, lang.step(*inner, byte))
        });
        self.state(domain, state.undone, runs)
    }

    /// Puts a state together; `None` when the text can no longer become one that is looked for.
    fn state(&self, domain: u64, mut undone: u64, runs: impl Iterator<Item = (u32, Run)>) -> Option<State> {
        let mut live = Vec::new();
        let mut possible = 0_u64;
        for (at, run) in runs {
            let part = self.machines[at as usize].0;
            match (run, part) {
                (Run::Dead, _) => {}
                (Run::Sure, Part::Fails) => return None,
                (Run::Sure, Part::Holds(set)) => undone &= !(1 << set),
                (Run::At(inner), Part::Fails) => live.push((at, inner)),
                (Run::At(inner), Part::Holds(set)) => {
                    possible |= 1 << set;
                    live.push((at, inner));
                }
            }
        }
        if undone & !possible != 0 {
            return None;
        }
        live.retain(|(at, _)| match self.machines[*at as usize].0 {
            Part::Holds(set) => undone >> set & 1 == 1,
            Part::Fails => true,
        });
        Some(State { domain, undone, live })
    }

    fn is_end(&self, state: &State) -> bool {
        let mut undone = state.undone;
        for (at, inner) in &state.live {
            let (part, lang) = &self.machines[*at as usize];
            if lang.accepts(Run::At(*inner)) {
                match part {
                    Part::Fails => return false,
                    Part::Holds(set) => undone &= !(1 << *set),
                }
            }
        }
        undone == 0 && self.domain.accepts(state.domain)
    }
}

fn text_of(reached: &[(State, usize, u8)], mut at: usize) -> Vec<u8> {
    let mut text = Vec::new();
    while at != 0 {
        let (_, before, byte) = &reached[at];
        text.push(*byte);
        at = *before;
    }
    text.reverse();
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::authorize::pattern::{Comparison, Patterns};
    use crate::symbolic::atom::langs_of;

    fn langs(patterns: &[String]) -> Vec<Lang> {
        langs_of(&Patterns::parse(Comparison::Text, patterns))
    }

    fn patterns() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[ab*]{1,3}", 1..4)
    }

    /// Every text of at most five characters over an alphabet that has one more than the patterns.
    fn texts() -> Vec<String> {
        let mut texts = vec![String::new()];
        let mut from = 0;
        for _ in 0..5 {
            let to = texts.len();
            for at in from..to {
                for letter in ["a", "b", "*", "c"] {
                    texts.push(format!("{}{letter}", texts[at]));
                }
            }
            from = to;
        }
        texts
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_is_found_just_when_there_is_one(
            holds in prop::collection::vec(patterns(), 0..3),
            fails in prop::collection::vec(patterns(), 0..3),
        ) {
            let (holds, fails): (Vec<_>, Vec<_>) =
                (holds.iter().map(|set| langs(set)).collect(), fails.iter().map(|set| langs(set)).collect());
            let wanted = Wanted {
                domain: &Domain::Claim,
                holds: holds.iter().map(Vec::as_slice).collect(),
                fails: fails.iter().map(Vec::as_slice).collect(),
                preferred: &[],
            };
            let found = wanted.find(&mut Budget(10_000_000)).expect("small");
            let is_in = |set: &Vec<Lang>, text: &str| set.iter().any(|lang| lang.matches(text.as_bytes()));
            let meets = |text: &str| holds.iter().all(|set| is_in(set, text)) && !fails.iter().any(|set| is_in(set, text));
            match found {
                Some(found) => prop_assert!(meets(&String::from_utf8(found).expect("text"))),
                None => prop_assert!(!texts().iter().any(|text| meets(text))),
            }
        }
    }

    #[test]
    fn what_is_too_large_is_said_and_not_guessed() {
        let many: Vec<Vec<Lang>> = (0..40)
            .map(|number| langs(&[format!("*{}a{}", "b".repeat(number), "ab".repeat(number))]))
            .collect();
        let wanted = Wanted {
            domain: &Domain::Claim,
            holds: many.iter().map(Vec::as_slice).collect(),
            fails: Vec::new(),
            preferred: &[],
        };
        assert_eq!(wanted.find(&mut Budget(10_000)), Err(Undecided::TooLarge));
    }
}
